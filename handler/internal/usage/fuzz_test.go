package usage_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/jsonscan"
	"github.com/costgate/costgate/handler/internal/usage"
)

// addFixtures adds the files in testdata with one of the endings.
func addFixtures(f *testing.F, ending string, add func(data string)) {
	files, err := filepath.Glob(filepath.Join("testdata", "*"+ending))
	if err != nil || len(files) == 0 {
		f.Fatalf("%d fixtures: %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		add(string(data))
	}
}

// unambiguous tells whether a document is JSON without a key that is there
// twice: what that means is left to the reader.
func unambiguous(raw []byte) bool {
	ok := true
	keys := map[string]bool{}
	err := jsonscan.Object(raw, func(key []byte, v jsonscan.Value) error {
		ok = ok && !keys[string(key)] && unambiguousValue(v)
		keys[string(key)] = true
		return nil
	})
	return ok && err == nil
}

func unambiguousValue(v jsonscan.Value) bool {
	ok := true
	switch v.Kind {
	case jsonscan.KindObject:
		return unambiguous(v.Raw)
	case jsonscan.KindArray:
		_ = jsonscan.Array(v.Raw, func(v jsonscan.Value) error {
			ok = ok && unambiguousValue(v)
			return nil
		})
	}
	return ok
}

func checkAnswer(t *testing.T, a usage.Answer) {
	t.Helper()
	audio := false
	for _, item := range a.Items {
		audio = audio || item.Meter == usage.ItemAudioIn
		if item.Quantity <= 0 || item.Quantity > usage.CountMax {
			t.Fatalf("%+v", a.Items)
		}
	}
	if a.HasUsage != (a.Usage.Reported() || audio) || a.Usage.Prompt.N < 0 || len(a.Text) > usage.TextBytesMax || a.Images < 0 {
		t.Fatalf("%+v", a)
	}
	checkExtra(t, a.Extra)
}

// checkExtra: numbers, booleans, null, words, and objects of them.
func checkExtra(t *testing.T, extra []byte) {
	t.Helper()
	if extra == nil {
		return
	}
	var walk func(v any)
	word := func(s string) {
		if s == "" || len(s) > 64 || strings.ContainsAny(s, " \t\n\"\\<>&") {
			t.Fatalf("%q in %s", s, extra)
		}
	}
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if len(v) == 0 {
				t.Fatalf("an empty object in %s", extra)
			}
			for key, value := range v {
				word(key)
				walk(value)
			}
		case string:
			word(v)
		case []any:
			t.Fatalf("an array in %s", extra)
		}
	}
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(extra))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil || len(extra) > usage.UsageExtraBytesMax {
		t.Fatalf("%s: %v", extra, err)
	}
	walk(object)
}

