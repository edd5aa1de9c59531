package ledger_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// TestVerifyFinds plants one difference at a time.
func TestVerifyFinds(t *testing.T) {
	f := func(what string, plant func(t *testing.T, store *watched, p *quota.Product)) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newWatched()
				limits := ledger.Limits{
					Intents: ledger.IntentsMax, IntentBytes: ledger.IntentBytesMax, Unsent: ledger.UnsentMax, TxnRows: ledger.TxnRowsMax,
					TxnRowBytes: ledger.TxnRowBytesMax, Orphans: 1, Listed: ledger.ListedMax,
				}
				dead := ledger.New(store, ledger.Options{Instance: "dead"})
				p := mustCreate(t, dead)
				for range 3 {
					if _, err := reserve(t.Context(), dead, p, 10, 10); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(31 * time.Second)
				l := ledger.New(store, ledger.Options{Instance: "live", Limits: limits})
				hold, err := reserve(t.Context(), l, p, 5, 5)
				if err != nil {
					t.Fatal(err)
				}
				r := hold.Record
				r.Charge, r.PromptTokens, r.CompletionTokens = usage.Of(5), usage.Of(100), usage.Of(20)
				if _, err := l.Settle(t.Context(), hold, ledger.Settlement{Record: r}); err != nil {
					t.Fatal(err)
				}
				if _, err := reserve(t.Context(), l, p, 7, 7); err != nil {
					t.Fatal(err)
				}
				if what == "" || strings.Contains(what, "write-off") { // as after a reclaim, before the rest is materialized
					for _, lease := range store.rows(t, p.ID, "S.") {
						if lease.Texts["Instance"] == "dead" {
							reclaimOnly(t, store, p, lease)
						}
					}
				}
				wantClean(t, l, p)
				if what == "" {
					return
				}
				plant(t, store, p)
				found, err := l.Verify(t.Context(), p.ID)
				if err != nil || !strings.Contains(fmt.Sprint(found), what) {
					t.Errorf("verify: %v, %v", found, err)
				}
			})
		})
	}
	insert := func(t *testing.T, store *watched, p *quota.Product, e ledger.Entity) {
		t.Helper()
		apply(t, store, p.ID, ledger.Op{Kind: ledger.Insert, Entity: e})
	}
	lease := func(t *testing.T, store *watched, p *quota.Product, of string) ledger.Entity {
		t.Helper()
		for _, row := range store.rows(t, p.ID, "S.") {
			if row.Texts["Instance"] == of {
				return row
			}
		}
		t.Fatal("no lease")
		return ledger.Entity{}
	}
	firstListed := func(t *testing.T, e ledger.Entity) string {
		t.Helper()
		_, id, _ := strings.Cut(e.Texts["Intents00"], `"i":[{"d":"`)
		id, _, _ = strings.Cut(id, `"`)
		return fmt.Sprintf("U.%013d.%s", 9_999_999_999_999-millis(t, id), id)
	}
	f("", nil)
	f("outbox row O.a waits to send U.none, which does not exist", func(t *testing.T, store *watched, p *quota.Product) {
		insert(t, store, p, ledger.Entity{Row: "O.a", Texts: map[string]string{"Usage": "U.none"}})
	})
	f("waits to send U.", func(t *testing.T, store *watched, p *quota.Product) {
		e := lease(t, store, p, "live")
		id, _, _ := strings.Cut(e.Texts["Unsent00"], ":")
		apply(t, store, p.ID, ledger.Op{Kind: ledger.Delete, Entity: ledger.Entity{
			Row: fmt.Sprintf("U.%013d.%s", 9_999_999_999_999-millis(t, id), id), ETag: ledger.AnyETag,
		}})
	})
	f("which is a record too", func(t *testing.T, store *watched, p *quota.Product) {
		insert(t, store, p, ledger.Entity{Row: firstListed(t, lease(t, store, p, "dead"))})
	})
	f("tokens: the books say 120, the records sum to 121", func(t *testing.T, store *watched, p *quota.Product) {
		for _, row := range store.rows(t, p.ID, "U.") {
			if row.Ints["Tokens"] == 120 {
				row.Ints["Tokens"]++
				spoil(t, store, row, "Source", "")
			}
		}
	})
	f("cannot be read", func(t *testing.T, store *watched, p *quota.Product) {
		spoil(t, store, lease(t, store, p, "live"), "Unsent00", "x")
	})
	f("write-off", func(t *testing.T, store *watched, p *quota.Product) {
		for _, row := range store.rows(t, p.ID, "S.") {
			if strings.Contains(row.Row, ".W.") {
				insert(t, store, p, ledger.Entity{Row: firstListed(t, row)})
			}
		}
	})
}

// reclaimOnly closes a lease as a sweep does that dies after its first
// transaction.
func reclaimOnly(t *testing.T, store *watched, p *quota.Product, lease ledger.Entity) {
	t.Helper()
	limits := ledger.Limits{
		Intents: ledger.IntentsMax, IntentBytes: ledger.IntentBytesMax, Unsent: ledger.UnsentMax, TxnRows: ledger.TxnRowsMax,
		TxnRowBytes: ledger.TxnRowBytesMax, Orphans: 1, Listed: ledger.ListedMax,
	}
	sweeper := ledger.New(&oneWrite{watched: store}, ledger.Options{Instance: "sweeper", Limits: limits})
	_, _ = sweeper.Sweep(t.Context())
	if _, err := store.Get(t.Context(), p.ID, strings.Replace(lease.Row, ".L.", ".W.", 1)); err != nil {
		t.Fatal(err)
	}
}

// oneWrite is a store that is lost after a write.
type oneWrite struct {
	*watched
	written bool
}

func (o *oneWrite) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	if o.written {
		return nil, ledger.ErrUnavailable
	}
	o.written = true
	return o.watched.Apply(ctx, partition, ops)
}
