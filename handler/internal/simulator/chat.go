package simulator

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const filterResults = `{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}`

const promptFilter = `[{"prompt_index":0,"content_filter_results":` + filterResults + `}]`

// made is an answer before it is written.
type made struct {
	choices   [][]string // deltas
	tool      string
	calls     int
	ran       []ranTool // by the service
	tokens    int64     // of the completion, reasoning included
	reasoning int64
	finish    string
}

// make generates the answer of chat and legacy completions.
func (c *call) make() made {
	n := 1
	if c.in.N != nil && *c.in.N > 0 {
		n = min(*c.in.N, 128)
	}
	m := made{finish: "stop"}
	if c.operation == "chat" {
		if m.tool, m.calls = c.usesTool(); m.calls > 0 {
			m.finish, m.tokens = "tool_calls", int64(n)*c.toolTokens(m.tool, m.calls)
			m.choices = make([][]string, n)
			return m
		}
	}
	for range n {
		length, cut := c.length()
		if cut {
			m.finish = "length"
		}
		if c.operation == "chat" {
			hidden := c.reasoning(length)
			m.reasoning += hidden
			m.tokens += hidden
		}
		m.tokens += length
		m.choices = append(m.choices, grouped(c.answerText(length), c.settings.Chunks))
	}
	return m
}

// usage is the usage object.
func (c *call) usage(m *made) string {
	if c.settings.Fault == "zero_usage" {
		return `{"completion_tokens":0,"prompt_tokens":0,"total_tokens":0}`
	}
	return fmt.Sprintf(`{"completion_tokens":%d,"completion_tokens_details":{"accepted_prediction_tokens":0,"audio_tokens":0,"reasoning_tokens":%d,"rejected_prediction_tokens":0},`+
		`"prompt_tokens":%d,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":%d%s},"total_tokens":%d}`,
		m.tokens, m.reasoning, c.prompt, c.cached, c.written(), c.prompt+m.tokens)
}

// written is the member of usage that only some models have.
func (c *call) written() string {
	if !writesCache(c.model) {
		return ""
	}
	return fmt.Sprintf(`,"cache_write_tokens":%d`, c.write)
}

func (c *call) tier() string {
	switch {
	case c.settings.ServiceTier != "":
		return c.settings.ServiceTier
	case c.in.ServiceTier == "priority":
		return "priority"
	}
	return "default"
}

func (c *call) chat() {
	m := c.make()
	annotations := "[]"
	if c.operation == "chat" && c.searches() {
		c.use(itemWebSearch, 1)
		annotations = citations
	}
	if c.in.Stream {
		c.chatStream(&m)
		return
	}
	var choices []string
	for i, pieces := range m.choices {
		choices = append(choices, strings.Replace(c.choice(i, &m, strings.Join(pieces, "")), `"annotations":[]`, `"annotations":`+annotations, 1))
	}
	object, extra := "chat.completion", `,"service_tier":"`+c.tier()+`"`
	if c.operation == "completions" {
		object, extra = "text_completion", ""
	}
	body := fmt.Sprintf(`{"choices":[%s],"created":%d,"id":%q,"model":%q,"object":%q,"prompt_filter_results":%s%s,"system_fingerprint":"fp_simulated"`,
		strings.Join(choices, ","), c.created, c.responseID(), c.model, object, promptFilter, extra)
	if c.settings.Fault != "no_usage" {
		body += `,"usage":` + c.usage(&m)
	}
	outcome := "completed"
	if c.settings.Fault == "filtered" {
		outcome = "filtered"
	}
	c.charge(outcome, m.tokens)
	c.send(body + "}")
}

func (c *call) choice(i int, m *made, text string) string {
	switch {
	case c.settings.Fault == "filtered": // the service leaves out the message
		return fmt.Sprintf(`{"content_filter_results":{"protected_material_text":{"detected":true,"filtered":true}},"finish_reason":"content_filter","index":%d,"logprobs":null}`, i)
	case c.operation == "completions":
		return fmt.Sprintf(`{"content_filter_results":%s,"finish_reason":%q,"index":%d,"logprobs":null,"text":%s}`, filterResults, m.finish, i, quote(text))
	case m.calls > 0:
		var calls []string
		for k := range m.calls {
			calls = append(calls, fmt.Sprintf(`{"function":{"arguments":%s,"name":%s},"id":"call_%s%d","type":"function"}`, quote(toolArguments), quote(m.tool), c.id[:20], k))
		}
		return fmt.Sprintf(`{"content_filter_results":{},"finish_reason":"tool_calls","index":%d,"logprobs":null,"message":{"annotations":[],"content":null,"refusal":null,"role":"assistant","tool_calls":[%s]}}`,
			i, strings.Join(calls, ","))
	}
	return fmt.Sprintf(`{"content_filter_results":%s,"finish_reason":%q,"index":%d,"logprobs":null,"message":{"annotations":[],"content":%s,"refusal":null,"role":"assistant"}}`,
		filterResults, m.finish, i, quote(text))
}

