package usage

import (
	"bytes"
	"encoding/json"
)

// Stream reads the events of a streamed answer. Of ordinary events it looks
// only at a few bytes, unless it gathers the text.
type Stream struct {
	GatherText bool

	answer Answer
	events int
	calls  map[[2]int]int
}

const eventsRead = 3 // events from the beginning that are always read: they name the model

var (
	markUsage     = []byte(`"usage"`)
	markNullUsage = []byte(`"usage":null`)
	markFinish    = []byte(`"finish_reason":"`)
	markFilter    = []byte(`content_filter`)
	markError     = []byte(`"error"`)
	markTerminal  = []byte(`"type":"response.`)
	done          = []byte("[DONE]")
)

// Event reads one event. It tells whether the event is a chunk that has nothing
// but usage: such a chunk was asked for by stream_options.include_usage.
func (s *Stream) Event(name, data []byte) (usageOnly bool) {
	if data == nil {
		return false
	}
	s.events++
	if bytes.Equal(data, done) {
		s.answer.Finished = true
		return false
	}
	if kind, ok := responsesEvent(name, data); ok {
		s.response(kind, data)
		return false
	}
	reads := s.GatherText || s.events <= eventsRead || bytes.Contains(data, markFinish) || bytes.Contains(data, markError) ||
		bytes.Contains(data, markUsage) && !bytes.Contains(data, markNullUsage)
	if !reads {
		return false
	}
	var w wire
	if err := json.Unmarshal(data, &w); err != nil && w.Usage == nil {
		return false
	}
	s.answer.take(&w)
	if s.GatherText {
		s.gather(&w)
	}
	return w.Choices != nil && len(w.Choices) == 0 && len(w.Usage) > 0 && w.Usage[0] == '{'
}

func (s *Stream) gather(w *wire) {
	if s.calls == nil {
		s.calls = map[[2]int]int{}
	}
	for _, c := range w.Choices {
		s.answer.gatherText(c.Text)
		s.answer.gatherMessage(c.Delta, s.calls, c.Index)
	}
}

// responsesEvent tells whether an event is one of the Responses API, and which.
func responsesEvent(name, data []byte) (kind []byte, ok bool) {
	if bytes.HasPrefix(name, []byte("response.")) {
		return name[len("response."):], true
	}
	if at := bytes.Index(data, markTerminal); at >= 0 && at < 64 { // the type stands first
		kind = data[at+len(markTerminal):]
		if end := bytes.IndexByte(kind, '"'); end >= 0 {
			return kind[:end], true
		}
	}
	return nil, false
}

// response reads an event of the Responses API. Only the first and the last
// ones have the response object.
func (s *Stream) response(kind, data []byte) {
	switch string(kind) {
	case "created", "in_progress", "queued", "completed", "incomplete", "failed":
		var w struct {
			Response wire `json:"response"`
		}
		if err := json.Unmarshal(data, &w); err != nil && w.Response.Usage == nil {
			return
		}
		s.answer.take(&w.Response)
		switch string(kind) {
		case "completed", "incomplete", "failed":
			s.answer.Finished = true
		}
	case "output_text.delta", "refusal.delta", "reasoning_summary_text.delta", "function_call_arguments.delta", "custom_tool_call_input.delta":
		if s.GatherText {
			var w struct {
				Delta string `json:"delta"`
			}
			_ = json.Unmarshal(data, &w) // what cannot be read is left out
			s.answer.gatherText(w.Delta)
		}
	case "output_item.added":
		if s.GatherText {
			var w struct {
				Item wireItem `json:"item"`
			}
			_ = json.Unmarshal(data, &w) // what cannot be read is left out
			if w.Item.Name != "" {
				s.answer.gatherCall(wireFunction{Name: w.Item.Name}, nil, [2]int{})
			}
		}
	}
}

// Finished tells whether the end of the stream was seen.
func (s *Stream) Finished() bool { return s.answer.Finished }

// Answer is what was learnt so far.
func (s *Stream) Answer() Answer { return s.answer }
