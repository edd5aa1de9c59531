package simulator_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/simulator"
)

const responsesPath = "/openai/v1/responses"

func ask(t *testing.T, method, url string) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	var object map[string]any
	if err := json.Unmarshal(body, &object); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return answer.StatusCode, object
}

func TestBackground(t *testing.T) {
	s, server := newServer(t, simulator.Options{})
	_, text, _ := post(t, server.URL, responsesPath, `{"model":"gpt-4o","input":"x","background":true}`, "x-simulator-background-polls", "2")
	wants(t, "post", text, `"status":"queued"`, `"usage":null`, `"background":true`, `"service_tier":"auto"`)
	l := billed(t, s)
	for _, want := range []string{"in_progress", "in_progress", "completed", "completed"} {
		_, got := ask(t, http.MethodGet, server.URL+responsesPath+"/"+l.ID)
		if got["status"] != want || (got["usage"] != nil) != (want == "completed") || got["id"] != l.ID {
			t.Errorf("want %s: %v", want, got)
		}
	}
	if status, got := ask(t, http.MethodPost, server.URL+responsesPath+"/"+l.ID+"/cancel"); status != 200 || got["status"] != "completed" {
		t.Errorf("cancel too late: %d %v", status, got)
	}
	_, got := ask(t, http.MethodGet, server.URL+responsesPath+"/"+l.ID+"/input_items")
	wants(t, "input items", fmt.Sprint(got), "input_text", "text:x", "has_more:false")
	if billed(t, s).CompletionTokens == 0 {
		t.Error("not billed")
	}
}

func TestBackgroundCancelled(t *testing.T) {
	s, server := newServer(t, simulator.Options{})
	_, _, _ = post(t, server.URL, responsesPath, `{"model":"gpt-4o","input":[{"role":"user","content":"x"}],"background":true}`)
	before := billed(t, s)
	for range 2 {
		if status, got := ask(t, http.MethodPost, server.URL+responsesPath+"/"+before.ID+"/cancel"); status != 200 || got["status"] != "cancelled" || got["usage"] != nil {
			t.Errorf("%d %v", status, got)
		}
	}
	if _, got := ask(t, http.MethodGet, server.URL+responsesPath+"/"+before.ID); got["status"] != "cancelled" {
		t.Errorf("%v", got)
	}
	if l := billed(t, s); l.Outcome != "cancelled" || l.CompletionTokens != 0 || l.CostNano != l.PromptTokens*2500 || before.CompletionTokens == 0 {
		t.Errorf("line %+v", l)
	}
}

func TestBackgroundRefusalsAndStream(t *testing.T) {
	s, server := newServer(t, simulator.Options{})
	if status, _, _ := post(t, server.URL, responsesPath, `{"model":"gpt-4o","input":"x","background":true,"store":false}`); status != 400 {
		t.Errorf("not stored: %d", status)
	}
	_, stream, _ := post(t, server.URL, responsesPath, `{"model":"gpt-4o","input":"x","background":true,"stream":true}`)
	names, last := typed(t, stream)
	if got := strings.Join(names, " "); !strings.HasPrefix(got, "response.created response.queued response.in_progress response.output_item.added ") || last["type"] != "response.completed" {
		t.Errorf("events %s", got)
	}
	id := billed(t, s).ID
	if _, got := ask(t, http.MethodGet, server.URL+responsesPath+"/"+id); got["status"] != "completed" {
		t.Errorf("%v", got)
	}
	_, _, err := post(t, server.URL, responsesPath, `{"model":"gpt-4o","input":"y","background":true,"stream":true}`, "x-simulator-fault", "cut", "x-simulator-cut-after", "1")
	if l := s.Bill().Lines[1]; err == nil || l.Outcome != "completed" || l.CompletionTokens < 2 {
		t.Errorf("cut: %v %+v", err, l)
	}
	_, _, _ = post(t, server.URL, responsesPath, `{"model":"gpt-4o","input":"z"}`)
	if status, _ := ask(t, http.MethodPost, server.URL+responsesPath+"/"+s.Bill().Lines[2].ID+"/cancel"); status != 400 {
		t.Errorf("cancel of what is not in the background: %d", status)
	}
	if status, _ := ask(t, http.MethodPost, server.URL+responsesPath+"/resp_x/cancel"); status != 404 {
		t.Errorf("cancel of nothing: %d", status)
	}
}

