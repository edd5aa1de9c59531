package pricing

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
)

const (
	// FileBytesMax is the size of the largest price file accepted.
	FileBytesMax = 4 << 20
	// EntriesMax is the largest number of entries of one file or one DEPLOYMENTS.
	EntriesMax = 20_000
	// PriceMax is the dearest price accepted, in pico-USD per unit: 1000 USD. A price above it is a mistyped unit.
	PriceMax = 1000 * money.NanoPerUSD * money.PicoPerNano
	// TokensMax is the largest context size or output size accepted, in tokens.
	TokensMax = 1 << 32

	multiplierUnit = "parts per million (950000 is 5 % off)"
)

// Parse reads a price file:
//
//	{"version":"x","source":"...","multiplier_ppm":950000,
//	 "prices":[{"model":"gpt-4o","version":"","sku":"GlobalStandard","region":"",
//	 "mode":"chat","from":"2026-01-01","ctx_in":128000,"max_out":16384,
//	 "pico_usd":{"in":2500000,"in_cached":1250000,"out":10000000}}]}
//
// Prices are whole pico-USD per unit, that is, USD per million tokens times a
// million. Only model and pico_usd are required; mode is chat if left out; an
// empty version, sku, region or from means any. multiplier_ppm, of all prices
// or of an entry, turns list prices into what is charged, in parts per million.
// An error names the line, the field and what to write instead.
func Parse(data []byte) (*Book, error) {
	if len(data) > FileBytesMax {
		return nil, fmt.Errorf("prices: %d bytes; at most %d are read", len(data), FileBytesMax)
	}
	r := newReader(data)
	book := &Book{}
	lines := map[identity]int{}
	r.object("prices file", func(name string) {
		switch name {
		case "version":
			book.version = r.text(name)
		case "source":
			book.source = r.text(name)
		case "multiplier_ppm":
			book.multiplier = r.positive(name, MultiplierMax, multiplierUnit)
		case "prices":
			r.array(name, func(i int) { book.read(r, i, lines) })
		default:
			r.fail(name, "unknown field; the fields are version, source, multiplier_ppm, prices")
		}
	})
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("prices: %w", err)
	}
	if book.version == "" {
		sum := sha256.Sum256(data)
		book.version = hex.EncodeToString(sum[:4])
	}
	book.index()
	return book, nil
}

// read reads entry i and appends it. It remembers where each entry was read.
func (b *Book) read(r *reader, i int, lines map[identity]int) {
	if i >= EntriesMax {
		r.fail("prices", "more than %d entries", EntriesMax)
		return
	}
	path := fmt.Sprintf("prices[%d]", i)
	e := Entry{Mode: ModeChat, meters: map[string]money.Pico{}, own: money.PPM, markup: money.PPM}
	r.object(path, func(name string) { e.readField(r, join(path, name), name) })
	if r.err != nil {
		return
	}
	if why := e.check(); why != "" {
		r.fail(path, "%s", why)
		return
	}
	id := e.identity()
	if line, ok := lines[id]; ok {
		r.fail(path, "%s is already given on line %d; keep one of them", e.Key, line)
		return
	}
	lines[id] = r.line()
	b.entries = append(b.entries, e)
}

