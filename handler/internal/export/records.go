package export

import (
	"encoding/json"

	"github.com/costgate/costgate/handler/internal/usage"
)

type record = usage.Record

// recordColumns are the fields of a record, in its order.
var recordColumns = []column[record]{
	{field{name: "schema", kind: integer, required: true}, func(r *record) value { return num(int64(r.Schema)) }},
	{field{name: "id", required: true, unique: true}, func(r *record) value { return str(r.ID) }},
	{field{name: "rev", kind: integer, required: true}, func(r *record) value { return num(int64(r.Rev)) }},
	{field{name: "kind", required: true}, func(r *record) value { return str(r.Kind) }},
	{field{name: "time", kind: instant, required: true}, func(r *record) value { return num(r.Time.UnixMilli()) }},
	{field{name: "period"}, func(r *record) value { return str(r.Period) }},
	{field{name: "product_id"}, func(r *record) value { return str(r.ProductID) }},
	{field{name: "product"}, func(r *record) value { return str(r.Product) }},
	{field{name: "key_id"}, func(r *record) value { return str(r.KeyID) }},
	{field{name: "request_id", unique: true}, func(r *record) value { return str(r.RequestID) }},
	{field{name: "upstream_request_id", unique: true}, func(r *record) value { return str(r.UpstreamRequestID) }},
	{field{name: "response_id", unique: true}, func(r *record) value { return str(r.ResponseID) }},
	{field{name: "operation"}, func(r *record) value { return str(r.Operation) }},
	{field{name: "deployment"}, func(r *record) value { return str(r.Deployment) }},
	{field{name: "model"}, func(r *record) value { return str(r.Model) }},
	{field{name: "sku"}, func(r *record) value { return str(r.SKU) }},
	{field{name: "service_tier"}, func(r *record) value { return str(r.ServiceTier) }},
	{field{name: "region"}, func(r *record) value { return str(r.Region) }},
	{field{name: "stream", kind: boolean}, func(r *record) value { return flag(r.Stream) }},
	{field{name: "status", kind: integer}, func(r *record) value { return count(r.Status) }},
	{field{name: "outcome"}, func(r *record) value { return str(r.Outcome) }},
	{field{name: "usage_source"}, func(r *record) value { return str(r.UsageSource) }},
	{field{name: "prompt_tokens", kind: integer}, func(r *record) value { return count(r.PromptTokens) }},
	{field{name: "cached_tokens", kind: integer}, func(r *record) value { return count(r.CachedTokens) }},
	{field{name: "cache_write_tokens", kind: integer}, func(r *record) value { return count(r.CacheWriteTokens) }},
	{field{name: "completion_tokens", kind: integer}, func(r *record) value { return count(r.CompletionTokens) }},
	{field{name: "reasoning_tokens", kind: integer}, func(r *record) value { return count(r.ReasoningTokens) }},
	{field{name: "audio_input_tokens", kind: integer}, func(r *record) value { return count(r.AudioInputTokens) }},
	{field{name: "audio_output_tokens", kind: integer}, func(r *record) value { return count(r.AudioOutputTokens) }},
	{field{name: "image_input_tokens", kind: integer}, func(r *record) value { return count(r.ImageInputTokens) }},
	{field{name: "images", kind: integer}, func(r *record) value { return count(r.Images) }},
	{field{name: "items"}, func(r *record) value { return asJSON(r.Items, r.Items == nil) }},
	{field{name: "usage_extra"}, func(r *record) value { return str(string(r.UsageExtra)) }},
	{field{name: "unit"}, func(r *record) value { return str(r.Unit) }},
	{field{name: "charge", kind: integer}, func(r *record) value { return count(r.Charge) }},
	{field{name: "cost_nano_usd", kind: integer}, func(r *record) value { return count(r.CostNanoUSD) }},
	{field{name: "list_cost_nano_usd", kind: integer}, func(r *record) value { return count(r.ListCostNanoUSD) }},
	{field{name: "hold_nano_usd", kind: integer}, func(r *record) value { return count(r.HoldNanoUSD) }},
	{field{name: "price_key"}, func(r *record) value { return str(r.PriceKey) }},
	{field{name: "price_book"}, func(r *record) value { return str(r.PriceBook) }},
	{field{name: "latency_ms", kind: integer}, func(r *record) value { return count(r.LatencyMS) }},
	{field{name: "first_byte_ms", kind: integer}, func(r *record) value { return count(r.FirstByteMS) }},
	{field{name: "attempts", kind: integer}, func(r *record) value { return count(r.Attempts) }},
	{field{name: "user"}, func(r *record) value { return str(r.User) }},
	{field{name: "tags"}, func(r *record) value { return asJSON(r.Tags, r.Tags == nil) }},
}

// moneyColumns are what CSV has besides: amounts in dollars, for people.
var moneyColumns = []column[record]{
	{field{name: "charge_usd", kind: decimal9}, func(r *record) value {
		if r.Unit != "usd" {
			return value{}
		}
		return count(r.Charge)
	}},
	{field{name: "cost_usd", kind: decimal9}, func(r *record) value { return count(r.CostNanoUSD) }},
	{field{name: "list_cost_usd", kind: decimal9}, func(r *record) value { return count(r.ListCostNanoUSD) }},
	{field{name: "hold_usd", kind: decimal9}, func(r *record) value { return count(r.HoldNanoUSD) }},
}

func count(c usage.Count) value { return value{known: c.Known, n: c.N} }

func flag(b *bool) value {
	switch {
	case b == nil:
		return value{}
	case *b:
		return num(1)
	}
	return num(0)
}

// asJSON writes a list or a map as JSON, the keys of a map in order.
func asJSON(v any, null bool) value {
	if null {
		return value{}
	}
	data, err := json.Marshal(v)
	return value{known: err == nil, s: string(data)}
}

// recordRows writes one row a record.
func recordRows(out *outputs, report *Report) func(*record) error {
	columns := recordColumns
	if !out.options.asParquet() {
		columns = append(columns[:len(columns):len(columns)], moneyColumns...)
	}
	out.name, out.fields = "record", fields(columns)
	row := make([]value, len(columns))
	return func(r *record) error {
		if err := cells(row, columns, r); err != nil {
			return blame(r, err)
		}
		if err := out.fits(row); err != nil {
			return blame(r, err)
		}
		report.Rows++
		return out.row(r.Time, row)
	}
}
