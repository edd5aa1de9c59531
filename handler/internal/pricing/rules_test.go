package pricing_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/usage"
)

func TestImages(t *testing.T) {
	f := func(model, quality, size, key, price string) {
		t.Helper()
		q := pricing.Query{Model: model, Mode: pricing.ModeImage, Quality: quality, Size: size, At: now}
		e, ok := pricing.Builtin().Lookup(q)
		got, err := e.Charge(usage.Usage{}, []usage.Item{{Meter: usage.ItemImage, Quantity: 1}}, "")
		if e.Key != key || ok != (key != "") || (ok && (err != nil || got.List.String() != price)) {
			t.Errorf("%+v: %q costs %v, %v; want %q at %s", q, e.Key, got.List, err, key, price)
		}
	}
	const rest = "/*/*/*" // no SKU: one price is known, for all
	dalle := func(variant string) string { return "image_generation:" + variant + "/dall-e-3" + rest }
	f("dall-e-3", "hd", "1024x1792", dalle("hd/1024-x-1792"), "0.12")
	f("dall-e-3", "HD", "1024x1024", dalle("hd/1024-x-1024"), "0.08")
	f("dall-e-3", "", "", dalle("standard/1024-x-1024"), "0.04") // the API's defaults
	f("dall-e-3", "", "1792x1024", dalle("standard/1792-x-1024"), "0.08")
	f("dall-e-3", "hd", "", dalle("hd/1024-x-1024"), "0.08")
	f("dall-e-3", "hd", "auto", dalle("hd/1024-x-1792"), "0.12") // the dearest of that quality
	f("dall-e-3", "auto", "1024x1024", dalle("hd/1024-x-1024"), "0.08")
	f("dall-e-3", "ultra", "9x9", dalle("hd/1024-x-1792"), "0.12")
	f("dall-e-3", "hd", "1024x179", dalle("hd/1024-x-1792"), "0.12") // no match by a part of the size
	f("dall-e-2", "", "", "", "")
	f("dall-e", "hd", "1024x1024", "", "")
	const token = "image_generation:gpt-image-1" + rest
	f("gpt-image-1", "high", "1024x1536", token+"+high/1024x1536", "0.25")
	f("gpt-image-1", "", "", token+"+high/1024x1536", "0.25") // auto: the dearest
	f("gpt-image-1", "low", "auto", token+"+low/1024x1536", "0.016")
	f("gpt-image-1-2025-04-15", "medium", "1024x1024", token+"+medium/1024x1024", "0.042")
	f("gpt-image-1-mini", "low", "1024x1024", "image_generation:gpt-image-1-mini"+rest+"+low/1024x1024", "0.0022")
	e := entry(t, pricing.Query{Model: "gpt-image-1", Mode: pricing.ModeImage, Quality: "low", Size: "1024x1024"})
	u := usage.Usage{Prompt: usage.Of(10), ImageIn: usage.Of(2), Completion: usage.Of(272), ImageOut: usage.Of(272)}
	if got, err := e.Charge(u, nil, ""); err != nil || got.List.String() != "0.01094" { // 8 x 5 + 2 x 10 + 272 x 40
		t.Errorf("by tokens: %v, %v", got.List, err)
	}
	if e := entry(t, pricing.Query{Model: "gpt-image-2", Mode: pricing.ModeImage}); e.Sells(usage.ItemImage) {
		t.Error("gpt-image-2 has no price per image, but sells them")
	}
	book := parse(t, `{"prices":[
		{"model":"512-x-512/dall-e-2","mode":"image_generation","pico_usd":{"per_image":18000000000}},
		{"model":"standard/1024-x-1024/dall-e-2","mode":"image_generation","pico_usd":{"per_image":20000000000}}]}`)
	for size, want := range map[string]string{"": "standard/1024-x-1024", "512x512": "512-x-512", "256x256": "standard/1024-x-1024"} {
		e, _ := book.Lookup(pricing.Query{Model: "dall-e-2", Mode: pricing.ModeImage, Size: size})
		if e.Key != "image_generation:"+want+"/dall-e-2/*/*/*" {
			t.Errorf("dall-e-2 of size %q: %s", size, e.Key)
		}
	}
}

