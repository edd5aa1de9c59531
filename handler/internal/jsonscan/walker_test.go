package jsonscan_test

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

var walked = []string{"usage", "model", "id", "response.usage", "response.a", "response.id"}

// decoded is what encoding/json finds for a key of the walker.
func decoded(document, key string) (string, bool) {
	parent, name, below := strings.Cut(key, ".")
	var outer map[string]json.RawMessage
	if json.Unmarshal([]byte(document), &outer) != nil {
		return "", false
	}
	if !below {
		raw, ok := outer[parent]
		return string(raw), ok
	}
	var inner map[string]json.RawMessage
	if json.Unmarshal(outer[parent], &inner) != nil {
		return "", false
	}
	raw, ok := inner[name]
	return string(raw), ok
}

func TestWalkerAgreesWithDecoder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		document := drawObject(t, 3)
		w := jsonscan.NewWalker(1<<20, walked...)
		for rest := document; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			piece := []byte(rest[:n])
			_, _ = w.Write(piece)
			for i := range piece { // the walker must not hold on to it
				piece[i] = '#'
			}
			rest = rest[n:]
		}
		if !w.Done() || w.Broken() {
			t.Fatalf("%s: done %v, broken %v", document, w.Done(), w.Broken())
		}
		for _, key := range walked {
			if strings.Contains(key, ".") && strings.Count(document, `"response"`) > 1 {
				continue // a second object adds to the first here
			}
			raw, ok := w.Value(key)
			if want, wantOK := decoded(document, key); ok != wantOK || string(raw) != want {
				t.Fatalf("%s: %s = %s, %v; want %s, %v", document, key, raw, ok, want, wantOK)
			}
		}
	})
}

func TestWalkerKeys(t *testing.T) {
	f := func(document, key, want string, ok bool) {
		t.Helper()
		w := jsonscan.NewWalker(20, key)
		_, _ = w.Write([]byte(document))
		if raw, got := w.Value(key); got != ok || string(raw) != want {
			t.Errorf("%s: %s = %q, %v; want %q, %v", document, key, raw, got, want, ok)
		}
	}
	f(`{"a" : [1, 2] , "b":2}`, "a", "[1, 2]", true)
	f(`{"x":{"a":1},"y":["a",{"a":2}],"z":"\"a\":3"}`, "a", "", false)
	f(`{"x":{"a":1}}`, "x.a", "1", true)
	f(`{"x":{"y":{"a":1}},"a":2}`, "x.a", "", false)
	f(`{"x":[{"a":1}]}`, "x.a", "", false)
	f(`{"x":{"b":{},"a":{"x":{}}},"y":1}`, "x.a", `{"x":{}}`, true)
	f(`{"a":1`, "a", "", false)
	f(`{"a":1,`, "a", "1", true)
	f(`{"a":"123456789012345678"}`, "a", `"123456789012345678"`, true)
	f(`{"a":"1234567890123456789"}`, "a", "", false)
	f(`{"a":1,"a":"1234567890123456789"}`, "a", "", false)
	f(`{"a_key_of_more_than_twenty_bytes":1}`, "a_key_of_more_than_twenty_bytes", "1", true)
	f(`{"a":1} {"a":2}`, "a", "1", true)
	for _, broken := range []string{`[1]`, `1`, `{1:2}`, `{"a" 1}`, `x{"a":1}`} {
		w := jsonscan.NewWalker(20, "a")
		if _, _ = w.Write([]byte(broken)); !w.Broken() || w.Done() {
			t.Errorf("%s: broken %v, done %v", broken, w.Broken(), w.Done())
		}
	}
}

func TestWalkerTakesOneObject(t *testing.T) {
	w := jsonscan.NewWalker(20, "a")
	if n := w.Take([]byte(` {"a"`)); n != 5 {
		t.Errorf("%d bytes of the first piece", n)
	}
	if n := w.Take([]byte(`:{}}` + "\n\nmore")); n != 4 || !w.Done() {
		t.Errorf("%d bytes of the last piece, done %v", n, w.Done())
	}
	if n := w.Take([]byte("x")); n != 0 {
		t.Errorf("%d bytes behind it", n)
	}
}

func TestWalkerMemoryIsBounded(t *testing.T) {
	w := jsonscan.NewWalker(1000, "a")
	piece := []byte(strings.Repeat(`"x",`, 1000))
	_, _ = w.Write([]byte(`{"a":[`))
	if n := testing.AllocsPerRun(100, func() { _, _ = w.Write(piece) }); n != 0 {
		t.Errorf("%v allocations for each piece of a long value", n)
	}
}

func FuzzWalker(f *testing.F) {
	f.Add([]byte(`{"usage":{"a":1},"response":{"usage":null}}`), 3)
	f.Add([]byte(`{"a":"\\\"","usage" : [1 , 2] }`), 1)
	f.Fuzz(func(t *testing.T, document []byte, size int) {
		if size < 1 {
			size = 1
		}
		whole, pieces := jsonscan.NewWalker(50, walked...), jsonscan.NewWalker(50, walked...)
		_, _ = whole.Write(document)
		for rest := document; len(rest) > 0; {
			n := min(size, len(rest))
			_, _ = pieces.Write(rest[:n])
			rest = rest[n:]
		}
		if whole.Done() != pieces.Done() || whole.Broken() != pieces.Broken() {
			t.Fatalf("whole %v %v, in pieces %v %v", whole.Done(), whole.Broken(), pieces.Done(), pieces.Broken())
		}
		for _, key := range walked {
			a, aOK := whole.Value(key)
			b, bOK := pieces.Value(key)
			if aOK != bOK || aOK && string(a) != string(b) {
				t.Fatalf("%s: %q %v, in pieces %q %v", key, a, aOK, b, bOK)
			}
			if len(a) > 50 && aOK {
				t.Fatalf("%s: %d bytes kept", key, len(a))
			}
		}
	})
}

func BenchmarkWalker(b *testing.B) {
	body := []byte(`{"object":"list","data":[{"embedding":[` + strings.Repeat("-0.012345678,", 50_000) + `0]}],"usage":{"prompt_tokens":1}}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		w := jsonscan.NewWalker(1<<10, "usage")
		for rest := body; len(rest) > 0; {
			n := min(32<<10, len(rest))
			_, _ = w.Write(rest[:n])
			rest = rest[n:]
		}
		if _, ok := w.Value("usage"); !ok {
			b.Fatal("no usage")
		}
	}
}
