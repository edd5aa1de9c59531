package usage_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/sse"
	"github.com/costgate/costgate/handler/internal/usage"
)

func counts(u usage.Usage) string {
	var out []string
	for _, c := range []struct {
		name  string
		count usage.Count
	}{
		{"in", u.Prompt}, {"cached", u.Cached}, {"write", u.CacheWrite}, {"audio", u.AudioIn}, {"image", u.ImageIn},
		{"out", u.Completion}, {"reasoning", u.Reasoning}, {"audioout", u.AudioOut}, {"audiocached", u.AudioInCached}, {"imageout", u.ImageOut},
	} {
		if c.count.Known {
			out = append(out, fmt.Sprintf("%s=%d", c.name, c.count.N))
		}
	}
	return strings.Join(out, " ")
}

func TestFromJSON(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		u, ok := usage.FromJSON([]byte(raw))
		if got := counts(u); got != want || !ok {
			t.Errorf("%s: %s, %v; want %s", raw, got, ok, want)
		}
	}
	f(`{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}`, "in=3 out=4")
	f(`{"prompt_tokens":3,"total_tokens":3}`, "in=3")
	f(`{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":2,"cache_write_tokens":5},
		"completion_tokens_details":{"reasoning_tokens":1,"audio_tokens":3,"accepted_prediction_tokens":7}}`,
		"in=9 cached=0 write=5 audio=2 out=4 reasoning=1 audioout=3")
	f(`{"input_tokens":9,"output_tokens":4,"input_tokens_details":{"cached_tokens":8},"output_tokens_details":{"reasoning_tokens":2}}`,
		"in=9 cached=8 out=4 reasoning=2")
	f(`{"input_tokens":9,"input_tokens_details":{"text_tokens":4,"image_tokens":5}}`, "in=9 image=5")
	f(`{"total_tokens":1077,"input_tokens":21,"output_tokens":1056,"input_tokens_details":{"text_tokens":12,"image_tokens":9,"cached_tokens":4},
		"output_tokens_details":{"text_tokens":0,"image_tokens":1056}}`, "in=21 cached=4 image=9 out=1056 imageout=1056")
	f(`{"type":"tokens","total_tokens":50,"input_tokens":44,"input_token_details":{"text_tokens":4,"audio_tokens":40},"output_tokens":6}`,
		"in=44 audio=40 out=6")
	f(`{"total_tokens":114,"input_tokens":16,"output_tokens":98,"input_token_details":{"text_tokens":6,"audio_tokens":9,"image_tokens":1,
		"cached_tokens":7,"cached_tokens_details":{"text_tokens":2,"audio_tokens":5,"image_tokens":0}},
		"output_token_details":{"text_tokens":16,"audio_tokens":82}}`, "in=16 cached=7 audio=9 image=1 out=98 audioout=82 audiocached=5")
	f(`{"type":"duration","seconds":9.5}`, "")
	f(`{"prompt_tokens":-1,"completion_tokens":1.5,"prompt_tokens_details":null,"completion_tokens_details":[1]}`, "")
	f(`{"prompt_tokens":"3","completion_tokens":1e30}`, "")
	for _, raw := range []string{"", "null", "[]", "3", `{`} {
		if _, ok := usage.FromJSON([]byte(raw)); ok {
			t.Errorf("%q is taken for usage", raw)
		}
	}
}

