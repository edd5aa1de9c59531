package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

const (
	productKey = "product-key-0123456789"
	otherKey   = "another-key-0123456789"
)

// received is a request as upstream saw it.
type received struct {
	header http.Header
	uri    string
	body   string
}

// bench is a gateway in front of an upstream that the test scripts.
type bench struct {
	t       *testing.T
	ledger  *ledger.Ledger
	product *quota.Product
	gateway *httptest.Server
	mu      sync.Mutex
	seen    []received
	answer  func(w http.ResponseWriter, r *http.Request, body string)
}

type transport struct{ base *url.URL }

func (u transport) RoundTrip(r *http.Request) (*http.Response, error) {
	target := *u.base
	target.Path, target.RawPath, target.RawQuery = r.URL.Path, r.URL.RawPath, r.URL.RawQuery
	r.URL, r.Host = &target, target.Host
	r.Header.Set("Api-Key", "upstream-secret")
	return http.DefaultTransport.RoundTrip(r)
}

// newBench makes a product with a budget of one dollar; change may alter it.
func newBench(t *testing.T, change func(p *quota.Product), options func(o *proxy.Options)) *bench {
	t.Helper()
	b := &bench{t: t}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.seen = append(b.seen, received{r.Header.Clone(), r.RequestURI, string(body)})
		answer := b.answer
		b.mu.Unlock()
		answer(w, r, string(body))
	}))
	t.Cleanup(upstream.Close)
	b.ledger = ledger.New(memstore.New(1, time.Now), ledger.Options{Instance: "test"})
	for i, key := range []string{productKey, otherKey} {
		p, _, err := b.ledger.Create(t.Context(), quota.HashKey(key), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
			p := &quota.Product{
				ID: id, Name: "Test", Keys: []quota.Key{{ID: "k", Hash: quota.HashKey(key)}}, Unit: quota.UnitUSD, Budget: 1e9,
				Period: "month", TimeZone: "UTC", Enforcement: quota.EnforceHard, Disconnect: quota.DisconnectDrain, UnknownPrice: quota.UnknownReject,
			}
			if change != nil {
				change(p)
			}
			return p, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			b.product = p
		}
	}
	base, _ := url.Parse(upstream.URL)
	o := proxy.Options{Ledger: b.ledger, Upstream: transport{base}, Book: pricing.Builtin(), Trailers: true}
	if options != nil {
		options(&o)
	}
	b.gateway = httptest.NewServer(proxy.New(o))
	t.Cleanup(b.gateway.Close)
	return b
}

func (b *bench) requests() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]received{}, b.seen...)
}

