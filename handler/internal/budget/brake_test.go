package budget_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/budget"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// forecast is an alert of a budget of $50 with a forecast.
func forecast(name, spent, forecast, fired string) string {
	return fmt.Sprintf(`{"data":{"essentials":{"firedDateTime":%q},"alertContext":{"AlertData":{"ThresholdType":"Forecasted","BudgetThreshold":"$50.00",
		"BudgetName":%q,"SpentAmount":%q,"ForecastedTotalForPeriod":%q}}}}`, fired, name, spent, forecast)
}

var graduated = []quota.AlertStep{
	{AtPPM: 800_000, Do: "notify"},
	{AtPPM: 900_000, Do: "throttle", SharePPM: 500_000},
	{AtPPM: 950_000, Do: "throttle", SharePPM: 200_000},
	{AtPPM: 1_000_000, Do: "stop"},
	{AtPPM: 1_200_000, Do: "throttle", SharePPM: 750_000, On: "forecasted"},
	{AtPPM: 2_000_000, Do: "stop", On: "forecasted"},
}

func TestGraduatedBrake(t *testing.T) {
	f := func(body, throttle string, stopped bool) {
		t.Helper()
		x := newFixture(t, graduated)
		if status, _ := x.post(body); status != 200 {
			t.Errorf("%s: %d", body, status)
		}
		if got := x.throttle(t); got != throttle {
			t.Errorf("%s: throttle %q, want %q", body, got, throttle)
		}
		if got := x.stop(t); (got != "") != stopped {
			t.Errorf("%s: stopped until %q", body, got)
		}
	}
	const until = "2026-12-01T00:00:00Z"
	f(alert("Actual", "team-budget", "$44.99", now), "", false)
	f(alert("Actual", "team-budget", "$45.00", now), "500000 "+until+" the Azure budget team-budget has reached 90 %", false)
	f(alert("Actual", "team-budget", "$47.50", now), "200000 "+until+" the Azure budget team-budget has reached 95 %", false)
	f(alert("Actual", "team-budget", "$50.00", now), "200000 "+until+" the Azure budget team-budget has reached 95 %", true)
	f(forecast("team-budget", "$500.00", "$59.99", now), "", false)
	f(forecast("team-budget", "$1.00", "$60.00", now), "750000 "+until+" the Azure budget team-budget is forecast to reach 120 %", false)
	f(forecast("team-budget", "$1.00", "$100.00", now), "750000 "+until+" the Azure budget team-budget is forecast to reach 120 %", true)
	f(forecast("team-budget", "$500.00", "lots", now), "", false)
	f(alert("Predicted", "team-budget", "$500.00", now), "", false)
	f(alert("Actual", "team-budget", "$500.00", "2026-10-31T23:59:59Z"), "", false)
	f(alert("Actual", "team-budget", "$-5", now), "", false)
}

