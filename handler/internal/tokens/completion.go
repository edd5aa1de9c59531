package tokens

const (
	perCall    = 7
	perSeveral = 10 // of an answer with several calls, and for each of them instead of perCall
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
	}
	if n := int64(len(parts.Calls)); n > 1 {
		c.tokens += perSeveral * (n + 1)
	} else {
		c.tokens += perCall * n
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
