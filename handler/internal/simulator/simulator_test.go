package simulator_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/simulator"
)

// price has a price for everything, each another one, in pico-USD.
var price = simulator.Price{
	Tokens:        simulator.Tokens{In: 2_500_000, Cached: 1_250_000, Write: 3_125_000, ImageIn: 10_000_000, AudioIn: 6_000_000, Out: 10_000_000, ImageOut: 40_000_000, AudioOut: 12_000_000},
	Priority:      simulator.Tokens{In: 5_000_000, Cached: 2_500_000, Write: 6_250_000, Out: 20_000_000},
	Long:          simulator.Tokens{In: 7_000_000, Out: 11_000_000},
	LongThreshold: 100_000,
	Items: map[string]int64{
		"per_image": 40_000_000_000, "sec_in": 100_000_001, "char_in": 15_000_000,
		"web_search_call": 10_000_000_000, "file_search_call": 2_500_000_000, "code_interpreter_session": 30_000_000_000,
	},
}

func newServer(t *testing.T, o simulator.Options) (*simulator.Server, *httptest.Server) {
	t.Helper()
	o.Prices = func(string) (simulator.Price, bool) {
		return price, true
	}
	s := simulator.New(o)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server
}

func post(t *testing.T, base, path, body string, header ...string) (int, string, error) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(got), err
}

const (
	chatPath = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
	chatBody = `{"messages":[{"role":"user","content":"Hello"}],"max_tokens":50}`
)

func streamed(more string) string {
	return `{"messages":[{"role":"user","content":"Hello"}],"max_tokens":50,"stream":true` + more + `}`
}

func events(t *testing.T, stream string) (objects []map[string]any, done bool) {
	t.Helper()
	for event := range strings.SplitSeq(stream, "\n\n") {
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok {
			continue
		}
		if done = data == "[DONE]"; done {
			continue
		}
		var object map[string]any
		if err := json.Unmarshal([]byte(data), &object); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		objects = append(objects, object)
	}
	return objects, done
}

