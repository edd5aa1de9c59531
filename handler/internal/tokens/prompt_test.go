package tokens

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPromptExact(t *testing.T) {
	f := func(op Op, model, body string, want int64) {
		t.Helper()
		n, exact, err := Prompt(op, model, []byte(body))
		if err != nil || !exact || n != want {
			t.Errorf("Prompt(%s, %s, %s) = %d, %v, %v; want exactly %d", op, model, body, n, exact, err, want)
		}
	}
	const hello = `{"messages":[{"role":"user","content":"hello world"}]}`
	f(OpChat, "gpt-4o", hello, 3+3+1+2)
	f(OpChat, "gpt-35-turbo", hello, 3+3+1+2)
	f(OpChat, "gpt-5-mini", hello, 2+3+1+2)
	f(OpChat, "o3-mini", hello, 2+3+1+2)
	f(OpChat, "gpt-4o", `{"messages":[{"role":"user","name":"Bob","content":[{"type":"text","text":"hello"},{"type":"text","text":" world"}]},
		{"role":"assistant","content":null}]}`, 3+(3+1+2)+(1+1)+(3+1))
	f(OpChat, "gpt-4o", `{}`, 3)
	f(OpResponses, "gpt-4o", `{"input":"hello world","instructions":"hello"}`, 3+(3+1+2)+(3+1+1))
	f(OpResponses, "gpt-5", `{"input":[{"role":"user","content":[{"type":"input_text","text":"hello world"}]}]}`, 2+3+1+2)
	f(OpResponses, "gpt-5", `{"input":[{"type":"message","role":"user","content":"hello world"}]}`, 2+3+1+2)
	f(OpEmbeddings, "text-embedding-3-small", `{"input":"hello world"}`, 2)
	f(OpEmbeddings, "text-embedding-3-small", `{"input":["hello world","hello"]}`, 3)
	f(OpEmbeddings, "text-embedding-3-small", `{"input":[1,2,3]}`, 3)
	f(OpEmbeddings, "text-embedding-3-small", `{"input":[[1,2,3],[4]]}`, 4)
	f(OpCompletions, "gpt-35-turbo-instruct", `{"prompt":["hello world",""]}`, 2+1)
	f(OpCompletions, "gpt-35-turbo-instruct", `{"prompt":""}`, 1)
	f(OpCompletions, "gpt-35-turbo-instruct", `{}`, 1)
	f(OpCompletions, "gpt-35-turbo-instruct", `{"prompt":[[15339,1917],[15339]]}`, 3)
}

func TestPromptGuesses(t *testing.T) {
	f := func(op Op, model, body string, want int64) {
		t.Helper()
		n, exact, err := Prompt(op, model, []byte(body))
		if err != nil || exact || n != want {
			t.Errorf("Prompt(%s, %s, %s) = %d, %v, %v; want about %d", op, model, body, n, exact, err, want)
		}
	}
	const remote = `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"%s}}]}]}`
	f(OpChat, "gpt-4o", fmt.Sprintf(remote, ""), 7+1105)
	f(OpChat, "gpt-4o", fmt.Sprintf(remote, `,"detail":"low"`), 7+85)
	f(OpChat, "gpt-4o-mini", fmt.Sprintf(remote, ""), 7+36_835)
	f(OpChat, "gpt-6", fmt.Sprintf(remote, ""), 6+1844)
	f(OpResponses, "gpt-4o", `{"input":[{"role":"user","content":[{"type":"input_image","file_id":"f"}]}]}`, 7+1105)
	f(OpResponses, "gpt-4o", `{"input":"hello","previous_response_id":"resp_1"}`, 3+4+1)
	f(OpResponses, "gpt-4o", `{"input":[{"type":"function_call_output","output":"hello"}]}`, 3+4+1)
	f(OpChat, "gpt-4o", `{"messages":[],"data_sources":[{}]}`, 3)
	f(OpChat, "gpt-4o", `{"messages":[],"tool_choice":{"type":"function","function":{"name":"add"}},"audio":{}}`, 3+4+1)
	f(OpCompletions, "gpt-4", `{"prompt":"hello","suffix":"world"}`, 1+3+1)
	f(OpImages, "gpt-image-1", `{"prompt":"hello world","n":2}`, 2)
	f(OpSpeech, "gpt-4o-mini-tts", `{"input":"hello world","instructions":"hello","voice":"alloy"}`, 2+1)
	f(OpTranscription, "gpt-4o-transcribe", "--form\r\n", 0)
	f(OpChat, "gpt-oss-120b", `{"messages":[{"role":"user","content":"hello world"}]}`, 2+64+3+1+2)
	f(OpChat, "DeepSeek-V3", `{"messages":[{"role":"user","content":"hello world"}]}`, 3+3+1+2)
}

