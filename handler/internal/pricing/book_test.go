package pricing_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/usage"
)

var now = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

func TestBuiltinBook(t *testing.T) {
	book := pricing.Builtin()
	if book.Version() != "2026-08-01.3" || !strings.Contains(book.Source(), "MIT") {
		t.Errorf("version %q, source %q", book.Version(), book.Source())
	}
	count := 0
	for e := range book.All() {
		count++
		in, hasIn := e.Price("in")
		out, hasOut := e.Price("out")
		switch e.Mode {
		case pricing.ModeChat, pricing.ModeResponses, pricing.ModeCompletion:
			if !hasIn || !hasOut || in <= 0 || out <= 0 || in > out {
				t.Errorf("%s: in %d, out %d", e.Key, in, out)
			}
			if cached, ok := e.Price("in_cached"); ok && cached >= in {
				t.Errorf("%s: cached input costs %d, input %d", e.Key, cached, in)
			}
			if e.CtxIn == 0 {
				t.Errorf("%s: no context size", e.Key)
			}
			if _, err := e.Bound(1, 1, nil, ""); err != nil {
				t.Errorf("%s: Bound: %v", e.Key, err)
			}
		case pricing.ModeEmbedding:
			if !hasIn {
				t.Errorf("%s: no input price", e.Key)
			}
		}
		if e.Mode == pricing.ModeTool {
			continue
		}
		got, ok := book.Lookup(pricing.Query{
			Model: e.Model, Version: e.Version, SKU: e.SKU, Region: e.Region, Mode: e.Mode, At: now,
		})
		if !ok || !strings.HasPrefix(got.Key, e.Key) { // images: the price per image of a variant may be added
			t.Errorf("Lookup of %s finds %q, %v", e.Key, got.Key, ok)
		}
	}
	if count < 200 {
		t.Errorf("%d entries", count)
	}
}

// The book differs from the table it was made from in these places only.
// Each of them is explained in docs/PRICING.md.
var (
	leftOut = map[string]bool{
		"azure/command-r-plus": true, "azure/mistral-large-2402": true, "azure/mistral-large-latest": true, // not OpenAI models
		"azure/standard/1024-x-1024/dall-e-2": true, // price 0
		"azure/container":                     true, // a session meter, not a model
		"azure/ada":                           true, // text-embedding-ada-002
		"azure/gpt-4o-2024-11-20":             true, // regional or zone price; the global one has its own key
		"azure/gpt-4o-mini":                   true, // regional price: filed as Standard
		"azure/gpt-4o-mini-2024-07-18":        true, // regional price: filed as Standard
	}
	corrected = map[string]bool{
		"gpt-4o-mini/*/GlobalStandard/*": true, "gpt-4o-mini/*/Standard/*": true,
		"gpt-4o-mini/2024-07-18/GlobalStandard/*": true, "gpt-4o-mini/2024-07-18/Standard/*": true,
		"gpt-4o/2024-11-20/DataZoneStandard/us": true, "gpt-4o/2024-11-20/DataZoneStandard/eu": true,
		"gpt-5.4/*/DataZoneStandard/us": true, "gpt-5.4/*/DataZoneStandard/eu": true,
		"gpt-5.4/2026-03-05/DataZoneStandard/us": true, "gpt-5.4/2026-03-05/DataZoneStandard/eu": true,
		"audio_transcription:gpt-4o-transcribe/*/*/*":         true,
		"audio_transcription:gpt-4o-transcribe-diarize/*/*/*": true,
	}
)

