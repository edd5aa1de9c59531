package pricing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/pricing"
)

func TestParseRefuses(t *testing.T) {
	whole := func(text string, wants ...string) {
		t.Helper()
		_, err := pricing.Parse([]byte(text))
		if err == nil {
			t.Errorf("Parse(%s) passes", text)
			return
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("Parse(%s): %q does not say %q", text, err, want)
			}
		}
	}
	entry := func(text string, wants ...string) {
		t.Helper()
		whole("{\"version\":\"x\",\"prices\":[\n{\"model\":\"ok\",\"pico_usd\":{\"in\":1,\"out\":1}},\n{"+text+"}]}",
			append(wants, "line 3", "prices[1]")...)
	}
	const price = `"pico_usd":{"in":1,"out":1}`
	whole(``, "ends too early")
	whole(`[]`, "must be an object")
	whole(`{"prices":[]} {}`, "something follows")
	whole(`{"prices":[],"prices":[]}`, "given twice")
	whole(`{"price":[]}`, "price", "unknown field")
	whole(`{"version":null}`, "null")
	whole("{\n\"multiplier_ppm\":0}", "line 2", "multiplier_ppm", "from 1 to 100000000")
	whole(`{"multiplier_ppm":-1}`, "multiplier_ppm", "from 1 to")
	whole(`{"multiplier_ppm":1,"multiplier_ppm":1}`, "given twice")
	whole(`{"prices":{}}`, "must be an array")
	whole(`{"prices":[1]}`, "must be an object")
	whole(`{"prices":[`, "ends too early")
	entry(price, "model is missing")
	entry(`"model":"","pico_usd":{"in":1,"out":1}`, "model is missing")
	entry(`"model":7`, "prices[1].model", "must be a string")
	entry(`"model":"m","colour":"red"`, "prices[1].colour", "unknown field")
	entry(`"model":"m","mode":"chatty",`+price, "mode", "chatty", "embedding")
	entry(`"model":"m","sku":"Global",`+price, "sku", "GlobalStandard")
	entry(`"model":"m","from":"1.1.2026",`+price, "from", "2026-01-31")
	entry(`"model":"m","from":"2026-02-30",`+price, "from")
	entry(`"model":"m"`, "pico_usd is missing")
	entry(`"model":"m","pico_usd":{}`, "pico_usd is missing")
	entry(`"model":"m","pico_usd":{"in":1}`, "both in and out")
	entry(`"model":"m","mode":"embedding","pico_usd":{"out":1}`, "needs in")
	entry(`"model":"m","pico_usd":{"inn":1}`, "pico_usd.inn", "unknown meter")
	entry(`"model":"m","pico_usd":{"in":0,"out":1}`, "pico_usd.in", "from 1 to")
	entry(`"model":"m","pico_usd":{"in":-1,"out":1}`, "from 1 to")
	entry(`"model":"m","pico_usd":{"in":2.5,"out":1}`, "whole number", "2500000")
	entry(`"model":"m","pico_usd":{"in":1e6,"out":1}`, "whole number")
	entry(`"model":"m","pico_usd":{"in":"1","out":1}`, "must be a number")
	entry(`"model":"m","pico_usd":{"in":null,"out":1}`, "null")
	entry(`"model":"m","pico_usd":{"in":1,"in":1,"out":1}`, "given twice")
	entry(`"model":"m","pico_usd":{"in":1000000000000001,"out":1}`, "from 1 to 1000000000000000")
	entry(`"model":"m","ctx_in":0,`+price, "ctx_in")
	entry(`"model":"m","long_threshold":5,`+price, "long_threshold", "long_in")
	entry(`"model":"m","pico_usd":{"in":1,"out":1,"long_in":2}`, "long_threshold")
	entry(`"model":"m","pico_usd":{"in":1,"out":1,"long_out":2}`, "long_out needs long_in")
	entry(`"model":"m","pico_usd":{"in":1,"out":1,"prio_out":2}`, "prio_out needs prio_in")
	entry(`"model":"m-2024-11-20","version":"2024-08-06",`+price, "drop the date")
	entry(`"model":"m","pico_usd":{"in":1,"out":1,"batch_out":2}`, "batch_out needs batch_in")
	entry(`"model":"m","pico_usd":{"in":1,"out":1,"prio_audio_in":2}`, "prio_audio_in needs prio_in")
	entry(`"model":"m","long_threshold":5,"pico_usd":{"in":1,"out":1,"long_in":2,"long_prio_image_out":2}`, "long_prio_image_out needs long_prio_in")
	entry(`"model":"m","multiplier_ppm":0,`+price, "prices[1].multiplier_ppm", "from 1 to 100000000")
	entry(`"model":"m","multiplier_ppm":0.95,`+price, "multiplier_ppm", "whole number", "950000")
	entry(`"model":"m","multiplier_ppm":"950000",`+price, "multiplier_ppm", "must be a number")
	entry(`"model":"m","multiplier":950000,`+price, "prices[1].multiplier:", "multiplier_ppm")
	entry(`"model":"grep","mode":"tool","pico_usd":{"web_search_call":1}`, "no tool", "file_search")
	entry(`"model":"web_search","mode":"tool","pico_usd":{"file_search_call":1}`, "has the meter web_search_call")
	entry(`"model":"web_search","mode":"tool","pico_usd":{"web_search_call":1,"in":1}`, "nothing else")
	entry(`"model":"web_search","mode":"tool","version":"1","pico_usd":{"web_search_call":1}`, "no version")
	entry(`"model":"OK",`+price, "already given on line 2")
	entry(`"model":"ok","mode":"completion",`+price, "already given")
}