// answers makes upstream answer JSON.
func (b *bench) answers(status int, body string) {
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func (b *bench) do(method, path, body string, header ...string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequest(method, b.gateway.URL+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Api-Key", productKey)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			r.Header.Del(header[i])
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatalf("read answer: %v", err)
	}
	return answer, string(got)
}

func (b *bench) chat(body string, header ...string) (*http.Response, string) {
	b.t.Helper()
	return b.do(http.MethodPost, "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", body, header...)
}

func (b *bench) account() ledger.Account {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := b.ledger.Drain(ctx); err != nil {
		b.t.Fatal(err)
	}
	a, err := b.ledger.Balance(ctx, b.product)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

func (b *bench) records() []usage.Record {
	b.t.Helper()
	all, _, err := b.ledger.History(context.Background(), b.product.ID, ledger.HistoryQuery{Limit: 1000})
	if err != nil {
		b.t.Fatal(err)
	}
	var requests []usage.Record
	for _, r := range all {
		if r.Kind == usage.KindRequest {
			requests = append(requests, r)
		}
	}
	return requests
}

// recordOf is the record that an answer names.
func (b *bench) recordOf(answer *http.Response) usage.Record {
	b.t.Helper()
	r, err := b.ledger.Record(context.Background(), b.product.ID, answer.Header.Get("x-costgate-request-id"))
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) oneRecord() usage.Record {
	b.t.Helper()
	records := b.records()
	if len(records) != 1 {
		b.t.Fatalf("%d records, want 1", len(records))
	}
	return records[0]
}

func errorCode(t *testing.T, body string) string {
	t.Helper()
	var e struct {
		Error struct{ Message, Type, Code string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error.Message == "" {
		t.Fatalf("not an OpenAI error: %s", body)
	}
	return e.Error.Code
}

const (
	hello      = `{"messages":[{"role":"user","content":"Hello"}],"max_tokens":100}`
	chatAnswer = `{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-2024-11-20","choices":[{"index":0,"finish_reason":"stop",` +
		`"message":{"role":"assistant","content":"Hi"}}],"usage":{"prompt_tokens":1000,"completion_tokens":50,"total_tokens":1050,` +
		`"prompt_tokens_details":{"cached_tokens":200}}}`
	// 800 at 2.5 + 200 at 1.25 + 50 at 10 micro-dollars
	chatCost = 2_750_000
)

func TestChatIsChargedByItsUsage(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answers(200, chatAnswer)
	answer, body := b.chat(hello)
	if answer.StatusCode != 200 || body != chatAnswer {
		t.Fatalf("%d %s", answer.StatusCode, body)
	}
	if got := answer.Header.Get("x-costgate-cost"); got != "0.00275" {
		t.Errorf("x-costgate-cost = %q", got)
	}
	if got := answer.Header.Get("x-costgate-remaining"); got != "0.99725" {
		t.Errorf("x-costgate-remaining = %q", got)
	}
	if a := b.account(); a.Spent != chatCost || a.Held != 0 || a.Records != 1 {
		t.Errorf("account %+v", a)
	}
	r := b.oneRecord()
	if r.ID != answer.Header.Get("x-costgate-request-id") || r.UsageSource != "provider" || r.Outcome != "completed" ||
		r.PromptTokens != usage.Of(1000) || r.CachedTokens != usage.Of(200) || r.CompletionTokens != usage.Of(50) ||
		r.Operation != "chat" || r.Deployment != "gpt-4o" || r.Model != "gpt-4o-2024-11-20" || r.ResponseID != "chatcmpl-1" {
		t.Errorf("record %+v", r)
	}
}

func TestKeysAndHostHeadersStayHere(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answers(200, chatAnswer)
	for _, header := range [][]string{
		{"Api-Key", productKey},
		{"Api-Key", "", "Authorization", "Bearer " + productKey},
		{"Api-Key", "", "Ocp-Apim-Subscription-Key", productKey},
	} {
		header = append(header, "x-functions-key", "function-secret", "X-Forwarded-For", "1.2.3.4", "X-Ms-Client-Principal", "me", "Cookie", "a=b",
			"X-Custom", "stays")
		answer, _ := b.do("POST", "/OpenAI/Deployments/gpt-4o/Chat/Completions/?a=1&code=function-secret&api-version=2024-10-21", hello, header...)
		if answer.StatusCode != 200 {
			t.Fatalf("%v: %d", header[:2], answer.StatusCode)
		}
	}
	for _, r := range b.requests() {
		if r.uri != "/OpenAI/Deployments/gpt-4o/Chat/Completions/?a=1&api-version=2024-10-21" {
			t.Errorf("path and query: %s", r.uri)
		}
		if r.header.Get("Api-Key") != "upstream-secret" || r.header.Get("X-Custom") != "stays" {
			t.Errorf("header %v", r.header)
		}
		for name, values := range r.header {
			line := name + ": " + strings.Join(values, ",")
			for _, bad := range []string{productKey, "function-secret", "X-Forwarded", "Principal", "Cookie", "Ocp-Apim", "Authorization"} {
				if strings.Contains(line, bad) {
					t.Errorf("upstream got %s", line)
				}
			}
		}
	}
}

func TestRefusedBeforeUpstream(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Models = []string{"gpt-4o", "no-such-model"} }, nil)
	b.answers(200, chatAnswer)
	f := func(status int, code, method, path, body string, header ...string) {
		t.Helper()
		answer, got := b.do(method, path, body, header...)
		if answer.StatusCode != status || errorCode(t, got) != code {
			t.Errorf("%s %s %s: %d %s; want %d %s", method, path, body, answer.StatusCode, got, status, code)
		}
	}
	const chat = "/openai/v1/chat/completions"
	f(401, "invalid_api_key", "POST", chat, hello, "Api-Key", "wrong-key-0123456789")
	f(401, "invalid_api_key", "POST", chat, hello, "Api-Key", "")
	f(401, "invalid_api_key", "POST", chat, hello, "Api-Key", "short")
	f(403, "operation_not_priced", "POST", "/openai/v1/videos", `{}`)
	f(400, "missing_model", "POST", "/openai/v1/images/generations", `{}`)
	f(403, "operation_not_priced", "GET", chat, "")
	f(403, "operation_not_priced", "POST", "/openai/v1/models/../chat/completions", hello)
	f(403, "operation_not_priced", "POST", "/openai/v1/models/%2e%2e/files", hello)
	f(403, "operation_not_priced", "POST", "/openai/deployments/a%2Fb/chat/completions", hello)
	f(403, "model_not_allowed", "POST", chat, `{"model":"gpt-4o-mini"}`)
	f(403, "model_not_priced", "POST", chat, `{"model":"no-such-model"}`)
	f(400, "missing_model", "POST", chat, `{}`)
	f(400, "duplicate_field", "POST", chat, `{"model":"gpt-4o","model":"gpt-4o"}`)
	f(400, "duplicate_field", "POST", chat, `{"model":"gpt-4o","MODEL":"gpt-4o"}`)
	f(400, "duplicate_field", "POST", chat, `{"model":"gpt-4o","mod\u0065l":"gpt-4o"}`)
	f(400, "duplicate_field", "POST", chat, `{"model":"gpt-4o","stream_options":{"include_usage":true,"include_usage":false}}`)
	f(400, "invalid_json", "POST", chat, `{"model":"gpt-4o"`)
	f(400, "invalid_json", "POST", chat, `{"model":"gpt-4o"} x`)
	f(400, "invalid_json", "POST", chat, `["gpt-4o"]`)
	f(400, "invalid_value", "POST", chat, `{"model":"gpt-4o","max_tokens":"5"}`)
	f(400, "invalid_value", "POST", chat, `{"model":"gpt-4o","max_tokens":0}`)
	f(400, "invalid_value", "POST", chat, `{"model":"gpt-4o","max_tokens":1,"max_completion_tokens":2}`)
	f(400, "invalid_value", "POST", chat, `{"model":"gpt-4o","n":129}`)
	f(400, "invalid_value", "POST", chat, `{"model":"gpt-4o","stream":"yes"}`)
	f(403, "operation_not_priced", "POST", "/openai/v1/responses", `{"model":"gpt-4o","tools":[{"type":"image_generation"}]}`)
	f(415, "unsupported_content_encoding", "POST", chat, hello, "Content-Encoding", "gzip")
	f(404, "not_found", "GET", "/openai/v1/responses/resp_1", "")
	f(404, "previous_response_not_found", "POST", "/openai/v1/responses", `{"model":"gpt-4o","previous_response_id":"resp_1"}`)
	f(429, "insufficient_quota", "POST", chat, `{"model":"gpt-4o","max_tokens":16000,"n":100}`)
	if n := len(b.requests()); n != 0 {
		t.Errorf("%d requests reached upstream", n)
	}
	if a := b.account(); a.Spent != 0 || a.Held != 0 {
		t.Errorf("account %+v", a)
	}
}

func TestBodyLimit(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answers(200, `{}`)
	f := func(size int, want int) {
		t.Helper()
		r, _ := http.NewRequest("POST", b.gateway.URL+"/openai/v1/models", io.NopCloser(io.LimitReader(zeros{}, int64(size))))
		r.URL.Path = "/openai/v1/embeddings"
		r.Header.Set("Api-Key", productKey)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%d bytes: %d, want %d", size, answer.StatusCode, want)
		}
	}
	f(proxy.BodyBytesMax, 400) // whole, and not JSON
	f(proxy.BodyBytesMax+1, 413)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestCountLimit: a body is tokenized up to CountBytesMax; a larger one is
// bounded by its bytes, however little it would count.
func TestCountLimit(t *testing.T) {
	for size, want := range map[int]int{proxy.CountBytesMax: 200, proxy.CountBytesMax + 1: 429} {
		b := newBench(t, nil, nil) // one dollar: 400,000 tokens of input
		b.answers(200, chatAnswer)
		head := `{"model":"gpt-4.1","max_tokens":5,"messages":[],"metadata":"`
		body := head + strings.Repeat(" ", size-len(head)-2) + `"}`
		if answer, got := b.do("POST", "/openai/v1/chat/completions", body); answer.StatusCode != want {
			t.Errorf("%d bytes: %d %s, want %d", size, answer.StatusCode, got, want)
		}
	}
}

func TestInsufficientQuotaIsFinal(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Budget = 1000 }, nil)
	answer, body := b.chat(hello)
	h := answer.Header
	if answer.StatusCode != 429 || errorCode(t, body) != "insufficient_quota" || h.Get("x-should-retry") != "false" || h.Get("Retry-After") != "" {
		t.Errorf("%d %v %s", answer.StatusCode, h, body)
	}
	if _, err := time.Parse(time.RFC3339, h.Get("x-costgate-reset")); err != nil {
		t.Errorf("x-costgate-reset: %v", err)
	}
}