func TestBuiltinBookAgainstItsSource(t *testing.T) {
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set: the price table that the book was made from is not here")
	}
	data, err := os.ReadFile(filepath.Join(dir, "prices", "azure-prices-pico.json"))
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Mode    pricing.Mode          `json:"mode"`
		CtxIn   int64                 `json:"ctx_in"`
		MaxOut  int64                 `json:"max_out"`
		Long    int64                 `json:"long_threshold"`
		PicoUSD map[string]money.Pico `json:"pico_usd"`
	}
	var table struct {
		Prices map[string]row `json:"prices"`
	}
	if err := json.Unmarshal(data, &table); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for key, want := range table.Prices {
		if leftOut[key] {
			continue
		}
		name, sku, region := strings.TrimPrefix(key, "azure/"), "GlobalStandard", ""
		if zone, rest, ok := strings.Cut(name, "/"); ok {
			switch zone {
			case "us", "eu":
				name, sku, region = rest, "DataZoneStandard", zone
			case "global", "global-standard":
				name = rest
			}
		}
		e, ok := pricing.Builtin().Lookup(pricing.Query{Model: name, SKU: sku, Region: region, Mode: want.Mode, At: now})
		if !ok {
			t.Errorf("%s is not in the book", key)
			continue
		}
		key, _, _ := strings.Cut(e.Key, "+") // without the variant of images
		used[key] = true
		if corrected[e.Key] || strings.HasPrefix(e.Model, "gpt-5.6") {
			continue
		}
		for meter, price := range want.PicoUSD {
			if exact, _ := e.Price(meter); e.Region != "" && roundedUp(exact, price) {
				want.PicoUSD[meter] = exact
			}
		}
		got := row{Mode: e.Mode, CtxIn: e.CtxIn, MaxOut: e.MaxOut, Long: e.LongThreshold, PicoUSD: map[string]money.Pico{}}
		for meter := range want.PicoUSD {
			got.PicoUSD[meter], _ = e.Price(meter)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-table +book):\n%s", key, diff)
		}
	}
	for e := range pricing.Builtin().All() {
		if !used[e.Key] && !corrected[e.Key] && e.Mode != pricing.ModeTool {
			t.Errorf("%s is in the book but not in its source", e.Key)
		}
	}
}

// roundedUp tells whether a price is another one, rounded up to the next 0.01 or
// 0.001 USD per million tokens: so the table has some prices of data zones.
func roundedUp(exact, price money.Pico) bool {
	up := func(unit money.Pico) money.Pico { return (exact + unit - 1) / unit * unit }
	return price == up(10_000) || price == up(1000)
}

func TestCorrections(t *testing.T) {
	f := func(model, sku, region, meter string, want money.Pico) {
		t.Helper()
		e, _ := pricing.Builtin().Lookup(pricing.Query{Model: model, SKU: sku, Region: region, At: now})
		if got, _ := e.Price(meter); got != want {
			t.Errorf("%s %s %s: %s = %d; want %d", model, sku, region, meter, got, want)
		}
	}
	f("gpt-4o-mini", "", "", "in", 150_000)
	f("gpt-4o-mini", "", "", "in_cached", 75_000)
	f("gpt-4o-mini-2024-07-18", "", "", "out", 600_000)
	f("gpt-4o-mini", "Standard", "eastus", "in", 165_000)
	f("gpt-4o-2024-11-20", "", "", "in", 2_500_000)
	f("gpt-4o-2024-11-20", "DataZoneStandard", "westeurope", "in_cached", 1_375_000)
	f("gpt-4o-2024-11-20", "DataZoneStandard", "westeurope", "in_cache_write", 0)
	f("gpt-5.6-sol", "", "", "in_cache_write", 6_250_000)
	f("gpt-5.6-luna", "", "", "in", 200_000)
	f("gpt-5.6-luna", "", "", "long_out", 1_800_000)
	f("gpt-5.6-luna", "DataZoneStandard", "eastus2", "in", 220_000)
	f("gpt-5.6-luna", "DataZoneStandard", "West Europe", "out", 1_650_000)
	f("gpt-5.4", "DataZoneStandard", "us", "long_in", 5_500_000)
	// Zones cost 1.1 times the global price, not that rounded up.
	f("gpt-5.1", "DataZoneStandard", "eastus", "in", 1_375_000)
	f("gpt-5.1-codex", "DataZoneStandard", "eu", "in_cached", 137_500)
	f("gpt-5.1-codex-mini", "DataZoneStandard", "eu", "in_cached", 27_500)
	f("gpt-5.4", "DataZoneStandard", "us", "long_in_cached", 550_000)
	f("gpt-5.5", "DataZoneStandard", "us", "prio_in_cached", 1_375_000)
	f("o4-mini-2025-04-16", "DataZoneStandard", "us", "in_cached", 302_500)
	f("gpt-4o-mini", "Standard", "eastus", "in_cached", 82_500)
}

