package ledger_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

func names(entries []ledger.OutboxEntry) []string {
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Product + " " + e.Row
	}
	return list
}

func unsent(t *testing.T, l *ledger.Ledger, limit int) []ledger.OutboxEntry {
	t.Helper()
	entries, err := l.Unsent(t.Context(), limit)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// TestUnsentReachesAllProducts: with more products than one call can read, every
// entry is returned, by two calls in a row: the relay passes over what it sees
// for the first time.
func TestUnsentReachesAllProducts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := ledger.New(store, ledger.Options{Instance: "live"})
		products := createMany(t, l, 60) // each has the entry of its Create
		store.set(func(w *watched) { w.latency = time.Second })
		ripe := map[string]bool{}
		last := map[string]bool{}
		calls := 0
		for ; len(ripe) < len(products) && calls < 40; calls++ {
			began := time.Now()
			seen := map[string]bool{}
			for _, e := range unsent(t, l, 2000) {
				name := e.Product + " " + e.Row
				seen[name] = true
				if last[name] {
					ripe[name] = true
				}
				if !strings.Contains(string(e.Record), `"kind":"create"`) {
					t.Errorf("%s: %s", name, e.Record)
				}
			}
			last = seen
			if took := time.Since(began); took > 25*time.Second {
				t.Errorf("a call took %v", took)
			}
			time.Sleep(3 * time.Second)
		}
		if len(ripe) < len(products) || calls < 3 {
			t.Errorf("%d of %d products after %d calls", len(ripe), len(products), calls)
		}
	})
}

// TestUnsentReadsARecordOnce in the time in which its reader has it anyway.
func TestUnsentReadsARecordOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		live := ledger.New(store, ledger.Options{Instance: "live"})
		p := mustCreate(t, live)
		dead := ledger.New(store, ledger.Options{Instance: "dead"})
		for range 30 {
			hold, err := reserve(t.Context(), dead, p, 5, 5)
			if err != nil {
				t.Fatal(err)
			}
			if err := settle(t.Context(), dead, hold, 5); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(31 * time.Second)
		if _, err := live.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		store.taken(&store.gets, "")
		look := func(wantEntries, wantReads int) {
			t.Helper()
			entries := unsent(t, live, 100)
			if reads := store.taken(&store.gets, "U."); len(entries) != wantEntries || len(reads) != wantReads {
				t.Errorf("%d entries, %d reads; want %d, %d", len(entries), len(reads), wantEntries, wantReads)
			}
		}
		const all = 31 // with the Create
		for range 3 {
			look(all, 1) // the list of the closed lease is read together
			time.Sleep(3 * time.Second)
			look(all, 0)
			for range 3 {
				time.Sleep(3 * time.Second)
				look(0, 0)
			}
			time.Sleep(3 * time.Second)
		}
		look(all, 1)
		if err := live.Acknowledge(t.Context(), unsent(t, live, 100)); err != nil {
			t.Fatal(err)
		}
		if left := len(store.rows(t, p.ID, "S.")) + len(store.rows(t, p.ID, "O.")); left != 1 {
			t.Errorf("%d rows are left, beside the account", left-1)
		}
		time.Sleep(30 * time.Second)
		look(0, 0)
	})
}

// TestUnsentIsBounded: a call reads at most 1,000 records, whatever is asked for,
// and no entry hides those behind it.
func TestUnsentIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := ledger.New(store, ledger.Options{Instance: "live"})
		p := mustCreate(t, l)
		record := store.rows(t, p.ID, "U.")[0].Row
		const more = 2999
		for i := 0; i < more; i += 100 {
			var ops []ledger.Op
			for j := i; j < min(more, i+100); j++ {
				ops = append(ops, ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: fmt.Sprintf("O.x%06d", j), Texts: map[string]string{"Usage": record}}})
			}
			apply(t, store, p.ID, ops...)
		}
		seen := map[string]int{}
		for range 6 {
			entries := unsent(t, l, 20_000)
			if len(entries) > 1000 {
				t.Errorf("%d entries", len(entries))
			}
			for _, name := range names(entries) {
				seen[name]++
			}
		}
		for name, n := range seen {
			if n != 2 {
				t.Errorf("%s was returned %d times", name, n)
			}
		}
		if len(seen) != more+1 {
			t.Errorf("%d of %d entries were returned", len(seen), more+1)
		}
	})
}