func TestFromBody(t *testing.T) {
	a := usage.FromBody([]byte(`{"id":"c1","object":"chat.completion","model":"gpt-4o-2024-11-20","service_tier":"priority","choices":[
		{"index":0,"finish_reason":"tool_calls","message":{"content":"Hi","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}},
		{"index":1,"finish_reason":"stop","message":{"content":[{"type":"text","text":" you"}]}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`), true)
	if a.ResponseID != "c1" || a.Model != "gpt-4o-2024-11-20" || a.ServiceTier != "priority" || !a.HasUsage || a.Filtered ||
		string(a.Text) != "Hi you" || len(a.ToolCalls) != 1 || a.ToolCalls[0] != (usage.ToolCall{Name: "f", Arguments: "{}"}) {
		t.Errorf("%+v", a)
	}
	// Azure's filtered answer has no message, and is billed.
	a = usage.FromBody([]byte(`{"choices":[{"finish_reason":"content_filter","index":0}],"usage":{"prompt_tokens":1,"completion_tokens":19}}`), false)
	if !a.Filtered || !a.HasUsage {
		t.Errorf("filtered: %+v", a)
	}
	a = usage.FromBody([]byte(`{"id":"r1","object":"response","status":"completed","model":"gpt-5.4","output":[{"type":"reasoning","summary":[]},
		{"type":"message","content":[{"type":"output_text","text":"Hi"}]},{"type":"function_call","name":"g","arguments":"{1}"}],
		"usage":{"input_tokens":5,"output_tokens":6}}`), true)
	if a.Status != "completed" || counts(a.Usage) != "in=5 out=6" || string(a.Text) != "Hi" || len(a.ToolCalls) != 1 {
		t.Errorf("response: %+v", a)
	}
	a = usage.FromBody([]byte(`{"error":{"message":"x","code":"content_filter","status":400}}`), false)
	if a.ErrorCode != "content_filter" || !a.Filtered || a.HasUsage {
		t.Errorf("error: %+v", a)
	}
	if a = usage.FromBody([]byte(`{"usage":{"prompt_tokens":0,"completion_tokens":0}}`), false); a.HasUsage {
		t.Error("usage of zeros is no usage")
	}
	if a = usage.FromBody([]byte(`not json`), true); a.Finished || a.HasUsage {
		t.Errorf("%+v", a)
	}
}

