package pricing_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/usage"
)

func entry(t testing.TB, q pricing.Query) pricing.Entry {
	t.Helper()
	q.At = now
	e, ok := pricing.Builtin().Lookup(q)
	if !ok {
		t.Fatalf("no price for %+v", q)
	}
	return e
}

func parse(t testing.TB, text string) *pricing.Book {
	t.Helper()
	book, err := pricing.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return book
}

// TestChargeOfKnownBills computes costs that a provider printed in its answers.
func TestChargeOfKnownBills(t *testing.T) {
	f := func(model string, u usage.Usage, want string, items ...usage.Item) {
		t.Helper()
		e := entry(t, pricing.Query{Model: model})
		if got, err := e.Charge(u, items, "default"); err != nil || got.List.String() != want || got.Charged != got.List {
			t.Errorf("%s %+v: %v, %v; want %s", model, u, got, err, want)
		}
	}
	n := usage.Of
	f("gpt-5.6-sol", usage.Usage{Prompt: n(4020), CacheWrite: n(4012), Completion: n(5)}, "0.025265")
	f("gpt-5.6-sol", usage.Usage{Prompt: n(4020), Cached: n(4012), Completion: n(5)}, "0.002196")
	f("gpt-5-mini", usage.Usage{Prompt: n(37), Completion: n(92), Reasoning: n(64)}, "0.00019325")
	f("gpt-4.1-mini", usage.Usage{Prompt: n(8174), Completion: n(30)}, "0.0033176")
	f("gpt-4.1-mini", usage.Usage{Prompt: n(8174), Completion: n(30)}, "0.0133176", usage.Item{Meter: usage.ItemWebSearch, Quantity: 1})
	f("gpt-4o-mini", usage.Usage{Prompt: n(14), Completion: n(7)}, "0.0000063")
	f("gpt-5-nano", usage.Usage{Prompt: n(1), Cached: n(1)}, "0.000000005")
	f("gpt-4o", usage.Usage{}, "0")
}

func TestChargeBands(t *testing.T) {
	f := func(q pricing.Query, prompt, completion int64, tier, want string) {
		t.Helper()
		e := entry(t, q)
		got, err := e.Charge(usage.Usage{Prompt: usage.Of(prompt), Completion: usage.Of(completion)}, nil, tier)
		if err != nil || got.List.String() != want {
			t.Errorf("%+v %d/%d %q: %v, %v; want %s", q, prompt, completion, tier, got, err, want)
		}
	}
	long := pricing.Query{Model: "gpt-5.5"}
	f(long, 272_000, 1000, "", "1.39")                                 // 272000 x 5 + 1000 x 30
	f(long, 272_001, 1000, "", "2.76501")                              // the whole request: x 10 and x 45
	f(long, 272_000, 1000, "priority", "2.78")                         // x 10 and x 60
	f(long, 272_001, 1000, "priority", "5.53002")                      // x 20 and x 90
	f(pricing.Query{Model: "gpt-4o"}, 1000, 1000, "priority", "0.025") // no priority price: twice the standard one
	f(pricing.Query{Model: "gpt-5.1-codex-mini-2025-11-13"}, 1000, 1000, "priority", "0.00405")
	zone := pricing.Query{Model: "gpt-5.5", SKU: "DataZoneStandard", Region: "us"}
	f(zone, 1000, 1000, "priority", "0.09625")                                                                     // 2.5 times the zone's price, from the book
	f(zone, 300_000, 0, "priority", "8.25")                                                                        // 13.75 x 2: both multiples
	f(zone, 300_000, 1000, "", "3.3495")                                                                           // 11 and 49.5
	f(pricing.Query{Model: "gpt-5.4", SKU: "DataZoneStandard", Region: "us"}, 1000, 1000, "priority", "0.0385")    // the book says 2 times
	f(pricing.Query{Model: "o3-2025-04-16", SKU: "DataZoneStandard", Region: "us"}, 1000, 0, "priority", "0.0055") // 2.2 x 2.5: no figure
	f(pricing.Query{Model: "gpt-5.4-pro"}, 300_000, 1000, "priority", "36.54")                                     // 30 x 2 x 2, 180 x 2 x 1.5
}

