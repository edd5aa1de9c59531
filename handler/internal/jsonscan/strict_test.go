package jsonscan_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

func TestKinds(t *testing.T) {
	kinds := map[string]jsonscan.Kind{
		"n": jsonscan.KindNull, "b": jsonscan.KindBool, "d": jsonscan.KindNumber,
		"s": jsonscan.KindString, "a": jsonscan.KindArray, "o": jsonscan.KindObject,
	}
	err := jsonscan.Object([]byte(`{"n":null,"b":true,"d":-1,"s":"x","a":[],"o":{}}`), func(key []byte, v jsonscan.Value) error {
		if v.Kind != kinds[string(key)] {
			t.Errorf("%s: kind %d", v.Raw, v.Kind)
		}
		delete(kinds, string(key))
		return nil
	})
	if err != nil || len(kinds) != 0 {
		t.Errorf("%v; not seen: %v", err, kinds)
	}
}

func TestArray(t *testing.T) {
	f := func(raw, want string, ok bool) {
		t.Helper()
		var got []string
		err := jsonscan.Array([]byte(raw), func(v jsonscan.Value) error {
			got = append(got, string(v.Raw))
			if raw[v.Start:v.End] != string(v.Raw) {
				t.Errorf("offsets of %s", v.Raw)
			}
			return nil
		})
		if strings.Join(got, ";") != want || (err == nil) != ok {
			t.Errorf("%s: %q, %v", raw, got, err)
		}
	}
	f(`[]`, "", true)
	f(`[1, "a,]" ,{"b":[2]},[]]`, `1;"a,]";{"b":[2]};[]`, true)
	f(`{"a":[1]}`, "", true)
	f(`null`, "", true)
	f(`[1,]`, "1", false)
	stop := errors.New("stop")
	if err := jsonscan.Array([]byte(`[1,2]`), func(jsonscan.Value) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func TestSyntaxErrorSaysWhere(t *testing.T) {
	f := func(document string, offset int) {
		t.Helper()
		var e *jsonscan.SyntaxError
		err := jsonscan.Object([]byte(document), func([]byte, jsonscan.Value) error { return nil })
		if !errors.As(err, &e) || e.Offset != offset {
			t.Errorf("%q: %v, want offset %d", document, err, offset)
		}
	}
	f(`[]`, 0)
	f(`{"a":1 "b"`, 7)
	f("{\"a\":\"12345678901\x02\"}", 17)
	f(`{"a":1} x`, 8)
	stop := errors.New("stop")
	if err := jsonscan.Object([]byte(`{"a":1,}`), func([]byte, jsonscan.Value) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// TestStringsAreStrict puts every byte at every place of a string of any
// length, so that each lane of the eight-byte steps meets it.
func TestStringsAreStrict(t *testing.T) {
	for length := 1; length <= 20; length++ {
		for at := range length {
			for c := range 256 {
				text := []byte(strings.Repeat("x", length))
				text[at] = byte(c)
				document := []byte(`{"a":"` + string(text) + `"}`)
				err := jsonscan.Object(document, func([]byte, jsonscan.Value) error { return nil })
				if want := json.Valid(document) && utf8.Valid(document); (err == nil) != want {
					t.Fatalf("%q: %v, json.Valid says %v", document, err, want)
				}
			}
		}
	}
}

// TestMutatedDocuments compares with json.Valid on documents that are almost
// right.
func TestMutatedDocuments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		document := []byte(drawObject(t, 3))
		for range rapid.IntRange(0, 3).Draw(t, "mutations") {
			at := rapid.IntRange(0, len(document)-1).Draw(t, "at")
			switch rapid.IntRange(0, 2).Draw(t, "how") {
			case 0:
				document[at] = rapid.Byte().Draw(t, "byte")
			case 1:
				document = append(document[:at], document[at+1:]...)
			default:
				insert := rapid.SampledFrom([]string{`"`, `\`, `,`, `:`, `{`, `]`, `e`, `.`, `-`, "0", " ", "\x00"}).Draw(t, "insert")
				document = []byte(string(document[:at]) + insert + string(document[at:]))
			}
			if len(document) == 0 {
				return
			}
		}
		err := jsonscan.Object(document, func([]byte, jsonscan.Value) error { return nil })
		want := json.Valid(document) && utf8.Valid(document) && strings.TrimLeft(string(document), " \t\r\n")[0] == '{'
		if (err == nil) != want {
			t.Fatalf("%q: %v, want valid %v", document, err, want)
		}
	})
}

var scalars = rapid.SampledFrom([]string{
	`null`, `true`, `0`, `-1.5e+7`, `""`, `"a"`, `"a b \" \\ \u00e9 \ud83d\ude00 \ud800"`, `"\\"`,
	`"}],:{["`, `"é漢😀 and enough of it to fill eight bytes"`, `[]`, `{}`,
})
var keys = rapid.SampledFrom([]string{"usage", "model", "id", "a", "", "us\\u0061ge", "b\\\"", "response", strings.Repeat("k", 300)})
var spaces = rapid.SampledFrom([]string{"", "", "", " ", "\n\t", "\r\n "})

func drawObject(t *rapid.T, depth int) string {
	var b strings.Builder
	space := func() string { return spaces.Draw(t, "space") }
	b.WriteString(space() + "{" + space())
	for i := range rapid.IntRange(0, 4).Draw(t, "members") {
		if i > 0 {
			b.WriteString("," + space())
		}
		fmt.Fprintf(&b, `"%s"%s:%s%s%s`, keys.Draw(t, "key"), space(), space(), strings.TrimSpace(drawValue(t, depth)), space())
	}
	b.WriteString("}" + space())
	return b.String()
}

func drawValue(t *rapid.T, depth int) string {
	kind := rapid.IntRange(0, 3).Draw(t, "kind")
	switch {
	case depth == 0 || kind > 1:
		return scalars.Draw(t, "scalar")
	case kind == 0:
		return drawObject(t, depth-1)
	}
	var items []string
	for range rapid.IntRange(0, 3).Draw(t, "items") {
		items = append(items, drawValue(t, depth-1))
	}
	return "[" + strings.Join(items, ",") + "]"
}

// TestEscapesTakeLinearTime: a string of nothing but escapes, 16 MiB of them.
// Searching for the string's end behind each would take hours.
func TestEscapesTakeLinearTime(t *testing.T) {
	document := []byte(`{"a":"` + strings.Repeat(`\\\"`, 4<<20) + `"}`)
	if err := jsonscan.Object(document, func([]byte, jsonscan.Value) error { return nil }); err != nil {
		t.Error(err)
	}
	w := jsonscan.NewWalker(10, "b")
	if _, _ = w.Write(document); !w.Done() {
		t.Error("the walker did not see the end")
	}
}

func TestObjectDoesNotAllocate(t *testing.T) {
	body := []byte(`{"model":"gpt-4o","messages":[{"role":"user","content":"Hello \"you\" é"}],"n":1}`)
	each := func([]byte, jsonscan.Value) error { return nil }
	if n := testing.AllocsPerRun(100, func() { _ = jsonscan.Object(body, each) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
