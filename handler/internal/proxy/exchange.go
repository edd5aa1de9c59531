package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/costgate/costgate/handler/internal/funchost"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/ratelimit"
	"github.com/costgate/costgate/handler/internal/usage"
)

type ioReadCloser = io.ReadCloser

// exchange is one metered request and its answer.
type exchange struct {
	handler    *Handler
	operation  *operation
	product    *quota.Product
	key        quota.Key
	deployment string // as the client named it
	apiVersion string
	requestID  string
	began      time.Time

	asked    *asked
	target   pricing.Deployment
	listed   bool // in DEPLOYMENTS
	entry    pricing.Entry
	guessed  bool            // the model has no price: the dearest of its mode
	also     []pricing.Entry // other prices that the answer may be charged by
	tier     string          // the service tier that is held for
	priced   time.Time       // the moment whose prices count
	borrowed bool            // the price of the overflow of provisioned capacity is another deployment type's

	limit, natural int64        // output tokens of each choice
	usual          int64        // the same, by what such requests usually take; 0: not known, or not for this product
	output         int64        // most output tokens of images or sound
	items          []usage.Item // most of what is sold by the piece
	chargedBack    bool         // an hourly deployment has a price of the operator's
	promptTokens   int64        // bound
	earlier        int64        // tokens of the response that this one continues
	counted        bool         // the prompt was counted, not bounded by its bytes
	hold           *ledger.Hold

	asksUsage bool // we put in stream_options.include_usage
	attempts  int64
	upstream  *http.Response
	firstByte time.Time
	answer    usage.Answer
	gone      atomic.Bool // the client left
	ticket    *ratelimit.Ticket
	late      *time.Timer // until the answer must have begun; nil: no bound
	overdue   atomic.Bool // it did not
	settled   bool
	account   *ledger.Account
	charged   usage.Record
}

// metered serves a request that costs money.
func (h *Handler) metered(w http.ResponseWriter, r *http.Request, x *exchange) {
	body, failed := readBody(w, r)
	if failed == nil {
		x.apiVersion = r.URL.Query().Get("api-version")
		x.requestID = callerID(r.Header)
		if kinds := r.Header["Content-Type"]; len(kinds) > 1 {
			failed = badRequest("invalid_header", "", "The header Content-Type is there twice. Send it once.")
		} else {
			x.asked, failed = understand(x.operation, r.Header.Get("Content-Type"), body)
		}
	}
	if failed == nil {
		x.priced = h.options.Now()
		failed = x.price()
	}
	if failed == nil {
		failed = x.reserve(r.Context())
	}
	defer x.leave()
	if failed != nil {
		h.fail(w, failed)
		return
	}
	if h.options.LogContent {
		kept := &contentWriter{ResponseWriter: w}
		w = kept
		defer func() { x.logContent(kept) }()
	}
	header := w.Header()
	header.Set("x-costgate-request-id", x.hold.Record.ID)
	header.Set("x-costgate-hold", x.amount(x.hold.Amount))
	header.Set("x-costgate-remaining", x.amount(x.hold.Account.Budget-x.hold.Account.Spent))
	// The upstream request outlives its client: a drained answer is metered to
	// its end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), h.options.StreamMax)
	defer cancel()
	stop := context.AfterFunc(r.Context(), func() { x.clientLeft(ctx, cancel) })
	defer stop()
	if wait := h.options.AnswerWait; wait > 0 {
		x.late = time.AfterFunc(wait-h.options.Now().Sub(x.began), func() { x.overdue.Store(true); cancel() })
		defer x.begins()
	}
	if failed := x.forward(ctx, r); failed != nil {
		h.fail(w, failed)
		return
	}
	defer x.upstream.Body.Close()
	if err := x.durable(ctx); err == nil {
		x.deliver(ctx, w)
		return
	}
	if stop() { // the client may leave now: it has nothing to wait for
		timer := time.AfterFunc(DrainMax, cancel)
		defer timer.Stop()
	}
	x.drop(ctx, w)
}

// clientLeft cancels the upstream request at once, or later, unless it ends
// before.
func (x *exchange) clientLeft(ctx context.Context, cancel context.CancelFunc) {
	if x.product.Disconnect == quota.DisconnectCancel {
		cancel()
		return
	}
	timer := time.AfterFunc(DrainMax, cancel)
	context.AfterFunc(ctx, func() { timer.Stop() })
}

// begins ends the wait for the beginning of the answer.
func (x *exchange) begins() {
	if x.late != nil {
		x.late.Stop()
	}
}

// cutBy tells what ended an answer that broke off.
func (x *exchange) cutBy(ctx context.Context) usage.Outcome {
	switch {
	case x.overdue.Load() || errors.Is(ctx.Err(), context.DeadlineExceeded):
		return usage.OutcomeTimeout
	case ctx.Err() != nil:
		return usage.OutcomeClientGone
	}
	return usage.OutcomeUpstreamError
}

// amount writes an amount of the product's unit.
func (x *exchange) amount(n int64) string {
	if x.product.Unit == quota.UnitTokens {
		return strconv.FormatInt(n, 10)
	}
	return money.Nano(n).String()
}

// callerID is what the caller or the host calls the request.
func callerID(h http.Header) string {
	for _, name := range []string{"X-Client-Request-Id", "X-Ms-Client-Request-Id", "X-Request-Id"} {
		if id := h.Get(name); id != "" {
			return clip(id, 128)
		}
	}
	return clip(funchost.InvocationID(h), 128)
}

