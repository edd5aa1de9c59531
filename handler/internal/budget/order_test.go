package budget_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/costgate/costgate/handler/internal/budget"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// outcome is what alerts leave behind, without ids and times of records.
type outcome struct {
	Products []*quota.Product
	Records  []string
}

// two is a product of each of two budgets, and the handlers of two processes.
type two struct {
	store    *memstore.Store
	ledgers  []*ledger.Ledger
	handlers []*budget.Handler
	ids      []string
}

func newTwo(tb testing.TB, seed uint64, clock func() time.Time) *two {
	x := &two{store: memstore.New(seed, clock)}
	for i := range 2 {
		l := ledger.New(x.store, ledger.Options{Instance: fmt.Sprint("p", i), Now: clock})
		x.ledgers = append(x.ledgers, l)
		x.handlers = append(x.handlers, budget.New(budget.Options{Ledger: l, Now: clock}))
	}
	for i, name := range []string{"Team-Budget", "Other-Budget"} {
		p, _, err := x.ledgers[0].Create(tb.Context(), quota.HashKey(name), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
			p := &quota.Product{ID: id, Name: name, Unit: quota.UnitUSD, Budget: 1, Period: "day", TimeZone: "UTC", BudgetName: name, BudgetAlerts: graduated}
			if i == 0 {
				p.Tags = map[string]string{"budget": "/subscriptions/s1"}
			}
			return p, nil
		})
		if err != nil {
			tb.Fatal(err)
		}
		x.ids = append(x.ids, p.ID)
	}
	return x
}

func (x *two) post(process int, body string) int {
	w := httptest.NewRecorder()
	x.handlers[process].ServeHTTP(w, httptest.NewRequest("POST", "/api/Quota/Budget", strings.NewReader(body)))
	return w.Code
}

