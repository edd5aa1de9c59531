package sse_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/costgate/costgate/handler/internal/sse"
)

// eventsOf is the plain way to split a stream that is held whole: what the
// scanner must agree with.
func eventsOf(stream string) []string {
	stream = strings.TrimPrefix(stream, "\xef\xbb\xbf")
	stream = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(stream)
	lines := strings.Split(stream, "\n")
	lines = lines[:len(lines)-1] // what is behind the last line end is no line
	var events, data []string
	name, some := "", false
	for _, line := range lines {
		if line == "" {
			if some {
				events = append(events, name+"|"+strings.Join(data, "\n"))
			}
			name, data, some = "", nil, false
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name, some = value, true
		case "data":
			data, some = append(data, value), true
		}
	}
	return events
}

func TestAnyStreamInAnyChunks(t *testing.T) {
	line := rapid.SampledFrom([]string{
		"data: {\"a\":1}", "data:b", "data", "data: ", "data:  x", "event: response.created", "event:e",
		"id: 1", ": comment", ":", "retry: 3", "data : no", "", "", "",
	})
	end := rapid.SampledFrom([]string{"\n", "\r\n", "\r"})
	rapid.Check(t, func(t *rapid.T) {
		var stream strings.Builder
		if rapid.Bool().Draw(t, "mark") {
			stream.WriteString("\xef\xbb\xbf")
		}
		for range rapid.IntRange(0, 20).Draw(t, "lines") {
			stream.WriteString(line.Draw(t, "line") + end.Draw(t, "end"))
		}
		if rapid.Bool().Draw(t, "tail") {
			stream.WriteString("data: cut o")
		} else {
			stream.WriteString("\n: so that no line end is in doubt")
		}
		var got []string
		var all []byte
		s := sse.NewScanner(1 << 10)
		for rest := stream.String(); rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			chunk := []byte(rest[:n])
			rest = rest[n:]
			s.Feed(chunk, func(e sse.Event) {
				all = append(all, e.Raw...)
				if e.Data != nil || e.Name != nil {
					got = append(got, fmt.Sprintf("%s|%s", e.Name, e.Data))
				}
			})
			for i := range chunk { // the scanner must not hold on to it
				chunk[i] = '#'
			}
		}
		all = append(all, s.Rest()...)
		if want := eventsOf(stream.String()); !slices.Equal(got, want) {
			t.Fatalf("%q: %q, want %q", stream.String(), got, want)
		}
		if string(all) != stream.String() {
			t.Fatalf("bytes %q, want %q", all, stream.String())
		}
	})
}

// TestByteOrderMarkComesFirst: anywhere else it is part of a field's name.
func TestByteOrderMarkComesFirst(t *testing.T) {
	for _, first := range []string{"data: a\n\n", "data: " + strings.Repeat("x", 100) + "\n\n"} {
		var last []byte
		sse.NewScanner(50).Feed([]byte(first+"\xef\xbb\xbfdata: b\n\n"), func(e sse.Event) { last = e.Data })
		if last != nil {
			t.Errorf("data %q", last)
		}
	}
}

func TestEventInOneChunkIsNotCopied(t *testing.T) {
	chunk := []byte("event: a\r\ndata: x\r\n\r\ndata: y\n\n")
	offset := 0
	sse.NewScanner(1<<10).Feed(chunk, func(e sse.Event) {
		if &e.Raw[0] != &chunk[offset] {
			t.Errorf("%q was copied", e.Raw)
		}
		if at := bytes.Index(e.Raw, e.Data); at < 0 || &e.Data[0] != &e.Raw[at] {
			t.Errorf("data %q was copied", e.Data)
		}
		offset += len(e.Raw)
	})
	if offset != len(chunk) {
		t.Errorf("%d bytes of %d", offset, len(chunk))
	}
}

func TestSplitEventsReuseTheBuffer(t *testing.T) {
	s := sse.NewScanner(1 << 10)
	each := func(sse.Event) {}
	pieces := [][]byte{[]byte("data: a\ndata: b"), []byte("\n"), []byte("\ndata: c\n\nda"), []byte("ta: d\r\n\r"), []byte("\n")}
	feed := func() {
		for _, p := range pieces {
			s.Feed(p, each)
		}
	}
	feed()
	if n := testing.AllocsPerRun(100, feed); n != 0 {
		t.Errorf("%v allocations for events in pieces", n)
	}
}

// TestMemoryIsBounded: an event without end is passed on in pieces and not held.
func TestMemoryIsBounded(t *testing.T) {
	const most = 1000
	s := sse.NewScanner(most)
	chunk := []byte("data: " + strings.Repeat("x", 94))
	fed, out := 0, 0
	for range 1000 {
		s.Feed(chunk, func(e sse.Event) {
			if !e.Oversized || e.Data != nil {
				t.Fatalf("an unfinished event: %+v", e)
			}
			out += len(e.Raw)
		})
		if fed += len(chunk); fed-out > most || fed-out != len(s.Rest()) {
			t.Fatalf("%d bytes fed, %d passed on, %d held", fed, out, len(s.Rest()))
		}
	}
	var after []string
	s.Feed([]byte("\n\ndata: next\n\n"), func(e sse.Event) { after = append(after, fmt.Sprint(string(e.Data), e.Oversized)) })
	if want := []string{"true", "nextfalse"}; !slices.Equal(after, want) {
		t.Errorf("behind it: %q", after)
	}
}

// TestLineEndsAreFoundInLinearTime: each kind of line end, a million times in
// one chunk. Searching to the chunk's end for each would take minutes.
func TestLineEndsAreFoundInLinearTime(t *testing.T) {
	for _, end := range []string{"\r", "\n", "\r\n"} {
		stream := []byte(strings.Repeat(":"+end, 1<<20))
		n := 0
		s := sse.NewScanner(len(stream) + 2)
		s.Feed(append(stream, "\n\n"...), func(sse.Event) { n++ })
		if n == 0 || len(s.Rest()) > 0 {
			t.Errorf("%q: %d events, %d bytes left", end, n, len(s.Rest()))
		}
	}
}
