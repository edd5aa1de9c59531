package ledger_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// retention is a ledger whose records a lake takes when it is told to.
type retention struct {
	t     *testing.T
	store *memstore.Store
	l     *ledger.Ledger
	mu    sync.Mutex
	fresh []ledger.OutboxEntry
}

func newRetention(t *testing.T, keep time.Duration) *retention {
	r := &retention{t: t, store: memstore.New(1, time.Now)}
	r.l = ledger.New(r.store, ledger.Options{Instance: "one", Retention: keep, OnRecord: func(product, row string, _ usage.Record) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.fresh = append(r.fresh, ledger.OutboxEntry{Product: product, Row: row})
		return true
	}})
	return r
}

// rest lets the lake take what there is, and waits until nothing is left to do.
func (r *retention) rest(lake bool) {
	r.t.Helper()
	r.mu.Lock()
	fresh := r.fresh
	r.mu.Unlock()
	if lake {
		if err := r.l.Acknowledge(r.t.Context(), fresh); err != nil {
			r.t.Fatal(err)
		}
	}
	for range 5 {
		time.Sleep(2 * time.Minute)
		r.l.Tick()
		if err := r.l.Drain(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		if _, err := r.l.Sweep(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *retention) records(product string) int {
	r.t.Helper()
	records, _, err := r.l.History(r.t.Context(), product, ledger.HistoryQuery{Limit: 1000})
	if err != nil {
		r.t.Fatal(err)
	}
	return len(records)
}

// TestRetain: what the lake has of a period that is over goes, its sum stays; what
// the lake lacks stays too.
func TestRetain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRetention(t, 0)
		p := mustCreate(t, r.l)
		sum := int64(0)
		for i := range int64(250) { // more than two transactions
			_, err := r.l.Charge(t.Context(), p, usage.Record{
				Kind: usage.KindUpdate, Charge: usage.Of(i), CostNanoUSD: usage.Of(i), PromptTokens: usage.Of(1), CompletionTokens: usage.Of(1),
			})
			if err != nil {
				t.Fatal(err)
			}
			sum += i
		}
		period, all := balance(t, r.l, p).Period, r.records(p.ID)
		later := time.Now().AddDate(1, 0, 0)
		retain := func(before time.Time, want int) {
			t.Helper()
			if n, more, err := r.l.Retain(t.Context(), p.ID, before); n != want || err != nil || more {
				t.Errorf("%d deleted, want %d; more %v, %v", n, want, more, err)
			}
			wantClean(t, r.l, p)
		}
		r.rest(false)
		retain(later, 0) // the lake has nothing
		r.rest(true)
		retain(time.Now(), 0) // the period runs
		retain(later, all)
		retain(later, 0)
		row, err := r.store.Get(t.Context(), p.ID, "S."+period+".T")
		if err != nil || row.Ints["Charge"] != sum || row.Ints["CostNanoUSD"] != sum || row.Ints["Records"] != 250 || row.Ints["Tokens"] != 500 || row.Ints["Whole"] != 1 {
			t.Errorf("total %+v, %v", row, err)
		}
		if a := balance(t, r.l, p); r.records(p.ID) != 0 || a.Spent != sum || a.Records != 250 {
			t.Errorf("%d records, account %+v", r.records(p.ID), a)
		}
	})
}

// TestSweepRetains: a sweep does it by itself, RetentionLeast behind the period at
// the earliest.
func TestSweepRetains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRetention(t, time.Hour)
		p := mustCreate(t, r.l)
		if _, err := r.l.Charge(t.Context(), p, usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(5), CostNanoUSD: usage.Of(5)}); err != nil {
			t.Fatal(err)
		}
		r.rest(true)
		end := balance(t, r.l, p).End
		f := func(to time.Time, want int) {
			t.Helper()
			time.Sleep(time.Until(to))
			if _, err := r.l.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := r.records(p.ID); n != want {
				t.Errorf("%v: %d records, want %d", to, n, want)
			}
			wantClean(t, r.l, p)
		}
		f(end.Add(ledger.RetentionLeast-time.Minute), 2)
		f(end.Add(ledger.RetentionLeast+time.Minute), 0)
	})
}

// lateRevision revises a record after the outbox was looked into.
type lateRevision struct {
	ledger.Store
	between func()
}

func (s *lateRevision) Range(ctx context.Context, partition, from, to string, limit int) (ledger.Page, error) {
	page, err := s.Store.Range(ctx, partition, from, to, limit)
	if strings.HasPrefix(from, "O.") && s.between != nil {
		between := s.between
		s.between = nil
		between()
	}
	return page, err
}

// TestRetainSeesLateRevisions: a record that is revised while its period is
// cleared stays until the lake has that too.
func TestRetainSeesLateRevisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRetention(t, 0)
		p := mustCreate(t, r.l)
		hold, err := reserve(t.Context(), r.l, p, 5, 5)
		if err != nil {
			t.Fatal(err)
		}
		record := hold.Record
		record.Charge, record.CostNanoUSD, record.UsageSource = usage.Of(5), usage.Of(5), usage.Text(usage.SourceSwept)
		if _, err := r.l.Settle(t.Context(), hold, ledger.Settlement{Record: record}); err != nil {
			t.Fatal(err)
		}
		r.rest(true)
		r.fresh = nil
		slow := &lateRevision{Store: r.store}
		second := ledger.New(slow, ledger.Options{Instance: "two"})
		slow.between = func() {
			if _, err := r.l.Amend(t.Context(), p.ID, record.ID, ledger.Amendment{Charge: 3, CostNanoUSD: 3, By: "test"}); err != nil {
				t.Error(err)
			}
		}
		if _, _, err := second.Retain(t.Context(), p.ID, time.Now().AddDate(1, 0, 0)); err != nil {
			t.Fatal(err)
		}
		kept := false
		records, _, err := r.l.History(t.Context(), p.ID, ledger.HistoryQuery{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range records {
			kept = kept || k.ID == record.ID && k.Rev == 2
		}
		if !kept {
			t.Error("the revision is gone, and the lake does not have it")
		}
		wantClean(t, r.l, p)
	})
}
