package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/usage"
)

// An answer that does not begin in time is a 504 of ours, charged at its hold:
// the model may have run. It makes no difference whether the head of the answer
// came.
func TestAnswerWait(t *testing.T) {
	b := newBench(t, nil, func(o *proxy.Options) { o.AnswerWait = 100 * time.Millisecond })
	f := func(name string, answer func(w http.ResponseWriter, r *http.Request, body string)) {
		t.Run(name, func(t *testing.T) {
			b.mu.Lock()
			b.answer = answer
			b.mu.Unlock()
			resp, body := b.do("POST", "/openai/v1/chat/completions", `{"model":"gpt-4o","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}`)
			if resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(body, `"code":"upstream_timeout"`) || !strings.Contains(body, `"error"`) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			record := b.wait(t, resp.Header.Get("X-Costgate-Request-Id"))
			if record.Outcome != usage.Text(usage.OutcomeTimeout) || record.UsageSource != usage.Text(usage.SourceEstimate) ||
				record.CostNanoUSD != record.HoldNanoUSD || record.CostNanoUSD.N == 0 {
				t.Errorf("%+v", record)
			}
		})
	}
	f("no head", func(_ http.ResponseWriter, r *http.Request, _ string) { <-r.Context().Done() })
	f("no body", func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Content-Type", "application/json")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	f("half a body", func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}

// wait reads a record whose settlement may go on in the background.
func (b *bench) wait(t *testing.T, id string) usage.Record {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		records, _, err := b.ledger.History(t.Context(), b.product.ID, ledger.HistoryQuery{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.ID == id {
				return r
			}
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("no record %s", id)
		}
	}
}

// A stream that has begun may take longer, and the wait for its head counts as
// silence: the platform waits for the first byte.
func TestStreamOutlivesAnswerWait(t *testing.T) {
	var late atomic.Int64 // what the clock is ahead
	commented := make(chan struct{})
	b := newBench(t, nil, func(o *proxy.Options) {
		o.AnswerWait, o.KeepAlive = 100*time.Millisecond, time.Hour
		o.Now = func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	})
	b.answer = func(w http.ResponseWriter, r *http.Request, _ string) {
		late.Store(int64(time.Hour))
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-commented
		timer := time.NewTimer(150 * time.Millisecond) // longer than the wait
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
		_, _ = io.WriteString(w, "data: {\"id\":\"c\",\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n\ndata: [DONE]\n\n")
	}
	r, err := http.NewRequest("POST", b.gateway.URL+"/openai/v1/chat/completions", strings.NewReader(
		`{"model":"gpt-4o","max_tokens":10,"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Api-Key", productKey)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, len(": keepalive\n\n"))
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != ": keepalive\n\n" {
		t.Fatalf("%q %v", first, err)
	}
	close(commented)
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(body), `data: {"id"`) || !strings.HasSuffix(string(body), "data: [DONE]\n\n") {
		t.Errorf("%q %v", body, err)
	}
}

// An encoded slash may stand where the pattern takes any rest, and travels as it
// is. Elsewhere it is refused: it could be another operation to upstream.
func TestEncodedSlash(t *testing.T) {
	b := newBench(t, nil, func(o *proxy.Options) { o.Unmetered = []string{"v1/files/*"} })
	b.answers(http.StatusOK, `{}`)
	f := func(path string, status int) {
		t.Helper()
		before := len(b.requests())
		resp, _ := b.do("GET", path, "")
		seen := b.requests()[before:]
		if resp.StatusCode != status || (status == http.StatusOK) != (len(seen) == 1) || len(seen) == 1 && seen[0].uri != path {
			t.Errorf("%s: %d %v", path, resp.StatusCode, seen)
		}
	}
	f("/openai/v1/files/a%2Fb", 200)
	f("/openai/v1/files/a%2fb/c", 200)
	f("/openai/v1/files/a%2F..%2F..%2Fchat", 403)
	f("/openai/v1/files/%2Fa", 403)
	f("/openai/v1/files/a%252Fb", 403)
	f("/openai/v1%2Ffiles/a", 403)
	f("/openai/v1/models/a%2Fb", 403)
}

// A stream that is not metered is kept alive too.
func TestFreeStreamIsKeptAlive(t *testing.T) {
	const comment, event = ": keepalive\n\n", "data: {}\n\n"
	b := newBench(t, nil, func(o *proxy.Options) { o.KeepAlive, o.Unmetered = time.Millisecond, []string{"v1/files/*"} })
	commented := make(chan struct{})
	b.answer = func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, event+"data: ")
		_ = http.NewResponseController(w).Flush()
		pause := time.NewTimer(20 * time.Millisecond) // in the middle of an event
		defer pause.Stop()
		<-pause.C
		_, _ = io.WriteString(w, "{}\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-commented:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, event)
	}
	r, err := http.NewRequest("GET", b.gateway.URL+"/openai/v1/files/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Api-Key", productKey)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head := make([]byte, len(event+event+comment))
	if _, err := io.ReadFull(resp.Body, head); err != nil || string(head) != event+event+comment {
		t.Fatalf("%q %v", head, err)
	}
	close(commented)
	if rest, err := io.ReadAll(resp.Body); err != nil || strings.ReplaceAll(string(rest), comment, "") != event {
		t.Errorf("%q %v", rest, err)
	}
}
