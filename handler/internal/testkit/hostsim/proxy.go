package hostsim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// RequestBytesMax bounds a request's body.
const RequestBytesMax = 104_857_600

// hopHeaders are dropped both ways; so is everything that begins with Proxy-.
// What Connection names is not.
var hopHeaders = []string{
	"Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Te", "Alt-Svc", "Strict-Transport-Security", "Upgrade-Insecure-Requests",
	"Http2-Settings",
}

func isHop(name string) bool {
	return slices.Contains(hopHeaders, name) || strings.HasPrefix(name, "Proxy-")
}

// bare is an answer made by the host: no body, nothing that tells more.
func bare(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
}

// serve is the host's side of one client request.
func (h *Host) serve(w http.ResponseWriter, r *http.Request) {
	path, ok := decodePath(r.URL.EscapedPath())
	if !ok {
		bare(w, http.StatusBadRequest)
		return
	}
	f := h.app.find(r.Method, path)
	switch {
	case f != nil:
	case path == "/":
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>Your Azure Function App is up and running.</title>")
		return
	case strings.HasPrefix(strings.ToLower(path), adminPath):
		h.invoke(w, r, path[len(adminPath):])
		return
	default:
		bare(w, http.StatusNotFound)
		return
	}
	if !h.authorized(r, f) {
		bare(w, http.StatusUnauthorized)
		return
	}
	body := &requestBody{length: r.ContentLength}
	switch {
	case r.ContentLength > RequestBytesMax:
		bare(w, http.StatusInternalServerError)
		return
	case r.ContentLength > 0: // read whole before the handler is asked
		whole := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, whole); err != nil {
			bare(w, http.StatusBadRequest)
			return
		}
		body.from = bytes.NewReader(whole)
	case r.ContentLength < 0: // chunked: passed on as it comes
		body.from = http.MaxBytesReader(w, r.Body, RequestBytesMax)
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	h.proxy(w, r, path, body)
}

// authorized checks the function key. One in the header wins over one in the
// query, right or wrong.
func (h *Host) authorized(r *http.Request, f *Function) bool {
	if f.Auth == "anonymous" {
		return true
	}
	key := requestKey(r)
	if key == "" {
		return false
	}
	if key == h.options.MasterKey {
		return true
	}
	return f.Auth == "function" && (key == h.options.HostKey || key == h.options.FunctionKeys[f.Name])
}

func requestKey(r *http.Request) string {
	if key := r.Header.Get("X-Functions-Key"); key != "" {
		return key
	}
	for name, values := range r.URL.Query() {
		if strings.EqualFold(name, "code") {
			return values[0]
		}
	}
	return ""
}

// requestBody can be sent once: it knows whether that has begun. touch is
// called for every piece.
type requestBody struct {
	from   io.Reader // nil: no body
	length int64     // -1: chunked
	begun  atomic.Bool
	touch  func()
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.begun.Store(true)
	n, err := b.from.Read(p)
	b.touch()
	return n, err
}

func (b *requestBody) Close() error { return nil }

// proxy passes the request on and the answer back.
func (h *Host) proxy(w http.ResponseWriter, r *http.Request, path string, body *requestBody) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	silence := time.AfterFunc(h.options.ActivityTimeout, cancel)
	defer silence.Stop()
	touch := func() { silence.Reset(h.options.ActivityTimeout) }
	body.touch = touch
	answer, err := h.try(ctx, r, h.outgoingHeader(r), path, body)
	if err != nil {
		bare(w, http.StatusInternalServerError)
		return
	}
	defer answer.Body.Close()
	touch()

	// The headers wait for the first byte.
	buffer := make([]byte, 64<<10)
	n, err := answer.Body.Read(buffer)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		bare(w, http.StatusInternalServerError)
		return
	}
	copyAnswerHeader(w.Header(), answer)
	w.WriteHeader(answer.StatusCode)
	flush := http.NewResponseController(w).Flush
	for {
		if n > 0 {
			touch()
			if _, err := w.Write(buffer[:n]); err != nil {
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

// try sends the request until the handler answers, as long as no byte of the
// body is gone. A handler that is starting is waited for.
func (h *Host) try(ctx context.Context, r *http.Request, header http.Header, path string, body *requestBody) (*http.Response, error) {
	for attempt := 0; ; attempt++ {
		p := h.current()
		select {
		case <-p.ready:
		case <-p.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		answer, err := h.transport.RoundTrip(outgoing(ctx, r, header, path, p.port, body))
		if err == nil || ctx.Err() != nil || body.begun.Load() || attempt >= len(h.options.RetryWaits) {
			return answer, err
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
func outgoing(ctx context.Context, r *http.Request, header http.Header, path, port string, body *requestBody) *http.Request {
	encoded := encodePath(path)
	plain, err := url.PathUnescape(encoded)
	if err != nil { // not with what encodePath writes
		plain = path
	}
	out := &http.Request{
		Method: r.Method, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL: &url.URL{
			Scheme: "http", Host: "127.0.0.1:" + port, Path: plain, RawPath: encoded,
			RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery,
		},
	}
	if body.from != nil {
		out.Body, out.ContentLength = body, body.length
	}
	return out.WithContext(ctx)
}

// outgoingHeader makes the headers that the handler sees.
func (h *Host) outgoingHeader(r *http.Request) http.Header {
	out := make(http.Header, len(r.Header)+8)
	for name, values := range r.Header {
		separator := ", "
		if name == "Cookie" {
			separator = "; "
		}
		if !isHop(name) && name != "Forwarded" && !strings.HasPrefix(name, "X-Forwarded-") {
			out[name] = []string{strings.Join(values, separator)}
		}
	}
	if len(r.Trailer) > 0 {
		out.Set("Trailer", trailerNames(r.Trailer))
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = []string{""} // Go's client would add its own
	}
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

// mark adds what the host adds to every call of the handler.
func (h *Host) mark(header http.Header) {
	id := newGUID()
	header.Set("X-Azure-Functions-HostVersion", h.options.Version)
	header.Set("X-Azure-Functions-InvocationId", id)
	header.Set("X-Ms-Invocation-Id", id)
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
