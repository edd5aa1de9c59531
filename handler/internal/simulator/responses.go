package simulator

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// storedResponse is one that the service keeps.
type storedResponse struct {
	body   string
	tokens int64
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
	length, cut := c.length()
	m := made{tokens: length}
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
	if c.in.Store == nil || *c.in.Store {
		c.server.keep(c.responseID(), &storedResponse{whole, c.prompt + m.tokens})
	}
	switch {
	case c.in.Background && !c.in.Stream:
		c.charge("completed", m.tokens)
		c.send(c.response("queued", "[]", "null"))
	case c.in.Stream:
		c.responseStream(&m, status, whole)
	default:
		c.charge("completed", m.tokens)
		c.send(whole)
	}
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
	return fmt.Sprintf(`{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}`,
		c.prompt, c.cached, m.tokens, m.reasoning, c.prompt+m.tokens)
}

func (c *call) output(m *made) string {
	if m.calls > 0 {
		var calls []string
		for k := range m.calls {
			calls = append(calls, c.functionCall(m, k, toolArguments, "completed"))
		}
		return "[" + strings.Join(calls, ",") + "]"
	}
	return "[" + c.message(strings.Join(m.choices[0], ""), "completed") + "]"
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
	return fmt.Sprintf(`{"id":%q,"object":"response","created_at":%d,"status":%q,"background":%v,"content_filters":[{"blocked":false,"source_type":"prompt","content_filter_results":%s}],`+
		`"error":null,"incomplete_details":%s,"instructions":null,"max_output_tokens":null,"model":%q,"output":%s,"parallel_tool_calls":true,"previous_response_id":%s,`+
		`"reasoning":{"effort":null,"summary":null},"service_tier":"default","store":%v,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],`+
		`"top_p":1.0,"truncation":"disabled","usage":%s,"user":null,"metadata":{}}`,
		c.responseID(), c.created, status, c.in.Background, filterResults, incomplete, c.deployment, output, nullable(c.in.Previous), store, usage)
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
	s.send(event("created", begun))
	s.send(event("in_progress", begun))
	sent := int64(0)
	for k := range m.calls {
		place := fmt.Sprintf(`,"item_id":"fc_%s%d","output_index":%d`, c.id, k, k)
		s.send(event("output_item.added", fmt.Sprintf(`,"output_index":%d,"item":%s`, k, c.functionCall(m, k, "", "in_progress"))))
		for rest := toolArguments; rest != ""; {
			n := min(7, len(rest))
			s.delta(event("function_call_arguments.delta", place+`,"delta":`+quote(rest[:n])))
			rest = rest[n:]
		}
		s.send(event("function_call_arguments.done", place+`,"arguments":`+quote(toolArguments)))
		s.send(event("output_item.done", fmt.Sprintf(`,"output_index":%d,"item":%s`, k, c.functionCall(m, k, toolArguments, "completed"))))
	}
	if m.calls == 0 {
		place := fmt.Sprintf(`,"item_id":"msg_%s","output_index":0,"content_index":0`, c.id)
		part := func(text string) string {
			return `,"part":{"type":"output_text","annotations":[],"logprobs":[],"text":` + quote(text) + `}`
		}
		text := strings.Join(m.choices[0], "")
		s.send(event("output_item.added", `,"output_index":0,"item":`+c.message("", "in_progress")))
		s.send(event("content_part.added", place+part("")))
		for _, piece := range m.choices[0] {
			if !s.delta(event("output_text.delta", place+`,"delta":`+quote(piece)+`,"logprobs":[]`)) {
				break
			}
			sent++
		}
		s.send(event("output_text.done", place+`,"text":`+quote(text)+`,"logprobs":[]`))
		s.send(event("content_part.done", place+part(text)))
		s.send(event("output_item.done", `,"output_index":0,"item":`+c.message(text, "completed")))
	}
	if s.gone {
		outcome := "gone"
		if c.settings.Fault == "cut" {
			outcome = "cut"
		}
		c.charge(outcome, sent)
		s.end()
		return
	}
	c.charge("completed", m.tokens)
	s.send(event(status, `,"response":`+whole))
	s.end()
}

// storedRoute serves GET and DELETE of a stored response.
func (s *Server) storedRoute(w http.ResponseWriter, r *http.Request, parts []string) {
	id := parts[len(parts)-1]
	s.mu.Lock()
	kept, ok := s.stored[id]
	if ok && r.Method == http.MethodDelete {
		delete(s.stored, id)
		s.order = slices.DeleteFunc(s.order, func(other string) bool { return other == id })
	}
	s.mu.Unlock()
	switch {
	case !ok:
		writeJSON(w, http.StatusNotFound, map[string]any{"error": map[string]any{
			"message": "Response with id '" + id + "' not found.", "type": "invalid_request_error", "param": nil, "code": nil,
		}})
	case r.Method == http.MethodDelete:
		writeJSON(w, http.StatusOK, map[string]any{"id": id, "object": "response.deleted", "deleted": true})
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, kept.body)
	}
}
