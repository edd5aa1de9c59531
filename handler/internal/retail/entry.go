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

// complete adds what the API does not tell, and says what is missing then.
func (b *builder) complete(e *entry) (missing string) {
	current, known := b.today(e)
	if known {
		b.keep(e, &current)
	}
	limits := current
	for _, version := range []string{e.Version, ""} {
		if limits.CtxIn == 0 {
			limits, _ = b.Current.Lookup(pricing.Query{Model: e.Model, Version: version, Mode: e.Mode, At: b.Now})
		}
	}
	e.CtxIn, e.MaxOut = limits.CtxIn, limits.MaxOut
	for meter := range maps.Clone(e.Meters) {
		if base := bandBase(meter); base != "" && e.Meters[base] == 0 || !b.known(meter) {
			delete(e.Meters, meter)
			b.report.note("%s %s: no place for %s", e.Model, e.SKU, meter)
		}
	}
	if e.Meters["long_in"] != 0 {
		e.Long = cmp.Or(limits.LongThreshold, longThreshold)
	}
	if known {
		for _, meter := range b.meters(&current) {
			// Without these the price book would take a cheaper price instead.
			if e.Meters[meter] == 0 && !strings.HasSuffix(meter, "_cached") && bandOf(meter) == "" && meter != "in_cache_write" {
				return "no " + meter + ", which the current book has"
			}
		}
	}
	if _, err := pricing.Parse(write("", "", []entry{*e})); err != nil {
		return err.Error()
	}
	return ""
}

// keep keeps the current prices of bands that the API has no meters for, in
// their ratio to the usual price: without them long prompts, the priority tier
// and batches would cost something else.
func (b *builder) keep(e *entry, current *pricing.Entry) {
	for _, meter := range b.meters(current) {
		prefix := bandOf(meter)
		if prefix == "" || e.Meters[meter] != 0 || strings.HasSuffix(e.SKU, "Batch") && prefix != "long_" {
			continue // batches have no priority tier
		}
		old, _ := current.Price(meter)
		was, _ := current.Price(strings.TrimPrefix(meter, prefix))
		is := e.Meters[strings.TrimPrefix(meter, prefix)]
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
