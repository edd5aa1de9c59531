package usage

import (
	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// ToolCall is a call of a tool or function in an answer, as far as it was kept.
type ToolCall struct {
	Name      string
	Arguments string // as the model wrote them: JSON, or free text
}

// Answer is what was learnt from an answer of chat, completions, embeddings or
// responses. What it does not say is empty.
type Answer struct {
	Usage    Usage // the last one reported
	HasUsage bool  // Usage says something that can be billed; one of zeros does not

	Model       string
	ResponseID  string
	ServiceTier string // the tier that was used
	Status      string // of a response: completed, incomplete, failed, queued...
	Filtered    bool   // the content filter stopped the prompt or the answer
	ErrorCode   string // of an error in place of the answer, or in it
	// Finished: the end was seen, and nothing that counts can follow. That is
	// [DONE], a terminal event, or a whole body; not a finish_reason, which
	// comes before the usage.
	Finished bool
	// What is sold by other units than tokens, as far as the answer tells: calls
	// of tools that the service runs, milliseconds of audio.
	Items []Item
	// Extra are the members of the usage that no field of Usage takes, as JSON;
	// nil if there are none.
	Extra []byte
	// Images is how many images the answer has. Quality and Size are as it says.
	Images        int64
	Quality, Size string

	Stops    int // finish reasons seen
	Choices  int // choices seen
	Deltas   int // events with a piece of output that were looked into

	// Output, only if it was asked for, up to TextBytesMax together.
	Text          []byte     // of all choices, one choice after the other
	ToolCalls     []ToolCall // in the order of their beginning
	TextBytes     int64      // of the text, kept or not
	ToolCallBytes int64      // of names and arguments, kept or not
}

// FromBody reads a JSON answer: of any of the operations, or an error. A body
// that is cut off or not quite JSON says what can be made out; it is not
// Finished then, unless its object ends.
func FromBody(body []byte, gatherText bool) Answer {
	r := reading{gather: gatherText}
	if err := r.document(body); err != nil {
		w := NewBodyReader()
		_, _ = w.Write(body)
		outline := w.Answer()
		r.Answer.adopt(outline)
		r.Finished = outline.Finished
		return r.answer()
	}
	r.Finished = r.Status != "queued" && r.Status != "in_progress"
	return r.answer()
}

// adopt takes over what another reader made out.
func (a *Answer) adopt(b Answer) {
	if b.HasUsage {
		a.Usage, a.HasUsage = b.Usage, true
	}
	for _, pair := range [][2]*string{
		{&a.Model, &b.Model}, {&a.ResponseID, &b.ResponseID}, {&a.ServiceTier, &b.ServiceTier},
		{&a.Status, &b.Status}, {&a.ErrorCode, &b.ErrorCode},
	} {
		if *pair[1] != "" {
			*pair[0] = *pair[1]
		}
	}
	a.Filtered = a.Filtered || b.Filtered
}

// reading is an answer that is being read.
type reading struct {
	Answer
	gather bool
	output output
	chunk  chunk // of the document at hand
}

// chunk is what the document at hand has, beyond what goes into the answer.
type chunk struct {
	usage     bool // an object, be it of zeros
	noChoices bool // an empty array of choices
	other     bool // something that a usage chunk does not have
	within    bool // the member at hand is one of its response member

	kind  string // its type
	code  string // of an error event
	delta jsonscan.Value
	item  jsonscan.Value
	index int // output_index
}

func (r *reading) answer() Answer {
	a := r.Answer
	a.Choices = max(a.Choices, r.output.choices())
	a.Text, a.ToolCalls = r.output.text(), r.output.toolCalls()
	a.TextBytes, a.ToolCallBytes = r.output.textBytes, r.output.callBytes
	return a
}

// document reads a whole answer, a chunk of chat or completions, or an event of
// responses.
func (r *reading) document(data []byte) error {
	r.chunk = chunk{}
	return jsonscan.Object(data, func(key []byte, v jsonscan.Value) error {
		r.member(key, v)
		return nil
	})
}

// member reads one member of an answer.
func (r *reading) member(key []byte, v jsonscan.Value) {
	switch string(key) {
	case "usage":
		r.usage(v)
	case "model":
		name(v, &r.Model)
	case "id": // a filter's annotation may have another one
		if r.ResponseID == "" {
			name(v, &r.ResponseID)
		}
	case "service_tier":
		name(v, &r.ServiceTier)
	case "status":
		name(v, &r.Status)
	case "error":
		r.chunk.other = true
		r.fault(v)
	case "prompt_filter_results", "prompt_annotations":
		r.chunk.other = true
	case "choices":
		r.chunk.noChoices = v.Kind == jsonscan.KindArray
		elements(v, func(index int, v jsonscan.Value) {
			r.chunk.noChoices = false
			r.choice(index, v)
		})
	case "response": // in an event of responses
		if !r.chunk.within {
			r.chunk.within = true
			members(v, r.member)
			r.chunk.within = false
		}
	case "incomplete_details":
		members(v, func(key []byte, v jsonscan.Value) {
			if string(key) == "reason" && is(v, "content_filter") {
				r.Filtered = true
			}
		})
	case "content_filters":
		elements(v, func(_ int, v jsonscan.Value) {
			members(v, func(key []byte, v jsonscan.Value) {
				if string(key) == "blocked" && isTrue(v) {
					r.Filtered = true
				}
			})
		})
	case "output":
		if r.gather && !r.chunk.within { // an event repeats there what the deltas brought
			elements(v, func(_ int, v jsonscan.Value) { r.item(v) })
		}
	default:
		if !r.chunk.within {
			r.eventMember(key, v)
		}
	}
}

// eventMember reads one member of an event of responses.
func (r *reading) eventMember(key []byte, v jsonscan.Value) {
	switch string(key) {
	case "type":
		name(v, &r.chunk.kind)
	case "code":
		name(v, &r.chunk.code)
	case "delta":
		r.chunk.delta = v
	case "item":
		r.chunk.item = v
	case "output_index":
		if n, ok := jsonscan.Int(v.Raw); ok && n >= 0 && n < ToolCallsMax {
			r.chunk.index = int(n)
		}
	}
}

func (r *reading) usage(v jsonscan.Value) {
	if v.Kind != jsonscan.KindObject {
		return
	}
	r.chunk.usage = true
	if u, ok := FromJSON(v.Raw); ok && u.Reported() {
		r.Usage, r.HasUsage = u, true
	}
}

// fault reads an error: an object with a code, or whatever stands in its place.
func (r *reading) fault(v jsonscan.Value) {
	if v.Kind == jsonscan.KindNull {
		return
	}
	code, kind := "", ""
	members(v, func(key []byte, v jsonscan.Value) {
		switch string(key) {
		case "code":
			if name(v, &code); v.Kind == jsonscan.KindNumber && len(v.Raw) <= NameBytesMax {
				code = string(v.Raw)
			}
		case "type":
			name(v, &kind)
		case "innererror", "inner_error":
			members(v, func(key []byte, v jsonscan.Value) {
				if string(key) == "code" && is(v, "ResponsibleAIPolicyViolation") {
					r.Filtered = true
				}
			})
		}
	})
	if code == "" {
		code = kind
	}
	if code == "" {
		code = "error"
	}
	r.ErrorCode = code
	r.Filtered = r.Filtered || code == "content_filter"
}

// choice reads one choice of chat or completions, whole or a piece of it.
func (r *reading) choice(index int, v jsonscan.Value) {
	said := false
	members(v, func(key []byte, v jsonscan.Value) {
		switch string(key) {
		case "index":
			if n, ok := jsonscan.Int(v.Raw); ok && n >= 0 && n < ChoicesMax {
				index = int(n)
			}
		case "finish_reason":
			reason := ""
			if name(v, &reason); reason != "" {
				r.Stops++
				r.Filtered = r.Filtered || reason == "content_filter"
			}
		case "delta", "message", "text":
			said = true
		}
	})
	index = min(index, ChoicesMax-1)
	r.Choices = max(r.Choices, index+1)
	if !said {
		return
	}
	r.Deltas++
	if !r.gather {
		return
	}
	members(v, func(key []byte, v jsonscan.Value) {
		switch string(key) {
		case "text":
			r.output.say(index, v)
		case "delta", "message":
			members(v, func(key []byte, v jsonscan.Value) { r.message(index, key, v) })
		}
	})
}

// message reads one member of a message or of a piece of it.
func (r *reading) message(index int, key []byte, v jsonscan.Value) {
	switch string(key) {
	case "content", "refusal", "reasoning_content":
		r.output.say(index, v)
		r.parts(index, v)
	case "function_call":
		r.output.function(callKey{choice: index, index: -1}, v)
	case "audio":
		members(v, func(key []byte, v jsonscan.Value) {
			if string(key) == "transcript" {
				r.output.say(index, v)
			}
		})
	case "tool_calls":
		elements(v, func(n int, v jsonscan.Value) {
			members(v, func(key []byte, v jsonscan.Value) {
				if string(key) == "index" {
					if i, ok := jsonscan.Int(v.Raw); ok && i >= 0 && i < ToolCallsMax {
						n = int(i)
					}
				}
			})
			members(v, func(key []byte, v jsonscan.Value) {
				if k := string(key); k == "function" || k == "custom" {
					r.output.function(callKey{choice: index, index: n}, v)
				}
			})
		})
	}
}

// item reads one item of a response's output.
func (r *reading) item(v jsonscan.Value) {
	key := callKey{choice: responsesChoice, index: len(r.output.calls)}
	kind := itemKind(v)
	members(v, func(field []byte, v jsonscan.Value) {
		switch string(field) {
		case "content", "summary":
			r.parts(0, v)
		case "code": // of a code interpreter call
			r.output.say(0, v)
		}
	})
	if isCall(kind) {
		r.output.function(key, v)
	}
}

// parts reads the texts of an array of content parts.
func (r *reading) parts(choice int, v jsonscan.Value) {
	elements(v, func(_ int, v jsonscan.Value) {
		members(v, func(field []byte, v jsonscan.Value) {
			if f := string(field); f == "text" || f == "refusal" {
				r.output.say(choice, v)
			}
		})
	})
}

func itemKind(item jsonscan.Value) (kind string) {
	members(item, func(key []byte, v jsonscan.Value) {
		if string(key) == "type" {
			name(v, &kind)
		}
	})
	return kind
}

// isCall tells whether an item of a response has a name and arguments that the
// model wrote.
func isCall(kind string) bool {
	return kind == "function_call" || kind == "custom_tool_call" || kind == "mcp_call"
}