// TestChargeOfBatch has the example that Azure works out for gpt-5.5 in a data
// zone, batch, long context.
func TestChargeOfBatch(t *testing.T) {
	book := pricing.Builtin().With(parse(t, `{"version":"x","prices":[
		{"model":"mine","pico_usd":{"in":1001,"in_cached":500,"out":4000,"batch_in":600,"batch_in_cached":100,"batch_out":1000}},
		{"model":"half","pico_usd":{"in":1001,"out":4001}},
		{"model":"own","pico_usd":{"in":1000,"out":4000}},
		{"model":"own","sku":"GlobalBatch","pico_usd":{"in":900,"out":4000}}]}`))
	f := func(q pricing.Query, u usage.Usage, key, want string) {
		t.Helper()
		q.At = now
		e, ok := book.Lookup(q)
		if !ok || e.Key != key || e.SKU != q.SKU {
			t.Errorf("%+v: key %q, SKU %s; want %q", q, e.Key, e.SKU, key)
		}
		if got, err := e.Charge(u, nil, ""); err != nil || got.List.String() != want {
			t.Errorf("%+v %+v: %v, %v; want %s", q, u, got, err, want)
		}
	}
	use := func(prompt, cached, completion int64) usage.Usage {
		return usage.Usage{Prompt: usage.Of(prompt), Cached: usage.Of(cached), Completion: usage.Of(completion)}
	}
	zone := pricing.Query{Model: "gpt-5.5", SKU: "DataZoneBatch", Region: "eastus2"}
	f(zone, use(272_001, 0, 1000), "gpt-5.5/*/DataZoneStandard/us+batch", "1.5207555")
	f(zone, use(272_000, 0, 1000), "gpt-5.5/*/DataZoneStandard/us+batch", "0.7645")
	f(pricing.Query{Model: "gpt-4.1", SKU: "GlobalBatch"}, use(1_000_000, 0, 1_000_000), "gpt-4.1/*/GlobalStandard/*+batch", "5")
	f(pricing.Query{Model: "gpt-4.1-nano-2025-04-14", SKU: "DataZoneBatch", Region: "us"}, use(1_000_000, 0, 0),
		"gpt-4.1-nano/2025-04-14/DataZoneStandard/us+batch", "0.06") // the book's figure, not half of 0.11
	f(pricing.Query{Model: "mine", SKU: "GlobalBatch"}, use(1000, 400, 10), "mine/*/*/*+batch", "0.00000041")  // 600 x 600 + 400 x 100 + 10 x 1000
	f(pricing.Query{Model: "half", SKU: "GlobalBatch"}, use(1000, 0, 1000), "half/*/*/*+batch", "0.000002502") // 500.5 and 2000.5, up
	f(pricing.Query{Model: "own", SKU: "GlobalBatch"}, use(1000, 0, 0), "own/*/GlobalBatch/*", "0.0000009")
	if e, ok := book.Lookup(pricing.Query{Model: "dall-e-3", SKU: "GlobalBatch", Mode: pricing.ModeImage, At: now}); ok {
		t.Errorf("images in batch: %s", e.Key)
	}
}

