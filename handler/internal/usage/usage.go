// Package usage says what a request used: the numbers that Azure OpenAI
// reports in its answers, and the record that a request leaves behind.
//
// Presence matters: a count that was not reported is not a count of zero.
package usage

import (
	"bytes"
	"strconv"
)

// Count is a number that may be unknown. The zero value is unknown.
type Count struct {
	N     int64
	Known bool
}

// Of is a known count.
func Of(n int64) Count { return Count{N: n, Known: true} }

// Add is the sum of two counts, known if one of them is.
func (c Count) Add(other Count) Count { return Count{N: c.N + other.N, Known: c.Known || other.Known} }

// MarshalJSON writes the number, or null if it is unknown.
func (c Count) MarshalJSON() ([]byte, error) {
	if !c.Known {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, c.N, 10), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Count) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		*c = Count{}
		return nil
	}
	n, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil {
		return err
	}
	*c = Of(n)
	return nil
}

// Usage is what one answer reported. Cached, CacheWrite, AudioIn, AudioInCached
// and ImageIn are parts of Prompt; Reasoning, AudioOut and ImageOut are parts
// of Completion. None of them is to be added to the total again.
type Usage struct {
	Prompt        Count
	Cached        Count
	CacheWrite    Count
	AudioIn       Count
	AudioInCached Count
	ImageIn       Count
	Completion    Count
	Reasoning     Count
	AudioOut      Count
	ImageOut      Count
}

// Add is the sum of two usages, each count known if it is in one of them.
func (u Usage) Add(other Usage) Usage {
	return Usage{
		Prompt: u.Prompt.Add(other.Prompt), Cached: u.Cached.Add(other.Cached), CacheWrite: u.CacheWrite.Add(other.CacheWrite),
		AudioIn: u.AudioIn.Add(other.AudioIn), AudioInCached: u.AudioInCached.Add(other.AudioInCached), ImageIn: u.ImageIn.Add(other.ImageIn),
		Completion: u.Completion.Add(other.Completion), Reasoning: u.Reasoning.Add(other.Reasoning),
		AudioOut: u.AudioOut.Add(other.AudioOut), ImageOut: u.ImageOut.Add(other.ImageOut),
	}
}

// Reported tells whether the usage says anything that can be billed: a prompt
// count above zero, or a completion count above zero. A usage object of zeros
// is how some failed answers end, and means "not reported".
func (u Usage) Reported() bool { return u.Prompt.N > 0 || u.Completion.N > 0 }

// Total is the number of tokens, prompt and completion.
func (u Usage) Total() int64 { return u.Prompt.N + u.Completion.N }

// Source says where the numbers of a record come from.
type Source string

// The sources of usage, from best to worst.
const (
	SourceProvider  Source = "provider"  // reported by Azure OpenAI
	SourceTokenizer Source = "tokenizer" // counted here, all text seen
	SourceEstimate  Source = "estimate"  // hidden parts guessed
	SourceSwept     Source = "swept"     // the process died: charged at its hold
	SourceNone      Source = "none"      // nothing was used
)