func TestHeldBudgetIsRetryable(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Budget = 1_500_000 }, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		close(entered)
		<-release
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"usage":{"prompt_tokens":1,"completion_tokens":1}}`)
	}
	done := make(chan struct{})
	go func() { defer close(done); b.chat(hello) }()
	<-entered
	answer, body := b.chat(hello)
	if answer.StatusCode != 429 || errorCode(t, body) != "budget_held" || answer.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %v %s", answer.StatusCode, answer.Header, body)
	}
	close(release)
	<-done
}

func TestStoppedProduct(t *testing.T) {
	b := newBench(t, nil, nil)
	until := time.Now().Add(time.Hour)
	_, _, err := b.ledger.Edit(t.Context(), b.product.ID, ledger.Once{}, func(d *ledger.Draft) error {
		d.Product.Stop = &quota.Stop{Reason: "the Azure budget is spent", Until: until}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	answer, body := b.chat(hello)
	if answer.StatusCode != 429 || errorCode(t, body) != "insufficient_quota" ||
		answer.Header.Get("x-costgate-reset") != until.UTC().Format(time.RFC3339) {
		t.Errorf("%d %v %s", answer.StatusCode, answer.Header, body)
	}
}

func TestOutputLimit(t *testing.T) {
	f := func(change func(p *quota.Product), path, body, want string) {
		t.Helper()
		b := newBench(t, change, nil)
		b.answers(200, chatAnswer)
		if answer, got := b.do("POST", path, body); answer.StatusCode != 200 {
			t.Fatalf("%s: %d %s", body, answer.StatusCode, got)
		}
		if got := b.requests()[0].body; got != want {
			t.Errorf("upstream got %s, want %s", got, want)
		}
	}
	capped := func(p *quota.Product) { p.MaxOutputTokens = 50 }
	poor := func(p *quota.Product) { p.Budget = 5_000_000 } // half a cent: 500 tokens, less the prompt
	const chat, old = "/openai/v1/chat/completions", "/openai/deployments/gpt-4o/chat/completions?api-version=2024-02-01"
	f(nil, chat, `{"model":"gpt-4o"}`, `{"model":"gpt-4o"}`)
	f(capped, chat, `{"model":"gpt-4o"}`, `{"max_completion_tokens":50,"model":"gpt-4o"}`)
	f(capped, old, `{"messages":[]}`, `{"max_tokens":50,"messages":[]}`)
	f(capped, chat, `{"model":"gpt-4o","max_tokens":49}`, `{"model":"gpt-4o","max_tokens":49}`)
	f(capped, chat, `{"model":"gpt-4o","max_tokens": 51 }`, `{"model":"gpt-4o","max_tokens": 50 }`)
	f(capped, "/openai/v1/responses", `{"model":"gpt-4o","input":"x"}`, `{"max_output_tokens":50,"model":"gpt-4o","input":"x"}`)
	f(poor, chat, `{"model":"gpt-4o","max_tokens":400}`, `{"model":"gpt-4o","max_tokens":400}`)
	b := newBench(t, poor, nil)
	b.answers(200, chatAnswer)
	b.do("POST", chat, `{"model":"gpt-4o","messages":[]}`)
	var sent struct {
		Limit int64 `json:"max_completion_tokens"`
	}
	if err := json.Unmarshal([]byte(b.requests()[0].body), &sent); err != nil || sent.Limit < 450 || sent.Limit > 500 {
		t.Errorf("affordable limit: %+v, %v", sent, err)
	}
}

func TestErrorsAreBilledAsAzureDoes(t *testing.T) {
	f := func(status int, body string, billed bool, source string) {
		t.Helper()
		b := newBench(t, nil, nil)
		b.answers(status, body)
		answer, got := b.chat(hello)
		r := b.oneRecord()
		if answer.StatusCode != status || got != body || (r.Charge.N > 0) != billed || string(r.UsageSource) != source ||
			r.Status != usage.Of(int64(status)) || b.account().Held != 0 {
			t.Errorf("%d %s: %d %s; record %+v", status, body, answer.StatusCode, got, r)
		}
	}
	f(400, `{"error":{"message":"filtered","code":"content_filter","status":400}}`, true, "tokenizer")
	f(400, `{"error":{"message":"long","code":"context_length_exceeded"}}`, true, "tokenizer")
	f(400, `{"error":{"message":"bad","code":"unknown_parameter"}}`, false, "none")
	f(401, `{"error":{"code":"401","message":"x"}}`, false, "none")
	f(404, `{"error":{"code":"DeploymentNotFound","message":"x"}}`, false, "none")
	f(408, `{"error":{"code":"timeout","message":"x"}}`, true, "estimate")
	f(429, `{"error":{"code":"429","message":"x"}}`, false, "none")
	f(500, `oops`, false, "none")
	f(503, ``, false, "none")
}

func TestUnreachableUpstreamLeavesNothing(t *testing.T) {
	b := newBench(t, nil, func(o *proxy.Options) {
		base, _ := url.Parse("http://127.0.0.1:1")
		o.Upstream = transport{base}
	})
	answer, body := b.chat(hello)
	if answer.StatusCode != 502 || errorCode(t, body) != "upstream_error" {
		t.Errorf("%d %s", answer.StatusCode, body)
	}
	if a := b.account(); a.Spent != 0 || a.Held != 0 || len(b.records()) != 0 {
		t.Errorf("account %+v", a)
	}
}

func TestCutJSONChargesTheHold(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"id":`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	answer, body := b.chat(hello)
	r := b.oneRecord()
	if answer.StatusCode != 502 || errorCode(t, body) != "upstream_error" || r.UsageSource != "estimate" || r.Charge != r.HoldNanoUSD || r.Charge.N == 0 {
		t.Errorf("%d %s; record %+v", answer.StatusCode, body, r)
	}
}