func TestTools(t *testing.T) {
	f := func(tools, more, calls string, items map[string]int64, output ...string) {
		t.Helper()
		for _, stream := range []string{"", `,"stream":true`} {
			s, server := newServer(t, simulator.Options{})
			_, text, err := post(t, server.URL, responsesPath, `{"model":"gpt-4o","input":"x","tools":[`+tools+`]`+more+stream+`}`, "x-simulator-tool-calls", calls)
			if err != nil {
				t.Fatal(err)
			}
			var whole map[string]any
			if stream == "" {
				_ = json.Unmarshal([]byte(text), &whole)
			} else {
				_, last := typed(t, text)
				whole = last["response"].(map[string]any)
				if added, done := strings.Count(text, "event: response.output_item.added\n"), strings.Count(text, "event: response.output_item.done\n"); added != len(output) || done != added {
					t.Errorf("%s: %d added, %d done", tools, added, done)
				}
			}
			var kinds []string
			for i, item := range whole["output"].([]any) {
				kinds = append(kinds, item.(map[string]any)["type"].(string))
				if stream != "" && !strings.Contains(text, fmt.Sprintf(`"output_index":%d,"item":`, i)) {
					t.Errorf("%s: no item %d in the stream", tools, i)
				}
			}
			l := billed(t, s)
			if fmt.Sprint(kinds) != fmt.Sprint(output) || !reflect.DeepEqual(l.Items, items) {
				t.Errorf("%s%s: output %v, items %v", tools, stream, kinds, l.Items)
			}
			nano := l.PromptTokens*2500 + l.CompletionTokens*10_000
			for meter, n := range items {
				nano += n * price.Items[meter] / 1000
			}
			if l.CostNano != nano {
				t.Errorf("%s: %d, want %d", tools, l.CostNano, nano)
			}
		}
	}
	const search, page, code, files, message = "web_search_call", "web_search_call", "code_interpreter_call", "file_search_call", "message"
	f(`{"type":"web_search"}`, "", "0", map[string]int64{search: 1}, search, message)
	f(`{"type":"web_search_preview"}`, "", "2", map[string]int64{search: 2}, search, search, page, message)
	f(`{"type":"code_interpreter","container":{"type":"auto"}}`, "", "3", map[string]int64{"code_interpreter_session": 1}, code, code, code, message)
	f(`{"type":"file_search","vector_store_ids":["v"]},{"type":"web_search"}`, "", "1", map[string]int64{files: 1, search: 1}, files, search, message)
	f(`{"type":"file_search"},{"type":"web_search"}`, `,"max_tool_calls":1`, "1", map[string]int64{files: 1}, files, message)
	f(`{"type":"web_search"}`, "", "-1", nil, message)
	f(`{"type":"web_search"},{"type":"function","name":"f"}`, `,"tool_choice":"required"`, "1", map[string]int64{search: 1}, search, "function_call")
	f(`{"type":"function","name":"f"}`, "", "1", nil, message)
}

func TestSearchModels(t *testing.T) {
	f := func(model, more string, searches int64) {
		t.Helper()
		for _, stream := range []string{"", `,"stream":true`} {
			s, server := newServer(t, simulator.Options{})
			_, text, _ := post(t, server.URL, "/openai/v1/chat/completions", `{"model":"`+model+`","messages":[]`+more+stream+`}`)
			if got := strings.Contains(text, "url_citation"); got != (searches > 0) || billed(t, s).Items["web_search_call"] != searches {
				t.Errorf("%s%s%s: citations %v, items %v", model, more, stream, got, billed(t, s).Items)
			}
		}
	}
	f("gpt-4o-search-preview", "", 1)
	f("gpt-4o", `,"web_search_options":{}`, 1)
	f("gpt-4o", `,"web_search_options":null`, 0)
}

