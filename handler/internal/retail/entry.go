package retail

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
)

// longThreshold is where Azure's long-context prices begin, for models that the
// current book has no threshold of: 272 000 tokens, as for all models so far.
const longThreshold = 272_000

// entry is an entry of a price file.
type entry struct {
	Model, Version, SKU, Region string
	Mode                        pricing.Mode
	From                        time.Time
	CtxIn, MaxOut, Long         int64
	Meters                      map[string]money.Pico
}

// key orders entries and names them in reports.
func (e *entry) key() string {
	key := strings.Join([]string{e.Model, cmp.Or(e.Version, "*"), e.SKU, cmp.Or(e.Region, "*")}, "/")
	if !e.From.IsZero() {
		key += "@" + e.From.Format(time.DateOnly)
	}
	return key
}

// made tells whether an entry has been made from that of another deployment type, and so has its meters.
func made(e *pricing.Entry) bool { return strings.HasSuffix(e.Key, "+batch") }

// today is the entry of the current book that prices the same.
func (b *builder) today(e *entry) (pricing.Entry, bool) {
	return b.Current.Lookup(pricing.Query{Model: e.Model, Version: e.Version, SKU: e.SKU, Region: e.Region, Mode: e.Mode, At: b.Now})
}

// model is the entry of the program's book that prices the same, or, of what
// that does not know, of the current book. What is derived from it stays free of
// the terms of a contract.
func (b *builder) model(e *entry) (found pricing.Entry, ok bool) {
	q := pricing.Query{Model: e.Model, Version: e.Version, SKU: e.SKU, Region: e.Region, Mode: e.Mode, At: b.Now}
	if found, ok = pricing.Builtin().Lookup(q); !ok {
		found, ok = b.Current.Lookup(q)
	}
	return found, ok
}

// limits are the sizes of a model, which are the same however it is sold.
func (b *builder) limits(e *entry) (ctxIn, maxOut, long int64) {
	for _, book := range []*pricing.Book{pricing.Builtin(), b.Current} {
		for _, q := range []pricing.Query{{Version: e.Version, SKU: e.SKU, Region: e.Region}, {Version: e.Version}, {}} {
			q.Model, q.Mode, q.At = e.Model, e.Mode, b.Now
			if found, ok := book.Lookup(q); ok {
				ctxIn, maxOut, long = cmp.Or(ctxIn, found.CtxIn), cmp.Or(maxOut, found.MaxOut), cmp.Or(long, found.LongThreshold)
			}
		}
	}
	return ctxIn, maxOut, cmp.Or(long, longThreshold)
}

// complete adds what the API does not tell, and says what is missing then.
func (b *builder) complete(e *entry) (missing string) {
	model, known := b.model(e)
	if known {
		b.keep(e, &model)
	}
	ctxIn, maxOut, long := b.limits(e)
	e.CtxIn, e.MaxOut = ctxIn, maxOut
	for meter := range maps.Clone(e.Meters) {
		if base := bandBase(meter); base != "" && e.Meters[base] == 0 || !b.known(meter) {
			delete(e.Meters, meter)
			b.report.note("%s %s: no place for %s", e.Model, e.SKU, meter)
		}
	}
	if e.Meters["long_in"] != 0 {
		e.Long = long
	}
	if current, ok := b.today(e); ok {
		for _, meter := range slices.Concat(b.meters(&model), b.meters(&current)) {
			// Without these the price book would take a cheaper price instead.
			if e.Meters[meter] == 0 && cacheBase(meter) == "" && bandOf(meter) == "" {
				return "no " + meter + ", which the current book has"
			}
		}
	}
	if _, err := pricing.Parse(write("", "", []entry{*e})); err != nil {
		return err.Error()
	}
	return ""
}

// keep keeps the prices that the API has no meters for in their ratio to the
// usual price: those of the cache, without which it would cost what fresh input
// does, and those of bands, without which long prompts, the priority tier and
// batches would cost something else.
func (b *builder) keep(e *entry, model *pricing.Entry) {
	for _, meter := range b.meters(model) {
		prefix := bandOf(meter)
		usual := strings.TrimPrefix(meter, prefix)
		if prefix == "" {
			usual = cacheBase(meter)
		}
		if usual == "" || e.Meters[meter] != 0 || strings.HasSuffix(e.SKU, "Batch") && prefix != "long_" && prefix != "" {
			continue // batches have no priority tier
		}
		old, _ := model.Price(meter)
		was, _ := model.Price(usual)
		is := e.Meters[usual]
		if was == 0 || is == 0 {
			continue
		}
		hi, lo := bits.Mul64(uint64(old), uint64(is))
		if hi >= uint64(was) {
			continue
		}
		price, rest := bits.Div64(hi, lo, uint64(was))
		if rest != 0 {
			price++
		}
		if money.Pico(price) <= pricing.PriceMax {
			e.Meters[meter] = money.Pico(price)
			b.report.Kept[e.Model+" "+e.SKU+" "+meter] = true
		}
	}
}