func TestParseLimits(t *testing.T) {
	book := func(n int) []byte {
		var b strings.Builder
		b.WriteString(`{"prices":[`)
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"model":"m%d","pico_usd":{"in":1,"out":1}}`, i)
		}
		b.WriteString("]}")
		return []byte(b.String())
	}
	if _, err := pricing.Parse(book(pricing.EntriesMax)); err != nil {
		t.Errorf("EntriesMax entries: %v", err)
	}
	if _, err := pricing.Parse(book(pricing.EntriesMax + 1)); err == nil {
		t.Error("EntriesMax+1 entries pass")
	}
	padded := append([]byte(`{"prices":[]}`), strings.Repeat(" ", pricing.FileBytesMax-13)...)
	if _, err := pricing.Parse(padded); err != nil {
		t.Errorf("FileBytesMax bytes: %v", err)
	}
	if _, err := pricing.Parse(append(padded, ' ')); err == nil {
		t.Error("FileBytesMax+1 bytes pass")
	}
	at := fmt.Sprintf(`{"prices":[{"model":"m","ctx_in":%d,"pico_usd":{"in":%d,"out":1}}]}`, int64(pricing.TokensMax), int64(pricing.PriceMax))
	if _, err := pricing.Parse([]byte(at)); err != nil {
		t.Errorf("PriceMax, TokensMax: %v", err)
	}
	for _, name := range []string{`{"multiplier_ppm":%d,"prices":[]}`, `{"prices":[{"model":"m","multiplier_ppm":%d,"pico_usd":{"in":1,"out":1}}]}`} {
		if _, err := pricing.Parse(fmt.Appendf(nil, name, int64(pricing.MultiplierMax))); err != nil {
			t.Errorf("MultiplierMax: %v", err)
		}
		if _, err := pricing.Parse(fmt.Appendf(nil, name, int64(pricing.MultiplierMax)+1)); err == nil {
			t.Errorf("%s with MultiplierMax+1 passes", name)
		}
	}
	past := fmt.Sprintf(`{"prices":[{"model":"m","ctx_in":%d,"pico_usd":{"in":1,"out":1}}]}`, int64(pricing.TokensMax)+1)
	if _, err := pricing.Parse([]byte(past)); err == nil {
		t.Error("TokensMax+1 passes")
	}
}

func TestParseDeployments(t *testing.T) {
	got, err := pricing.ParseDeployments(`{
		"GPT4o":{"model":"gpt-4o","version":"2024-11-20","sku":"datazonestandard","region":"East US"},
		"mini":{"model":"gpt-4o-mini"}}`)
	want := map[string]pricing.Deployment{
		"gpt4o": {Model: "gpt-4o", Version: "2024-11-20", SKU: "DataZoneStandard", Region: "eastus"},
		"mini":  {Model: "gpt-4o-mini", SKU: "GlobalStandard"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if got, err := pricing.ParseDeployments(" "); err != nil || len(got) != 0 {
		t.Errorf("no text: %v, %v", got, err)
	}
	f := func(text string, wants ...string) {
		t.Helper()
		_, err := pricing.ParseDeployments(text)
		if err == nil {
			t.Errorf("%s passes", text)
			return
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", text, err, want)
			}
		}
	}
	f("{\n\"a\":{}}", "line 2", "a:", "model is missing", `"model":"gpt-4o"`)
	f(`{"a":{"model":"m","skuu":"x"}}`, "a.skuu", "unknown field", "region")
	f(`{"a":{"model":"m","sku":"x"}}`, "a.sku", "ProvisionedManaged")
	f(`{"a":{"model":7}}`, "a.model", "must be a string")
	f(`{"a":{"model":"m"},"A":{"model":"m"}}`, "A", "given twice")
	f(`{"a":{"model":"m"},"a":{"model":"m"}}`, "a", "given twice")
	f(`{"":{"model":"m"}}`, "empty name")
	for _, sku := range []string{"DataZoneStandard", "DataZoneBatch", "DataZoneProvisionedManaged"} {
		for _, region := range []string{"", "uksouth", "Sweden Centrall"} {
			f(fmt.Sprintf(`{"a":{"model":"m","sku":%q,"region":%q}}`, sku, region), "a.region", "no data zone", sku, `"us" or "eu"`)
		}
	}
	f(`{"a":{"model":"gpt-4o-2024-08-06","version":"2024-11-20"}}`, "a.version", "2024-08-06", "drop the date from model")
	f(`{"a":{"model":"gpt-35-turbo-0613","version":"1106"}}`, "a.version")
	for _, text := range []string{
		`{"model":"m","sku":"DataZoneStandard","region":"eu"}`, `{"model":"m","sku":"DataZoneBatch","region":"East US"}`,
		`{"model":"m","sku":"Standard","region":"Sweden Centrall"}`, `{"model":"gpt-4o-2024-08-06","version":"2024-08-06"}`,
		`{"model":"gpt-4-turbo-2024-04-09","version":"turbo-2024-04-09"}`, `{"model":"gpt-4-0125-preview","version":"0125-Preview"}`,
		`{"model":"gpt-4o-2024-08-06.ft-0123","version":"1"}`, `{"model":"gpt-4o","version":"2024-11-20"}`,
	} {
		if _, err := pricing.ParseDeployments(`{"a":` + text + `}`); err != nil {
			t.Error(err)
		}
	}
	f(`{"a":"gpt-4o"}`, "a", "must be an object")
	f(`{"a":{"model":"m"}`, "ends too early")
	f(`not json`, "not valid JSON")
}