func TestLargeAnswerIsMeteredAsItGoesBy(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Budget = 1e12 }, nil)
	big := `{"object":"list","data":[{"embedding":"` + strings.Repeat("A", 3<<20) + `"}],"model":"text-embedding-3-small","usage":{"prompt_tokens":77,"total_tokens":77}}`
	b.answers(200, big)
	answer, body := b.do("POST", "/openai/v1/embeddings", `{"model":"text-embedding-3-small","input":"x"}`)
	if body != big || answer.Trailer.Get("x-costgate-cost") != "0.00000154" {
		t.Errorf("%d bytes, trailer %v", len(body), answer.Trailer)
	}
	if r := b.oneRecord(); r.PromptTokens != usage.Of(77) || r.CostNanoUSD != usage.Of(1540) || r.UsageSource != "provider" {
		t.Errorf("record %+v", r)
	}
}

func TestStoredResponsesBelongToTheirProduct(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answers(200, `{"id":"resp_1","object":"response","status":"completed","model":"gpt-4o","usage":{"input_tokens":10,"output_tokens":5}}`)
	if answer, body := b.do("POST", "/openai/v1/responses", `{"model":"gpt-4o","input":"x","max_output_tokens":50}`); answer.StatusCode != 200 {
		t.Fatalf("%d %s", answer.StatusCode, body)
	}
	f := func(key string, status int, method, path, body string) {
		t.Helper()
		if answer, got := b.do(method, path, body, "Api-Key", key); answer.StatusCode != status {
			t.Errorf("%s %s: %d %s; want %d", method, path, answer.StatusCode, got, status)
		}
	}
	next := `{"model":"gpt-4o","input":"y","max_output_tokens":50,"previous_response_id":"resp_1"}`
	f(productKey, 200, "GET", "/openai/v1/responses/resp_1", "")
	f(otherKey, 404, "GET", "/openai/v1/responses/resp_1", "")
	f(otherKey, 404, "DELETE", "/openai/responses/resp_1?api-version=2025-03-01-preview", "")
	f(otherKey, 404, "POST", "/openai/v1/responses", next)
	f(productKey, 200, "POST", "/openai/v1/responses", next)
}

