package pricing

import (
	"math"
	"math/bits"
	"slices"

	"github.com/costgate/costgate/handler/internal/money"
)

// band holds a price for every class of token, none of them zero unless the
// model has no token prices at all. In pico-USD per token.
type band struct {
	price             [classCount]money.Pico
	unsplit           money.Pico // output of which nobody says whether it is text or image
	promptMax, outMax money.Pico // the dearest class that the model can report
}

// resolve fills the bands from the meters. What the file leaves out:
//   - cached input is input; written cache is 1.25 x input from gpt-5.6 on, input before;
//   - image input of text models is input, as Azure sells it; other image and all
//     audio tokens take the dearer of input and output;
//   - priority is 2 x standard, 2.5 x in data zones;
//   - any other price of a band is the lower band's, in the ratio of the prices
//     of input (input, and output itself) or of output (the other outputs; all
//     outputs of long priority).
func (e *Entry) resolve() {
	in := e.first("in", "audio_in", "image_in", "out", "audio_out", "image_out")
	if in == 0 {
		return
	}
	out := orElse(e.first("out", "image_out", "audio_out"), in)
	dearer := max(in, out)
	var std band
	std.price = [classCount]money.Pico{
		classIn: in, classCached: in, classWrite: in, classAudioIn: dearer, classImageIn: dearer,
		classOut: out, classAudioOut: dearer, classImageOut: dearer,
	}
	if is56OrLater(e.Model) {
		std.price[classWrite] = scale(in, 5, 4)
	}
	if e.Mode.family() == ModeChat {
		std.price[classImageIn] = in
	}
	for class, name := range classNames {
		std.price[class] = orElse(e.meters[name], std.price[class])
	}
	std.price[classAudioCached] = orElse(e.meters["audio_in_cached"], std.price[classAudioIn])
	e.bands[bandStandard] = std
	priority := scale(in, 2, 1)
	if inZone(e.SKU) {
		priority = scale(in, 5, 2)
	}
	e.bands[bandPriority] = e.derive(bandPriority, &std, priority, 0)
	e.bands[bandLong], e.bands[bandLongPriority] = std, e.bands[bandPriority]
	if longIn := e.meters["long_in"]; longIn != 0 {
		long, prio := e.derive(bandLong, &std, longIn, 0), &e.bands[bandPriority]
		e.bands[bandLong] = long
		e.bands[bandLongPriority] = e.derive(bandLongPriority, prio,
			scale(prio.price[classIn], longIn, in), scale(prio.price[classOut], long.price[classOut], out))
	}
	e.finish()
}

// derive makes a band from another one: its own meters where the file has them,
// else in and out if given, else the other band's prices in proportion.
func (e *Entry) derive(to int, from *band, in, out money.Pico) (b band) {
	prefix := bandPrefixes[to]
	in = orElse(e.meters[prefix+"in"], in)
	out = orElse(out, scale(from.price[classOut], in, from.price[classIn]))
	out = orElse(e.meters[prefix+"out"], out)
	for class, name := range classNames {
		numerator, denominator := in, from.price[classIn]
		if class >= classOut {
			numerator, denominator = out, from.price[classOut]
		}
		b.price[class] = orElse(e.meters[prefix+name], scale(from.price[class], numerator, denominator))
	}
	return b
}

// finish computes what follows from the prices of each band.
func (e *Entry) finish() {
	hasImageIn, hasAudioIn := e.names("image_in"), e.names("audio_in") || e.names("audio_in_cached")
	for i := range e.bands {
		b := &e.bands[i]
		b.unsplit = b.price[classOut]
		if e.Mode == ModeImage {
			b.unsplit = max(b.unsplit, b.price[classImageOut])
		}
		b.promptMax = max(b.price[classIn], b.price[classCached], b.price[classWrite])
		if hasAudioIn {
			b.promptMax = max(b.promptMax, b.price[classAudioIn], b.price[classAudioCached])
		}
		if hasImageIn || e.Mode.family() != ModeChat {
			b.promptMax = max(b.promptMax, b.price[classImageIn])
		}
		b.outMax = max(b.unsplit, b.price[classOut], b.price[classAudioOut], b.price[classImageOut])
	}
}

// names tells whether the file has a price of a class of token, in any band.
func (e *Entry) names(class string) bool {
	return slices.ContainsFunc(bandPrefixes[:], func(prefix string) bool { return e.meters[prefix+class] != 0 })
}

// batch is the entry at the prices of batch deployments: its batch meters, and
// half of its prices where it has none, in every band. ok is false if the
// entry has no token prices.
func (e *Entry) batch(sku string) (half Entry, ok bool) {
	std := e.bands[bandStandard].price
	if std[classIn] == 0 {
		return Entry{}, false
	}
	half = *e
	half.SKU, half.Key, half.derived = sku, e.Key+keyBatch, true
	in := orElse(e.meters["batch_in"], scale(std[classIn], 1, 2))
	cached := orElse(e.meters["batch_in_cached"], scale(std[classCached], in, std[classIn]))
	out := orElse(e.meters["batch_out"], scale(std[classOut], 1, 2))
	for i := range half.bands {
		for class, price := range e.bands[i].price {
			switch {
			case class == classCached:
				price = scale(price, cached, std[classCached])
			case class < classOut:
				price = scale(price, in, std[classIn])
			default:
				price = scale(price, out, std[classOut])
			}
			half.bands[i].price[class] = price
		}
	}
	half.finish()
	return half, true
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
