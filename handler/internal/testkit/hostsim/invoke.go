package hostsim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// RequestBytesMax bounds a request's body.
const RequestBytesMax = 104_857_600

// bare is an answer made by the host: no body, nothing that tells more.
func bare(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
}

// call is one request of a client for a function.
type call struct {
	w        http.ResponseWriter
	r        *http.Request
	function *Function
	path     string // decoded but for encoded slashes
	whole    []byte // the body, if its length was known
	body     *requestBody
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
		h.homepage(w)
		return
	case strings.HasPrefix(strings.ToLower(path), "/admin/"):
		h.admin(w, r, path)
		return
	default:
		bare(w, http.StatusNotFound)
		return
	}
	if h.throttled.Load() {
		w.Header().Set("X-Function-Scaleout", "1")
		bare(w, http.StatusTooManyRequests)
		return
	}
	if !h.authorized(r, f) {
		bare(w, http.StatusUnauthorized)
		return
	}
	c := &call{w: w, r: r, function: f, path: path}
	if !c.readBody() {
		return
	}
	switch h.options.Mode {
	case ModeForward:
		h.forward(c)
	case ModeEnvelope:
		h.enclose(c)
	default:
		h.proxy(c)
	}
}

func (h *Host) homepage(w http.ResponseWriter) {
	if strings.EqualFold(h.options.setting("AzureWebJobsDisableHomepage"), "true") {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<!DOCTYPE html><title>Your Azure Function App is up and running.</title>")
}

// readBody reads a body of known length before anything else happens. If it is
// false the client has been answered.
func (c *call) readBody() bool {
	length := c.r.ContentLength
	c.body = &requestBody{length: length}
	switch {
	case length > RequestBytesMax:
		bare(c.w, http.StatusInternalServerError)
		return false
	case length > 0:
		c.whole = make([]byte, length)
		if _, err := io.ReadFull(c.r.Body, c.whole); err != nil {
			bare(c.w, http.StatusBadRequest)
			return false
		}
		c.body.from = bytes.NewReader(c.whole)
	case length < 0: // chunked: passed on as it comes
		c.body.from = http.MaxBytesReader(c.w, c.r.Body, RequestBytesMax)
	}
	return true
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

// ErrTimeout ends a call that outlived functionTimeout.
var ErrTimeout = errors.New("functionTimeout has passed")

// limited runs a call under functionTimeout. A call that does not end in time
// takes the handler with it, and all other calls.
func (h *Host) limited(ctx context.Context) (limit context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(h.options.FunctionTimeout, func() {
		p := h.current()
		cancel(ErrTimeout)
		grace := time.NewTimer(h.options.FunctionGrace)
		defer grace.Stop()
		select {
		case <-grace.C:
			if err := h.replace(p); err != nil {
				h.end(err)
			}
		case <-h.done:
		}
	})
	return ctx, func() { timer.Stop(); cancel(nil) }
}

// mark adds what the host adds to every call of the handler.
func (h *Host) mark(header http.Header) {
	id := newGUID()
	header.Set("X-Azure-Functions-HostVersion", h.options.Version)
	header.Set("X-Azure-Functions-InvocationId", id)
	header.Set("X-Ms-Invocation-Id", id)
}

// admin is the host's own API as far as tests need it: ping, status and, with
// the master key, POST /admin/functions/<timer>, which answers 202 when the
// function has run and 500 if it has failed.
func (h *Host) admin(w http.ResponseWriter, r *http.Request, path string) {
	lower := strings.ToLower(path)
	if lower == "/admin/host/ping" {
		bare(w, http.StatusOK)
		return
	}
	if key := requestKey(r); key == "" || key != h.options.MasterKey {
		bare(w, http.StatusUnauthorized)
		return
	}
	name, isFunction := strings.CutPrefix(lower, "/admin/functions/")
	switch {
	case lower == "/admin/host/status":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"id": "hostsim", "state": "Running", "version": h.options.Version})
	case isFunction && r.Method == http.MethodPost && h.timer(name) != nil:
		if _, err := h.Timer(r.Context(), name); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		bare(w, http.StatusAccepted)
	default:
		bare(w, http.StatusNotFound)
	}
}
