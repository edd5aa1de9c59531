package pricing_test

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/usage"
)

// TestBoundCovers proves for every entry of the book that no usage within a
// bound costs more than the bound, that the bound is monotone, and that
// OutputWithin returns the largest output that fits.
func TestBoundCovers(t *testing.T) {
	discounted := pricing.Builtin().With(parse(t, `{"version":"x","multiplier_ppm":933333,"prices":[]}`))
	var entries []pricing.Entry
	for _, book := range []*pricing.Book{pricing.Builtin(), discounted} {
		for e := range book.All() {
			if !e.SellsTokens() {
				continue
			}
			for _, sku := range []string{e.SKU, "GlobalBatch"} { // as looked up: with the prices of tools
				if found, ok := book.Lookup(pricing.Query{Model: e.Model, Version: e.Version, SKU: sku, Region: e.Region, Mode: e.Mode, At: now}); ok {
					entries = append(entries, found)
				}
			}
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
		part := func(name string, of usage.Count) usage.Count { // parts may overlap and be unknown
			return usage.Count{N: rapid.Int64Range(0, of.N).Draw(t, name), Known: true}
		}
		used.CacheWrite, used.Cached, used.ImageIn = part("write", used.Prompt), part("cached", used.Prompt), part("image", used.Prompt)
		audio, audioOut := part("audio", used.Prompt), part("audio out", used.Completion)
		used.ImageOut = rapid.SampledFrom([]usage.Count{{}, part("image out", used.Completion)}).Draw(t, "image out")
		tiers := rapid.SampledFrom([][2]string{
			{"", "default"}, {"default", ""}, {"auto", "priority"}, {"auto", "default"}, {"priority", "priority"},
			{"priority", "default"}}).Draw(t, "tiers asked, served")
		amount := money.Nano(rapid.Int64Range(0, 100*money.NanoPerUSD).Draw(t, "amount"))
		markup := rapid.SampledFrom([]int64{money.PPM, 1, 1_250_000, pricing.MultiplierMax}).Draw(t, "markup")
		searches := rapid.Int64Range(0, 3).Draw(t, "searches")
		for i := range entries {
			e, u := entries[i].WithMarkup(markup), used
			if _, ok := e.Price("audio_in"); ok { // others cannot report any
				u.AudioIn, u.AudioInCached, u.AudioOut = audio, audio, audioOut
			}
			var items []usage.Item
			if e.Sells(usage.ItemWebSearch) {
				items = []usage.Item{{Meter: usage.ItemWebSearch, Quantity: searches}}
			}
			if err := covers(&e, u, prompt, output, items, tiers); err != nil {
				t.Fatal(err)
			}
			n := e.OutputWithin(amount, prompt, items, tiers[0])
			at, _ := e.Bound(prompt, n, items, tiers[0])
			past, err := e.Bound(prompt, n+1, items, tiers[0])
			if (past <= amount && err == nil) || (at > amount && n != 0) {
				t.Fatalf("%s: OutputWithin(%d, %d) = %d, but Bound there is %d, past it %d", e.Key, amount, prompt, n, at, past)
			}
		}
	})
}

// TestBoundOfBands: a class of token that has a price in one band only is bounded too.
func TestBoundOfBands(t *testing.T) {
	for _, meter := range []string{"prio_image_in", "long_image_in", "long_prio_image_in", "prio_audio_in", "long_audio_in", "prio_audio_in_cached"} {
		book := parse(t, fmt.Sprintf(`{"prices":[{"model":"m","long_threshold":10,"pico_usd":
			{"in":1000,"out":2000,"prio_in":2000,"long_in":2000,"long_prio_in":4000,%q:90000000}}]}`, meter))
		e, _ := book.Lookup(pricing.Query{Model: "m"})
		for _, tier := range []string{"default", "priority"} {
			u := usage.Usage{Prompt: usage.Of(11), AudioIn: usage.Of(11)}
			if strings.Contains(meter, "image") {
				u = usage.Usage{Prompt: usage.Of(11), ImageIn: usage.Of(11)}
			}
			for _, u.AudioInCached = range []usage.Count{{}, u.AudioIn} {
				if err := covers(&e, u, 11, 0, nil, [2]string{tier, tier}); err != nil {
					t.Errorf("%s: %v", meter, err)
				}
			}
		}
	}
}

