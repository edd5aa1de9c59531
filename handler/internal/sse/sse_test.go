package sse_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/sse"
)

// scan feeds a stream in pieces and writes down what comes out.
func scan(t testing.TB, most int, pieces [][]byte) (events []string, bytes string) {
	t.Helper()
	s := sse.NewScanner(most)
	var all strings.Builder
	for _, piece := range pieces {
		s.Feed(piece, func(e sse.Event) {
			all.Write(e.Raw)
			switch {
			case e.Oversized:
				events = append(events, "oversized")
			case e.Data != nil || e.Name != nil:
				events = append(events, fmt.Sprintf("%s|%s", e.Name, e.Data))
			}
		})
		if len(s.Rest()) > most {
			t.Fatalf("%d bytes held back, the limit is %d", len(s.Rest()), most)
		}
	}
	all.Write(s.Rest())
	return events, all.String()
}

func split(stream string, random *rand.Rand, most int) [][]byte {
	var pieces [][]byte
	for len(stream) > 0 {
		n := 1 + random.IntN(min(most, len(stream)))
		pieces = append(pieces, []byte(stream[:n]))
		stream = stream[n:]
	}
	return pieces
}

func TestEvents(t *testing.T) {
	f := func(stream string, want ...string) {
		t.Helper()
		random := rand.New(rand.NewPCG(1, 2))
		for try := range 40 {
			most := len(stream) + 1
			if try > 0 {
				most = 5
			}
			got, bytes := scan(t, 1000, split(stream, random, most))
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) || bytes != stream {
				t.Fatalf("%q: %q, want %q; bytes %q", stream, got, want, bytes)
			}
		}
	}
	f("")
	f("data: a\n\n", "|a")
	f("data:a\n\ndata:  b\n\n", "|a", "| b")
	f("data: a\r\n\r\ndata: b\r\n\r\n", "|a", "|b")
	f("data: a\r\rdata: b\r\rx", "|a", "|b")
	f("data: a\ndata: b\ndata\ndata: c\n\n", "|a\nb\n\nc")
	f("event: x\ndata: {\"a\":1}\n\n", `x|{"a":1}`)
	f(": comment\n\ndata: a\n\n", "|a")
	f("\n\n\ndata: a\n\n", "|a")
	f("\xef\xbb\xbfdata: a\n\ndata: b\n\n", "|a", "|b")
	f("id: 1\nretry: 5\ndata\n\n", "|")
	f("data: a", []string{}...)
	f("data: a\n", []string{}...)
	f("data: a\n\r\ndata: b\n\r\n", "|a", "|b")
}

func TestLimit(t *testing.T) {
	event := func(size int) string { return "data: " + strings.Repeat("x", size-8) + "\n\n" }
	for size, want := range map[int]bool{50: false, 51: true} {
		for _, most := range []int{1, 7, 1000} {
			stream := event(size) + "data: after\n\n"
			got, bytes := scan(t, 50, split(stream, rand.New(rand.NewPCG(3, 4)), most))
			oversized := len(got) > 0 && got[0] == "oversized"
			if oversized != want || bytes != stream || got[len(got)-1] != "|after" {
				t.Errorf("event of %d bytes in pieces of %d: %q", size, most, got)
			}
		}
	}
}

func TestWholeEventsAreNotCopied(t *testing.T) {
	s := sse.NewScanner(1 << 20)
	chunk := []byte("data: {\"a\":1}\n\ndata: {\"b\":2}\n\n")
	each := func(sse.Event) {}
	if n := testing.AllocsPerRun(100, func() { s.Feed(chunk, each) }); n != 0 {
		t.Errorf("%v allocations for a chunk of whole events", n)
	}
}

func FuzzScanner(f *testing.F) {
	f.Add("data: a\r\n\r\nevent: b\rdata: c\r\r: d\n\n", uint64(1))
	f.Fuzz(func(t *testing.T, stream string, seed uint64) {
		whole, bytes := scan(t, 64, [][]byte{[]byte(stream)})
		if bytes != stream {
			t.Fatalf("bytes %q", bytes)
		}
		parts, bytes := scan(t, 64, split(stream, rand.New(rand.NewPCG(seed, 1)), 9))
		if bytes != stream {
			t.Fatalf("bytes in parts %q", bytes)
		}
		drop := func(events []string) string {
			var kept []string
			for _, e := range events {
				if e != "oversized" { // how many pieces there are depends on the chunks
					kept = append(kept, e)
				}
			}
			return strings.Join(kept, "\x00")
		}
		if drop(whole) != drop(parts) {
			t.Fatalf("whole %q, in parts %q", whole, parts)
		}
	})
}

func BenchmarkFeed(b *testing.B) {
	chunk := []byte("data: " + strings.Repeat("x", 300) + "\n\n")
	s := sse.NewScanner(1 << 20)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		s.Feed(chunk, func(sse.Event) {})
	}
}
