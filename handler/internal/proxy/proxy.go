// Package proxy is the data path: it takes a request for Azure OpenAI, finds
// the product that it belongs to, holds money for it, forwards it, watches the
// answer go by, and settles what it cost.
//
// What it promises: nothing refused reaches upstream; every forwarded request
// leaves one record, whatever ends it; the answer's bytes are the upstream's,
// but for a usage chunk that only the gateway asked for and comments between
// the events of a stream that is silent for long. It knows nothing of how the
// ledger stores what it is told.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/funchost"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/ratelimit"
	"github.com/costgate/costgate/handler/internal/telemetry"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Ledger is what the data path needs of the books.
type Ledger interface {
	// ProductByKey fails with ledger.ErrUnknownKey.
	ProductByKey(ctx context.Context, key string) (*quota.Product, quota.Key, error)
	// Headroom is what is available to a product, if that is known without asking.
	Headroom(p *quota.Product) (available int64, known bool)
	Balance(ctx context.Context, p *quota.Product) (ledger.Account, error)
	// Reserve fails with a *ledger.Refusal, or ledger.ErrUnavailable.
	// Holders are the processes that share the product's request limits, at least 1.
	Holders(p *quota.Product) int64
	Reserve(ctx context.Context, r ledger.Reservation) (*ledger.Hold, error)
	Settle(ctx context.Context, hold *ledger.Hold, s ledger.Settlement) (*ledger.Account, error)
	Void(ctx context.Context, hold *ledger.Hold) error
	StoredResponse(ctx context.Context, productID, responseID string) (s ledger.Stored, owned bool, err error)
	Revise(ctx context.Context, productID, responseID string, tokens int64, revise func(*usage.Record) error) (usage.Record, bool, error)
}

// Upstream sends a request to Azure OpenAI. The URL's path begins with /openai;
// the credential is upstream's own.
type Upstream interface {
	RoundTrip(r *http.Request) (*http.Response, error)
}

// Options are the parts and settings of a Handler.
type Options struct {
	Ledger      Ledger
	Upstream    Upstream
	Limiter     *ratelimit.Limiter
	Book        *pricing.Book
	Deployments map[string]pricing.Deployment // by lower-case name
	Unmetered   []string                      // paths below openai/ that an operator opened
	StreamMax   time.Duration                 // how long an answer may take
	AnswerWait  time.Duration                 // until an answer must have begun; 0: no bound but StreamMax
	KeepAlive   time.Duration                 // silence after which a stream gets a comment; 0: never
	Trailers    bool                          // announce the cost of a stream as trailers
	LogContent  bool                          // log prompts and answers
	Now         func() time.Time
	Log         *slog.Logger
	Metrics     *telemetry.Registry // counts what was refused, by code
}

// Handler is the Proxy function. It is safe for concurrent use.
type Handler struct {
	options    Options
	operations []operation
	refusals   refusalMemory
	served     served
	learned    learned
}

// Limits of an answer.
const (
	DrainMax          = 5 * time.Minute // reading an answer whose client is gone
	lookupMax         = 3 * time.Second // reading what the ledger does not have at hand
	softDurableMax    = 2 * time.Second // holding back the first byte of a soft product
	AnswerBufferMax   = 1 << 20         // a JSON answer up to this size is settled before its headers are sent
	CountBytesMax     = 4 << 20         // a body up to this size is tokenized; a larger one is bounded by its bytes
	EventBytesMax     = 1 << 20         // one event of a stream that is looked into
	errorBytesMax     = 1 << 20         // an error body that is looked into
	soundBytesMax     = 32 << 20        // spoken sound that is kept to be measured
	keyBytesMin       = 16
	keyBytesMax       = 256
	keepAliveComment  = ": keepalive\n\n"
	prefix            = "openai/"
	outputWhenUnknown = 16_384 // tokens, for a model whose limits the price book does not know

	contextWhenUnknown = 1_050_000 // tokens: the largest context there is
	contextLeast       = 128_000   // tokens: what the price book says of a model's context is believed from here on
)

// New makes a Handler.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Limiter == nil {
		o.Limiter = ratelimit.New(o.Now)
	}
	if o.Metrics == nil {
		o.Metrics = new(telemetry.Registry)
	}
	if o.StreamMax == 0 {
		o.StreamMax = 25 * time.Minute
	}
	return &Handler{options: o, operations: append(unmetered(o.Unmetered), operations...), refusals: refusalMemory{now: o.Now}}
}

