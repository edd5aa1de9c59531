package tablestore

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

const date = "Tue, 24 Nov 2026 12:00:00 GMT"

// segment is one answer of a query: rows with their ETags, and whether the
// service says that there is more.
type segment struct {
	rows string // "a=1 b=2"
	more bool
}

// scripted is a store whose service gives these answers, one for each request.
func scripted(t *testing.T, segments ...segment) (s *Store, queries *[]string) {
	t.Helper()
	queries = new([]string)
	return mustOpen(t, Options{ConnectionString: "UseDevelopmentStorage=true", Table: "Table", Transport: transport(
		func(r *http.Request) (*http.Response, error) {
			*queries = append(*queries, r.URL.Query().Get("$filter")+" top "+r.URL.Query().Get("$top")+" next "+r.URL.Query().Get("NextRowKey"))
			if len(*queries) > len(segments) {
				return nil, errors.New("no more answers")
			}
			now := segments[len(*queries)-1]
			var objects []string
			for _, row := range strings.Fields(now.rows) {
				name, etag, _ := strings.Cut(row, "=")
				objects = append(objects, fmt.Sprintf(`{"odata.etag":%q,"PartitionKey":"p","RowKey":%q,"Timestamp":%q}`,
					etag, name, "2026-11-24T11:59:59.1234567Z"))
			}
			header := http.Header{"Date": {date}, "Content-Type": {"application/json"}}
			if now.more {
				header.Set("x-ms-continuation-NextPartitionKey", "1!4!cA--")
				header.Set("x-ms-continuation-NextRowKey", fmt.Sprintf("1!%d", len(*queries)))
			}
			body := `{"odata.metadata":"x","value":[` + strings.Join(objects, ",") + `]}`
			return &http.Response{StatusCode: 200, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})}), queries
}

func rowsOf(page ledger.Page) string {
	var rows []string
	for _, e := range page.Entities {
		rows = append(rows, e.Row)
	}
	return strings.Join(rows, " ")
}

// TestRangePaging has the continuations that only the real service makes.
func TestRangePaging(t *testing.T) {
	f := func(limit int, want, next string, requests int, segments ...segment) {
		t.Helper()
		s, queries := scripted(t, segments...)
		page, err := s.Range(t.Context(), "p", "a", "z", limit)
		if err != nil {
			t.Errorf("%v\n%s", err, strings.Join(*queries, "\n"))
			return
		}
		if rowsOf(page) != want || page.Next != next || len(*queries) != requests {
			t.Errorf("got %q, next %q after %d requests, want %q, %q, %d", rowsOf(page), page.Next, len(*queries), want, next, requests)
		}
		if at, _ := http.ParseTime(date); !page.Date.Equal(at) {
			t.Errorf("date %v", page.Date)
		}
	}
	f(2, "", "", 1, segment{"", false})
	f(2, "a b", "", 1, segment{"a=1 b=1", false})
	f(2, "a b", "c", 1, segment{"a=1 b=1 c=1", true})
	f(2, "a b", "c", 2, segment{"a=1 b=1", true}, segment{"c=1", false}) // cut before the row that shows where to go on
	f(2, "a b", "", 2, segment{"a=1 b=1", true}, segment{"", false})
	f(2, "a b", "c", 3, segment{"a=1 b=1", true}, segment{"", true}, segment{"c=1", false})
	f(3, "a b", "", 4, segment{"a=1", true}, segment{"b=1", false}, segment{"a=1", true}, segment{"b=1", false})
	f(3, "a b", "", 6, segment{"", true}, segment{"", true}, segment{"a=1 b=1", false},
		segment{"", true}, segment{"", true}, segment{"a=1 b=1", false})
	f(3, "a b", "", 5, segment{"a=1", true}, segment{"b=2", false}, segment{"a=2", true}, segment{"b=2", false},
		segment{"a=2 b=2", false}) // one answer is a snapshot
}

// TestRangeUnsteady gives another ETag at each reading: no two agree.
func TestRangeUnsteady(t *testing.T) {
	var segments []segment
	for i := range 2 * collectsMax {
		segments = append(segments, segment{fmt.Sprintf("a%d=%d", i%2, i), i%2 == 0})
	}
	s, queries := scripted(t, segments...)
	_, err := s.Range(t.Context(), "p", "a", "z", 10)
	unknown(t, err)
	if len(*queries) != 2*collectsMax {
		t.Errorf("%d requests", len(*queries))
	}
}

func TestRangeBroken(t *testing.T) {
	f := func(segments ...segment) {
		t.Helper()
		s, _ := scripted(t, segments...)
		_, err := s.Range(t.Context(), "p", "a", "z", 10)
		unknown(t, err)
	}
	f(segment{"b=1 a=1", false})
	f(segment{"a=1 a=1", false})
	f(segment{"z=1", false})
	f(segment{"A=1", false})
	f(segment{"a=", false})
	f(segment{"b=1", true}, segment{"a=1", false})
	endless := make([]segment, segmentsMax+1)
	for i := range endless {
		endless[i].more = true
	}
	f(endless...)
}

func TestRangeQuery(t *testing.T) {
	s, queries := scripted(t, segment{"a=1", false}, segment{"a=1", false})
	for _, limit := range []int{10, ledger.PageMax} {
		if _, err := s.Range(t.Context(), "p", "a", "z", limit); err != nil {
			t.Fatal(err)
		}
	}
	const filter = "PartitionKey eq 'p' and RowKey ge 'a' and RowKey lt 'z'"
	if got := strings.Join(*queries, "\n"); got != filter+" top 11 next \n"+filter+" top 1000 next " {
		t.Errorf("asked\n%s", got)
	}
}

func TestAnswerBytesMax(t *testing.T) {
	f := func(size int64, good bool) {
		t.Helper()
		body := &limitedBody{io.NopCloser(io.LimitReader(zeros{}, size)), AnswerBytesMax}
		n, err := io.Copy(io.Discard, body)
		if (err == nil) != good || n > AnswerBytesMax {
			t.Errorf("%d bytes: read %d, %v", size, n, err)
		}
	}
	f(AnswerBytesMax, true)
	f(AnswerBytesMax+1, false)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestDecode(t *testing.T) {
	const head = `{"PartitionKey":"p","RowKey":"r","Timestamp":"2026-11-24T11:59:59.1234567Z","odata.etag":"e"`
	e, err := decode([]byte(head + `,"odata.metadata":"x","N":"-9223372036854775808","N@odata.type":"Edm.Int64",` +
		`"T":"","Other":1,"Flag":true,` +
		`"When":"2026-11-24T00:00:00Z","When@odata.type":"Edm.DateTime","Timestamp@odata.type":"Edm.DateTime"}`))
	if err != nil || len(e.Ints) != 1 || e.Ints["N"] != -1<<63 || len(e.Texts) != 1 || e.ETag != "e" {
		t.Errorf("got %+v, %v", e, err)
	}
	if want := time.Date(2026, 11, 24, 11, 59, 59, 123456700, time.UTC); !e.Updated.Equal(want) {
		t.Errorf("updated %v", e.Updated)
	}
	for _, broken := range []string{
		``, `[]`, `null`, `{}`, head, head + `,"N":"x12","N@odata.type":"Edm.Int64"}`,
		head + `,"N":"9223372036854775808","N@odata.type":"Edm.Int64"}`, head + `,"N":12,"N@odata.type":"Edm.Int64"}`,
		`{"PartitionKey":"p","RowKey":"r"}`, `{"PartitionKey":1,"RowKey":"r","Timestamp":"2026-11-24T11:59:59Z"}`,
		`{"PartitionKey":"p","RowKey":"r","Timestamp":"yesterday"}`,
	} {
		if _, err := decode([]byte(broken)); !errors.Is(err, errEntity) {
			t.Errorf("%s: %v", broken, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"PartitionKey":"p","RowKey":"r","Timestamp":"2026-11-24T11:59:59Z","odata.etag":"e",` +
		`"N":"1","N@odata.type":"Edm.Int64","T":"x"}`))
	f.Fuzz(func(t *testing.T, object []byte) {
		e, err := decode(object)
		if (err == nil) == (e.Row == "") {
			t.Errorf("%q: %+v, %v", object, e, err)
		}
	})
}
