package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/costgate/costgate/handler/internal/funchost"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/ratelimit"
	"github.com/costgate/costgate/handler/internal/usage"
)

// exchange is one call of a service and its answer.
type exchange struct {
	handler   *Handler
	product   *quota.Product
	key       quota.Key
	entry     *Entry
	target    *url.URL
	requestID string
	began     time.Time
	ticket    *ratelimit.Ticket
	body      []byte
	hold      *ledger.Hold
	answerMax int64 // bytes of the answer that the hold pays for; -1: any

	answer    *http.Response
	answered  int64 // bytes of the answer's body
	firstByte time.Time
	silence   *time.Timer // until the service must have said something
	overdue   atomic.Bool // it did not
	cut       bool        // the answer is larger than the hold
	gone      atomic.Bool // the client left
	charged   usage.Record
	account   *ledger.Account
}

// travelling is the part of a raw query that travels: not a Functions key, and no
// parameter whose value, or which itself, is the product's key. The rest stays byte
// for byte.
func travelling(raw, key string) string {
	raw = funchost.StripQuery(raw)
	carried := func(parameter string) bool {
		_, value, ok := strings.Cut(parameter, "=")
		if !ok {
			value = parameter
		}
		return decodeOnce(value) == key
	}
	parameters := strings.Split(raw, "&")
	if !slices.ContainsFunc(parameters, carried) {
		return raw
	}
	return strings.Join(slices.DeleteFunc(parameters, carried), "&")
}

// reserve takes the hold: the price of the call, and where a KB has one, of the
// request and of an answer up to bodyBytesMax. If the budget has not so much, the
// answer may be as large as what is left pays for, but not less than AnswerLeast.
func (x *exchange) reserve(r *http.Request) *proxy.Failure {
	sent, most := int64(len(x.body)), x.entry.BodyBytesMax
	ppm := x.product.MultiplierPPM
	_, least, err := x.entry.cost(sent+min(most, AnswerLeast), ppm)
	_, whole, err2 := x.entry.cost(sent+most, ppm)
	if errors.Join(err, err2) != nil {
		return refusal(http.StatusBadRequest, "invalid_value", "The call could cost more than any budget.")
	}
	reservation := ledger.Reservation{
		Product: x.product, Min: int64(least), Max: int64(whole), Record: x.intent(),
		HoldNanoUSD: func(granted int64) usage.Count { return usage.Of(granted) },
	}
	tokens := x.product.Unit == quota.UnitTokens
	if tokens { // services cost none
		reservation.Min, reservation.Max = 0, 0
		reservation.HoldNanoUSD = func(int64) usage.Count { return usage.Of(int64(whole)) }
	}
	x.hold, err = x.handler.options.Ledger.Reserve(r.Context(), reservation)
	if denied := (*ledger.Refusal)(nil); errors.As(err, &denied) {
		return proxy.Refused(denied)
	} else if err != nil {
		if r.Context().Err() == nil {
			x.handler.options.Log.Error("hold could not be taken", "product_id", x.product.ID, "error", err)
		}
		return proxy.Unavailable()
	}
	switch {
	case x.entry.PerKB == 0:
		x.answerMax = -1
	case tokens || x.hold.Amount >= int64(whole):
		x.answerMax = most
	default:
		x.answerMax = x.entry.within(money.Nano(x.hold.Amount), sent+most, ppm) - sent
	}
	return nil
}

// serve sends a call that is paid for, and its answer.
func (x *exchange) serve(w http.ResponseWriter, r *http.Request) {
	header, o := w.Header(), &x.handler.options
	header.Set("x-costgate-request-id", x.hold.Record.ID)
	header.Set("x-costgate-hold", x.amount(x.hold.Amount))
	header.Set("x-costgate-remaining", x.amount(x.hold.Account.Budget-x.hold.Account.Spent))
	// The call outlives its client: a drained answer is charged as it is.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), o.StreamMax)
	defer cancel()
	stop := context.AfterFunc(r.Context(), func() { x.clientLeft(ctx, cancel) })
	defer stop()
	x.silence = time.AfterFunc(x.patience(), func() { x.overdue.Store(true); cancel() })
	defer x.silence.Stop()
	if failed := x.forward(ctx, r); failed != nil {
		o.Proxy.Fail(w, failed)
		return
	}
	defer x.answer.Body.Close()
	x.silence.Stop() // it answered; the ledger is waited for now
	if x.durable(ctx) {
		x.deliver(ctx, w)
		return
	}
	// The client gets nothing that the books might lose. But the call was made.
	stop()
	timer := time.AfterFunc(proxy.DrainMax, cancel)
	defer timer.Stop()
	x.gone.Store(true)
	o.Proxy.Fail(w, proxy.AnswerDropped())
	_ = http.NewResponseController(w).Flush()
	x.deliver(ctx, proxy.Nowhere())
}

