package usage_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/usage"
)

func fieldsOf(t *testing.T, r usage.Record) map[string]json.RawMessage {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

func TestRecordHasEveryField(t *testing.T) {
	if fields := fieldsOf(t, usage.Record{}); len(fields) != 45 || string(fields["usage_extra"]) != "null" {
		t.Errorf("%d fields: %s", len(fields), fields)
	}
}

// TestSchemaHasEveryField: the schema in docs and the record have the same
// fields, and all of them are required.
func TestSchemaHasEveryField(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "record.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Required   []string
		Properties map[string]json.RawMessage
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(maps.Keys(fieldsOf(t, usage.Record{})))
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(schema.Properties))); diff != "" {
		t.Error("properties:", diff)
	}
	slices.Sort(schema.Required)
	if diff := cmp.Diff(want, schema.Required); diff != "" {
		t.Error("required:", diff)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, extra := range []usage.Extra{nil, usage.Extra(`{"a":{"b_tokens":7},"c":null}`)} {
		r := usage.Record{Schema: 1, ID: "x", PromptTokens: usage.Of(3), UsageExtra: extra, Items: []usage.Item{{Meter: usage.ItemWebSearch, Quantity: 2}}}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again usage.Record
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Error(diff)
		}
	}
}

func TestSetAnswer(t *testing.T) {
	a := usage.FromBody([]byte(`{"created":1,"data":[{"b64_json":"x"},{"b64_json":"y"}],"usage":{"input_tokens":21,"output_tokens":1100,
		"input_token_details":{"audio_tokens":9,"cached_tokens":7,"cached_tokens_details":{"audio_tokens":5,"new_tokens":1}},
		"output_tokens_details":{"text_tokens":44,"image_tokens":1056},"tool_calls":{"a":1}}}`), false)
	a.Items = []usage.Item{{Meter: usage.ItemFileSearch, Quantity: 1}}
	var r usage.Record
	r.SetAnswer(&a)
	const unknown = `{"input_token_details":{"cached_tokens_details":{"new_tokens":1}},"tool_calls":{"a":1}`
	const extra = unknown + `,"image_output_tokens":1056,"cached_audio_input_tokens":5}`
	if got := r.Usage(); got != a.Usage || r.Images != usage.Of(2) || string(r.UsageExtra) != extra || !slices.Equal(r.Items, a.Items) {
		t.Errorf("%+v: %s", got, r.UsageExtra)
	}
	// A second usage takes the place of the first.
	again := r
	again.SetUsage(usage.Usage{ImageOut: usage.Of(3)})
	if want := unknown + `,"image_output_tokens":3}`; string(again.UsageExtra) != want || again.Usage() != (usage.Usage{ImageOut: usage.Of(3)}) {
		t.Errorf("%s; want %s", again.UsageExtra, want)
	}
	var ordinary usage.Record
	if ordinary.SetUsage(usage.Usage{Prompt: usage.Of(3), ImageOut: usage.Of(0)}); ordinary.UsageExtra != nil {
		t.Errorf("%s", ordinary.UsageExtra)
	}
	ordinary.SetUsage(usage.Usage{ImageOut: usage.Of(3)})
	if ordinary.SetUsage(usage.Usage{}); ordinary.UsageExtra != nil {
		t.Errorf("%s", ordinary.UsageExtra)
	}
	// What an answer does not tell stays.
	before := r
	r.SetAnswer(new(usage.Answer))
	if diff := cmp.Diff(before, r); diff != "" {
		t.Error(diff)
	}
}
