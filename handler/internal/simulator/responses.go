package simulator

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// storedResponse is one that the service keeps.
type storedResponse struct {
	body       string
	input      json.RawMessage
	tokens     int64
	background bool
	running    string // its body until polls have been answered
	cancelled  string
	polls      int64
}

// responses answers the Responses API.
func (c *call) responses() {
	if c.in.Previous != "" {
		c.server.mu.Lock()
		earlier, ok := c.server.stored[c.in.Previous]
		c.server.mu.Unlock()
		if !ok {
			writeJSON(c.w, http.StatusNotFound, map[string]any{"error": map[string]any{
				"message": "Previous response with id '" + c.in.Previous + "' not found.", "type": "invalid_request_error", "param": "previous_response_id", "code": "previous_response_not_found",
			}})
			return
		}
		c.prompt += earlier.tokens
	}
	store := c.in.Store == nil || *c.in.Store
	if c.background() && !store {
		badRequest(c.w, "Background mode requires store to be true.", "background", "invalid_request")
		return
	}
	m := made{ran: c.runTools()}
	length, cut := c.length()
	m.tokens = length
	if m.tool, m.calls = c.usesTool(); m.calls > 0 {
		m.tokens, cut = c.toolTokens(m.tool, m.calls), false
	} else {
		m.reasoning = c.reasoning(length)
		m.tokens += m.reasoning
		m.choices = [][]string{grouped(c.answerText(length), c.settings.Chunks)}
	}
	status := "completed"
	if cut || c.settings.Fault == "zero_usage" {
		status = "incomplete"
	}
	whole := c.response(status, c.output(&m), c.responseUsage(&m))
	kept := &storedResponse{body: whole, input: c.in.Input, tokens: c.prompt + m.tokens, background: c.background()}
	if kept.background && !c.in.Stream {
		kept.running, kept.cancelled = c.response("in_progress", "[]", "null"), c.response("cancelled", "[]", "null")
		kept.polls = max(0, orOne(c.settings.BackgroundPolls))
	}
	if store {
		c.server.keep(c.responseID(), kept)
	}
	switch {
	case c.in.Stream:
		c.responseStream(&m, status, whole)
	case kept.background: // the work is done, whether or not somebody asks for it
		c.charge("completed", m.tokens)
		c.send(c.response("queued", "[]", "null"))
	default:
		c.charge("completed", m.tokens)
		c.send(whole)
	}
}

func (c *call) background() bool { return string(c.in.Background) == "true" }

// orOne is a setting whose default is one.
func orOne(n int64) int64 {
	if n == 0 {
		return 1
	}
	return n
}

func (s *Server) keep(id string, r *storedResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) >= StoredResponsesMax {
		delete(s.stored, s.order[0])
		s.order = slices.Delete(s.order, 0, 1)
	}
	if _, again := s.stored[id]; !again {
		s.order = append(s.order, id)
	}
	s.stored[id] = r
}

func (c *call) responseUsage(m *made) string {
	switch c.settings.Fault {
	case "zero_usage":
		return `{"input_tokens":0,"input_tokens_details":{"cached_tokens":0},"output_tokens":0,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":0}`
	case "no_usage":
		return "null"
	}
	return fmt.Sprintf(`{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d%s},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}`,
		c.prompt, c.cached, c.written(), m.tokens, m.reasoning, c.prompt+m.tokens)
}

func (c *call) output(m *made) string {
	var items []string
	for _, run := range m.ran {
		items = append(items, run.item("completed"))
	}
	for k := range m.calls {
		items = append(items, c.functionCall(m, k, toolArguments, "completed"))
	}
	if m.calls == 0 {
		items = append(items, c.message(strings.Join(m.choices[0], ""), "completed"))
	}
	return "[" + strings.Join(items, ",") + "]"
}

func (c *call) message(text, status string) string {
	content := "[]"
	if status == "completed" {
		content = `[{"type":"output_text","annotations":[],"logprobs":[],"text":` + quote(text) + `}]`
	}
	return fmt.Sprintf(`{"id":"msg_%s","type":"message","status":%q,"content":%s,"role":"assistant"}`, c.id, status, content)
}

func (c *call) functionCall(m *made, k int, arguments, status string) string {
	return fmt.Sprintf(`{"id":"fc_%s%d","type":"function_call","status":%q,"arguments":%s,"call_id":"call_%s%d","name":%s}`,
		c.id, k, status, quote(arguments), c.id[:20], k, quote(m.tool))
}

// response is the response object. The service names the deployment's model
// here without its date.
func (c *call) response(status, output, usage string) string {
	incomplete := "null"
	if status == "incomplete" {
		incomplete = `{"reason":"max_output_tokens"}`
	}
	store := c.in.Store == nil || *c.in.Store
	tier := c.tier()
	if status == "queued" || status == "in_progress" {
		tier = "auto"
	}
	return fmt.Sprintf(`{"id":%q,"object":"response","created_at":%d,"status":%q,"background":%v,"content_filters":[{"blocked":false,"source_type":"prompt","content_filter_results":%s}],`+
		`"error":null,"incomplete_details":%s,"instructions":null,"max_output_tokens":null,"model":%q,"output":%s,"parallel_tool_calls":true,"previous_response_id":%s,`+
		`"reasoning":{"effort":null,"summary":null},"service_tier":%q,"store":%v,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],`+
		`"top_p":1.0,"truncation":"disabled","usage":%s,"user":null,"metadata":{}}`,
		c.responseID(), c.created, status, c.background(), filterResults, incomplete, c.deployment, output, nullable(c.in.Previous), tier, store, usage)
}

func nullable(s string) string {
	if s == "" {
		return "null"
	}
	return quote(s)
}

