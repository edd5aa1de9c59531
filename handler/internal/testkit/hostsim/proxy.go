package hostsim

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// hopHeaders are dropped both ways; so is everything that begins with Proxy-.
// What Connection names is not.
var hopHeaders = []string{
	"Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Te", "Alt-Svc", "Strict-Transport-Security", "Upgrade-Insecure-Requests",
	"Http2-Settings",
}

func isHop(name string) bool {
	return slices.Contains(hopHeaders, name) || strings.HasPrefix(name, "Proxy-")
}

// requestBody can be sent once: it knows whether that has begun. touch is
// called for every piece.
type requestBody struct {
	from   io.Reader // nil: no body
	length int64     // -1: chunked
	begun  atomic.Bool
	touch  func()

	mu     sync.Mutex
	closed bool
}

var errBodyClosed = errors.New("the call is over")

func (b *requestBody) Read(p []byte) (int, error) {
	b.begun.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errBodyClosed
	}
	n, err := b.from.Read(p)
	b.touch()
	return n, err
}

func (b *requestBody) Close() error { return nil }

// stop ends the reading of a chunked body whose call is over: the handler has
// answered without it.
func (b *requestBody) stop(w http.ResponseWriter) {
	if b.length >= 0 {
		return
	}
	if !b.mu.TryLock() { // somebody waits for the client
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		b.mu.Lock()
	}
	b.closed = true
	b.mu.Unlock()
}

// proxy passes the request on and the answer back.
func (h *Host) proxy(c *call) {
	limit, done := h.limited(c.r.Context())
	defer done()
	ctx, cancel := context.WithCancel(limit)
	defer cancel()
	silence := time.AfterFunc(h.options.ActivityTimeout, cancel)
	defer silence.Stop()
	touch := func() { silence.Reset(h.options.ActivityTimeout) }
	c.body.touch = touch
	if c.body.length < 0 {
		_ = http.NewResponseController(c.w).EnableFullDuplex()
		defer c.body.stop(c.w)
	}
	answer, err := h.try(ctx, c)
	if err != nil {
		bare(c.w, http.StatusInternalServerError)
		return
	}
	defer answer.Body.Close()
	touch()

	// The headers wait for the first byte.
	buffer := make([]byte, 64<<10)
	n, err := answer.Body.Read(buffer)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		bare(c.w, http.StatusInternalServerError)
		return
	}
	copyAnswerHeader(c.w.Header(), answer)
	c.w.WriteHeader(answer.StatusCode)
	flush := http.NewResponseController(c.w).Flush
	for {
		if n > 0 {
			touch()
			if _, err := c.w.Write(buffer[:n]); err != nil {
				return // the client is gone; so is the handler's request, by cancel
			}
			_ = flush()
			touch()
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the client's connection is reset
		}
		n, err = answer.Body.Read(buffer)
	}
}

// try sends the request until the handler answers. A handler that is starting is
// waited for. A body can be sent once: when it has begun the tries go on, and
// fail.
func (h *Host) try(ctx context.Context, c *call) (*http.Response, error) {
	header := h.outgoingHeader(c.r)
	var last error
	for attempt := 0; ; attempt++ {
		if !c.body.begun.Load() {
			p, err := h.handler(ctx)
			if p == nil {
				return nil, err
			}
			if err == nil {
				answer, err := h.transport.RoundTrip(outgoing(ctx, c, header, p.port))
				if err == nil {
					return answer, nil
				}
				last = err
			} else {
				last = err
			}
		}
		if ctx.Err() != nil || attempt >= len(h.options.RetryWaits) {
			return nil, last
		}
		timer := time.NewTimer(h.options.RetryWaits[attempt])
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// outgoing is the request as the handler sees it, but for its headers.
func outgoing(ctx context.Context, c *call, header http.Header, port string) *http.Request {
	encoded := encodePath(c.path)
	plain, err := url.PathUnescape(encoded)
	if err != nil { // not with what encodePath writes
		plain = c.path
	}
	out := &http.Request{
		Method: c.r.Method, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL: &url.URL{
			Scheme: "http", Host: "127.0.0.1:" + port, Path: plain, RawPath: encoded,
			RawQuery: c.r.URL.RawQuery, ForceQuery: c.r.URL.ForceQuery,
		},
	}
	if c.body.from != nil {
		out.Body, out.ContentLength = c.body, c.body.length
	}
	return out.WithContext(ctx)
}

// outgoingHeader makes the headers that the handler sees.
func (h *Host) outgoingHeader(r *http.Request) http.Header {
	out := make(http.Header, len(r.Header)+8)
	for name, values := range r.Header {
		if !isHop(name) && name != "Forwarded" && !strings.HasPrefix(name, "X-Forwarded-") {
			out[name] = []string{merged(name, values)}
		}
	}
	if len(r.Trailer) > 0 {
		out.Set("Trailer", trailerNames(r.Trailer))
	}
	noUserAgent(out)
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	out.Set("X-Forwarded-For", client)
	out.Set("X-Forwarded-Host", r.Host)
	out.Set("X-Forwarded-Proto", "http")
	h.mark(out)
	return out
}

// merged is one value of several.
func merged(name string, values []string) string {
	separator := ", "
	if name == "Cookie" {
		separator = "; "
	}
	return strings.Join(values, separator)
}

// noUserAgent keeps Go's client from adding its own.
func noUserAgent(header http.Header) {
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = []string{""}
	}
}

// copyAnswerHeader passes on what the handler said. Trailers are announced and
// never come.
func copyAnswerHeader(to http.Header, answer *http.Response) {
	for name, values := range answer.Header {
		if !isHop(name) {
			to[name] = values
		}
	}
	for _, name := range []string{"Content-Type", "Date"} {
		if _, ok := to[name]; !ok {
			to[name] = nil // Go's server would add its own
		}
	}
	if len(answer.Trailer) > 0 {
		to.Set("Trailer", trailerNames(answer.Trailer))
	}
}

func trailerNames(trailer http.Header) string {
	names := make([]string, 0, len(trailer))
	for name := range trailer {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
