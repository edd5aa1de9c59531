package budget_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/budget"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// cutStore is cut off after a number of operations.
type cutStore struct {
	ledger.Store
	left atomic.Int64
}

var errCut = fmt.Errorf("cut off: %w", ledger.ErrUnavailable)

func (s *cutStore) Get(ctx context.Context, partition, row string) (ledger.Entity, error) {
	if s.left.Add(-1) <= 0 {
		return ledger.Entity{}, errCut
	}
	return s.Store.Get(ctx, partition, row)
}

func (s *cutStore) Range(ctx context.Context, partition, from, to string, limit int) (ledger.Page, error) {
	if s.left.Add(-1) <= 0 {
		return ledger.Page{}, errCut
	}
	return s.Store.Range(ctx, partition, from, to, limit)
}

func (s *cutStore) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	left := s.left.Add(-1)
	if left < 0 {
		return nil, errCut
	}
	etags, err := s.Store.Apply(ctx, partition, ops)
	if left == 0 { // its answer is lost
		return nil, errCut
	}
	return etags, err
}

func mustCreate(t *testing.T, l *ledger.Ledger, key string) *quota.Product {
	t.Helper()
	p, _, err := l.Create(t.Context(), quota.HashKey(key), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
		return &quota.Product{ID: id, Name: "P", Unit: quota.UnitUSD, Budget: 1, Period: "day", TimeZone: "UTC", BudgetName: "Team-Budget", BudgetAlerts: stopAtFull}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestOutageAtEveryStep: 503 unless everything was done, and the repetition that
// follows does it once.
func TestOutageAtEveryStep(t *testing.T) {
	for n, done := int64(1), false; !done; n++ {
		synctest.Test(t, func(t *testing.T) {
			s := &cutStore{Store: memstore.New(1, time.Now)}
			s.left.Store(1 << 40)
			l := ledger.New(s, ledger.Options{Instance: "t"})
			products := []*quota.Product{mustCreate(t, l, "k1"), mustCreate(t, l, "k2")}
			handler := budget.New(budget.Options{Ledger: l})
			body := alert("Actual", "Team-Budget", "$50.00", time.Now().UTC().Format(time.RFC3339))
			post := func() *httptest.ResponseRecorder {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequest("POST", "/api/Quota/Budget", strings.NewReader(body)))
				return w
			}
			s.left.Store(n)
			began := time.Now()
			first := post()
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("operation %d is cut: answered after %v", n, took)
			}
			done = first.Code == 200
			if !done && (first.Code != 503 || first.Header().Get("Retry-After") == "" || first.Header().Get("Content-Type") != "application/problem+json") {
				t.Errorf("operation %d is cut: %d %v", n, first.Code, first.Header())
			}
			s.left.Store(1 << 40)
			if again := post(); again.Code != 200 {
				t.Errorf("operation %d was cut: %d", n, again.Code)
			}
			for _, p := range products {
				records, _, err := l.History(t.Context(), p.ID, ledger.HistoryQuery{Limit: 100})
				if err != nil {
					t.Fatal(err)
				}
				stops := 0
				for _, r := range records {
					if r.Kind == usage.KindStop {
						stops++
					}
				}
				if now, err := l.Find(t.Context(), p.ID); err != nil || now.Stop == nil || stops != 1 {
					t.Errorf("operation %d was cut: %+v, %d records of a stop, %v", n, now, stops, err)
				}
			}
			handler.Wait()
		})
		if n > 50 {
			t.Fatal("it never succeeds")
		}
	}
}

// brokenLedger cannot change one product.
type brokenLedger struct {
	*ledger.Ledger
	id string
}

func (b brokenLedger) Edit(ctx context.Context, id string, once ledger.Once, edit func(d *ledger.Draft) error) (*quota.Product, bool, error) {
	if id == b.id {
		return nil, false, errors.New("its books are broken")
	}
	return b.Ledger.Edit(ctx, id, once, edit)
}

func TestBrokenProductKeepsNoOtherOpen(t *testing.T) {
	x := newFixture(t, stopAtFull)
	y := mustCreate(t, x.ledger, "k2")
	for _, broken := range []string{x.product.ID, y.ID} { // whichever comes first
		x.handler = budget.New(budget.Options{Ledger: brokenLedger{x.ledger, broken}})
		if status, _ := x.post(alert("Actual", "Team-Budget", "$50.00", time.Now().UTC().Format(time.RFC3339))); status != 503 {
			t.Errorf("status %d", status)
		}
	}
	for _, id := range []string{x.product.ID, y.ID} {
		if p, err := x.ledger.Find(t.Context(), id); err != nil || p.Stop == nil {
			t.Errorf("%s: %+v, %v", id, p, err)
		}
	}
}
