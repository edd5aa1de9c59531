package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// clock is a clock that tests move.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ns.Store(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

const key = "test-key-0123456789"

func newProduct(id string, now time.Time) (*quota.Product, error) {
	return &quota.Product{
		ID: id, Name: "Test", Keys: []quota.Key{{ID: "k_1", Hash: quota.HashKey(key), Created: now}},
		Unit: quota.UnitUSD, Budget: 1000, Created: 1000, Period: quota.PeriodMonth, TimeZone: "UTC",
		Enforcement: quota.EnforceHard, CreatedAt: now,
	}, nil
}

func mustCreate(t *testing.T, l *ledger.Ledger) *quota.Product {
	t.Helper()
	p, created, err := l.Create(t.Context(), quota.HashKey(key), ledger.Once{}, newProduct)
	if err != nil || !created {
		t.Fatalf("Create: created=%v err=%v", created, err)
	}
	return p
}

func reserve(ctx context.Context, l *ledger.Ledger, p *quota.Product, least, most int64) (*ledger.Hold, error) {
	return l.Reserve(ctx, ledger.Reservation{Product: p, Min: least, Max: most, HoldNanoUSD: usage.Of})
}

func settle(ctx context.Context, l *ledger.Ledger, hold *ledger.Hold, charge int64) error {
	r := hold.Record
	r.Charge, r.CostNanoUSD, r.UsageSource = usage.Of(charge), usage.Of(charge), usage.Text(usage.SourceProvider)
	r.Outcome = usage.Text(usage.OutcomeCompleted)
	_, err := l.Settle(ctx, hold, ledger.Settlement{Record: r})
	return err
}