// cacheBase is the meter whose price a meter of the cache falls back to, empty for other meters.
func cacheBase(meter string) string {
	switch meter {
	case "in_cached", "in_cache_write":
		return "in"
	case "audio_in_cached":
		return "audio_in"
	}
	return ""
}

// bandOf is the prefix of a meter that tells its band.
func bandOf(meter string) string {
	for _, prefix := range []string{"long_prio_", "long_", "prio_", "batch_"} {
		if strings.HasPrefix(meter, prefix) {
			return prefix
		}
	}
	return ""
}

// bandBase is the meter without which the price book refuses another one.
func bandBase(meter string) string {
	switch prefix := bandOf(meter); prefix {
	case "":
		return ""
	case "long_prio_":
		if meter == "long_prio_in" {
			return "long_in"
		}
		return "long_prio_in"
	default:
		if meter == prefix+"in" {
			return ""
		}
		return prefix + "in"
	}
}

// meterNames are all meters that a name can be of, and those that a book may have besides.
var meterNames = func() []string {
	names := []string{"per_image", "sec_in", "sec_out", "char_in", "video_sec", "code_interpreter_session"}
	for _, prefix := range []string{"", "prio_", "long_", "long_prio_", "batch_"} {
		for _, base := range []string{
			"in", "in_cached", "in_cache_write", "out", "audio_in", "audio_in_cached", "audio_out", "image_in", "image_out",
		} {
			names = append(names, prefix+base)
		}
	}
	return names
}()

// meters are the meters that an entry of a price book has.
func (b *builder) meters(e *pricing.Entry) []string {
	return slices.DeleteFunc(slices.Clone(meterNames), func(meter string) bool {
		_, ok := e.Price(meter)
		return !ok
	})
}

// known asks the price book's parser whether there is such a meter.
func (b *builder) known(meter string) bool {
	known, ok := b.entry[meter]
	if !ok {
		meters := map[string]money.Pico{"long_in": 1, "prio_in": 1, "long_prio_in": 1, "batch_in": 1, meter: 1}
		_, err := pricing.Parse(write("", "", []entry{{Model: "m", Mode: pricing.ModeRealtime, Long: 1, Meters: meters}}))
		known = err == nil
		b.entry[meter] = known
	}
	return known
}

// write writes a price file, an entry a line. Empty fields are left out.
func write(version, source string, entries []entry) []byte {
	var out bytes.Buffer
	quote := func(s string) string {
		text, _ := json.Marshal(s) // a string can always be written
		return string(text)
	}
	fmt.Fprintf(&out, "{\n  \"version\": %s,\n  \"source\": %s,\n  \"prices\": [", quote(version), quote(source))
	for i := range entries {
		e := &entries[i]
		if i > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "\n    {\"model\":%s", quote(e.Model))
		from := ""
		if !e.From.IsZero() {
			from = e.From.Format(time.DateOnly)
		}
		for _, field := range []struct{ name, value string }{
			{"version", e.Version}, {"sku", e.SKU}, {"region", e.Region}, {"mode", string(e.Mode)}, {"from", from},
		} {
			if field.value != "" {
				fmt.Fprintf(&out, ",%q:%s", field.name, quote(field.value))
			}
		}
		for _, field := range []struct {
			name  string
			value int64
		}{{"ctx_in", e.CtxIn}, {"max_out", e.MaxOut}, {"long_threshold", e.Long}} {
			if field.value != 0 {
				fmt.Fprintf(&out, ",%q:%d", field.name, field.value)
			}
		}
		out.WriteString(`,"pico_usd":{`)
		comma := ""
		for _, meter := range meterNames {
			if price := e.Meters[meter]; price != 0 {
				fmt.Fprintf(&out, "%s%q:%d", comma, meter, price)
				comma = ","
			}
		}
		out.WriteString("}}")
	}
	out.WriteString("\n  ]\n}\n")
	return out.Bytes()
}
