package budget_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/budget"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
)

// TestAlertsAreTold, once, if they reach a step: also by the repetition of one
// whose notice could not be stored.
func TestAlertsAreTold(t *testing.T) {
	f := func(steps []quota.AlertStep, want int, bodies ...string) {
		t.Helper()
		clock := func() time.Time { at, _ := time.Parse(time.RFC3339, now); return at }
		l := ledger.New(memstore.New(1, clock), ledger.Options{Instance: "t", Now: clock, OnCrossing: func() {}})
		_, _, err := l.Create(t.Context(), quota.HashKey("k"), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
			return &quota.Product{ID: id, Name: "P", Unit: quota.UnitUSD, Budget: 1, Period: "day", TimeZone: "UTC", BudgetName: "team-budget", BudgetAlerts: steps}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		handler := budget.New(budget.Options{Ledger: l, Now: clock})
		for _, body := range bodies {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest("POST", "/api/Quota/Budget", strings.NewReader(body)))
			if w.Code != 200 {
				t.Errorf("%s: %d", body, w.Code)
			}
		}
		waiting, err := l.WaitingCrossings(t.Context())
		if err != nil || len(waiting) != want {
			t.Errorf("%d notices wait, want %d; %v", len(waiting), want, err)
		}
	}
	eighty, full := alert("Actual", "team-budget", "$40.00", now), alert("Actual", "team-budget", "$50.00", "2026-11-24T13:00:00Z")
	f(graduated, 1, eighty, eighty)
	f(graduated, 2, eighty, full, eighty)
	f(stopAtFull, 0, eighty)
	f(stopAtFull, 1, eighty, full)
	f(graduated, 0, alert("Actual", "team-budget", "$39.99", now))
	f(graduated, 0, alert("Actual", "other", "$50.00", now))
	f(graduated, 0, alert("Actual", "team-budget", "$50.00", "2026-10-24T13:00:00Z"))
	f(stopAtFull, 1, forecast("team-budget", "$1.00", "$60.00", now)) // forecasts notify
}
