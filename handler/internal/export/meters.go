package export

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/usage"
)

// meter is a part of a record that has a price of its own.
type meter struct {
	name string     // as price files name it, with the prefix of its band; "": the whole record
	unit string     // what is counted
	n    int64      // thousandths of it
	pico money.Pico // list price of one
	list money.Nano // its part of the record's list cost
	cost money.Nano // and of the cost
}

// meters splits a record. What its meters cost is known if the book has the
// price that the record names and gives the same list cost by it. Otherwise the
// record is one meter, a request at its cost: only the total is known.
type meters struct {
	book *pricing.Book
	// found are the prices by day and key: the same key may have other tool
	// prices on another day. It has as many as an export has days times keys.
	found map[string]*sheet
}

// sheet is the prices of an entry.
type sheet struct {
	threshold int64 // of long prompts; 0: none
	isImage   bool
	bands     []map[string]money.Pico // standard, priority, long, long priority
	items     map[string]money.Pico
}

// bandPrefixes are those of the meters in price files, in the order of
// pricing.Entry.Bands.
var bandPrefixes = []string{"", "prio_", "long_", "long_prio_"}

// units of the meters that are no tokens.
var units = map[string]string{
	"per_image": "Images", "sec_in": "Seconds", "sec_out": "Seconds", "char_in": "Characters", "video_sec": "Seconds",
	"code_interpreter_session": "Sessions", "web_search_call": "Calls", "file_search_call": "Calls",
}

// split returns the meters of a record that carries cost, whose parts add up to
// list and cost. whole tells that the record could not be split.
func (m *meters) split(r *usage.Record, list, cost money.Nano) (parts []meter, whole bool) {
	parts = m.measured(r)
	weights := make([]*big.Int, len(parts))
	sum := new(big.Int)
	for i := range parts { // in 1e-15 USD
		weights[i] = new(big.Int).Mul(big.NewInt(parts[i].n), big.NewInt(int64(parts[i].pico)))
		sum.Add(sum, weights[i])
	}
	// The one rounding of a record is up, to nano-USD.
	rounded, rest := new(big.Int).DivMod(sum, femtoPerNano, new(big.Int))
	if rest.Sign() > 0 {
		rounded.Add(rounded, big.NewInt(1))
	}
	if len(parts) == 0 || list < 0 || cost < 0 || rounded.Cmp(big.NewInt(int64(list))) != 0 || sum.Sign() == 0 && cost > 0 {
		price := money.Pico(0)
		if list >= 0 && list < decimalMax/money.PicoPerNano { // else the row has no unit price
			price = money.Pico(list) * money.PicoPerNano
		}
		return []meter{{unit: "Requests", n: 1000, pico: price, list: list, cost: cost}}, true
	}
	lists := apportion(int64(list), weights, big.NewInt(1), femtoPerNano)
	costs := lists
	if cost != list {
		costs = apportion(int64(cost), weights, big.NewInt(int64(cost)), sum)
	}
	for i := range parts {
		parts[i].list, parts[i].cost = money.Nano(lists[i]), money.Nano(costs[i])
	}
	return parts, false
}

var femtoPerNano = big.NewInt(1_000_000)

// apportion splits a total into parts of weight * numerator / denominator. What
// rounding down leaves goes, one by one, to the largest remainders; of equal
// ones to the first. The exact parts add up to the total, or to less than one
// below it: no part differs from its exact value by one.
func apportion(total int64, weights []*big.Int, numerator, denominator *big.Int) []int64 {
	parts := make([]int64, len(weights))
	if denominator.Sign() == 0 { // all weights are zero, and so is the total
		return parts
	}
	rests := make([]*big.Int, len(weights))
	order := make([]int, len(weights))
	left := total
	for i, weight := range weights {
		quotient, rest := new(big.Int).DivMod(new(big.Int).Mul(weight, numerator), denominator, new(big.Int))
		parts[i], rests[i], order[i] = quotient.Int64(), rest, i
		left -= parts[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return rests[b].Cmp(rests[a]) })
	for _, i := range order[:left] {
		parts[i]++
	}
	return parts
}

// measured lists what was used by meter, without zeros; nil if the book does not
// say what it costs. It counts as pricing.Entry.Charge does.
func (m *meters) measured(r *usage.Record) (parts []meter) {
	s := m.sheet(r)
	if s == nil {
		return nil
	}
	u, band := r.Usage(), 0
	if r.ServiceTier == pricing.TierPriority {
		band = 1
	}
	if s.threshold > 0 && u.Prompt.N > s.threshold {
		band += 2
	}
	fits := true
	if band < len(s.bands) {
		prefix, price := bandPrefixes[band], s.bands[band]
		add := func(name string, n int64) {
			fits = fits && n <= usage.CountMax
			if fits && n > 0 {
				parts = append(parts, meter{name: prefix + name, unit: "Tokens", n: n * 1000, pico: price[name]})
			}
		}
		cached := min(max(u.AudioInCached.N, 0), max(u.AudioIn.N, 0))
		divide(u.Prompt, "in", price, add, []part{
			{"audio_in", u.AudioIn.N - cached}, {"audio_in_cached", cached}, {"image_in", u.ImageIn.N},
			{"in_cache_write", u.CacheWrite.N}, {"in_cached", u.Cached.N - cached},
		})
		rest := "out"
		if s.isImage && !u.ImageOut.Known && price["image_out"] > price["out"] {
			rest = "image_out"
		}
		divide(u.Completion, rest, price, add, []part{{"audio_out", u.AudioOut.N}, {"image_out", u.ImageOut.N}})
	}
	for _, item := range r.Items {
		if item.Quantity <= 0 {
			continue
		}
		name, n := item.Meter, item.Quantity
		switch item.Meter {
		case usage.ItemAudioIn:
			name = "sec_in"
		case usage.ItemAudioOut:
			name = "sec_out"
		default:
			n = min(n, usage.CountMax+1) * 1000
		}
		price, ok := s.items[name]
		fits = fits && ok && item.Quantity <= usage.CountMax
		parts = append(parts, meter{name: name, unit: units[name], n: n, pico: price})
	}
	if !fits {
		return nil
	}
	return merge(parts)
}