// TestOwnRecordsAreOfferedAgain, if the relay has turned them away.
func TestOwnRecordsAreOfferedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		var mu sync.Mutex
		var offered []ledger.OutboxEntry
		l := ledger.New(store, ledger.Options{Instance: "a", OnRecord: func(product, row string, _ usage.Record) bool {
			mu.Lock()
			defer mu.Unlock()
			offered = append(offered, ledger.OutboxEntry{Product: product, Row: row})
			return true
		}})
		p := mustCreate(t, l)
		if err := l.Acknowledge(t.Context(), offered); err != nil {
			t.Fatal(err)
		}
		hold, err := reserve(t.Context(), l, p, 5, 5)
		if err != nil {
			t.Fatal(err)
		}
		if err := settle(t.Context(), l, hold, 5); err != nil {
			t.Fatal(err)
		}
		want := names(offered[1:])
		f := func(want ...string) {
			t.Helper()
			if got := names(unsent(t, l, 10)); !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		}
		f()
		time.Sleep(11 * time.Second)
		f(want...)
		time.Sleep(3 * time.Second)
		f(want...) // what was seen once is not taken yet
		time.Sleep(3 * time.Second)
		f()
		time.Sleep(11 * time.Second)
		f(want...)
		if err := l.Acknowledge(t.Context(), offered); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		f()
	})
}

// TestWhatCannotBeReadHidesNothing in the outbox.
func TestWhatCannotBeReadHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, said := newWatched(), &logs{Handler: slog.DiscardHandler}
		l := ledger.New(store, ledger.Options{Instance: "live", Log: slog.New(said)})
		products := createMany(t, l, 5)
		store.set(func(w *watched) { w.down = products[0].ID })
		apply(t, store, products[1].ID, ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: "O.a", Texts: map[string]string{"Usage": "U.none"}}})
		apply(t, store, products[2].ID, ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{
			Row: "S.2026-11.L.a", Ints: map[string]int64{"Closed": 1}, Texts: map[string]string{"Unsent00": "no mark"},
		}})
		for range 3 {
			if entries := unsent(t, l, 100); len(entries) != len(products)-1 {
				t.Errorf("%d entries: %v", len(entries), names(entries))
			}
			time.Sleep(11 * time.Second)
		}
		if len(said.errors) != 6 {
			t.Errorf("logged: %v", said.errors)
		}
		store.SetFaults(memstore.Faults{Down: true})
		if _, err := l.Unsent(t.Context(), 100); !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("without a store: %v", err)
		}
		if err := l.Acknowledge(t.Context(), []ledger.OutboxEntry{{Product: products[0].ID, Row: "O.a"}}); !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("without a store: %v", err)
		}
	})
}

// TestUntakenRecordsAreFoundAtOnce: what the relay has turned away waits for
// nothing.
func TestUntakenRecordsAreFoundAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := ledger.New(store, ledger.Options{Instance: "a", OnRecord: func(string, string, usage.Record) bool { return false }})
		p := mustCreate(t, l)
		for range ledger.UnsentMax + 1 { // on a page, and one in the lease
			hold, err := reserve(t.Context(), l, p, 1, 1)
			if err == nil {
				err = settle(t.Context(), l, hold, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := len(unsent(t, l, 1000)); n != ledger.UnsentMax+2 { // with the Create
			t.Errorf("%d entries", n)
		}
	})
}

// TestLongRecordsAreShortenedOnce: the lake gets what the books have, to the byte.
func TestLongRecordsAreShortenedOnce(t *testing.T) {
	store := newWatched()
	var handed []usage.Record
	l := ledger.New(store, ledger.Options{Instance: "a", OnRecord: func(_, _ string, r usage.Record) bool {
		handed = append(handed, r)
		return true
	}})
	p := mustCreate(t, l)
	hold, err := reserve(t.Context(), l, p, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	hold.Record.User = usage.Text(strings.Repeat("<", ledger.TextUnitsMax/6))
	if err := settle(t.Context(), l, hold, 1); err != nil {
		t.Fatal(err)
	}
	for _, r := range handed {
		doc, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, e := range store.rows(t, p.ID, "U.") {
			found = found || e.Texts["Doc"] == string(doc)
		}
		if !found {
			t.Errorf("the books have another form of %.200s", doc)
		}
	}
	if last := handed[len(handed)-1]; last.User != "" || last.Charge.N != 1 {
		t.Errorf("user of %d bytes, charge %d", len(last.User), last.Charge.N)
	}
}
