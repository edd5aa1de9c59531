package predecessor

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
)

var (
	errAbsent   = errors.New("is not there")
	errNumber   = errors.New("is not a decimal number such as 12.5")
	errNegative = errors.New("is negative")
)

// floating is the decimal that a double was meant to be: its shortest text. The
// table is the one place where money is a double. A CSV file has it as a text.
func floating(value any) (string, error) {
	text := ""
	switch v := value.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	case nil:
	default:
		return "", errNumber
	}
	if text == "" {
		return "", errAbsent
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.ContainsAny(text, "xXpP_iInN") { // a plain number, not all that Go reads
		return "", errNumber
	}
	return decimal(strconv.FormatFloat(f, 'f', -1, 64))
}

// decimal checks a decimal text, such as .NET writes a decimal. A number, as an
// export may make of it, is read as a double.
func decimal(value any) (string, error) {
	if number, ok := value.(json.Number); ok {
		return floating(number)
	}
	text, ok := value.(string)
	switch {
	case value == nil || ok && text == "":
		return "", errAbsent
	case !ok:
		return "", errNumber
	}
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || point && fraction == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return "", errNumber
	}
	if negative && strings.Trim(whole+fraction, "0") != "" {
		return "", errNegative
	}
	return digits, nil
}

// boolean is "true", "false" or, if there is none, "".
func boolean(value any) (string, error) {
	switch v := value.(type) {
	case nil:
		return "", nil
	case bool:
		return strconv.FormatBool(v), nil
	case string:
		if lower := strings.ToLower(v); lower == "" || lower == "true" || lower == "false" {
			return lower, nil
		}
	}
	return "", errors.New("is neither true nor false")
}

// amountIn reads a checked decimal in a unit. Dollars are rounded to the nearest
// nano-dollar, half of one up; tokens are whole.
func amountIn(text string, unit quota.Unit) (int64, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	if unit == quota.UnitTokens {
		n, err := strconv.ParseInt(whole, 10, 64)
		if err != nil || strings.Trim(fraction, "0") != "" {
			return 0, fmt.Errorf("%s is not a whole number of tokens, which its limit is on", text)
		}
		return n, nil
	}
	const decimals = 9
	up := false
	if len(fraction) > decimals {
		up, fraction = fraction[decimals] >= '5', fraction[:decimals]
	}
	n, err := money.ParseNano(whole + "." + fraction + "0") // never a point without digits
	if err != nil || up && n == 1<<63-1 {
		return 0, fmt.Errorf("%s is %w", text, money.ErrRange)
	}
	if up {
		n++
	}
	return int64(n), nil
}