// part is tokens of a prompt or of a completion that have a price of their own.
type part struct {
	name string
	n    int64
}

// divide adds the parts of a count, the dearest first and together no more than
// the whole if that is known, and the rest of the whole.
func divide(whole usage.Count, rest string, price map[string]money.Pico, add func(string, int64), parts []part) {
	left, known := max(whole.N, 0), whole.Known || whole.N != 0
	if !known {
		left = usage.CountMax
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(price[b.name], price[a.name]) })
	for _, p := range parts {
		n := min(max(p.n, 0), left)
		left -= n
		add(p.name, n)
	}
	if known {
		add(rest, left)
	}
}

// merge makes one of meters of one name, and orders them by it.
func merge(parts []meter) []meter {
	slices.SortStableFunc(parts, func(a, b meter) int { return cmp.Compare(a.name, b.name) })
	kept := parts[:0]
	for _, p := range parts {
		if last := len(kept) - 1; last >= 0 && kept[last].name == p.name {
			kept[last].n += p.n
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

// sheet finds the prices that a record names, nil if the book does not have them.
func (m *meters) sheet(r *usage.Record) *sheet {
	if m.book == nil || r.PriceKey == "" {
		return nil
	}
	name := r.Time.UTC().Format(time.DateOnly) + " " + string(r.PriceKey) + " " + string(r.SKU) + " " + string(r.Region)
	s, known := m.found[name]
	if !known {
		s = m.look(r)
		m.found[name] = s
	}
	return s
}

func (m *meters) look(r *usage.Record) *sheet {
	parts, ok := pricing.ParseKey(string(r.PriceKey))
	if !ok {
		return nil
	}
	q := pricing.Query{
		Model: parts.Model, Version: parts.Version, Region: parts.Region, Mode: parts.Mode,
		Quality: parts.Quality, Size: parts.Size, At: r.Time,
	}
	if r.Region != "" {
		q.Region = string(r.Region)
	}
	entry, ok := m.named(q, string(r.PriceKey), string(r.SKU), parts.SKU)
	if !ok {
		return nil
	}
	s := &sheet{threshold: entry.LongThreshold, isImage: entry.Mode == pricing.ModeImage, items: byMeter(entry.Items())}
	for _, band := range entry.Bands() {
		s.bands = append(s.bands, byMeter(band.Figures))
	}
	return s
}

// named finds the entry of a key. Its SKU is that of the prices; the batch price
// and that of a spill-over are found by the deployment's.
func (m *meters) named(q pricing.Query, key string, skus ...string) (pricing.Entry, bool) {
	for _, q.SKU = range skus {
		for _, look := range []func(pricing.Query) (pricing.Entry, bool){m.book.LookupProvisioned, m.book.Lookup} {
			if entry, ok := look(q); ok && entry.Key == key {
				return entry, true
			}
		}
	}
	return pricing.Entry{}, false
}

func byMeter(figures []pricing.Figure) map[string]money.Pico {
	prices := map[string]money.Pico{}
	for _, f := range figures {
		prices[f.Meter] = f.Pico
	}
	return prices
}

// meterNames are the readable names of meters, without their bands.
var meterNames = map[string]string{
	"in": "Input Tokens", "in_cached": "Cached Input Tokens", "in_cache_write": "Cache Write Tokens", "audio_in": "Audio Input Tokens",
	"audio_in_cached": "Cached Audio Input Tokens", "image_in": "Image Input Tokens", "out": "Output Tokens", "audio_out": "Audio Output Tokens",
	"image_out": "Image Output Tokens", "per_image": "Images", "sec_in": "Audio Input Seconds", "sec_out": "Audio Output Seconds",
	"char_in": "Input Characters", "video_sec": "Video Seconds", "code_interpreter_session": "Code Interpreter Sessions",
	"web_search_call": "Web Search Calls", "file_search_call": "File Search Calls",
}

// readable is the name of a meter for people: "Priority Output Tokens".
func readable(name string) string {
	switch {
	case name == "":
		return "Requests"
	case meterNames[name] != "":
		return meterNames[name]
	case strings.HasPrefix(name, "long_prio_"):
		return "Long Context Priority " + meterNames[name[len("long_prio_"):]]
	case strings.HasPrefix(name, "long_"):
		return "Long Context " + meterNames[name[len("long_"):]]
	}
	return "Priority " + meterNames[strings.TrimPrefix(name, "prio_")]
}
