package usage

import (
	"slices"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// callKey tells the tool calls of an answer apart.
type callKey struct {
	choice int // responsesChoice: the index is that of an item of a response
	index  int // -1: the one function_call of a message
}

const responsesChoice = -1

// output gathers the text and the tool calls of an answer, in pieces as they
// come. What it keeps is bounded by TextBytesMax, ToolCallsMax and ChoicesMax.
type output struct {
	texts     [][]byte // by choice
	calls     []call
	kept      int // bytes
	textBytes int64
	callBytes int64
}

type call struct {
	key             callKey
	name, arguments []byte
}

// say adds text to a choice. Null and other types add nothing.
func (o *output) say(choice int, v jsonscan.Value) {
	text, ok := jsonscan.String(v.Raw)
	if !ok || text == "" {
		return
	}
	for len(o.texts) <= choice {
		o.texts = append(o.texts, nil)
	}
	o.textBytes += int64(len(text))
	o.texts[choice] = o.keep(o.texts[choice], text)
}

// function adds the name and the arguments that an object has to a call.
func (o *output) function(key callKey, object jsonscan.Value) {
	if object.Kind != jsonscan.KindObject {
		return
	}
	c := o.call(key)
	members(object, func(field []byte, v jsonscan.Value) {
		text, ok := jsonscan.String(v.Raw)
		if !ok {
			return
		}
		switch string(field) {
		case "name":
			o.callBytes += int64(len(text))
			c.name = o.keep(c.name, text)
		case "arguments", "input":
			o.callBytes += int64(len(text))
			c.arguments = o.keep(c.arguments, text)
		}
	})
}

// argue adds a piece of arguments to a call.
func (o *output) argue(key callKey, v jsonscan.Value) {
	if text, ok := jsonscan.String(v.Raw); ok {
		c := o.call(key)
		o.callBytes += int64(len(text))
		c.arguments = o.keep(c.arguments, text)
	}
}

// call finds or begins a call. Past ToolCallsMax all go into the last one.
func (o *output) call(key callKey) *call {
	for i := len(o.calls) - 1; i >= 0; i-- { // pieces of the newest call are the rule
		if o.calls[i].key == key {
			return &o.calls[i]
		}
	}
	if len(o.calls) < ToolCallsMax {
		o.calls = append(o.calls, call{key: key})
	}
	return &o.calls[len(o.calls)-1]
}

// keep appends what still fits, cut between characters.
func (o *output) keep(to []byte, text string) []byte {
	if room := TextBytesMax - o.kept; len(text) > room {
		for room > 0 && text[room]&0xc0 == 0x80 {
			room--
		}
		text = text[:room]
	}
	o.kept += len(text)
	return append(to, text...)
}

func (o *output) choices() int { return len(o.texts) }

func (o *output) text() []byte {
	if len(o.texts) == 1 {
		return o.texts[0]
	}
	return slices.Concat(o.texts...)
}

func (o *output) toolCalls() []ToolCall {
	if len(o.calls) == 0 {
		return nil
	}
	calls := make([]ToolCall, len(o.calls))
	for i, c := range o.calls {
		calls[i] = ToolCall{Name: string(c.name), Arguments: string(c.arguments)}
	}
	return calls
}

// item reads one item of a response's output.
func (r *reading) item(v jsonscan.Value) {
	key := callKey{choice: responsesChoice, index: len(r.output.calls)}
	kind := typeIn(v)
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

// isCall tells whether an item of a response has a name and arguments that the
// model wrote.
func isCall(kind string) bool {
	return kind == "function_call" || kind == "custom_tool_call" || kind == "mcp_call"
}
