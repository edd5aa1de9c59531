package usage

import (
	"github.com/costgate/costgate/handler/internal/jsonscan"
)

const (
	// CountMax is the largest count of tokens that is believed.
	CountMax = 1_000_000_000_000
	// TextBytesMax bounds the output that is gathered of one answer: its text,
	// and the names and arguments of its tool calls. Beyond, bytes are counted.
	TextBytesMax = 4 << 20
	// ToolCallsMax bounds how many tool calls are told apart in one answer.
	ToolCallsMax = 1024
	// ChoicesMax bounds how many choices are told apart in one answer.
	ChoicesMax = 128
	// NameBytesMax bounds a model, an id, a tier, a status or an error code. A
	// longer one is taken for absent.
	NameBytesMax = 512
)

// FromJSON reads a usage object, in the form of chat, completions and
// embeddings (prompt_tokens, completion_tokens) or of responses, images, audio
// and realtime (input_tokens, output_tokens). A count that is null, of another
// type, negative, fractional or above CountMax is taken for absent. ok is false
// if raw is no object.
func FromJSON(raw []byte) (u Usage, ok bool) {
	var r report
	if !r.read(raw) {
		return Usage{}, false
	}
	return r.Usage, true
}

// report is all that a usage object says.
type report struct {
	Usage
	millis int64 // of audio, where that is sold and not tokens
	extra  extra
}

// billable tells whether there is anything to bill.
func (r *report) billable() bool { return r.Reported() || r.millis > 0 }

// read reads a usage object. It is false if raw is none.
func (r *report) read(raw []byte) bool {
	err := jsonscan.Object(raw, func(key []byte, v jsonscan.Value) error {
		switch string(key) {
		case "prompt_tokens":
			readCount(v, &r.Prompt)
		case "completion_tokens":
			readCount(v, &r.Completion)
		case "input_tokens":
			if !r.Prompt.Known {
				readCount(v, &r.Prompt)
			}
		case "output_tokens":
			if !r.Completion.Known {
				readCount(v, &r.Completion)
			}
		case "prompt_tokens_details", "input_tokens_details", "input_token_details":
			r.promptDetails(key, v)
		case "completion_tokens_details", "output_tokens_details", "output_token_details":
			r.completionDetails(key, v)
		case "seconds": // beside "type":"duration"
			r.millis, _ = millis(v)
		case "total_tokens", "type": // the others say it too
		default:
			r.extra.add(v, key)
		}
		return nil
	})
	if r.Reported() { // tokens and seconds are two ways to sell the same
		r.millis = 0
	}
	return err == nil
}

func (r *report) promptDetails(within []byte, details jsonscan.Value) {
	members(details, func(key []byte, v jsonscan.Value) {
		switch string(key) {
		case "cached_tokens":
			readCount(v, &r.Cached)
		case "cache_write_tokens":
			readCount(v, &r.CacheWrite)
		case "audio_tokens":
			readCount(v, &r.AudioIn)
		case "image_tokens":
			readCount(v, &r.ImageIn)
		case "text_tokens": // the rest
		case "cached_tokens_details":
			members(v, func(detail []byte, v jsonscan.Value) {
				switch string(detail) {
				case "audio_tokens":
					readCount(v, &r.AudioInCached)
				case "text_tokens", "image_tokens": // cached like text
				default:
					r.extra.add(v, within, key, detail)
				}
			})
		default:
			r.extra.add(v, within, key)
		}
	})
}

func (r *report) completionDetails(within []byte, details jsonscan.Value) {
	members(details, func(key []byte, v jsonscan.Value) {
		switch string(key) {
		case "reasoning_tokens":
			readCount(v, &r.Reasoning)
		case "audio_tokens":
			readCount(v, &r.AudioOut)
		case "image_tokens":
			readCount(v, &r.ImageOut)
		case "text_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens": // inside the completion, at its price
		default:
			r.extra.add(v, within, key)
		}
	})
}

func readCount(v jsonscan.Value, into *Count) {
	if v.Kind != jsonscan.KindNumber {
		return
	}
	if n, ok := jsonscan.Int(v.Raw); ok && n >= 0 && n <= CountMax {
		*into = Of(n)
	}
}

// members calls each for every member of an object that was checked before.
// What is no object has none.
func members(v jsonscan.Value, each func(key []byte, v jsonscan.Value)) {
	if v.Kind != jsonscan.KindObject {
		return
	}
	_ = jsonscan.Object(v.Raw, func(key []byte, v jsonscan.Value) error { // it was checked before
		each(key, v)
		return nil
	})
}

// elements calls each for every element of an array that was checked before.
// What is no array has none.
func elements(v jsonscan.Value, each func(index int, v jsonscan.Value)) {
	index := 0
	_ = jsonscan.Array(v.Raw, func(v jsonscan.Value) error { // it was checked before
		each(index, v)
		index++
		return nil
	})
}

// name reads a short text. Null, "" and what is too long leave into as it is.
func name(v jsonscan.Value, into *string) {
	if v.Kind != jsonscan.KindString || len(v.Raw) > NameBytesMax+2 {
		return
	}
	if s, ok := jsonscan.String(v.Raw); ok && s != "" {
		*into = s
	}
}

// is tells whether a value is the given text.
func is(v jsonscan.Value, text string) bool {
	s := ""
	name(v, &s)
	return s == text
}

// isTrue tells whether a value is true.
func isTrue(v jsonscan.Value) bool {
	b, _ := jsonscan.Bool(v.Raw)
	return b
}
