package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// Limits of a request.
const (
	BodyBytesMax    = 100 << 20 // the Functions host's own limit
	ChoicesMax      = 128       // n and best_of
	OutputTokensMax = 10_000_000
	toolsMax        = 1024
	promptsMax      = 2048
	segmentBytesMax = 256
	userBytesMax    = 256
)

// asked is what a request body says about its cost.
type asked struct {
	body         []byte
	model        string
	stream       bool
	includeUsage bool
	options      jsonscan.Value // stream_options, if it is an object
	limit        int64          // the client's output limit; 0: none
	limitValue   jsonscan.Value
	limitField   string
	nulls        map[string]jsonscan.Value // members that we may write, and that are null
	choices      int64                     // what the output limit is multiplied by
	prompts      int64
	tier         string
	previous     string // previous_response_id
	store        bool
	background   bool
	needsContext bool // parts of the prompt are not in the body
	dataSources  bool
	user         string
	bodyStart    int // offset behind the opening brace
	empty        bool

	tools        hosted
	toolCallsMax int64 // max_tool_calls; 0: none given
	media        mediaAsked
}

// readBody buffers the request's body. Buffering is also what keeps Go's
// server from closing the body under a running stream (golang/go#40747).
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *failure) {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, &failure{
			status: http.StatusUnsupportedMediaType, kind: "invalid_request_error", code: "unsupported_content_encoding",
			message: "A compressed body cannot be priced. Send it without Content-Encoding.",
		}
	}
	tooLarge := &failure{
		status: http.StatusRequestEntityTooLarge, kind: "invalid_request_error", code: "request_too_large",
		message: fmt.Sprintf("The body is larger than %d bytes.", BodyBytesMax),
	}
	if r.ContentLength > BodyBytesMax {
		return nil, tooLarge
	}
	reader := http.MaxBytesReader(w, r.Body, BodyBytesMax)
	var body []byte
	var err error
	if r.ContentLength > 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(reader, body)
	} else {
		body, err = io.ReadAll(reader)
	}
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, tooLarge
	} else if err != nil {
		return nil, badRequest("invalid_body", "", "The body could not be read: "+err.Error())
	}
	return body, nil
}

// fields are the members of a request body that decide money. Two of one name
// are refused, in any letter case: two parsers may choose differently.
var fields = []string{
	"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of",
	"service_tier", "tools", "functions", "previous_response_id", "conversation", "prompt", "data_sources", "store", "background",
	"messages", "input", "instructions", "user", "safety_identifier", "web_search_options", "modalities", "max_tool_calls",
}

// understand reads the fields that decide money, strictly.
func understand(o *operation, contentType string, body []byte) (*asked, *failure) {
	a := &asked{body: body, choices: 1, prompts: 1, store: true}
	if boundary, isForm := formBoundary(contentType); isForm && o.media() {
		return a, a.form(o, boundary)
	}
	if o.name == opTranscription {
		return nil, a.complete(o)
	}
	fields := fields
	if o.media() {
		fields = mediaFields
	}
	seen := make([]bool, len(fields))
	var choices, bestOf int64 = 1, 1
	err := jsonscan.Object(body, func(key []byte, v jsonscan.Value) error {
		index := slices.IndexFunc(fields, func(f string) bool { return len(f) == len(key) && strings.EqualFold(f, string(key)) })
		if index < 0 {
			return nil
		}
		field := fields[index]
		if seen[index] {
			return badRequest("duplicate_field", field, fmt.Sprintf("The field %q is there twice. Send it once.", field))
		}
		seen[index] = true
		if string(key) != field {
			return badRequest("unknown_field", string(key), fmt.Sprintf("Field names have one spelling: send %q, not %q.", field, key))
		}
		if jsonscan.IsNull(v.Raw) {
			a.null(field, v)
			return nil
		}
		switch field {
		case "n":
			return count(field, v, ChoicesMax, &choices)
		case "best_of":
			return count(field, v, ChoicesMax, &bestOf)
		}
		if f := a.field(o, field, v); f != nil {
			return f
		}
		return nil
	})
	if f := (*failure)(nil); errors.As(err, &f) {
		return nil, f
	} else if err != nil {
		return nil, badRequest("invalid_json", "", "The body is not a JSON object that every parser reads alike: "+err.Error())
	}
	if a.choices = max(choices, bestOf); o.media() {
		a.media.images, a.choices = choices, 1
	}
	a.bodyStart = bytes.IndexByte(body, '{') + 1
	a.empty = isEmptyObject(body[a.bodyStart:])
	a.needsContext = a.needsContext || a.dataSources || bytes.Contains(body, []byte(`"file_id"`)) || bytes.Contains(body, []byte(`"file_url"`))
	return a, nil
}

