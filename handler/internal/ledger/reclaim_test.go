package ledger_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// largeTags are the largest tags that a product may have, of characters that
// take the most room in a row.
func largeTags() map[string]string {
	tags := map[string]string{}
	for i := range 50 {
		tags[fmt.Sprintf("%02d%s", i, strings.Repeat("<", 62))] = strings.Repeat("<", 33)
	}
	return tags
}

func createAs(t *testing.T, l *ledger.Ledger, change func(p *quota.Product)) *quota.Product {
	t.Helper()
	p, _, err := l.Create(t.Context(), quota.HashKey(key), ledger.Once{}, func(id string, now time.Time) (*quota.Product, error) {
		p, err := newProduct(id, now)
		change(p)
		return p, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestReclaimOfLargeRecords: what one transaction has no room for is listed, and
// becomes records in others.
func TestReclaimOfLargeRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 95
		store := newWatched()
		live := ledger.New(store, ledger.Options{Instance: "live"})
		p := createAs(t, live, func(p *quota.Product) { p.Tags = largeTags() })
		dead := ledger.New(store, ledger.Options{Instance: "dead"})
		for range requests {
			if _, err := reserve(t.Context(), dead, p, 10, 10); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(31 * time.Second)
		if n, err := live.Sweep(t.Context()); n != requests || err != nil {
			t.Fatalf("swept %d: %v", n, err)
		}
		if a := balance(t, live, p); a.Spent != 10*requests || a.Held != 0 || a.Records != requests {
			t.Errorf("account %+v", a)
		}
		bytes, records := 0, 0
		for _, row := range store.rows(t, p.ID, "U.") {
			if row.Texts["Kind"] == "request" {
				records++
				bytes += ledger.OpBytes(ledger.Op{Kind: ledger.Insert, Entity: row})
			}
		}
		if records != requests || bytes < ledger.TxnBytesMax {
			t.Errorf("%d records of %d bytes in all, which is no test", records, bytes)
		}
		if live.Counters()["materialized"] == 0 {
			t.Error("all of them fitted")
		}
		wantClean(t, live, p)
	})
}

// TestTheListOfAFullLeaseFits: a write-off row holds at most what the lease's
// row held.
func TestTheListOfAFullLeaseFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		limits := ledger.Limits{
			Intents: ledger.IntentsMax, IntentBytes: ledger.IntentBytesMax, Unsent: ledger.UnsentMax, TxnRows: ledger.TxnRowsMax,
			TxnRowBytes: ledger.TxnRowBytesMax, Orphans: 1, Listed: ledger.ListedMax,
		}
		live := ledger.New(store, ledger.Options{Instance: "live", Limits: limits})
		p := createAs(t, live, func(p *quota.Product) { p.Budget, p.Tags = 1_000_000, map[string]string{"a": "b"} })
		dead := ledger.New(store, ledger.Options{Instance: "dead"})
		for i := range 150 { // records that the lake does not have
			hold, err := reserve(t.Context(), dead, p, 10, 10)
			if err != nil {
				t.Fatal(err)
			}
			if err := settle(t.Context(), dead, hold, int64(i)%10); err != nil {
				t.Fatal(err)
			}
		}
		running := 0
		for ; running < ledger.IntentsMax; running++ {
			r := ledger.Reservation{Product: p, Min: 10, Max: 10, HoldNanoUSD: usage.Of}
			r.Record.User = usage.Text(strings.Repeat("<\"", 120)) // each takes the most room
			if _, err := dead.Reserve(t.Context(), r); err != nil {
				break
			}
		}
		if running == ledger.IntentsMax || running < 100 {
			t.Fatalf("%d requests run: that is not the limit of bytes", running)
		}
		time.Sleep(31 * time.Second)
		if n, err := live.Sweep(t.Context()); n != running || err != nil {
			t.Fatalf("swept %d of %d: %v", n, running, err)
		}
		wantClean(t, live, p)
		if a := balance(t, live, p); a.Held != 0 || a.Records != int64(150+running) {
			t.Errorf("account %+v", a)
		}
	})
}

// TestWriteOffRecord: what a dead overlap process had not listed has a record
// that says whose it is, and has a cost only if it is money.
func TestWriteOffRecord(t *testing.T) {
	f := func(unit quota.Unit, spoilt bool, want func(slack int64) usage.Record) {
		t.Helper()
		t.Run(fmt.Sprint(unit, spoilt), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newWatched()
				live := ledger.New(store, ledger.Options{Instance: "live"})
				p := createAs(t, live, func(p *quota.Product) {
					p.Budget, p.Unit, p.Durability, p.Tags = 1_000_000, unit, quota.DurabilityOverlap, map[string]string{"team": "x"}
				})
				dead := ledger.New(store, ledger.Options{Instance: "dead"})
				for range 5 {
					if _, err := reserve(t.Context(), dead, p, 1000, 1000); err != nil {
						t.Fatal(err)
					}
				}
				if err := dead.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				lease := store.rows(t, p.ID, "S.")[1]
				slack := lease.Ints["Slack"]
				if slack == 0 {
					t.Fatal("no slack: nothing to write off")
				}
				if spoilt {
					config, err := store.Get(t.Context(), p.ID, "C")
					if err != nil {
						t.Fatal(err)
					}
					spoil(t, store, config, "Doc", "{")
				}
				time.Sleep(31 * time.Second)
				if n, err := live.Sweep(t.Context()); n != 5 || err != nil {
					t.Fatalf("swept %d: %v", n, err)
				}
				r, err := live.Record(t.Context(), p.ID, lease.Row[strings.LastIndex(lease.Row, ".")+1:])
				if err != nil {
					t.Fatal(err)
				}
				w := want(slack)
				if r.Kind != usage.KindWriteOff || r.Charge != usage.Of(slack) || r.Unit != w.Unit || r.Product != w.Product || r.CostNanoUSD != w.CostNanoUSD || len(r.Tags) != len(w.Tags) {
					t.Errorf("record %+v; want the likes of %+v", r, w)
				}
				wantClean(t, live, p)
			})
		})
	}
	tags := map[string]string{"team": "x"}
	f(quota.UnitUSD, false, func(slack int64) usage.Record {
		return usage.Record{Product: "Test", Unit: "usd", Tags: tags, CostNanoUSD: usage.Of(slack)}
	})
	f(quota.UnitTokens, false, func(int64) usage.Record { return usage.Record{Product: "Test", Unit: "tokens", Tags: tags} })
	f(quota.UnitUSD, true, func(int64) usage.Record { return usage.Record{} })
}
