package notify

import (
	"encoding/json"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
)

// TestAlertNotice: an Azure budget alert is told like a crossing, once however
// often it comes, in a form of its own.
func TestAlertNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(int, *http.Request) (*http.Response, error) { return status(200) })
		p, _, err := w.l.Create(t.Context(), quota.HashKey("k"), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
			return &quota.Product{ID: id, Name: "Search", Unit: quota.UnitUSD, Budget: 100, Period: quota.PeriodMonth, TimeZone: "UTC"}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		end := time.Now().AddDate(0, 1, 0)
		for range 2 {
			if err := w.l.AlertNotice(t.Context(), p, "0123456789abcdef", end, `{"name":"team","spent":"42"}`); err != nil {
				t.Fatal(err)
			}
		}
		n := w.notifier()
		for range 2 {
			if err := n.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if len(w.receiver.got) != 1 || w.waits() != 0 {
			t.Fatalf("%d deliveries, %d wait", len(w.receiver.got), w.waits())
		}
		var got struct {
			ID, Type, State string
			ProductID       string `json:"product_id"`
			EndsAt          string `json:"ends_at"`
			Alert           struct{ Name, Spent string }
			Share           any
		}
		if err := json.Unmarshal(w.receiver.got[0].body, &got); err != nil {
			t.Fatal(err)
		}
		if got.ID == "" || got.ID != w.receiver.got[0].header.Get(HeaderID) || got.Type != TypeBudgetAlert || got.State != "open" || got.ProductID != p.ID ||
			got.EndsAt != end.UTC().Format(time.RFC3339) || got.Alert.Name != "team" || got.Alert.Spent != "42" || got.Share != nil {
			t.Errorf("%s", w.receiver.got[0].body)
		}
	})
}
