package ledger_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// noticing is some processes on one table that want to know of crossings.
type noticing struct {
	t     *testing.T
	store *memstore.Store
	all   []*ledger.Ledger
	p     *quota.Product
	mu    sync.Mutex
	calls int
}

func newNoticing(t *testing.T, processes int, change func(*quota.Product)) *noticing {
	t.Helper()
	n := &noticing{t: t, store: memstore.New(1, time.Now)}
	for i := range processes {
		n.all = append(n.all, ledger.New(n.store, ledger.Options{Instance: fmt.Sprint(i), OnCrossing: func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.calls++
		}}))
	}
	p, _, err := n.all[0].Create(t.Context(), quota.HashKey(key), ledger.Once{}, func(id string, now time.Time) (*quota.Product, error) {
		p, err := newProduct(id, now)
		p.NotifyAtPPM = []int64{500_000, 800_000, 900_000, 1_000_000}
		if change != nil {
			change(p)
		}
		return p, err
	})
	if err != nil {
		t.Fatal(err)
	}
	n.p = p
	return n
}

func (n *noticing) spend(process int, charge int64) {
	n.t.Helper()
	hold, err := reserve(n.t.Context(), n.all[process], n.p, charge, charge)
	if err == nil {
		err = settle(n.t.Context(), n.all[process], hold, charge)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// claimed claims all that waits, and returns it.
func (n *noticing) claimed() (all []*ledger.Crossing) {
	n.t.Helper()
	waiting, err := n.all[0].WaitingCrossings(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, w := range waiting {
		if w.In > 0 {
			continue
		}
		c, err := n.all[0].ClaimCrossing(n.t.Context(), w, time.Minute)
		if err != nil || c == nil {
			n.t.Fatalf("claim: %v, %v", c, err)
		}
		all = append(all, c)
	}
	return all
}

func shares(all []*ledger.Crossing) (ppm []int64) {
	for _, c := range all {
		ppm = append(ppm, c.AtPPM)
	}
	return ppm
}

func (n *noticing) want(ppm ...int64) []*ledger.Crossing {
	n.t.Helper()
	synctest.Wait()
	all := n.claimed()
	if got := shares(all); !slices.Equal(got, ppm) {
		n.t.Fatalf("crossed %v, want %v", got, ppm)
	}
	return all
}

// TestCrossing: a share is crossed once in a period, with the numbers of then.
func TestCrossing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNoticing(t, 1, nil)
		n.spend(0, 499)
		n.want()
		n.spend(0, 1)
		now := time.Now()
		c := n.want(500_000)[0]
		if id, err := uuid.Parse(c.ID); err != nil || id.Version() != 8 {
			t.Errorf("id %q: %v", c.ID, err)
		}
		window, _ := n.p.WindowAt(now)
		got := *c
		got.ID = ""
		want := ledger.Crossing{
			ProductID: n.p.ID, Product: "Test", Period: window.Name, Start: window.Start, End: window.End,
			Unit: quota.UnitUSD, Budget: 1000, Spent: 500, AtPPM: 500_000, State: "open", Time: now.UTC(), Attempts: 1,
		}
		if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool {
			return p.Last().String() == ".row" || p.Last().String() == ".etag"
		}, cmp.Ignore()), cmp.AllowUnexported(ledger.Crossing{})); diff != "" {
			t.Error(diff)
		}
		n.spend(0, 100)
		n.want()
		n.spend(0, 400) // three at once
		for _, c := range n.want(800_000, 900_000, 1_000_000) {
			if c.State != "exhausted" || c.Spent != 1000 {
				t.Errorf("crossing %+v", c)
			}
		}
		time.Sleep(2 * time.Minute)
		if _, err := n.all[0].Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n.calls != 4 {
			t.Errorf("%d calls, want 4", n.calls)
		}
	})
}