func (x *two) outcome(tb testing.TB) outcome {
	var o outcome
	for _, id := range x.ids {
		p, err := x.ledgers[0].Find(tb.Context(), id)
		if err != nil {
			tb.Fatal(err)
		}
		p.CreatedAt = time.Time{}
		o.Products = append(o.Products, p)
		err = x.ledgers[0].EachRecord(tb.Context(), id, func(r usage.Record) error {
			r.ID, r.Time = "", time.Time{}
			text, err := json.Marshal(r)
			o.Records = append(o.Records, string(text))
			return err
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	slices.Sort(o.Records)
	return o
}

// anyAlert is the body of some alert around the graduated steps.
func anyAlert(pick func(n int) int) string {
	one := func(of ...string) string { return of[pick(len(of))] }
	name := one("Team-Budget", "team-budget", "Other-Budget", "third")
	fired := one("2026-09-30T23:59:59Z", "2026-10-31T23:59:59Z", "2026-11-01T00:00:00Z", "2026-11-24T11:00:00Z", "2026-11-24T13:00:00+02:00", "2026-12-01T00:00:00Z", "")
	spent := one("$1.00", "$45.00", "$47.50", "$50.00", "$200.00", "lots")
	switch pick(4) {
	case 0:
		return forecast(name, spent, one("$10.00", "$60.00", "$100.00", "?"), fired)
	case 1:
		return `{"data":{"SubscriptionId":"` + one("s1", "s2") + `","BudgetName":"` + name + `","Budget":"50","SpendingAmount":` + one(`"50"`, "45", `"x"`) + `}}`
	}
	return alert(one("Actual", "", "Odd"), name, spent, fired)
}

// distinct drops alerts of one identity: of those the first counts, whatever the
// others say.
func distinct(tb testing.TB, bodies []string) (kept []string) {
	seen := map[string]bool{}
	for _, body := range bodies {
		a, err := budget.Parse([]byte(body))
		if err != nil {
			tb.Fatal(err)
		}
		if id := a.ID(time.Time{}); !seen[id] {
			seen[id] = true
			kept = append(kept, body)
		}
	}
	return kept
}

// TestOrderDoesNotMatter: any permutation of any set of alerts, with repetitions,
// leaves the state and the records that the alerts leave in order.
func TestOrderDoesNotMatter(t *testing.T) {
	clock := func() time.Time { at, _ := time.Parse(time.RFC3339, now); return at }
	rapid.Check(t, func(r *rapid.T) {
		bodies := make([]string, rapid.IntRange(1, 10).Draw(r, "alerts"))
		for i := range bodies {
			bodies[i] = anyAlert(func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "pick") })
		}
		bodies = distinct(t, bodies)
		var order []int
		for i := range bodies {
			order = append(order, i)
		}
		run := func(order []int) outcome {
			x := newTwo(t, 1, clock)
			for n, i := range order {
				if status := x.post(n%2, bodies[i]); status != 200 {
					r.Fatalf("%s: %d", bodies[i], status)
				}
			}
			return x.outcome(t)
		}
		other := append(rapid.Permutation(order).Draw(r, "order"), rapid.SliceOfN(rapid.SampledFrom(order), 0, 10).Draw(r, "again")...)
		if diff := cmp.Diff(run(order), run(other)); diff != "" {
			r.Fatalf("%v: %s", other, diff)
		}
	})
}

// TestOrderDoesNotMatterInTrouble: the same with two processes at once and a
// store that loses requests and answers, carries transactions out late or twice.
// Each alert is sent until it is answered 200.
func TestOrderDoesNotMatterInTrouble(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			clock := func() time.Time { // what time takes in the bubble must not end the month
				at, _ := time.Parse(time.RFC3339, now)
				return at.Add(time.Since(began) / 1000)
			}
			random := rand.New(rand.NewPCG(seed, 2))
			var bodies []string
			for range 1 + random.IntN(6) {
				body := anyAlert(random.IntN)
				if !strings.Contains(body, `"firedDateTime":""`) && !strings.Contains(body, "SubscriptionId") { // an alert without a time begins when it comes
					bodies = append(bodies, body)
				}
			}
			bodies = distinct(t, bodies)
			calm := newTwo(t, seed, clock)
			for _, body := range bodies {
				if status := calm.post(0, body); status != 200 {
					t.Fatalf("%s: %d", body, status)
				}
			}
			x := newTwo(t, seed, clock)
			x.store.SetFaults(memstore.Faults{LoseRequest: 10, LoseAnswer: 10, Late: 10, Twice: 10})
			done := make(chan bool)
			for process := range 2 {
				order := append(random.Perm(len(bodies)), random.Perm(len(bodies))...)
				go func() {
					for _, i := range order {
						for tries := 0; x.post(process, bodies[i]) != 200; tries++ {
							if tries > 200 {
								t.Errorf("%s: never", bodies[i])
								break
							}
						}
					}
					x.handlers[process].Wait()
					done <- true
				}()
			}
			<-done
			<-done
			x.store.SetFaults(memstore.Faults{})
			if diff := cmp.Diff(calm.outcome(t), x.outcome(t)); diff != "" {
				t.Errorf("seed %d: %s", seed, diff)
			}
		})
	}
}

// TestLiftedStaysLifted: whatever of the alerts before the lift comes again, the
// product stays open; a new alert brakes it.
func TestLiftedStaysLifted(t *testing.T) {
	clock := func() time.Time { at, _ := time.Parse(time.RFC3339, now); return at }
	rapid.Check(t, func(r *rapid.T) {
		x := newTwo(t, 1, clock)
		bodies := make([]string, rapid.IntRange(1, 6).Draw(r, "alerts"))
		for i := range bodies {
			bodies[i] = anyAlert(func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "pick") })
			x.post(i%2, bodies[i])
		}
		for _, id := range x.ids {
			_, _, err := x.ledgers[0].Edit(t.Context(), id, ledger.Once{}, func(d *ledger.Draft) error { d.Product.Lift(clock()); return nil })
			if err != nil {
				r.Fatal(err)
			}
		}
		for i, body := range rapid.SliceOf(rapid.SampledFrom(bodies)).Draw(r, "again") {
			x.post(i%2, body)
		}
		for _, p := range x.outcome(t).Products {
			if p.Stop != nil || p.Throttle != nil {
				r.Fatalf("%s: %+v %+v", p.Name, p.Stop, p.Throttle)
			}
		}
		x.post(0, alert("Actual", "Team-Budget", "$50.00", "2026-11-24T11:59:59Z"))
		if p := x.outcome(t).Products[0]; p.Stop == nil || p.Throttle == nil {
			r.Fatalf("a new alert: %+v %+v", p.Stop, p.Throttle)
		}
	})
}
