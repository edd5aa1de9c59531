package usage_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/costgate/costgate/handler/internal/usage"
)

func TestCountMax(t *testing.T) {
	f := func(number, want string) {
		t.Helper()
		u, ok := usage.FromJSON([]byte(`{"prompt_tokens":` + number + `}`))
		if got := counts(u); got != want || !ok {
			t.Errorf("%s: %s, %v", number, got, ok)
		}
	}
	f("0", "in=0")
	f("100.0", "in=100")
	f("1000000000000", "in=1000000000000")
	f("1000000000001", "")
	f("9223372036854775808", "")
	f("1e2", "")
	f("null", "")
	f("true", "")
}

func TestBothShapesAtOnce(t *testing.T) {
	for _, raw := range []string{`{"prompt_tokens":3,"input_tokens":9}`, `{"input_tokens":9,"prompt_tokens":3}`} {
		if u, _ := usage.FromJSON([]byte(raw)); counts(u) != "in=3" {
			t.Errorf("%s: %s", raw, counts(u))
		}
	}
}

func TestNameBytesMax(t *testing.T) {
	for size, want := range map[int]int{usage.NameBytesMax: usage.NameBytesMax, usage.NameBytesMax + 1: 0} {
		if a := usage.FromBody([]byte(`{"model":"`+strings.Repeat("m", size)+`"}`), false); len(a.Model) != want {
			t.Errorf("a name of %d bytes: %d kept", size, len(a.Model))
		}
	}
}

func TestTextBytesMax(t *testing.T) {
	f := func(text string, kept int) {
		t.Helper()
		var s usage.Stream
		s.GatherText = true
		half := len(text) / 2
		for half > 0 && !utf8.RuneStart(text[half]) {
			half--
		}
		for _, part := range []string{text[:half], text[half:]} {
			s.Event(nil, []byte(`{"choices":[{"index":0,"delta":{"content":"`+part+`"}}]}`))
		}
		a := s.Answer()
		if len(a.Text) != kept || a.TextBytes != int64(len(text)) || !utf8.Valid(a.Text) {
			t.Errorf("%d bytes: %d kept, %d counted", len(text), len(a.Text), a.TextBytes)
		}
		s.Event(nil, []byte(`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}}]}`))
		a = s.Answer()
		if n := len(a.ToolCalls[0].Name) + len(a.ToolCalls[0].Arguments); a.ToolCallBytes != 3 || n+kept > usage.TextBytesMax {
			t.Errorf("call: %d bytes kept, %d counted", n, a.ToolCallBytes)
		}
	}
	f(strings.Repeat("x", usage.TextBytesMax), usage.TextBytesMax)
	f(strings.Repeat("x", usage.TextBytesMax+1), usage.TextBytesMax)
	f(strings.Repeat("x", usage.TextBytesMax-1)+"é", usage.TextBytesMax-1)
}

func TestToolCallsMax(t *testing.T) {
	f := func(n, want int) {
		t.Helper()
		body := `{"choices":[{"message":{"tool_calls":[` +
			strings.TrimSuffix(strings.Repeat(`{"function":{"name":"f","arguments":"{}"}},`, n), ",") + `]}}]}`
		if a := usage.FromBody([]byte(body), true); len(a.ToolCalls) != want || a.ToolCallBytes != int64(3*n) {
			t.Errorf("%d calls: %d, %d bytes", n, len(a.ToolCalls), a.ToolCallBytes)
		}
	}
	f(usage.ToolCallsMax, usage.ToolCallsMax)
	f(usage.ToolCallsMax+1, usage.ToolCallsMax)
}

func TestChoicesMax(t *testing.T) {
	f := func(n, want int) {
		t.Helper()
		body := `{"choices":[` + strings.TrimSuffix(strings.Repeat(`{"text":"x"},`, n), ",") + `,{"index":1000000000,"text":"y"}]}`
		if a := usage.FromBody([]byte(body), true); a.Choices != want || a.TextBytes != int64(n+1) || len(a.Text) != n+1 {
			t.Errorf("%d choices: %d, %d bytes", n, a.Choices, a.TextBytes)
		}
	}
	f(usage.ChoicesMax-1, usage.ChoicesMax)
	f(usage.ChoicesMax, usage.ChoicesMax)
	f(usage.ChoicesMax+1, usage.ChoicesMax)
}

func TestErrorBodies(t *testing.T) {
	f := func(body, code string, filtered bool) {
		t.Helper()
		if a := usage.FromBody([]byte(body), false); a.ErrorCode != code || a.Filtered != filtered || a.HasUsage {
			t.Errorf("%s: %q, filtered %v", body, a.ErrorCode, a.Filtered)
		}
	}
	f(`{"error":{"code":"429","message":"x"}}`, "429", false)
	f(`{"error":{"code":429}}`, "429", false)
	f(`{"error":{"code":null,"type":"invalid_request_error"}}`, "invalid_request_error", false)
	f(`{"error":{}}`, "error", false)
	f(`{"error":"no"}`, "error", false)
	f(`{"error":null}`, "", false)
	f(`{"error":{"code":"x","innererror":{"code":"ResponsibleAIPolicyViolation"}}}`, "x", true)
	f(`{"error":{"code":"x","inner_error":{"code":"ResponsibleAIPolicyViolation"}}}`, "x", true)
}