func TestTokenBudget(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Unit, p.Budget = quota.UnitTokens, 2000 }, nil)
	b.answers(200, chatAnswer)
	answer, _ := b.chat(hello)
	if answer.StatusCode != 200 || answer.Header.Get("x-costgate-cost") != "1050" {
		t.Errorf("%d %v", answer.StatusCode, answer.Header)
	}
	if a := b.account(); a.Spent != 1050 {
		t.Errorf("account %+v", a)
	}
	if r := b.oneRecord(); r.Charge != usage.Of(1050) || r.CostNanoUSD != usage.Of(chatCost) || r.Unit != "tokens" {
		t.Errorf("record %+v", r)
	}
}

// sse makes a stream of data events.
func sse(events ...string) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "data: %s\n\n", e)
	}
	return b.String()
}

var (
	streamHead  = sse(`{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}`, `{"choices":[{"delta":{"content":"Hi"},"finish_reason":null,"index":0}],"id":"chatcmpl-2","model":"gpt-4o-2024-11-20","usage":null}`, `{"choices":[{"delta":{},"finish_reason":"stop","index":0}],"id":"chatcmpl-2","model":"gpt-4o-2024-11-20","usage":null}`)
	streamUsage = sse(`{"choices":[],"id":"chatcmpl-2","model":"gpt-4o-2024-11-20","usage":{"prompt_tokens":1000,"completion_tokens":50,"total_tokens":1050,"prompt_tokens_details":{"cached_tokens":200}}}`)
	streamEnd   = sse(`[DONE]`)
)

