package simulator

import (
	"slices"
	"strconv"
	"strings"
)

// words are one token each in the usual vocabularies, with a blank before them.
var words = strings.Fields(`the of and to in is that for it was on are as with his they at be this from have or by one had not but what all were when
we there can an your which their said if do will each about how up out them then she many some so these would other into has more her two like him see
time could no make than first been its who now people my made over did down only way find use may water long little very after called just where most know`)

// answerText makes an answer of n tokens, in pieces of one token each.
func (c *call) answerText(n int64) []string {
	pieces := make([]string, n)
	for i := range pieces {
		word := words[c.random.IntN(len(words))]
		if i == 0 {
			pieces[i] = strings.ToUpper(word[:1]) + word[1:]
		} else {
			pieces[i] = " " + word
		}
	}
	if n == 0 {
		return pieces
	}
	// The vocabulary decides what a token is: leave out or add what is off.
	for range 8 {
		counted := c.server.options.Counter.Text(c.model, strings.Join(pieces, ""))
		switch {
		case counted == n || len(pieces) == 0:
			return pieces
		case counted > n:
			pieces = pieces[:max(1, int64(len(pieces))-(counted-n))]
		default:
			for range n - counted {
				pieces = append(pieces, " the")
			}
		}
	}
	return pieces
}

// length is how many tokens the answer has, and whether a limit cut it.
func (c *call) length() (n int64, cut bool) {
	n = c.settings.CompletionTokens
	if n == 0 {
		n = max(defaultCompletion/2+c.random.Int64N(defaultCompletion), c.settings.Chunks)
	}
	limit := int64(CompletionMax)
	for _, l := range []*int64{c.in.MaxTokens, c.in.MaxCompletionTokens, c.in.MaxOutputTokens} {
		if l != nil && *l > 0 {
			limit = min(limit, *l)
		}
	}
	if c.operation == "completions" && c.in.MaxTokens == nil {
		limit = 16
	}
	return min(n, limit), n > limit
}

// reasoning is how many hidden tokens a reasoning model spends on top, within
// the limit.
func (c *call) reasoning(visible int64) int64 {
	for _, family := range []string{"o1", "o3", "o4", "gpt-5"} {
		if strings.HasPrefix(c.model, family) {
			n := 64 * (1 + c.random.Int64N(3))
			for _, l := range []*int64{c.in.MaxCompletionTokens, c.in.MaxOutputTokens} {
				if l != nil {
					n = max(0, min(n, *l-visible))
				}
			}
			return n
		}
	}
	return 0
}

// grouped joins pieces into so many deltas (0: one each).
func grouped(pieces []string, chunks int64) []string {
	n := int64(len(pieces))
	if chunks <= 0 || chunks >= n {
		return pieces
	}
	out := make([]string, chunks)
	for i := range chunks {
		out[i] = strings.Join(pieces[i*n/chunks:(i+1)*n/chunks], "")
	}
	return out
}

// usesTool tells whether to answer with tool calls, of which function, and how
// many.
func (c *call) usesTool() (name string, calls int) {
	functions := slices.DeleteFunc(slices.Clone(c.in.Tools), func(t tool) bool { return t.Type != "" && t.Type != "function" })
	if len(functions) == 0 {
		return "", 0
	}
	choice := string(c.in.ToolChoice)
	asked := strings.Contains(string(c.body), "weather") || strings.Contains(string(c.body), "tool call")
	if choice == `"none"` || (!asked && choice != `"required"` && !strings.HasPrefix(choice, "{")) {
		return "", 0
	}
	name = functions[0].Function.Name + functions[0].Name
	if strings.Contains(string(c.body), "two cities") {
		return name, 2
	}
	return name, 1
}

const toolArguments = `{"location":"Paris, France","unit":"celsius"}`

// toolTokens is what tool calls cost.
func (c *call) toolTokens(name string, calls int) int64 {
	n := int64(calls) * (c.server.options.Counter.Text(c.model, name) + c.server.options.Counter.Text(c.model, toolArguments) + 7)
	if calls > 1 {
		n += 10 * int64(calls)
	}
	return n
}

func quote(s string) string { return strconv.Quote(s) } // the words and names here are ASCII
