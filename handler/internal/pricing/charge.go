package pricing

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/usage"
)

var (
	// ErrNoTokenPrice says that a model is sold by another unit than tokens.
	ErrNoTokenPrice = errors.New("this model has no price per token")
	// ErrNoPrice says that an item has no price.
	ErrNoPrice = errors.New("no price for the meter")
)

// TierPriority is the service tier with prices of its own.
const TierPriority = "priority"

// Cost is what something costs by the book (List), and what it is charged at,
// with the multipliers of the agreement, of the entry and of the product. Each
// is rounded once, up.
type Cost struct{ List, Charged money.Nano }

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

// Charge is what usage and items cost together. Tier is the service_tier of the
// answer: only "priority" has other prices. A prompt above LongThreshold moves
// the whole request to long-context prices. Counts below zero are read as zero.
//
// The parts of a prompt or of a completion never count for more than the whole,
// if that is known; what is too much is taken from the cheapest. Audio of a
// model without audio prices costs the dearer of input and output.
//
// It fails with [ErrNoTokenPrice] for tokens (or for nothing at all) of a model
// without token prices, with [ErrNoPrice] for an item without a price, and with
// [money.ErrRange] if the cost does not fit.
func (e *Entry) Charge(u usage.Usage, items []usage.Item, tier string) (Cost, error) {
	if !e.SellsTokens() && (len(items) == 0 || u.Prompt.N > 0 || u.Completion.N > 0) {
		return Cost{}, ErrNoTokenPrice
	}
	b := e.band(u.Prompt.N, tier == TierPriority)
	var sum money.Total
	audioCached := min(max(u.AudioInCached.N, 0), max(u.AudioIn.N, 0))
	addParts(&sum, u.Prompt, b.price[classIn],
		part{u.AudioIn.N - audioCached, b.price[classAudioIn]}, part{audioCached, b.price[classAudioCached]},
		part{u.ImageIn.N, b.price[classImageIn]}, part{u.CacheWrite.N, b.price[classWrite]}, part{u.Cached.N - audioCached, b.price[classCached]})
	text := b.unsplit
	if u.ImageOut.Known {
		text = b.price[classOut]
	}
	addParts(&sum, u.Completion, text, part{u.AudioOut.N, b.price[classAudioOut]}, part{u.ImageOut.N, b.price[classImageOut]})
	return e.cost(&sum, items)
}

// part is tokens of a prompt or of a completion that have a price of their own.
type part struct {
	n     int64
	price money.Pico
}

// addParts adds the parts of a count, the dearest first and together no more
// than the whole if that is known, and the rest of the whole at its price.
func addParts(sum *money.Total, whole usage.Count, rest money.Pico, parts ...part) {
	left, known := max(whole.N, 0), whole.Known || whole.N != 0
	if !known {
		left = math.MaxInt64
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(b.price, a.price) })
	for _, p := range parts {
		n := min(max(p.n, 0), left)
		left -= n
		sum.Add(n, p.price)
	}
	if known {
		sum.Add(left, rest)
	}
}

// cost adds the items to what the tokens cost, and rounds.
func (e *Entry) cost(tokens *money.Total, items []usage.Item) (cost Cost, err error) {
	if len(items) == 0 && !e.multiplied {
		cost.List, err = tokens.Ceil()
		cost.Charged = cost.List
		return cost, err
	}
	var charged money.Weighted
	charged.Add(tokens, e.own)
	for i := range items {
		if items[i].Quantity <= 0 {
			continue
		}
		item, thousandths, ok := itemOf(items[i].Meter)
		if !ok || e.items[item].price == 0 {
			return Cost{}, fmt.Errorf("%w %q of %s", ErrNoPrice, items[i].Meter, e.Key)
		}
		var one money.Total
		if thousandths {
			one.AddMilli(items[i].Quantity, e.items[item].price)
		} else {
			one.Add(items[i].Quantity, e.items[item].price)
		}
		tokens.AddTotal(&one)
		charged.Add(&one, e.items[item].ppm)
	}
	if cost.List, err = tokens.Ceil(); err != nil {
		return Cost{}, err
	}
	cost.Charged = cost.List
	if e.multiplied {
		cost.Charged, err = charged.Ceil(e.agreement, e.markup)
	}
	if err != nil {
		return Cost{}, err
	}
	return cost, nil
}

// Bound is the most that can be charged for a request whose prompt has at most
// so many tokens, whose answer has at most output tokens and which uses at most
// these items. Tier is the service_tier of the request: "priority" and "auto"
// may be served at priority prices. The bound never falls when a number rises.
// Errors are those of Charge.
func (e *Entry) Bound(prompt, output int64, items []usage.Item, tier string) (money.Nano, error) {
	if !e.SellsTokens() && (len(items) == 0 || prompt > 0 || output > 0) {
		return 0, ErrNoTokenPrice
	}
	in, out := e.dearest(prompt, tier)
	var sum money.Total
	sum.Add(max(prompt, 0), in)
	sum.Add(max(output, 0), out)
	cost, err := e.cost(&sum, items)
	return cost.Charged, err
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
// that, items, tier) is at most amount; 0 if not even the rest fits.
func (e *Entry) OutputWithin(amount money.Nano, prompt int64, items []usage.Item, tier string) int64 {
	if !e.SellsTokens() {
		return 0
	}
	fits := func(output int64) bool {
		cost, err := e.Bound(prompt, output, items, tier)
		return err == nil && cost <= amount
	}
	low, high := int64(0), int64(math.MaxInt64-1)
	if !e.multiplied {
		_, out := e.dearest(prompt, tier)
		high = money.UnitsWithin(amount, out)
	}
	for low < high { // fits(low) holds, or nothing fits
		if middle := low + (high-low)/2 + 1; fits(middle) {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}