// clientLeft ends the call at once, or after DrainMax, as the product wants it.
func (x *exchange) clientLeft(ctx context.Context, cancel context.CancelFunc) {
	wait := proxy.DrainMax
	if x.product.Disconnect == quota.DisconnectCancel {
		wait = 0
	}
	timer := time.AfterFunc(wait, cancel)
	context.AfterFunc(ctx, func() { timer.Stop() })
}

// patience is how long the service may be silent now. The platform in front of a
// hosted gateway wants to see the beginning of an answer in time.
func (x *exchange) patience() time.Duration {
	wait := x.entry.Timeout
	if most := x.handler.options.AnswerWait; most > 0 {
		if x.firstByte.IsZero() {
			most -= x.handler.options.Now().Sub(x.began)
		}
		wait = min(wait, most)
	}
	return wait
}

func (x *exchange) amount(n int64) string { return proxy.Amount(x.product.Unit, n) }

// forward sends the call.
func (x *exchange) forward(ctx context.Context, r *http.Request) *proxy.Failure {
	answer, sent, err := x.handler.targets.send(ctx, x.entry, x.outgoing(r))
	if err == nil && answer.StatusCode >= http.StatusOK {
		x.answer = answer
		return nil
	}
	if err == nil { // another protocol, which nobody asked for
		answer.Body.Close()
		err = errors.New("the service changed the protocol")
	}
	log := x.handler.options.Log
	log.Warn("service gave no answer", "service", x.entry.Name, "sent", sent, "error", err)
	if !sent {
		if err := x.handler.options.Ledger.Void(ctx, x.hold); err != nil {
			log.Error("hold is given back in the background", "product_id", x.product.ID, "error", err)
		}
		if ctx.Err() != nil {
			return late()
		}
		return lost("The service cannot be reached; the request was not sent. Try again.")
	}
	x.settle(ctx, x.broken(ctx))
	if ctx.Err() != nil {
		return late()
	}
	return lost("The connection to the service broke before it answered.")
}

func late() *proxy.Failure {
	return proxy.NewFailure(http.StatusGatewayTimeout, "server_error", "upstream_timeout", "The service did not answer in time.")
}

func lost(message string) *proxy.Failure {
	return proxy.NewFailure(http.StatusBadGateway, "server_error", "upstream_error", message)
}

// keyHeaders can carry the key of a product that the gateway accepts.
var keyHeaders = []string{"Api-Key", "Authorization", "Ocp-Apim-Subscription-Key"}

// outgoing makes the request for the service: the client's headers but for those
// of the host, the connection and the gateway, and but for each that carries the
// product's key. With auth pass the client's other credentials travel, else none.
func (x *exchange) outgoing(r *http.Request) *http.Request {
	out := &http.Request{Method: r.Method, URL: x.target, Host: x.target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	out.Header = r.Header.Clone()
	funchost.StripInbound(out.Header)
	key := proxy.ProductKey(r.Header)
	for name, values := range out.Header {
		credential := x.entry.Auth != AuthPass && slices.Contains(keyHeaders, name)
		if credential || strings.HasPrefix(name, "X-Costgate-") || carries(values, key) {
			delete(out.Header, name)
		}
	}
	out.Header.Del("Content-Length")
	out.Header.Del("Ocp-Apim-Trace")
	if out.Header["User-Agent"] == nil {
		out.Header["User-Agent"] = nil // else Go's own is sent
	}
	out.ContentLength = int64(len(x.body))
	once(out, x.body)
	return out
}

// once gives a request its body so that Go's transport does not send it twice. When
// a kept connection dies it repeats what looks harmless: GET, HEAD and OPTIONS, and
// what has an idempotency key, unless there is a body that it cannot have again.
// So the former get a body, if an empty one, which send watches over; and the
// latter's header a spelling that the transport does not know, names having no case.
func once(out *http.Request, body []byte) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := out.Header[name]; ok {
			delete(out.Header, name)
			out.Header[strings.ToLower(name)] = values
		}
	}
	if len(body) == 0 && !repeated(out.Method) {
		return // an empty body would be sent chunked, instead of Content-Length: 0
	}
	if len(body) == 0 {
		out.TransferEncoding = []string{"identity"} // neither chunked nor of a stated size: as without a body
	}
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	out.Body, _ = out.GetBody()
}

// repeated tells whether Go's transport thinks a method harmless.
func repeated(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// carries tells whether a key is anywhere in the values of a header.
func carries(values []string, key string) bool {
	for _, v := range values {
		if strings.Contains(v, key) {
			return true
		}
	}
	return false
}

// durable waits until the hold survives this process, and tells whether the answer
// may be shown. A soft product's may in any case: its books catch up.
func (x *exchange) durable(ctx context.Context) bool {
	o, soft := &x.handler.options, x.product.Enforcement == quota.EnforceSoft
	most := o.StreamMax // the ledger itself waits less long
	if soft {
		most = softDurableMax
	}
	waiting, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	err := x.hold.Durable(waiting)
	if err != nil {
		o.Log.Warn("hold was not made durable", "product_id", x.product.ID, "record", x.hold.Record.ID, "soft", soft, "error", err)
	}
	return err == nil || soft
}
