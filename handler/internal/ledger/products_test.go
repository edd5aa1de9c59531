package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
)

// slowStore takes its time to fail.
type slowStore struct {
	ledger.Store
	down  atomic.Bool
	after atomic.Int64 // ns until a read fails
	gets  atomic.Int64
}

func (s *slowStore) Get(ctx context.Context, partition, row string) (ledger.Entity, error) {
	if !s.down.Load() {
		return s.Store.Get(ctx, partition, row)
	}
	s.gets.Add(1)
	select {
	case <-time.After(time.Duration(s.after.Load())):
		return ledger.Entity{}, fmt.Errorf("down: %w", ledger.ErrUnavailable)
	case <-ctx.Done():
		return ledger.Entity{}, fmt.Errorf("down: %w: %w", ledger.ErrUnavailable, ctx.Err())
	}
}

// keyBench runs in a bubble: its time is not the machine's.
func keyBench(t *testing.T) (*slowStore, *ledger.Ledger, *quota.Product) {
	t.Helper()
	s := &slowStore{Store: memstore.New(1, time.Now)}
	l := ledger.New(s, ledger.Options{Instance: "test"})
	return s, l, mustCreate(t, l)
}

// lookup looks a key up n times at once, and says how long the slowest took.
func lookup(l *ledger.Ledger, n int) (slowest time.Duration, products int, errs []error) {
	type answer struct {
		took time.Duration
		err  error
	}
	answers := make(chan answer)
	for range n {
		go func() {
			began := time.Now()
			_, _, err := l.ProductByKey(context.Background(), key)
			answers <- answer{time.Since(began), err}
		}()
	}
	for range n {
		a := <-answers
		slowest = max(slowest, a.took)
		if a.err == nil {
			products++
		} else {
			errs = append(errs, a.err)
		}
	}
	return slowest, products, errs
}

// TestKeyInAnOutage: requests that wait for a read of their key share its
// failure, and go on with what is known; those that follow do not wait.
func TestKeyInAnOutage(t *testing.T) {
	f := func(name string, fails, first, later time.Duration) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l, _ := keyBench(t)
				if _, n, _ := lookup(l, 1); n != 1 {
					t.Fatal("the key is unknown")
				}
				time.Sleep(6 * time.Second)
				s.after.Store(int64(fails))
				s.down.Store(true)
				if took, n, errs := lookup(l, 10); took > first || n != 10 {
					t.Errorf("at first: %v, %d products, %v; want %v", took, n, errs, first)
				}
				if gets := s.gets.Load(); gets != 1 {
					t.Errorf("%d reads, want 1", gets)
				}
				for range 60 {
					time.Sleep(500 * time.Millisecond)
					if took, n, errs := lookup(l, 10); took > later || n != 10 {
						t.Errorf("later: %v, %d products, %v; want %v", took, n, errs, later)
					}
				}
				if gets := s.gets.Load(); gets < 3 || gets > 31 {
					t.Errorf("%d reads in 30 s", gets)
				}
				s.down.Store(false)
				time.Sleep(9 * time.Second) // what was on its way ends
				if took, n, _ := lookup(l, 1); took > 0 || n != 1 {
					t.Errorf("after it: %v, %d products", took, n)
				}
				synctest.Wait()
			})
		})
	}
	f("reads fail at once", 0, 0, 0)
	f("reads fail after 1 s", time.Second, time.Second, 0)
	f("reads are never answered", time.Hour, 2*time.Second, 0)
}

func TestKeyNeverReadInAnOutage(t *testing.T) {
	f := func(name string, fails, first time.Duration, reads int64) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l, _ := keyBench(t)
				s.after.Store(int64(fails))
				s.down.Store(true)
				took, n, errs := lookup(l, 10)
				if took > first || n != 0 {
					t.Errorf("at first: %v, %d products; want %v", took, n, first)
				}
				took, n, more := lookup(l, 10) // that read has failed, or goes on
				if took > 0 || n != 0 {
					t.Errorf("again: %v, %d products", took, n)
				}
				for _, err := range append(errs, more...) {
					if !errors.Is(err, ledger.ErrUnavailable) {
						t.Errorf("error %v", err)
					}
				}
				if gets := s.gets.Load(); gets != reads {
					t.Errorf("%d reads, want %d", gets, reads)
				}
				s.down.Store(false)
				time.Sleep(10 * time.Second)
				if _, n, errs := lookup(l, 1); n != 1 {
					t.Errorf("after it: %v", errs)
				}
			})
		})
	}
	f("reads fail at once", 0, 0, 1)
	f("reads fail after 1 s", time.Second, time.Second, 1)
	f("reads are never answered", time.Hour, 3*time.Second, 1)
}

// TestKeyIsStaleOnlyInAnOutage: what is known of a key is used for 10 minutes at
// most, and not at all when the store says otherwise.
func TestKeyIsStaleOnlyInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, p := keyBench(t)
		if _, n, _ := lookup(l, 1); n != 1 {
			t.Fatal("the key is unknown")
		}
		s.down.Store(true)
		time.Sleep(11 * time.Minute)
		if _, _, errs := lookup(l, 1); len(errs) != 1 || !errors.Is(errs[0], ledger.ErrUnavailable) {
			t.Errorf("after 11 minutes: %v", errs)
		}
		s.down.Store(false)
		time.Sleep(time.Minute)
		if _, n, errs := lookup(l, 1); n != 1 {
			t.Errorf("the store is back: %v", errs)
		}
		other := ledger.New(s, ledger.Options{Instance: "other"})
		_, _, err := other.Edit(t.Context(), p.ID, ledger.Once{}, func(d *ledger.Draft) error {
			d.RevokeKey, d.Product.Keys = quota.HashKey(key), nil
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if _, n, errs := lookup(l, 10); n != 0 || !errors.Is(errs[0], ledger.ErrUnknownKey) {
			t.Errorf("a revoked key: %d products, %v", n, errs)
		}
	})
}

func TestKeyOfACallerThatLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, _ := keyBench(t)
		s.after.Store(int64(time.Second))
		s.down.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if _, _, err := l.ProductByKey(ctx, key); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if took, _, _ := lookup(l, 1); took != 999*time.Millisecond { // the read went on for others
			t.Errorf("took %v", took)
		}
	})
}
