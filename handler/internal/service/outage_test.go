package service

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// slow is a service in a bubble, where time is not the machine's: it begins its
// answer at once, and ends it later, or as the test wants it.
type slow struct {
	duration time.Duration
	answer   func(r *http.Request) *http.Response
}

func (s *slow) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.answer != nil {
		return s.answer(r), nil
	}
	body, writer := io.Pipe()
	time.AfterFunc(s.duration, func() {
		_, _ = io.WriteString(writer, "ok")
		_ = writer.Close()
	})
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, ContentLength: -1, Request: r}, nil
}

const outageKey = "product-key-0123456789"

// bubble is a gateway whose store can fail.
type bubble struct {
	t       *testing.T
	store   *memstore.Store
	ledger  *ledger.Ledger
	product *quota.Product
	gateway *Handler
	service slow
}

func inBubble(t *testing.T, change func(p *quota.Product), test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, store: memstore.New(1, time.Now)}
		b.ledger = ledger.New(b.store, ledger.Options{Instance: "test"})
		var err error
		b.product, _, err = b.ledger.Create(t.Context(), quota.HashKey(outageKey), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
			p := &quota.Product{ID: id, Keys: []quota.Key{{ID: "k", Hash: quota.HashKey(outageKey)}}, Unit: quota.UnitUSD, Budget: 1e12, Period: "month", TimeZone: "UTC"}
			p.Enforcement, p.Disconnect = quota.EnforceHard, quota.DisconnectDrain
			change(p)
			return p, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		services, problems := Parse(`{"w":{"url":"http://127.0.0.1:1","pricePerCall":"0.01"}}`, func(string) string { return "" })
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		b.gateway = New(Options{Services: services, Ledger: b.ledger, Proxy: proxy.New(proxy.Options{Ledger: b.ledger})})
		b.gateway.targets.anywhere.RegisterProtocol("http", &b.service)
		defer func() {
			b.down(false)
			_ = b.ledger.Drain(context.Background()) // no task outlives the bubble
		}()
		test(b)
	})
}

func (b *bubble) down(down bool) { b.store.SetFaults(memstore.Faults{Down: down}) }

func (b *bubble) call() (status int, text string) {
	b.t.Helper()
	r, w := httptest.NewRequestWithContext(b.t.Context(), http.MethodGet, "/services/w/x", nil), httptest.NewRecorder()
	r.Header.Set("Api-Key", outageKey)
	b.gateway.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// spent ends the outage and is what all calls cost, each with a record.
func (b *bubble) spent() int64 {
	b.t.Helper()
	b.down(false)
	<-time.After(time.Minute)
	unsent, err := b.ledger.Unsent(b.t.Context(), 1000) // a lease stays while the lake does not have its records
	if err = errors.Join(err, b.ledger.Acknowledge(b.t.Context(), unsent), b.ledger.Drain(b.t.Context())); err != nil {
		b.t.Fatal(err)
	}
	records, _, err := b.ledger.History(b.t.Context(), b.product.ID, ledger.HistoryQuery{Limit: 1000})
	sum := int64(0)
	for _, r := range records {
		if r.Kind == usage.KindRequest {
			sum += r.Charge.N
		}
	}
	account, err2 := b.ledger.Balance(b.t.Context(), b.product)
	if err != nil || err2 != nil || account.Spent != sum || account.Held != 0 {
		b.t.Errorf("%+v, %d in records, %v, %v", account, sum, err, err2)
	}
	return account.Spent
}

const callCost = 10_000_000

// While the ledger cannot be reached nothing is sent for a hard product; a soft
// one goes on, and its books catch up.
func TestLedgerOutage(t *testing.T) {
	f := func(enforcement quota.Enforcement, status int, says string, want int64) {
		t.Helper()
		inBubble(t, func(p *quota.Product) { p.Enforcement = enforcement }, func(b *bubble) {
			b.call()
			b.down(true)
			if got, text := b.call(); got != status || !strings.Contains(text, says) {
				b.t.Errorf("%s: %d %s", enforcement, got, text)
			}
			if got := b.spent(); got != want*callCost {
				b.t.Errorf("%s: spent %d", enforcement, got)
			}
		})
	}
	f(quota.EnforceHard, 503, "ledger_unavailable", 1)
	f(quota.EnforceSoft, 200, "ok", 2)
}

// A hold that was not made durable keeps the answer from the client, and nothing
// else: the call was made, and is charged.
func TestAnswerDropped(t *testing.T) {
	inBubble(t, func(p *quota.Product) { p.Durability = quota.DurabilityOverlap }, func(b *bubble) {
		for range 9 { // until the ledger trusts it with calls that are not listed
			b.call()
			<-time.After(time.Millisecond)
		}
		b.down(true)
		b.service.duration = 80 * time.Second
		if status, text := b.call(); status != 503 || !strings.Contains(text, "answer_dropped") {
			b.t.Errorf("%d %s", status, text)
		}
		<-time.After(2 * time.Minute)
		if got := b.spent(); got != 10*callCost {
			b.t.Errorf("spent %d", got)
		}
	})
}