// ServeHTTP serves openai/*. Letter case of the path does not matter.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	product, key, failed := h.authenticate(r)
	if failed != nil {
		h.fail(w, failed)
		return
	}
	w.Header().Set("x-costgate-product", product.ID)
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	if len(path) < len(prefix) || !strings.EqualFold(path[:len(prefix)], prefix) {
		h.fail(w, notPriced(r))
		return
	}
	o, parameter := match(h.operations, r.Method, path[len(prefix):])
	if o == nil {
		h.fail(w, notPriced(r))
		return
	}
	if o.kind != kindMetered { // a metered one is counted when its size is known
		ticket, ok := h.Admit(w, product, 0)
		if !ok {
			return
		}
		defer ticket.End(0)
	}
	switch o.kind {
	case kindStored:
		h.stored(w, r, product, parameter, false)
	case kindFetched:
		h.stored(w, r, product, parameter, true)
	case kindFree:
		h.free(w, r)
	case kindMetered:
		h.metered(w, r, &exchange{handler: h, operation: o, product: product, key: key, deployment: parameter, began: h.options.Now()})
	}
}

func notPriced(r *http.Request) *failure {
	return forbidden("operation_not_priced", "This gateway does not know what "+r.Method+" "+clip(r.URL.Path, segmentBytesMax)+
		" costs, so it does not forward it. An operator can open it with UNMETERED_PATHS.")
}

// ProductKey is the key that a request brings: api-key as Azure OpenAI clients
// send it, a bearer token as OpenAI clients do, or the header of API Management.
func ProductKey(h http.Header) string {
	if key := h.Get("Api-Key"); key != "" {
		return key
	}
	if scheme, token, ok := strings.Cut(h.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return h.Get("Ocp-Apim-Subscription-Key")
}

// Authenticate finds the product of a request's key. On failure it has answered
// in the OpenAI format, and ok is false.
func (h *Handler) Authenticate(w http.ResponseWriter, r *http.Request) (p *quota.Product, ok bool) {
	p, _, failed := h.authenticate(r)
	if failed != nil {
		h.fail(w, failed)
		return nil, false
	}
	return p, true
}

func (h *Handler) authenticate(r *http.Request) (*quota.Product, quota.Key, *failure) {
	key := ProductKey(r.Header)
	if len(key) < keyBytesMin || len(key) > keyBytesMax {
		return nil, quota.Key{}, invalidKey()
	}
	product, info, err := h.options.Ledger.ProductByKey(r.Context(), key)
	switch {
	case err == nil:
		return product, info, nil
	case errors.Is(err, ledger.ErrUnknownKey):
		return nil, quota.Key{}, invalidKey()
	}
	h.options.Log.Error("product key could not be looked up", "error", err)
	return nil, quota.Key{}, unavailable()
}

// outgoing makes the upstream request: the client's path and query as they are
// but for the Functions key, its headers but for those of the host and of the
// connection, and no credential.
func (h *Handler) outgoing(ctx context.Context, r *http.Request, parts [][]byte, length int64) *http.Request {
	u := *r.URL
	u.RawQuery = funchost.StripQuery(u.RawQuery)
	out := &http.Request{Method: r.Method, URL: &u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: length}
	out.Header = r.Header.Clone()
	funchost.StripInbound(out.Header)
	for _, name := range []string{"Api-Key", "Authorization", "Ocp-Apim-Subscription-Key", "Ocp-Apim-Trace", "Content-Length", "X-Ms-Spillover-Deployment"} {
		out.Header.Del(name)
	}
	out.Header.Set("Accept-Encoding", "identity") // what is compressed cannot be metered
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		// By these net/http's transport would send a request again that may have
		// been billed already. It knows them by their canonical names only.
		if values, ok := out.Header[name]; ok {
			delete(out.Header, name)
			out.Header[strings.ToLower(name)] = values
		}
	}
	if length > 0 {
		out.Body = partsReader(parts)
		out.GetBody = func() (body ioReadCloser, err error) { return partsReader(parts), nil }
	}
	return out.WithContext(ctx)
}

// free forwards a request that costs nothing.
func (h *Handler) free(w http.ResponseWriter, r *http.Request) {
	body, failed := readBody(w, r)
	if failed != nil {
		h.fail(w, failed)
		return
	}
	out := h.outgoing(r.Context(), r, [][]byte{body}, int64(len(body)))
	answer, err := h.options.Upstream.RoundTrip(out)
	if err != nil {
		h.fail(w, h.unanswered(err))
		return
	}
	defer answer.Body.Close()
	h.pass(w, answer, answer.Body)
}

// unanswered is the answer to a request that costs nothing and got none.
func (h *Handler) unanswered(err error) *failure {
	h.options.Log.Warn("upstream did not answer", "error", err)
	var failed net.Error
	if errors.As(err, &failed) && failed.Timeout() {
		return upstreamLate()
	}
	return upstreamLost("Azure OpenAI did not answer. Try again.")
}

func noSuchResponse(status int, param string) *failure {
	f := badRequest("not_found", param, "This product has no such response.")
	if param != "" {
		f.code = "previous_response_not_found"
	}
	f.status = status
	return f
}
