package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// problem is an answer in the form of RFC 9457, and an error.
type problem struct {
	Type   string   `json:"type"`
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Detail string   `json:"detail"`
	Field  string   `json:"field,omitempty"`
	Fields []string `json:"fields,omitempty"`
	// Amount is what API Management's fragment reads of an unknown key.
	Amount *string `json:"Amount,omitempty"`
}

func (p *problem) Error() string { return p.Detail }

func (p *problem) write(w http.ResponseWriter) {
	p.Type = "about:blank"
	body, _ := json.Marshal(p) // strings and numbers only: it cannot fail
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
}

// Problem answers with a problem+json body.
func Problem(w http.ResponseWriter, status int, title, detail string) {
	(&problem{Title: title, Status: status, Detail: detail}).write(w)
}

func invalid(field, format string, args ...any) *problem {
	return &problem{Title: "invalid request", Status: http.StatusBadRequest, Field: field, Detail: fmt.Sprintf(format, args...)}
}

func conflict(field, format string, args ...any) *problem {
	return &problem{Title: "conflict", Status: http.StatusConflict, Field: field, Detail: fmt.Sprintf(format, args...)}
}

func unknownProduct() *problem {
	zero := "0"
	return &problem{Title: "not found", Status: http.StatusNotFound, Detail: "No product has this key or id.", Amount: &zero}
}

// fail answers with the problem that an error is.
func (h *Handler) fail(w http.ResponseWriter, err error) {
	p := (*problem)(nil)
	switch {
	case errors.As(err, &p):
	case errors.Is(err, ledger.ErrUnknownProduct):
		p = unknownProduct()
	case errors.Is(err, ledger.ErrKeyTaken):
		p = conflict("subscriptionKey", "This key belongs to another product. Use another key.")
	case errors.Is(err, ledger.ErrOtherBody):
		p = &problem{
			Title: "idempotency key used before", Status: http.StatusUnprocessableEntity,
			Detail: "This Idempotency-Key came with another body before. Send the same body, or use a new key.",
		}
	case errors.Is(err, ledger.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		h.options.Log.Error("ledger cannot be reached", "error", err)
		w.Header().Set("Retry-After", "2")
		p = &problem{
			Title: "ledger unavailable", Status: http.StatusServiceUnavailable,
			Detail: "The ledger cannot be reached. Try again. A change may have happened all the same, or still happen: " +
				"with the same Idempotency-Key, or an Update's response id, it happens once.",
		}
	default:
		h.options.Log.Error("request failed", "error", err)
		p = &problem{Title: "internal error", Status: http.StatusInternalServerError, Detail: "Something went wrong here; the log has the details."}
	}
	p.write(w)
}

func writeJSON(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
}

// object writes a JSON object whose members are in order and already JSON.
type object struct {
	buffer strings.Builder
}

func (o *object) raw(name, value string) {
	if o.buffer.Len() == 0 {
		o.buffer.WriteByte('{')
	} else {
		o.buffer.WriteByte(',')
	}
	o.buffer.WriteString(strconv.Quote(name))
	o.buffer.WriteByte(':')
	o.buffer.WriteString(value)
}

func (o *object) set(name string, value any) {
	text, _ := json.Marshal(value) // plain values: it cannot fail
	o.raw(name, string(text))
}

func (o *object) String() string {
	if o.buffer.Len() == 0 {
		return "{}"
	}
	return o.buffer.String() + "}"
}