func TestLookup(t *testing.T) {
	f := func(q pricing.Query, want string) {
		t.Helper()
		q.At = now
		got, ok := pricing.Builtin().Lookup(q)
		if got.Key != want || ok != (want != "") {
			t.Errorf("Lookup(%+v) = %q, %v; want %q", q, got.Key, ok, want)
		}
	}
	const zone = "DataZoneStandard"
	f(pricing.Query{Model: "gpt-4o"}, "gpt-4o/*/GlobalStandard/*")
	f(pricing.Query{Model: "GPT-4o-2024-11-20"}, "gpt-4o/2024-11-20/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4o", Version: "2024-05-13", SKU: "globalstandard"}, "gpt-4o/2024-05-13/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4o-2024-08-06", Version: "2024-11-20"}, "gpt-4o/2024-11-20/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4o-2024-08-06", Version: "unheard-of"}, "gpt-4o/2024-08-06/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4o-2030-01-01"}, "gpt-4o/*/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4o", Version: "2024-11-20", SKU: zone, Region: "eastus"}, "gpt-4o/2024-11-20/DataZoneStandard/us")
	f(pricing.Query{Model: "gpt-4o", Version: "2024-11-20", SKU: zone, Region: "Sweden Central"}, "gpt-4o/2024-11-20/DataZoneStandard/eu")
	f(pricing.Query{Model: "gpt-4o", Version: "2024-11-20", SKU: zone, Region: "eu"}, "gpt-4o/2024-11-20/DataZoneStandard/eu")
	f(pricing.Query{Model: "gpt-4o", Version: "2024-11-20", SKU: zone, Region: "japaneast"}, "")
	f(pricing.Query{Model: "gpt-4o", Version: "2024-11-20", SKU: zone}, "")
	// Other versions have other prices.
	f(pricing.Query{Model: "gpt-4o", Version: "2025-01-01", SKU: zone, Region: "us"}, "")
	f(pricing.Query{Model: "gpt-5-mini", SKU: zone, Region: "us"}, "gpt-5-mini/2025-08-07/DataZoneStandard/us") // dated only
	f(pricing.Query{Model: "gpt-4o", SKU: zone, Region: "us"}, "gpt-4o/2024-08-06/DataZoneStandard/us")         // the dearest, first by key
	f(pricing.Query{Model: "gpt-4.1", SKU: "Standard"}, "")
	f(pricing.Query{Model: "gpt-4o-2024-11-20", SKU: "Standard", Region: "eastus"}, "")
	f(pricing.Query{Model: "gpt-4o", SKU: "ProvisionedManaged"}, "") // nor has Standard, its spill-over
	f(pricing.Query{Model: "gpt-4o", SKU: "DeveloperTier"}, "")
	f(pricing.Query{Model: "gpt-4o", SKU: "Nonsense"}, "")
	f(pricing.Query{Model: "web_search", Mode: pricing.ModeTool}, "tool:web_search/*/*/*")
	f(pricing.Query{Model: "web_search"}, "")
	// A fine-tuned model has the price of its base model.
	f(pricing.Query{Model: "ft:gpt-4o-2024-08-06:org::id"}, "gpt-4o/2024-08-06/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4o-2024-08-06.ft-0123456789abcdef"}, "gpt-4o/2024-08-06/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-35-turbo"}, "gpt-3.5-turbo/*/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-3.5-turbo-1106"}, "gpt-3.5-turbo/1106/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-35-turbo", Version: "1106"}, "gpt-3.5-turbo/1106/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-35-turbo-instruct:20230824-v2", Mode: pricing.ModeCompletion}, "gpt-3.5-turbo-instruct/*/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4", Version: "0125-Preview"}, "gpt-4/0125-preview/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4", Version: "turbo-2024-04-09"}, "gpt-4-turbo/2024-04-09/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4", Version: "vision-preview"}, "gpt-4-turbo-vision-preview/*/GlobalStandard/*")
	f(pricing.Query{Model: "gpt-4-vision-preview"}, "gpt-4-turbo-vision-preview/*/GlobalStandard/*")
	// One price is known of these, and is that of all deployment types.
	f(pricing.Query{Model: "whisper", Version: "001", SKU: "Standard", Region: "northcentralus", Mode: pricing.ModeTranscription}, "audio_transcription:whisper-1/*/*/*")
	f(pricing.Query{Model: "tts-hd", SKU: "Standard", Mode: pricing.ModeSpeech}, "audio_speech:tts-1-hd/*/*/*")
	f(pricing.Query{Model: "dall-e-3", Version: "3.0", SKU: "Standard", Mode: pricing.ModeImage}, "image_generation:standard/1024-x-1024/dall-e-3/*/*/*")
	f(pricing.Query{Model: "text-embedding-3-small", Version: "1", SKU: "Standard", Mode: pricing.ModeEmbedding}, "embedding:text-embedding-3-small/*/*/*")
	f(pricing.Query{Model: "gpt-5-pro", Mode: pricing.ModeChat}, "gpt-5-pro/*/GlobalStandard/*") // modes of text are one family
	f(pricing.Query{Model: "gpt-4o", Mode: pricing.ModeEmbedding}, "")
	f(pricing.Query{Model: "ada", Mode: pricing.ModeEmbedding}, "embedding:text-embedding-ada-002/*/*/*")
	f(pricing.Query{Model: "ada"}, "")
	f(pricing.Query{Model: "text-embedding-ada-002-v2", Mode: pricing.ModeEmbedding},
		"embedding:text-embedding-ada-002/*/*/*")
	f(pricing.Query{Model: "text-embedding-3-small", Version: "1", Mode: pricing.ModeEmbedding},
		"embedding:text-embedding-3-small/*/*/*")
	// Names that contain a known name are other models.
	for _, name := range []string{
		"", "gpt", "gpt-4o-min", "gpt-4o-miniature", "my-gpt-4o", "gpt-4o-2024", "gpt-5-huge", "gpt-5.6-sol-x", "dall-e-2",
		"ft:gpt-4o", "ft::gpt-4o", "gpt-4o.ft-", "gpt-4o-ft-x", "ft:unheard-of:org::id", "command-r-plus", "gpt-350-turbo",
	} {
		f(pricing.Query{Model: name}, "")
	}
}