// streams makes upstream send a stream in pieces of a size.
func (b *bench) streams(piece int, text string) {
	b.answer = func(w http.ResponseWriter, _ *http.Request, body string) {
		w.Header().Set("Content-Type", "text/event-stream")
		send := text
		if !strings.Contains(body, `"include_usage":true`) {
			send = strings.Replace(send, streamUsage, "", 1)
		}
		for len(send) > 0 {
			n := min(piece, len(send))
			_, _ = io.WriteString(w, send[:n])
			w.(http.Flusher).Flush()
			send = send[n:]
		}
	}
}

const streamed = `{"messages":[{"role":"user","content":"Hello"}],"max_tokens":100,"stream":true`

func TestStreamUsageIsAskedForAndSwallowed(t *testing.T) {
	for _, piece := range []int{1, 2, 3, 7, 64, 1 << 20} {
		for _, asks := range []bool{false, true} {
			t.Run(fmt.Sprint(piece, asks), func(t *testing.T) {
				t.Parallel()
				b := newBench(t, nil, nil)
				b.streams(piece, streamHead+streamUsage+streamEnd)
				body, want := streamed+`}`, streamHead+streamEnd
				if asks {
					body, want = streamed+`,"stream_options":{"include_usage":true}}`, streamHead+streamUsage+streamEnd
				}
				answer, got := b.chat(body)
				if got != want {
					t.Errorf("got %q\nwant %q", got, want)
				}
				if answer.Trailer.Get("x-costgate-cost") != "0.00275" || answer.Trailer.Get("x-costgate-usage-source") != "provider" {
					t.Errorf("trailer %v", answer.Trailer)
				}
				if r := b.oneRecord(); r.CostNanoUSD != usage.Of(chatCost) || r.UsageSource != "provider" || r.Stream == nil || !*r.Stream {
					t.Errorf("record %+v", r)
				}
			})
		}
	}
}

