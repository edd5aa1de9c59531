// Package storetest is the contract of [ledger.Store] as a test: every
// implementation runs it. Each subtest is one sentence of the contract and asks
// for a store of its own, which must be empty.
//
// It checks a store that works. What a store must do when its service fails,
// loses answers or repeats messages is the business of that store's own tests.
package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// part is the partition of most tests.
const part = "p_1"

// Run runs the whole contract. open makes an empty store, closed by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) ledger.Store) {
	groups := []struct {
		name  string
		tests []contractTest
	}{
		{"Write", writeTests},
		{"Read", readTests},
		{"Limit", limitTests},
		{"Concurrent", concurrentTests},
	}
	for _, group := range groups {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) { test.run(&suite{T: t, store: open(t)}) })
			}
		})
	}
}

type contractTest struct {
	name string
	run  func(s *suite)
}

// suite is one subtest with its store.
type suite struct {
	*testing.T
	store ledger.Store
}

func insert(row string, n int64) ledger.Op {
	return ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: row, Ints: map[string]int64{"N": n}}}
}

func replace(row, etag string, n int64) ledger.Op {
	op := insert(row, n)
	op.Kind, op.Entity.ETag = ledger.Replace, etag
	return op
}

func remove(row, etag string) ledger.Op {
	return ledger.Op{Kind: ledger.Delete, Entity: ledger.Entity{Row: row, ETag: etag}}
}

// apply demands that the transaction happens, and returns its ETags.
func (s *suite) apply(ops ...ledger.Op) []string {
	s.Helper()
	etags, err := s.store.Apply(s.Context(), part, ops)
	if err != nil {
		s.Fatalf("apply: %v", err)
	}
	if len(etags) != len(ops) {
		s.Fatalf("%d ETags for %d operations", len(etags), len(ops))
	}
	for i, op := range ops {
		if (op.Kind == ledger.Delete) != (etags[i] == "") {
			s.Errorf("ETag %d is %q", i, etags[i])
		}
	}
	return etags
}

// refuse demands that the transaction fails because of one operation.
func (s *suite) refuse(index int, want error, ops ...ledger.Op) {
	s.Helper()
	etags, err := s.store.Apply(s.Context(), part, ops)
	var op *ledger.OpError
	switch {
	case !errors.Is(err, want):
		s.Errorf("got %v, want %v", err, want)
	case !errors.As(err, &op):
		s.Errorf("%T is not an OpError", err)
	case op.Index != index:
		s.Errorf("operation %d failed, want %d", op.Index, index)
	case etags != nil:
		s.Errorf("ETags of a failed transaction: %q", etags)
	}
}

// invalid demands that the transaction is refused before it is sent.
func (s *suite) invalid(what string, ops ...ledger.Op) {
	s.Helper()
	if _, err := s.store.Apply(s.Context(), part, ops); !errors.Is(err, ledger.ErrInvalid) {
		s.Errorf("%s: got %v, want ErrInvalid", what, err)
	}
}

// get reads a row that is there.
func (s *suite) get(row string) ledger.Entity {
	s.Helper()
	e, err := s.store.Get(s.Context(), part, row)
	if err != nil {
		s.Fatalf("get %s: %v", row, err)
	}
	return e
}

// has demands that a row is there with this number.
func (s *suite) has(row string, n int64) {
	s.Helper()
	if e := s.get(row); e.Ints["N"] != n {
		s.Errorf("row %s has %d, want %d", row, e.Ints["N"], n)
	}
}

// lacks demands that a row is not there.
func (s *suite) lacks(row string) {
	s.Helper()
	if _, err := s.store.Get(s.Context(), part, row); !errors.Is(err, ledger.ErrMissing) {
		s.Errorf("get %s: got %v, want ErrMissing", row, err)
	}
}

// page reads a range.
func (s *suite) page(from, to string, limit int) ledger.Page {
	s.Helper()
	page, err := s.store.Range(s.Context(), part, from, to, limit)
	if err != nil {
		s.Fatalf("range %s to %s: %v", from, to, err)
	}
	return page
}

// rows demands the rows of a page, in order, and its continuation.
func (s *suite) rows(page ledger.Page, next string, want ...string) {
	s.Helper()
	var got []string
	for _, e := range page.Entities {
		got = append(got, e.Row)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("rows (-want +got):\n%s", diff)
	}
	if page.Next != next {
		s.Errorf("next is %q, want %q", page.Next, next)
	}
}

// same demands that an entity came back as it was written.
func (s *suite) same(want, got ledger.Entity) {
	s.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(ledger.Entity{}, "ETag", "Updated", "Partition")); diff != "" {
		s.Errorf("entity %s (-want +got):\n%s", want.Row, diff)
	}
}

// fill inserts n rows r00000, r00001, ... with their number.
func (s *suite) fill(n int) {
	s.Helper()
	for first := 0; first < n; first += ledger.OpsMax {
		var ops []ledger.Op
		for i := first; i < min(n, first+ledger.OpsMax); i++ {
			ops = append(ops, insert(rowName(i), int64(i)))
		}
		s.apply(ops...)
	}
}

func rowName(i int) string { return fmt.Sprintf("r%05d", i) }