func TestDearest(t *testing.T) {
	f := func(mode pricing.Mode, want string) {
		t.Helper()
		if got, ok := pricing.Builtin().Dearest(mode, now); got.Key != want || ok != (want != "") {
			t.Errorf("Dearest(%s) = %q, %v; want %q", mode, got.Key, ok, want)
		}
	}
	f(pricing.ModeChat, "gpt-5.4-pro/*/GlobalStandard/*")
	f(pricing.ModeResponses, "gpt-5.4-pro/*/GlobalStandard/*")
	f(pricing.ModeEmbedding, "embedding:text-embedding-3-large/*/*/*")
	f(pricing.ModeImage, "image_generation:gpt-image-1/*/*/*")
	f(pricing.ModeTranscription, "audio_transcription:gpt-4o-transcribe-diarize/*/*/*") // the first by key
	f(pricing.ModeVideo, "video_generation:sora-2-pro-high-res/*/GlobalStandard/*")
	f(pricing.ModeTool, "")
	f("unheard-of", "")
	e, _ := pricing.Builtin().Dearest(pricing.ModeSpeech, now)
	got, err := e.Charge(usage.Usage{}, []usage.Item{{Meter: usage.ItemCharacter, Quantity: 1000}}, "")
	if err != nil || got.List.String() != "0.03" {
		t.Errorf("the dearest 1000 characters: %v, %v", got.List, err)
	}
}

