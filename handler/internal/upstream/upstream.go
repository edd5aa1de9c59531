// Package upstream is where requests go: Azure OpenAI, with the gateway's own
// credential. It adds the credential and the host, and changes nothing else. It
// does not retry: what may be sent again is the caller's decision.
package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// Scope is what a token for Azure OpenAI is asked for.
const Scope = "https://cognitiveservices.azure.com/.default"

const (
	idlePerHostMax = 2048
	tokenMargin    = 5 * time.Minute // a token is replaced this long before it ends
)

// Options say where Azure OpenAI is and how to be let in: by Key, or by
// Credential if that is empty.
type Options struct {
	Endpoint   string // http(s)://host[:port][/base]
	Key        string
	Credential azcore.TokenCredential
	// NotSent is wrapped by errors of requests that never left.
	NotSent error
	// HeaderWait bounds the wait for the head of an answer; 0: no bound.
	HeaderWait time.Duration
}

// Azure is an http.RoundTripper that sends requests to one Azure OpenAI
// resource. It is safe for concurrent use.
type Azure struct {
	options   Options
	base      *url.URL
	transport *http.Transport
	bearer    *Bearer
}

// New checks the options.
func New(o Options) (*Azure, error) {
	base, err := url.Parse(o.Endpoint)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" ||
		base.RawQuery != "" || base.Fragment != "" || base.User != nil {
		return nil, errors.New("must be http(s)://host[:port][/base], without query, fragment or user")
	}
	if o.Key == "" && o.Credential == nil {
		return nil, errors.New("needs a key or a credential")
	}
	base.Path, base.RawPath = strings.TrimSuffix(base.Path, "/"), ""
	if o.NotSent == nil {
		o.NotSent = errors.New("the request was not sent")
	}
	return &Azure{options: o, base: base, bearer: NewBearer(o.Credential, Scope), transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          2 * idlePerHostMax,
		MaxIdleConnsPerHost:   idlePerHostMax,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: o.HeaderWait,
		DisableCompression:    true, // bytes pass as they are
	}}, nil
}

// RoundTrip sends a request whose URL has the path from /openai on. Redirects
// are answers like others: a credential goes to one host only.
func (a *Azure) RoundTrip(r *http.Request) (*http.Response, error) {
	u := *a.base
	escaped := a.base.EscapedPath() + r.URL.EscapedPath()
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, fmt.Errorf("path: %w (%w)", err, a.options.NotSent)
	}
	u.Path, u.RawPath, u.RawQuery = path, escaped, r.URL.RawQuery
	r.URL, r.Host = &u, a.base.Host
	if a.options.Key != "" {
		r.Header.Set("Api-Key", a.options.Key)
	} else {
		token, err := a.bearer.Token(r.Context())
		if err != nil {
			return nil, fmt.Errorf("token for Azure OpenAI: %w (%w)", err, a.options.NotSent)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return a.transport.RoundTrip(r)
}

// Close drops idle connections.
func (a *Azure) Close() { a.transport.CloseIdleConnections() }