func TestBodyReader(t *testing.T) {
	body := `{"object":"list","data":[{"embedding":[` + strings.Repeat("0.1,", 50_000) + `0],"usage":1}],"model":"ada","usage":{"prompt_tokens":7,"total_tokens":7}}`
	for _, size := range []int{1, 100, 1 << 20} {
		r := usage.NewBodyReader()
		for rest := body; rest != ""; {
			n := min(size, len(rest))
			_, _ = r.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		if a := r.Answer(); a.Model != "ada" || counts(a.Usage) != "in=7" || !a.Finished {
			t.Errorf("pieces of %d: %+v", size, a)
		}
	}
}

// read feeds a stream in random pieces.
func read(stream string, gather bool, random *rand.Rand) (usage.Answer, int) {
	scanner := sse.NewScanner(1 << 20)
	reader := usage.Stream{GatherText: gather}
	usageOnly := 0
	for len(stream) > 0 {
		n := 1 + random.IntN(min(50, len(stream)))
		scanner.Feed([]byte(stream[:n]), func(e sse.Event) {
			if reader.Event(e.Name, e.Data) {
				usageOnly++
			}
		})
		stream = stream[n:]
	}
	return reader.Answer(), usageOnly
}

func TestStream(t *testing.T) {
	f := func(name, stream string, want string, usageOnly int) {
		t.Helper()
		random := rand.New(rand.NewPCG(1, 1))
		for range 20 {
			a, n := read(stream, true, random)
			var calls []string
			for _, c := range a.ToolCalls {
				calls = append(calls, c.Name+c.Arguments)
			}
			got := fmt.Sprintf("%s|%s|%s|%s|filtered=%v|finished=%v|%s|%s", counts(a.Usage), a.Model, a.ResponseID, a.Text, a.Filtered, a.Finished, strings.Join(calls, ","), a.ErrorCode)
			if got != want || n != usageOnly {
				t.Fatalf("%s: %s, %d usage chunks; want %s, %d", name, got, n, want, usageOnly)
			}
			quick, n := read(stream, false, random)
			if counts(quick.Usage) != counts(a.Usage) || quick.Model != a.Model || quick.ResponseID != a.ResponseID || quick.Filtered != a.Filtered ||
				quick.Finished != a.Finished || n != usageOnly {
				t.Fatalf("%s: without text %+v, with text %+v", name, quick, a)
			}
		}
	}
	const head = `data: {"choices":[],"created":0,"id":"","model":"","prompt_filter_results":[{}]}` + "\n\n"
	delta := func(text string) string {
		return `data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}],"usage":null}` + "\n\n"
	}
	const stop = `data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}` + "\n\n"
	const used = `data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}` + "\n\n"
	const end = "data: [DONE]\n\n"
	f("usage", head+delta("a")+delta("b")+delta("c")+stop+used+end, "in=5 out=2|m|c|abc|filtered=false|finished=true||", 1)
	f("CRLF", strings.ReplaceAll(head+delta("a")+stop+used+end, "\n", "\r\n"), "in=5 out=2|m|c|a|filtered=false|finished=true||", 1)
	f("no usage", head+delta("a")+stop+end, "|m|c|a|filtered=false|finished=true||", 0)
	f("cut", head+delta("a")+delta("b"), "|m|c|ab|filtered=false|finished=false||", 0)
	f("usage on every chunk", strings.ReplaceAll(delta("a")+delta("b")+delta("c")+delta("d"), `"usage":null`, `"usage":{"prompt_tokens":1,"completion_tokens":1}`)+end,
		"in=1 out=1|m|c|abcd|filtered=false|finished=true||", 0)
	f("zeros", head+delta("a")+stop+`data: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}`+"\n\n"+end, "|m|c|a|filtered=false|finished=true||", 1)
	f("blocked", head+delta("a")+`data: {"id":"","model":"","choices":[{"index":0,"finish_reason":"content_filter","content_filter_results":{}}]}`+"\n\n"+end,
		"|m|c|a|filtered=true|finished=true||", 0)
	f("annotation", head+delta("a")+`data: {"id":"","model":"","choices":[{"index":0,"finish_reason":null,"content_filter_offsets":{}}],"usage":null}`+"\n\n"+stop+used+end,
		"in=5 out=2|m|c|a|filtered=false|finished=true||", 1)
	call := func(index int, name, arguments string) string {
		return fmt.Sprintf(`data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":%d,"function":{"name":%q,"arguments":%q}}]}}]}`+"\n\n", index, name, arguments)
	}
	f("tool calls", head+call(0, "f", "")+call(0, "", "{1")+call(0, "", "}")+call(1, "g", "{}")+stop+end, "|m|c||filtered=false|finished=true|f{1},g{}|", 0)
	f("legacy", `data: {"id":"c","model":"m","choices":[{"text":"a","index":0}]}`+"\n\n"+`data: {"id":"c","model":"m","choices":[{"text":"b","index":1}]}`+"\n\n"+end,
		"|m|c|ab|filtered=false|finished=true||", 0)
	f("error", head+delta("a")+delta("b")+delta("c")+`data: {"error":{"code":"server_error","message":"x"}}`+"\n\n", "|m|c|abc|filtered=false|finished=false||server_error", 0)

	created := "event: response.created\ndata: " + `{"type":"response.created","response":{"id":"r","status":"in_progress","model":"m","usage":null}}` + "\n\n"
	text := "event: response.output_text.delta\ndata: " + `{"type":"response.output_text.delta","delta":"ab"}` + "\n\n"
	last := func(kind, usage string) string {
		return "event: response." + kind + "\ndata: " + `{"type":"response.` + kind + `","response":{"id":"r","status":"` + kind + `","model":"m","usage":` + usage + `}}` + "\n\n"
	}
	f("response", created+text+last("completed", `{"input_tokens":3,"output_tokens":4}`), "in=3 out=4|m|r|ab|filtered=false|finished=true||", 0)
	f("response without event lines", strings.ReplaceAll(created+text+last("completed", `{"input_tokens":3,"output_tokens":4}`), "event: ", "id: "),
		"in=3 out=4|m|r|ab|filtered=false|finished=true||", 0)
	f("incomplete with zeros", created+text+last("incomplete", `{"input_tokens":0,"output_tokens":0}`), "|m|r|ab|filtered=false|finished=true||", 0)
	f("failed", created+last("failed", "null"), "|m|r||filtered=false|finished=true||", 0)
}

func TestOrdinaryChunksCostNothing(t *testing.T) {
	var s usage.Stream
	data := []byte(`{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}],"usage":null}`)
	for range 4 {
		s.Event(nil, data)
	}
	if n := testing.AllocsPerRun(100, func() { s.Event(nil, data) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