// TestDearestCharges: what is charged is compared, not what is listed.
func TestDearestCharges(t *testing.T) {
	book := parse(t, `{"prices":[
		{"model":"listed","pico_usd":{"in":1000,"out":9000,"web_search_call":5000}},
		{"model":"charged","multiplier_ppm":5000000,"pico_usd":{"in":1000,"out":2000}},
		{"model":"web_search","mode":"tool","multiplier_ppm":3000000,"pico_usd":{"web_search_call":2000}}]}`)
	e, _ := book.Dearest(pricing.ModeChat, now)
	cost, err := e.Charge(usage.Usage{Completion: usage.Of(1)}, []usage.Item{{Meter: usage.ItemWebSearch, Quantity: 1}}, "")
	if err != nil || e.Model != "charged" || cost.Charged != 16 { // 2 x 5 and 2 x 3
		t.Errorf("%s: %v, %v", e.Key, cost, err)
	}
}

func TestNormalizeModel(t *testing.T) {
	f := func(name, model, version string) {
		t.Helper()
		if m, v := pricing.NormalizeModel(name); m != model || v != version {
			t.Errorf("NormalizeModel(%q) = %q, %q; want %q, %q", name, m, v, model, version)
		}
	}
	f(" Azure/GPT-35-Turbo-0613 ", "gpt-3.5-turbo", "0613")
	f("gpt-35-turbo-16k", "gpt-3.5-turbo-16k", "")
	f("gpt-4-1106-preview", "gpt-4", "1106-preview")
	f("gpt-4o-mini-2024-07-18", "gpt-4o-mini", "2024-07-18")
	f("davinci:2023-07-21-v2", "davinci", "")
	f("gpt-3.5-turbo-instruct:20230824-v2", "gpt-3.5-turbo-instruct", "")
	f("ft:gpt-35-turbo-0613:org:name:id", "gpt-3.5-turbo", "0613")
	f("gpt-35-turbo-0613.ft-abc", "gpt-3.5-turbo", "0613")
	f("chat-latest-08062026", "chat-latest", "08062026")
	f("chat-latest-99992026", "chat-latest-99992026", "")
	f("ft:", "ft:", "")
	f("ft::", "ft::", "")
	f(".ft-x", ".ft-x", "")
	f("gpt-4o:mine", "gpt-4o:mine", "")
	f("text-embedding-ada-002", "text-embedding-ada-002", "")
	f("model-9999", "model-9999", "")
	f("-2024-11-20", "-2024-11-20", "")
	f("0613", "0613", "")
	f("-v2", "-v2", "")
	f("", "", "")
}

func TestOverlay(t *testing.T) {
	parse := func(text string) *pricing.Book {
		t.Helper()
		book, err := pricing.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return book
	}
	base := parse(`{"version":"1","prices":[
		{"model":"m","sku":"GlobalStandard","mode":"chat","pico_usd":{"in":1,"out":2}},
		{"model":"m","sku":"GlobalStandard","mode":"chat","from":"2026-01-01","pico_usd":{"in":3,"out":4}}]}`)
	both := base.With(parse(`{"version":"x","prices":[
		{"model":"m","sku":"GlobalStandard","mode":"responses","pico_usd":{"in":5,"out":6}},
		{"model":"m","version":"2","region":"eastus","pico_usd":{"in":7,"out":8}},
		{"model":"m","from":"2026-06-01","pico_usd":{"in":9,"out":9}}]}`))
	if both.Version() != "1+x" {
		t.Errorf("version %q", both.Version())
	}
	f := func(book *pricing.Book, q pricing.Query, want money.Pico) {
		t.Helper()
		q.Model = "m"
		e, _ := book.Lookup(q)
		if in, _ := e.Price("in"); in != want {
			t.Errorf("%s %+v: in = %d, want %d", book.Version(), q, in, want)
		}
	}
	f(base, pricing.Query{At: time.Date(2025, 12, 31, 23, 59, 59, 0, time.UTC)}, 1)
	f(base, pricing.Query{At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, 3)
	f(both, pricing.Query{At: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}, 5) // replaced
	f(both, pricing.Query{At: now}, 5)                                         // the overlay goes before a later date of the book
	f(both, pricing.Query{At: now, SKU: "Standard"}, 9)
	f(both, pricing.Query{At: now, Version: "2", Region: "East US"}, 7)
	f(both, pricing.Query{At: now, Version: "2"}, 5)
	if unnamed := parse(`{"prices":[]}`); len(unnamed.Version()) != 8 {
		t.Errorf("a book without version is called %q", unnamed.Version())
	}
}