func TestTools(t *testing.T) {
	schema := `{"type":"object","properties":{
		"city":{"type":"string","description":"Where"},
		"unit":{"type":"string","enum":["C","F"]},
		"days":{"type":"array","items":{"type":"integer"}},
		"at":{"type":["number","null"]},
		"box":{"type":"object","properties":{"w":{"type":"boolean"}}},
		"any":{"anyOf":[{"type":"string"},{}]},
		"list":{"type":"array"}},"required":["city"]}`
	var parameters map[string]any
	if err := json.Unmarshal([]byte(schema), &parameters); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	c := &counter{family: familyOf("gpt-4o")}
	c.declare(&b, map[string]any{"name": "weather", "description": "Tells the weather", "parameters": parameters})
	const want = `// Tells the weather
type weather = (_: {
any?: string | any,
at?: number | null,
box?: {
 w?: boolean,
},
// Where
city: string,
days?: number[],
list?: any[],
unit?: "C" | "F",
}) => any;

`
	if b.String() != want {
		t.Errorf("declare writes\n%s", b.String())
	}
	count := func(model, body string) int64 {
		n, exact, err := Prompt(OpChat, model, []byte(body))
		if err != nil || exact {
			t.Errorf("%s: exact %v, %v", body, exact, err)
		}
		return n
	}
	const tools = `"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]`
	const old = `"functions":[{"name":"f","parameters":{}}]`
	plain := count("gpt-4o", `{"messages":[{"role":"user","content":"x"}],`+tools+`}`)
	if system := count("gpt-4o", `{"messages":[{"role":"system","content":"x"}],`+tools+`}`); system != plain-4 {
		t.Errorf("with a system message %d, without %d", system, plain)
	}
	if functions := count("gpt-4o", `{"messages":[{"role":"user","content":"x"}],`+old+`}`); functions != plain {
		t.Errorf("functions %d, tools %d", functions, plain)
	}
	if newer := count("gpt-5", `{"messages":[{"role":"user","content":"x"}],`+tools+`}`); newer != plain-1+81 {
		t.Errorf("gpt-5 %d, gpt-4o %d", newer, plain)
	}
	// A schema that nests without end is counted, not followed for ever.
	deep := strings.Repeat(`{"type":"array","items":`, 2000) + "{}" + strings.Repeat("}", 2000)
	body := `{"messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"p":` + deep + `}}}}]}`
	if n := count("gpt-4o", body); n < 1000 || n > BoundBytes(OpChat, "gpt-4o", []byte(body)) {
		t.Errorf("deep schema: %d tokens", n)
	}
}

func TestPromptErrors(t *testing.T) {
	for _, body := range []string{"", "null", "[]", `"x"`, "{", `{"messages":`, "\x00"} {
		if _, _, err := Prompt(OpChat, "gpt-4o", []byte(body)); !errors.Is(err, ErrBody) {
			t.Errorf("%q: %v; want ErrBody", body, err)
		}
		if got, want := BoundExact(OpChat, "gpt-4o", []byte(body)), BoundBytes(OpChat, "gpt-4o", []byte(body)); got != want {
			t.Errorf("%q: BoundExact = %d; want BoundBytes, %d", body, got, want)
		}
	}
	if _, _, err := Prompt("sculptures", "gpt-4o", []byte("{}")); err == nil {
		t.Error("an unknown operation passes")
	}
}

