package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// failure is an answer of ours in the format of the OpenAI API, which its
// clients turn into their typed errors.
type failure struct {
	status  int
	kind    string // error.type
	code    string // error.code
	param   string // error.param; empty: null
	message string
	header  [][2]string
}

func (f *failure) Error() string { return f.code + ": " + f.message }

// fail answers with a failure, and counts it: a refusal has no record.
func (h *Handler) fail(w http.ResponseWriter, f *failure) {
	h.options.Metrics.Counter("costgate_refusals_total", "Requests on proxy routes that were answered with an error of the gateway's.", "code", f.code).Inc()
	f.write(w)
}

// write sends the failure. Whoever reads it must not cache it.
func (f *failure) write(w http.ResponseWriter) {
	var param *string
	if f.param != "" {
		param = &f.param
	}
	body, _ := json.Marshal(map[string]any{"error": map[string]any{ // strings only: it cannot fail
		"message": f.message, "type": f.kind, "param": param, "code": f.code,
	}})
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	for _, pair := range f.header {
		h.Set(pair[0], pair[1])
	}
	w.WriteHeader(f.status)
	_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
}

func badRequest(code, param, message string) *failure {
	return &failure{status: http.StatusBadRequest, kind: "invalid_request_error", code: code, param: param, message: message}
}

func forbidden(code, message string) *failure {
	return &failure{status: http.StatusForbidden, kind: "invalid_request_error", code: code, message: message}
}

func invalidKey() *failure {
	return &failure{
		status: http.StatusUnauthorized, kind: "invalid_request_error", code: "invalid_api_key",
		message: "No product has this key. Send a product key in the api-key header, as Authorization: Bearer, or in Ocp-Apim-Subscription-Key.",
		header:  [][2]string{{"x-should-retry", "false"}},
	}
}

func unavailable() *failure {
	return &failure{
		status: http.StatusServiceUnavailable, kind: "server_error", code: "ledger_unavailable",
		message: "The ledger cannot be reached, so the request was not sent. Try again.",
		header:  [][2]string{{"Retry-After", "2"}},
	}
}

// answerDropped answers a request that was forwarded, and is charged, but whose
// answer may not be shown. Clients that know how are told not to try again by
// themselves: it would cost again. The connection is closed because what it
// belongs to is not over.
func answerDropped() *failure {
	return &failure{
		status: http.StatusServiceUnavailable, kind: "server_error", code: "answer_dropped",
		message: "The request was sent, but its hold could not be made durable in the ledger, so the answer was dropped. " +
			"It is charged at what it cost (x-costgate-request-id names its record); sending it again costs again.",
		header: [][2]string{{"Retry-After", "2"}, {"x-should-retry", "false"}, {"Connection", "close"}},
	}
}

func upstreamLate() *failure {
	return &failure{status: http.StatusGatewayTimeout, kind: "server_error", code: "upstream_timeout", message: "Azure OpenAI did not answer in time."}
}

func upstreamLost(message string) *failure {
	return &failure{status: http.StatusBadGateway, kind: "server_error", code: "upstream_error", message: message}
}

// refusedFor puts a denied reserve into words. A refusal that lasts carries no
// Retry-After: a client that obeys it would sleep until the period ends.
func refusedFor(r *ledger.Refusal) *failure {
	if r.Reason == ledger.ReasonHeld {
		return &failure{
			status: http.StatusTooManyRequests, kind: "rate_limit_exceeded", code: "budget_held",
			message: "What is left of the budget is held by running requests of this product. Try again when they have ended.",
			header:  [][2]string{{"Retry-After", "1"}},
		}
	}
	f := &failure{
		status: http.StatusTooManyRequests, kind: "insufficient_quota", code: "insufficient_quota",
		message: "The budget of this product does not cover the request.",
		header:  [][2]string{{"x-should-retry", "false"}},
	}
	reset := r.Window.End
	if r.Reason == ledger.ReasonStopped {
		f.message = "This product is stopped: " + r.Stop.Reason + "."
		reset = r.Stop.Until
	}
	if !reset.IsZero() {
		f.header = append(f.header, [2]string{"x-costgate-reset", reset.UTC().Format(time.RFC3339)})
	}
	return f
}
