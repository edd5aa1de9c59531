// Package faultproxy stands between an HTTP client and its service and lets
// requests and answers go wrong on demand: lost, repeated, late, replaced or
// mangled. It counts what the client sends and what the service gets.
//
// It forwards whole requests and answers; it is no proxy for streams.
package faultproxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
)

const bodyBytesMax = 64 << 20

// Fault is what happens to one request. The zero value passes it on.
type Fault struct {
	Drop      bool                       // close the connection, forward nothing
	Forward   int                        // how often the service gets it; 0 is once. The last answer counts
	LoseReply bool                       // close the connection after the service has answered
	Status    int                        // answer this instead; nothing is forwarded unless Forward is set
	Code      string                     // of that answer's body
	Header    http.Header                // added to the answer
	Mangle    func(answer []byte) []byte // changes the answer's body
	Release   <-chan struct{}            // forward only when it is closed, also if the client has gone by then
	Forwarded chan<- struct{}            // closed once the service has answered
}

// Proxy is a running proxy.
type Proxy struct {
	URL    string // scheme and host, to put before a path
	target string
	client *http.Client

	mu     sync.Mutex
	match  func(r *http.Request) bool
	faults []Fault
	counts map[string]int
	sent   int
}

// Start starts a proxy before a service (scheme and host), for as long as the
// test runs.
func Start(t testing.TB, target string) *Proxy {
	p := &Proxy{target: target, counts: map[string]int{}, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}}
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	p.URL = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		p.client.CloseIdleConnections()
	})
	return p
}

// Next plans the faults of the next requests that match (nil: all), one each.
// Requests after them pass. It begins the counts anew.
func (p *Proxy) Next(match func(r *http.Request) bool, faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.match, p.faults, p.counts, p.sent = match, faults, map[string]int{}, 0
}

// Got is how many requests of a method the client has sent since Next.
func (p *Proxy) Got(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[method]
}

// Forwarded is how many requests the service has got since Next.
func (p *Proxy) Forwarded() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

func (p *Proxy) plan(r *http.Request) (f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[r.Method]++
	if len(p.faults) > 0 && (p.match == nil || p.match(r)) {
		f, p.faults = p.faults[0], p.faults[1:]
	}
	return f
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f := p.plan(r)
	if f.Drop {
		hangUp(w)
		return
	}
	if f.Release != nil {
		<-f.Release
	}
	var answer *answer
	for range max(f.Forward, 1) {
		if f.Status != 0 && f.Forward == 0 {
			break
		}
		if answer, err = p.forward(r, body); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	if f.Forwarded != nil {
		close(f.Forwarded)
	}
	if f.LoseReply {
		hangUp(w)
		return
	}
	if f.Status != 0 {
		answer = failure(f)
	}
	answer.write(w, f)
}

// answer is what the client gets.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) write(w http.ResponseWriter, f Fault) {
	if f.Mangle != nil {
		a.body = f.Mangle(bytes.Clone(a.body))
	}
	for _, header := range []http.Header{a.header, f.Header} {
		for name, values := range header {
			w.Header()[name] = values
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// failure is an answer of the form of Azure Storage.
func failure(f Fault) *answer {
	body := fmt.Sprintf(`{"odata.error":{"code":%q,"message":{"lang":"en-US","value":"injected"}}}`, f.Code)
	header := http.Header{"Content-Type": {"application/json"}, "X-Ms-Error-Code": {f.Code}}
	return &answer{status: f.Status, body: []byte(body), header: header}
}

// forward sends a request on. It goes its way whether the client waits or not,
// as a request on a network does.
func (p *Proxy) forward(r *http.Request, body []byte) (*answer, error) {
	request, err := http.NewRequest(r.Method, p.target+r.URL.RequestURI(), bytes.NewReader(body)) //nolint:gosec // the test names the target
	if err != nil {
		return nil, err
	}
	request.Header = r.Header.Clone()
	p.mu.Lock()
	p.sent++
	p.mu.Unlock()
	reply, err := p.client.Do(request) //nolint:gosec // as above
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	content, err := io.ReadAll(io.LimitReader(reply.Body, bodyBytesMax))
	return &answer{reply.StatusCode, reply.Header, content}, err
}

// hangUp closes the client's connection without an answer.
func hangUp(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = connection.Close()
	}
}