func TestStreamShape(t *testing.T) {
	_, server := newServer(t, simulator.Options{})
	for _, asks := range []bool{false, true} {
		more := ""
		if asks {
			more = `,"stream_options":{"include_usage":true}`
		}
		_, stream, err := post(t, server.URL, chatPath, streamed(more))
		if err != nil {
			t.Fatal(err)
		}
		objects, done := events(t, stream)
		first, last := objects[0], objects[len(objects)-1]
		if first["model"] != "" || first["prompt_filter_results"] == nil || len(first["choices"].([]any)) != 0 || !done {
			t.Errorf("first %v, done %v", first, done)
		}
		if _, ok := last["usage"].(map[string]any); ok != asks {
			t.Errorf("usage asked for: %v; last chunk %v", asks, last)
		}
		for _, o := range objects[1 : len(objects)-1] {
			if _, there := o["usage"]; there != asks || o["usage"] != nil {
				t.Errorf("usage of a chunk in between: %v", o)
			}
		}
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	_, one := newServer(t, simulator.Options{Seed: 7})
	_, two := newServer(t, simulator.Options{Seed: 7})
	_, other := newServer(t, simulator.Options{Seed: 8})
	for _, body := range []string{chatBody, streamed("")} {
		_, a, _ := post(t, one.URL, chatPath, body)
		_, b, _ := post(t, two.URL, chatPath, body, "x-simulator-split", "3")
		_, c, _ := post(t, other.URL, chatPath, body)
		if a != b || a == c || a == "" {
			t.Errorf("same seed equal: %v; other seed equal: %v", a == b, a == c)
		}
	}
}

func TestFaults(t *testing.T) {
	f := func(fault, body string, status int, billed string, wants ...string) {
		t.Helper()
		s, server := newServer(t, simulator.Options{})
		got, text, err := post(t, server.URL, chatPath, body, "x-simulator-fault", fault, "x-simulator-completion-tokens", "20", "x-simulator-cut-after", "5")
		cut := fault == "cut" || fault == "cut_before"
		if (err != nil) != cut || (fault != "cut_before" && got != status) {
			t.Errorf("%s: %d %v %s", fault, got, err, text)
		}
		for _, want := range wants {
			if unwanted, no := strings.CutPrefix(want, "!"); no == strings.Contains(text, strings.TrimPrefix(want, "!")) {
				t.Errorf("%s: %q in %s (unwanted %q)", fault, want, text, unwanted)
			}
		}
		lines := s.Bill().Lines
		outcome := ""
		if len(lines) == 1 {
			outcome = fmt.Sprint(lines[0].Outcome, " ", lines[0].CompletionTokens)
		}
		if outcome != billed {
			t.Errorf("%s: billed %q, want %q", fault, outcome, billed)
		}
	}
	asks := streamed(`,"stream_options":{"include_usage":true}`)
	f("429", chatBody, 429, "", "exceeded token rate limit")
	f("500", chatBody, 500, "", "server_error"[:6])
	f("cut_before", chatBody, 0, "")
	f("cut", asks, 200, "cut 5")
	f("cut", chatBody, 200, "completed 20")
	f("blocked", asks, 200, "blocked 11", "content_filter", "[DONE]", "!prompt_tokens")
	f("zero_usage", asks, 200, "completed 20", `"prompt_tokens":0`)
	f("no_usage", asks, 200, "completed 20", "!prompt_tokens")
	f("filtered", chatBody, 200, "filtered 20", "content_filter", `"completion_tokens":20`, `!"message"`)
	f("prompt_filtered", chatBody, 400, "refused 0", "content_filter", "ResponsibleAIPolicyViolation")
	f("context_length_exceeded", chatBody, 400, "refused 0", `"code":"context_length_exceeded"`)
	f("408", chatBody, 408, "", "Timeout")
	f("no_stream_options", asks, 400, "", "stream_options")
}

func TestRefusals(t *testing.T) {
	_, server := newServer(t, simulator.Options{Key: "right"})
	f := func(path, body, key string, status int, want string) {
		t.Helper()
		if got, text, _ := post(t, server.URL, path, body, "api-key", key); got != status || !strings.Contains(text, want) {
			t.Errorf("%s %s: %d %s", path, body, got, text)
		}
	}
	f(chatPath, chatBody, "wrong", 401, "Access denied")
	f("/openai/deployments/gpt-4o/chat/completions", chatBody, "right", 404, "Resource not found")
	f("/openai/deployments/no-such/chat/completions?api-version=2024-10-21", chatBody, "right", 404, "DeploymentNotFound")
	f("/openai/v1/chat/completions", `{"model":"no-such"}`, "right", 404, "DeploymentNotFound")
	f("/openai/deployments/gpt-4o/chat/completions?api-version=2023-05-15", streamed(`,"stream_options":{"include_usage":true}`), "right", 400, "stream_options")
	f(chatPath, streamed(`,"data_sources":[{}],"stream_options":{"include_usage":true}`), "right", 400, "stream_options")
	f("/openai/v1/responses", `{"model":"gpt-4o","input":"x","stream":true,"stream_options":{"include_usage":true}}`, "right", 400, "unknown_parameter")
	f("/openai/v1/responses", `{"model":"gpt-4o","input":"x","previous_response_id":"resp_x"}`, "right", 404, "previous_response_not_found")
	f(chatPath, `{`, "right", 400, "JSON")
	f("/openai/v1/images/variations", `{}`, "right", 404, "")
	if got, text, _ := post(t, server.URL, chatPath, chatBody, "api-key", "right", "x-simulator-fault", "nonsense"); got != 400 {
		t.Errorf("unknown fault: %d %s", got, text)
	}
}

func TestBillIsExact(t *testing.T) {
	s, server := newServer(t, simulator.Options{})
	for i := range 3 {
		if status, text, _ := post(t, server.URL, chatPath, fmt.Sprintf(`{"messages":[],"user":"%d","max_tokens":7}`, i), "x-simulator-completion-tokens", "7"); status != 200 {
			t.Fatal(text)
		}
	}
	b := s.Bill()
	var sum int64
	for _, line := range b.Lines {
		if line.CostNano != line.PromptTokens*2500+line.CompletionTokens*10_000 || line.CompletionTokens != 7 {
			t.Errorf("line %+v", line)
		}
		sum += line.CostNano
	}
	if b.Entries != 3 || b.CostNano != sum || sum == 0 {
		t.Errorf("bill %+v", b)
	}
}

func TestSettingsRoute(t *testing.T) {
	_, server := newServer(t, simulator.Options{})
	if status, text, _ := post(t, server.URL, "/_simulator/settings", `{"fault":"500"}`); status != 204 {
		t.Errorf("%d %s", status, text)
	}
	if status, _, _ := post(t, server.URL, chatPath, chatBody); status != 500 {
		t.Errorf("the setting does not work: %d", status)
	}
	if status, _, _ := post(t, server.URL, "/_simulator/settings", `{"faults":"500"}`); status != 400 {
		t.Errorf("an unknown setting is taken: %d", status)
	}
}

func keysOf(value any, path string, into map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			into[path+"."+name] = true
			keysOf(member, path+"."+name, into)
		}
	case []any:
		for _, element := range v {
			keysOf(element, path+"[]", into)
		}
	}
}

// TestShapesAreAzures compares the members of an answer with a recorded one. The
// reference data is not part of the repository.
func TestShapesAreAzures(t *testing.T) {
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set: the recorded answers are not here")
	}
	_, server := newServer(t, simulator.Options{})
	f := func(file, path, body string, except ...string) {
		t.Helper()
		recorded, err := os.ReadFile(filepath.Join(dir, "recorded", file))
		if err != nil {
			t.Fatal(err)
		}
		_, text, err := post(t, server.URL, path, body)
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if json.Unmarshal(recorded, &want) != nil || json.Unmarshal([]byte(text), &got) != nil {
			t.Fatalf("%s: not JSON: %s", file, text)
		}
		wanted, have := map[string]bool{}, map[string]bool{}
		keysOf(want, "", wanted)
		keysOf(got, "", have)
		for key := range wanted {
			if !have[key] && !slices.ContainsFunc(except, func(e string) bool { return strings.HasPrefix(key, e) }) {
				t.Errorf("%s has %s, the simulator has not", file, key)
			}
		}
	}
	f("azure-chat-gpt41mini.json", "/openai/deployments/gpt-4.1-mini/chat/completions?api-version=2024-10-21", chatBody,
		".prompt_filter_results[].content_filter_results.jailbreak", ".choices[].content_filter_results.protected")
	f("azure-embeddings.json", "/openai/deployments/text-embedding-ada-002/embeddings?api-version=2024-10-21", `{"input":"x"}`)
	f("azure-completions-legacy.json", "/openai/deployments/gpt-35-turbo-instruct/completions?api-version=2024-10-21", `{"prompt":"x"}`,
		".prompt_filter_results[].content_filter_results", ".choices[].content_filter_results")
}