func covers(e *pricing.Entry, u usage.Usage, prompt, output int64, items []usage.Item, tiers [2]string) error {
	cost, err := e.Charge(u, items, tiers[1])
	if err != nil {
		return err
	}
	bound, err := e.Bound(prompt, output, items, tiers[0])
	if err != nil {
		return err
	}
	more, _ := e.Bound(prompt+1, output, items, tiers[0])
	longer, _ := e.Bound(prompt, output+1, items, tiers[0])
	if cost.Charged > bound || more < bound || longer < bound {
		return fmt.Errorf("%s %v: usage %+v costs %d, Bound(%d, %d) = %d, with one more %d, %d",
			e.Key, tiers, u, cost.Charged, prompt, output, bound, more, longer)
	}
	if (cost.List == 0 || cost.Charged == 0) && u.Total() > 0 {
		return fmt.Errorf("%s: usage %+v costs nothing", e.Key, u)
	}
	return nil
}

// TestExactArithmetic compares with big numbers: one rounding, at the end.
func TestExactArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, most int64) int64 { return rapid.Int64Range(1, most).Draw(t, name) }
		agreement, own, tool, markup := draw("agreement", pricing.MultiplierMax), draw("own", pricing.MultiplierMax),
			draw("tool", pricing.MultiplierMax), draw("markup", pricing.MultiplierMax)
		in, second, search := draw("in", 1e9), draw("second", 1e12), draw("search", 1e12)
		tokens, ms, calls := draw("tokens", 1e6), draw("ms", 1e6), draw("calls", 10)
		book, err := pricing.Parse(fmt.Appendf(nil, `{"multiplier_ppm":%d,"prices":[
			{"model":"m","multiplier_ppm":%d,"pico_usd":{"in":%d,"out":1,"sec_in":%d}},
			{"model":"web_search","mode":"tool","multiplier_ppm":%d,"pico_usd":{"web_search_call":%d}}]}`, agreement, own, in, second, tool, search))
		if err != nil {
			t.Fatal(err)
		}
		e, _ := book.Lookup(pricing.Query{Model: "m"})
		e = e.WithMarkup(markup)
		got, err := e.Charge(usage.Usage{Prompt: usage.Of(tokens)}, []usage.Item{
			{Meter: usage.ItemAudioIn, Quantity: ms}, {Meter: usage.ItemWebSearch, Quantity: calls}}, "")
		product := func(factors ...int64) *big.Int {
			p := big.NewInt(1)
			for _, f := range factors {
				p.Mul(p, big.NewInt(f))
			}
			return p
		}
		ceil := func(femto, divisor *big.Int) *big.Int {
			q, r := new(big.Int).QuoRem(femto, divisor, new(big.Int))
			if r.Sign() > 0 {
				q.Add(q, big.NewInt(1))
			}
			return q
		}
		mine := new(big.Int).Add(product(tokens, in, 1000), product(ms, second))
		tools := product(calls, search, 1000)
		list := ceil(new(big.Int).Add(mine, tools), product(1e6))
		mine.Mul(mine, product(own)).Add(mine, tools.Mul(tools, product(tool))).Mul(mine, product(agreement, markup))
		charged := ceil(mine, product(1e6, money.PPM, money.PPM, money.PPM))
		if !charged.IsInt64() {
			if !errors.Is(err, money.ErrRange) {
				t.Fatalf("%v nano-USD: %v, %v", charged, got, err)
			}
			return
		}
		if err != nil || int64(got.List) != list.Int64() || int64(got.Charged) != charged.Int64() {
			t.Fatalf("%+v, %v; want %v, %v", got, err, list, charged)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":"x","prices":[{"model":"m","long_threshold":3,"pico_usd":{"in":1,"out":2,"long_in":4,"long_prio_in":5}}]}`))
	f.Add([]byte(`{"multiplier_ppm":1,"prices":[{"model":"web_search","mode":"tool","multiplier_ppm":7,"pico_usd":{"web_search_call":1}}]}`))
	f.Add([]byte(`{"prices":[{"model":"hd/1x1/m","mode":"image_generation","sku":"GlobalProvisionedManaged","pico_usd":{"per_image":1,"batch_in":4}}]}`))
	f.Add([]byte(`{"a":{"model":"m","sku":"Standard"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = pricing.ParseDeployments(string(data))
		book, err := pricing.Parse(data)
		if err != nil {
			return
		}
		for e := range book.All() {
			for _, sku := range []string{e.SKU, "GlobalBatch", "DataZoneProvisionedManaged"} {
				found, ok := book.Lookup(pricing.Query{Model: e.Model, Version: e.Version, SKU: sku, Region: e.Region, Mode: e.Mode, At: e.From})
				if ok {
					neverFree(t, &found)
				}
			}
			neverFree(t, &e)
		}
	})
}

// neverFree fails if something costs nothing.
func neverFree(t *testing.T, e *pricing.Entry) {
	t.Helper()
	for _, tier := range []string{"", "priority", "auto"} {
		cost, err := e.Bound(1, 1, nil, tier)
		if err == nil && cost <= 0 || err != nil && !errors.Is(err, pricing.ErrNoTokenPrice) && !errors.Is(err, money.ErrRange) {
			t.Errorf("%s: one token costs %v, %v", e.Key, cost, err)
		}
	}
	if !e.SellsTokens() && len(e.Items()) == 0 {
		t.Errorf("%s sells nothing", e.Key)
	}
	for _, meter := range []string{usage.ItemImage, usage.ItemAudioIn, usage.ItemAudioOut, usage.ItemCharacter, usage.ItemWebSearch, "x"} {
		cost, err := e.Charge(usage.Usage{}, []usage.Item{{Meter: meter, Quantity: 1}}, "")
		if err == nil && (cost.List <= 0 || cost.Charged <= 0 || !e.Sells(meter)) || err != nil && e.Sells(meter) && !errors.Is(err, money.ErrRange) {
			t.Errorf("%s: one %s costs %v, %v", e.Key, meter, cost, err)
		}
	}
}

func FuzzLookup(f *testing.F) {
	f.Add("gpt-4o-2024-11-20", "2024-11-20", "DataZoneStandard", "eastus", "chat", "", "", int64(1_800_000_000))
	f.Add("ft:gpt-4o:org::id", "", "GlobalBatch", "", "responses", "", "", int64(0))
	f.Add("dall-e-3", "3.0", "Standard", "swedencentral", "image_generation", "hd", "1024x1792", int64(-1))
	f.Add("gpt-image-1", "", "GlobalProvisionedManaged", "eu", "image_generation", "auto", "1024-x-1024", int64(0))
	book := pricing.Builtin()
	f.Fuzz(func(t *testing.T, model, version, sku, region, mode, quality, size string, at int64) {
		q := pricing.Query{
			Model: model, Version: version, SKU: sku, Region: region, Mode: pricing.Mode(mode), Quality: quality, Size: size, At: time.Unix(at, 0),
		}
		e, ok := book.Lookup(q)
		explained, found, _ := book.Explain(q)
		if ok != found || explained.Key != e.Key {
			t.Errorf("%+v: Lookup %q, Explain %q", q, e.Key, explained.Key)
		}
		if ok {
			neverFree(t, &e)
			if _, ok := pricing.ParseKey(e.Key); !ok {
				t.Errorf("ParseKey(%q)", e.Key)
			}
		}
		if e, ok := book.LookupProvisioned(q); ok {
			t.Errorf("%+v: a chargeback price %q in the built-in book", q, e.Key)
		}
		if e, ok := book.Dearest(q.Mode, q.At); ok {
			neverFree(t, &e)
		}
		_, _ = pricing.ParseKey(model)
	})
}

func FuzzCharge(f *testing.F) {
	f.Add(uint16(3), int64(10), int64(4), int64(3), int64(1), int64(5), int64(2), int64(0), "priority", "web_search_call", int64(2), int64(950_000))
	f.Add(uint16(150), int64(-1), int64(1<<62), int64(-9), int64(7), int64(0), int64(0), int64(1), "", "per_image", int64(-1), int64(0))
	var entries []pricing.Entry
	for e := range pricing.Builtin().All() {
		if found, ok := pricing.Builtin().Lookup(pricing.Query{Model: e.Model, Version: e.Version, SKU: e.SKU, Region: e.Region, Mode: e.Mode, At: now}); ok {
			entries = append(entries, found)
		}
	}
	f.Fuzz(func(t *testing.T, which uint16, prompt, cached, write, audio, completion, audioOut, imageOut int64, tier, meter string, quantity, markup int64) {
		e := entries[int(which)%len(entries)].WithMarkup(markup)
		u := usage.Usage{
			Prompt: usage.Of(prompt), Cached: usage.Of(cached), CacheWrite: usage.Of(write), AudioIn: usage.Of(audio),
			AudioInCached: usage.Of(cached), ImageIn: usage.Of(write), Completion: usage.Of(completion), AudioOut: usage.Of(audioOut),
			ImageOut: usage.Count{N: imageOut, Known: imageOut != 0},
		}
		cost, err := e.Charge(u, []usage.Item{{Meter: meter, Quantity: quantity}}, tier)
		switch {
		case err != nil:
			if !errors.Is(err, pricing.ErrNoPrice) && !errors.Is(err, pricing.ErrNoTokenPrice) && !errors.Is(err, money.ErrRange) {
				t.Errorf("%s: %v", e.Key, err)
			}
		case quantity > 0 && !e.Sells(meter):
			t.Errorf("%s: %q has no price, but costs %+v", e.Key, meter, cost)
		case (cost.List <= 0 || cost.Charged <= 0) && (prompt > 0 || completion > 0 || quantity > 0), cost.List < 0, cost.Charged < 0:
			t.Errorf("%s: %+v, %d x %s costs %+v", e.Key, u, quantity, meter, cost)
		}
	})
}

func BenchmarkCharge(b *testing.B) {
	e := entry(b, pricing.Query{Model: "gpt-5.6-sol"})
	u := usage.Usage{Prompt: usage.Of(4020), Cached: usage.Of(4012), Completion: usage.Of(5)}
	run := func(name string, e pricing.Entry, items []usage.Item) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Charge(u, items, "default"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	items := []usage.Item{{Meter: usage.ItemWebSearch, Quantity: 1}}
	run("tokens", e, nil)
	run("items", e, items)
	run("multiplied", e.WithMarkup(1_100_000), items)
}

func BenchmarkOutputWithin(b *testing.B) {
	e := entry(b, pricing.Query{Model: "gpt-5.6-sol"})
	for _, ppm := range []int64{money.PPM, 1_100_000} {
		e := e.WithMarkup(ppm)
		b.Run(fmt.Sprint(ppm), func(b *testing.B) {
			for b.Loop() {
				e.OutputWithin(10_000_000, 1000, nil, "")
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	q := pricing.Query{Model: "gpt-4o-2024-11-20", SKU: "DataZoneStandard", Region: "eastus", At: now}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := pricing.Builtin().Lookup(q); !ok {
			b.Fatal("no price")
		}
	}
}

// TestChargeAllocs: what every request does costs no memory.
func TestChargeAllocs(t *testing.T) {
	e := entry(t, pricing.Query{Model: "gpt-5.6-sol"}).WithMarkup(1_100_000)
	u := usage.Usage{Prompt: usage.Of(4020), Cached: usage.Of(4012), Completion: usage.Of(5)}
	items := []usage.Item{{Meter: usage.ItemWebSearch, Quantity: 1}}
	if n := testing.AllocsPerRun(100, func() {
		_, _ = e.Charge(u, items, "priority")
		_, _ = e.Bound(4020, 5, items, "auto")
		_ = e.OutputWithin(10_000_000, 1000, items, "")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
