package retail

import (
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
)

// DecimalDigitsMax is how many digits, and how large an exponent, a price may have.
const DecimalDigitsMax = 40

// picoDecimals is the number of decimals of USD that a pico-USD has.
const picoDecimals = 12

// A dimension is what a unit of measure counts.
type dimension uint8

const (
	ofTokens dimension = iota + 1
	ofCharacters
	ofTime // seconds
)

// unit is a unit of measure: so many of what is sold one by one.
type unit struct {
	size int64
	time bool // size is in seconds
}

// units are the units of measure of the API that we know. The rule is to add a
// unit only with a meter that shows it: a wrong one is an error of 1000 times.
var units = map[string]unit{
	"1k": {size: 1_000}, "10k": {size: 10_000}, "100k": {size: 100_000}, "1m": {size: 1_000_000},
	"1 hour": {3600, true}, "1/hour": {3600, true}, "1 minute": {60, true}, "1 second": {1, true},
}

// parseUnit reads a unit of measure for what a meter counts. Tokens and
// characters are sold by the thousand or more: a unit of 1 is refused.
func parseUnit(text string, of dimension) (unit, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	switch of {
	case ofTokens:
		s = strings.TrimSuffix(s, " tokens")
	case ofCharacters:
		s = strings.TrimSuffix(s, " characters")
	case ofTime:
	}
	u, ok := units[s]
	if !ok || u.time != (of == ofTime) {
		return unit{}, fmt.Errorf("unit of measure %q is not known for such a meter", text)
	}
	return u, nil
}

var (
	errNoPrice  = errors.New("the price is zero; nothing is free")
	errNegative = errors.New("the price is negative")
)

// pico converts a decimal price of a unit into pico-USD per piece, exactly. For
// time it rounds up: a price by the hour seldom is a whole number per second.
func (u unit) pico(decimal string) (money.Pico, error) {
	digits, exponent, err := parseDecimal(decimal)
	if err != nil {
		return 0, err
	}
	switch digits.Sign() {
	case 0:
		return 0, errNoPrice
	case -1:
		return 0, errNegative
	}
	divisor := big.NewInt(u.size)
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exponent+picoDecimals, -exponent-picoDecimals))), nil)
	if exponent+picoDecimals >= 0 {
		digits.Mul(digits, power)
	} else {
		divisor.Mul(divisor, power)
	}
	quotient, rest := digits.QuoRem(digits, divisor, new(big.Int))
	if rest.Sign() != 0 {
		if !u.time {
			return 0, fmt.Errorf("%s USD is no whole number of pico-USD per piece", decimal)
		}
		quotient.Add(quotient, big.NewInt(1))
	}
	if !quotient.IsInt64() || quotient.Int64() > int64(pricing.PriceMax) {
		return 0, fmt.Errorf("%s USD is more than 1000 USD per piece; the unit must be wrong", decimal)
	}
	return money.Pico(quotient.Int64()), nil
}

// parseDecimal reads a JSON number as digits times ten to an exponent.
func parseDecimal(s string) (digits *big.Int, exponent int, err error) {
	bad := fmt.Errorf("%.60q is no price", s)
	mantissa, power, scientific := strings.Cut(strings.ToLower(s), "e")
	if scientific {
		sign := 1
		if rest, ok := strings.CutPrefix(power, "-"); ok {
			sign, power = -1, rest
		} else {
			power = strings.TrimPrefix(power, "+")
		}
		if power == "" || len(power) > 4 {
			return nil, 0, bad
		}
		for _, c := range power {
			if c < '0' || c > '9' {
				return nil, 0, bad
			}
			exponent = exponent*10 + int(c-'0')
		}
		exponent *= sign
	}
	whole, fraction, point := strings.Cut(mantissa, ".")
	unsigned := strings.TrimPrefix(whole, "-")
	text := unsigned + fraction
	if unsigned == "" || point && fraction == "" || len(text) > DecimalDigitsMax || strings.Trim(text, "0123456789") != "" {
		return nil, 0, bad
	}
	exponent -= len(fraction)
	if exponent > DecimalDigitsMax || exponent < -DecimalDigitsMax {
		return nil, 0, bad
	}
	digits, _ = new(big.Int).SetString(text, 10)
	if whole != unsigned {
		digits.Neg(digits)
	}
	return digits, exponent, nil
}
