package pricing

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/usage"
)

// ErrNoTokenPrice says that a model is sold by another unit than tokens.
var ErrNoTokenPrice = errors.New("this model has no price per token")

// TierPriority is the service tier with prices of its own.
const TierPriority = "priority"

// Entry is the price of one model, version, SKU and region from a date on.
// Entries come from a [Book] and are read-only.
type Entry struct {
	// Key names the entry in records: "gpt-4o/2024-11-20/GlobalStandard/us@2026-08-01",
	// where * stands for any, and the date is left out if there is none.
	Key                  string
	Model                string // normalised, undated
	Version, SKU, Region string // empty: any
	Mode                 Mode
	From                 time.Time // first day, UTC; zero: always
	CtxIn, MaxOut        int64     // tokens; 0: unknown
	LongThreshold        int64     // prompts above it have long-context prices; 0: none do

	meters map[string]money.Pico
	bands  [bandCount]band
}

// identity is what makes two entries the same price at different times of editing.
type identity struct {
	model, version, sku, region string
	family                      Mode
	from                        int64
}

func (e *Entry) identity() identity {
	return identity{e.Model, e.Version, e.SKU, e.Region, e.Mode.family(), e.fromUnix()}
}

// fromUnix is the from-date for comparing; no date comes before every date.
func (e *Entry) fromUnix() int64 {
	if e.From.IsZero() {
		return math.MinInt64
	}
	return e.From.Unix()
}

func (e *Entry) key() string {
	parts := []string{e.Model, e.Version, e.SKU, e.Region}
	for i, part := range parts {
		if part == "" {
			parts[i] = "*"
		}
	}
	key := strings.Join(parts, "/")
	if family := e.Mode.family(); family != ModeChat {
		key = fmt.Sprintf("%s:%s", family, key)
	}
	if !e.From.IsZero() {
		key += "@" + e.From.Format(time.DateOnly)
	}
	return key
}

// Price is the price of a meter as the file gives it, in pico-USD per unit.
func (e *Entry) Price(meter string) (money.Pico, bool) {
	price, ok := e.meters[meter]
	return price, ok
}

// The bands of prices: the tier times the length of the prompt.
const (
	bandStandard = iota
	bandPriority
	bandLong
	bandLongPriority
	bandCount
)

// band holds a price for every class of token, none of them zero unless the
// model has no token prices at all. In pico-USD per token.
type band struct {
	in, cached, write, audioIn, audioCached, imageIn money.Pico
	out, audioOut                                    money.Pico
	promptMax, outMax                                money.Pico // the dearest class that the model can report
}

// resolve fills the bands from the meters. What the file leaves out:
//   - cached input is input; written cache is 1.25 x input from gpt-5.6 on, input before;
//   - image input of text models is input, as Azure sells it; other image and all
//     audio tokens take the dearer of input and output;
//   - priority is 2 x standard, and each class missing in a band follows the
//     band's input price.
func resolve(e *Entry) (bands [bandCount]band) {
	in := e.first("in", "audio_in", "image_in", "out", "audio_out", "image_out")
	if in == 0 {
		return bands
	}
	_, hasImageIn := e.meters["image_in"]
	_, hasAudioIn := e.meters["audio_in"]
	std := band{in: in, out: e.first("out", "image_out", "audio_out", "in")}
	if std.out == 0 {
		std.out = in
	}
	if e.Mode == ModeImage {
		std.out = max(std.out, e.meters["image_out"]) // usage does not tell text output from images
	}
	std.cached = orElse(e.meters["in_cached"], in)
	std.write = orElse(e.meters["in_cache_write"], in)
	if _, ok := e.meters["in_cache_write"]; !ok && is56OrLater(e.Model) {
		std.write = scale(in, 5, 4)
	}
	dearer := max(std.in, std.out)
	std.audioIn = orElse(e.meters["audio_in"], dearer)
	std.audioCached = orElse(e.meters["audio_in_cached"], std.audioIn)
	std.audioOut = orElse(e.meters["audio_out"], dearer)
	std.imageIn = orElse(e.meters["image_in"], dearer)
	if !hasImageIn && e.Mode.family() == ModeChat {
		std.imageIn = in
	}
	bands[bandStandard] = std
	bands[bandPriority] = e.derive(std, "prio_", scale(in, 2, 1))
	bands[bandLong], bands[bandLongPriority] = std, bands[bandPriority]
	if longIn := e.meters["long_in"]; longIn != 0 {
		bands[bandLong] = e.derive(std, "long_", longIn)
		bands[bandLongPriority] = e.derive(bands[bandPriority], "long_prio_", scale(bands[bandPriority].in, longIn, in))
		if _, ok := e.meters["long_prio_out"]; !ok {
			bands[bandLongPriority].out = scale(bands[bandPriority].out, bands[bandLong].out, std.out)
		}
	}
	for i := range bands {
		b := &bands[i]
		b.promptMax = max(b.in, b.cached, b.write)
		if hasAudioIn {
			b.promptMax = max(b.promptMax, b.audioIn, b.audioCached)
		}
		if hasImageIn || e.Mode.family() != ModeChat {
			b.promptMax = max(b.promptMax, b.imageIn)
		}
		b.outMax = max(b.out, b.audioOut)
	}
	return bands
}