func TestWhichProducts(t *testing.T) {
	const id = "/subscriptions/S1/resourceGroups/rg/providers/Microsoft.Consumption/budgets/team"
	body := func(name, scope, id string) string {
		return fmt.Sprintf(`{"data":{"alertContext":{"AlertData":{"BudgetThreshold":1,"SpentAmount":1,"BudgetName":%q,"Scope":%q,"BudgetId":%q}}}}`, name, scope, id)
	}
	f := func(budgetName string, tags map[string]string, body string, want bool) {
		t.Helper()
		x := newFixture(t, stopAtFull)
		_, _, err := x.ledger.Edit(t.Context(), x.product.ID, ledger.Once{}, func(d *ledger.Draft) error {
			d.Product.BudgetName, d.Product.Tags = budgetName, tags
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if status, _ := x.post(body); status != 200 {
			t.Errorf("%s: %d", body, status)
		}
		if got := x.stop(t) != ""; got != want {
			t.Errorf("%q %v, %s: stopped is %v", budgetName, tags, body, got)
		}
	}
	tag := func(v string) map[string]string { return map[string]string{"team": "team", "Budget": v} }
	f(" TEAM ", nil, body("team", "", ""), true)
	f("team", nil, body(" Team ", "/subscriptions/s1", ""), true)
	f("team2", nil, body("team", "/team2", "team2"), false)
	f("", nil, body("team", "", ""), false)
	f("/subscriptions/s1", nil, body("x", "/Subscriptions/S1/", ""), true)
	f("/subscriptions/s1/", nil, body("x", "/subscriptions/s1", ""), true)
	f("/subscriptions/s1", nil, body("x", "/subscriptions/s1/resourceGroups/rg", ""), false)
	f("/subscriptions/s1/resourcegroups/RG", nil, body("x", "", id), true)
	f("/subscriptions/s1", nil, body("x", "", id), false)
	f("/subscriptions/s2", nil, body("x", "/subscriptions/s2", id), true)
	f("/subscriptions/s1", nil, body("x", "/subscriptions/s2", "/subscriptions/s1"), false) // no id of a budget
	f("/", nil, body("x", "", ""), false)
	f("/", nil, body("x", "/", ""), false)
	f(strings.ToLower(id), nil, body("x", "/subscriptions/s1", id), true)
	f("/subscriptions/s1/resourceGroups/rg", nil, `{"data":{"BudgetName":"x","Budget":1,"SpendingAmount":1,"SubscriptionId":"s1","ResourceGroup":"rg"}}`, true)
	f("/subscriptions/s1", nil, `{"data":{"BudgetName":"x","Budget":1,"SpendingAmount":1,"SubscriptionId":"s1","ResourceGroup":""}}`, true)
	f("/subscriptions/s1", nil, `{"data":{"BudgetName":"/subscriptions/s1","Budget":1,"SpendingAmount":1}}`, false)
	f("p", tag("a, TEAM ,/subscriptions/s9"), body("team", "", ""), true)
	f("p", tag("a, TEAM ,/subscriptions/s9/"), body("x", "/subscriptions/S9", ""), true)
	f("p", tag("teams,,"), body("team", "", ""), false)
	f("p", map[string]string{"budgets": "team"}, body("team", "", ""), false)
}

func TestSeveralProductsPerAlert(t *testing.T) {
	x := newFixture(t, stopAtFull)
	var others []string
	for i := range 40 {
		others = append(others, mustCreate(t, x.ledger, fmt.Sprint("k", i)).ID)
	}
	if status, _ := x.post(alert("Actual", "Team-Budget", "$50.00", now)); status != 200 {
		t.Fatal(status)
	}
	for _, id := range append(others, x.product.ID) {
		if p, err := x.ledger.Find(t.Context(), id); err != nil || p.Stop == nil {
			t.Errorf("%s: %+v, %v", id, p, err)
		}
	}
}

// TestStopCoversTheDaysOfADayProduct: until the month of the alert ends.
func TestStopCoversTheDaysOfADayProduct(t *testing.T) {
	x := newFixture(t, stopAtFull)
	x.post(alert("Actual", "Team-Budget", "$50.00", now))
	p, err := x.ledger.Find(t.Context(), x.product.ID)
	if err != nil {
		t.Fatal(err)
	}
	f := func(moment string, want bool) {
		t.Helper()
		at, _ := time.Parse(time.RFC3339, moment)
		if _, stopped := p.Stopped(at); stopped != want {
			t.Errorf("at %s stopped is %v", moment, stopped)
		}
	}
	f("2026-11-24T12:00:00Z", true)
	f("2026-11-25T00:00:00Z", true)
	f("2026-11-30T23:59:59Z", true)
	f("2026-12-01T00:00:00Z", false)
}

// TestNamesForgottenMarksRemain: a repetition after the ledger has dropped the
// name of the alert does not brake either.
func TestNamesForgottenMarksRemain(t *testing.T) {
	x := newFixture(t, graduated)
	body := alert("Actual", "Team-Budget", "$50.00", now)
	x.post(body)
	_, _, err := x.ledger.Edit(t.Context(), x.product.ID, ledger.Once{}, func(d *ledger.Draft) error { d.Product.Lift(time.Time{}); return nil })
	if err != nil {
		t.Fatal(err)
	}
	x.handler = budget.New(budget.Options{Ledger: forgetful{x.ledger}, Now: func() time.Time { at, _ := time.Parse(time.RFC3339, now); return at }})
	if status, _ := x.post(body); status != 200 || x.stop(t) != "" || x.throttle(t) != "" {
		t.Errorf("%d, stop %q, throttle %q", status, x.stop(t), x.throttle(t))
	}
	records, _, err := x.ledger.History(t.Context(), x.product.ID, ledger.HistoryQuery{Limit: 100})
	repeated := 0
	for _, r := range records {
		if r.Kind == usage.KindAlert && strings.Contains(string(r.UsageExtra), `"repeated":true`) {
			repeated++
		}
	}
	if err != nil || repeated != 1 {
		t.Errorf("%v, %d records of repetitions", err, repeated)
	}
}

// forgetful has no memory of names.
type forgetful struct{ *ledger.Ledger }

func (l forgetful) Edit(ctx context.Context, id string, _ ledger.Once, edit func(d *ledger.Draft) error) (*quota.Product, bool, error) {
	return l.Ledger.Edit(ctx, id, ledger.Once{}, edit)
}

// hangingStore does not answer for one partition until its caller gives up.
type hangingStore struct {
	*memstore.Store
	partition string
}

func (s *hangingStore) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	if partition == s.partition {
		<-ctx.Done()
		return nil, fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
	return s.Store.Apply(ctx, partition, ops)
}

func TestAHangingPartitionIsA503InTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &hangingStore{Store: memstore.New(1, time.Now)}
		l := ledger.New(s, ledger.Options{Instance: "t"})
		hangs, fine := mustCreate(t, l, "k1"), mustCreate(t, l, "k2")
		s.partition = hangs.ID
		h := budget.New(budget.Options{Ledger: l})
		body := alert("Actual", "Team-Budget", "$50.00", time.Now().UTC().Format(time.RFC3339))
		post := func(ctx context.Context) int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/api/Quota/Budget", strings.NewReader(body)))
			return w.Code
		}
		began := time.Now()
		if status, took := post(t.Context()), time.Since(began); status != 503 || took > 9*time.Second {
			t.Errorf("%d after %v", status, took)
		}
		if p, err := l.Find(t.Context(), fine.ID); err != nil || p.Stop == nil {
			t.Errorf("the other product: %+v, %v", p, err)
		}
		h.Wait()
		s.partition = ""
		gone, cancel := context.WithCancel(t.Context())
		cancel() // the sender does not wait
		if status := post(gone); status != 200 {
			t.Errorf("then: %d", status)
		}
		if p, err := l.Find(t.Context(), hangs.ID); err != nil || p.Stop == nil {
			t.Errorf("the product that hung: %+v, %v", p, err)
		}
	})
}
