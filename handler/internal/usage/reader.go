package usage

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// Limits of what is kept of an answer.
const (
	TextBytesMax   = 4 << 20  // of the text that is gathered
	ToolCallsMax   = 1024     // of the calls that are gathered
	memberBytesMax = 64 << 10 // of a member of a large body
	countMax       = 1e12     // a larger count is no count
)

// ToolCall is a call that a model made.
type ToolCall struct{ Name, Arguments string }

// Answer is what was learnt from an answer.
type Answer struct {
	Usage       Usage
	HasUsage    bool // and it is Reported
	Model       string
	ResponseID  string
	ServiceTier string
	Status      string // of a response object: completed, incomplete, failed, queued...
	Filtered    bool   // the content filter cut in
	Finished    bool   // the end was seen
	ErrorCode   string

	// Gathered only if asked for. TextBytes counts on when Text is full.
	Text      []byte
	TextBytes int64
	ToolCalls []ToolCall
}

// details are the parts of a prompt or a completion, in all spellings.
type details struct {
	Cached     number `json:"cached_tokens"`
	CacheWrite number `json:"cache_write_tokens"`
	Audio      number `json:"audio_tokens"`
	Image      number `json:"image_tokens"`
	Reasoning  number `json:"reasoning_tokens"`
}

type wireUsage struct {
	Prompt            number `json:"prompt_tokens"`
	Completion        number `json:"completion_tokens"`
	Input             number `json:"input_tokens"`
	Output            number `json:"output_tokens"`
	PromptDetails     loose  `json:"prompt_tokens_details"`
	CompletionDetails loose  `json:"completion_tokens_details"`
	InputDetails      loose  `json:"input_tokens_details"`
	OutputDetails     loose  `json:"output_tokens_details"`
}

// number is a count, or unknown whatever else is there.
type number Count

func (n *number) UnmarshalJSON(raw []byte) error {
	if v, ok := jsonscan.Int(raw); ok && v >= 0 && v <= countMax {
		*n = number(Of(v))
	}
	return nil
}

// loose is details, or nothing whatever else is there.
type loose struct{ details }

func (l *loose) UnmarshalJSON(raw []byte) error {
	var d details
	if json.Unmarshal(raw, &d) == nil {
		l.details = d
	}
	return nil
}

// FromJSON reads a usage object, of chat, completions and embeddings or of
// responses. A part that is not a sensible count is unknown. ok is false if raw
// is no object.
func FromJSON(raw []byte) (u Usage, ok bool) {
	if len(raw) == 0 || raw[0] != '{' {
		return u, false
	}
	var w wireUsage
	if json.Unmarshal(raw, &w) != nil {
		return u, false
	}
	either := func(a, b number) Count {
		if a.Known {
			return Count(a)
		}
		return Count(b)
	}
	return Usage{
		Prompt: either(w.Prompt, w.Input), Completion: either(w.Completion, w.Output),
		Cached:     either(w.PromptDetails.Cached, w.InputDetails.Cached),
		CacheWrite: either(w.PromptDetails.CacheWrite, w.InputDetails.CacheWrite),
		AudioIn:    either(w.PromptDetails.Audio, w.InputDetails.Audio),
		ImageIn:    either(w.PromptDetails.Image, w.InputDetails.Image),
		Reasoning:  either(w.CompletionDetails.Reasoning, w.OutputDetails.Reasoning),
		AudioOut:   either(w.CompletionDetails.Audio, w.OutputDetails.Audio),
	}, true
}

// wire is what is read of any answer or chunk: the members of chat,
// completions, embeddings and response objects and of errors.
type wire struct {
	ID          string          `json:"id"`
	Model       string          `json:"model"`
	ServiceTier string          `json:"service_tier"`
	Status      json.RawMessage `json:"status"` // a text in responses, a number in some errors
	Usage       json.RawMessage `json:"usage"`
	Choices     []wireChoice    `json:"choices"`
	Output      []wireItem      `json:"output"`
	Error       json.RawMessage `json:"error"`
	Incomplete  struct {
		Reason string `json:"reason"`
	} `json:"incomplete_details"`
	ContentFilters []struct {
		Blocked bool `json:"blocked"`
	} `json:"content_filters"`
}

type wireChoice struct {
	Index        int          `json:"index"`
	FinishReason string       `json:"finish_reason"`
	Text         string       `json:"text"`
	Message      *wireMessage `json:"message"`
	Delta        *wireMessage `json:"delta"`
}

type wireMessage struct {
	Content      json.RawMessage `json:"content"`
	Refusal      string          `json:"refusal"`
	FunctionCall *wireFunction   `json:"function_call"`
	ToolCalls    []struct {
		Index    int          `json:"index"`
		Function wireFunction `json:"function"`
		Custom   struct {
			Name  string `json:"name"`
			Input string `json:"input"`
		} `json:"custom"`
	} `json:"tool_calls"`
}

type wireFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type wireItem struct {
	Type      string `json:"type"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
	Input     string `json:"input"`
	Content   []struct {
		Text    string `json:"text"`
		Refusal string `json:"refusal"`
	} `json:"content"`
	Summary []struct {
		Text string `json:"text"`
	} `json:"summary"`
}

// FromBody reads a whole JSON answer of chat, completions, embeddings or
// responses, or an error. gather asks for its text and tool calls too. What
// cannot be read is left out.
func FromBody(body []byte, gather bool) Answer {
	var a Answer
	var w wire
	if err := json.Unmarshal(body, &w); err != nil && w.Usage == nil {
		return a
	}
	a.Finished = true
	a.take(&w)
	if gather {
		for _, c := range w.Choices {
			a.gatherText(c.Text)
			a.gatherMessage(c.Message, nil)
		}
		a.gatherItems(w.Output)
	}
	return a
}

// take takes in what an answer, or a chunk of one, says of itself.
func (a *Answer) take(w *wire) {
	for to, from := range map[*string]string{&a.ResponseID: w.ID, &a.Model: w.Model, &a.ServiceTier: w.ServiceTier} {
		if from != "" { // the first chunk of a stream has an empty model
			*to = from
		}
	}
	if status, ok := jsonscan.String(w.Status); ok {
		a.Status = status
	}
	if u, ok := FromJSON(bytes.TrimSpace(w.Usage)); ok && u.Reported() {
		a.Usage, a.HasUsage = u, true
	}
	for _, c := range w.Choices {
		a.Filtered = a.Filtered || c.FinishReason == "content_filter"
	}
	a.Filtered = a.Filtered || w.Incomplete.Reason == "content_filter"
	for _, f := range w.ContentFilters {
		a.Filtered = a.Filtered || f.Blocked
	}
	if len(w.Error) > 0 && w.Error[0] == '{' {
		var e struct {
			Code json.RawMessage `json:"code"`
			Type string          `json:"type"`
		}
		_ = json.Unmarshal(w.Error, &e) // what cannot be read is left out
		a.ErrorCode = strings.Trim(string(e.Code), `"`)
		if a.ErrorCode == "" || a.ErrorCode == "null" {
			a.ErrorCode = "error"
		}
		a.Filtered = a.Filtered || a.ErrorCode == "content_filter"
	}
}

func (a *Answer) gatherText(text string) {
	a.TextBytes += int64(len(text))
	if room := TextBytesMax - len(a.Text); len(text) > room {
		text = text[:room]
	}
	a.Text = append(a.Text, text...)
}

// gatherMessage takes a message or a delta. calls maps the place of a call in
// its stream to its place in ToolCalls; it is nil for whole messages.
func (a *Answer) gatherMessage(m *wireMessage, calls map[[2]int]int, choice ...int) {
	if m == nil {
		return
	}
	if text, ok := jsonscan.String(m.Content); ok {
		a.gatherText(text)
	} else if len(m.Content) > 0 && m.Content[0] == '[' {
		var parts []struct {
			Text string `json:"text"`
		}
		_ = json.Unmarshal(m.Content, &parts) // what cannot be read is left out
		for _, part := range parts {
			a.gatherText(part.Text)
		}
	}
	a.gatherText(m.Refusal)
	at := 0
	if len(choice) > 0 {
		at = choice[0]
	}
	if m.FunctionCall != nil {
		a.gatherCall(*m.FunctionCall, calls, [2]int{at, -1})
	}
	for _, call := range m.ToolCalls {
		call.Function.Name += call.Custom.Name
		call.Function.Arguments += call.Custom.Input
		a.gatherCall(call.Function, calls, [2]int{at, call.Index})
	}
}

func (a *Answer) gatherCall(f wireFunction, calls map[[2]int]int, place [2]int) {
	i, known := calls[place]
	switch {
	case known:
	case len(a.ToolCalls) >= ToolCallsMax:
		a.gatherText(f.Arguments)
		return
	default:
		i = len(a.ToolCalls)
		a.ToolCalls = append(a.ToolCalls, ToolCall{})
		if calls != nil {
			calls[place] = i
		}
	}
	a.TextBytes += int64(len(f.Name) + len(f.Arguments))
	if a.TextBytes > 2*TextBytesMax {
		return
	}
	a.ToolCalls[i].Name += f.Name
	a.ToolCalls[i].Arguments += f.Arguments
}

func (a *Answer) gatherItems(items []wireItem) {
	for _, item := range items {
		for _, c := range item.Content {
			a.gatherText(c.Text)
			a.gatherText(c.Refusal)
		}
		for _, s := range item.Summary {
			a.gatherText(s.Text)
		}
		if item.Name != "" || item.Arguments != "" {
			a.gatherCall(wireFunction{item.Name, item.Arguments + item.Input}, nil, [2]int{})
		}
	}
}

// BodyReader reads a JSON answer that is too large to be kept, as it goes by.
// It gathers no text.
type BodyReader struct{ walker *jsonscan.Walker }

var bodyMembers = []string{"id", "model", "service_tier", "status", "usage", "error", "incomplete_details", "content_filters"}

// NewBodyReader makes a reader.
func NewBodyReader() *BodyReader {
	return &BodyReader{jsonscan.NewWalker(memberBytesMax, bodyMembers...)}
}

// Write takes the next piece. It never fails.
func (r *BodyReader) Write(p []byte) (int, error) { return r.walker.Write(p) }

// Answer is what was learnt so far.
func (r *BodyReader) Answer() Answer {
	document := []byte{'{'}
	for _, name := range bodyMembers {
		if raw, ok := r.walker.Value(name); ok {
			if len(document) > 1 {
				document = append(document, ',')
			}
			document = append(append(append(append(document, '"'), name...), '"', ':'), raw...)
		}
	}
	a := FromBody(append(document, '}'), false)
	a.Finished = r.walker.Done()
	return a
}
