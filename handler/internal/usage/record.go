package usage

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// RecordSchema is the version of the record's JSON form (docs/record.schema.json).
const RecordSchema = 1

// Kind is what a record tells of.
type Kind string

// The kinds of record. Only the first three carry cost.
const (
	KindRequest  Kind = "request"
	KindUpdate   Kind = "update"
	KindWriteOff Kind = "write_off"
	KindCreate   Kind = "create"
	KindDeposit  Kind = "deposit"
	KindStop     Kind = "stop"
	KindLift     Kind = "lift"
	KindAlert    Kind = "alert"
	KindConfig   Kind = "config"
)

// Spends tells whether records of this kind carry cost.
func (k Kind) Spends() bool { return k == KindRequest || k == KindUpdate || k == KindWriteOff }

// Outcome is how a forwarded request ended.
type Outcome string

// The outcomes of a request.
const (
	OutcomeCompleted     Outcome = "completed"
	OutcomeFiltered      Outcome = "filtered"
	OutcomeClientGone    Outcome = "client_gone"
	OutcomeUpstreamError Outcome = "upstream_error"
	OutcomeTimeout       Outcome = "timeout"
	OutcomeSwept         Outcome = "swept"
)

// Text is a string that is null in JSON when it is empty.
type Text string

// MarshalJSON writes the string, or null if it is empty.
func (t Text) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(t))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *Text) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		*t = ""
		return nil
	}
	return json.Unmarshal(data, (*string)(t))
}

// The meters of items. Seconds of audio are counted in milliseconds.
const (
	ItemWebSearch       = "web_search_call"
	ItemFileSearch      = "file_search_call"
	ItemCodeInterpreter = "code_interpreter_session"
	ItemImage           = "per_image"
	ItemAudioIn         = "audio_in_ms"  // priced by sec_in
	ItemAudioOut        = "audio_out_ms" // priced by sec_out
	ItemCharacter       = "char_in"
)

// Item is a quantity sold by a meter that is not a token: a web search call, an
// image, a millisecond of audio.
type Item struct {
	Meter    string `json:"meter"`
	Quantity int64  `json:"quantity"`
}

// Record is one line of the books, as it is stored, shown and sent to the lake.
// Every field is always present; what is unknown is null. The first revision is
// 1; of two records with one ID the higher revision counts.
type Record struct {
	Schema            int               `json:"schema"`
	ID                string            `json:"id"`
	Rev               int               `json:"rev"`
	Kind              Kind              `json:"kind"`
	Time              time.Time         `json:"time"` // when it was admitted
	Period            Text              `json:"period"`
	ProductID         Text              `json:"product_id"`
	Product           Text              `json:"product"`
	KeyID             Text              `json:"key_id"`
	RequestID         Text              `json:"request_id"` // the caller's or the host's id of the call
	UpstreamRequestID Text              `json:"upstream_request_id"`
	ResponseID        Text              `json:"response_id"`
	Operation         Text              `json:"operation"`
	Deployment        Text              `json:"deployment"`
	Model             Text              `json:"model"`
	SKU               Text              `json:"sku"`
	ServiceTier       Text              `json:"service_tier"`
	Region            Text              `json:"region"`
	Stream            *bool             `json:"stream"`
	Status            Count             `json:"status"`
	Outcome           Text              `json:"outcome"`
	UsageSource       Text              `json:"usage_source"`
	PromptTokens      Count             `json:"prompt_tokens"`
	CachedTokens      Count             `json:"cached_tokens"`
	CacheWriteTokens  Count             `json:"cache_write_tokens"`
	CompletionTokens  Count             `json:"completion_tokens"`
	ReasoningTokens   Count             `json:"reasoning_tokens"`
	AudioInputTokens  Count             `json:"audio_input_tokens"`
	AudioOutputTokens Count             `json:"audio_output_tokens"`
	ImageInputTokens  Count             `json:"image_input_tokens"`
	Images            Count             `json:"images"`
	Items             []Item            `json:"items"`
	UsageExtra        Extra             `json:"usage_extra"` // what was reported beyond the other fields
	Unit              Text              `json:"unit"`        // of charge: "usd" (nano-USD) or "tokens"
	Charge            Count             `json:"charge"`      // what the budget lost (a deposit: what it gained, negative)
	CostNanoUSD       Count             `json:"cost_nano_usd"`
	ListCostNanoUSD   Count             `json:"list_cost_nano_usd"`
	HoldNanoUSD       Count             `json:"hold_nano_usd"`
	PriceKey          Text              `json:"price_key"`
	PriceBook         Text              `json:"price_book"`
	LatencyMS         Count             `json:"latency_ms"`
	FirstByteMS       Count             `json:"first_byte_ms"`
	Attempts          Count             `json:"attempts"`
	User              Text              `json:"user"`
	Tags              map[string]string `json:"tags"`
}

// SetAnswer copies what an answer told of its use into the record: its usage if
// it has one, the rest of its usage object, items and images. What it does not
// tell stays as it is.
func (r *Record) SetAnswer(a *Answer) {
	if a.Extra != nil {
		r.UsageExtra = a.Extra
	}
	if a.HasUsage {
		r.SetUsage(a.Usage)
	}
	if a.Items != nil {
		r.Items = slices.Clone(a.Items)
	}
	if a.Images > 0 {
		r.Images = Of(a.Images)
	}
}

// SetUsage copies what an answer reported into the record.
func (r *Record) SetUsage(u Usage) {
	r.PromptTokens, r.CachedTokens, r.CacheWriteTokens = u.Prompt, u.Cached, u.CacheWrite
	r.CompletionTokens, r.ReasoningTokens = u.Completion, u.Reasoning
	r.AudioInputTokens, r.AudioOutputTokens, r.ImageInputTokens = u.AudioIn, u.AudioOut, u.ImageIn
	r.UsageExtra = r.UsageExtra.with(u)
}

// Usage is the usage that SetUsage was given; an ImageOut or AudioInCached of
// zero is unknown in it.
func (r *Record) Usage() Usage {
	u := Usage{
		Prompt: r.PromptTokens, Cached: r.CachedTokens, CacheWrite: r.CacheWriteTokens, AudioIn: r.AudioInputTokens, ImageIn: r.ImageInputTokens,
		Completion: r.CompletionTokens, Reasoning: r.ReasoningTokens, AudioOut: r.AudioOutputTokens,
	}
	_ = jsonscan.Object(r.UsageExtra, func(key []byte, v jsonscan.Value) error { // it has none if it is null
		switch string(key) {
		case extraImageOut:
			readCount(v, &u.ImageOut)
		case extraAudioInCached:
			readCount(v, &u.AudioInCached)
		}
		return nil
	})
	return u
}
