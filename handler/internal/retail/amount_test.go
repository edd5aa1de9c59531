package retail

import (
	"math/big"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/money"
)

func TestPico(t *testing.T) {
	f := func(price, uom string, of dimension, want money.Pico) {
		t.Helper()
		u, err := parseUnit(uom, of)
		if err != nil {
			t.Errorf("%s per %s: %v", price, uom, err)
			return
		}
		if got, err := u.pico(price); err != nil || got != want {
			t.Errorf("%s per %s: got %d, %v; want %d", price, uom, got, err, want)
		}
	}
	f("2.5", "1M", ofTokens, 2_500_000)
	f("0.0025", "1K", ofTokens, 2_500_000)
	f("0.025", "10K", ofTokens, 2_500_000)
	f("0.25", "100K", ofTokens, 2_500_000)
	f("2.5", "1M Tokens", ofTokens, 2_500_000)
	f("1e-05", "1K", ofTokens, 10_000)
	f("1E-5", "1K", ofTokens, 10_000)
	f("0.00000055", "1K", ofTokens, 550)
	f("5.5e-3", "1M", ofTokens, 5_500)
	f("0.0055", "1M", ofTokens, 5_500)
	f("270", "1M", ofTokens, 270_000_000)
	f("2.7e+2", "1M", ofTokens, 270_000_000)
	f("2.50000000000000000000", "1M", ofTokens, 2_500_000)
	f("15", "1M", ofCharacters, 15_000_000)
	f("0.36", "1 Hour", ofTime, 100_000_000)
	f("0.36", "1/Hour", ofTime, 100_000_000)
	f("1.02", "1 Hour", ofTime, 283_333_334) // rounded up
	f("0.006", "1 Minute", ofTime, 100_000_000)
	f("0.0001", "1 Second", ofTime, 100_000_000)
	f("1000", "1 Second", ofTime, 1_000_000_000_000_000)
}

func TestPicoRefuses(t *testing.T) {
	f := func(price, uom string, of dimension, want string) {
		t.Helper()
		u, err := parseUnit(uom, of)
		if err == nil {
			_, err = u.pico(price)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s per %s: got %v, want %q", price, uom, err, want)
		}
	}
	for _, uom := range []string{"", "1", "100", "1B", "1 GB", "1/Month", "1 Hour", "1,000", "K", "1KK", "1 K"} {
		f("1", uom, ofTokens, "unit of measure")
	}
	f("1", "1M", ofTime, "unit of measure")
	f("1", "1M Tokens", ofCharacters, "unit of measure")
	f("0", "1M", ofTokens, "zero")
	f("0.000", "1M", ofTokens, "zero")
	f("0e5", "1M", ofTokens, "zero")
	f("-1", "1M", ofTokens, "negative")
	f("0.0000001", "1M", ofTokens, "whole number")
	f("0.0000000001", "1K", ofTokens, "whole number")
	f("1000.001", "1 Second", ofTime, "more than 1000 USD")
	f("1000000000", "1K", ofTokens, "more than 1000 USD")
	f("1e40", "1M", ofTokens, "more than 1000 USD")
	f("1e41", "1M", ofTokens, "no price")
	f("1e-41", "1M", ofTokens, "no price")
	f("1e99999", "1M", ofTokens, "no price")
	f(strings.Repeat("1", DecimalDigitsMax), "1M", ofTokens, "more than 1000 USD")
	f(strings.Repeat("1", DecimalDigitsMax+1), "1M", ofTokens, "no price")
	for _, bad := range []string{"", "-", ".", "1.", ".5", "1e", "1e+", "1e-+2", "0x10", "NaN", "1_0", "+1", "--1", "1 "} {
		f(bad, "1M", ofTokens, "no price")
	}
}

// FuzzPico compares with exact fractions.
func FuzzPico(f *testing.F) {
	for _, s := range []string{"2.5", "1e-05", "0.00000055", "0", "-3", "1e40", "0.0000001", "00.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, u := range units {
			got, err := u.pico(s)
			if err != nil {
				continue
			}
			exact, ok := new(big.Rat).SetString(s)
			if !ok {
				t.Fatalf("%q was read as a number", s)
			}
			exact.Mul(exact, big.NewRat(1_000_000_000_000, u.size))
			over := new(big.Rat).Sub(new(big.Rat).SetInt64(int64(got)), exact)
			if got <= 0 || over.Sign() < 0 || over.Cmp(big.NewRat(1, 1)) >= 0 || !u.time && over.Sign() != 0 {
				t.Fatalf("%q per %v: got %d, exactly %v", s, u, got, exact)
			}
		}
	})
}
