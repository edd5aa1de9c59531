package budget_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/budget"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
)

func TestParseAmount(t *testing.T) {
	f := func(display, want string) {
		t.Helper()
		got := "unknown"
		if a := budget.ParseAmount(display); a.Known {
			got = a.Nano.String()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", display, got, want)
		}
	}
	f("$11,111.00", "11111")
	f("$1111.11", "1111.11")
	f("1111.32", "1111.32")
	f("100", "100")
	f("0.8", "0.8")
	f("$25.00", "25")
	f("1.111,00 €", "1111")
	f("€ 1.234.567,89", "1234567.89")
	f("1 234,50 kr", "1234.5")
	f("1\u202f234,50\u00a0€", "1234.5")
	f("CHF 1'234.50", "1234.5")
	f("¥1,000", "1000")
	f("$1,000,000", "1000000")
	f("R$ 5.000,00", "5000")
	f("-$3.50", "-3.5")
	f("₹1,00,000.00", "100000") // lakhs
	f("₹ 12,34,567", "1234567")
	f("Rs.1,234.50", "1234.5")
	f("$1.5K", "unknown")
	f("1,5 Mio. €", "unknown")
	f("₹2 lakh", "unknown")
	f("$2 million", "unknown")
	f("kr 12", "12")
	f("S/ 1,234.50", "1234.5")
	f("1 234 567,8 zł", "1234567.8")
	f("12\u00a0345 ₽", "12345")
	f("\u200f1,234.00 ₪", "1234")
	f("CHF 1’234’567.05", "1234567.05")
	f("0.123", "0.123")
	f("0,123", "0.123")
	f("$0.1234567899", "0.123456789")
	f("12.3456", "12.3456")
	f("−$3.50", "-3.5")
	f("($3.50)", "-3.5")
	f("3,50- €", "-3.5")
	f("0", "0")
	f("1.000", "unknown") // one, or a thousand
	f("€ 999.999", "unknown")
	f("$.50", "unknown")
	f("80%", "unknown")
	f("80 %", "unknown")
	f("($3.50", "unknown")
	f("100.–", "unknown")
	f("about three, that is 3", "unknown")
	f(">5", "unknown")
	f("5 of 10", "unknown")
	f("1,2,3", "unknown")
	f("1,00,00,0", "unknown")
	f("12,", "unknown")
	f("12.", "12") // the end of a sentence
	f("1..5", "unknown")
	f("1.5 0", "unknown")
	f("1e3", "unknown")
	f("٣", "unknown")
	f("", "unknown")
	f("n/a", "unknown")
	f("1.2.3,4,5", "unknown")
	f("12a34", "unknown")
	f("$", "unknown")
	f(strings.Repeat("9", 30), "unknown")
}

func alert(kind, name, spent, fired string) string {
	return fmt.Sprintf(`{"schemaId":"azureMonitorCommonAlertSchema","data":{"essentials":{"firedDateTime":%q,"severity":null,"news":[1]},
		"alertContext":{"AlertData":{"ThresholdType":%q,"BudgetThreshold":"$50.00","NotificationThresholdAmount":"$25.00","BudgetName":%q,"SpentAmount":%q}}}}`,
		fired, kind, name, spent)
}

const now = "2026-11-24T12:00:00Z"

type fixture struct {
	ledger  *ledger.Ledger
	store   *memstore.Store
	product *quota.Product
	handler *budget.Handler
}

func newFixture(t *testing.T, steps []quota.AlertStep) *fixture {
	t.Helper()
	clock := func() time.Time { at, _ := time.Parse(time.RFC3339, now); return at }
	f := &fixture{store: memstore.New(1, clock)}
	f.ledger = ledger.New(f.store, ledger.Options{Instance: "t", Now: clock})
	p, _, err := f.ledger.Create(t.Context(), quota.HashKey("k"), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
		return &quota.Product{ID: id, Name: "P", Unit: quota.UnitUSD, Budget: 1, Period: "day", TimeZone: "UTC", BudgetName: "Team-Budget", BudgetAlerts: steps}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.product, f.handler = p, budget.New(budget.Options{Ledger: f.ledger, Now: clock})
	return f
}

func (f *fixture) post(body string) (int, string) {
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/Quota/Budget", strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func (f *fixture) stop(t *testing.T) string {
	t.Helper()
	p, err := f.ledger.Find(t.Context(), f.product.ID)
	if err != nil {
		t.Fatal(err)
	}
	if p.Stop == nil {
		return ""
	}
	return p.Stop.Until.Format(time.RFC3339)
}

func (f *fixture) throttle(t *testing.T) string {
	t.Helper()
	p, err := f.ledger.Find(t.Context(), f.product.ID)
	if err != nil {
		t.Fatal(err)
	}
	if p.Throttle == nil {
		return ""
	}
	return fmt.Sprint(p.Throttle.SharePPM, " ", p.Throttle.Until.Format(time.RFC3339), " ", p.Throttle.Reason)
}

var stopAtFull = []quota.AlertStep{{AtPPM: 1_000_000, Do: "stop"}}

func TestWhatStops(t *testing.T) {
	f := func(steps []quota.AlertStep, body string, want string) {
		t.Helper()
		x := newFixture(t, steps)
		if status, answer := x.post(body); status != 200 || answer != "true" {
			t.Errorf("%s: %d %s", body, status, answer)
		}
		if got := x.stop(t); got != want {
			t.Errorf("%s: stopped until %q, want %q", body, got, want)
		}
	}
	const until = "2026-12-01T00:00:00Z"
	f(stopAtFull, alert("Actual", "team-budget", "$50.00", now), until)
	f(stopAtFull, alert("", "Team-Budget", "$11,111.00", now), until)
	f(stopAtFull, alert("Actual", "Team-Budget", "$50.00", ""), until)
	f(stopAtFull, alert("Actual", "Team-Budget", "$49.99", now), "")
	f(stopAtFull, alert("Forecasted", "Team-Budget", "$50.00", now), "")
	f(stopAtFull, alert("Actual", "Other-Budget", "$50.00", now), "")
	f(stopAtFull, alert("Actual", "Team-Budget", "lots", now), "")
	f(stopAtFull, alert("Actual", "Team-Budget", "$50.00", "2026-10-31T23:59:59Z"), "") // that month is over
	f([]quota.AlertStep{{AtPPM: 800_000, Do: "notify"}}, alert("Actual", "Team-Budget", "$90.00", now), "")
	f([]quota.AlertStep{{AtPPM: 800_000, Do: "stop"}}, alert("Actual", "Team-Budget", "$40.00", now), until)
	f(stopAtFull, `{"schemaId":"AIP Budget Notification","data":{"SpendingAmount":"100","Budget":"50","BudgetName":"Team-Budget","NotificationThresholdAmount":"0.8"}}`, until)
}

func TestDuplicateDoesNotStopAgain(t *testing.T) {
	x := newFixture(t, stopAtFull)
	body := alert("Actual", "Team-Budget", "$50.00", now)
	x.post(body)
	_, _, err := x.ledger.Edit(t.Context(), x.product.ID, ledger.Once{}, func(d *ledger.Draft) error { d.Product.Stop = nil; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := x.post(body); status != 200 || x.stop(t) != "" {
		t.Errorf("a repeated alert answers %d and stops again: %q", status, x.stop(t))
	}
	if status, _ := x.post(alert("Actual", "Team-Budget", "$60.00", "2026-11-24T12:00:01Z")); status != 200 || x.stop(t) == "" {
		t.Errorf("a new alert must stop: %d %q", status, x.stop(t))
	}
}
