package boltstore

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/costgate/costgate/handler/internal/ledger"
)

func TestEncoding(t *testing.T) {
	f := func(e ledger.Entity) {
		t.Helper()
		got, err := decode(encode(e))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(ledger.Entity{}, "ETag", "Updated")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	f(ledger.Entity{})
	f(ledger.Entity{Ints: map[string]int64{"A": math.MinInt64, "B": math.MaxInt64, "C": 0}})
	f(ledger.Entity{Texts: map[string]string{"A": "", "B": "\x00ü"}})
	f(ledger.Entity{Ints: map[string]int64{"A": -1}, Texts: map[string]string{"B": "x"}})
}

// TestVersion1 pins the bytes of version 1: files of today must be read tomorrow.
func TestVersion1(t *testing.T) {
	value := []byte("\x01" + "\x00\x00\x00\x00\x00\x00\x00\x2a" + "\x00\x00\x00\x00\x00\x00\x00\x07" + "\x01\x01N\x03" + "\x01\x01T\x02hi")
	e, err := decode(value)
	if err != nil || e.ETag != "2a" || e.Updated.UnixNano() != 7 || e.Ints["N"] != -2 || e.Texts["T"] != "hi" {
		t.Errorf("got %+v, %v", e, err)
	}
	again := encode(e)
	copy(again[etagAt:headBytes], value[etagAt:headBytes])
	if !bytes.Equal(again, value) {
		t.Errorf("encoded as %x, want %x", again, value)
	}
	for n := range value {
		if _, err := decode(value[:n]); !errors.Is(err, errDamaged) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	if _, err := decode(append(value, 0)); !errors.Is(err, errDamaged) {
		t.Errorf("one byte more: %v", err)
	}
	value[0] = 2
	if _, err := decode(value); !errors.Is(err, errDamaged) {
		t.Errorf("version 2: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(ledger.Entity{}))
	f.Add(encode(ledger.Entity{Ints: map[string]int64{"A": 1}, Texts: map[string]string{"B": "x"}}))
	f.Add([]byte{version})
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := decode(value)
		if err != nil {
			return
		}
		again, err := decode(encode(e))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, again, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(ledger.Entity{}, "ETag", "Updated")); diff != "" {
			t.Error(diff)
		}
	})
}
