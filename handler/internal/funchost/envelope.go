package funchost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// EnvelopeBytesMax bounds the invocation that the host posts for a timer. Real
// ones have a few hundred bytes.
const EnvelopeBytesMax = 1 << 20

// httpFunctions are the names, in lower case, of the functions that the host
// must proxy. All but the timer.
var httpFunctions = []string{
	"budgetalert", "configure", "create", "getall", "getbyid", "health", "history", "me", "proxy", "service", "update",
}

// result is what the host reads from the answer to an envelope. Every field is
// always there.
type result struct {
	Outputs     map[string]any
	Logs        []string
	ReturnValue any
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil { // not with the types of this package
		status, body = http.StatusInternalServerError, []byte(`{"error":"answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// Timer serves the invocations of a timer function: a POST of an envelope. fn
// runs on the request's context. Its error makes the invocation fail, by a 500
// with a JSON body; the host logs it and calls again at the next tick.
func Timer(fn func(ctx context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"error": "a timer is invoked by POST"})
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, EnvelopeBytesMax))
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			writeJSON(w, http.StatusRequestEntityTooLarge, map[string]string{"error": fmt.Sprintf("over %d bytes", EnvelopeBytesMax)})
			return
		} else if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": "the invocation could not be read"})
			return
		}
		late, err := pastDue(body)
		if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		started := time.Now()
		if err := fn(r.Context()); err != nil {
			writeJSON(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
			return
		}
		line := fmt.Sprintf("done in %d ms", time.Since(started).Milliseconds())
		if late {
			line += ", past due"
		}
		writeJSON(w, http.StatusOK, result{Outputs: map[string]any{}, Logs: []string{line}})
	})
}

// pastDue reads the one thing of a timer's invocation that is worth a word in
// the log. The binding's name does not matter, its value may be an object or an
// object's text in a string, and what is missing is false: only a body that is
// not a JSON object is an error.
func pastDue(body []byte) (bool, error) {
	if len(body) == 0 {
		return false, nil
	}
	var invocation struct{ Data map[string]json.RawMessage }
	if err := json.Unmarshal(body, &invocation); err != nil {
		if other := (*json.UnmarshalTypeError)(nil); errors.As(err, &other) && other.Field != "" {
			return false, nil // an object whose Data is of another kind
		}
		return false, errors.New("the invocation is not a JSON object")
	}
	for _, value := range invocation.Data {
		var text string
		if json.Unmarshal(value, &text) == nil {
			value = []byte(text)
		}
		var timer struct{ IsPastDue bool }
		if json.Unmarshal(value, &timer) == nil && timer.IsPastDue {
			return true, nil
		}
	}
	return false, nil
}

// IsEnvelope tells whether a request is the invocation of an HTTP function in
// an envelope: POST /<function name> with JSON. A host too old to proxy sends
// these, and ignores the setting that asks for proxying. The body is not read.
func IsEnvelope(r *http.Request) bool {
	if r.Method != http.MethodPost || InvocationID(r.Header) == "" {
		return false
	}
	name := strings.ToLower(strings.TrimPrefix(r.URL.Path, "/"))
	if !slices.Contains(httpFunctions, name) {
		return false
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

const tooOld = "This Functions host does not proxy HTTP requests to the custom handler. Costgate needs a host of version 4.1040 or later " +
	"(FUNCTIONS_EXTENSION_VERSION=~4, current platform or Core Tools) and customHandler.enableProxyingHttpRequest=true in host.json."

// RefuseEnvelope answers such an envelope in the host's own format: the client
// gets a 501 that says what to change.
func RefuseEnvelope(w http.ResponseWriter) {
	problem, _ := json.Marshal(map[string]any{"title": "Functions host too old", "status": http.StatusNotImplemented, "detail": tooOld})
	writeJSON(w, http.StatusOK, result{
		Outputs: map[string]any{"res": map[string]any{
			"statusCode": strconv.Itoa(http.StatusNotImplemented), // a string is what every host version reads
			"headers":    map[string]string{"Content-Type": "application/problem+json"},
			"body":       string(problem),
		}},
		Logs: []string{tooOld},
	})
}
