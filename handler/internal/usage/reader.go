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
// embeddings (prompt_tokens, completion_tokens) or of responses and images
// (input_tokens, output_tokens). A count that is null, of another type,
// negative, fractional or above CountMax is taken for absent. ok is false if
// raw is no object.
func FromJSON(raw []byte) (u Usage, ok bool) {
	err := jsonscan.Object(raw, func(key []byte, v jsonscan.Value) error {
		switch string(key) {
		case "prompt_tokens":
			readCount(v, &u.Prompt)
		case "completion_tokens":
			readCount(v, &u.Completion)
		case "input_tokens":
			if !u.Prompt.Known {
				readCount(v, &u.Prompt)
			}
		case "output_tokens":
			if !u.Completion.Known {
				readCount(v, &u.Completion)
			}
		case "prompt_tokens_details", "input_tokens_details", "input_token_details":
			u.promptDetails(v)
		case "completion_tokens_details", "output_tokens_details", "output_token_details":
			u.completionDetails(v)
		}
		return nil
	})
	if err != nil {
		return Usage{}, false
	}
	return u, true
}

func (u *Usage) promptDetails(details jsonscan.Value) {
	members(details, func(key []byte, v jsonscan.Value) {
		switch string(key) {
		case "cached_tokens":
			readCount(v, &u.Cached)
		case "cache_write_tokens":
			readCount(v, &u.CacheWrite)
		case "audio_tokens":
			readCount(v, &u.AudioIn)
		case "image_tokens":
			readCount(v, &u.ImageIn)
		case "cached_tokens_details":
			members(v, func(key []byte, v jsonscan.Value) {
				if string(key) == "audio_tokens" {
					readCount(v, &u.AudioInCached)
				}
			})
		}
	})
}

func (u *Usage) completionDetails(details jsonscan.Value) {
	members(details, func(key []byte, v jsonscan.Value) {
		switch string(key) {
		case "reasoning_tokens":
			readCount(v, &u.Reasoning)
		case "audio_tokens":
			readCount(v, &u.AudioOut)
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
