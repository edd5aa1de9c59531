package proxy

import (
	"net/http"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
)

// What package service shares with this one: keys, refusals, and how an answer
// is passed on.

// Failure is an answer of the gateway's own, in the format of the OpenAI API.
type Failure = failure //nolint:errname // it is an answer, an error only by the way

// NewFailure makes a Failure. kind is error.type.
func NewFailure(status int, kind, code, message string, header ...[2]string) *Failure {
	return &failure{status: status, kind: kind, code: code, message: message, header: header}
}

// Fail answers with a failure, and counts it.
func (h *Handler) Fail(w http.ResponseWriter, f *Failure) { h.fail(w, f) }

// Identify finds the product of a request's key, and the key.
func (h *Handler) Identify(r *http.Request) (*quota.Product, quota.Key, *Failure) {
	return h.authenticate(r)
}

// Refused puts a denied reserve into words.
func Refused(r *ledger.Refusal) *Failure { return refusedFor(r) }

// Unavailable says that the ledger cannot be reached, so that nothing was sent.
func Unavailable() *Failure { return unavailable() }

// AnswerDropped says that the answer of a request that is charged may not be
// shown.
func AnswerDropped() *Failure { return answerDropped() }

// Amount writes an amount of a unit.
func Amount(unit quota.Unit, n int64) string {
	x := exchange{product: &quota.Product{Unit: unit}}
	return x.amount(n)
}

// CallerID is what the caller or the host calls the request.
func CallerID(h http.Header) string { return callerID(h) }

// CopyHeader copies an answer's header but for what ends at this hop.
func CopyHeader(to, from http.Header) { copyHeader(to, from) }

// IsStream tells whether an answer is a stream of events.
func IsStream(h http.Header) bool { return isStream(h) }

// Clip cuts a text at a number of bytes.
func Clip(s string, most int) string { return clip(s, most) }

// Nowhere is a ResponseWriter for an answer that nobody gets.
func Nowhere() http.ResponseWriter { return nowhere{} }

// Pulse is w for a stream of events that gets a comment whenever it is silent
// between two of them for an interval; the first one when first has passed. A
// Flush must follow every Write. stop must be called before w is used again.
func Pulse(w http.ResponseWriter, interval, first time.Duration) (pulsing http.ResponseWriter, stop func()) {
	p := &pulse{ResponseWriter: w, interval: interval, between: true}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(first, p.beat)
	return p, p.stop
}
