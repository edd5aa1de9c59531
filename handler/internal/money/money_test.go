package money_test

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/costgate/costgate/handler/internal/money"
)

func TestParseNano(t *testing.T) {
	f := func(s string, want money.Nano, wantErr error) {
		t.Helper()
		got, err := money.ParseNano(s)
		if !errors.Is(err, wantErr) || got != want {
			t.Errorf("ParseNano(%q) = %d, %v; want %d, %v", s, got, err, want, wantErr)
		}
	}
	f("0", 0, nil)
	f("-0", 0, nil)
	f("1", 1_000_000_000, nil)
	f("12.50", 12_500_000_000, nil)
	f("0.000000001", 1, nil)
	f("-0.000000001", -1, nil)
	f("0.0000000010", 1, nil) // a trailing zero adds no precision
	f("0.0000000001", 0, money.ErrPrecision)
	f("9223372036.854775807", math.MaxInt64, nil)
	f("9223372036.854775808", 0, money.ErrRange)
	f("-9223372036.854775808", math.MinInt64, nil)
	f("-9223372036.854775809", 0, money.ErrRange)
	f("99999999999999999999999", 0, money.ErrRange)
	f("", 0, money.ErrSyntax)
	f("-", 0, money.ErrSyntax)
	f(".5", 0, money.ErrSyntax)
	f("5.", 0, money.ErrSyntax)
	f("1e3", 0, money.ErrSyntax)
	f("1,000", 0, money.ErrSyntax)
	f("+1", 0, money.ErrSyntax)
	f(" 1", 0, money.ErrSyntax)
	f("--1", 0, money.ErrSyntax)
	f("1.-5", 0, money.ErrSyntax)
	f("٣", 0, money.ErrSyntax)
}

func TestStringRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := money.Nano(rapid.Int64().Draw(t, "n"))
		back, err := money.ParseNano(n.String())
		if err != nil || back != n {
			t.Fatalf("%d -> %q -> %d, %v", n, n.String(), back, err)
		}
	})
}

// TestSumAgainstBigInt compares 128-bit sums, scaled and rounded up, with math/big.
func TestSumAgainstBigInt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sum money.Total
		want := new(big.Int)
		for range rapid.IntRange(0, 6).Draw(t, "terms") {
			units := rapid.Int64Range(0, math.MaxInt64).Draw(t, "units")
			price := rapid.Int64Range(0, math.MaxInt64).Draw(t, "price")
			if rapid.Bool().Draw(t, "small") {
				units, price = units%2_000_000, price%300_000_000
			}
			sum.Add(units, money.Pico(price))
			want.Add(want, new(big.Int).Mul(big.NewInt(units), big.NewInt(price)))
		}
		ppm := rapid.SampledFrom([]int64{money.PPM, 0, 1, 900_000, 1_375_000}).Draw(t, "ppm")
		divisor := big.NewInt(money.PicoPerNano * money.PPM)
		want.Mul(want, big.NewInt(ppm)).Add(want, divisor).Sub(want, big.NewInt(1)).Div(want, divisor)
		var charged money.Weighted
		charged.Add(&sum, ppm)
		got, err := charged.Ceil(money.PPM, money.PPM)
		if want.IsInt64() {
			if err != nil || int64(got) != want.Int64() {
				t.Fatalf("CeilPPM(%d) = %d, %v; want %s", ppm, got, err, want)
			}
		} else if !errors.Is(err, money.ErrRange) {
			t.Fatalf("CeilPPM(%d) = %d, %v; want ErrRange for %s", ppm, got, err, want)
		}
	})
}

func TestSumRefusesNegatives(t *testing.T) {
	for _, c := range [][2]int64{{-1, 1}, {1, -1}} {
		var sum money.Total
		sum.Add(c[0], money.Pico(c[1]))
		if _, err := sum.Ceil(); !errors.Is(err, money.ErrRange) {
			t.Errorf("Add(%d, %d): Ceil err = %v, want ErrRange", c[0], c[1], err)
		}
	}
}

// TestUnitsWithin proves the promise: the units it returns cost at most the amount, one more costs more.
func TestUnitsWithin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := money.Nano(rapid.Int64Range(0, 1e15).Draw(t, "amount"))
		price := money.Pico(rapid.Int64Range(1, 3e11).Draw(t, "price"))
		units := money.UnitsWithin(amount, price)
		cost := func(units int64) money.Nano {
			var sum money.Total
			sum.Add(units, price)
			n, err := sum.Ceil()
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if cost(units) > amount || cost(units+1) <= amount {
			t.Fatalf("UnitsWithin(%d, %d) = %d", amount, price, units)
		}
	})
	if got := money.UnitsWithin(math.MaxInt64, 1); got != math.MaxInt64 {
		t.Errorf("UnitsWithin at the limit = %d", got)
	}
	if money.UnitsWithin(1, 0) != 0 || money.UnitsWithin(-1, 1) != 0 {
		t.Error("UnitsWithin of nothing must be 0")
	}
}

func FuzzParseNano(f *testing.F) {
	for _, s := range []string{"0", "-1.5", "9223372036.854775807", "1e9", "0.0000000001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := money.ParseNano(s)
		if err != nil {
			return
		}
		if back, err := money.ParseNano(n.String()); err != nil || back != n {
			t.Fatalf("%q -> %d -> %q -> %d, %v", s, n, n.String(), back, err)
		}
	})
}