func balance(t *testing.T, l *ledger.Ledger, p *quota.Product) ledger.Account {
	t.Helper()
	a, err := l.Balance(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func wantClean(t *testing.T, l *ledger.Ledger, p *quota.Product) {
	t.Helper()
	differences, err := l.Verify(context.Background(), p.ID)
	if err != nil || len(differences) > 0 {
		t.Fatalf("verify: %v, %v", differences, err)
	}
}

func refusedBecause(t *testing.T, err error, want ledger.Reason) {
	t.Helper()
	refusal := (*ledger.Refusal)(nil)
	if !errors.As(err, &refusal) || refusal.Reason != want {
		t.Fatalf("err = %v, want a refusal because %s", err, want)
	}
}

func TestReserveSettleVoid(t *testing.T) {
	c := newClock()
	l := ledger.New(memstore.New(1, c.now), ledger.Options{Instance: "a", Now: c.now})
	p := mustCreate(t, l)
	first, err := reserve(t.Context(), l, p, 600, 600)
	if err != nil {
		t.Fatal(err)
	}
	second, err := reserve(t.Context(), l, p, 100, 900)
	if err != nil || second.Amount != 400 {
		t.Fatalf("clamped hold: %+v, %v; want 400", second, err)
	}
	_, err = reserve(t.Context(), l, p, 1, 1)
	refusedBecause(t, err, ledger.ReasonHeld)
	_, err = reserve(t.Context(), l, p, 1001, 1001)
	refusedBecause(t, err, ledger.ReasonExhausted)
	if err := l.Void(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if err := settle(t.Context(), l, first, 250); err != nil {
		t.Fatal(err)
	}
	if a := balance(t, l, p); a.Spent != 250 || a.Held != 0 || a.Records != 1 {
		t.Errorf("account: %+v", a)
	}
	record, err := l.Record(t.Context(), p.ID, first.Record.ID)
	if err != nil || record.Charge != usage.Of(250) || record.Rev != 1 {
		t.Errorf("record: %+v, %v", record, err)
	}
	_, err = reserve(t.Context(), l, p, 751, 751)
	refusedBecause(t, err, ledger.ReasonExhausted)
	wantClean(t, l, p)
}

func TestSoftIsNeverRefused(t *testing.T) {
	c := newClock()
	store := memstore.New(1, c.now)
	l := ledger.New(store, ledger.Options{Instance: "a", Now: c.now})
	p, _, err := l.Create(t.Context(), quota.HashKey(key), ledger.Once{}, func(id string, now time.Time) (*quota.Product, error) {
		p, err := newProduct(id, now)
		p.Enforcement = quota.EnforceSoft
		return p, err
	})
	if err != nil {
		t.Fatal(err)
	}
	hold, err := reserve(t.Context(), l, p, 5000, 5000)
	if err != nil {
		t.Fatal(err)
	}
	if err := settle(t.Context(), l, hold, 5000); err != nil {
		t.Fatal(err)
	}
	if a := balance(t, l, p); a.Spent != 5000 {
		t.Errorf("account: %+v", a)
	}
}

// TestSoftGoesOnWithoutTheStore: its books catch up.
func TestSoftGoesOnWithoutTheStore(t *testing.T) {
	c := newClock()
	store := memstore.New(1, c.now)
	l := ledger.New(store, ledger.Options{Instance: "a", Now: c.now})
	p := mustCreate(t, l)
	soft := *p
	soft.Enforcement = quota.EnforceSoft
	store.SetFaults(memstore.Faults{Down: true})
	hold, err := reserve(t.Context(), l, &soft, 10, 10)
	if err != nil {
		t.Fatal(err)
	}
	settled := make(chan error)
	go func() { settled <- settle(context.Background(), l, hold, 7) }()
	store.SetFaults(memstore.Faults{})
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := balance(t, l, p); a.Spent != 7 || a.Held != 0 || a.Records != 1 {
		t.Errorf("account %+v", a)
	}
	wantClean(t, l, p)
}

func TestPeriodsAreAccounts(t *testing.T) {
	c := newClock()
	l := ledger.New(memstore.New(1, c.now), ledger.Options{Instance: "a", Now: c.now})
	p := mustCreate(t, l)
	november, err := reserve(t.Context(), l, p, 1000, 1000)
	if err != nil {
		t.Fatal(err)
	}
	c.advance(7 * 24 * time.Hour)
	december, err := reserve(t.Context(), l, p, 1000, 1000)
	if err != nil {
		t.Fatalf("a new period starts with the whole budget: %v", err)
	}
	for _, hold := range []*ledger.Hold{november, december} {
		if err := settle(t.Context(), l, hold, 400); err != nil {
			t.Fatal(err)
		}
	}
	if a := balance(t, l, p); a.Period != "2026-12" || a.Spent != 400 {
		t.Errorf("money in flight belongs to the period that admitted it: %+v", a)
	}
	wantClean(t, l, p)
}

func TestSweepChargesTheDeadAtTheirHold(t *testing.T) {
	c := newClock()
	store := memstore.New(1, c.now)
	dead := ledger.New(store, ledger.Options{Instance: "dead", Now: c.now})
	p := mustCreate(t, dead)
	holds := make([]*ledger.Hold, 3)
	for i := range holds {
		var err error
		if holds[i], err = reserve(t.Context(), dead, p, 100, 100); err != nil {
			t.Fatal(err)
		}
	}
	c.advance(29 * time.Second)
	live := ledger.New(store, ledger.Options{Instance: "live", Now: c.now})
	if n, err := live.Sweep(t.Context()); n != 0 || err != nil {
		t.Fatalf("swept %d before the heartbeat was old: %v", n, err)
	}
	c.advance(2 * time.Second)
	if n, err := live.Sweep(t.Context()); n != 3 || err != nil {
		t.Fatalf("swept %d: %v", n, err)
	}
	if a := balance(t, live, p); a.Spent != 300 || a.Held != 0 || a.Records != 3 {
		t.Errorf("account after the sweep: %+v", a)
	}
	record, err := live.Record(t.Context(), p.ID, holds[0].Record.ID)
	if err != nil || record.Outcome != "swept" || record.UsageSource != "swept" || record.CostNanoUSD != usage.Of(100) {
		t.Errorf("swept record: %+v, %v", record, err)
	}
	// The dead lives: its truth corrects the sweep with new revisions.
	if err := settle(t.Context(), dead, holds[0], 7); err != nil {
		t.Fatal(err)
	}
	if err := dead.Void(t.Context(), holds[1]); err != nil {
		t.Fatal(err)
	}
	if a := balance(t, live, p); a.Spent != 107 || a.Records != 3 {
		t.Errorf("account after the correction: %+v", a)
	}
	if record, _ = live.Record(t.Context(), p.ID, holds[0].Record.ID); record.Rev != 2 || record.Charge != usage.Of(7) {
		t.Errorf("corrected record: %+v", record)
	}
	wantClean(t, live, p)
}

func TestEditIsOnceAndSeen(t *testing.T) {
	c := newClock()
	store := memstore.New(1, c.now)
	one := ledger.New(store, ledger.Options{Instance: "1", Now: c.now})
	two := ledger.New(store, ledger.Options{Instance: "2", Now: c.now})
	p := mustCreate(t, one)
	if hold, err := reserve(t.Context(), two, p, 1, 1); err != nil { // two knows the account now
		t.Fatal(err)
	} else if err := settle(t.Context(), two, hold, 1); err != nil {
		t.Fatal(err)
	}
	deposit := func(d *ledger.Draft) error {
		d.Account.Budget += 500
		d.Records = []usage.Record{{Kind: usage.KindDeposit, Charge: usage.Of(-500)}}
		return nil
	}
	once := ledger.Once{Key: "deposit-1", Body: "b"}
	for i, wantDone := range []bool{true, false} {
		if _, done, err := one.Edit(t.Context(), p.ID, once, deposit); err != nil || done != wantDone {
			t.Fatalf("edit %d: done=%v err=%v", i, done, err)
		}
	}
	if _, _, err := one.Edit(t.Context(), p.ID, ledger.Once{Key: "deposit-1", Body: "other"}, deposit); !errors.Is(err, ledger.ErrOtherBody) {
		t.Fatalf("other body: %v", err)
	}
	if a := balance(t, one, p); a.Budget != 1500 || a.Spent != 1 || a.Records != 1 {
		t.Errorf("account: %+v", a)
	}
	if _, err := reserve(t.Context(), two, p, 1400, 1400); err != nil {
		t.Errorf("another process must see the deposit at once: %v", err)
	}
	stop := func(d *ledger.Draft) error {
		d.Product.Stop = &quota.Stop{Reason: "test", Since: c.now()}
		return nil
	}
	if _, _, err := one.Edit(t.Context(), p.ID, ledger.Once{}, stop); err != nil {
		t.Fatal(err)
	}
	// A process that has just read the account goes on for some seconds; the
	// simulator holds them against their bound. One that has not sees the stop.
	three := ledger.New(store, ledger.Options{Instance: "3", Now: c.now})
	_, err := reserve(t.Context(), three, p, 1, 1)
	refusedBecause(t, err, ledger.ReasonStopped)
	wantClean(t, one, p)
}

func TestChargeOnce(t *testing.T) {
	c := newClock()
	l := ledger.New(memstore.New(1, c.now), ledger.Options{Instance: "a", Now: c.now})
	p := mustCreate(t, l)
	record := usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(5000), CostNanoUSD: usage.Of(5000)}
	var wg sync.WaitGroup
	var times atomic.Int64
	for range 20 {
		wg.Go(func() {
			done, err := l.Charge(context.Background(), p, record, ledger.Once{Key: "response:x"})
			if err != nil {
				t.Error(err)
			}
			if done {
				times.Add(1)
			}
		})
	}
	wg.Wait()
	if a := balance(t, l, p); times.Load() != 1 || a.Spent != 5000 {
		t.Errorf("charged %d times: %+v", times.Load(), a)
	}
	_, err := reserve(t.Context(), l, p, 1, 1)
	refusedBecause(t, err, ledger.ReasonExhausted)
}

func TestHistoryPages(t *testing.T) {
	c := newClock()
	l := ledger.New(memstore.New(1, c.now), ledger.Options{Instance: "a", Now: c.now})
	p := mustCreate(t, l)
	var ids []string
	for range 5 {
		c.advance(time.Second)
		hold, err := reserve(t.Context(), l, p, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := settle(t.Context(), l, hold, 1); err != nil {
			t.Fatal(err)
		}
		ids = append([]string{hold.Record.ID}, ids...)
	}
	f := func(q ledger.HistoryQuery, wantMore bool, want ...string) {
		t.Helper()
		records, more, err := l.History(t.Context(), p.ID, q)
		got := make([]string, len(records))
		for i, r := range records {
			got[i] = r.ID
		}
		if err != nil || more != wantMore || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v: %v more=%v err=%v; want %v more=%v", q, got, more, err, want, wantMore)
		}
	}
	f(ledger.HistoryQuery{Limit: 2}, true, ids[:2]...)
	f(ledger.HistoryQuery{Limit: 2, After: ids[1]}, true, ids[2:4]...)
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	f(ledger.HistoryQuery{Limit: 9, From: start.Add(2 * time.Second), To: start.Add(4 * time.Second)}, false, ids[2], ids[3])
	f(ledger.HistoryQuery{Limit: 9, From: start.Add(time.Hour)}, false)
}

// TestChaos runs several processes on one store that loses, delays and repeats
// messages, and compares the books with what really happened.
func TestChaos(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			chaos(t, seed)
		})
	}
}

