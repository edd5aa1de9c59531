package ledger_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// handed is a ledger that remembers what it gave to the lake.
type handed struct {
	*ledger.Ledger
	entries []ledger.OutboxEntry
}

func newHanded(store ledger.Store, instance string) *handed {
	h := new(handed)
	h.Ledger = ledger.New(store, ledger.Options{Instance: instance, OnRecord: func(product, row string, _ usage.Record) bool {
		h.entries = append(h.entries, ledger.OutboxEntry{Product: product, Row: row})
		return true
	}})
	return h
}

// spend makes n records that cost nothing, one after the other.
func (h *handed) spend(t *testing.T, p *quota.Product, n int) {
	t.Helper()
	for range n {
		hold, err := reserve(t.Context(), h.Ledger, p, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := settle(t.Context(), h.Ledger, hold, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func pagesOf(t *testing.T, store *watched, p *quota.Product) (n int) {
	t.Helper()
	for _, e := range store.rows(t, p.ID, "O.") {
		if strings.HasSuffix(e.Row, ".page") {
			n++
		}
	}
	return n
}

func listedOf(t *testing.T, store *watched, p *quota.Product) (n int) {
	t.Helper()
	for _, e := range store.rows(t, p.ID, "S.") {
		n += len(strings.Fields(e.Texts["Unsent00"]))
	}
	return n
}

// TestFullListsBecomePages: a lease lists UnsentMax records; with one more, they
// are a page. A page goes when the lake has all of it, and its records are
// offered again under the names that they had before.
func TestFullListsBecomePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := newHanded(store, "live")
		p := mustCreate(t, l.Ledger)
		if err := l.Acknowledge(t.Context(), l.entries); err != nil { // the Create
			t.Fatal(err)
		}
		l.entries = nil
		want := func(pages, listed int) {
			t.Helper()
			if n := pagesOf(t, store, p); n != pages {
				t.Errorf("%d pages, want %d", n, pages)
			}
			if n := listedOf(t, store, p); n != listed {
				t.Errorf("the lease lists %d, want %d", n, listed)
			}
		}
		l.spend(t, p, ledger.UnsentMax)
		want(0, ledger.UnsentMax)
		l.spend(t, p, 1)
		want(1, 1)
		l.spend(t, p, ledger.UnsentMax)
		want(2, 1)
		waiting, _, err := l.Waiting(t.Context(), p.ID)
		if n := 2*ledger.UnsentMax + 1; err != nil || len(waiting) != n {
			t.Errorf("%d wait, want %d; %v", len(waiting), n, err)
		}
		if found, err := l.Verify(t.Context(), p.ID); err != nil || len(found) > 0 {
			t.Errorf("%v, %v", found, err)
		}

		time.Sleep(11 * time.Second)
		names := map[string]bool{}
		for _, e := range l.entries {
			names[e.Row] = true
		}
		again := unsent(t, l.Ledger, 1000)
		if len(again) != len(names) {
			t.Errorf("%d entries are offered again, of %d", len(again), len(names))
		}
		for _, e := range again {
			if !names[e.Row] {
				t.Errorf("%s is offered under another name", e.Row)
			}
		}
		other := newHanded(store, "other")
		if found := unsent(t, other.Ledger, 1000); len(found) > 0 {
			t.Errorf("another process is offered %d records of a living one", len(found))
		}

		all := len(l.entries)
		if err := l.Acknowledge(t.Context(), l.entries[1:ledger.UnsentMax]); err != nil {
			t.Fatal(err)
		}
		want(2, 1)
		if err := l.Acknowledge(t.Context(), l.entries[:1]); err != nil {
			t.Fatal(err)
		}
		want(1, 1)
		if err := l.Acknowledge(t.Context(), l.entries[:all]); err != nil { // some of it once more
			t.Fatal(err)
		}
		if n := pagesOf(t, store, p); n != 0 {
			t.Errorf("%d pages are left", n)
		}
		l.spend(t, p, 1)
		want(0, 1)
	})
}

// TestPagesOfTheDead are sent by others, as its lease is, and go when that is done.
func TestPagesOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		dead := newHanded(store, "dead")
		p := mustCreate(t, dead.Ledger)
		dead.spend(t, p, 2*ledger.UnsentMax+5)
		live := newHanded(store, "live")
		if n := len(unsent(t, live.Ledger, 1000)); n != 1 { // the Create's own row
			t.Errorf("%d entries while the other may live", n)
		}
		time.Sleep(31 * time.Second)
		if _, err := live.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		records := map[string]bool{}
		for range 3 {
			entries := unsent(t, live.Ledger, 1000)
			for _, e := range entries {
				records[string(e.Record)] = true
			}
			half := len(entries) / 2
			for _, some := range [][]ledger.OutboxEntry{entries[:half], entries[half:]} {
				if err := live.Acknowledge(t.Context(), some); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(11 * time.Second)
		}
		if want := 2*ledger.UnsentMax + 6; len(records) != want {
			t.Errorf("%d records, want %d", len(records), want)
		}
		if left := append(store.rows(t, p.ID, "O."), store.rows(t, p.ID, "S.")...); len(left) != 1 { // the account
			t.Errorf("%d rows are left", len(left))
		}
	})
}

