package usage

import (
	"bytes"
	"strings"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// earlyEvents is how many events at the beginning of a stream are looked into:
// they bring the model and the id. The first of Azure's has neither.
const earlyEvents = 3

// Stream learns from the events of a streamed answer. It looks only into those
// that can matter, unless text is to be gathered. The zero value is ready; set
// GatherText before the first event.
type Stream struct {
	// GatherText makes it look into every event and gather the output.
	GatherText bool

	reading reading
	events  int
	large   *jsonscan.Walker // in an event of which only pieces come
}

// Event takes one event: its name, which may be empty, and its data. usageOnly
// tells that it is the chunk of chat or completions that comes because
// stream_options asked for usage, and has nothing else: choices is an empty
// array and usage is an object. The opening chunk with the prompt's filter
// results is none. The slices are not kept.
func (s *Stream) Event(name, data []byte) (usageOnly bool) {
	s.large = nil
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return false
	}
	if string(data) == "[DONE]" {
		s.reading.Finished = true
		return false
	}
	if len(name) == 0 {
		name = typeOf(data)
	}
	s.events++
	if !s.matters(name, data) {
		if !isResponses(name) || bytes.HasSuffix(name, deltaSuffix) {
			s.reading.Deltas++
		}
		return false
	}
	r := &s.reading
	r.gather = s.GatherText
	if err := r.document(data); err != nil {
		w := newEventWalker()
		_, _ = w.Write(data)
		s.outline(w)
		r.Finished = r.Finished || isTerminal(name)
		return false
	}
	r.event()
	r.Finished = r.Finished || isTerminal(name)
	return r.chunk.usage && r.chunk.noChoices && !r.chunk.other && r.chunk.kind == ""
}

// Oversized takes a piece of an event that is too large to be held: the last
// event of a response repeats the whole output. Consecutive pieces belong
// together; their output is not gathered.
func (s *Stream) Oversized(piece []byte) {
	for len(piece) > 0 {
		if s.large == nil {
			at := bytes.IndexByte(piece, '{') // neither the names nor the line ends before it have one
			if at < 0 {
				return
			}
			piece = piece[at:]
			s.large = newEventWalker()
			s.events++
		}
		piece = piece[s.large.Take(piece):]
		switch {
		case s.large.Done():
			s.outline(s.large)
			s.large = nil
		case s.large.Broken(): // what follows cannot be told from strings in it
			return
		}
	}
}

// Finished tells that nothing that counts can follow: [DONE] or the terminal
// event of a response was seen.
func (s *Stream) Finished() bool { return s.reading.Finished }

// Answer is what was learnt up to now.
func (s *Stream) Answer() Answer { return s.reading.answer() }

func newEventWalker() *jsonscan.Walker {
	keys := append([]string{"type"}, outline...)
	for _, key := range outline {
		keys = append(keys, "response."+key)
	}
	return jsonscan.NewWalker(memberBytesMax, keys...)
}

// outline reads what a walker kept of an event.
func (s *Stream) outline(w *jsonscan.Walker) {
	r := &s.reading
	r.chunk = chunk{}
	r.outline(w, "")
	r.outline(w, "response.")
	if raw, ok := w.Value("type"); ok {
		name(jsonscan.Value{Kind: jsonscan.KindOf(raw), Raw: raw}, &r.chunk.kind)
	}
	r.event()
}

var (
	usageKey        = []byte(`usage"`) // keys without their first quote: searching for what every key begins with is slow
	finishKey       = []byte(`finish_reason"`)
	errorKey        = []byte(`error"`)
	typeHead        = []byte(`{"type":"`)
	deltaSuffix     = []byte(".delta")
	responsesPrefix = []byte("response.")
)

// matters tells whether an event is to be looked into. It may say yes without
// need, for what it looks at may be anywhere in the event. A key in a text is
// none: there its quotes are escaped.
func (s *Stream) matters(name, data []byte) bool {
	if s.GatherText || s.events <= earlyEvents {
		return true
	}
	if isResponses(name) {
		return isTerminal(name) || string(name) == "response.created"
	}
	return string(name) == "error" || has(data, usageKey, "{") || has(data, finishKey, `"`) || has(data, errorKey, `{"`)
}

// has tells whether a key stands in data with a value that begins with one of
// the characters of first.
func has(data, key []byte, first string) bool {
	for from := 0; ; {
		at := bytes.Index(data[from:], key)
		if at < 0 {
			return false
		}
		at += from
		from = at + len(key)
		if at == 0 || data[at-1] != '"' {
			continue
		}
		rest := bytes.TrimLeft(data[from:], " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			continue
		}
		if rest = bytes.TrimLeft(rest[1:], " \t\r\n"); len(rest) > 0 && strings.IndexByte(first, rest[0]) >= 0 {
			return true
		}
	}
}

// typeOf is the type that an event says it has, if it says so first.
func typeOf(data []byte) []byte {
	rest, ok := bytes.CutPrefix(data, typeHead)
	if !ok {
		return nil
	}
	kind, _, _ := bytes.Cut(rest[:min(len(rest), NameBytesMax)], []byte{'"'})
	return kind
}

func isResponses(name []byte) bool { return bytes.HasPrefix(name, responsesPrefix) }

func isTerminal(name []byte) bool {
	switch string(name) {
	case "response.completed", "response.incomplete", "response.failed":
		return true
	}
	return false
}

// event closes the reading of an event of responses; of chat and completions
// there is nothing left to do.
func (r *reading) event() {
	kind := r.chunk.kind
	switch {
	case kind == "":
	case isTerminal([]byte(kind)):
		r.Finished = true
	case kind == "error":
		if r.ErrorCode == "" {
			r.ErrorCode = kind
			if r.chunk.code != "" {
				r.ErrorCode = r.chunk.code
			}
			r.Filtered = r.Filtered || r.ErrorCode == "content_filter"
		}
	case kind == "response.output_item.added":
		if r.gather && isCall(itemKind(r.chunk.item)) {
			r.output.function(callKey{responsesChoice, r.chunk.index}, r.chunk.item)
		}
	case strings.HasSuffix(kind, ".delta"):
		r.Deltas++
		if r.gather {
			r.delta(kind)
		}
	}
}

// delta gathers a piece of a response's output. What it does not know is taken
// for text: too much is the safe side.
func (r *reading) delta(kind string) {
	switch kind {
	case "response.function_call_arguments.delta", "response.custom_tool_call_input.delta", "response.mcp_call_arguments.delta":
		r.output.argue(callKey{responsesChoice, r.chunk.index}, r.chunk.delta)
	case "response.audio.delta": // sound, in base64
	default:
		r.output.say(0, r.chunk.delta)
	}
}
