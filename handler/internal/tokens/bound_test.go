package tokens

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestBoundBytes(t *testing.T) {
	f := func(model, body string, images int64) {
		t.Helper()
		want := int64(len(body)) + boundOverhead + images*familyOf(model).image.most()
		if got := BoundBytes(OpChat, model, []byte(body)); got != want {
			t.Errorf("BoundBytes(%s, %s) = %d; want %d (%d images)", model, body, got, want, images)
		}
	}
	f("gpt-4o", `{"messages":[{"role":"user","content":"an image_url is \"image_url\": not one"}]}`, 0)
	f("gpt-4o", `{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}},{"type":"image_url","image_url" : {"url":"y"}}]}]}`, 2)
	f("gpt-4o", `{"input":[{"content":[{"type":"input_image","image_url":"x"},{"type":"input_image","file_id":"y"}]}]}`, 2)
	f("gpt-4o", `{"messages":[{"content":[{"type":"image_url","im\u0061ge_url":{"url":"x"}}]}]}`, 1) // a name that hides
	f("gpt-4o", `{"messages":[{"content":[{"type":"image\u005furl","\u0069mage_url":{"url":"x"}}]}]}`, 1)
	f("gpt-4o", `{"messages":[{"content":"caf\u00e9 \u4f60 \u0022"}]}`, 0)
	f("gpt-5-mini", `{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}`, 1) // at what the documentation says
	if got := BoundBytes(OpEmbeddings, "text-embedding-3-small", []byte(`{"image_url":1}`)); got != 15+boundOverhead {
		t.Errorf("embeddings: %d", got)
	}
}

// TestBoundsCover proves that both bounds are at least the estimate for well-formed requests of text, tools and images.
func TestBoundsCover(t *testing.T) {
	texts := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "hello world", "你好", strings.Repeat("!?", 300), "<|endoftext|>"}))
	names := rapid.StringMatching(`[a-z_]{1,12}`)
	models := rapid.SampledFrom([]string{"gpt-4o", "gpt-4", "gpt-5", "gpt-5.4-mini", "o1-mini", "gpt-4o-mini", "unheard-of"})
	rapid.Check(t, func(t *rapid.T) {
		messages := []any{}
		for range rapid.IntRange(0, 5).Draw(t, "messages") {
			m := map[string]any{"role": rapid.SampledFrom([]string{"user", "system", "assistant", "tool"}).Draw(t, "role")}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				m["content"] = texts.Draw(t, "content")
			case 1:
				m["content"] = []any{map[string]any{"type": "text", "text": texts.Draw(t, "part")}}
			case 2:
				m["content"] = []any{map[string]any{"type": "image_url", "image_url": map[string]any{"url": texts.Draw(t, "url")}}}
			case 3:
				function := map[string]any{"name": names.Draw(t, "call"), "arguments": texts.Draw(t, "args")}
				call := map[string]any{"id": "c", "type": "function", "function": function}
				m["tool_calls"] = []any{call, call}
			}
			messages = append(messages, m)
		}
		request := map[string]any{"messages": messages}
		if rapid.Bool().Draw(t, "tools") {
			properties := map[string]any{}
			for range rapid.IntRange(0, 4).Draw(t, "properties") {
				properties[names.Draw(t, "property")] = map[string]any{"type": "string", "description": texts.Draw(t, "description")}
			}
			function := map[string]any{"name": names.Draw(t, "tool"), "parameters": map[string]any{"type": "object", "properties": properties}}
			request["tools"] = []any{map[string]any{"type": "function", "function": function}}
		}
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		model := models.Draw(t, "model")
		n, _, err := Prompt(OpChat, model, body)
		if err != nil {
			t.Fatal(err)
		}
		exact, bytes := BoundExact(OpChat, model, body), BoundBytes(OpChat, model, body)
		if n > exact || exact > bytes {
			t.Fatalf("%s: estimate %d, BoundExact %d, BoundBytes %d: %s", model, n, exact, bytes, body)
		}
	})
}

// TestBoundExact proves that what was not seen is bounded, not estimated.
func TestBoundExact(t *testing.T) {
	f := func(op Op, model, body string, want int64) {
		t.Helper()
		if got := BoundExact(op, model, []byte(body)); got != want {
			t.Errorf("BoundExact(%s, %s, %s) = %d; want %d", op, model, body, got, want)
		}
	}
	const hello = `{"messages":[{"role":"user","content":"hello world"}]}`
	const image = `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}`
	const bytes = int64(len(hello)) + boundOverhead
	f(OpChat, "gpt-4o", hello, 3+3+1+2+marginMin)
	f(OpChat, "gpt-4o", `{"messages":[{"role":"user","content":"`+strings.Repeat("hello ", 1000)+`"}]}`, 3+3+1+1001+21)
	f(OpChat, "gpt-4o", image, 7+1445+30)
	f(OpChat, "gpt-5-mini", image, 6+2489+50)
	f(OpChat, "gpt-5.6", image, 6+15_000+301)
	f(OpResponses, "gpt-4o", `{"input":"hello world"}`, 3+3+1+2+marginMin)
	f(OpResponses, "gpt-4o", `{"input":[{"type":"function_call_output","output":"hello"}]}`, 3+4+1+marginItems)
	f(OpChat, "DeepSeek-V3", hello, bytes) // an encoding of its own
	f(OpChat, "gpt-oss-20b", hello, bytes)
	f(OpTranscription, "whisper-1", "--form", 6+boundOverhead)
	f(OpImages, "gpt-image-1", `{"prompt":"hello world"}`, 2+marginMin)
	f("", "gpt-4o", hello, bytes)
}

