package storetest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/costgate/costgate/handler/internal/ledger"
)

var limitTests = []contractTest{
	{"a key has 1 to KeyBytesMax bytes of its alphabet", limitKeys},
	{"a text has at most TextUnitsMax code units", func(s *suite) {
		text := func(row, text string) ledger.Op {
			return ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: row, Texts: map[string]string{"T": text}}}
		}
		for i, most := range []string{
			strings.Repeat("x", ledger.TextUnitsMax), strings.Repeat("é", ledger.TextUnitsMax), strings.Repeat("😀", ledger.TextUnitsMax/2),
		} {
			op := text(rowName(i), most)
			s.apply(op)
			s.same(op.Entity, s.get(rowName(i)))
			s.invalid("one more", text("past", most+"x"))
		}
		s.invalid("not UTF-8", text("past", "a\xffb"))
		s.lacks("past")
	}},
	{"an entity has at most PropertiesMax properties", func(s *suite) {
		e := ledger.Entity{Row: "a", Ints: map[string]int64{}, Texts: map[string]string{"T": "x"}}
		for i := range ledger.PropertiesMax - 1 {
			e.Ints[fmt.Sprintf("P%d", i)] = int64(i)
		}
		s.apply(ledger.Op{Kind: ledger.Insert, Entity: e})
		s.same(e, s.get("a"))
		e.Row, e.Texts["U"] = "b", "y"
		s.invalid("one more", ledger.Op{Kind: ledger.Insert, Entity: e})
	}},
	{"an entity has at most EntityBytesMax bytes", func(s *suite) {
		e := ledger.Entity{Row: "a", Texts: map[string]string{}}
		for i := range 14 {
			e.Texts[string(rune('A'+i))] = strings.Repeat("x", ledger.TextUnitsMax)
		}
		s.apply(ledger.Op{Kind: ledger.Insert, Entity: e})
		s.same(e, s.get("a"))
		e.Row, e.Texts["Y"] = "b", strings.Repeat("x", ledger.TextUnitsMax)
		s.invalid("more", ledger.Op{Kind: ledger.Insert, Entity: e})
	}},
	{"a property has a name that every store takes", func(s *suite) {
		for _, name := range []string{
			"", "n", "9", "A-b", "A_b", "Ä", "odata.etag", "A@odata.type", "PartitionKey", "RowKey", "Timestamp", "A" + strings.Repeat("b", 64),
		} {
			s.invalid("int "+name, ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: "a", Ints: map[string]int64{name: 1}}})
			s.invalid("text "+name, ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: "a", Texts: map[string]string{name: "x"}}})
		}
		s.invalid("twice", ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{
			Row: "a", Ints: map[string]int64{"A": 1}, Texts: map[string]string{"A": "x"},
		}})
		s.apply(ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: "a", Ints: map[string]int64{"A" + strings.Repeat("b", 63): 1}}})
	}},
	{"a transaction has 1 to OpsMax operations", func(s *suite) {
		s.invalid("none")
		var ops []ledger.Op
		for i := range ledger.OpsMax + 1 {
			ops = append(ops, insert(rowName(i), 1))
		}
		s.invalid("one more", ops...)
		s.lacks(rowName(0))
		s.apply(ops[:ledger.OpsMax]...)
		s.has(rowName(ledger.OpsMax-1), 1)
	}},
	{"a transaction has each row once", func(s *suite) {
		s.invalid("twice", insert("a", 1), insert("b", 1), replace("a", ledger.AnyETag, 2))
		s.lacks("a")
	}},
	{"a transaction has at most TxnBytesMax bytes", limitBytes},
	{"replace and delete need an ETag", func(s *suite) {
		s.apply(insert("a", 1))
		s.invalid("replace", replace("a", "", 2))
		s.invalid("replace of nothing", replace("b", "", 2))
		s.invalid("delete", remove("a", ""))
		s.invalid("after a good one", insert("c", 1), replace("b", "", 2))
		s.invalid("too long", replace("a", strings.Repeat("x", ledger.ETagBytesMax+1), 2))
		s.invalid("line break", replace("a", "x\r\nIf-None-Match: *", 2))
		s.has("a", 1)
		s.lacks("b")
		s.lacks("c")
	}},
	{"an operation has a kind", func(s *suite) {
		for _, kind := range []ledger.OpKind{0, ledger.Delete + 1} {
			op := insert("a", 1)
			op.Kind, op.Entity.ETag = kind, ledger.AnyETag
			s.invalid("kind", op)
		}
	}},
	{"an entity is of the transaction's partition", func(s *suite) {
		op := insert("a", 1)
		op.Entity.Partition = "p_2"
		s.invalid("other partition", op)
		op.Entity.Partition = part
		s.apply(op)
	}},
	{"the limit of a range is 1 to PageMax", func(s *suite) {
		for _, limit := range []int{-1, 0, ledger.PageMax + 1} {
			if _, err := s.store.Range(s.Context(), part, "a", "b", limit); !errors.Is(err, ledger.ErrInvalid) {
				s.Errorf("limit %d: got %v, want ErrInvalid", limit, err)
			}
		}
	}},
}

