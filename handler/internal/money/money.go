// Package money holds the integers that stand for US dollars.
//
// Two units exist. Prices are pico-USD (1e-12 USD) per unit sold: every Azure
// token price is a whole number of them. Budgets, charges and balances are
// nano-USD (1e-9 USD) in an int64, enough for 9.2 billion dollars. Products of
// a price and a quantity are summed in 128 bits and rounded once, up, when the
// sum becomes a charge ([Total.Ceil], [Weighted.Ceil]). There is no floating point here, on
// purpose.
package money

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Nano is an amount in nano-USD.
type Nano int64

// Pico is a price in pico-USD per unit.
type Pico int64

const (
	// NanoPerUSD is the number of nano-USD in a dollar.
	NanoPerUSD = 1_000_000_000
	// PicoPerNano is the number of pico-USD in a nano-USD.
	PicoPerNano = 1_000
	// PPM is the multiplier that changes nothing (parts per million).
	PPM = 1_000_000

	decimals = 9
)

var (
	// ErrSyntax says that a text is not a plain decimal number.
	ErrSyntax = errors.New("not a decimal number like 12.50 (no exponent, no separators)")
	// ErrPrecision says that a text has more than nine decimals.
	ErrPrecision = errors.New("more than 9 decimals (the smallest amount is 0.000000001 USD)")
	// ErrRange says that an amount does not fit.
	ErrRange = errors.New("out of range (at most 9223372036.854775807 USD)")
)

// ParseNano reads a decimal number of dollars: an optional sign, digits, and
// optionally a point with at most nine digits. Errors are [ErrSyntax],
// [ErrPrecision] and [ErrRange].
func ParseNano(s string) (Nano, error) {
	rest, negative := strings.CutPrefix(s, "-")
	whole, fraction, point := strings.Cut(rest, ".")
	if whole == "" || (point && fraction == "") {
		return 0, ErrSyntax
	}
	for _, part := range []string{whole, fraction} {
		for i := range len(part) {
			if part[i] < '0' || part[i] > '9' {
				return 0, ErrSyntax
			}
		}
	}
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > decimals {
		return 0, ErrPrecision
	}
	var n uint64
	for _, digits := range []string{whole, fraction + strings.Repeat("0", decimals-len(fraction))} {
		for i := range len(digits) {
			hi, lo := bits.Mul64(n, 10)
			sum, carry := bits.Add64(lo, uint64(digits[i]-'0'), 0)
			if hi != 0 || carry != 0 || sum > 1<<63 {
				return 0, ErrRange
			}
			n = sum
		}
	}
	if negative {
		return Nano(-n), nil
	}
	if n > math.MaxInt64 {
		return 0, ErrRange
	}
	return Nano(n), nil
}

// String writes the amount in dollars with as many decimals as it needs:
// "12.5", "-0.000000001", "0".
func (n Nano) String() string {
	magnitude := uint64(n)
	sign := ""
	if n < 0 {
		magnitude, sign = -magnitude, "-"
	}
	whole, fraction := magnitude/NanoPerUSD, magnitude%NanoPerUSD
	if fraction == 0 {
		return fmt.Sprintf("%s%d", sign, whole)
	}
	return fmt.Sprintf("%s%d.%s", sign, whole, strings.TrimRight(fmt.Sprintf("%09d", fraction), "0"))
}

// UnitsWithin tells how many units at a price fit into an amount, so that their
// rounded-up cost does not exceed it. A price of zero is a caller's mistake and
// fits nothing.
func UnitsWithin(amount Nano, price Pico) int64 {
	if amount <= 0 || price <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(amount), PicoPerNano)
	if hi >= uint64(price) {
		return math.MaxInt64
	}
	quotient, _ := bits.Div64(hi, lo, uint64(price))
	return int64(min(quotient, math.MaxInt64))
}