func TestChargeOfParts(t *testing.T) {
	book := parse(t, `{"prices":[
		{"model":"plain","pico_usd":{"in":1000,"out":4000}},
		{"model":"gpt-5.6-x","pico_usd":{"in":1000,"in_cached":100,"out":4000}},
		{"model":"gpt-6","pico_usd":{"in":1000,"out":4000}},
		{"model":"gpt-5","pico_usd":{"in":1000,"out":4000}},
		{"model":"sound","pico_usd":{"in":1000,"in_cached":500,"out":4000,"audio_in":16000,"audio_in_cached":2000,"audio_out":32000}},
		{"model":"all","long_threshold":100,"pico_usd":{"in":1000,"out":4000,"audio_in":16000,"audio_out":32000,"image_out":64000,
			"prio_in":2000,"prio_audio_in":20000,"prio_out":12000,"prio_in_cache_write":7000,
			"long_in":3000,"long_in_cache_write":5000,"long_audio_out":40000,"long_image_in":9000,
			"long_prio_in":5000,"long_prio_audio_in":50000}},
		{"model":"vector","mode":"embedding","pico_usd":{"in":1000}},
		{"model":"painter","mode":"image_generation","pico_usd":{"in":1000,"image_in":2000,"out":3000,"image_out":8000}},
		{"model":"print","mode":"image_generation","pico_usd":{"per_image":1000}},
		{"model":"dear","pico_usd":{"in":1000000000000000,"out":1000000000000000}}]}`)
	tier := ""
	f := func(model string, mode pricing.Mode, u usage.Usage, want money.Nano) {
		t.Helper()
		e, _ := book.Lookup(pricing.Query{Model: model, Mode: mode})
		if got, err := e.Charge(u, nil, tier); err != nil || got.List != want {
			t.Errorf("%s %+v %q = %d, %v; want %d", model, u, tier, got, err, want)
		}
	}
	n := usage.Of
	f("plain", "", usage.Usage{Prompt: n(10), Cached: n(4), CacheWrite: n(3), Completion: n(1)}, 14)
	f("plain", "", usage.Usage{Prompt: n(10), ImageIn: n(4)}, 10)              // images are sold as input tokens
	f("plain", "", usage.Usage{Prompt: n(10), AudioIn: n(4)}, 22)              // no audio price: the dearer of input and output
	f("plain", "", usage.Usage{Completion: n(3), ImageOut: n(1)}, 12)          // nor one of images
	f("plain", "", usage.Usage{Prompt: n(2), Cached: n(10)}, 2)                // parts above the total count up to it
	f("plain", "", usage.Usage{Cached: n(10), AudioOut: n(1)}, 14)             // no total: the parts
	f("sound", "", usage.Usage{Prompt: n(5), AudioIn: n(4), Cached: n(4)}, 65) // the dearest first: 4 x 16 + 1 x 0.5, up
	// What is too much is taken from the cheapest, whatever it is.
	f("gpt-6", "", usage.Usage{Prompt: n(8), CacheWrite: n(8), ImageIn: n(6)}, 10) // 8 x 1.25, none at 1
	f("gpt-5.6-x", "", usage.Usage{Prompt: n(10), Cached: n(10), ImageIn: n(8)}, 9)
	f("sound", "", usage.Usage{Prompt: n(4), AudioIn: n(4), AudioInCached: n(4), ImageIn: n(4), CacheWrite: n(4)}, 8)
	f("painter", pricing.ModeImage, usage.Usage{Completion: n(5), AudioOut: n(5), ImageOut: n(5)}, 40)
	f("plain", "", usage.Usage{Prompt: n(-2), Cached: n(-10), Completion: n(-1)}, 0)
	f("gpt-5.6-x", "", usage.Usage{Prompt: n(10), Cached: n(5), CacheWrite: n(4)}, 7) // 1 + 0.5 + 5, rounded up once
	f("gpt-6", "", usage.Usage{Prompt: n(4), CacheWrite: n(4)}, 5)
	f("gpt-5", "", usage.Usage{Prompt: n(4), CacheWrite: n(4)}, 4)
	f("sound", "", usage.Usage{
		Prompt: n(100), Cached: n(30), AudioIn: n(40), AudioInCached: n(10), Completion: n(9), AudioOut: n(8),
	}, 40+20*1/2+30*16+10*2+4+8*32)
	f("vector", pricing.ModeEmbedding, usage.Usage{Prompt: n(10)}, 10)
	f("painter", pricing.ModeImage, usage.Usage{Prompt: n(10), ImageIn: n(4), Completion: n(2)}, 6+8+16) // no split: the dearer
	f("painter", pricing.ModeImage, usage.Usage{Prompt: n(10), Completion: n(5), ImageOut: n(4)}, 10+32+3)
	f("painter", pricing.ModeImage, usage.Usage{Completion: n(5), ImageOut: n(0)}, 15)
	parts := usage.Usage{Prompt: n(100), AudioIn: n(10), CacheWrite: n(10), ImageIn: n(10), Completion: n(30), AudioOut: n(10), ImageOut: n(10)}
	longer := parts
	longer.Prompt = n(101)
	f("all", "", parts, 70+160+10+10+40+320+640)
	f("all", "", longer, 71*3+480+50+90+120+400+1920) // audio in, image out in proportion
	tier = "priority"
	f("all", "", parts, 70*2+200+70+20+120+960+1920)        // outputs in the proportion of output: x 3
	f("all", "", longer, 71*5+500+175+50+360+10*288+10*576) // cache write 7 x 5/2; output 12 x 12/4 = 36
	for model, wantErr := range map[string]error{"print": pricing.ErrNoTokenPrice, "dear": money.ErrRange} {
		mode := pricing.ModeChat
		if model == "print" {
			mode = pricing.ModeImage
		}
		e, _ := book.Lookup(pricing.Query{Model: model, Mode: mode})
		if _, err := e.Charge(usage.Usage{Prompt: n(math.MaxInt64)}, nil, ""); !errors.Is(err, wantErr) {
			t.Errorf("%s: %v; want %v", model, err, wantErr)
		}
		if _, err := e.Bound(math.MaxInt64, 0, nil, ""); !errors.Is(err, wantErr) {
			t.Errorf("%s: Bound: %v; want %v", model, err, wantErr)
		}
		if got := e.OutputWithin(5, math.MaxInt64, nil, ""); got != 0 {
			t.Errorf("%s: OutputWithin = %d", model, got)
		}
	}
}

