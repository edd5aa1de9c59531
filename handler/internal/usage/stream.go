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
// its fields before the first event.
type Stream struct {
	// GatherText makes it look into every event and gather the output.
	GatherText bool
	// Images is how many images were asked for: each comes with an event of its
	// own, and the stream is Finished with the last. 0 is 1.
	Images int64

	reading reading
	events  int
	large   *walk // in an event of which only pieces come
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
	typed := isTyped(name)
	delta := typed && bytes.HasSuffix(name, deltaSuffix)
	if !s.GatherText && s.events > earlyEvents && (delta || !matters(typed, name, data)) {
		if delta || !typed {
			s.reading.Deltas++
		}
		return false
	}
	r := &s.reading
	r.gather = s.GatherText
	if err := r.document(data); err != nil {
		w := newEventWalk()
		w.Take(data)
		s.outline(w)
		r.Finished = r.Finished || isTerminal(name)
		return false
	}
	if r.chunk.kind == "" && typed {
		r.chunk.kind = string(name)
	}
	s.end()
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
			s.large = newEventWalk()
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

func newEventWalk() *walk {
	keys := append([]string{"type", "item.type", "item.action", "item.container_id"}, outline...)
	for _, key := range outline {
		keys = append(keys, "response."+key)
	}
	return newWalk(keys...)
}

// outline reads what a walk kept of an event.
func (s *Stream) outline(w *walk) {
	r := &s.reading
	r.outline(w)
	r.outlineMembers(w, "response.")
	r.chunk.kind = kept(w.walker, "type")
	if r.chunk.kind == itemDone {
		action, _ := w.Value("item.action")
		r.done.add(kept(w.walker, "item.type"), typeIn(valueOf(action)), kept(w.walker, "item.container_id"))
	}
	s.end()
}

// end closes the reading of an event.
func (s *Stream) end() {
	r := &s.reading
	r.report()
	r.event()
	if isImage([]byte(r.chunk.kind)) {
		r.Images++
		r.Finished = r.Finished || r.Images >= s.Images
	}
}

var (
	usageKey    = []byte(`usage"`) // keys without their first quote: searching for what every key begins with is slow
	finishKey   = []byte(`finish_reason"`)
	errorKey    = []byte(`error"`)
	typeHead    = []byte(`{"type":"`)
	callMark    = []byte(`_call"`)
	deltaSuffix = []byte(".delta")

	responsesPrefix  = []byte("response.")
	transcriptPrefix = []byte("transcript.")
	speechPrefix     = []byte("speech.")
	generatePrefix   = []byte("image_generation.")
	editPrefix       = []byte("image_edit.")
)

const itemDone = "response.output_item.done"

// matters tells whether an event is to be looked into. It may say yes without
// need, for what it looks at may be anywhere in the event. A key in a text is
// none: there its quotes are escaped.
func matters(typed bool, name, data []byte) bool {
	if typed {
		return isTerminal(name) || isImage(name) || string(name) == "response.created" ||
			string(name) == itemDone && bytes.Contains(data, callMark)
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
		rest := pastSpace(data[from:])
		if len(rest) == 0 || rest[0] != ':' {
			continue
		}
		if rest = pastSpace(rest[1:]); len(rest) > 0 && strings.IndexByte(first, rest[0]) >= 0 {
			return true
		}
	}
}

func pastSpace(data []byte) []byte {
	for len(data) > 0 && (data[0] == ' ' || data[0] == '\t' || data[0] == '\r' || data[0] == '\n') {
		data = data[1:]
	}
	return data
}

// typeOf is the type that an event says it has, if it says so first.
func typeOf(data []byte) []byte {
	rest, ok := bytes.CutPrefix(data, typeHead)
	if !ok { // not as Azure writes it
		rest = data
		for _, token := range [...]string{"{", `"type"`, ":", `"`} {
			if rest, ok = bytes.CutPrefix(pastSpace(rest), []byte(token)); !ok {
				return nil
			}
		}
	}
	kind, _, _ := bytes.Cut(rest[:min(len(rest), NameBytesMax)], []byte{'"'})
	return kind
}

// isTyped tells whether an event is one of those that say all in their type:
// of responses, audio and images. Those of chat and completions have none.
func isTyped(name []byte) bool {
	if len(name) == 0 {
		return false
	}
	switch name[0] {
	case 'r':
		return bytes.HasPrefix(name, responsesPrefix)
	case 't':
		return bytes.HasPrefix(name, transcriptPrefix)
	case 's':
		return bytes.HasPrefix(name, speechPrefix)
	case 'i':
		return bytes.HasPrefix(name, generatePrefix) || bytes.HasPrefix(name, editPrefix)
	}
	return false
}

// isTerminal tells whether an event is the last of its stream. The last of
// realtime's responses is response.done, whatever became of it.
func isTerminal(name []byte) bool {
	switch string(name) {
	case "response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done",
		"transcript.text.done", "speech.audio.done":
		return true
	}
	return false
}

// isImage tells whether an event brings an image that is complete. It is the
// last of its stream if one image was asked for.
func isImage(name []byte) bool {
	return string(name) == "image_generation.completed" || string(name) == "image_edit.completed"
}

// event does what an event's type asks for; those of chat and completions have
// none.
func (r *reading) event() {
	kind := r.chunk.kind
	switch {
	case kind == "":
	case isTerminal([]byte(kind)):
		r.Finished, r.listed = true, r.chunk.listed
	case kind == "error":
		if r.ErrorCode == "" {
			r.ErrorCode = kind
			if r.chunk.code != "" {
				r.ErrorCode = r.chunk.code
			}
			r.Filtered = r.Filtered || r.ErrorCode == "content_filter"
		}
	case kind == itemDone:
		if r.chunk.item.Kind == jsonscan.KindObject {
			r.done.item(r.chunk.item)
		}
	case kind == "response.output_item.added":
		if r.gather && isCall(typeIn(r.chunk.item)) {
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
	case "response.audio.delta", "response.output_audio.delta": // sound, in base64
	default:
		r.output.say(0, r.chunk.delta)
	}
}
