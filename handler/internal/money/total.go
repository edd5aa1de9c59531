package money

import (
	"math"
	"math/bits"
)

// Total is a cost before rounding, never negative, and empty at first: 128 bits of pico-USD, and
// less than one more, in femto-USD. The latter comes from what is priced by the
// second and counted in milliseconds. An overflow sticks.
type Total struct {
	hi, lo uint64
	femto  uint64 // below 1000
	bad    bool
}

// Add adds units at a price. A negative factor poisons the total: it has no
// rounded value any more, as after an overflow.
func (t *Total) Add(units int64, price Pico) {
	if units < 0 || price < 0 {
		t.bad = true
		return
	}
	hi, lo := bits.Mul64(uint64(units), uint64(price))
	t.plus(hi, lo)
}

// AddMilli adds thousandths of units at a price per unit.
func (t *Total) AddMilli(thousandths int64, price Pico) {
	if thousandths < 0 || price < 0 {
		t.bad = true
		return
	}
	hi, lo := bits.Mul64(uint64(thousandths), uint64(price))
	quotient, remainder := bits.Div64(hi%1000, lo, 1000)
	t.plus(hi/1000, quotient)
	t.addFemto(remainder)
}

// AddTotal adds another total.
func (t *Total) AddTotal(other *Total) {
	t.plus(other.hi, other.lo)
	t.addFemto(other.femto)
	t.bad = t.bad || other.bad
}

func (t *Total) plus(hi, lo uint64) {
	var carry uint64
	t.lo, carry = bits.Add64(t.lo, lo, 0)
	t.hi, carry = bits.Add64(t.hi, hi, carry)
	t.bad = t.bad || carry != 0
}

func (t *Total) addFemto(femto uint64) {
	if t.femto += femto; t.femto >= 1000 {
		t.femto -= 1000
		t.plus(0, 1)
	}
}

// Ceil rounds up to nano-USD. It fails with [ErrRange].
func (t *Total) Ceil() (Nano, error) {
	if t.bad || t.hi >= PicoPerNano {
		return 0, ErrRange
	}
	quotient, remainder := bits.Div64(t.hi, t.lo, PicoPerNano)
	if remainder != 0 || t.femto != 0 {
		quotient++
	}
	if quotient > math.MaxInt64 {
		return 0, ErrRange
	}
	return Nano(quotient), nil
}

// Weighted is a sum of totals, each times a multiplier in ppm, in femto-USD
// times ppm: 256 bits, the lowest word first. A total has at most 138 bits in
// femto-USD and a multiplier 27, so that three of them fit.
type Weighted struct {
	words [4]uint64
	bad   bool
}

// Add adds a total times ppm.
func (w *Weighted) Add(t *Total, ppm int64) {
	term := Weighted{words: [4]uint64{t.lo, t.hi}}
	term.times(1000)
	var carry uint64
	term.words[0], carry = bits.Add64(term.words[0], t.femto, 0)
	for i := 1; i < len(term.words); i++ {
		term.words[i], carry = bits.Add64(term.words[i], 0, carry)
	}
	term.times(uint64(ppm))
	carry = 0
	for i := range w.words {
		w.words[i], carry = bits.Add64(w.words[i], term.words[i], carry)
	}
	w.bad = w.bad || t.bad || carry != 0
}

func (w *Weighted) times(factor uint64) {
	var over uint64
	for i := range w.words {
		hi, lo := bits.Mul64(w.words[i], factor)
		var carry uint64
		w.words[i], carry = bits.Add64(lo, over, 0)
		over = hi + carry
	}
	w.bad = w.bad || over != 0
}

// divideUp divides and rounds up. To divide twice so is the same as to divide
// once by the product and to round up once.
func (w *Weighted) divideUp(by uint64) {
	var remainder uint64
	for i := len(w.words) - 1; i >= 0; i-- {
		w.words[i], remainder = bits.Div64(remainder, w.words[i], by)
	}
	carry := uint64(0)
	if remainder != 0 {
		carry = 1
	}
	for i := range w.words {
		w.words[i], carry = bits.Add64(w.words[i], 0, carry)
	}
}

// Ceil multiplies by two more multipliers and rounds up to nano-USD, once.
func (w Weighted) Ceil(ppm1, ppm2 int64) (Nano, error) {
	w.times(uint64(ppm1))
	w.times(uint64(ppm2))
	w.divideUp(PPM * PPM * PPM)
	w.divideUp(1000 * PicoPerNano) // femto-USD in a nano-USD
	if w.bad || w.words[1] != 0 || w.words[2] != 0 || w.words[3] != 0 || w.words[0] > math.MaxInt64 {
		return 0, ErrRange
	}
	return Nano(w.words[0]), nil
}