func TestChargeOfItems(t *testing.T) {
	book := pricing.Builtin().With(parse(t, `{"version":"x","prices":[
		{"model":"odd","mode":"audio_transcription","pico_usd":{"sec_in":1}},
		{"model":"dear","mode":"audio_transcription","pico_usd":{"sec_in":1000000000000000}},
		{"model":"own","pico_usd":{"in":1000000,"out":1000000,"web_search_call":7000000000}},
		{"model":"web_search","mode":"tool","region":"westeurope","pico_usd":{"web_search_call":14000000000}},
		{"model":"web_search","mode":"tool","from":"2027-01-01","pico_usd":{"web_search_call":1000000000}}]}`))
	f := func(q pricing.Query, u usage.Usage, want string, meter string, quantity int64) {
		t.Helper()
		if q.At.IsZero() {
			q.At = now
		}
		e, ok := book.Lookup(q)
		items := []usage.Item{{Meter: meter, Quantity: quantity}}
		got, err := e.Charge(u, items, "")
		if !ok || err != nil || got.List.String() != want {
			t.Errorf("%s, %d x %s: %v, %v; want %s", e.Key, quantity, meter, got.List, err, want)
		}
		bound, err := e.Bound(u.Prompt.N, u.Completion.N, items, "")
		if err != nil || bound < got.Charged || !e.Sells(meter) {
			t.Errorf("%s, %d x %s: Bound %v, %v; sells it: %v", e.Key, quantity, meter, bound, err, e.Sells(meter))
		}
	}
	none := usage.Usage{}
	chat := pricing.Query{Model: "gpt-5-mini"}
	f(chat, usage.Usage{Prompt: usage.Of(1000), Completion: usage.Of(0)}, "0.03025", usage.ItemWebSearch, 3)
	f(chat, none, "0.0025", usage.ItemFileSearch, 1)
	f(chat, none, "0.06", usage.ItemCodeInterpreter, 2)
	f(pricing.Query{Model: "own"}, none, "0.007", usage.ItemWebSearch, 1)
	f(pricing.Query{Model: "gpt-5-mini", Region: "West Europe"}, none, "0.014", usage.ItemWebSearch, 1)
	f(pricing.Query{Model: "gpt-5-mini", At: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}, none, "0.001", usage.ItemWebSearch, 1)
	speech := func(model string) pricing.Query { return pricing.Query{Model: model, Mode: pricing.ModeSpeech} }
	f(speech("tts-1"), none, "0.000015", usage.ItemCharacter, 1)
	f(speech("tts-1-hd"), none, "0.123", usage.ItemCharacter, 4100)
	f(speech("gpt-4o-mini-tts"), none, "0.000275", usage.ItemAudioOut, 1100)
	heard := func(model string) pricing.Query { return pricing.Query{Model: model, Mode: pricing.ModeTranscription} }
	f(heard("whisper-1"), none, "0.00001", usage.ItemAudioIn, 100)
	f(heard("whisper-1"), none, "0.36", usage.ItemAudioIn, 3_600_000)
	f(heard("gpt-realtime-whisper"), none, "0.000028334", usage.ItemAudioIn, 100) // 28 333 333.4 pico, up
	f(heard("gpt-realtime-whisper"), none, "0.283333334", usage.ItemAudioIn, 1e6) // nothing to round
	f(heard("odd"), none, "0.000000001", usage.ItemAudioIn, 1)                    // a thousandth of a pico
	f(heard("odd"), none, "0.000000002", usage.ItemAudioIn, 1_000_001)            // a thousandth more than a nano
	f(pricing.Query{Model: "sora-2", Mode: pricing.ModeVideo}, none, "0.8", "video_sec", 8)
	fails := func(q pricing.Query, u usage.Usage, items []usage.Item, want error, says string) {
		t.Helper()
		q.At = now
		e, _ := book.Lookup(q)
		if got, err := e.Charge(u, items, ""); !errors.Is(err, want) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s %+v %v: %v, %v; want %v, naming %q", e.Key, u, items, got, err, want, says)
		}
		if got, err := e.Bound(u.Prompt.N, u.Completion.N, items, ""); !errors.Is(err, want) {
			t.Errorf("%s: Bound: %v, %v; want %v", e.Key, got, err, want)
		}
	}
	item := func(meter string, n int64) []usage.Item { return []usage.Item{{Meter: meter, Quantity: n}} }
	fails(chat, none, item("bing_grounding_call", 1), pricing.ErrNoPrice, "bing_grounding_call")
	fails(chat, none, item(usage.ItemImage, 1), pricing.ErrNoPrice, "per_image")
	fails(chat, none, item("sec_in", 1), pricing.ErrNoPrice, "sec_in") // a price's name, but no item's
	fails(heard("whisper-1"), none, item(usage.ItemWebSearch, 1), pricing.ErrNoPrice, "web_search_call")
	fails(heard("whisper-1"), usage.Usage{Prompt: usage.Of(1)}, item(usage.ItemAudioIn, 1), pricing.ErrNoTokenPrice, "")
	fails(heard("whisper-1"), none, nil, pricing.ErrNoTokenPrice, "")
	fails(heard("dear"), none, item(usage.ItemAudioIn, math.MaxInt64), money.ErrRange, "")
	e, _ := book.Lookup(chat)
	if e.Sells("") || e.Sells(usage.ItemImage) || !e.SellsTokens() {
		t.Error("a chat model sells what it does not")
	}
	if got, err := e.Charge(none, item("unheard-of", 0), ""); err != nil || got.List != 0 {
		t.Errorf("none of an unknown item: %v, %v", got, err)
	}
}

