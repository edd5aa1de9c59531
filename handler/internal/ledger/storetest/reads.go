package storetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

var readTests = []contractTest{
	{"integers come back exactly", func(s *suite) {
		want := ledger.Entity{Row: "a", Ints: map[string]int64{
			"Least": math.MinInt64, "Most": math.MaxInt64, "Zero": 0, "MinusOne": -1,
			"OddAbove53": 1<<53 + 1, "OddBelow53": -(1<<53 + 1), "Int32": math.MaxInt32, "PastInt32": math.MaxInt32 + 1,
		}}
		s.apply(ledger.Op{Kind: ledger.Insert, Entity: want})
		s.same(want, s.get("a"))
		s.same(want, s.page("a", "b", 1).Entities[0])
	}},
	{"texts come back exactly", func(s *suite) {
		want := ledger.Entity{Row: "a", Texts: map[string]string{
			"Empty": "", "Space": " ", "Quotes": `'it''s' "so"`, "Slash": `a\b/c\u0041`, "Lines": "one\r\ntwo\nthree\t.",
			"Unicode": "Grüße, 東京, 😀, e\u0301, \u2028\u2029", "HTML": "<a href='x'>&amp;</a>", "Percent": "100% %27 +",
			"Control": "\x01\x1f\x7f", "JSON": `{"odata.etag":"x","N":1}`, "Number": "007", "Date": "2026-11-24T00:00:00Z",
			"Boundary": "--changeset\r\n\r\nHTTP/1.1 409 Conflict\r\n",
		}}
		s.apply(ledger.Op{Kind: ledger.Insert, Entity: want})
		s.same(want, s.get("a"))
		s.same(want, s.page("a", "b", 1).Entities[0])
	}},
	{"an entity may have no properties", func(s *suite) {
		s.apply(ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: "a"}})
		s.same(ledger.Entity{Row: "a"}, s.get("a"))
	}},
	{"an entity names its partition", func(s *suite) {
		s.apply(insert("a", 1))
		if got := s.get("a").Partition; got != part {
			s.Errorf("partition is %q", got)
		}
		if got := s.page("a", "b", 1).Entities[0].Partition; got != part {
			s.Errorf("partition in a range is %q", got)
		}
	}},
	{"all characters of keys work, letter case counts", func(s *suite) {
		key := "AZaz09._-"
		s.apply(insert(key, 1), insert(strings.ToLower(key), 2), insert("..", 3))
		s.has(key, 1)
		s.has(strings.ToLower(key), 2)
		s.has("..", 3)
	}},
	{"a range is from its first row up to but not its last", func(s *suite) {
		s.apply(insert("b", 1), insert("c", 1), insert("c-", 1), insert("d", 1), insert("D", 1), insert("b0", 1), insert("b.1", 1))
		s.rows(s.page("b", "d", 10), "", "b", "b.1", "b0", "c", "c-")
		s.rows(s.page("b0", "c", 10), "", "b0")
		s.rows(s.page("b00", "c-", 10), "", "c")
		s.rows(s.page("A", "Z", 10), "", "D")
		s.rows(s.page("e", "z", 10), "")
		s.rows(s.page("c", "c", 10), "")
		s.rows(s.page("d", "b", 10), "")
	}},
	{"a range has at most its limit of rows, and says where to go on", func(s *suite) {
		s.fill(5)
		s.rows(s.page("r", "s", 1), rowName(1), rowName(0))
		s.rows(s.page("r", "s", 4), rowName(4), rowName(0), rowName(1), rowName(2), rowName(3))
		s.rows(s.page(rowName(3), "s", 2), "", rowName(3), rowName(4))
		s.rows(s.page("r", rowName(2), 2), "", rowName(0), rowName(1)) // the row after the range does not count
		s.rows(s.page("r", "s", 5), "", rowName(0), rowName(1), rowName(2), rowName(3), rowName(4))
	}},
	{"a range of more rows than a page has is read page by page", readPages},
	{"a range of a partition without rows is empty", func(s *suite) {
		page := s.page("a", "z", ledger.PageMax)
		s.rows(page, "")
		if page.Date.IsZero() {
			s.Error("the page has no date")
		}
	}},
	{"dates are of one clock", readDates},
	{"a deleted row is in no range", func(s *suite) {
		s.fill(3)
		s.apply(remove(rowName(1), ledger.AnyETag))
		s.rows(s.page("r", "s", 10), "", rowName(0), rowName(2))
	}},
	{"a context that has ended is an error", func(s *suite) {
		s.apply(insert("a", 1))
		ctx, cancel := context.WithCancel(s.Context())
		cancel()
		check := func(what string, err error) {
			s.Helper()
			if !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, context.Canceled) {
				s.Errorf("%s: got %v, want ErrUnavailable and Canceled", what, err)
			}
		}
		_, err := s.store.Get(ctx, part, "a")
		check("Get", err)
		_, err = s.store.Range(ctx, part, "a", "b", 1)
		check("Range", err)
		_, err = s.store.Apply(ctx, part, []ledger.Op{insert("b", 1)})
		check("Apply", err)
	}},
	{"what a reader does with an entity changes nothing", func(s *suite) {
		s.apply(insert("a", 1))
		s.get("a").Ints["N"] = 2
		s.page("a", "b", 1).Entities[0].Ints["N"] = 3
		s.has("a", 1)
	}},
}

func readPages(s *suite) {
	const rows = 1150
	s.fill(rows)
	seen := 0
	for from, limit := "r", ledger.PageMax; from != ""; limit = 137 {
		page := s.page(from, "s", limit)
		if len(page.Entities) > limit {
			s.Fatalf("%d rows, the limit is %d", len(page.Entities), limit)
		}
		for _, e := range page.Entities {
			if e.Row != rowName(seen) || e.Ints["N"] != int64(seen) {
				s.Fatalf("row %d is %s", seen, e.Row)
			}
			seen++
		}
		if from = page.Next; from != "" && from != rowName(seen) {
			s.Fatalf("continues at %s, want %s", from, rowName(seen))
		}
	}
	if seen != rows {
		s.Errorf("read %d rows of %d", seen, rows)
	}
	s.rows(s.page(rowName(rows-2), "s", ledger.PageMax), "", rowName(rows-2), rowName(rows-1))
	if page := s.page("r", rowName(ledger.PageMax), ledger.PageMax); len(page.Entities) != ledger.PageMax || page.Next != "" {
		s.Errorf("exactly one page: %d rows, next %q", len(page.Entities), page.Next)
	}
}

// readDates allows a second: a service may give its date in whole seconds.
func readDates(s *suite) {
	s.apply(insert("a", 1))
	first := s.get("a").Updated
	s.apply(replace("a", ledger.AnyETag, 2))
	page := s.page("a", "b", 1)
	second := page.Entities[0].Updated
	ages := []time.Duration{page.Date.Sub(first), page.Date.Sub(second)}
	if first.IsZero() || second.Before(first) || slices.Min(ages) < -time.Second || slices.Max(ages) > time.Minute {
		s.Errorf("updated %v, then %v, read %v", first, second, page.Date)
	}
	if !s.get("a").Updated.Equal(second) {
		s.Errorf("Get says updated %v, Range %v", s.get("a").Updated, second)
	}
}