func TestTierAndSettings(t *testing.T) {
	f := func(body string, header []string, tier string, in int64, headers ...string) {
		t.Helper()
		s, server := newServer(t, simulator.Options{})
		r, _ := http.NewRequest(http.MethodPost, server.URL+chatPath, strings.NewReader(body))
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		wants(t, body, string(text), `"service_tier":"`+tier+`"`)
		for i := 0; i < len(headers); i += 2 {
			if got := answer.Header.Get(headers[i]); got != headers[i+1] {
				t.Errorf("%s: %s: %s", body, headers[i], got)
			}
		}
		l := billed(t, s)
		if l.Tier != tier || l.CostNano != l.PromptTokens*in+l.CompletionTokens*4*in || l.RequestID != answer.Header.Get("Apim-Request-Id") {
			t.Errorf("%s: line %+v", body, l)
		}
	}
	priority := `{"messages":[],"service_tier":"priority"}`
	f(priority, nil, "priority", 5000, "X-Ms-Is-Spilled-Over", "false")
	f(priority, []string{"x-simulator-service-tier", "default"}, "default", 2500)
	f(chatBody, []string{"x-simulator-service-tier", "priority"}, "priority", 5000)
	f(chatBody, []string{"x-simulator-spilled", "true"}, "default", 2500, "X-Ms-Is-Spilled-Over", "true")
	f(chatBody, []string{"x-simulator-served-model", "gpt-5.2-2025-12-11"}, "default", 2500, "X-Ms-Served-Model", "gpt-5.2-2025-12-11")

	_, server := newServer(t, simulator.Options{})
	for _, bad := range []string{"background-polls=-2", "background-polls=101", "tool-calls=101", "service-tier=a\"b", "served-model=a b", "spilled=maybe"} {
		name, value, _ := strings.Cut(bad, "=")
		if status, text, _ := post(t, server.URL, chatPath, chatBody, "x-simulator-"+name, value); status != 400 {
			t.Errorf("%s: %d %s", bad, status, text)
		}
	}
	for _, good := range []string{"background-polls=100", "tool-calls=100", "background-polls=-1"} {
		name, value, _ := strings.Cut(good, "=")
		if status, text, _ := post(t, server.URL, chatPath, chatBody, "x-simulator-"+name, value); status != 200 {
			t.Errorf("%s: %d %s", good, status, text)
		}
	}
}

func TestCacheWrites(t *testing.T) {
	f := func(model string, words int, first, again, write int64) {
		t.Helper()
		s, server := newServer(t, simulator.Options{})
		body := `{"model":"` + model + `","input":"` + strings.Repeat("x ", words) + `"}`
		_, one, _ := post(t, server.URL, responsesPath, body)
		_, two, _ := post(t, server.URL, responsesPath, body)
		if got := strings.Contains(one, `"cache_write_tokens":`); got != strings.HasPrefix(model, "gpt-5.6") {
			t.Errorf("%s: cache_write_tokens there: %v", model, got)
		}
		wants(t, model, two, fmt.Sprintf(`"cached_tokens":%d`, again))
		lines := s.Bill().Lines
		if lines[0].CacheWriteTokens != write || lines[0].CachedTokens != first || lines[1].CachedTokens != again || lines[1].CacheWriteTokens != 0 {
			t.Errorf("%s: lines %+v", model, lines)
		}
		l := lines[0]
		if l.CostNano != (l.PromptTokens-write)*2500+write*3125+l.CompletionTokens*10_000 {
			t.Errorf("%s: line %+v", model, l)
		}
	}
	f("gpt-5.6-sol", 1219, 0, 1152, 1217) // as recorded
	f("gpt-5.6-sol", 1000, 0, 0, 0)
	f("gpt-5.4", 1219, 0, 1152, 0)
}

func TestBillOfLongPromptsAndWithoutPrices(t *testing.T) {
	s, server := newServer(t, simulator.Options{})
	_, _, _ = post(t, server.URL, responsesPath, `{"model":"gpt-4o","input":"`+strings.Repeat("x ", 100_000)+`"}`)
	l := billed(t, s)
	if l.PromptTokens <= 100_000 || l.CostNano != l.PromptTokens*7000+l.CompletionTokens*11_000 {
		t.Errorf("long: %+v", l)
	}
	// Long prompts of priority have no price here.
	_, _, _ = post(t, server.URL, responsesPath, `{"model":"gpt-4o","service_tier":"priority","input":"`+strings.Repeat("x ", 100_000)+`"}`)
	if b := s.Bill(); b.Unpriced != 1 || b.Lines[1].CostNano != 0 {
		t.Errorf("unpriced: %d, %+v", b.Unpriced, b.Lines[1])
	}
}

// TestRequestIDs: no two answers have the same id of the request, though their bodies are the same.
func TestRequestIDs(t *testing.T) {
	s, server := newServer(t, simulator.Options{Seed: 3})
	for range 3 {
		_, _, _ = post(t, server.URL, chatPath, chatBody)
	}
	lines := s.Bill().Lines
	if lines[0].ID != lines[1].ID || lines[0].RequestID == lines[1].RequestID || lines[1].RequestID == lines[2].RequestID || len(lines[0].RequestID) != 32 {
		t.Errorf("%+v", lines)
	}
}
