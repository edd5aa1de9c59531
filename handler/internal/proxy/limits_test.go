package proxy_test

import (
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/quota"
)

const limitedAnswer = `{"id":"x","object":"chat.completion","model":"gpt-4o-2024-11-20","choices":[{"index":0,"finish_reason":"stop","message":{"content":"a"}}],
	"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}`

const limitedBody = `{"model":"gpt-4o","max_tokens":50,"messages":[{"role":"user","content":"hi"}]}`

func wantLimited(t *testing.T, answer *http.Response, text, kind string) {
	t.Helper()
	after, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	if answer.StatusCode != http.StatusTooManyRequests || errorCode(t, text) != "rate_limit_exceeded" || err != nil || after < 1 || after > 61 {
		t.Errorf("%d Retry-After %q %s", answer.StatusCode, answer.Header.Get("Retry-After"), text)
	}
	if kind != "" && answer.Header.Get("x-should-retry") != "" {
		t.Error("clients are told not to try again")
	}
}

// TestRequestsPerMinute: the limit counts what was sent, streams and free
// requests too; a refused request costs nothing and reaches nobody.
func TestRequestsPerMinute(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.RequestsPerMinute = 3 }, nil)
	b.answers(http.StatusOK, limitedAnswer)
	for range 2 {
		if answer, text := b.chat(limitedBody); answer.StatusCode != http.StatusOK {
			t.Fatal(answer.StatusCode, text)
		}
	}
	if answer, text := b.chat(`{"model":"unknown","messages":[],"max_tokens":1,"max_tokens":2}`); answer.StatusCode != http.StatusBadRequest {
		t.Error(answer.StatusCode, text) // refused: it does not count
	}
	if answer, text := b.do(http.MethodGet, "/openai/v1/models", ""); answer.StatusCode != http.StatusOK {
		t.Error(answer.StatusCode, text)
	}
	answer, text := b.chat(limitedBody)
	wantLimited(t, answer, text, "requests")
	answer, text = b.do(http.MethodGet, "/openai/v1/models", "")
	wantLimited(t, answer, text, "requests")
	if n := len(b.requests()); n != 3 {
		t.Errorf("%d requests reached upstream", n)
	}
	if n := len(b.records()); n != 2 {
		t.Errorf("%d records", n)
	}
}

// TestTokensPerMinute: a request counts with its prompt and the limit of its
// answer while it runs, and with what it took when it has ended.
func TestTokensPerMinute(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.TokensPerMinute = 1100 }, nil)
	b.answers(http.StatusOK, limitedAnswer) // 15 tokens
	asking := func(tokens int) (*http.Response, string) {
		t.Helper()
		return b.chat(`{"model":"gpt-4o","max_tokens":` + strconv.Itoa(tokens) + `,"messages":[{"role":"user","content":"hi"}]}`)
	}
	for i := range 5 {
		if answer, text := asking(950); answer.StatusCode != http.StatusOK { // twice would be too many
			t.Fatal(i, answer.StatusCode, text)
		}
	}
	answer, text := asking(1030) // 75 are used
	wantLimited(t, answer, text, "tokens")
	if answer, text := asking(900); answer.StatusCode != http.StatusOK {
		t.Error(answer.StatusCode, text)
	}
	if n := len(b.records()); n != 6 {
		t.Errorf("%d records", n)
	}
}

// TestMaxParallel: what runs counts until its answer has ended.
func TestMaxParallel(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.MaxParallel = 2 }, nil)
	begun, end := make(chan struct{}), make(chan struct{})
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		begun <- struct{}{}
		<-end
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, limitedAnswer)
	}
	var running sync.WaitGroup
	for range 2 {
		running.Go(func() {
			if answer, text := b.chat(limitedBody); answer.StatusCode != http.StatusOK {
				t.Error(answer.StatusCode, text)
			}
		})
		<-begun
	}
	answer, text := b.chat(limitedBody)
	wantLimited(t, answer, text, "requests")
	close(end)
	running.Wait()
	b.answers(http.StatusOK, limitedAnswer)
	if answer, text := b.chat(limitedBody); answer.StatusCode != http.StatusOK {
		t.Error(answer.StatusCode, text)
	}
}

// TestUnsentRequestsDoNotCount in the limits either.
func TestUnsentRequestsDoNotCount(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.RequestsPerMinute = 1 }, func(o *proxy.Options) { o.Upstream = unreachable{} })
	for range 3 {
		if answer, text := b.chat(limitedBody); answer.StatusCode != http.StatusBadGateway {
			t.Errorf("%d %s", answer.StatusCode, text)
		}
	}
}

type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) { return nil, proxy.ErrNotSent }

// TestAnswersCannotTakeOurHeadersAway: what an upstream names in Connection ends
// here, but for what the gateway says of the request.
func TestAnswersCannotTakeOurHeadersAway(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header()["Connection"] = []string{"X-Costgate-Request-Id, X-One", "x-two, X-Costgate-Product"}
		w.Header().Set("X-One", "1")
		w.Header().Set("X-Two", "2")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, limitedAnswer)
	}
	answer, _ := b.chat(limitedBody)
	h := answer.Header
	if h.Get("x-costgate-request-id") == "" || h.Get("x-costgate-product") == "" || h.Get("x-one") != "" || h.Get("x-two") != "" {
		t.Errorf("%v", h)
	}
}

// TestNothingIsSentTwice by net/http's transport, which takes a request with an
// Idempotency-Key for one that may be repeated on a connection that died: it would
// be billed twice, and recorded once.
func TestNothingIsSentTwice(t *testing.T) {
	var sent atomic.Int64
	b := newBench(t, nil, nil)
	b.answer = func(w http.ResponseWriter, r *http.Request, _ string) {
		if r.Header.Get("Idempotency-Key") != "once" {
			t.Errorf("%v", r.Header)
		}
		if sent.Add(1) > 1 { // on a connection that is used again
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, limitedAnswer)
	}
	b.chat(limitedBody, "Idempotency-Key", "once")
	if answer, text := b.chat(limitedBody, "Idempotency-Key", "once"); answer.StatusCode != http.StatusBadGateway {
		t.Errorf("%d %s", answer.StatusCode, text)
	}
	if n := sent.Load(); n != 2 {
		t.Errorf("upstream had %d requests of 2", n)
	}
}