// derive makes a band from another one: its own meters where the file has them,
// else the other band's prices in the ratio of the input prices.
func (e *Entry) derive(from band, prefix string, otherwise money.Pico) band {
	in := orElse(e.meters[prefix+"in"], otherwise)
	ratio := func(p money.Pico) money.Pico { return scale(p, in, from.in) }
	return band{
		in:          in,
		cached:      orElse(e.meters[prefix+"in_cached"], ratio(from.cached)),
		write:       ratio(from.write),
		audioIn:     ratio(from.audioIn),
		audioCached: ratio(from.audioCached),
		imageIn:     ratio(from.imageIn),
		out:         orElse(e.meters[prefix+"out"], ratio(from.out)),
		audioOut:    ratio(from.audioOut),
	}
}

// first is the first of some meters that has a price, 0 if none has.
func (e *Entry) first(names ...string) money.Pico {
	for _, name := range names {
		if price := e.meters[name]; price != 0 {
			return price
		}
	}
	return 0
}

func orElse(price, otherwise money.Pico) money.Pico {
	if price != 0 {
		return price
	}
	return otherwise
}

// scale is price * numerator / denominator, rounded up. Too large a result is
// the largest price, whose charge then fails as out of range.
func scale(price, numerator, denominator money.Pico) money.Pico {
	hi, lo := bits.Mul64(uint64(price), uint64(numerator))
	if hi >= uint64(denominator) {
		return math.MaxInt64
	}
	quotient, remainder := bits.Div64(hi, lo, uint64(denominator))
	if remainder != 0 {
		quotient++
	}
	return money.Pico(min(quotient, math.MaxInt64))
}

// band chooses the prices of a request with a prompt of some tokens.
func (e *Entry) band(prompt int64, priority bool) *band {
	i := bandStandard
	if priority {
		i = bandPriority
	}
	if e.LongThreshold > 0 && prompt > e.LongThreshold {
		i += bandLong
	}
	return &e.bands[i]
}

// Charge is what a usage costs. Tier is the service_tier of the answer: only
// "priority" has other prices. A prompt above LongThreshold moves the whole
// request to long-context prices. Counts below zero are read as zero. It fails
// with [ErrNoTokenPrice], or [money.ErrRange] if the cost does not fit.
func (e *Entry) Charge(u usage.Usage, items []usage.Item, tier string) (Cost, error) {
	prompt, completion := max(u.Prompt.N, 0), max(u.Completion.N, 0)
	b := e.band(prompt, tier == TierPriority)
	if b.in == 0 {
		return Cost{}, ErrNoTokenPrice
	}
	audioIn, imageIn, write := max(u.AudioIn.N, 0), max(u.ImageIn.N, 0), max(u.CacheWrite.N, 0)
	audioCached := min(max(u.AudioInCached.N, 0), audioIn)
	cached := max(u.Cached.N-audioCached, 0)
	audioOut := max(u.AudioOut.N, 0)
	var sum money.Sum
	sum.Add(less(prompt, cached, write, audioIn, imageIn), b.in)
	sum.Add(cached, b.cached)
	sum.Add(write, b.write)
	sum.Add(audioIn-audioCached, b.audioIn)
	sum.Add(audioCached, b.audioCached)
	sum.Add(imageIn, b.imageIn)
	sum.Add(less(completion, audioOut), b.out)
	sum.Add(audioOut, b.audioOut)
	list, err := sum.Ceil()
	return Cost{list, list}, err
}

// Cost is what something costs by the book (List), and what it is charged at,
// with the multipliers of the book and of the product.
type Cost struct{ List, Charged money.Nano }

// WithMarkup is the entry for a product whose costs are multiplied by ppm parts
// per million.
func (e Entry) WithMarkup(_ int64) Entry { return e }

// Sells tells whether items of a meter have a price here.
func (e *Entry) Sells(_ string) bool { return false }

// less is what remains of n without its parts, at least zero. No part is negative.
func less(n int64, parts ...int64) int64 {
	for _, part := range parts {
		if part >= n {
			return 0
		}
		n -= part
	}
	return n
}

// Bound is the most that a request can cost whose prompt has at most so many
// tokens and whose answer has at most output tokens. Tier is the service_tier
// of the request: "priority" and "auto" may be served at priority prices. The
// bound never falls when a number rises. Errors are those of Charge.
func (e *Entry) Bound(prompt, output int64, items []usage.Item, tier string) (money.Nano, error) {
	in, out := e.dearest(prompt, tier)
	if in == 0 {
		return 0, ErrNoTokenPrice
	}
	var sum money.Sum
	sum.Add(max(prompt, 0), in)
	sum.Add(max(output, 0), out)
	return sum.Ceil()
}

// dearest is the dearest price of a prompt token and of an output token in all bands that a request may end in.
func (e *Entry) dearest(prompt int64, tier string) (in, out money.Pico) {
	last := bandStandard
	if e.LongThreshold > 0 && prompt > e.LongThreshold {
		last = bandLong
	}
	for i := bandStandard; i <= last; i += bandLong {
		in, out = max(in, e.bands[i].promptMax), max(out, e.bands[i].outMax)
		if tier == TierPriority || tier == "auto" {
			p := &e.bands[i+bandPriority]
			in, out = max(in, p.promptMax), max(out, p.outMax)
		}
	}
	return in, out
}

// OutputWithin is the largest number of output tokens for which Bound(prompt,
// that, tier) is at most amount; 0 if not even the prompt fits.
func (e *Entry) OutputWithin(amount money.Nano, prompt int64, items []usage.Item, tier string) int64 {
	fits := func(output int64) bool {
		cost, err := e.Bound(prompt, output, items, tier)
		return err == nil && cost <= amount
	}
	_, out := e.dearest(prompt, tier)
	low, high := int64(0), money.UnitsWithin(amount, out)
	for low < high { // fits(low) holds, or nothing fits
		if middle := low + (high-low)/2 + 1; fits(middle) {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}