func TestStreamOptionsRefusedIsResentOnceAndRemembered(t *testing.T) {
	b := newBench(t, nil, nil)
	stream := streamHead + streamEnd
	b.answer = func(w http.ResponseWriter, _ *http.Request, body string) {
		if strings.Contains(body, "stream_options") {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":{"message":"Validation error at #/stream_options: Extra inputs are not permitted"}}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, stream)
	}
	for i, want := range []int{2, 3} {
		if _, got := b.chat(streamed + `}`); got != stream {
			t.Errorf("got %q", got)
		}
		if n := len(b.requests()); n != want {
			t.Errorf("after %d calls upstream saw %d requests, want %d", i+1, n, want)
		}
	}
	records := b.records()
	if len(records) != 2 || records[0].Attempts.N+records[1].Attempts.N != 3 || records[0].UsageSource != "tokenizer" || records[0].CompletionTokens.N < 1 {
		t.Errorf("records %+v", records)
	}
	// The client's own stream_options is its own affair.
	if answer, _ := b.chat(streamed + `,"stream_options":{"include_usage":true}}`); answer.StatusCode != 400 {
		t.Errorf("status %d", answer.StatusCode)
	}
}

func TestStreamOptionsEdits(t *testing.T) {
	f := func(body, want string) {
		t.Helper()
		b := newBench(t, nil, nil)
		b.streams(1<<20, streamHead+streamUsage+streamEnd)
		b.do("POST", "/openai/v1/chat/completions", body)
		if got := b.requests()[0].body; got != want {
			t.Errorf("upstream got %s, want %s", got, want)
		}
	}
	f(` {"model":"gpt-4o","max_tokens":9,"stream":true}`, ` {"stream_options":{"include_usage":true},"model":"gpt-4o","max_tokens":9,"stream":true}`)
	f(`{"model":"gpt-4o","max_tokens":9,"stream":true,"stream_options":{}}`, `{"model":"gpt-4o","max_tokens":9,"stream":true,"stream_options":{"include_usage":true}}`)
	f(`{"model":"gpt-4o","max_tokens":9,"stream":true,"stream_options":{"a":1}}`,
		`{"model":"gpt-4o","max_tokens":9,"stream":true,"stream_options":{"include_usage":true,"a":1}}`)
	f(`{"model":"gpt-4o","max_tokens":9,"stream":true,"stream_options":{"include_usage": false}}`,
		`{"model":"gpt-4o","max_tokens":9,"stream":true,"stream_options":{"include_usage": true}}`)
	f(`{"model":"gpt-4o","max_tokens":9,"stream":true,"data_sources":[{}]}`, `{"model":"gpt-4o","max_tokens":9,"stream":true,"data_sources":[{}]}`)
}

func TestCutStreamIsEstimatedAndCut(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, streamHead)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	r, _ := http.NewRequest("POST", b.gateway.URL+"/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", strings.NewReader(streamed+`}`))
	r.Header.Set("Api-Key", productKey)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got, err := io.ReadAll(answer.Body); err == nil || !bytes.HasPrefix([]byte(streamHead), got) {
		t.Errorf("a cut stream must look cut: %q, %v", got, err)
	}
	if record := b.oneRecord(); record.UsageSource != "estimate" || record.Outcome != "upstream_error" || record.Charge.N == 0 {
		t.Errorf("record %+v", record)
	}
}

