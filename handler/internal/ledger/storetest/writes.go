package storetest

import (
	"fmt"
	"testing"

	"github.com/costgate/costgate/handler/internal/ledger"
)

var writeTests = []contractTest{
	{"insert makes a row", func(s *suite) {
		s.lacks("a")
		s.apply(insert("a", 1))
		s.has("a", 1)
	}},
	{"insert of a row that exists is ErrExists", func(s *suite) {
		s.apply(insert("a", 1))
		s.refuse(0, ledger.ErrExists, insert("a", 2))
		s.has("a", 1)
	}},
	{"insert ignores an ETag left in the entity", func(s *suite) {
		op := insert("a", 1)
		op.Entity.ETag = "left"
		s.apply(op)
		s.has("a", 1)
	}},
	{"replace needs the ETag of the row", func(s *suite) {
		first := s.apply(insert("a", 1))
		second := s.apply(replace("a", first[0], 2))
		s.refuse(0, ledger.ErrConflict, replace("a", first[0], 3))
		s.has("a", 2)
		s.apply(replace("a", second[0], 4))
		s.has("a", 4)
	}},
	{"replace of a row that is not there is ErrMissing", func(s *suite) {
		etags := s.apply(insert("a", 1))
		s.apply(remove("a", etags[0]))
		s.refuse(0, ledger.ErrMissing, replace("a", etags[0], 2))
		s.refuse(0, ledger.ErrMissing, replace("a", ledger.AnyETag, 2))
		s.lacks("a")
	}},
	{"replace with AnyETag demands only that the row exists", func(s *suite) {
		s.apply(insert("a", 1))
		s.apply(replace("a", ledger.AnyETag, 2))
		s.has("a", 2)
	}},
	{"replace leaves nothing of the old row", func(s *suite) {
		s.apply(ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{
			Row: "a", Ints: map[string]int64{"N": 1, "Old": 2}, Texts: map[string]string{"Gone": "x"},
		}})
		want := ledger.Entity{Row: "a", Ints: map[string]int64{"N": 3}, Texts: map[string]string{"New": "y"}}
		op := ledger.Op{Kind: ledger.Replace, Entity: want}
		op.Entity.ETag = ledger.AnyETag
		s.apply(op)
		s.same(want, s.get("a"))
	}},
	{"delete needs the ETag of the row", func(s *suite) {
		first := s.apply(insert("a", 1))
		second := s.apply(replace("a", first[0], 2))
		s.refuse(0, ledger.ErrConflict, remove("a", first[0]))
		s.has("a", 2)
		s.apply(remove("a", second[0]))
		s.lacks("a")
	}},
	{"delete of a row that is not there is ErrMissing", func(s *suite) {
		etags := s.apply(insert("a", 1))
		s.apply(remove("a", ledger.AnyETag))
		s.refuse(0, ledger.ErrMissing, remove("a", etags[0]))
		s.refuse(0, ledger.ErrMissing, remove("a", ledger.AnyETag))
	}},
	{"every write gives a new ETag, the one that reads show", func(s *suite) {
		seen := map[string]bool{}
		note := func(etag string) {
			s.Helper()
			if seen[etag] {
				s.Errorf("ETag %s was there before", etag)
			}
			seen[etag] = true
			if got := s.get("a").ETag; got != etag {
				s.Errorf("Apply answered ETag %s, Get reads %s", etag, got)
			}
			if got := s.page("a", "b", 1).Entities[0].ETag; got != etag {
				s.Errorf("Apply answered ETag %s, Range reads %s", etag, got)
			}
		}
		note(s.apply(insert("a", 1))[0])
		for range 5 {
			note(s.apply(replace("a", s.get("a").ETag, 1))[0]) // same content, new ETag
		}
		s.apply(remove("a", ledger.AnyETag))
		note(s.apply(insert("a", 1))[0])
	}},
	{"a transaction answers one ETag for each operation, in order", func(s *suite) {
		old := s.apply(insert("c", 1), insert("d", 1))
		etags := s.apply(insert("b", 2), remove("d", old[1]), replace("c", old[0], 2), insert("a", 2))
		for i, row := range []string{"b", "", "c", "a"} {
			if row != "" && s.get(row).ETag != etags[i] {
				s.Errorf("ETag of %s is %s, Apply answered %s", row, s.get(row).ETag, etags[i])
			}
		}
		s.lacks("d")
	}},
	{"an unchanged row keeps its ETag when a transaction fails", func(s *suite) {
		etags := s.apply(insert("a", 1), insert("b", 1))
		s.refuse(1, ledger.ErrExists, replace("a", etags[0], 2), insert("b", 2))
		if got := s.get("a").ETag; got != etags[0] {
			s.Errorf("ETag is %s, was %s", got, etags[0])
		}
		s.apply(replace("a", etags[0], 3))
	}},
	{"partitions are separate", func(s *suite) {
		s.apply(insert("a", 1))
		if _, err := s.store.Apply(s.Context(), "p_2", []ledger.Op{insert("a", 2)}); err != nil {
			s.Fatal(err)
		}
		s.has("a", 1)
		s.rows(s.page("a", "z", 10), "", "a")
	}},
	{"nothing happens when an operation fails, at each position", failEach},
	{"the operations of a caller are not kept", func(s *suite) {
		op := insert("a", 1)
		s.apply(op)
		op.Entity.Ints["N"] = 2
		s.has("a", 1)
	}},
}

// failEach fails a transaction of all kinds at each of its positions.
func failEach(s *suite) {
	etags := s.apply(insert("kept", 1), insert("gone", 1), insert("taken", 1))
	stale := etags[0]
	etags[0] = s.apply(replace("kept", stale, 2))[0]
	good := []ledger.Op{insert("new1", 9), replace("kept", etags[0], 9), remove("gone", etags[1]), insert("new2", 9)}
	bad := []struct {
		op   ledger.Op
		want error
	}{
		{insert("taken", 9), ledger.ErrExists},
		{replace("none", ledger.AnyETag, 9), ledger.ErrMissing},
		{remove("none", ledger.AnyETag), ledger.ErrMissing},
		{replace("taken", stale, 9), ledger.ErrConflict},
		{remove("taken", stale), ledger.ErrConflict},
	}
	for position := range len(good) + 1 {
		for i, b := range bad {
			s.Run(fmt.Sprintf("%d-%d", position, i), func(t *testing.T) {
				inner := &suite{T: t, store: s.store}
				ops := append(append(append([]ledger.Op{}, good[:position]...), b.op), good[position:]...)
				inner.refuse(position, b.want, ops...)
				inner.lacks("new1")
				inner.lacks("new2")
				inner.lacks("none")
				inner.has("kept", 2)
				inner.has("gone", 1)
				inner.has("taken", 1)
			})
		}
	}
	s.apply(good...)
}