func TestMultipliers(t *testing.T) {
	book := parse(t, `{"version":"1","multiplier_ppm":500000,"prices":[
		{"model":"m","pico_usd":{"in":1001,"out":3000}},
		{"model":"cut","multiplier_ppm":333333,"pico_usd":{"in":1001,"out":3000}},
		{"model":"web_search","mode":"tool","multiplier_ppm":250000,"pico_usd":{"web_search_call":1000000}}]}`)
	f := func(book *pricing.Book, model string, markup int64, u usage.Usage, items []usage.Item, list, charged money.Nano) {
		t.Helper()
		e, ok := book.Lookup(pricing.Query{Model: model, At: now})
		if !ok {
			t.Fatalf("no price for %s", model)
		}
		e = e.WithMarkup(markup)
		got, err := e.Charge(u, items, "")
		if err != nil || got != (pricing.Cost{List: list, Charged: charged}) {
			t.Errorf("%s x %d: %+v, %v; want %d, %d", model, markup, got, err, list, charged)
		}
		bound, err := e.Bound(u.Prompt.N, u.Completion.N, items, "")
		if err != nil || bound != charged {
			t.Errorf("%s x %d: Bound %d, %v; want %d", model, markup, bound, err, charged)
		}
	}
	in := func(n int64) usage.Usage { return usage.Usage{Prompt: usage.Of(n)} }
	search := []usage.Item{{Meter: usage.ItemWebSearch, Quantity: 1}}
	f(book, "m", money.PPM, in(1000), nil, 1001, 501)                 // 500.5, up
	f(book, "m", 2_000_000, in(1000), nil, 1001, 1001)                // both in one: nothing to round
	f(book, "m", 0, in(1000), nil, 1001, 501)                         // none
	f(book, "m", 1, in(1000), nil, 1001, 1)                           // never nothing
	f(book, "m", math.MaxInt64, in(1000), nil, 1001, 50_050)          // MultiplierMax
	f(book, "cut", money.PPM, in(1_000_000), nil, 1_001_000, 166_834) // x 0.5 x 0.333333 = 166833.1665
	f(book, "cut", 3_000_000, in(1_000_000), nil, 1_001_000, 500_500) // 500499.4995
	f(book, "m", 2_000_000, in(1), search, 1002, 252)                 // 1.001 + 1000 x 0.25: the tool has a multiplier of its own
	f(book, "cut", 2_000_000, in(3), search, 1004, 252)               // 3.003 x 0.333333 + 250 = 251.001
	whole := pricing.Builtin().With(book)
	f(whole, "gpt-4o-mini", money.PPM, in(14), nil, 2100, 1050) // the book's entries too
	if agreement, own, markup := func() (int64, int64, int64) {
		e, _ := whole.Lookup(pricing.Query{Model: "cut"})
		e = e.WithMarkup(7)
		return e.Multipliers()
	}(); agreement != 500_000 || own != 333_333 || markup != 7 {
		t.Errorf("multipliers %d, %d, %d", agreement, own, markup)
	}
	// $0.01 buys 10 000 nano-USD worth of output at half price.
	e, _ := book.Lookup(pricing.Query{Model: "m"})
	if got := e.OutputWithin(10_000_000, 1000, nil, ""); got != 6_666_333 { // (10 000 000 - 500.5) / 1.5
		t.Errorf("OutputWithin = %d", got)
	}
}

// TestEffectiveDates: the first day begins at midnight, UTC.
func TestEffectiveDates(t *testing.T) {
	book := parse(t, `{"prices":[
		{"model":"m","pico_usd":{"in":1,"out":1}},
		{"model":"m","from":"2026-11-24","pico_usd":{"in":2,"out":2}},
		{"model":"m","from":"2026-12-01","pico_usd":{"in":3,"out":3}}]}`)
	f := func(at string, want money.Pico) {
		t.Helper()
		when, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			t.Fatal(err)
		}
		e, _ := book.Lookup(pricing.Query{Model: "m", At: when})
		if got, _ := e.Price("in"); got != want {
			t.Errorf("%s: %d; want %d", at, got, want)
		}
	}
	f("2026-11-23T23:59:59.999999999Z", 1)
	f("2026-11-24T00:00:00Z", 2)
	f("2026-11-24T00:30:00+01:00", 1) // still the 23rd in UTC
	f("2026-11-23T19:00:00-05:00", 2)
	f("2026-11-30T23:59:59Z", 2)
	f("2026-12-01T00:00:00Z", 3)
}