func TestHidesInput(t *testing.T) {
	f := func(op Op, body string, want bool) {
		t.Helper()
		if got := HidesInput(op, []byte(body)); got != want {
			t.Errorf("HidesInput(%s, %s) = %v", op, body, got)
		}
	}
	f(OpResponses, `{"input":"x","previous_response_id":"r"}`, true)
	f(OpResponses, `{"input":"x","previous_response_id":null}`, false)
	f(OpResponses, `{"input":"x","previous_respons\u0065_id":"r"}`, true)
	f(OpResponses, `{"input":"x","conversation":"c"}`, true)
	f(OpResponses, `{"prompt":{"id":"p"}}`, true)
	f(OpResponses, `{"input":"my conversation with a file"}`, false)
	f(OpResponses, `{"input":"x","tools":[{"type":"web_search"}]}`, true)
	f(OpResponses, `{"input":"x","tools":[{"type":"function","name":"file_search"}]}`, false)
	f(OpResponses, `{"input":[{"role":"user","content":[{"type":"input_file","file_url":"u"}]}]}`, true)
	f(OpResponses, `{"input":[{"role":"user","content":[{"type":"input_image","file_id":"u"}]}]}`, true)
	f(OpResponses, `{"input":[{"type":"item_reference","id":"i"}]}`, true)
	f(OpResponses, `{"input":[{"type":"function_call_output","output":[{"type":"input_file","file_id":"u"}]}]}`, true)
	f(OpChat, `{"messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"d"}}]}]}`, true)
	f(OpChat, `{"messages":[{"role":"user","content":"x"}],"data_sources":[{}]}`, true)
	f(OpChat, `{"messages":[{"role":"user","content":"x"}]}`, false)
	f(OpChat, `{"data_sources":`, false)
	f(OpCompletions, `{"prompt":"x"}`, false)
}

func FuzzPrompt(f *testing.F) {
	for _, body := range []string{
		`{"messages":[{"role":"user","name":"n","content":[{"type":"text","text":"hi"},` +
			`{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}`,
		`{"messages":[{"tool_calls":[{"function":{"name":"f","arguments":"{}"}},7]},0,null,[]],` +
			`"tools":[{"function":{"parameters":{"properties":{"a":{"type":[1]}}}}}]}`,
		`{"input":[{"type":"function_call","name":1},[["x"],[1]]],` +
			`"instructions":{},"text":{"format":{"type":"json_schema","schema":{"title":"t"}}}}`,
		`{"prompt":[[1,2],"x",{}],"suffix":[]}`, "{\"input\":\"\xff\\ud800\"}",
	} {
		f.Add("gpt-4o", []byte(body))
	}
	f.Fuzz(func(t *testing.T, model string, body []byte) {
		for _, op := range []Op{OpChat, OpResponses, OpCompletions, OpEmbeddings, OpImages, OpSpeech, OpTranscription} {
			n, _, err := Prompt(op, model, body)
			exact, most := BoundExact(op, model, body), BoundBytes(op, model, body)
			if n < 0 || exact > most || exact <= 0 || err == nil && exact < min(n, most) {
				t.Errorf("%s: estimate %d (%v), BoundExact %d, BoundBytes %d", op, n, err, exact, most)
			}
			HidesInput(op, body)
		}
		if n := Completion(model, Output{Text: string(body)}); n < 0 || n > int64(len(body))*3+16 {
			t.Errorf("completion: %d tokens for %d bytes", n, len(body))
		}
	})
}

// TestContainersMax: a body with one array more is not decoded, and may hide anything.
func TestContainersMax(t *testing.T) {
	for n, hides := range map[int]bool{ContainersMax: false, ContainersMax + 1: true} {
		body := `{"x":"file","y":[` + strings.TrimSuffix(strings.Repeat("[],", n-2), ",") + `]}` // the object and the list are two more
		if got := HidesInput(OpChat, []byte(body)); got != hides {
			t.Errorf("%d containers: hides %v", n, got)
		}
		if _, _, err := Prompt(OpChat, "gpt-4o", []byte(body)); (err != nil) != hides {
			t.Errorf("%d containers: %v", n, err)
		}
	}
}