// TestCrossingOfProcesses: what each has spent does not reach the share, both
// together do. One that is in use sees it within seconds; a sweep sees it in any
// case.
func TestCrossingOfProcesses(t *testing.T) {
	for _, sweeps := range []bool{true, false} {
		t.Run(fmt.Sprintf("sweep %v", sweeps), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNoticing(t, 2, nil)
				holds := make([]*ledger.Hold, 2)
				for i, l := range n.all { // both see what the other has taken, and then not what it has spent
					hold, err := reserve(t.Context(), l, n.p, 300, 300)
					if err != nil {
						t.Fatal(err)
					}
					holds[i] = hold
				}
				for i, l := range n.all {
					if err := settle(t.Context(), l, holds[i], 300); err != nil {
						t.Fatal(err)
					}
				}
				n.want()
				if sweeps {
					for range 2 { // both find it
						if _, err := n.all[0].Sweep(t.Context()); err != nil {
							t.Fatal(err)
						}
						n.all[1].Sweep(t.Context())
					}
				} else {
					for range 20 {
						time.Sleep(500 * time.Millisecond)
						n.all[0].Tick()
						n.all[1].Tick()
					}
				}
				n.want(500_000)
				if n.calls != 1 {
					t.Errorf("%d calls", n.calls)
				}
				for _, l := range n.all {
					if err := l.Drain(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// TestCrossingByEdit: a lowered budget crosses at once; a raised one does not
// undo, and its share is not told of again.
func TestCrossingByEdit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNoticing(t, 1, nil)
		budget := func(amount int64, at ...int64) {
			t.Helper()
			_, _, err := n.all[0].Edit(t.Context(), n.p.ID, ledger.Once{}, func(d *ledger.Draft) error {
				d.Product.Budget, d.Account.Budget = amount, amount
				if at != nil {
					d.Product.NotifyAtPPM = at
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		n.spend(0, 400)
		n.want()
		budget(800)
		first := n.want(500_000)[0]
		if first.Budget != 800 || first.Spent != 400 {
			t.Errorf("crossing %+v", first)
		}
		if err := n.all[0].EndCrossing(t.Context(), first, "delivered"); err != nil {
			t.Fatal(err)
		}
		budget(10_000)
		time.Sleep(10 * time.Second)
		n.all[0].Tick()
		n.want()
		n.spend(0, 4600) // half of it once more
		n.want()
		budget(10_000, 400_000) // a share that was crossed long ago
		n.want(400_000)
		budget(0)
		n.want()
	})
}

// TestCrossingLater: spending that no process of now has seen is found by a sweep,
// a day behind its period's end at most.
func TestCrossingLater(t *testing.T) {
	f := func(later time.Duration, want ...int64) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			n := newNoticing(t, 1, func(p *quota.Product) { p.Period, p.Unit = quota.PeriodDay, quota.UnitTokens })
			silent := ledger.New(n.store, ledger.Options{Instance: "silent"})
			if _, err := silent.Charge(t.Context(), n.p, usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(850)}); err != nil {
				t.Fatal(err)
			}
			n.want()
			time.Sleep(later) // bubbles begin at midnight
			if _, err := n.all[0].Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, c := range n.want(want...) {
				if c.Unit != quota.UnitTokens {
					t.Errorf("unit %s", c.Unit)
				}
			}
			if err := silent.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
	f(time.Minute, 500_000, 800_000)
	f(48*time.Hour, 500_000, 800_000)
	f(48*time.Hour + time.Second)
}

// TestCrossingClaims: a claim is one process's until it runs out by the store's
// clock; what has ended does not come back.
func TestCrossingClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNoticing(t, 2, nil)
		n.spend(0, 500)
		synctest.Wait()
		waiting := func() ledger.WaitingCrossing {
			t.Helper()
			w, err := n.all[1].WaitingCrossings(t.Context())
			if err != nil || len(w) != 1 {
				t.Fatalf("waiting: %v, %v", w, err)
			}
			return w[0]
		}
		seen := waiting()
		first, err := n.all[0].ClaimCrossing(t.Context(), seen, 20*time.Second)
		if err != nil || first == nil {
			t.Fatal(first, err)
		}
		if second, err := n.all[1].ClaimCrossing(t.Context(), seen, 20*time.Second); err != nil || second != nil {
			t.Fatalf("claimed twice: %v, %v", second, err)
		}
		if w := waiting(); w.In != 20*time.Second || w.Attempts != 1 {
			t.Errorf("waiting %+v", w)
		}
		time.Sleep(20 * time.Second)
		second, err := n.all[1].ClaimCrossing(t.Context(), waiting(), 20*time.Second)
		if err != nil || second == nil || second.ID != first.ID || second.Attempts != 2 {
			t.Fatalf("second claim: %+v, %v", second, err)
		}
		if err := n.all[0].PostponeCrossing(t.Context(), first, time.Hour); err != nil { // its claim has run out
			t.Fatal(err)
		}
		if w := waiting(); w.In != 20*time.Second {
			t.Errorf("waiting %+v", w)
		}
		if err := n.all[1].PostponeCrossing(t.Context(), second, time.Second); err != nil {
			t.Fatal(err)
		}
		if w := waiting(); w.In != time.Second || w.Attempts != 2 {
			t.Errorf("waiting %+v", w)
		}
		for _, c := range []*ledger.Crossing{first, second} { // both were told
			if err := n.all[0].EndCrossing(t.Context(), c, "delivered"); err != nil {
				t.Fatal(err)
			}
		}
		n.want()
	})
}

// TestCrossingsAreCollected 60 days behind the end of their period, if they were
// told; those of a total stay.
func TestCrossingsAreCollected(t *testing.T) {
	f := func(period quota.PeriodKind, told bool, want int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			n := newNoticing(t, 1, func(p *quota.Product) { p.Period = period })
			n.spend(0, 500)
			if c := n.want(500_000)[0]; told {
				if err := n.all[0].EndCrossing(t.Context(), c, "delivered"); err != nil {
					t.Fatal(err)
				}
			}
			rows := func() int {
				page, err := n.store.Range(t.Context(), "crossings", "N.", "O", 100)
				if err != nil {
					t.Fatal(err)
				}
				return len(page.Entities)
			}
			sweep := func() {
				t.Helper()
				if _, err := n.all[0].Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(61 * 24 * time.Hour) // bubbles begin at midnight of a first
			sweep()
			if rows() != 1 {
				t.Fatalf("%d rows on the 60th day", rows())
			}
			time.Sleep(24*time.Hour + time.Second)
			sweep()
			if rows() != want {
				t.Errorf("%s, told %v: %d rows behind the 60th day, want %d", period, told, rows(), want)
			}
		})
	}
	f(quota.PeriodDay, true, 0)
	f(quota.PeriodDay, false, 1)
	f(quota.PeriodTotal, true, 1)
}

// TestCrossingsThroughFaults: messages get lost, come late and twice, and the
// process dies and comes back; each share has one row.
func TestCrossingsThroughFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNoticing(t, 3, func(p *quota.Product) { p.Enforcement = quota.EnforceSoft })
		n.store.SetFaults(memstore.Faults{LoseRequest: 10, LoseAnswer: 10, Late: 5, Twice: 10})
		var tasks sync.WaitGroup
		for i := range 60 {
			tasks.Go(func() {
				hold, err := reserve(context.Background(), n.all[i%3], n.p, 20, 20)
				if err == nil {
					_ = settle(context.Background(), n.all[i%3], hold, 20)
				}
			})
		}
		tasks.Wait()
		for range 5 {
			time.Sleep(time.Minute)
			for _, l := range n.all {
				l.Tick()
				_, _ = l.Sweep(t.Context())
			}
		}
		n.store.SetFaults(memstore.Faults{})
		for _, l := range n.all {
			if err := l.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, _ = l.Sweep(t.Context())
		}
		n.want(500_000, 800_000, 900_000, 1_000_000)
	})
}

// TestNobodyWantsToKnow: without a receiver nothing is stored.
func TestNobodyWantsToKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNoticing(t, 1, nil)
		n.all[0] = ledger.New(n.store, ledger.Options{Instance: "silent"})
		n.spend(0, 1000)
		if _, err := n.all[0].Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.want()
		if page, err := n.store.Range(t.Context(), "crossings", "A", "Z", 10); err != nil || len(page.Entities) > 0 {
			t.Errorf("rows: %v, %v", page.Entities, err)
		}
	})
}
