package pricing_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

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

// TestChargeOfKnownBills computes costs that a provider printed in its answers.
func TestChargeOfKnownBills(t *testing.T) {
	f := func(model string, u usage.Usage, want string) {
		t.Helper()
		e := entry(t, pricing.Query{Model: model})
		if got, err := e.Charge(u, "default"); err != nil || got.String() != want {
			t.Errorf("%s %+v: %v, %v; want %s", model, u, got, err, want)
		}
	}
	n := usage.Of
	f("gpt-5.6-sol", usage.Usage{Prompt: n(4020), CacheWrite: n(4012), Completion: n(5)}, "0.025265")
	f("gpt-5.6-sol", usage.Usage{Prompt: n(4020), Cached: n(4012), Completion: n(5)}, "0.002196")
	f("gpt-5-mini", usage.Usage{Prompt: n(37), Completion: n(92), Reasoning: n(64)}, "0.00019325")
	f("gpt-4.1-mini", usage.Usage{Prompt: n(8174), Completion: n(30)}, "0.0033176")
	f("gpt-4o-mini", usage.Usage{Prompt: n(14), Completion: n(7)}, "0.0000063")
	f("gpt-5-nano", usage.Usage{Prompt: n(1), Cached: n(1)}, "0.000000005")
	f("gpt-4o", usage.Usage{}, "0")
}