// responseStream writes typed events; there is no [DONE].
func (c *call) responseStream(m *made, status, whole string) {
	s := c.stream()
	number := 0
	event := func(kind, members string) []byte {
		number++
		return fmt.Appendf(nil, "event: response.%s\ndata: {\"type\":\"response.%s\",\"sequence_number\":%d%s}\n\n", kind, kind, number-1, members)
	}
	begun := `,"response":` + c.response("in_progress", "[]", "null")
	if c.background() {
		queued := `,"response":` + c.response("queued", "[]", "null")
		s.send(event("created", queued))
		s.send(event("queued", queued))
	} else {
		s.send(event("created", begun))
	}
	s.send(event("in_progress", begun))
	sent := int64(0)
	for index, run := range m.ran {
		place := fmt.Sprintf(`,"item_id":%q,"output_index":%d`, run.id, index)
		s.send(event("output_item.added", fmt.Sprintf(`,"output_index":%d,"item":%s`, index, run.item("in_progress"))))
		s.send(event(run.kind+".in_progress", place))
		s.send(event(run.kind+".completed", place))
		s.send(event("output_item.done", fmt.Sprintf(`,"output_index":%d,"item":%s`, index, run.item("completed"))))
	}
	for k := range m.calls {
		index := len(m.ran) + k
		place := fmt.Sprintf(`,"item_id":"fc_%s%d","output_index":%d`, c.id, k, index)
		s.send(event("output_item.added", fmt.Sprintf(`,"output_index":%d,"item":%s`, index, c.functionCall(m, k, "", "in_progress"))))
		for rest := toolArguments; rest != ""; {
			n := min(7, len(rest))
			s.delta(event("function_call_arguments.delta", place+`,"delta":`+quote(rest[:n])))
			rest = rest[n:]
		}
		s.send(event("function_call_arguments.done", place+`,"arguments":`+quote(toolArguments)))
		s.send(event("output_item.done", fmt.Sprintf(`,"output_index":%d,"item":%s`, index, c.functionCall(m, k, toolArguments, "completed"))))
	}
	if m.calls == 0 {
		index := fmt.Sprintf(`,"output_index":%d`, len(m.ran))
		place := fmt.Sprintf(`,"item_id":"msg_%s"%s,"content_index":0`, c.id, index)
		part := func(text string) string {
			return `,"part":{"type":"output_text","annotations":[],"logprobs":[],"text":` + quote(text) + `}`
		}
		text := strings.Join(m.choices[0], "")
		s.send(event("output_item.added", index+`,"item":`+c.message("", "in_progress")))
		s.send(event("content_part.added", place+part("")))
		for _, piece := range m.choices[0] {
			if !s.delta(event("output_text.delta", place+`,"delta":`+quote(piece)+`,"logprobs":[]`)) {
				break
			}
			sent++
		}
		s.send(event("output_text.done", place+`,"text":`+quote(text)+`,"logprobs":[]`))
		s.send(event("content_part.done", place+part(text)))
		s.send(event("output_item.done", index+`,"item":`+c.message(text, "completed")))
	}
	if s.gone {
		switch {
		case c.background(): // goes on without its client
			c.charge("completed", m.tokens)
		case c.settings.Fault == "cut":
			c.charge("cut", sent)
		default:
			c.charge("gone", sent)
		}
		s.end()
		return
	}
	c.charge("completed", m.tokens)
	s.send(event(status, `,"response":`+whole))
	s.end()
}

// storedRoute serves what there is of a stored response.
func (s *Server) storedRoute(w http.ResponseWriter, r *http.Request, parts []string) {
	what := ""
	if parts[len(parts)-2] != "responses" {
		what, parts = strings.ToLower(parts[len(parts)-1]), parts[:len(parts)-1]
	}
	id := parts[len(parts)-1]
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, ok := s.stored[id]
	switch {
	case !ok:
		writeJSON(w, http.StatusNotFound, map[string]any{"error": map[string]any{
			"message": "Response with id '" + id + "' not found.", "type": "invalid_request_error", "param": nil, "code": nil,
		}})
	case what == "" && r.Method == http.MethodDelete:
		delete(s.stored, id)
		s.order = slices.DeleteFunc(s.order, func(other string) bool { return other == id })
		writeJSON(w, http.StatusOK, map[string]any{"id": id, "object": "response.deleted", "deleted": true})
	case what == "" && r.Method == http.MethodGet:
		body := kept.body
		if kept.polls > 0 {
			kept.polls--
			body = kept.running
		}
		answerJSON(w, body)
	case what == "input_items" && r.Method == http.MethodGet:
		answerJSON(w, inputItems(id, kept.input))
	case what == "cancel" && r.Method == http.MethodPost && !kept.background:
		badRequest(w, "Cannot cancel a synchronous response.", "", "invalid_request")
	case what == "cancel" && r.Method == http.MethodPost:
		if kept.polls > 0 {
			kept.polls, kept.body = 0, kept.cancelled
			s.bill.change(id, func(l *Line) { l.Outcome, l.CompletionTokens = "cancelled", 0 })
		}
		answerJSON(w, kept.body)
	default:
		notFound(w)
	}
}

func answerJSON(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body)
}

// inputItems lists what a response was asked.
func inputItems(id string, input json.RawMessage) string {
	items := "[]"
	switch {
	case len(input) > 0 && input[0] == '"':
		items = `[{"id":"msg_` + id + `","type":"message","status":"completed","role":"user","content":[{"type":"input_text","text":` + string(input) + `}]}]`
	case len(input) > 0 && input[0] == '[':
		items = string(input)
	}
	return `{"object":"list","data":` + items + `,"has_more":false}`
}