func chaos(t *testing.T, seed uint64) {
	c := newClock()
	store := memstore.New(seed, c.now)
	processes := make([]*ledger.Ledger, 3)
	for i := range processes {
		processes[i] = ledger.New(store, ledger.Options{Instance: fmt.Sprint("p", i), Now: c.now})
	}
	p := mustCreate(t, processes[0])
	store.SetFaults(memstore.Faults{LoseRequest: 5, LoseAnswer: 8, Late: 8, Twice: 8})
	var spent, admitted, running, worst atomic.Int64
	var wg sync.WaitGroup
	for worker := range 24 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(worker)))
			l := processes[worker%len(processes)]
			for range 15 {
				most := 1 + random.Int64N(60)
				hold, err := reserve(context.Background(), l, p, 1+random.Int64N(most), most)
				if err != nil {
					if !errors.As(err, new(*ledger.Refusal)) && !errors.Is(err, ledger.ErrUnavailable) {
						t.Error(err)
					}
					continue
				}
				exposure := running.Add(hold.Amount) + spent.Load()
				for w := worst.Load(); exposure > w; w = worst.Load() {
					if worst.CompareAndSwap(w, exposure) {
						break
					}
				}
				if random.IntN(5) == 0 {
					running.Add(-hold.Amount)
					if err := l.Void(context.Background(), hold); err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					continue
				}
				cost := random.Int64N(hold.Amount + 1)
				admitted.Add(1)
				spent.Add(cost)
				running.Add(-hold.Amount)
				if err := settle(context.Background(), l, hold, cost); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err) // a deadline only ends the wait
				}
			}
		})
	}
	wg.Wait()
	store.SetFaults(memstore.Faults{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, l := range processes {
		if err := l.Drain(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if a := balance(t, processes[0], p); a.Spent != spent.Load() || a.Held != 0 || a.Records != admitted.Load() || a.Spent > 1000 {
		t.Errorf("account %+v; really spent %d by %d requests", a, spent.Load(), admitted.Load())
	}
	if worst.Load() > 1000 {
		t.Errorf("exposure reached %d of 1000", worst.Load())
	}
	wantClean(t, processes[0], p)
}
