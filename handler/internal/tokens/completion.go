package tokens

const (
	perCall         = 7
	perParallelCall = 10 // more for each call of an answer with several
)

// ToolCall is a call that a model made, as its answer or stream spelled it.
type ToolCall struct{ Name, Arguments string }

// Output is what was seen of one choice of an answer.
type Output struct {
	Op    Op     // OpChat if empty
	Text  string // content and refusal
	Calls []ToolCall
}

// Completion estimates the completion tokens of one choice that came without
// usage: its text and its tool calls, and the hidden tokens of its family.
// Reasoning and other hidden items are invisible and not part of it, so for a
// reasoning model it is no upper bound. More than two parallel calls are extrapolated.
// Nothing received is 0.
func Completion(model string, parts Output) int64 {
	if parts.Text == "" && len(parts.Calls) == 0 {
		return 0
	}
	c := counter{family: familyOf(model)}
	c.add(parts.Text)
	for _, call := range parts.Calls {
		c.add(call.Name)
		c.add(call.Arguments)
		c.tokens += perCall
		if len(parts.Calls) > 1 {
			c.tokens += perParallelCall
		}
	}
	switch parts.Op {
	case OpResponses:
		c.tokens += c.reply
	case OpCompletions, OpEmbeddings:
	default:
		c.tokens += c.answer
	}
	return c.total()
}
