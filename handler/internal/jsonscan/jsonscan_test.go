package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

func members(document string) (string, error) {
	var out strings.Builder
	err := jsonscan.Object([]byte(document), func(key []byte, v jsonscan.Value) error {
		if document[v.Start:v.End] != string(v.Raw) || document[v.KeyStart] != '"' {
			return errors.New("offsets are wrong")
		}
		fmt.Fprintf(&out, "%s=%s;", key, v.Raw)
		return nil
	})
	return out.String(), err
}

func TestObject(t *testing.T) {
	f := func(document, want string, ok bool) {
		t.Helper()
		got, err := members(document)
		if (err == nil) != ok || (ok && got != want) {
			t.Errorf("%q: %q, %v; want %q", document, got, err, want)
		}
	}
	f(`{}`, "", true)
	f(" {\n} ", "", true)
	f(`{"a":1,"b":[{"a":2}],"c":{"d":"}"}}`, `a=1;b=[{"a":2}];c={"d":"}"};`, true)
	f(`{"mod\u0065l":"x\"y"}`, `model="x\"y";`, true)
	f(`{"a":1,"a":2}`, `a=1;a=2;`, true) // what that means is the caller's decision
	f(`{"a":-0.5e+3,"b":true,"c":false,"d":null}`, `a=-0.5e+3;b=true;c=false;d=null;`, true)
	for _, bad := range []string{
		``, ` `, `[]`, `"a"`, `1`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":1} x`, `{"a":1}{}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`,
		`{"a":+1}`, `{"a":1e}`, `{"a":tru}`, `{"a":"\x"}`, `{"a":"\u12g4"}`, "{\"a\":\"\x01\"}", "{\"a\":\"\xff\"}", `{"a":[1,]}`, `{"a":[1 2]}`,
		`{a:1}`, `{"a":1`, `{"a":"`, `{"a":"\`, "\xef\xbb\xbf{}", "{\"a\":1}\x00", `{"a":NaN}`,
	} {
		f(bad, "", false)
	}
}

func TestDepth(t *testing.T) {
	nested := func(n int) string { return `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}` }
	if _, err := members(nested(jsonscan.DepthMax)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := members(nested(jsonscan.DepthMax + 1)); err == nil {
		t.Error("one past the limit passes")
	}
}

func TestScalars(t *testing.T) {
	f := func(raw string, want int64, ok bool) {
		t.Helper()
		if n, got := jsonscan.Int([]byte(raw)); got != ok || (ok && n != want) {
			t.Errorf("Int(%s) = %d, %v", raw, n, got)
		}
	}
	f("100", 100, true)
	f("100.0", 100, true)
	f("-3", -3, true)
	f("100.5", 0, false)
	f("1e2", 0, false)
	f(`"1"`, 0, false)
	f("true", 0, false)
	f("9223372036854775808", 0, false)
	if s, ok := jsonscan.String([]byte(`"a\ud800b\u00e9"`)); !ok || s != "a\ufffdb\u00e9" {
		t.Errorf("String = %q, %v", s, ok)
	}
	if _, ok := jsonscan.String([]byte(`1`)); ok {
		t.Error("1 is no string")
	}
}

func FuzzObject(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":"\u00e9\ud83d\ude00"}`, `{"a":[1,{"b":null}]} `, `{"a":1,"a":-1.5E-7}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		err := jsonscan.Object(document, func([]byte, jsonscan.Value) error { return nil })
		trimmed := bytes.TrimLeft(document, " \t\r\n")
		valid := json.Valid(document) && len(trimmed) > 0 && trimmed[0] == '{' && utf8.Valid(document)
		if deep := (*jsonscan.SyntaxError)(nil); errors.As(err, &deep) && deep.Reason == "nested too deep" {
			return
		}
		if (err == nil) != valid {
			t.Fatalf("Object: %v, json.Valid: %v", err, valid)
		}
		w := jsonscan.NewWalker(100, "a")
		_, _ = w.Write(document)
		if valid && !w.Done() {
			t.Fatal("the walker did not see the end")
		}
	})
}

// TestWalker compares the walker with encoding/json, for any pieces.
func TestWalker(t *testing.T) {
	documents := []string{
		`{}`, `{"usage":{"prompt_tokens":1},"model":"m","id":"i"}`,
		`{"data":[{"usage":1,"x":"\"usage\":{}"},"\\"],"usage":{"a":[1,2,{"b":"}"}]},"model":"a\"b\\"}`,
		` { "x" : [ ] , "usage" : null , "mod\u0065l" : "m" } `, `{"model":12.5,"usage":true,"usage":false}`,
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, document := range documents {
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(document), &want); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			w := jsonscan.NewWalker(1000, "usage", "model", "id")
			for rest := document; rest != ""; {
				n := 1 + random.IntN(min(len(rest), 7))
				_, _ = w.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			if !w.Done() || w.Broken() {
				t.Fatalf("%s: done %v, broken %v", document, w.Done(), w.Broken())
			}
			for _, key := range []string{"usage", "model", "id"} {
				raw, ok := w.Value(key)
				wantRaw, wantOK := want[key]
				if ok != wantOK || compact(raw) != compact(wantRaw) {
					t.Errorf("%s: %s = %s, %v; want %s", document, key, raw, ok, wantRaw)
				}
			}
		}
	}
}

func compact(raw []byte) string {
	var b bytes.Buffer
	_ = json.Compact(&b, raw)
	return b.String()
}

func TestWalkerLimit(t *testing.T) {
	for size, want := range map[int]bool{10: true, 11: false} {
		w := jsonscan.NewWalker(10, "a")
		_, _ = w.Write([]byte(`{"a":"` + strings.Repeat("x", size-2) + `"}`))
		if _, ok := w.Value("a"); ok != want {
			t.Errorf("value of %d bytes kept: %v", size, ok)
		}
	}
	w := jsonscan.NewWalker(10, "a")
	_, _ = w.Write([]byte(`[1]`))
	if !w.Broken() {
		t.Error("an array is no object")
	}
}

func BenchmarkObject(b *testing.B) {
	body := []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("The quick brown fox. ", 5000) + `"}],"model":"gpt-4o"}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := jsonscan.Object(body, func([]byte, jsonscan.Value) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
