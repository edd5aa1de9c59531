package export

import (
	"strconv"
	"strings"
	"time"
)

// kind is the type of a column.
type kind uint8

const (
	text      kind = iota
	integer        // 64 bits
	boolean        // n is 0 or 1
	instant        // n is Unix milliseconds
	second         // the same, always whole seconds
	decimal3       // n is in thousandths
	decimal9       // n is in billionths: USD from nano-USD
	decimal12      // n is in 1e-12: USD from pico-USD
)

// scale is the number of decimals of a decimal column, 0 of any other.
func (k kind) scale() int {
	switch k {
	case decimal3:
		return 3
	case decimal9:
		return 9
	case decimal12:
		return 12
	}
	return 0
}

// value is a cell. The zero value is null.
type value struct {
	known bool
	n     int64
	s     string
}

// str is null if it is empty: a record does not tell the two apart.
func str[T ~string](s T) value { return value{known: s != "", s: string(s)} }

func num(n int64) value { return value{known: true, n: n} }

// field describes a column to those who write it.
type field struct {
	name     string
	kind     kind
	required bool // never null
	unique   bool // nearly every row has a value of its own
}

// column is a field, and how a row has it.
type column[T any] struct {
	field
	of func(*T) value
}

// table is what is written: fields, and rows of as many values.
type table interface {
	row(values []value) error
	close() error
}

func fields[T any](columns []column[T]) []field {
	out := make([]field, len(columns))
	for i := range columns {
		out[i] = columns[i].field
	}
	return out
}

// unfitError says why a record has no row: no other one is to blame, and the
// rest is exported.
type unfitError struct{ reason string }

func (e *unfitError) Error() string { return e.reason }

// cells fills to with the row of v. Its error is an *unfitError.
func cells[T any](to []value, columns []column[T], v *T) error {
	for i := range columns {
		c := &columns[i]
		to[i] = c.of(v)
		if c.required && !to[i].known {
			return &unfitError{c.name + " is not known"}
		}
	}
	return nil
}

// format writes a value for CSV: null is nothing.
func (v value) format(k kind) string {
	switch {
	case !v.known:
		return ""
	case k == text:
		return v.s
	case k == boolean:
		return strconv.FormatBool(v.n != 0)
	case k == instant:
		return time.UnixMilli(v.n).UTC().Format("2006-01-02T15:04:05.000Z")
	case k == second:
		return time.UnixMilli(v.n).UTC().Format("2006-01-02T15:04:05Z")
	case k.scale() > 0:
		return decimal(v.n, k.scale())
	}
	return strconv.FormatInt(v.n, 10)
}

// decimal writes n / 10^scale with as many decimals as it needs.
func decimal(n int64, scale int) string {
	digits := strconv.FormatInt(n, 10)
	digits, negative := strings.CutPrefix(digits, "-")
	if missing := scale + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	whole, fraction := digits[:len(digits)-scale], strings.TrimRight(digits[len(digits)-scale:], "0")
	if fraction != "" {
		whole += "." + fraction
	}
	if negative {
		return "-" + whole
	}
	return whole
}