func TestClientGone(t *testing.T) {
	for _, policy := range []quota.Disconnect{quota.DisconnectDrain, quota.DisconnectCancel} {
		t.Run(string(policy), func(t *testing.T) {
			b := newBench(t, func(p *quota.Product) { p.Disconnect = policy }, nil)
			gone, ended := make(chan struct{}), make(chan bool, 1)
			b.answer = func(w http.ResponseWriter, r *http.Request, _ string) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, streamHead)
				w.(http.Flusher).Flush()
				<-gone
				if policy == quota.DisconnectCancel {
					<-r.Context().Done()
					ended <- true
					return
				}
				_, _ = io.WriteString(w, streamUsage+streamEnd)
				ended <- r.Context().Err() != nil
			}
			ctx, cancel := context.WithCancel(t.Context())
			r, _ := http.NewRequestWithContext(ctx, "POST", b.gateway.URL+"/openai/v1/chat/completions", strings.NewReader(`{"model":"gpt-4o",`+streamed[1:]+`}`))
			r.Header.Set("Api-Key", productKey)
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			answer.Body.Close()
			close(gone)
			if cancelled := <-ended; cancelled != (policy == quota.DisconnectCancel) {
				t.Errorf("upstream request cancelled: %v", cancelled)
			}
			b.gateway.Close() // waits for the handler
			record := b.oneRecord()
			if policy == quota.DisconnectDrain && (record.CostNanoUSD != usage.Of(chatCost) || record.UsageSource != "provider") {
				t.Errorf("drained: %+v", record)
			}
			if policy == quota.DisconnectCancel && (record.UsageSource != "estimate" || record.Outcome != "client_gone") {
				t.Errorf("cancelled: %+v", record)
			}
		})
	}
}

func TestKeepAliveBetweenEvents(t *testing.T) {
	b := newBench(t, nil, func(o *proxy.Options) { o.KeepAlive = time.Millisecond })
	heard := make(chan struct{})
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, streamHead)
		w.(http.Flusher).Flush()
		<-heard
		_, _ = io.WriteString(w, streamUsage+streamEnd)
	}
	r, _ := http.NewRequest("POST", b.gateway.URL+"/openai/v1/chat/completions", strings.NewReader(`{"model":"gpt-4o",`+streamed[1:]+`,"stream_options":{"include_usage":true}}`))
	r.Header.Set("Api-Key", productKey)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var got []byte
	buffer := make([]byte, 4096)
	for !bytes.Contains(got, []byte(": keepalive\n\n: keepalive\n\n")) {
		n, err := answer.Body.Read(buffer)
		if got = append(got, buffer[:n]...); err != nil {
			t.Fatal(err)
		}
	}
	close(heard)
	rest, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if plain := strings.ReplaceAll(string(got)+string(rest), ": keepalive\n\n", ""); plain != streamHead+streamUsage+streamEnd {
		t.Errorf("without comments: %q", plain)
	}
}
