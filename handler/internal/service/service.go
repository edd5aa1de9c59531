// Package service is the data path of services/{service}/{path}: any HTTP
// service that an operator registered, behind the product keys, budgets and
// records that Azure OpenAI is behind.
//
// What it promises: nothing travels but to a registered service, below its base
// path, and to an address that is public or that the operator allowed; the key of
// the product never does; every call that was sent leaves one record, whatever
// ends it, and costs what the entry says; an answer's bytes are the service's, but
// for comments between the events of a stream that is silent for long. Redirects
// are answers, never followed.
package service

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/proxy"
)

// Limits of a call.
const (
	AnswerBufferMax = 1 << 20  // an answer of a stated size up to this is settled before its head is sent
	AnswerLeast     = 64 << 10 // answer bytes that a call must be able to pay for, where a KB has a price
	dialMax         = 10 * time.Second
	softDurableMax  = 2 * time.Second // holding back the first byte of a soft product
	idlePerHostMax  = 512
	headerBytesMax  = 256 << 10 // of an answer
	nameBytesMax    = 128       // of a name that a service sent
	prefix          = "services/"
	warnFrom        = money.Nano(money.NanoPerUSD) // a hold from here on is told of at start
)

// methods are those of the Functions binding.
var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}

// Options are the parts and settings of a Handler.
type Options struct {
	Services   *Services
	Proxy      *proxy.Handler // whose keys, request limits, and form of failures
	Ledger     proxy.Ledger
	Credential azcore.TokenCredential // for entries with auth identity
	StreamMax  time.Duration          // how long an answer may take
	AnswerWait time.Duration          // until an answer must have begun, and its longest silence; 0: no bound but an entry's
	KeepAlive  time.Duration          // silence after which a stream of events gets a comment; 0: never
	Trailers   bool                   // announce the cost of an answer of unknown size as trailers
	Resolver   *net.Resolver          // nil: the system's
	Now        func() time.Time
	Log        *slog.Logger
}

// Handler is the Service function. It is safe for concurrent use.
type Handler struct {
	options Options
	targets *targets
}

// New makes a Handler.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Services == nil {
		o.Services = &Services{}
	}
	if o.StreamMax == 0 {
		o.StreamMax = 25 * time.Minute
	}
	for _, e := range o.Services.Entries {
		if e.Unpriced {
			o.Log.Warn("SERVICES: a service without prices: its calls are recorded and cost nothing", "service", e.Name)
		}
		if _, most, err := e.cost(2*e.BodyBytesMax, 0); err == nil && e.PerKB > 0 && most >= warnFrom {
			o.Log.Warn("SERVICES: each call holds the price of an answer of bodyBytesMax; lower it to what answers have", "service", e.Name,
				"hold_usd_max", most.String())
		}
	}
	return &Handler{options: o, targets: newTargets(o.Services, o.Credential, o.Resolver)}
}

// Close drops idle connections.
func (h *Handler) Close() error {
	h.targets.close()
	return nil
}

// ServeHTTP serves services/*. Letter case of the prefix and of the service's
// name does not matter.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x, front := &exchange{handler: h, began: h.options.Now()}, h.options.Proxy
	var failed *proxy.Failure
	if x.product, x.key, failed = front.Identify(r); failed == nil {
		w.Header().Set("x-costgate-product", x.product.ID)
		failed = x.understand(r)
	}
	if failed != nil {
		front.Fail(w, failed)
		return
	}
	var ok bool
	if x.ticket, ok = front.Admit(w, x.product, 0); !ok {
		return
	}
	defer x.ticket.Cancel() // but for a call that was sent: that ends it before
	if failed = x.read(w, r); failed == nil {
		failed = x.reserve(r)
	}
	if failed != nil {
		front.Fail(w, failed)
		return
	}
	x.serve(w, r)
}

// understand finds what a request asks for. Nothing was read or held yet.
func (x *exchange) understand(r *http.Request) *proxy.Failure {
	name, rest, ok := split(r.URL)
	if ok {
		x.entry, ok = x.handler.options.Services.Entries[name]
	}
	switch {
	case !ok:
		return refusal(http.StatusNotFound, "not_found", "No service is registered here.")
	case !slices.Contains(methods, r.Method):
		return refusal(http.StatusMethodNotAllowed, "method_not_allowed", "Services take "+strings.Join(methods, ", ")+".",
			[2]string{"Allow", strings.Join(methods, ", ")})
	case upgrades(r.Header):
		return refusal(http.StatusNotImplemented, "upgrade_not_supported",
			"WebSocket and other protocols than HTTP cannot be metered, so they are not forwarded. Use plain HTTP, or a stream of events.")
	}
	target, err := x.entry.below(r.URL, rest)
	if err != nil {
		return refusal(http.StatusBadRequest, "invalid_path", "The path may not be forwarded: "+err.Error()+".")
	}
	target.RawQuery, target.ForceQuery = travelling(r.URL.RawQuery, proxy.ProductKey(r.Header)), r.URL.ForceQuery
	x.target = target
	x.requestID = proxy.CallerID(r.Header)
	return nil
}

func refusal(status int, code, message string, header ...[2]string) *proxy.Failure {
	return proxy.NewFailure(status, "invalid_request_error", code, message, header...)
}

// upgrades tells whether a request asks for another protocol. One for HTTP/2 may
// be ignored (RFC 9110, 7.8), and is: clients ask for it without need.
func upgrades(h http.Header) bool {
	for _, line := range h["Upgrade"] {
		for protocol := range strings.SplitSeq(line, ",") {
			if p := strings.TrimSpace(protocol); p != "" && !strings.EqualFold(p, "h2c") {
				return true
			}
		}
	}
	return h.Get("Sec-Websocket-Key") != ""
}

// read buffers the body: nothing is sent in part, its size is known to the hold,
// and Go's server would close it under a running answer (golang/go#40747).
func (x *exchange) read(w http.ResponseWriter, r *http.Request) *proxy.Failure {
	most := x.entry.BodyBytesMax
	tooLarge := refusal(http.StatusRequestEntityTooLarge, "request_too_large", fmt.Sprintf("The body is larger than %d bytes.", most))
	if r.ContentLength > most {
		return tooLarge
	}
	var err error
	if x.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, most)); errors.As(err, new(*http.MaxBytesError)) {
		return tooLarge
	} else if err != nil {
		return refusal(http.StatusBadRequest, "invalid_body", "The body could not be read: "+err.Error())
	}
	return nil
}