func isEmptyObject(rest []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte("}"))
}

func count(field string, v jsonscan.Value, most int64, into *int64) error {
	n, ok := jsonscan.Int(v.Raw)
	if !ok || n < 1 || n > most {
		return badRequest("invalid_value", field, fmt.Sprintf("The field %q must be an integer from 1 to %d.", field, most))
	}
	*into = n
	return nil
}

func number(field string, v jsonscan.Value, most int64, into *int64) *failure {
	if err := count(field, v, most, into); err != nil {
		f := (*failure)(nil)
		errors.As(err, &f)
		return f
	}
	return nil
}

func text(field string, v jsonscan.Value, into *string) *failure {
	s, ok := jsonscan.String(v.Raw)
	if !ok {
		return badRequest("invalid_value", field, fmt.Sprintf("The field %q must be a string.", field))
	}
	*into = s
	return nil
}

func flag(field string, v jsonscan.Value, into *bool) *failure {
	b, ok := jsonscan.Bool(v.Raw)
	if !ok {
		return badRequest("invalid_value", field, fmt.Sprintf("The field %q must be true or false.", field))
	}
	*into = b
	return nil
}

// field takes in one field that is there and not null.
func (a *asked) field(o *operation, field string, v jsonscan.Value) *failure {
	switch field {
	case "model":
		return text(field, v, &a.model)
	case "stream":
		return flag(field, v, &a.stream)
	case "stream_options":
		return a.streamOptions(v)
	case "max_tokens", "max_completion_tokens", "max_output_tokens":
		return a.outputLimit(o, field, v)
	case "service_tier":
		return text(field, v, &a.tier)
	case "tools":
		return a.readTools(v.Raw)
	case "max_tool_calls":
		return number(field, v, toolCallsMax, &a.toolCallsMax)
	case "previous_response_id":
		return text(field, v, &a.previous)
	case "store":
		return flag(field, v, &a.store)
	case "background":
		return flag(field, v, &a.background)
	case "conversation":
		a.needsContext = true
	case "data_sources":
		a.dataSources = true
	case "prompt":
		if o.media() {
			return a.media.field(field, v)
		}
		return a.prompt(o, v)
	case "web_search_options":
		a.tools.webSearch, a.needsContext = true, true
	case "quality", "size", "partial_images", "response_format", "input", "instructions", "image", "images", "mask":
		if o.media() {
			return a.media.field(field, v)
		}
	case "user", "safety_identifier":
		if s, ok := jsonscan.String(v.Raw); ok && (a.user == "" || field == "user") {
			a.user = clip(s, userBytesMax)
		}
	}
	return nil
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

func (a *asked) streamOptions(v jsonscan.Value) *failure {
	duplicate := false
	seen := false
	err := jsonscan.Object(v.Raw, func(key []byte, option jsonscan.Value) error {
		if strings.EqualFold(string(key), "include_usage") {
			duplicate, seen = seen, true
			if b, ok := jsonscan.Bool(option.Raw); ok {
				a.includeUsage = b
			} else if !jsonscan.IsNull(option.Raw) {
				return badRequest("invalid_value", "stream_options.include_usage", "\"stream_options.include_usage\" must be true or false.")
			}
		}
		return nil
	})
	if f := (*failure)(nil); errors.As(err, &f) {
		return f
	}
	switch {
	case err != nil:
		return badRequest("invalid_value", "stream_options", "\"stream_options\" must be an object.")
	case duplicate:
		return badRequest("duplicate_field", "stream_options.include_usage", "\"stream_options.include_usage\" is there twice. Send it once.")
	}
	a.options = v
	return nil
}

// null remembers a member that is null and that we may have to write: another of
// its name would be a duplicate.
func (a *asked) null(field string, v jsonscan.Value) {
	switch field {
	case "max_tokens", "max_completion_tokens", "max_output_tokens", "max_tool_calls", "stream_options":
		if a.nulls == nil {
			a.nulls = map[string]jsonscan.Value{}
		}
		a.nulls[field] = v
	}
}

// outputLimit takes the limit that a client sends under a name that the
// operation knows. Another name limits nothing, whatever upstream makes of it.
func (a *asked) outputLimit(o *operation, field string, v jsonscan.Value) *failure {
	if knows := o.name == "responses"; knows != (field == "max_output_tokens") {
		return nil
	}
	n, ok := jsonscan.Int(v.Raw)
	if !ok || n < 1 {
		return badRequest("invalid_value", field, fmt.Sprintf("The field %q must be an integer above 0.", field))
	}
	if a.limitField != "" {
		return badRequest("invalid_value", field, fmt.Sprintf("Send %q or %q, not both.", a.limitField, field))
	}
	a.limit, a.limitValue, a.limitField = min(n, OutputTokensMax), v, field
	return nil
}

// prompt is a list of prompts in legacy completions, and a reference to a
// stored template in responses.
func (a *asked) prompt(o *operation, v jsonscan.Value) *failure {
	if o.name != "completions" {
		a.needsContext = true
		return nil
	}
	if len(v.Raw) == 0 || v.Raw[0] != '[' {
		return nil
	}
	var prompts []json.RawMessage
	if err := json.Unmarshal(v.Raw, &prompts); err != nil {
		return badRequest("invalid_value", "prompt", "\"prompt\" cannot be read: "+err.Error())
	}
	if len(prompts) > 0 && prompts[0][0] >= '0' && prompts[0][0] <= '9' {
		return nil // one prompt as a list of tokens
	}
	if len(prompts) > promptsMax {
		return badRequest("invalid_value", "prompt", "\"prompt\" may have "+strconv.Itoa(promptsMax)+" entries at most.")
	}
	a.prompts = max(1, int64(len(prompts)))
	return nil
}

// edit replaces a part of the body.
type edit struct {
	start, end int
	text       string
}

// member is an edit that adds a member at the front of the object, or puts it in
// place of one that is null.
func (a *asked) member(name, value string) edit {
	if v, isNull := a.nulls[name]; isNull {
		return edit{v.Start, v.End, value}
	}
	separator := ","
	if a.empty {
		separator = ""
	}
	return edit{a.bodyStart, a.bodyStart, strconv.Quote(name) + ":" + value + separator}
}

// withUsage are the edits that ask for usage at the end of a stream.
func (a *asked) withUsage() []edit {
	if a.options.Raw == nil {
		return []edit{a.member("stream_options", `{"include_usage":true}`)}
	}
	var with []edit
	_ = jsonscan.Object(a.options.Raw, func(key []byte, v jsonscan.Value) error { // it was read before without error
		if strings.EqualFold(string(key), "include_usage") {
			with = []edit{{a.options.Start + v.Start, a.options.Start + v.End, "true"}}
		}
		return nil
	})
	if with == nil {
		separator := ","
		if isEmptyObject(a.options.Raw[1:]) {
			separator = ""
		}
		at := a.options.Start + 1
		with = []edit{{at, at, `"include_usage":true` + separator}}
	}
	return with
}

// edited is the body with the edits made, as parts that are not copied.
func edited(body []byte, edits []edit) (parts [][]byte, length int64) {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.start - b.start })
	at := 0
	for _, e := range edits {
		parts = append(parts, body[at:e.start], []byte(e.text))
		at = e.end
	}
	parts = append(parts, body[at:])
	for _, part := range parts {
		length += int64(len(part))
	}
	return parts, length
}

func partsReader(parts [][]byte) io.ReadCloser {
	if len(parts) == 1 {
		return io.NopCloser(bytes.NewReader(parts[0]))
	}
	readers := make([]io.Reader, len(parts))
	for i, part := range parts {
		readers[i] = bytes.NewReader(part)
	}
	return io.NopCloser(io.MultiReader(readers...))
}