func TestProvisioned(t *testing.T) {
	book := pricing.Builtin().With(parse(t, `{"version":"x","prices":[
		{"model":"gpt-5","sku":"GlobalProvisionedManaged","pico_usd":{"in":100000,"out":800000}}]}`))
	f := func(q pricing.Query, key string, spillover, chargeback bool) {
		t.Helper()
		q.At = now
		e, ok := book.Lookup(q)
		if e.Key != key || ok != (key != "") || e.Spillover != spillover {
			t.Errorf("Lookup(%+v) = %q, spillover %v; want %q, %v", q, e.Key, e.Spillover, key, spillover)
		}
		own, ok := book.LookupProvisioned(q)
		if ok != chargeback || (ok && own.Key != key) {
			t.Errorf("LookupProvisioned(%+v) = %q, %v; want %v", q, own.Key, ok, chargeback)
		}
	}
	f(pricing.Query{Model: "gpt-5", SKU: "globalprovisionedmanaged"}, "gpt-5/*/GlobalProvisionedManaged/*", false, true)
	f(pricing.Query{Model: "gpt-5-mini", SKU: "GlobalProvisionedManaged"}, "gpt-5-mini/*/GlobalStandard/*", true, false)
	f(pricing.Query{Model: "gpt-5-2025-08-07", SKU: "DataZoneProvisionedManaged", Region: "swedencentral"}, "gpt-5/2025-08-07/DataZoneStandard/eu", true, false)
	f(pricing.Query{Model: "gpt-4o-mini", SKU: "ProvisionedManaged", Region: "eastus"}, "gpt-4o-mini/*/Standard/*", true, false)
	f(pricing.Query{Model: "gpt-5", SKU: "ProvisionedManaged"}, "", false, false)
	f(pricing.Query{Model: "gpt-5"}, "gpt-5/*/GlobalStandard/*", false, false)
	skus := map[string]string{
		"GlobalProvisionedManaged": "GlobalStandard", "datazoneprovisionedmanaged": "DataZoneStandard", "ProvisionedManaged": "Standard",
		"GlobalBatch": "GlobalBatch", "Standard": "Standard", "unheard-of": "unheard-of", "": "",
	}
	for sku, want := range skus {
		if got := pricing.SpilloverSKU(sku); got != want {
			t.Errorf("SpilloverSKU(%q) = %q; want %q", sku, got, want)
		}
		if got := pricing.Provisioned(sku); got != strings.Contains(strings.ToLower(sku), "provisioned") {
			t.Errorf("Provisioned(%q) = %v", sku, got)
		}
	}
}