func TestUnfinishedBodies(t *testing.T) {
	f := func(body string, finished bool) {
		t.Helper()
		r := usage.NewBodyReader()
		_, _ = r.Write([]byte(body))
		if a, b := usage.FromBody([]byte(body), false), r.Answer(); a.Finished != finished || b.Finished != finished || a.Model != b.Model {
			t.Errorf("%s: %+v and %+v", body, a, b)
		}
	}
	f(`{"model":"m","status":"completed"}`, true)
	f(`{"model":"m","status":"queued","usage":null}`, false)
	f(`{"model":"m","status":"in_progress"}`, false)
	f(`{"model":"m","choices":[{"te`, false)
	f(``, false)
}

func TestResponseBody(t *testing.T) {
	body := `{"id":"r","object":"response","status":"completed","model":"gpt-5.4","service_tier":"default","error":null,"output":[
		{"type":"reasoning","summary":[{"type":"summary_text","text":"Think. "}]},
		{"type":"message","content":[{"type":"output_text","text":"Hi "},
		{"type":"refusal","refusal":"no"}]},{"type":"function_call","name":"f","arguments":"{}"},
		{"type":"custom_tool_call","name":"g","input":"in"}],
		"content_filters":[{"blocked":false,"source_type":"prompt"}],"usage":{"input_tokens":5,"output_tokens":6}}`
	const want = "in=5 out=6|gpt-5.4 r default completed| filtered=false finished=true|Think. Hi no|f{} gin"
	if got := account(usage.FromBody([]byte(body), true)); got != want {
		t.Errorf("%s; want %s", got, want)
	}
	blocked := strings.Replace(body, `"blocked":false`, `"blocked":true`, 1)
	if !usage.FromBody([]byte(blocked), false).Filtered {
		t.Error("a blocked content filter is not seen")
	}
}

// TestEveryRecordedAnswer reads all of the recorded answers. The reference data
// is not part of the repository; COSTGATE_TESTDATA says where it is.
func TestEveryRecordedAnswer(t *testing.T) {
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set: the recorded answers are not here")
	}
	seen := map[string]bool{}
	f := func(name, want string) {
		t.Helper()
		seen[name] = true
		data, err := os.ReadFile(filepath.Join(dir, "recorded", name))
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(7, 7))
		for try := range 20 {
			var a usage.Answer
			if strings.HasSuffix(name, ".sse") {
				a, _ = read(string(data), try%2 == 0, random)
			} else if a = usage.FromBody(data, try%2 == 0); !a.Finished {
				t.Errorf("%s is not finished", name)
			}
			text := 0
			if try%2 == 0 {
				text = len(a.Text)
			}
			got := fmt.Sprintf("%s|%s|%s|%s|%s|%v", counts(a.Usage), a.Model, a.ServiceTier, a.Status, a.ErrorCode, a.Filtered)
			if got != want {
				t.Fatalf("%s: %s; want %s (%d bytes of text)", name, got, want, text)
			}
		}
	}
	const zeros, outZeros = " cached=0 audio=0", " reasoning=0 audioout=0"
	f("azure-401.json", "||||401|false")
	f("azure-404-deploymentnotfound.json", "||||DeploymentNotFound|false")
	f("azure-prompt-filtered-400body.json", "||||content_filter|true")
	f("azure-chat-completion-filtered.json", "in=15 out=19|gpt-35-turbo||||true")
	f("azure-chat-gpt35-2024.json", "in=15 out=24|gpt-35-turbo||||false")
	f("azure-chat-gpt41mini.json", "in=16"+zeros+" out=35"+outZeros+"|gpt-4.1-mini-2025-04-14||||false")
	f("azure-chat-reasoning-gpt5nano.json", "in=11"+zeros+" out=203 reasoning=192 audioout=0|gpt-5-nano-2025-08-07||||false")
	f("azure-completions-legacy.json", "in=16 out=20|gpt-35-turbo||||false")
	f("azure-embeddings.json", "in=8|text-embedding-3-large||||false")
	f("azure-responses-gpt-5.4.json", "in=18 cached=0 out=5 reasoning=0|gpt-5.4|default|completed||false")
	f("azure-responses-gpt-5.6-sol.json", "in=18 cached=0 out=5 reasoning=0|gpt-5.6-sol|default|completed||false")
	f("openai-chat-cachewrite-gpt56.json", "in=1220 cached=0 write=1217 audio=0 out=100 reasoning=100 audioout=0|gpt-5.6-sol|default|||false")
	f("openai-chat-service-tier-priority.json", "in=8"+zeros+" out=82 reasoning=64 audioout=0|gpt-5-2025-08-07|priority|||false")
	f("openai-embedding-token-arrays.json", "in=9|text-embedding-ada-002-v2||||false")
	f("azure-chat-stream-asyncfilter-blocked.sse", "|gpt-35-turbo||||true")
	f("azure-chat-stream-asyncfilter-passes.sse", "|gpt-35-turbo||||false")
	f("azure-chat-stream-gpt4omini-old-api.sse", "|gpt-4o-mini-2024-07-18||||false")
	f("azure-chat-stream-nousage-gpt35.sse", "|gpt-35-turbo||||false")
	f("azure-chat-stream-usage-gpt52.sse", "in=12"+zeros+" out=24"+outZeros+"|gpt-5.2-2025-12-11|default|||false")
	f("openai-responses-stream-incomplete.sse", "|gpt-4o-2024-08-06|default|incomplete||false")
	f("openai-responses-stream.sse", "in=75 cached=0 out=23 reasoning=0|gpt-4.1-2025-04-14|default|completed||false")
	files, err := filepath.Glob(filepath.Join(dir, "recorded", "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		answer := strings.HasSuffix(name, ".sse") || strings.HasSuffix(name, ".json") && !strings.HasSuffix(name, ".meta.json")
		if answer && !seen[name] && !strings.HasPrefix(name, "golden-") {
			t.Errorf("%s is not tested", name)
		}
	}
}
