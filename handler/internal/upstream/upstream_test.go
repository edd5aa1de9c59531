package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/costgate/costgate/handler/internal/upstream"
)

type credential struct {
	calls atomic.Int64
	life  time.Duration
	err   error
}

func (c *credential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.calls.Add(1)
	if len(o.Scopes) != 1 || o.Scopes[0] != upstream.Scope {
		return azcore.AccessToken{}, errors.New("wrong scope")
	}
	return azcore.AccessToken{Token: "t0ken", ExpiresOn: time.Now().Add(c.life)}, c.err
}

func TestEndpointForms(t *testing.T) {
	f := func(endpoint string, ok bool) {
		t.Helper()
		if _, err := upstream.New(upstream.Options{Endpoint: endpoint, Key: "k"}); (err == nil) != ok {
			t.Errorf("New(%q): %v", endpoint, err)
		}
	}
	f("https://r.openai.azure.com", true)
	f("https://r.openai.azure.com/", true)
	f("http://127.0.0.1:1/base/", true)
	f("", false)
	f("r.openai.azure.com", false)
	f("ftp://x", false)
	f("https://x/?a=1", false)
	f("https://u:p@x", false)
	if _, err := upstream.New(upstream.Options{Endpoint: "https://x"}); err == nil {
		t.Error("New without a credential must fail")
	}
}

func TestPathQueryAndKey(t *testing.T) {
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer server.Close()
	a, err := upstream.New(upstream.Options{Endpoint: server.URL + "/base/", Key: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/openai/deployments/a%2Fb//x?api-version=1&b=%20+&b=2", strings.NewReader("body"))
	r.RequestURI = ""
	answer, err := a.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	if want := "/base/openai/deployments/a%2Fb//x?api-version=1&b=%20+&b=2"; got.RequestURI != want {
		t.Errorf("upstream saw %q, want %q", got.RequestURI, want)
	}
	if got.Header.Get("Api-Key") != "secret" || got.Header.Get("Authorization") != "" {
		t.Errorf("credential headers: %v", got.Header)
	}
	if got.Host != strings.TrimPrefix(server.URL, "http://") {
		t.Errorf("Host = %q", got.Host)
	}
}

func TestTokenIsKeptAndRenewed(t *testing.T) {
	var seen atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store(r.Header.Get("Authorization")) }))
	defer server.Close()
	for _, c := range []struct {
		life  time.Duration
		calls int64
	}{{time.Hour, 1}, {time.Minute, 3}} {
		cred := &credential{life: c.life}
		a, err := upstream.New(upstream.Options{Endpoint: server.URL, Credential: cred})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			r, _ := http.NewRequest(http.MethodGet, "http://gateway/openai/models", nil)
			answer, err := a.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
		}
		if cred.calls.Load() != c.calls || seen.Load() != "Bearer t0ken" {
			t.Errorf("life %v: %d calls, header %v; want %d calls", c.life, cred.calls.Load(), seen.Load(), c.calls)
		}
	}
}

func TestNoTokenMeansNotSent(t *testing.T) {
	notSent := errors.New("not sent")
	a, err := upstream.New(upstream.Options{Endpoint: "http://127.0.0.1:1", Credential: &credential{err: errors.New("no identity")}, NotSent: notSent})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequest(http.MethodGet, "http://gateway/openai/models", nil)
	if answer, err := a.RoundTrip(r); !errors.Is(err, notSent) {
		if err == nil {
			answer.Body.Close()
		}
		t.Errorf("err = %v, want one that wraps NotSent", err)
	}
}
