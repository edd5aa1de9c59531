package assertions_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/simulator"
)

// The prices of the model "trial", in pico-dollars per token.
const (
	picoIn  = 1_234_567
	picoOut = 4_567_891
)

var prices = fmt.Sprintf(`{"version":"trial","prices":[{"model":"trial","mode":"chat","pico_usd":{"in":%d,"out":%d}}]}`, picoIn, picoOut)

// cost is what a request costs, in nano-dollars.
func cost(prompt, completion int64) int64 { return (prompt*picoIn + completion*picoOut + 999) / 1000 }

// upstream is the simulator, but for requests that a test has a script for.
type upstream struct {
	URL string

	mu      sync.Mutex
	seen    []seen
	scripts map[string]script
}

type script func(w http.ResponseWriter, r *http.Request, body string)

// seen is a request as it arrived.
type seen struct {
	user   string
	method string
	uri    string
	host   string
	header http.Header
	bytes  int64
}

func startUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{scripts: map[string]script{}}
	azure := simulator.New(simulator.Options{Key: upstreamKey, Models: map[string]string{"trial": "trial"}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { u.serve(azure, w, r) }))
	t.Cleanup(server.Close)
	u.URL = server.URL
	return u
}

func (u *upstream) serve(azure http.Handler, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var in struct{ User string }
	_ = json.Unmarshal(body, &in) // not all bodies are JSON
	u.mu.Lock()
	u.seen = append(u.seen, seen{in.User, r.Method, r.RequestURI, r.Host, r.Header.Clone(), int64(len(body))})
	run := u.scripts[in.User]
	if run == nil {
		run = u.scripts[r.Method+" "+r.URL.EscapedPath()]
	}
	u.mu.Unlock()
	if run != nil {
		run(w, r, string(body))
		return
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	azure.ServeHTTP(w, r)
}

// script answers requests of a user, or of "METHOD /path", from now on.
func (u *upstream) script(name string, run script) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.scripts[name] = run
}

// got are the requests of a user, or with a URI.
func (u *upstream) got(name string) (found []seen) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.seen {
		if s.user == name || s.uri == name {
			found = append(found, s)
		}
	}
	return found
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.seen)
}

// stream writes the events of a chat.
type stream struct {
	w  http.ResponseWriter
	id string
}

func newStream(w http.ResponseWriter, id string) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	return &stream{w, id}
}

func event(id, rest string) string {
	return fmt.Sprintf("data: {\"id\":%q,\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"trial\",%s}\n\n", id, rest)
}

func word(id string, i int) string {
	return event(id, fmt.Sprintf(`"choices":[{"index":0,"delta":{"content":"word %d "}}]`, i))
}

func usageEvent(id string, prompt, completion int64) string {
	return event(id, fmt.Sprintf(`"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, prompt, completion, prompt+completion))
}

const doneEvent = "data: [DONE]\n\n"

func (s *stream) send(text string) bool {
	if _, err := io.WriteString(s.w, text); err != nil {
		return false
	}
	return http.NewResponseController(s.w).Flush() == nil
}

// pause is a model that thinks. It is false if its client has left.
func pause(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// wait is a model that goes on when the test says so.
func wait(r *http.Request, gate <-chan struct{}) bool {
	select {
	case <-gate:
		return true
	case <-r.Context().Done():
		return false
	}
}
