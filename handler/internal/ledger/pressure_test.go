package ledger_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// bubble runs two processes on one store, on time that passes when all wait.
func bubble(t *testing.T, do func(t *testing.T, store *memstore.Store, a, b *ledger.Ledger, p *quota.Product)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(1, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		var both [2]*ledger.Ledger
		for i, name := range []string{"a", "b"} {
			both[i] = ledger.New(store, ledger.Options{Instance: name})
			running.Go(func() { both[i].Run(ctx, false) })
		}
		do(t, store, both[0], both[1], mustCreate(t, both[0]))
		for _, l := range both {
			if err := l.Drain(ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// within asks again every second, as a client does, until it is admitted.
func within(t *testing.T, l *ledger.Ledger, p *quota.Product, amount int64, most time.Duration, meanwhile func()) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Second) {
		hold, err := reserve(t.Context(), l, p, amount, amount)
		if err == nil {
			if err := l.Void(t.Context(), hold); err != nil {
				t.Fatal(err)
			}
			return
		}
		refusedBecause(t, err, ledger.ReasonHeld)
		if time.Since(began) > most {
			t.Fatalf("refused for %v", time.Since(began))
		}
		meanwhile()
	}
}

// escrow lets a process take nearly all of the budget, and use nothing of it.
func escrow(t *testing.T, l *ledger.Ledger, p *quota.Product) {
	t.Helper()
	hold, err := reserve(t.Context(), l, p, 950, 950)
	if err != nil {
		t.Fatal(err)
	}
	if err := settle(t.Context(), l, hold, 0); err != nil {
		t.Fatal(err)
	}
}

func trickle(t *testing.T, l *ledger.Ledger, p *quota.Product) {
	t.Helper()
	hold, err := reserve(t.Context(), l, p, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := settle(t.Context(), l, hold, 0); err != nil {
		t.Fatal(err)
	}
}

func TestAProcessWithoutALeaseCallsIdleMoneyBack(t *testing.T) {
	bubble(t, func(t *testing.T, _ *memstore.Store, a, b *ledger.Ledger, p *quota.Product) {
		escrow(t, a, p)
		within(t, b, p, 500, 6*time.Second, func() { trickle(t, a, p) })
	})
}

func TestIdleMoneyIsGivenBackUnderALongStream(t *testing.T) {
	bubble(t, func(t *testing.T, _ *memstore.Store, a, b *ledger.Ledger, p *quota.Product) {
		stream, err := reserve(t.Context(), a, p, 10, 10)
		if err != nil {
			t.Fatal(err)
		}
		escrow(t, a, p)
		time.Sleep(25 * time.Second)
		within(t, b, p, 900, 0, func() {}) // nobody had to ask
		if err := settle(t.Context(), a, stream, 7); err != nil {
			t.Fatal(err)
		}
		wantClean(t, a, p)
	})
}

// TestOutage: nothing that is known is valid after some seconds. A hard
// product's requests are refused at once then, a soft one's go on, a stopped
// one's never.
func TestOutage(t *testing.T) {
	bubble(t, func(t *testing.T, store *memstore.Store, a, b *ledger.Ledger, p *quota.Product) {
		trickle(t, a, p)
		soft := *p
		soft.Enforcement = quota.EnforceSoft
		stopped := soft
		stopped.Stop = &quota.Stop{Reason: "test", Since: time.Now()}
		store.SetFaults(memstore.Faults{Down: true})
		time.Sleep(6 * time.Second)
		if _, err := reserve(t.Context(), a, p, 1, 1); !errors.Is(err, ledger.ErrUnavailable) {
			t.Fatalf("first request: %v", err)
		}
		began := time.Now()
		if _, err := reserve(t.Context(), a, p, 1, 1); !errors.Is(err, ledger.ErrUnavailable) || time.Since(began) > 2*time.Second {
			t.Errorf("in an outage: %v after %v", err, time.Since(began))
		}
		if _, err := reserve(t.Context(), b, &stopped, 1, 1); err == nil {
			t.Error("a stopped product was admitted")
		} else {
			refusedBecause(t, err, ledger.ReasonStopped)
		}
		hold, err := reserve(t.Context(), b, &soft, 5, 5)
		if err != nil {
			t.Fatal(err)
		}
		settled := make(chan error)
		go func() { settled <- settle(context.WithoutCancel(t.Context()), b, hold, 4) }()
		synctest.Wait()
		store.SetFaults(memstore.Faults{})
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
		trickle(t, a, p)
		if v := balance(t, a, p); v.Spent != 4 || v.Held != 0 {
			t.Errorf("books: %+v", v)
		}
		wantClean(t, a, p)
	})
}

// TestALeaseIsNeverTooLarge: one request more than its row has room for waits,
// or is refused for now, and harms nobody.
func TestALeaseIsNeverTooLarge(t *testing.T) {
	for _, limits := range []ledger.Limits{
		{Intents: 3, IntentBytes: 1 << 20, Unsent: 10, TxnRows: 10, TxnRowBytes: 1 << 20, Orphans: 5, Listed: 5},
		{Intents: 100, IntentBytes: 1500, Unsent: 10, TxnRows: 10, TxnRowBytes: 1 << 20, Orphans: 5, Listed: 5},
	} {
		c := newClock()
		l := ledger.New(memstore.New(1, c.now), ledger.Options{Instance: "a", Now: c.now, Limits: limits})
		p := mustCreate(t, l)
		var holds []*ledger.Hold
		for {
			hold, err := reserve(t.Context(), l, p, 1, 1)
			if errors.Is(err, ledger.ErrBusy) {
				break
			} else if err != nil || len(holds) > 50 {
				t.Fatalf("after %d: %v", len(holds), err)
			}
			holds = append(holds, hold)
		}
		if len(holds) < 2 || (limits.Intents < 50 && len(holds) != limits.Intents) {
			t.Errorf("%d requests fit", len(holds))
		}
		if err := settle(t.Context(), l, holds[0], 1); err != nil {
			t.Fatal(err)
		}
		trickle(t, l, p)
		wantClean(t, l, p)
	}
}

// TestFoldedPeriod: a change of period that has come is not the product's own
// before every clock is past it: a slow one would open an account of the new
// kind at a time that belongs to the old one.
func TestFoldedPeriod(t *testing.T) {
	c := newClock()
	store := memstore.New(1, c.now)
	l := ledger.New(store, ledger.Options{Instance: "a", Now: c.now})
	p := mustCreate(t, l)
	december := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	edit := func(change func(d *ledger.Draft)) *quota.Product {
		t.Helper()
		p, _, err := l.Edit(t.Context(), p.ID, ledger.Once{}, func(d *ledger.Draft) error { change(d); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	edit(func(d *ledger.Draft) {
		d.Product.NextPeriod = &quota.PeriodChange{From: december, Period: quota.PeriodDay, TimeZone: "UTC"}
	})
	rename := func(d *ledger.Draft) { d.Product.Name += "x" }
	c.ns.Store(december.Add(30 * time.Minute).UnixNano())
	early := edit(rename)
	if w, err := early.WindowAt(december.Add(-time.Minute)); err != nil || w.Name != "2026-11" {
		t.Errorf("a slow clock's period is %s, %v", w.Name, err)
	}
	if w, err := early.WindowAt(december.Add(time.Minute)); err != nil || w.Name != "2026-12-01" {
		t.Errorf("the period is %s, %v", w.Name, err)
	}
	c.advance(3 * time.Hour)
	if late := edit(rename); late.NextPeriod != nil || late.Period != quota.PeriodDay {
		t.Errorf("three hours later: %+v", late)
	}
}

// TestAmend: an operator corrects a swept record once, and nothing else.
func TestAmend(t *testing.T) {
	c := newClock()
	store := memstore.New(1, c.now)
	dead := ledger.New(store, ledger.Options{Instance: "dead", Now: c.now})
	p := mustCreate(t, dead)
	hold, err := reserve(t.Context(), dead, p, 70, 70)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := reserve(t.Context(), dead, p, 5, 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := settle(t.Context(), dead, whole, 5); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Minute)
	l := ledger.New(store, ledger.Options{Instance: "live", Now: c.now})
	if n, err := l.Sweep(t.Context()); n != 1 || err != nil {
		t.Fatalf("swept %d, %v", n, err)
	}
	amend := func(id string) error {
		_, err := l.Amend(t.Context(), p.ID, id, ledger.Amendment{Charge: 12, CostNanoUSD: 12, By: "operator"})
		return err
	}
	if err := amend(whole.Record.ID); !errors.Is(err, ledger.ErrNotSwept) {
		t.Errorf("a settled record: %v", err)
	}
	if err := amend("0192f0c1-0000-7000-8000-000000000000"); !errors.Is(err, ledger.ErrUnknownRecord) {
		t.Errorf("no record: %v", err)
	}
	if err := amend(hold.Record.ID); err != nil {
		t.Fatal(err)
	}
	if err := amend(hold.Record.ID); !errors.Is(err, ledger.ErrNotSwept) {
		t.Errorf("again: %v", err)
	}
	if a := balance(t, l, p); a.Spent != 17 || a.Records != 2 {
		t.Errorf("books: %+v", a)
	}
	wantClean(t, l, p)
	records, _, err := l.History(t.Context(), p.ID, ledger.HistoryQuery{Limit: 1})
	if err != nil || records[0].Kind != "config" || records[0].User != "operator" || string(records[0].RequestID) != hold.Record.ID {
		t.Errorf("the newest of the history: %+v, %v", records, err)
	}
}

// TestRevise: what a stored response cost replaces the hold it was charged at,
// once, while the lease that paid for it is open.
func TestRevise(t *testing.T) {
	c := newClock()
	l := ledger.New(memstore.New(1, c.now), ledger.Options{Instance: "one", Now: c.now})
	p := mustCreate(t, l)
	hold, err := reserve(t.Context(), l, p, 70, 70)
	if err != nil {
		t.Fatal(err)
	}
	record := hold.Record
	record.Charge, record.CostNanoUSD, record.HoldNanoUSD = usage.Of(70), usage.Of(70), usage.Of(70)
	record.UsageSource = usage.Text(usage.SourceEstimate)
	if _, err := l.Settle(t.Context(), hold, ledger.Settlement{Record: record, StoredResponse: "resp_1"}); err != nil {
		t.Fatal(err)
	}
	revise := func(response string, charge int64) (usage.Record, bool, error) {
		return l.Revise(t.Context(), p.ID, response, 33, func(r *usage.Record) error {
			r.Charge, r.CostNanoUSD, r.UsageSource = usage.Of(charge), usage.Of(charge), usage.Text(usage.SourceProvider)
			r.PromptTokens, r.CompletionTokens = usage.Of(30), usage.Of(3)
			return nil
		})
	}
	if _, _, err := revise("resp_2", 1); !errors.Is(err, ledger.ErrUnknownRecord) {
		t.Errorf("a response of nobody: %v", err)
	}
	if r, done, err := revise("resp_1", 20); err != nil || !done || r.Rev != 2 || r.Charge.N != 20 {
		t.Errorf("%+v, %v, %v", r, done, err)
	}
	if r, done, err := revise("resp_1", 5); err != nil || done || r.Charge.N != 20 {
		t.Errorf("again: %+v, %v, %v", r, done, err)
	}
	if a := balance(t, l, p); a.Spent != 20 || a.Records != 1 || a.Overruns != 0 {
		t.Errorf("books: %+v", a)
	}
	if s, owned, err := l.StoredResponse(t.Context(), p.ID, "resp_1"); err != nil || !owned || s.Tokens != 33 || s.RecordID != record.ID {
		t.Errorf("stored: %+v, %v, %v", s, owned, err)
	}
	wantClean(t, l, p)
}
