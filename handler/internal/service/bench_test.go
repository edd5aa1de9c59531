package service_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/service"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

const productKey = "product-key-0123456789"

// received is a request as the service saw it.
type received struct {
	method, uri, host, body string
	header                  http.Header
}

// bench is a gateway in front of a service that the test scripts.
type bench struct {
	t       *testing.T
	ledger  *ledger.Ledger
	store   *memstore.Store
	product *quota.Product
	gateway *httptest.Server
	service *httptest.Server
	mu      sync.Mutex
	seen    []received
	answer  http.HandlerFunc
}

// newBench makes a product with a budget of one dollar, and the service w with
// the given fields besides its URL, %s in them.
func newBench(t *testing.T, fields string, change func(p *quota.Product), options func(o *service.Options)) *bench {
	t.Helper()
	b := &bench{t: t, store: memstore.New(1, time.Now)}
	b.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }
	b.service = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.seen = append(b.seen, received{r.Method, r.RequestURI, r.Host, string(body), r.Header.Clone()})
		answer := b.answer
		b.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(b.service.Close)
	b.ledger = ledger.New(b.store, ledger.Options{Instance: "test"})
	p, _, err := b.ledger.Create(t.Context(), quota.HashKey(productKey), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
		p := &quota.Product{
			ID: id, Name: "Test", Keys: []quota.Key{{ID: "k", Hash: quota.HashKey(productKey)}}, Unit: quota.UnitUSD, Budget: 1e9,
			Period: "month", TimeZone: "UTC", Enforcement: quota.EnforceHard, Disconnect: quota.DisconnectDrain,
		}
		if change != nil {
			change(p)
		}
		return p, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.product = p
	services, problems := service.Parse(fmt.Sprintf(`{"w":{"url":"%s/base",%s}}`, b.service.URL, fields), func(string) string { return "s3cret" })
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	o := service.Options{Services: services, Ledger: b.ledger, Proxy: proxy.New(proxy.Options{Ledger: b.ledger}), Trailers: true}
	if options != nil {
		options(&o)
	}
	handler := service.New(o)
	t.Cleanup(func() { handler.Close() })
	b.gateway = httptest.NewServer(handler)
	t.Cleanup(b.gateway.Close)
	return b
}

// client follows no redirect and asks for nothing of its own.
var client = &http.Client{
	Transport:     &http.Transport{DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (b *bench) request(method, path string, body io.Reader, header ...string) *http.Request {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.gateway.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Api-Key", productKey)
	for i := 0; i < len(header); i += 2 {
		if r.Header.Del(header[i]); header[i+1] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	return r
}

// do calls and reads the answer; err is how its body broke off.
func (b *bench) do(method, path, body string, header ...string) (answer *http.Response, text string, err error) {
	b.t.Helper()
	answer, err = client.Do(b.request(method, path, strings.NewReader(body), header...))
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	return answer, string(got), err
}

// refused expects an error of the gateway's, and that the service saw nothing.
func (b *bench) refused(status int, code, method, path, body string, header ...string) {
	b.t.Helper()
	before := len(b.requests())
	answer, text, _ := b.do(method, path, body, header...)
	if answer.StatusCode != status || !strings.Contains(text, `"code":"`+code+`"`) {
		b.t.Errorf("%s %s: %d %s, want %d %s", method, path, answer.StatusCode, text, status, code)
	}
	if n := len(b.requests()) - before; n != 0 {
		b.t.Errorf("%s %s reached the service", method, path)
	}
}

// settled waits until nothing is held, and returns the records, newest first.
func (b *bench) settled(n int) []usage.Record {
	b.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		records, _, err := b.ledger.History(b.t.Context(), b.product.ID, ledger.HistoryQuery{Limit: 1000})
		if err != nil {
			b.t.Fatal(err)
		}
		calls := records[:0]
		for _, r := range records {
			if r.Kind == usage.KindRequest {
				calls = append(calls, r)
			}
		}
		if account, err := b.ledger.Balance(b.t.Context(), b.product); err == nil && account.Held == 0 && len(calls) == n {
			return calls
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%d records, want %d", len(calls), n)
		}
	}
}

// record is the one that an answer names, when all n are there.
func (b *bench) record(answer *http.Response, n int) usage.Record {
	b.t.Helper()
	for _, r := range b.settled(n) {
		if r.ID == answer.Header.Get("X-Costgate-Request-Id") {
			return r
		}
	}
	b.t.Fatalf("no record %s", answer.Header.Get("X-Costgate-Request-Id"))
	return usage.Record{}
}

func (b *bench) requests() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.seen)
}

func (b *bench) spent() int64 {
	b.t.Helper()
	account, err := b.ledger.Balance(b.t.Context(), b.product)
	if err != nil {
		b.t.Fatal(err)
	}
	return account.Spent
}
