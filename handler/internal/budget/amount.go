package budget

import (
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/costgate/costgate/handler/internal/money"
)

// Amount is an amount of money of an alert, in the budget's currency; it may be
// unknown, which is not zero. Decimals beyond the ninth are cut off.
type Amount struct {
	Nano  money.Nano
	Known bool
}

const (
	amountBytesMax   = 64
	amountExponent   = 30 // of a JSON number; larger ones are no amounts of money
	amountAffixRunes = 12 // before or behind the digits: "NAfl.", "US$"
	decimalsMax      = 9
)

// ParseAmount reads an amount as people of some country write it: a currency
// sign or code, groups of thousands by comma, point, blank or apostrophe, of
// lakhs by comma, and a decimal point or comma. What can be read in two ways, or
// not at all, is unknown.
func ParseAmount(display string) Amount {
	digits, negative, ok := strip(display)
	if !ok {
		return Amount{}
	}
	whole, fraction, ok := splitDecimal(digits)
	if !ok || strings.Trim(fraction, "0123456789") != "" {
		return Amount{}
	}
	return amountOf(whole, fraction, negative)
}

// parseNumber reads a number of a program: its decimal sign is a point, and it
// has no groups.
func parseNumber(text string) Amount {
	if len(text) > amountBytesMax {
		return Amount{}
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		return parseExponent(text, text[i+1:])
	}
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || strings.Trim(whole+fraction, "0123456789") != "" || (point && fraction == "") {
		return Amount{}
	}
	return amountOf(whole, fraction, negative)
}

func parseExponent(text, exponent string) Amount {
	n, err := strconv.Atoi(exponent)
	if err != nil || n > amountExponent || n < -amountExponent {
		return Amount{}
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return Amount{}
	}
	r.Mul(r, big.NewRat(money.NanoPerUSD, 1))
	nano := new(big.Int).Quo(r.Num(), r.Denom())
	return Amount{money.Nano(nano.Int64()), nano.IsInt64()}.orUnknown()
}

func (a Amount) orUnknown() Amount {
	if !a.Known {
		return Amount{}
	}
	return a
}

func amountOf(whole, fraction string, negative bool) Amount {
	text := whole
	if fraction = fraction[:min(len(fraction), decimalsMax)]; fraction != "" {
		text += "." + fraction
	}
	if negative {
		text = "-" + text
	}
	n, err := money.ParseNano(text)
	return Amount{n, err == nil}.orUnknown()
}

// strip removes currency signs and codes around a number, and makes one kind of
// blank of those in it.
func strip(display string) (digits string, negative, ok bool) {
	first := strings.IndexAny(display, "0123456789")
	last := strings.LastIndexAny(display, "0123456789")
	if first < 0 || len(display) > amountBytesMax {
		return "", false, false
	}
	before, behind := display[:first], display[last+1:]
	if !isAffix(before) || !isAffix(behind) || beginsWithDecimals(before) {
		return "", false, false
	}
	minus := strings.ContainsAny(before, "-−") || strings.HasPrefix(behind, "-") || strings.HasPrefix(behind, "−")
	brackets := strings.Contains(before, "(")
	if brackets != strings.Contains(behind, ")") || (!minus && strings.ContainsAny(behind, "-−")) {
		return "", false, false
	}
	var out strings.Builder
	for _, r := range display[first : last+1] {
		switch {
		case r >= '0' && r <= '9', r == '.', r == ',':
			out.WriteRune(r)
		case r == ' ', r == '\u00a0', r == '\u202f', r == '\u2009', r == '\'', r == '\u2019':
			out.WriteByte(' ')
		default:
			return "", false, false
		}
	}
	return out.String(), minus || brackets, true
}

// scales are words that make a number another one.
var scales = map[string]bool{
	"k": true, "m": true, "b": true, "t": true, "g": true, "bn": true, "mn": true, "mm": true, "mio": true, "mrd": true, "mia": true, "tsd": true, "tys": true,
	"mln": true, "mld": true, "bln": true, "l": true, "cr": true, "lakh": true, "lakhs": true, "lac": true, "crore": true, "crores": true, "hundred": true,
	"thousand": true, "million": true, "millions": true, "billion": true, "billions": true, "trillion": true, "mil": true, "万": true, "億": true, "亿": true, "千": true,
}

// isAffix tells whether a text may stand beside a number: currency signs and
// codes, a sign, brackets, marks of direction. A percent sign may not, nor may a
// word that means thousands.
func isAffix(s string) bool {
	if utf8.RuneCountInString(s) > amountAffixRunes {
		return false
	}
	for word := range strings.FieldsFuncSeq(strings.ToLower(s), func(r rune) bool { return !unicode.In(r, unicode.L, unicode.M) }) {
		if scales[word] {
			return false
		}
	}
	for _, r := range s {
		if !unicode.In(r, unicode.L, unicode.M, unicode.Sc, unicode.Cf, unicode.Zs) && !strings.ContainsRune("./()-−+", r) {
			return false
		}
	}
	return true
}

// beginsWithDecimals tells whether a point before the digits could be their
// decimal sign, as in "$.50"; in "Rs.50" it ends a word.
func beginsWithDecimals(before string) bool {
	word, point := strings.CutSuffix(before, ".")
	r, _ := utf8.DecodeLastRuneInString(word)
	return point && !unicode.In(r, unicode.L, unicode.M)
}

// splitDecimal finds the decimal sign: of two kinds of sign the last one; of one
// kind that is there once, unless three digits follow it and so it could group
// them as well.
func splitDecimal(s string) (whole, fraction string, ok bool) {
	point, comma := strings.LastIndexByte(s, '.'), strings.LastIndexByte(s, ',')
	at := max(point, comma)
	switch {
	case at < 0:
		whole, ok = grouped(s, " ")
		return whole, "", ok
	case point >= 0 && comma >= 0:
		groups := ","
		if at == comma {
			groups = "."
		}
		if strings.Count(s, s[at:at+1]) > 1 {
			return "", "", false
		}
		whole, ok = grouped(s[:at], groups)
		return whole, s[at+1:], ok && s[at+1:] != ""
	case strings.Count(s, s[at:at+1]) > 1:
		whole, ok = grouped(s, s[at:at+1])
		return whole, "", ok
	case len(s)-at-1 == 3 && at <= 3 && s[0] != '0' && !strings.Contains(s, " "):
		if s[at] == '.' { // "1.000" is one, or a thousand
			return "", "", false
		}
		whole, ok = grouped(s, ",") // "1,000": Azure's own amounts are in English
		return whole, "", ok
	}
	whole, ok = grouped(s[:at], " ")
	return whole, s[at+1:], ok && s[at+1:] != ""
}

// grouped joins groups of three digits, of which the first may be shorter; by
// comma also groups of two before the last three, as in India.
func grouped(s, sign string) (string, bool) {
	parts := strings.Split(s, sign)
	middle := 3
	if sign == "," && len(parts) > 2 && len(parts[1]) == 2 {
		middle = 2
	}
	for i, part := range parts {
		size := len(part)
		fits := size > 0
		switch {
		case len(parts) == 1:
		case i == 0:
			fits = size > 0 && size <= middle
		case i == len(parts)-1:
			fits = size == 3
		default:
			fits = size == middle
		}
		if !fits || strings.Trim(part, "0123456789") != "" {
			return "", false
		}
	}
	return strings.Join(parts, ""), true
}
