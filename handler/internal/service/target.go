package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/costgate/costgate/handler/internal/upstream"
)

// errPrivate is why a connection was not made.
var errPrivate = errors.New(`the address is not public; if the service is meant to be there, add "private":true to its entry in SERVICES`)

// errOnce is why a call was not repeated.
var errOnce = errors.New("the connection broke before an answer; the service may have worked, so the call is not sent again")

// targets are the connections to all services.
type targets struct {
	anywhere, guarded *http.Transport
	bearers           map[string]*upstream.Bearer // by scope
}

// newTargets makes the connections. resolver may be nil.
func newTargets(services *Services, credential azcore.TokenCredential, resolver *net.Resolver) *targets {
	t := &targets{
		anywhere: newTransport(&net.Dialer{Timeout: dialMax, KeepAlive: 30 * time.Second, Resolver: resolver}),
		guarded:  newTransport(&net.Dialer{Timeout: dialMax, KeepAlive: 30 * time.Second, Resolver: resolver, Control: guard}),
		bearers:  map[string]*upstream.Bearer{},
	}
	for _, e := range services.Entries {
		if e.Auth == AuthIdentity && t.bearers[e.Scope] == nil {
			t.bearers[e.Scope] = upstream.NewBearer(credential, e.Scope)
		}
	}
	return t
}

// newTransport makes connections that never go through a proxy: neither of them
// could check where a proxy connects to, and its address would be checked instead.
func newTransport(d *net.Dialer) *http.Transport {
	return &http.Transport{
		DialContext: d.DialContext, TLSHandshakeTimeout: dialMax, ForceAttemptHTTP2: true, MaxIdleConns: 2 * idlePerHostMax,
		MaxIdleConnsPerHost: idlePerHostMax, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: headerBytesMax,
		DisableCompression: true, // bytes pass as they are
	}
}

// guard refuses a connection to an address that is not public. It sees the
// address that is connected to, whatever a name meant a moment ago.
func guard(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%s: %w", address, errPrivate)
	}
	if !public(a.Addr()) {
		return fmt.Errorf("%s: %w", a.Addr(), errPrivate)
	}
	return nil
}

// notPublic are address blocks that netip has no name for (the registries of
// RFC 6890), and Azure's own: 168.63.129.16 is the virtual machine's host.
var notPublic = func() (blocks []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "240.0.0.0/4", "::/96", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		blocks = append(blocks, netip.MustParsePrefix(s))
	}
	return blocks
}()

// translated are the prefixes whose addresses stand for an IPv4 address, and
// where its four bytes begin.
var translated = []struct {
	prefix netip.Prefix
	at     int
}{{netip.MustParsePrefix("64:ff9b::/96"), 12}, {netip.MustParsePrefix("2002::/16"), 2}}

// public tells whether an address is one of the internet's.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() || netip.MustParsePrefix("64:ff9b:1::/48").Contains(a) {
		return false
	}
	for _, block := range notPublic {
		if block.Contains(a) {
			return false
		}
	}
	for _, t := range translated {
		if bytes := a.As16(); t.prefix.Contains(a) {
			return public(netip.AddrFrom4([4]byte(bytes[t.at : t.at+4])))
		}
	}
	return true
}

// send sends a request to a service with its credential. sent tells whether the
// service may have seen any of it. Redirects are answers like others: a
// credential goes to one host only. A call is sent again only if nothing of it can
// have been acted on: each is paid for once.
func (t *targets) send(ctx context.Context, e *Entry, r *http.Request) (answer *http.Response, sent bool, err error) {
	switch e.Auth {
	case AuthHeader:
		r.Header.Set(e.Header, e.Secret)
	case AuthIdentity:
		token, err := t.bearers[e.Scope].Token(ctx)
		if err != nil {
			return nil, false, fmt.Errorf("token for service %s: %w", e.Name, err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	var connected, written, counted atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { connected.Store(false) }, // again, if what was kept had died unused
		GotConn: func(c httptrace.GotConnInfo) {
			connected.Store(true)
			secure, ok := c.Conn.(*tls.Conn)
			counted.Store(ok && secure.ConnectionState().NegotiatedProtocol == "h2")
		},
		WroteHeaders: func() { written.Store(true) }, // called before their last byte leaves
	})
	if body := r.GetBody; body != nil && repeated(r.Method) { // others are asked for again only if nothing was written
		r.GetBody = func() (io.ReadCloser, error) {
			if written.Load() && !counted.Load() { // HTTP/2 tells which calls were not looked at
				return nil, errOnce
			}
			return body()
		}
	}
	transport := t.guarded
	if e.local() {
		transport = t.anywhere
	}
	answer, err = transport.RoundTrip(r.WithContext(ctx))
	return answer, connected.Load(), err
}

func (t *targets) close() {
	t.anywhere.CloseIdleConnections()
	t.guarded.CloseIdleConnections()
}
