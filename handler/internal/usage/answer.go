package usage

import (
	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// ToolCall is a call of a tool or function in an answer, as far as it was kept.
type ToolCall struct {
	Name      string
	Arguments string // as the model wrote them: JSON, or free text
}

// Answer is what was learnt from an answer of any operation. What it does not
// say is empty.
type Answer struct {
	Usage Usage // the last one reported; of a stream of images, the sum of theirs
	// HasUsage: Usage says something that can be billed, or Items has the length
	// of the audio that it was reported by. A usage of zeros does not.
	HasUsage bool

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
	// Extra are the members of the usage object that are not known here, as a
	// JSON object of the same shape; nil if there are none. It has at most
	// UsageExtraBytesMax bytes, and no text but single words.
	Extra []byte
	// Images is how many images an answer of the images operations has. Quality
	// and Size are as it says.
	Images        int64
	Quality, Size string

	Stops   int // finish reasons seen
	Choices int // choices seen
	Deltas  int // events with a piece of output that were looked into

	// Output, only if it was asked for, up to TextBytesMax together.
	Text          []byte     // of all choices, one choice after the other
	ToolCalls     []ToolCall // in the order of their beginning
	TextBytes     int64      // of the text, kept or not
	ToolCallBytes int64      // of names and arguments, kept or not
}

// FromBody reads a JSON answer: of any of the operations, or an error. A body
// that is cut off or not quite JSON says what can be made out; it is not
// Finished then, unless its object ends. Of what is not JSON nothing is made
// out.
func FromBody(body []byte, gatherText bool) Answer {
	r := reading{gather: gatherText, whole: true}
	ends := true
	if r.document(body) != nil {
		w := newWalk(outline...)
		w.Take(body)
		r.outline(w)
		ends = w.Done()
	}
	return r.body(ends)
}

// reading is an answer that is being read.
type reading struct {
	Answer
	gather bool
	whole  bool // it comes as one body, not as events
	output output
	chunk  chunk // of the document at hand

	millis   int64 // of audio, by the usage
	duration int64 // of audio in milliseconds, by the body
	object   bool  // it says what kind of object it is
	elements int64 // of its data
	done     calls // that events told of one by one
	listed   calls // in the output of the whole answer
}

// body is the answer that a body is.
func (r *reading) body(ends bool) Answer {
	r.report()
	r.listed = r.chunk.listed
	r.Finished = ends && r.Status != "queued" && r.Status != "in_progress"
	// A verbose transcription says how long its audio is, and has no name, id or
	// usage. A list of images says not what it is, as lists of others do.
	if !r.HasUsage && r.duration > 0 && r.Model == "" && r.ResponseID == "" && r.Status == "" && r.ErrorCode == "" {
		r.HasUsage, r.millis = true, r.duration
	}
	if !r.object {
		r.Images = r.elements
	}
	return r.answer()
}

// report takes over the usage of the document at hand.
func (r *reading) report() {
	if !r.chunk.reported {
		return
	}
	said := &r.chunk.report
	r.chunk.reported = false
	if extra := said.extra.object(); extra != nil || said.billable() {
		r.Extra = extra
	}
	if !said.billable() {
		return
	}
	if isImage([]byte(r.chunk.kind)) { // each tells of itself
		said.Usage = r.Usage.Add(said.Usage)
	}
	r.Usage, r.HasUsage, r.millis = said.Usage, true, said.millis
}

// chunk is what the document at hand has, beyond what goes into the answer.
type chunk struct {
	usage     bool // an object, be it of zeros
	report    report
	reported  bool // it was an object that could be read
	noChoices bool // an empty array of choices
	other     bool // something that a usage chunk does not have
	within    bool // the member at hand is one of its response member

	kind  string // its type
	code  string // of an error event
	delta jsonscan.Value
	item  jsonscan.Value
	index int // output_index

	listed calls // in its output
}

func (r *reading) answer() Answer {
	a := r.Answer
	a.Choices = max(a.Choices, r.output.choices())
	a.Text, a.ToolCalls = r.output.text(), r.output.toolCalls()
	a.TextBytes, a.ToolCallBytes = r.output.textBytes, r.output.callBytes
	sold := &r.listed
	if sold.items == 0 { // no list that repeats what was done
		sold = &r.done
	}
	a.Items = sold.sold(r.millis)
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
	case "quality":
		name(v, &r.Quality)
	case "size":
		name(v, &r.Size)
	case "object":
		r.object = r.object || v.Kind == jsonscan.KindString
	case "duration":
		r.duration, _ = millis(v)
	case "data":
		if !r.chunk.within {
			elements(v, func(index int, _ jsonscan.Value) { r.elements = int64(index) + 1 })
		}
	case "output":
		r.chunk.listed = calls{}
		elements(v, func(index int, v jsonscan.Value) {
			r.chunk.listed.item(v)
			r.chunk.listed.items = index + 1
		})
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
	case "text": // of a transcription; an event repeats there what the deltas brought
		if r.gather && r.whole {
			r.output.say(0, v)
		}
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
	r.chunk.report = report{}
	r.chunk.reported = r.chunk.report.read(v.Raw)
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
