package proxy

import (
	"net/http"
	"strconv"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/ratelimit"
)

// Admit asks whether the product's request limits allow a request that may take
// so many tokens. On refusal it has answered in the OpenAI format, and ok is false.
func (h *Handler) Admit(w http.ResponseWriter, p *quota.Product, tokens int64) (ticket *ratelimit.Ticket, ok bool) {
	ticket, failed := h.admit(p, tokens)
	if failed != nil {
		h.fail(w, failed)
	}
	return ticket, failed == nil
}

func (h *Handler) admit(p *quota.Product, tokens int64) (*ratelimit.Ticket, *failure) {
	limits := ratelimit.Of(p, h.options.Now())
	if limits.None() {
		return nil, nil
	}
	ticket, denied := h.options.Limiter.Admit(p.ID, limits, h.options.Ledger.Holders(p), tokens)
	if denied != nil {
		return nil, limited(denied)
	}
	return ticket, nil
}

// limited puts a refusal into OpenAI's words for one.
func limited(d *ratelimit.Denied) *failure {
	f := &failure{
		status: http.StatusTooManyRequests, kind: "requests", code: "rate_limit_exceeded",
		message: "This product has used up its " + string(d.Which) + " (" + strconv.FormatInt(d.Limit, 10) + "). Try again later.",
		header:  [][2]string{{"Retry-After", strconv.FormatInt(int64((d.After+time.Second-1)/time.Second), 10)}},
	}
	if d.Which == ratelimit.Tokens {
		f.kind = "tokens"
	}
	return f
}

// admit counts the request with its prompt, which is counted for that, and with
// the answer that the client has room for, or that such requests usually get:
// what really came is put right at its end.
func (x *exchange) admit(prompt int64) (failed *failure) {
	limits := ratelimit.Of(x.product, x.handler.options.Now())
	if limits.None() {
		return nil
	}
	need := int64(0)
	if limits.Tokens > 0 {
		if need = prompt; !x.counted {
			need = min(prompt, x.promptCounted())
			x.counted = false // the hold may still be by bytes
		}
		output := x.limit
		if x.asked.limit <= 0 {
			output = x.handler.learned.usual(x.learnedKey(), x.limit)
		}
		if !x.operation.media() {
			need += output * x.asked.choices * x.asked.prompts
		}
	}
	x.ticket, failed = x.handler.admit(x.product, need)
	return failed
}

// leave ends what admit began.
func (x *exchange) leave() {
	switch r := &x.charged; {
	case !x.settled: // not forwarded
		x.ticket.Cancel()
	case r.PromptTokens.Known || r.CompletionTokens.Known:
		x.ticket.End(r.PromptTokens.N + r.CompletionTokens.N)
	default:
		x.ticket.End(-1)
	}
}
