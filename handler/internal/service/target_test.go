package service

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

func TestPublic(t *testing.T) {
	f := func(want bool, addresses ...string) {
		t.Helper()
		for _, a := range addresses {
			if got := public(netip.MustParseAddr(a)); got != want {
				t.Errorf("public(%s) = %v", a, got)
			}
		}
	}
	f(true, "8.8.8.8", "1.1.1.1", "20.42.0.1", "168.63.129.15", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8",
		"64:ff9b::808:808", "2002:808:808::1")
	f(false, "127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "168.63.129.16",
		"100.64.0.1", "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
		"::", "::1", "::127.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "100::1",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1")
}

// names is a resolver whose every name has the addresses of the moment.
func names(t *testing.T, address func() netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			end := 12 // of the question
			for end < n && buffer[end] != 0 {
				end += 1 + int(buffer[end])
			}
			answer := append([]byte{}, buffer[:end+5]...)
			copy(answer[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
			if kind := binary.BigEndian.Uint16(buffer[end+1:]); kind == 1 {
				answer[7] = 1
				a := address().As4()
				answer = append(append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), a[:]...)
			}
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// TestGuard: a name that means a private address is not connected to, whatever it
// meant before, unless the operator said so.
func TestGuard(t *testing.T) {
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer server.Close()
	t.Setenv("HTTP_PROXY", server.URL) // is not asked
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	f := func(host string, private, want bool, means string) {
		t.Helper()
		u, err := url.Parse("http://" + net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		targets := newTargets(&Services{}, nil, names(t, func() netip.Addr { return netip.MustParseAddr(means) }))
		defer targets.close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		before := calls.Load()
		answer, sent, err := targets.send(ctx, &Entry{URL: u, Private: private}, &http.Request{Method: "GET", URL: u, Header: http.Header{}})
		if err == nil {
			answer.Body.Close()
		}
		if (err == nil) != want || sent != want || calls.Load()-before != map[bool]int64{true: 1}[want] {
			t.Errorf("%s (private %v), which means %s: sent %v, %v", host, private, means, sent, err)
		}
		if !want && !errors.Is(err, errPrivate) {
			t.Errorf("%s: %v", host, err)
		}
	}
	f("service.example", false, false, "127.0.0.1")
	f("service.example", true, true, "127.0.0.1")
	f("service.example", false, false, "169.254.169.254")
	f("service.example", false, false, "10.1.2.3")
	f("127.0.0.1", false, true, "8.8.8.8")
	f("localhost", false, true, "127.0.0.1")
	f("x.localhost.example", false, false, "127.0.0.1")
}

// TestRebinding: a name's address is checked when it is connected to, each time.
func TestRebinding(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	u, _ := url.Parse("http://service.example:" + port)
	asked := make(chan bool, 100)
	first := true
	targets := newTargets(&Services{}, nil, names(t, func() netip.Addr {
		asked <- true
		if first {
			first = false
			return netip.MustParseAddr("192.0.2.1")
		}
		return netip.MustParseAddr("127.0.0.1")
	}))
	for range 3 {
		_, sent, err := targets.send(t.Context(), &Entry{URL: u}, &http.Request{Method: "GET", URL: u, Header: http.Header{}})
		if sent || !errors.Is(err, errPrivate) {
			t.Errorf("sent %v, %v", sent, err)
		}
	}
	if len(asked) != 3 {
		t.Errorf("%d questions", len(asked))
	}
}

type credential struct {
	calls atomic.Int64
	err   error
}

func (c *credential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.calls.Add(1)
	return azcore.AccessToken{Token: "for " + strings.Join(o.Scopes, ","), ExpiresOn: time.Now().Add(time.Hour)}, c.err
}

// A token is asked for once for each scope; without one nothing is sent.
func TestIdentity(t *testing.T) {
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = append(seen, r.Header.Get("Authorization")) }))
	defer server.Close()
	u, _ := url.Parse(server.URL)
	entries := map[string]*Entry{}
	for _, name := range []string{"a", "b", "c"} {
		entries[name] = &Entry{Name: name, URL: u, Auth: AuthIdentity, Scope: "scope-" + strings.Replace(name, "c", "a", 1)}
	}
	c := &credential{}
	targets := newTargets(&Services{Entries: entries}, c, nil)
	defer targets.close()
	for _, name := range []string{"a", "b", "c", "a"} {
		answer, _, err := targets.send(t.Context(), entries[name], &http.Request{Method: "GET", URL: u, Header: http.Header{"Authorization": {"Bearer own"}}})
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	if got := strings.Join(seen, "; "); got != "Bearer for scope-a; Bearer for scope-b; Bearer for scope-a; Bearer for scope-a" || c.calls.Load() != 2 {
		t.Errorf("%s, %d calls", got, c.calls.Load())
	}
	none := newTargets(&Services{Entries: entries}, &credential{err: errors.New("no identity")}, nil)
	_, sent, err := none.send(t.Context(), entries["a"], &http.Request{Method: "GET", URL: u, Header: http.Header{}})
	if sent || err == nil || len(seen) != 4 {
		t.Errorf("without a token: sent %v, %v", sent, err)
	}
}