// send sends a whole JSON body, or, if a fault says so, half of it.
func (c *call) send(body string) { c.sendAs("application/json", body) }

func (c *call) sendAs(kind, body string) {
	h := c.head()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if c.settings.Fault == "hang" {
		c.w.(http.Flusher).Flush()
		<-c.r.Context().Done()
		return
	}
	if c.settings.Fault == "cut" {
		_, _ = io.WriteString(c.w, body[:len(body)/2])
		c.w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(c.w, body)
}

// chatStream writes the stream of chat and legacy completions.
func (c *call) chatStream(m *made) {
	asks := strings.Contains(string(c.in.StreamOptions), `"include_usage":true`) || strings.Contains(string(c.in.StreamOptions), `"include_usage": true`)
	object := "chat.completion.chunk"
	if c.operation == "completions" {
		object = "text_completion"
	}
	tail := fmt.Sprintf(`],"created":%d,"id":%q,"model":%q,"object":%q`, c.created, c.responseID(), c.model, object)
	if c.operation == "chat" {
		tail += `,"obfuscation":"a1B2c3D4","service_tier":"` + c.tier() + `","system_fingerprint":null`
	}
	end := "}\n\n"
	if asks {
		end = `,"usage":null}` + "\n\n"
	}
	s := c.stream()
	sent := c.chatEvents(s, m, tail+end)
	if s.gone {
		outcome, tokens := "gone", sent
		if c.settings.Fault == "cut" {
			outcome = "cut"
		}
		c.charge(outcome, tokens)
		s.end()
		return
	}
	switch {
	case c.settings.Fault == "blocked":
		c.charge("blocked", m.tokens)
	default:
		c.charge("completed", m.tokens)
		if asks && c.settings.Fault != "no_usage" {
			s.send([]byte(`data: {"choices":[` + tail + `,"usage":` + c.usage(m) + "}\n\n"))
		}
	}
	s.send([]byte("data: [DONE]\n\n"))
	s.end()
}

// chatEvents writes what comes before usage, and tells how many tokens went out.
func (c *call) chatEvents(s *stream, m *made, tail string) (sent int64) {
	s.send([]byte(`data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":` + promptFilter + "}\n\n"))
	buffer := make([]byte, 0, 1024)
	for i, pieces := range m.choices {
		index := `,"finish_reason":null,"index":` + strconv.Itoa(i) + `,"logprobs":null}`
		event := func(delta string) []byte {
			buffer = append(buffer[:0], `data: {"choices":[{"content_filter_results":{},`...)
			return append(append(append(buffer, delta...), index...), tail...)
		}
		if c.operation == "chat" {
			s.send(event(`"delta":{"content":"","refusal":null,"role":"assistant"}`))
		}
		for k := range m.calls {
			s.delta(event(fmt.Sprintf(`"delta":{"tool_calls":[{"function":{"arguments":"","name":%s},"id":"call_%s%d","index":%d,"type":"function"}]}`, quote(m.tool), c.id[:20], k, k)))
			for rest := toolArguments; rest != ""; {
				n := min(7, len(rest))
				if !s.delta(event(fmt.Sprintf(`"delta":{"tool_calls":[{"function":{"arguments":%s},"index":%d}]}`, quote(rest[:n]), k))) {
					return sent
				}
				rest = rest[n:]
			}
		}
		for k, piece := range pieces {
			delta := `"delta":{"content":` + quote(piece) + `}`
			if c.operation == "completions" {
				delta = `"text":` + quote(piece)
			}
			if !s.delta(event(delta)) {
				return sent
			}
			sent++
			if c.settings.Fault == "blocked" && k >= len(pieces)/2 {
				m.tokens = sent
				s.send([]byte(`data: {"choices":[{"content_filter_offsets":{"check_offset":0,"start_offset":0,"end_offset":9},"content_filter_results":{"protected_material_text":{"detected":true,"filtered":true}},"finish_reason":"content_filter","index":0}],"created":0,"id":"","model":"","object":""}` + "\n\n"))
				return sent
			}
		}
		if c.operation == "chat" && c.searches() {
			s.send(event(`"delta":{"annotations":` + citations + `}`))
		}
		finish := `"delta":{}`
		if c.operation == "completions" {
			finish = `"text":""`
		}
		buffer = append(buffer[:0], `data: {"choices":[{"content_filter_results":{},`...)
		s.send(append(append(append(buffer, finish...), `,"finish_reason":"`+m.finish+`","index":`+strconv.Itoa(i)+`,"logprobs":null}`...), tail...))
	}
	return sent
}
