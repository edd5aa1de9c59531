package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/boltstore"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/tablestore"
	"github.com/costgate/costgate/handler/internal/testkit/azurite"
	"github.com/costgate/costgate/handler/internal/usage"
)

// TestOnStores runs many requests through several ledgers on every store there
// is: what was admitted never passes the budget, and the books are exact.
func TestOnStores(t *testing.T) {
	t.Run("bbolt", func(t *testing.T) {
		store, err := boltstore.Open(filepath.Join(t.TempDir(), "test.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		onStore(t, store, 1, 40)
	})
	t.Run("Table Storage", func(t *testing.T) {
		store, err := tablestore.Open(tablestore.Options{ConnectionString: azurite.Start(t), Table: azurite.Table()})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.EnsureTable(t.Context()); err != nil {
			t.Fatal(err)
		}
		onStore(t, store, 3, 15)
	})
}

func onStore(t *testing.T, store ledger.Store, processes, each int) {
	t.Helper()
	ledgers := make([]*ledger.Ledger, processes)
	var mu sync.Mutex
	offered := make([][]ledger.OutboxEntry, processes)
	for i := range ledgers {
		ledgers[i] = ledger.New(store, ledger.Options{
			Instance: fmt.Sprint("p", i), Embedded: processes == 1,
			OnRecord: func(product, row string, _ usage.Record) bool {
				mu.Lock()
				defer mu.Unlock()
				offered[i] = append(offered[i], ledger.OutboxEntry{Product: product, Row: row})
				return true
			},
		})
	}
	p := mustCreate(t, ledgers[0])
	var spent, running, admitted atomic.Int64
	var wg sync.WaitGroup
	for worker := range 8 * processes {
		wg.Go(func() {
			l := ledgers[worker%processes]
			for i := range each {
				hold, err := reserve(context.Background(), l, p, 1, int64(20+i))
				if err != nil {
					if !errors.As(err, new(*ledger.Refusal)) {
						t.Error(err)
					}
					continue
				}
				if exposure := running.Add(hold.Amount) + spent.Load(); exposure > p.Budget {
					t.Errorf("exposure %d of %d", exposure, p.Budget)
				}
				spent.Add(hold.Amount / 4)
				running.Add(-hold.Amount)
				admitted.Add(1)
				if err := settle(context.Background(), l, hold, hold.Amount/4); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if a := balance(t, ledgers[0], p); a.Spent != spent.Load() || a.Records != admitted.Load() || a.Held != 0 || admitted.Load() < 20 {
		t.Errorf("account %+v; spent %d by %d", a, spent.Load(), admitted.Load())
	}
	wantClean(t, ledgers[0], p)
	sum := 0
	for i, l := range ledgers {
		sum += len(offered[i])
		for range 2 { // twice, as after a lost answer
			if err := l.Acknowledge(t.Context(), offered[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if int64(sum) != admitted.Load()+1 {
		t.Errorf("%d records were offered to the lake, %d requests admitted", sum, admitted.Load())
	}
	for _, l := range ledgers { // what is acknowledged and not used is given back
		if err := l.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	page, err := store.Range(t.Context(), p.ID, "S.", "T", 10)
	if err != nil || len(page.Entities) != 1 {
		t.Errorf("after all is given back only the account is left, not %d rows: %v", len(page.Entities), err)
	}
	if unsent, err := ledgers[0].Unsent(t.Context(), 10); err != nil || len(unsent) != 0 {
		t.Errorf("outbox after the acknowledgement: %d, %v", len(unsent), err)
	}
	wantClean(t, ledgers[0], p)
}

// TestEmbeddedStartSweeps: on an embedded store all that is found at start
// belongs to the dead.
func TestEmbeddedStartSweeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	store, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	dead := ledger.New(store, ledger.Options{Instance: "dead", Embedded: true})
	p := mustCreate(t, dead)
	if _, err := reserve(t.Context(), dead, p, 70, 70); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if store, err = boltstore.Open(path); err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	live := ledger.New(store, ledger.Options{Instance: "live", Embedded: true, Now: time.Now})
	if n, err := live.Sweep(t.Context()); n != 1 || err != nil {
		t.Fatalf("swept %d, %v", n, err)
	}
	if a := balance(t, live, p); a.Spent != 70 || a.Held != 0 {
		t.Errorf("account %+v", a)
	}
	if _, _, err := live.ProductByKey(t.Context(), key); err != nil {
		t.Error(err)
	}
	if _, _, err := live.ProductByKey(t.Context(), "wrong-key-0123456789"); !errors.Is(err, ledger.ErrUnknownKey) {
		t.Errorf("wrong key: %v", err)
	}
}
