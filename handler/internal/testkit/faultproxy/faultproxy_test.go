package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

func TestFaults(t *testing.T) {
	var served atomic.Int32
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %s %s %s", served.Add(1), r.Method, r.URL.RequestURI(), body)
	}))
	defer service.Close()
	p := Start(t, service.URL)
	send := func() (string, error) {
		answer, err := http.Post(p.URL+"/a%20b?c=d", "text/plain", strings.NewReader("body"))
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return fmt.Sprint(answer.StatusCode, " ", string(body)), err
	}
	const injected = `{"odata.error":{"code":"ServerBusy","message":{"lang":"en-US","value":"injected"}}}`
	f := func(fault Fault, forwarded int, want string) {
		t.Helper()
		served.Store(0)
		p.Next(nil, fault)
		got, err := send()
		if (err != nil) != (want == "") || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		if p.Forwarded() != forwarded || int(served.Load()) != forwarded || p.Got(http.MethodPost) != 1 {
			t.Errorf("client sent %d, service got %d, want %d", p.Got(http.MethodPost), served.Load(), forwarded)
		}
	}
	f(Fault{}, 1, "200 1 POST /a%20b?c=d body")
	f(Fault{Drop: true}, 0, "")
	f(Fault{LoseReply: true}, 1, "")
	f(Fault{Forward: 2}, 2, "200 2 POST /a%20b?c=d body")
	f(Fault{Forward: 2, LoseReply: true}, 2, "")
	f(Fault{Status: 503, Code: "ServerBusy"}, 0, "503 "+injected)
	f(Fault{Forward: 1, Status: 503, Code: "ServerBusy"}, 1, "503 "+injected)
	f(Fault{Mangle: func(b []byte) []byte { return b[:6] }}, 1, "200 1 POST")
}

func TestPlan(t *testing.T) {
	service := httptest.NewServer(http.NotFoundHandler())
	defer service.Close()
	p := Start(t, service.URL)
	p.Next(func(r *http.Request) bool { return r.Method == http.MethodPut }, Fault{Status: 500}, Fault{Status: 503})
	for i, want := range []int{404, 500, 404, 503, 404, 404} {
		method := []string{http.MethodGet, http.MethodPut}[i%2]
		request, err := http.NewRequest(method, p.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s %d: status %d, want %d", method, i, answer.StatusCode, want)
		}
	}
}

// TestLate forwards a request whose client has gone.
func TestLate(t *testing.T) {
	served := make(chan struct{}, 1)
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served <- struct{}{} }))
	defer service.Close()
	p := Start(t, service.URL)
	release, forwarded := make(chan struct{}), make(chan struct{})
	p.Next(nil, Fault{Release: release, Forwarded: forwarded})
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		answer, err := http.DefaultClient.Do(request)
		if err == nil {
			answer.Body.Close()
		}
		failed <- err
	}()
	for p.Got(http.MethodPost) == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(served) != 0 {
		t.Error("forwarded before its time")
	}
	close(release)
	<-forwarded
	<-served
}
