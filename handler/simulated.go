package main

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/simulator"
	"github.com/costgate/costgate/handler/internal/tokens"
)

// newSimulator is the built-in Azure OpenAI, with the tokenizer, the prices and
// the deployments of this gateway.
func newSimulator(key string, deployments map[string]pricing.Deployment) http.Handler {
	models := map[string]string{}
	for name, d := range deployments {
		models[name] = d.Model
		if len(d.Version) >= len("0125") { // the service's names have dates; versions like 001 are not part of them
			models[name] += "-" + d.Version
		}
	}
	return simulator.New(simulator.Options{Key: key, Counter: counter{}, Prices: listPrice, Models: models})
}

// counter lets the simulator count with the gateway's tokenizer.
type counter struct{}

func (counter) Text(model, text string) int64 { return tokens.Text(model, text) }

func (counter) Prompt(operation, model string, body []byte) int64 {
	n, _, err := tokens.Prompt(tokens.Op(operation), model, body)
	if err != nil {
		return 0
	}
	return n
}

// listPrice is the global price of a model, for the simulator's bill: with the
// rules of the price book for what it leaves out, but worked out here.
func listPrice(model string) (p simulator.Price, ok bool) {
	entry, ok := listEntry(model, pricing.ModeChat, pricing.ModeCompletion, pricing.ModeEmbedding, pricing.ModeImage, pricing.ModeTranscription, pricing.ModeSpeech)
	if !ok {
		return p, false
	}
	price := func(name string) int64 {
		n, _ := entry.Price(name)
		return int64(n)
	}
	p.Tokens = standardPrices(entry, price)
	p.Priority = bandPrices(price, "prio_", p.Tokens, 2*p.In, 0)
	if p.LongThreshold = entry.LongThreshold; price("long_in") > 0 {
		p.Long = bandPrices(price, "long_", p.Tokens, price("long_in"), 0)
		p.LongPriority = bandPrices(price, "long_prio_", p.Priority, inProportion(p.Priority.In, p.Long.In, p.In), inProportion(p.Priority.Out, p.Long.Out, p.Out))
	} else {
		p.LongThreshold = 0
	}
	p.Items = map[string]int64{}
	for _, name := range []string{"per_image", "sec_in", "sec_out", "char_in"} {
		p.Items[name] = price(name)
	}
	for tool, meter := range map[string]string{"web_search": "web_search_call", "file_search": "file_search_call", "code_interpreter": "code_interpreter_session"} {
		if sold, found := listEntry(tool, pricing.ModeTool); found {
			n, _ := sold.Price(meter)
			p.Items[meter] = int64(n)
		}
	}
	return p, true
}

func listEntry(model string, modes ...pricing.Mode) (entry pricing.Entry, ok bool) {
	for _, mode := range modes {
		if entry, ok = pricing.Builtin().Lookup(pricing.Query{Model: model, Mode: mode, At: time.Now()}); ok {
			return entry, true
		}
	}
	return entry, false
}

func standardPrices(entry pricing.Entry, price func(string) int64) simulator.Tokens {
	in := cmp.Or(price("in"), price("audio_in"), price("image_in"))
	out := cmp.Or(price("out"), price("image_out"), price("audio_out"), in)
	dearer := max(in, out)
	t := simulator.Tokens{
		In: in, Cached: cmp.Or(price("in_cached"), in), Write: cmp.Or(price("in_cache_write"), in),
		ImageIn: cmp.Or(price("image_in"), dearer), AudioIn: cmp.Or(price("audio_in"), dearer),
		Out: out, ImageOut: cmp.Or(price("image_out"), dearer), AudioOut: cmp.Or(price("audio_out"), dearer),
	}
	if entry.Mode == pricing.ModeChat && price("image_in") == 0 {
		t.ImageIn = in
	}
	if price("in_cache_write") == 0 && strings.HasPrefix(entry.Model, "gpt-5.6") {
		t.Write = inProportion(in, 5, 4)
	}
	return t
}

// bandPrices are the prices of a tier or of long prompts: those of the price
// book, else those of another band in proportion to in and out.
func bandPrices(price func(string) int64, prefix string, from simulator.Tokens, in, out int64) simulator.Tokens {
	if from.In == 0 {
		return from
	}
	in = cmp.Or(price(prefix+"in"), in)
	out = cmp.Or(price(prefix+"out"), out, inProportion(from.Out, in, from.In))
	of := func(name string, other, to, base int64) int64 {
		return cmp.Or(price(prefix+name), inProportion(other, to, base))
	}
	return simulator.Tokens{
		In: in, Cached: of("in_cached", from.Cached, in, from.In), Write: of("in_cache_write", from.Write, in, from.In),
		ImageIn: of("image_in", from.ImageIn, in, from.In), AudioIn: of("audio_in", from.AudioIn, in, from.In),
		Out: out, ImageOut: of("image_out", from.ImageOut, out, from.Out), AudioOut: of("audio_out", from.AudioOut, out, from.Out),
	}
}

// inProportion is n * to / base, rounded up.
func inProportion(n, to, base int64) int64 { return (n*to + base - 1) / base }