func limitKeys(s *suite) {
	good := []string{"a", "-", ".", "_", strings.Repeat("k", ledger.KeyBytesMax)}
	for _, key := range good {
		if _, err := s.store.Apply(s.Context(), key, []ledger.Op{insert(key, 1)}); err != nil {
			s.Errorf("%.20q: %v", key, err)
		}
		if e, err := s.store.Get(s.Context(), key, key); err != nil || e.Row != key || e.Partition != key {
			s.Errorf("%.20q: %+v, %v", key, e, err)
		}
	}
	bad := []string{"", strings.Repeat("k", ledger.KeyBytesMax+1)}
	for _, c := range "/\\#?%'\" +:~@\t\n\x00\x7fé" {
		bad = append(bad, "a"+string(c)+"b")
	}
	for _, key := range bad {
		_, getPart := s.store.Get(s.Context(), key, "a")
		_, getRow := s.store.Get(s.Context(), "a", key)
		_, rangePart := s.store.Range(s.Context(), key, "a", "b", 1)
		_, rangeFrom := s.store.Range(s.Context(), "a", key, "b", 1)
		_, rangeTo := s.store.Range(s.Context(), "a", "b", key, 1)
		_, applyPart := s.store.Apply(s.Context(), key, []ledger.Op{insert("a", 1)})
		_, applyRow := s.store.Apply(s.Context(), "a", []ledger.Op{insert(key, 1)})
		for i, err := range []error{getPart, getRow, rangePart, rangeFrom, rangeTo, applyPart, applyRow} {
			if !errors.Is(err, ledger.ErrInvalid) {
				s.Errorf("key %.20q, call %d: got %v, want ErrInvalid", key, i, err)
			}
		}
	}
}

// limitBytes fills a transaction to TxnBytesMax with characters that grow most
// on their way: what the limit allows must fit the service.
func limitBytes(s *suite) {
	var ops []ledger.Op
	total := 0
	for i := 0; total < ledger.TxnBytesMax; i++ {
		op := ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: rowName(i), Texts: map[string]string{"T": strings.Repeat("<", 10<<10)}}}
		if left := ledger.TxnBytesMax - total; ledger.OpBytes(op) > left {
			empty := ledger.OpBytes(ledger.Op{Entity: ledger.Entity{Texts: map[string]string{"T": ""}}})
			op.Entity.Texts["T"] = strings.Repeat("x", left-empty)
		}
		total += ledger.OpBytes(op)
		ops = append(ops, op)
	}
	last := ops[len(ops)-1].Entity
	text := last.Texts["T"]
	last.Texts["T"] = text + "x"
	s.invalid("one more", ops...)
	s.lacks(rowName(0))
	last.Texts["T"] = text
	s.apply(ops...)
	s.same(last, s.get(last.Row))
}