func TestParseKey(t *testing.T) {
	f := func(key string, want pricing.KeyParts, wantOK bool) {
		t.Helper()
		if got, ok := pricing.ParseKey(key); ok != wantOK || (ok && got != want) {
			t.Errorf("ParseKey(%q) = %+v, %v; want %+v, %v", key, got, ok, want, wantOK)
		}
	}
	f("gpt-4o/2024-11-20/DataZoneStandard/us@2026-08-01", pricing.KeyParts{
		Model: "gpt-4o", Version: "2024-11-20", SKU: "DataZoneStandard", Region: "us", Mode: pricing.ModeChat}, true)
	f("gpt-5.5/*/GlobalStandard/*+batch", pricing.KeyParts{Model: "gpt-5.5", SKU: "GlobalStandard", Mode: pricing.ModeChat}, true)
	f("image_generation:hd/1024-x-1792/dall-e-3/*/*/*", pricing.KeyParts{
		Model: "dall-e-3", Mode: pricing.ModeImage, Quality: "hd", Size: "1024x1792"}, true)
	f("image_generation:gpt-image-1/*/*/*@2026-01-01+low/1024x1024", pricing.KeyParts{
		Model: "gpt-image-1", Mode: pricing.ModeImage, Quality: "low", Size: "1024x1024"}, true)
	f("audio_speech:speech/azure-tts/*/GlobalStandard/*", pricing.KeyParts{
		Model: "speech/azure-tts", SKU: "GlobalStandard", Mode: pricing.ModeSpeech}, true)
	f("", pricing.KeyParts{}, false)
	f("gpt-4o", pricing.KeyParts{}, false)
	f("gpt-5/GlobalProvisionedManaged/hourly", pricing.KeyParts{}, false)
	f("azure/gpt-5/GlobalProvisionedManaged/hourly", pricing.KeyParts{}, false)
	f("/a/b/c", pricing.KeyParts{}, false)
	for e := range pricing.Builtin().All() {
		parts, ok := pricing.ParseKey(e.Key)
		if !ok || parts.Version != e.Version || parts.SKU != e.SKU || parts.Region != e.Region || !strings.HasSuffix(e.Model, parts.Model) {
			t.Errorf("ParseKey(%q) = %+v", e.Key, parts)
		}
	}
}

func TestExplain(t *testing.T) {
	book := pricing.Builtin()
	e, ok, x := book.Explain(pricing.Query{Model: "gpt-4o-2024-11-20", SKU: "DataZoneStandard", Region: "East US", At: now})
	if !ok || e.Key != "gpt-4o/2024-11-20/DataZoneStandard/us" {
		t.Fatalf("%q, %v", e.Key, ok)
	}
	steps := strings.Join(x.Steps, "\n")
	for _, want := range []string{`"gpt-4o-2024-11-20" is gpt-4o`, "2024-11-20, undated", `"eastus": data zone us`, e.Key} {
		if !strings.Contains(steps, want) {
			t.Errorf("the steps do not say %q:\n%s", want, steps)
		}
	}
	why := map[string]string{}
	for _, c := range x.Candidates {
		if strings.HasPrefix(c.Key, "gpt-4o/") {
			why[c.Key] = c.Why
			if c.Chosen != (c.Key == e.Key) {
				t.Errorf("%+v", c)
			}
		}
	}
	want := map[string]string{
		e.Key:                                   "the most specific that fits: version as asked, region by its zone, this SKU",
		"gpt-4o/2024-11-20/DataZoneStandard/eu": "of another region",
		"gpt-4o/2024-11-20/GlobalStandard/*":    "of another SKU",
		"gpt-4o/2024-08-06/DataZoneStandard/us": "of another version",
		"gpt-4o/2024-08-06/DataZoneStandard/eu": "of another version",
		"gpt-4o/*/GlobalStandard/*":             "of another SKU",
		"gpt-4o/2024-05-13/GlobalStandard/*":    "of another SKU",
		"gpt-4o/2024-08-06/GlobalStandard/*":    "of another SKU",
	}
	if diff := cmp.Diff(want, why); diff != "" {
		t.Error(diff)
	}
	for _, q := range []pricing.Query{
		{Model: "gpt-5.5", SKU: "GlobalBatch"}, {Model: "gpt-5.5", SKU: "GlobalProvisionedManaged"}, {Model: "gpt-5.5", SKU: "x"},
		{Model: "ft:gpt-4o:o::i"}, {Model: "gpt-5-mini", SKU: "DataZoneStandard"}, {Model: "dall-e-3", Mode: pricing.ModeImage}, {},
	} {
		q.At = now
		explained, ok, x := book.Explain(q)
		looked, found := book.Lookup(q)
		if ok != found || explained.Key != looked.Key || len(x.Steps) == 0 {
			t.Errorf("Explain(%+v) = %q, %v, %v; Lookup = %q", q, explained.Key, ok, x.Steps, looked.Key)
		}
	}
}