// FuzzFromBody: a body says the same whole and in pieces, but for its choices.
func FuzzFromBody(f *testing.F) {
	addFixtures(f, ".json", func(body string) { f.Add([]byte(body), 5) })
	f.Add([]byte(`{"choices":[{"message":{"content":"x","tool_calls":[{"function":{"name":"f"}}]}}],"usage":{"prompt_tokens":1}}`), 3)
	f.Add([]byte(`{"status":"completed","output":[{"type":"message","content":[{"text":"x"}]}],`+
		`"content_filters":[{"blocked":true}],"error":{"code":1}}`), 7)
	f.Add([]byte(`{"d\u0061ta":[1,"]",{"a":{}},[2]],"output":[{"type":"code_interpreter_call","container_id":"c"}],"duration":"1.0001"}`), 1)
	f.Add([]byte(`{"""data":[0`), 1) // broken before the array
	f.Add([]byte(`{"a":1]{"data":[0`), 1)
	f.Fuzz(func(t *testing.T, body []byte, size int) {
		random := rand.New(rand.NewPCG(uint64(size), 1))
		a, b := usage.FromBody(body, false), pieces(string(body), max(size, 1), random)
		checkAnswer(t, a)
		checkAnswer(t, b)
		whole := usage.FromBody(body, true)
		checkAnswer(t, whole)
		if len(whole.Text) > len(body)+3 {
			t.Fatalf("%d bytes of text", len(whole.Text))
		}
		if diff := cmp.Diff(b, pieces(string(body), len(body)+1, random)); diff != "" {
			t.Fatalf("other pieces, another answer: %s", diff)
		}
		var members map[string]json.RawMessage
		if !unambiguous(body) || len(body) > 1<<16 || json.Unmarshal(body, &members) != nil || members["response"] != nil || members["choices"] != nil {
			return
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzUsage: what a usage object says is in the record, and nothing else.
func FuzzUsage(f *testing.F) {
	for _, seed := range []string{
		`{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":1,"foo":7},"bar":{"a":1,"b":"x y"}}`,
		`{"input_tokens":9,"input_token_details":{"cached_tokens_details":{"audio_tokens":5,"z":null}},"output_tokens":2,"output_tokens_details":{"image_tokens":1}}`,
		`{"type":"duration","seconds":9.5,"x":true}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		u, ok := usage.FromJSON(object)
		body := append(append([]byte(`{"usage":`), object...), '}')
		a := usage.FromBody(body, false)
		checkAnswer(t, a)
		if !ok || !unambiguous(object) {
			return
		}
		if a.Usage != u && u.Reported() {
			t.Fatalf("%+v, and in a body %+v", u, a.Usage)
		}
		var want truth
		want.read(t, body)
		if a.Usage != usageIn(want.usage) && plainCounts(object) {
			t.Fatalf("%s; want %s", counts(a.Usage), counts(usageIn(want.usage)))
		}
		var r usage.Record
		r.SetAnswer(&a)
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again usage.Record
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatal(diff)
		}
		back, reported := r.Usage(), a.Usage
		back.ImageOut.Known, back.AudioInCached.Known = reported.ImageOut.Known, reported.AudioInCached.Known
		if back != reported && !bytes.Contains(object, []byte("image_output_tokens")) && !bytes.Contains(object, []byte("cached_audio_input_tokens")) {
			t.Fatalf("%s from the record; reported %s", counts(back), counts(reported))
		}
	})
}

// plainCounts tells whether every number is one that both readers take, or
// neither, and no more than one form of the object is used.
func plainCounts(object []byte) bool {
	forms := 0
	for _, form := range []string{"prompt_tokens_details", "input_tokens_details", "input_token_details"} {
		forms += bytes.Count(object, []byte(form))
	}
	for _, form := range []string{"completion_tokens_details", "output_tokens_details", "output_token_details"} {
		forms += bytes.Count(object, []byte(form)) << 8
	}
	return forms&0xff <= 1 && forms>>8 <= 1 && !bytes.ContainsAny(object, `.\-`) && len(object) < 500 && !hasLong(object)
}

// hasLong tells whether there is a number that may be above CountMax.
func hasLong(object []byte) bool {
	digits := 0
	for _, c := range object {
		if digits++; c < '0' || c > '9' {
			digits = 0
		}
		if digits > 12 {
			return true
		}
	}
	return false
}

// FuzzStream: a stream says the same in any pieces, with and without its text.
func FuzzStream(f *testing.F) {
	addFixtures(f, ".sse", func(stream string) { f.Add(stream, 100) })
	f.Add("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n", 1)
	f.Add("event: response.completed\ndata: {\"response\":{\"usage\":{\"input_tokens\":1}}}\n\n", 9)
	f.Fuzz(func(t *testing.T, stream string, most int) {
		most = max(most&0xffff, 1)
		a, _ := read(stream, true, rand.New(rand.NewPCG(1, 1)))
		b, _ := read(stream, false, rand.New(rand.NewPCG(2, 1)))
		c := readPieces(stream, most, rand.New(rand.NewPCG(1, 1)))
		checkAnswer(t, a)
		checkAnswer(t, b)
		checkAnswer(t, c)
		if diff := cmp.Diff(c, readPieces(stream, most, rand.New(rand.NewPCG(2, 1)))); diff != "" {
			t.Fatalf("other pieces, another answer: %s", diff)
		}
	})
}