// forward sends the request upstream. A refusal of stream_options, which we put
// in, is the one answer after which the request is sent again, without it:
// nothing was generated and nothing billed.
func (x *exchange) forward(ctx context.Context, r *http.Request) *failure {
	edits := x.limitEdits()
	shape := x.shape()
	x.asksUsage = x.mayAskUsage(shape)
	for {
		all := edits
		if x.asksUsage {
			all = append(append([]edit{}, edits...), x.asked.withUsage()...)
		}
		parts, length := edited(x.asked.body, all)
		x.attempts++
		answer, err := x.handler.options.Upstream.RoundTrip(x.handler.outgoing(ctx, r, parts, length))
		if err != nil {
			return x.notAnswered(ctx, r, err)
		}
		x.upstream = answer
		if answer.StatusCode != http.StatusBadRequest || !x.asksUsage {
			return nil
		}
		body, err := io.ReadAll(io.LimitReader(answer.Body, errorBytesMax))
		if err != nil || !bytes.Contains(body, []byte("stream_options")) {
			answer.Body = readCloser{io.MultiReader(bytes.NewReader(body), answer.Body), answer.Body}
			return nil
		}
		answer.Body.Close()
		x.handler.refusals.remember(shape)
		x.asksUsage = false
	}
}

type readCloser struct {
	io.Reader
	io.Closer
}

// notAnswered ends an exchange without an answer's head.
func (x *exchange) notAnswered(ctx context.Context, r *http.Request, err error) *failure {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" || errors.Is(err, ErrNotSent) {
		x.handler.options.Log.Warn("upstream cannot be reached", "deployment", x.deployment, "error", err)
		if err := x.handler.options.Ledger.Void(ctx, x.hold); err != nil {
			x.handler.options.Log.Error("hold is given back in the background", "product_id", x.product.ID, "error", err)
		}
		return upstreamLost("Azure OpenAI cannot be reached; the request was not sent. Try again.")
	}
	x.handler.options.Log.Warn("upstream gave no answer", "deployment", x.deployment, "error", err)
	record := x.record()
	switch {
	case r.Context().Err() != nil: // cancelled for the client that left, before anything was heard: the model may have run
		x.estimateHold(&record, usage.OutcomeClientGone)
	case ctx.Err() != nil:
		x.estimateHold(&record, usage.OutcomeTimeout)
	default:
		x.notBilled(&record, usage.OutcomeUpstreamError)
	}
	x.settle(ctx, record)
	if ctx.Err() != nil {
		return upstreamLate()
	}
	return upstreamLost("The connection to Azure OpenAI broke before it answered. Try again.")
}

// durable waits until the answer's first byte may be shown. A soft product's is
// shown all the same: its books catch up.
func (x *exchange) durable(ctx context.Context) error {
	soft := x.product.Enforcement == quota.EnforceSoft
	if soft {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, softDurableMax)
		defer cancel()
	}
	err := x.hold.Durable(ctx)
	switch {
	case err == nil:
		return nil
	case soft:
		x.handler.options.Log.Warn("hold is not durable; the product is soft and gets its answer", "product_id", x.product.ID, "error", err)
		return nil
	}
	x.handler.options.Log.Warn("hold was not made durable; the answer is dropped",
		"product_id", x.product.ID, "record", x.hold.Record.ID, "error", err)
	return err
}

// drop ends an exchange whose hold could not be made durable while the request
// ran: the client gets nothing that the books might lose. But upstream bills the
// answer, so it is read to its end and settled, as for a client that left.
func (x *exchange) drop(ctx context.Context, w http.ResponseWriter) {
	x.gone.Store(true)
	x.begins()
	x.handler.fail(w, answerDropped())
	if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
	x.deliver(ctx, nowhere{})
}

// nowhere is a ResponseWriter for an answer that nobody gets.
type nowhere http.Header

func (n nowhere) Header() http.Header         { return http.Header(n) }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}

// ErrNotSent is what an Upstream wraps when a request never left, for example
// because there was no credential.
var ErrNotSent = errors.New("the request was not sent")

// hopHeaders end at this hop (RFC 9110, 7.6.1).
var hopHeaders = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Proxy-Connection": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

func copyHeader(to, from http.Header) {
	for name, values := range from {
		if !hopHeaders[name] && !strings.HasPrefix(name, "X-Costgate-") {
			to[name] = values
		}
	}
	for _, line := range from["Connection"] {
		for token := range strings.SplitSeq(line, ",") {
			if token = http.CanonicalHeaderKey(strings.TrimSpace(token)); !strings.HasPrefix(token, "X-Costgate-") {
				to.Del(token)
			}
		}
	}
}

// copyFlushing passes a body on, flushed as it comes.
func copyFlushing(w http.ResponseWriter, body io.Reader) {
	buffer := takeBuffer()
	defer giveBuffer(buffer)
	flusher, _ := w.(http.Flusher)
	for {
		n, err := body.Read(*buffer)
		if n > 0 {
			if _, werr := w.Write((*buffer)[:n]); werr != nil {
				return
			}
			if flusher != nil {
				flusher.Flush()
			}
		}
		if err != nil {
			if err != io.EOF {
				panic(http.ErrAbortHandler) // the client must not take the part for the whole
			}
			return
		}
	}
}
