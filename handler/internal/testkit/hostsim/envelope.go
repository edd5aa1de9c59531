package hostsim

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

type object map[string]any

// result is the handler's answer to an envelope.
type result struct {
	Outputs     map[string]json.RawMessage
	Logs        []string
	ReturnValue any
}

// send posts an envelope, and reads what comes back. ctx is limited by
// functionTimeout.
func (h *Host) send(ctx context.Context, f *Function, data, metadata object) (result, error) {
	p, err := h.handler(ctx)
	if err != nil {
		return result{}, err
	}
	metadata["sys"] = object{"MethodName": f.Name, "UtcNow": h.options.Now().UTC().Format(time.RFC3339Nano), "RandGuid": newGUID()}
	envelope, err := json.Marshal(struct{ Data, Metadata object }{data, metadata})
	if err != nil {
		return result{}, err
	}
	// A reader of unknown length is sent in chunks, as the host does.
	body := struct{ io.Reader }{bytes.NewReader(envelope)}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:"+p.port+"/"+f.Name, body)
	if err != nil {
		return result{}, err
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set("User-Agent", "Azure-Functions-Host/"+h.options.Version)
	h.mark(r.Header)
	r.Header.Del("X-Ms-Invocation-Id") // of proxied requests only
	answer, err := h.transport.RoundTrip(r)
	if err != nil {
		return result{}, err
	}
	defer answer.Body.Close()
	return readResult(ctx, answer)
}

// readResult reads an answer to an envelope. To an empty one the host has no
// reply: the call waits until functionTimeout.
func readResult(ctx context.Context, answer *http.Response) (result, error) {
	var r result
	body, err := io.ReadAll(io.LimitReader(answer.Body, AnswerBytesMax))
	if err != nil {
		return r, err
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return r, fmt.Errorf("status %d: %s", answer.StatusCode, body)
	}
	if len(body) == 0 {
		<-ctx.Done()
		return r, fmt.Errorf("an empty answer, and %w", context.Cause(ctx))
	}
	kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return r, fmt.Errorf("content type %q: the host reads application/json only", answer.Header.Get("Content-Type"))
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("answer %q: %w", body, err)
	}
	return r, nil
}

// enclose serves a request of a client by an envelope.
func (h *Host) enclose(c *call) {
	ctx, done := h.limited(context.WithoutCancel(c.r.Context()))
	defer done()
	request, metadata := c.enveloped()
	answer, err := h.send(ctx, c.function, object{c.function.Binding: request}, metadata)
	if err == nil {
		err = writeOutput(c.w, answer.Outputs[outputName])
	}
	if err != nil {
		bare(c.w, http.StatusInternalServerError)
	}
}

// enveloped is the request as JSON, and what its envelope says besides.
func (c *call) enveloped() (request, metadata object) {
	query, headers, first := object{}, object{}, object{}
	for _, p := range parameters(c.r.URL.RawQuery) {
		query[p.name] = p.value
	}
	for name, values := range c.r.Header {
		headers[name], first[name] = values, merged(name, values)
	}
	headers["Host"], first["Host"] = []string{c.r.Host}, c.r.Host
	params := c.function.pattern.parameters(c.path)
	request = object{
		"Url": "http://" + c.r.Host + c.r.URL.RequestURI(), "Method": c.r.Method, "Query": query, "Headers": headers, "Params": params,
		"Identities": []object{{
			"AuthenticationType": nil, "IsAuthenticated": false, "Actor": nil, "BootstrapContext": nil, "Claims": []object{}, "Label": nil, "Name": nil,
			"NameClaimType": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
			"RoleClaimType": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
		}},
	}
	if len(c.whole) > 0 { // a chunked body is lost
		request["Body"] = string(c.whole)
		kind, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
		if kind == "application/octet-stream" || strings.HasPrefix(kind, "multipart/") {
			request["Body"] = base64.StdEncoding.EncodeToString(c.whole)
		}
	}
	metadata = object{"Query": query, "Headers": first}
	for name, value := range params {
		metadata[name] = value
	}
	return request, metadata
}

// outputName is the one name of an http output that a host accepts.
const outputName = "res"

// writeOutput answers the client as the handler's output says.
func writeOutput(w http.ResponseWriter, output json.RawMessage) error {
	if len(output) == 0 || string(output) == "null" {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	var o struct {
		StatusCode any
		Headers    map[string]string
		Body       json.RawMessage
	}
	if err := json.Unmarshal(output, &o); err != nil {
		return err
	}
	status := http.StatusOK
	if o.StatusCode != nil {
		var err error
		if status, err = strconv.Atoi(fmt.Sprint(o.StatusCode)); err != nil || status < 200 || status > 599 {
			return errors.Join(fmt.Errorf("status %v", o.StatusCode), err)
		}
	}
	var text string
	if json.Unmarshal(o.Body, &text) != nil { // an object: as it is
		text = string(o.Body)
	}
	for name, value := range o.Headers {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
	return nil
}