func TestChargeBands(t *testing.T) {
	f := func(q pricing.Query, prompt, completion int64, tier, want string) {
		t.Helper()
		e := entry(t, q)
		got, err := e.Charge(usage.Usage{Prompt: usage.Of(prompt), Completion: usage.Of(completion)}, tier)
		if err != nil || got.String() != want {
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
	f(zone, 1000, 1000, "priority", "0.09625")                                 // 2.5 times the zone's price, from the book
	f(zone, 300_000, 0, "priority", "8.25")                                    // 13.75 x 2: both multiples
	f(zone, 300_000, 1000, "", "3.3495")                                       // 11 and 49.5
	f(pricing.Query{Model: "gpt-5.4-pro"}, 300_000, 1000, "priority", "36.54") // 30 x 2 x 2, 180 x 2 x 1.5
}

func TestChargeOfParts(t *testing.T) {
	book, err := pricing.Parse([]byte(`{"prices":[
		{"model":"plain","pico_usd":{"in":1000,"out":4000}},
		{"model":"gpt-5.6-x","pico_usd":{"in":1000,"in_cached":100,"out":4000}},
		{"model":"gpt-6","pico_usd":{"in":1000,"out":4000}},
		{"model":"gpt-5","pico_usd":{"in":1000,"out":4000}},
		{"model":"sound","pico_usd":{"in":1000,"in_cached":500,"out":4000,"audio_in":16000,"audio_in_cached":2000,"audio_out":32000}},
		{"model":"vector","mode":"embedding","pico_usd":{"in":1000}},
		{"model":"painter","mode":"image_generation","pico_usd":{"in":1000,"image_in":2000,"out":3000,"image_out":8000}},
		{"model":"print","mode":"image_generation","pico_usd":{"per_image":1000}},
		{"model":"dear","pico_usd":{"in":1000000000000000,"out":1000000000000000}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	f := func(model string, mode pricing.Mode, u usage.Usage, want money.Nano) {
		t.Helper()
		e, _ := book.Lookup(pricing.Query{Model: model, Mode: mode})
		if got, err := e.Charge(u, ""); err != nil || got != want {
			t.Errorf("%s %+v = %d, %v; want %d", model, u, got, err, want)
		}
	}
	n := usage.Of
	f("plain", "", usage.Usage{Prompt: n(10), Cached: n(4), CacheWrite: n(3), Completion: n(1)}, 14)
	f("plain", "", usage.Usage{Prompt: n(10), ImageIn: n(4)}, 10) // images are sold as input tokens
	f("plain", "", usage.Usage{Prompt: n(10), AudioIn: n(4)}, 22) // no audio price: the dearer of input and output
	f("plain", "", usage.Usage{Prompt: n(2), Cached: n(10)}, 10)  // parts above the total: charged, nothing is subtracted
	f("plain", "", usage.Usage{Prompt: n(-2), Cached: n(-10), Completion: n(-1)}, 0)
	f("gpt-5.6-x", "", usage.Usage{Prompt: n(10), Cached: n(5), CacheWrite: n(4)}, 7) // 1 + 0.5 + 5, rounded up once
	f("gpt-6", "", usage.Usage{Prompt: n(4), CacheWrite: n(4)}, 5)
	f("gpt-5", "", usage.Usage{Prompt: n(4), CacheWrite: n(4)}, 4)
	f("sound", "", usage.Usage{
		Prompt: n(100), Cached: n(30), AudioIn: n(40), AudioInCached: n(10), Completion: n(9), AudioOut: n(8),
	}, 40+20*1/2+30*16+10*2+4+8*32)
	f("vector", pricing.ModeEmbedding, usage.Usage{Prompt: n(10)}, 10)
	f("painter", pricing.ModeImage, usage.Usage{Prompt: n(10), ImageIn: n(4), Completion: n(2)}, 6+8+16)
	for model, wantErr := range map[string]error{"print": pricing.ErrNoTokenPrice, "dear": money.ErrRange} {
		mode := pricing.ModeChat
		if model == "print" {
			mode = pricing.ModeImage
		}
		e, _ := book.Lookup(pricing.Query{Model: model, Mode: mode})
		if _, err := e.Charge(usage.Usage{Prompt: n(math.MaxInt64)}, ""); !errors.Is(err, wantErr) {
			t.Errorf("%s: %v; want %v", model, err, wantErr)
		}
		if _, err := e.Bound(math.MaxInt64, 0, ""); !errors.Is(err, wantErr) {
			t.Errorf("%s: Bound: %v; want %v", model, err, wantErr)
		}
		if got := e.OutputWithin(5, math.MaxInt64, ""); got != 0 {
			t.Errorf("%s: OutputWithin = %d", model, got)
		}
	}
}

// TestBoundCovers proves for every entry of the book that no usage within a
// bound costs more than the bound, that the bound is monotone, and that
// OutputWithin returns the largest output that fits.
func TestBoundCovers(t *testing.T) {
	var entries []pricing.Entry
	for e := range pricing.Builtin().All() {
		if _, err := e.Bound(1, 1, ""); err == nil {
			entries = append(entries, e)
		}
	}
	const tokensMax = 1_100_000
	rapid.Check(t, func(t *rapid.T) {
		// All entries in every round: the tokens are drawn, the prices are not.
		prompt := rapid.OneOf(rapid.Int64Range(0, 5000), rapid.Int64Range(271_990, 272_010), rapid.Int64Range(0, tokensMax)).Draw(t, "prompt")
		output := rapid.Int64Range(0, 128_000).Draw(t, "output")
		used := usage.Usage{
			Prompt:     usage.Of(rapid.Int64Range(0, prompt).Draw(t, "used")),
			Completion: usage.Of(rapid.Int64Range(0, output).Draw(t, "completion")),
		}
		left := used.Prompt.N
		part := func(name string) usage.Count {
			n := rapid.Int64Range(0, left).Draw(t, name)
			left -= n
			return usage.Of(n)
		}
		used.CacheWrite, used.Cached = part("write"), part("cached")
		audio, image := part("audio"), part("image")
		audioOut := usage.Of(rapid.Int64Range(0, used.Completion.N).Draw(t, "audio out"))
		tiers := rapid.SampledFrom([][2]string{
			{"", "default"}, {"default", ""}, {"auto", "priority"}, {"auto", "default"}, {"priority", "priority"},
			{"priority", "default"}}).Draw(t, "tiers asked, served")
		amount := money.Nano(rapid.Int64Range(0, 100*money.NanoPerUSD).Draw(t, "amount"))
		for i := range entries {
			e, u := &entries[i], used
			if _, ok := e.Price("audio_in"); ok { // others cannot report any
				u.AudioIn, u.AudioOut = audio, audioOut
			}
			u.ImageIn = image
			if err := covers(e, u, prompt, output, tiers); err != nil {
				t.Fatal(err)
			}
			n := e.OutputWithin(amount, prompt, tiers[0])
			at, _ := e.Bound(prompt, n, tiers[0])
			past, _ := e.Bound(prompt, n+1, tiers[0])
			if past <= amount || (at > amount && n != 0) {
				t.Fatalf("%s: OutputWithin(%d, %d) = %d, but Bound there is %d, past it %d", e.Key, amount, prompt, n, at, past)
			}
		}
	})
}

func covers(e *pricing.Entry, u usage.Usage, prompt, output int64, tiers [2]string) error {
	cost, err := e.Charge(u, tiers[1])
	if err != nil {
		return err
	}
	bound, err := e.Bound(prompt, output, tiers[0])
	if err != nil {
		return err
	}
	more, _ := e.Bound(prompt+1, output, tiers[0])
	longer, _ := e.Bound(prompt, output+1, tiers[0])
	if cost > bound || more < bound || longer < bound {
		return fmt.Errorf("%s %v: usage %+v costs %d, Bound(%d, %d) = %d, with one more %d, %d",
			e.Key, tiers, u, cost, prompt, output, bound, more, longer)
	}
	if cost == 0 && u.Total() > 0 {
		return fmt.Errorf("%s: usage %+v costs nothing", e.Key, u)
	}
	return nil
}

func BenchmarkCharge(b *testing.B) {
	e := entry(b, pricing.Query{Model: "gpt-5.6-sol"})
	u := usage.Usage{Prompt: usage.Of(4020), Cached: usage.Of(4012), Completion: usage.Of(5)}
	for b.Loop() {
		if _, err := e.Charge(u, "default"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	q := pricing.Query{Model: "gpt-4o-2024-11-20", SKU: "DataZoneStandard", Region: "eastus", At: now}
	for b.Loop() {
		if _, ok := pricing.Builtin().Lookup(q); !ok {
			b.Fatal("no price")
		}
	}
}
