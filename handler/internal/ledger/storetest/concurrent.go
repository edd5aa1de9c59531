package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/costgate/costgate/handler/internal/ledger"
)

var concurrentTests = []contractTest{
	{"one of many equal inserts happens", func(s *suite) {
		var happened atomic.Int32
		inParallel(8, func(i int) {
			switch _, err := s.store.Apply(s.Context(), part, []ledger.Op{insert("a", int64(i))}); {
			case err == nil:
				happened.Add(1)
			case !errors.Is(err, ledger.ErrExists):
				s.Error(err)
			}
		})
		if happened.Load() != 1 {
			s.Errorf("%d inserts happened", happened.Load())
		}
	}},
	{"compare and swap by 8 writers ends exact", casEndsExact},
	{"readers see all of a transaction or nothing", seeAllOrNothing},
	{"a write that was answered is what every reader finds", func(s *suite) {
		inParallel(4, func(i int) {
			row := rowName(i)
			if _, err := s.store.Apply(s.Context(), part, []ledger.Op{insert(row, 0)}); err != nil {
				s.Error(err)
				return
			}
			for n := int64(1); n <= 20; n++ {
				if _, err := s.store.Apply(s.Context(), part, []ledger.Op{replace(row, ledger.AnyETag, n)}); err != nil {
					s.Error(err)
					return
				}
				e, err := s.store.Get(s.Context(), part, row)
				if err != nil || e.Ints["N"] != n {
					s.Errorf("wrote %d, read %d, %v", n, e.Ints["N"], err)
				}
			}
		})
	}},
}

func inParallel(n int, do func(i int)) {
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { do(i) })
	}
	wait.Wait()
}

// casEndsExact counts in a row and lists each count as a row of its own, in one
// transaction, as the ledger does.
func casEndsExact(s *suite) {
	const writers, each = 8, 8
	s.apply(insert("counter", 0))
	inParallel(writers, func(writer int) {
		for done := 0; done < each; {
			e, err := s.store.Get(s.Context(), part, "counter")
			if err != nil {
				s.Error(err)
				return
			}
			n := e.Ints["N"]
			_, err = s.store.Apply(s.Context(), part, []ledger.Op{
				replace("counter", e.ETag, n+1), insert(fmt.Sprintf("r.%d.%d", writer, done), n+1),
			})
			var op *ledger.OpError
			switch {
			case err == nil:
				done++
			case !errors.Is(err, ledger.ErrConflict) || !errors.As(err, &op) || op.Index != 0:
				s.Error(err)
				return
			}
		}
	})
	s.has("counter", writers*each)
	seen := map[int64]bool{}
	for _, e := range s.page("r.", "s", ledger.PageMax).Entities {
		if n := e.Ints["N"]; seen[n] {
			s.Errorf("count %d twice", n)
		}
		seen[e.Ints["N"]] = true
	}
	if len(seen) != writers*each {
		s.Errorf("%d counts listed, want %d", len(seen), writers*each)
	}
}

// seeAllOrNothing replaces rows in one transaction while readers take pages: a
// page must hold the same number in all rows, and never an older one than before.
func seeAllOrNothing(s *suite) {
	const rows, rounds = 10, 40
	s.fill(rows)
	write := func(n int64) {
		var ops []ledger.Op
		for i := range rows {
			ops = append(ops, replace(rowName(i), ledger.AnyETag, n))
		}
		if _, err := s.store.Apply(s.Context(), part, ops); err != nil {
			s.Error(err)
		}
	}
	write(0)
	ctx, stop := context.WithCancel(s.Context())
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			for last := int64(0); ctx.Err() == nil; {
				page, err := s.store.Range(s.Context(), part, "r", "s", ledger.PageMax)
				if err != nil || len(page.Entities) != rows {
					s.Errorf("%d rows, %v", len(page.Entities), err)
					return
				}
				n := page.Entities[0].Ints["N"]
				for _, e := range page.Entities {
					if e.Ints["N"] != n {
						s.Errorf("half a transaction: %s has %d, the first row has %d", e.Row, e.Ints["N"], n)
						return
					}
				}
				if n < last {
					s.Errorf("went back from %d to %d", last, n)
				}
				last = n
			}
		})
	}
	for n := range int64(rounds) {
		write(n + 1)
	}
	stop()
	wait.Wait()
}