func TestImageSize(t *testing.T) {
	f := func(name string, data []byte, width, height int64) {
		t.Helper()
		w, h, ok := imageSize("data:image/x;base64," + base64.StdEncoding.EncodeToString(data))
		if w != width || h != height || ok != (width > 0) {
			t.Errorf("%s: %d x %d, %v; want %d x %d", name, w, h, ok, width, height)
		}
	}
	encoded := func(encode func(*bytes.Buffer, image.Image) error) []byte {
		var b bytes.Buffer
		if err := encode(&b, image.NewPaletted(image.Rect(0, 0, 800, 400), color.Palette{color.Black, color.White})); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	f("png", encoded(func(b *bytes.Buffer, m image.Image) error { return png.Encode(b, m) }), 800, 400)
	f("jpeg", encoded(func(b *bytes.Buffer, m image.Image) error { return jpeg.Encode(b, m, nil) }), 800, 400)
	f("gif", encoded(func(b *bytes.Buffer, m image.Image) error { return gif.Encode(b, m, nil) }), 800, 400)
	webp := func(kind string, tail ...byte) []byte {
		return append([]byte("RIFF\x00\x00\x00\x00WEBP"+kind+"\x00\x00\x00\x00"), tail...)
	}
	f("VP8X", webp("VP8X", 0, 0, 0, 0, 0x1f, 3, 0, 0x8f, 1, 0), 800, 400)
	f("VP8 ", webp("VP8 ", 0, 0, 0, 0x9d, 1, 0x2a, 0x20, 3, 0x90, 1), 800, 400)
	f("VP8L", webp("VP8L", 0x2f, 0x1f, 0xc3, 0x63, 0, 0, 0, 0, 0, 0), 800, 400)
	f("webp of another kind", webp("ALPH", make([]byte, 14)...), 0, 0)
	f("no image", []byte("hello"), 0, 0)
	f("nothing", nil, 0, 0)
	for _, url := range []string{"", "https://example.com/a.png", "data:image/png,abc", "data:image/png;base64,%%%%"} {
		if _, _, ok := imageSize(url); ok {
			t.Errorf("imageSize(%q) has a size", url)
		}
	}
}

func TestImageTokens(t *testing.T) {
	f := func(model string, width, height int64, low bool, want int64) {
		t.Helper()
		if got, most := familyOf(model).image.tokens(width, height, low); got != want || most < got {
			t.Errorf("%s, %d x %d, low %v: %d, at most %d; want %d", model, width, height, low, got, most, want)
		}
	}
	f("gpt-4o", 800, 400, false, 425)
	f("gpt-4o", 2560, 1669, false, 1105)
	f("gpt-4o", 3008, 2000, false, 1105)
	f("gpt-4o", 3008, 2000, true, 85)
	f("gpt-4o", 100_000, 100, false, 85+4*170)
	f("gpt-5-mini", 540, 360, false, 245)
	f("gpt-5.6-sol", 4096, 2992, false, 14_439)
	f("gpt-4.1-nano", 540, 360, false, 502)
	f("gpt-4.1-nano", imageSideMax, imageSideMax, false, 3779)
	for _, model := range []string{"gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5-mini", "gpt-5.5", "o1", "o4-mini", "unheard-of"} {
		rule := familyOf(model).image
		rapid.Check(t, func(t *rapid.T) {
			side := rapid.Int64Range(1, imageSideMax)
			width, height := side.Draw(t, "width"), side.Draw(t, "height")
			n, most := rule.tokens(width, height, rapid.Bool().Draw(t, "low"))
			if n <= 0 || n > most || most > rule.most() || rule.usual() > rule.most() {
				t.Fatalf("%s, %d x %d: %d tokens, at most %d, usual %d, the most is %d", model, width, height, n, most, rule.usual(), rule.most())
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	f := func(model string, out Output, want int64) {
		t.Helper()
		if got := Completion(model, out); got != want {
			t.Errorf("Completion(%s, %+v) = %d; want %d", model, out, got, want)
		}
	}
	f("gpt-4o", Output{}, 0)
	f("gpt-4", Output{Text: "hello world"}, 2)
	f("gpt-4o", Output{Text: "hello world"}, 2)
	f("gpt-5", Output{Text: "hello world"}, 2+9)
	f("gpt-5.4-mini", Output{Text: "hello world"}, 2+4)
	f("gpt-5", Output{Op: OpResponses, Text: "hello world"}, 2+6)
	f("gpt-35-turbo-instruct", Output{Op: OpCompletions, Text: "hello world"}, 2)
	call := ToolCall{Name: "add", Arguments: "{}"}
	f("gpt-4", Output{Calls: []ToolCall{call}}, 1+1+7)
	f("gpt-4", Output{Calls: []ToolCall{call, call}}, 2*(1+1+10)+10)
	f("gpt-4.1", Output{Calls: []ToolCall{call, call, call}}, 3*(1+1+10)+10+1)
}