func (e *Entry) readField(r *reader, path, name string) {
	const tokens = "tokens"
	switch name {
	case "model":
		e.Model = r.text(path)
	case "version":
		e.Version = strings.ToLower(r.text(path))
	case "sku":
		e.SKU = r.sku(path)
	case "region":
		e.Region = normalizeRegion(r.text(path))
	case "mode":
		var err error
		if e.Mode, err = ParseMode(r.text(path)); err != nil {
			r.fail(path, "%v", err)
		}
	case "from":
		s := r.text(path)
		if s == "" || r.err != nil {
			return
		}
		from, err := time.Parse(time.DateOnly, s)
		if err != nil {
			r.fail(path, "%q is not a date; write it like 2026-01-31", s)
		}
		e.From = from
	case "ctx_in":
		e.CtxIn = r.positive(path, TokensMax, tokens)
	case "max_out":
		e.MaxOut = r.positive(path, TokensMax, tokens)
	case "long_threshold":
		e.LongThreshold = r.positive(path, TokensMax, tokens)
	case "multiplier_ppm":
		e.own = r.positive(path, MultiplierMax, multiplierUnit)
	case "pico_usd":
		r.object(path, func(meter string) {
			path := join(path, meter)
			if !slices.Contains(meters, meter) {
				r.fail(path, "unknown meter; the meters are %s", strings.Join(meters, ", "))
				return
			}
			e.meters[meter] = money.Pico(r.positive(path, int64(PriceMax), "pico-USD per unit (2.50 USD per million tokens is 2500000)"))
		})
	default:
		r.fail(path, "unknown field; the fields are model, version, sku, region, mode, from, ctx_in, max_out, long_threshold, multiplier_ppm, pico_usd")
	}
}

// check completes a read entry, or says what is wrong with it.
func (e *Entry) check() string {
	if e.Model == "" {
		return `model is missing; add for example "model":"gpt-4o"`
	}
	model, version := NormalizeModel(e.Model)
	if version != "" && e.Version != "" && version != e.Version {
		return fmt.Sprintf("model %q names version %s, but version is %q; drop the date from model", e.Model, version, e.Version)
	}
	if model == "" {
		return fmt.Sprintf("model %q is no name", e.Model)
	}
	e.Model = model
	if e.Version == "" {
		e.Version = version
	}
	e.Model, e.Version = canonical(e.Model, e.Version, e.Mode)
	if e.Mode == ModeImage {
		e.Model = canonicalVariant(e.Model)
	}
	if why := e.checkMeters(); why != "" {
		return why
	}
	e.Key = e.key()
	for item, meter := range itemMeters {
		e.items[item] = itemPrice{e.meters[meter], e.own}
	}
	e.resolve()
	return ""
}

// checkMeters says what is wrong with an entry's meters.
func (e *Entry) checkMeters() string {
	_, in := e.meters["in"]
	_, out := e.meters["out"]
	_, longIn := e.meters["long_in"]
	switch {
	case len(e.meters) == 0:
		return "pico_usd is missing or empty; a missing price is never 0"
	case e.Mode == ModeTool:
		return e.checkTool()
	case e.Mode.family() == ModeChat && !(in && out):
		return fmt.Sprintf("pico_usd of mode %s needs both in and out (or is mode wrong?)", e.Mode)
	case e.Mode == ModeEmbedding && !in:
		return "pico_usd of mode embedding needs in"
	case longIn != (e.LongThreshold > 0):
		return "long_threshold and pico_usd.long_in go together; give both or neither"
	}
	for meter := range e.meters {
		if base := baseOf(meter); base != "" && e.meters[base] == 0 {
			return fmt.Sprintf("pico_usd.%s needs %s", meter, base)
		}
	}
	return ""
}

// checkTool: a tool is priced by its one meter, whatever the model.
func (e *Entry) checkTool() string {
	item, ok := toolNames[e.Model]
	if !ok {
		return fmt.Sprintf("model %q is no tool; they are code_interpreter, file_search, web_search", e.Model)
	}
	if _, ok := e.meters[itemMeters[item]]; !ok || len(e.meters) != 1 || e.Version != "" || e.LongThreshold != 0 {
		return fmt.Sprintf("the tool %s has the meter %s and nothing else, and no version", e.Model, itemMeters[item])
	}
	return ""
}

// baseOf is the meter without which another says nothing.
func baseOf(meter string) string {
	switch {
	case meter == "long_prio_in":
		return "long_in"
	case strings.HasPrefix(meter, "long_prio_"):
		return "long_prio_in"
	case strings.HasPrefix(meter, "long_"):
		return "long_in"
	case strings.HasPrefix(meter, "prio_"):
		return "prio_in"
	case strings.HasPrefix(meter, "batch_"):
		return "batch_in"
	}
	return ""
}