// TestPagesAreForgotten beyond what is remembered of them: they are found like
// another's.
func TestPagesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := newHanded(store, "live")
		p := mustCreate(t, l.Ledger)
		known := ledger.PagedMax / ledger.UnsentMax
		l.spend(t, p, known*ledger.UnsentMax+1)
		foreign := func() (n int) {
			for _, e := range unsent(t, l.Ledger, 1000) {
				if strings.Contains(e.Row, ".page ") {
					n++
				}
			}
			return n
		}
		if n := foreign(); n != 0 {
			t.Errorf("%d records of remembered pages are looked for", n)
		}
		l.spend(t, p, ledger.UnsentMax)
		if n := pagesOf(t, store, p); n != known+1 {
			t.Fatalf("%d pages, want %d", n, known+1)
		}
		if n := foreign(); n != ledger.UnsentMax {
			t.Errorf("%d records of forgotten pages are found, want %d", n, ledger.UnsentMax)
		}
		var again []ledger.OutboxEntry
		for range 40 {
			time.Sleep(11 * time.Second)
			again = append(again, unsent(t, l.Ledger, 1000)...)
			if err := l.Acknowledge(t.Context(), again); err != nil {
				t.Fatal(err)
			}
		}
		if n := pagesOf(t, store, p); n != 0 {
			t.Errorf("%d pages are left", n)
		}
	})
}

// TestRelayCosts is what a relay asks of the table for 1,000 records that it has
// sent: docs/benchmarks.md has the figures.
func TestRelayCosts(t *testing.T) {
	f := func(paged bool, wantTransactions, wantReads int) {
		t.Helper()
		store := newWatched()
		l := newHanded(store, "live")
		p := mustCreate(t, l.Ledger)
		if err := l.Acknowledge(t.Context(), l.entries); err != nil { // the Create
			t.Fatal(err)
		}
		l.entries = nil
		transactions, reads := 0, 0
		acknowledge := func() {
			t.Helper()
			before := 0
			store.set(func(w *watched) { before = w.applies })
			store.taken(&store.gets, "")
			if err := l.Acknowledge(t.Context(), l.entries); err != nil {
				t.Fatal(err)
			}
			store.set(func(w *watched) { transactions += w.applies - before })
			reads += len(store.taken(&store.gets, ""))
			l.entries = nil
		}
		for made := 0; made < 1000; made += 100 {
			l.spend(t, p, 100)
			if !paged {
				acknowledge()
			}
		}
		acknowledge()
		if transactions != wantTransactions || reads != wantReads {
			t.Errorf("paged %v: %d transactions and %d reads, want %d and %d", paged, transactions, reads, wantTransactions, wantReads)
		}
	}
	f(false, 0, 0)
	f(true, 1, 0)
}
