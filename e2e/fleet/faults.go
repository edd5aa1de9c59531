package fleet

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Faults says how often what goes wrong between a client and a service, in
// percent.
type Faults struct {
	DropRequest, DropAnswer, Twice, Late int
	LateMax                              time.Duration
}

// FaultProxy stands before a service and lets requests and answers be lost,
// repeated and late. A late or dropped request's client learns nothing.
type FaultProxy struct {
	URL    string
	target string
	client *http.Client

	mu     sync.Mutex
	faults Faults
	counts map[string]int
}

// StartFaultProxy listens. It lives as long as the process.
func StartFaultProxy(target string) (*FaultProxy, error) {
	listener, err := Listen()
	if err != nil {
		return nil, err
	}
	p := &FaultProxy{
		URL: "http://" + listener.Addr().String(), target: target, counts: map[string]int{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}},
	}
	go func() { _ = http.Serve(listener, p) }() //nolint:gosec // on loopback, for the length of a trial
	return p, nil
}

// Set changes the faults from now on.
func (p *FaultProxy) Set(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

// Counts is how often each fault happened; "forwarded" is how often the service
// was called, also by a second copy; "transactions" and "reads" are what of that
// wrote and read tables.
func (p *FaultProxy) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]int, len(p.counts))
	for k, v := range p.counts {
		all[k] = v
	}
	return all
}

func (p *FaultProxy) draw() (fault string, late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := rand.IntN(100)
	for _, f := range []struct {
		name string
		part int
	}{{"request dropped", p.faults.DropRequest}, {"answer dropped", p.faults.DropAnswer}, {"twice", p.faults.Twice}, {"late", p.faults.Late}} {
		if n < f.part {
			fault = f.name
			break
		}
		n -= f.part
	}
	if fault == "late" {
		late = time.Duration(rand.Int64N(int64(p.faults.LateMax)))
	}
	if fault != "" {
		p.counts[fault]++
	}
	return fault, late
}

func (p *FaultProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fault, late := p.draw()
	if fault == "request dropped" {
		hangUp(w)
		return
	}
	time.Sleep(late)                           // the fault itself: the request goes on though its client may have gone
	answer, content, err := p.forward(r, body) //nolint:bodyclose // forward has read and closed it
	if fault == "twice" && err == nil {
		answer, content, err = p.forward(r, body) //nolint:bodyclose // as above
	}
	if err != nil || fault == "answer dropped" {
		hangUp(w)
		return
	}
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = w.Write(content)
}

func (p *FaultProxy) forward(r *http.Request, body []byte) (*http.Response, []byte, error) {
	p.mu.Lock()
	p.counts["forwarded"]++
	switch r.Method {
	case http.MethodPost:
		p.counts["transactions"]++
	case http.MethodGet:
		p.counts["reads"]++
	}
	p.mu.Unlock()
	request, err := http.NewRequest(r.Method, p.target+r.URL.RequestURI(), bytes.NewReader(body)) //nolint:gosec,noctx // it goes on without its client
	if err != nil {
		return nil, nil, err
	}
	request.Header = r.Header.Clone()
	answer, err := p.client.Do(request) //nolint:gosec // the trial's own service
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	return answer, content, err
}

func hangUp(w http.ResponseWriter) {
	if connection, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = connection.Close()
	}
}
