package proxy_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// TestRecordedAnswers sends real answers through the data path: their bytes
// arrive as they are, and each leaves one record. The reference data is not part
// of the repository; COSTGATE_TESTDATA says where it is.
func TestRecordedAnswers(t *testing.T) {
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set: the recorded answers are not here")
	}
	f := func(file string, status int, path, body, source, outcome string, cost int64) {
		t.Helper()
		recorded, err := os.ReadFile(filepath.Join(dir, "recorded", file))
		if err != nil {
			t.Fatal(err)
		}
		b := newBench(t, func(p *quota.Product) { p.Budget = 1e12 }, nil)
		random := rand.New(rand.NewPCG(1, uint64(len(recorded))))
		whole := true
		b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Type", "application/json")
			if strings.HasSuffix(file, ".sse") {
				w.Header().Set("Content-Type", "text/event-stream")
			}
			w.WriteHeader(status)
			for rest := recorded; len(rest) > 0; {
				n := len(rest)
				if !whole {
					n = 1 + random.IntN(max(1, n/8))
				}
				_, _ = w.Write(rest[:n])
				w.(http.Flusher).Flush()
				rest = rest[n:]
			}
		}
		for range 21 { // in one piece, then in random ones
			answer, got := b.do("POST", path, body)
			r := b.recordOf(answer)
			if answer.StatusCode != status || got != string(recorded) || string(r.UsageSource) != source || string(r.Outcome) != outcome ||
				(cost >= 0 && r.CostNanoUSD.N != cost) || (cost < 0 && r.CostNanoUSD.N <= 0) {
				t.Errorf("%s: %d, bytes equal %v, %s, %s, %d; want %s, %s, %d", file, answer.StatusCode, got == string(recorded), r.UsageSource, r.Outcome, r.CostNanoUSD.N, source, outcome, cost)
			}
			reportedTruly(t, file, recorded, &r)
			whole = false
		}
		if n := len(b.records()); n != 21 {
			t.Errorf("%s: %d records of 21 requests", file, n)
		}
	}
	chat := func(model string) string {
		return "/openai/deployments/" + model + "/chat/completions?api-version=2024-10-21"
	}
	const body, asks = `{"messages":[{"role":"user","content":"Hello"}],"max_tokens":50}`, `{"messages":[],"max_tokens":50,"stream":true,"stream_options":{"include_usage":true}}`
	const responses = "/openai/v1/responses"
	f("azure-chat-gpt35-2024.json", 200, chat("gpt-35-turbo"), body, "provider", "completed", 15*500+24*1500)
	f("azure-chat-reasoning-gpt5nano.json", 200, chat("gpt-5-nano"), body, "provider", "completed", -1)
	f("azure-chat-gpt41mini.json", 200, chat("gpt-4.1-mini"), body, "provider", "completed", -1)
	f("azure-chat-completion-filtered.json", 200, chat("gpt-35-turbo"), body, "provider", "filtered", 15*500+19*1500)
	f("azure-prompt-filtered-400body.json", 400, chat("gpt-4o"), body, "tokenizer", "filtered", -1)
	f("azure-401.json", 401, chat("gpt-4o"), body, "none", "upstream_error", 0)
	f("azure-404-deploymentnotfound.json", 404, chat("gpt-4o"), body, "none", "upstream_error", 0)
	f("azure-chat-stream-usage-gpt52.sse", 200, chat("gpt-5.2"), asks, "provider", "completed", -1)
	f("azure-chat-stream-nousage-gpt35.sse", 200, chat("gpt-35-turbo"), asks, "tokenizer", "completed", -1)
	f("azure-chat-stream-gpt4omini-old-api.sse", 200, chat("gpt-4o-mini"), asks, "tokenizer", "completed", -1)
	f("azure-chat-stream-asyncfilter-blocked.sse", 200, chat("gpt-35-turbo"), asks, "tokenizer", "filtered", -1)
	f("azure-chat-stream-asyncfilter-passes.sse", 200, chat("gpt-35-turbo"), asks, "tokenizer", "completed", -1)
	f("azure-embeddings.json", 200, "/openai/deployments/text-embedding-ada-002/embeddings?api-version=2024-10-21", `{"input":"x"}`, "provider", "completed", -1)
	f("openai-embedding-token-arrays.json", 200, "/openai/v1/embeddings", `{"model":"text-embedding-ada-002","input":[[1,2]]}`, "provider", "completed", -1)
	f("azure-completions-legacy.json", 200, "/openai/deployments/gpt-35-turbo-instruct/completions?api-version=2024-10-21", `{"prompt":"x"}`, "provider", "completed", -1)
	f("azure-responses-gpt-5.4.json", 200, responses, `{"model":"gpt-5.4","input":"x"}`, "provider", "completed", -1)
	f("azure-responses-gpt-5.6-sol.json", 200, responses, `{"model":"gpt-5.6-sol","input":"x"}`, "provider", "completed", -1)
	f("openai-responses-stream.sse", 200, responses, `{"model":"gpt-4o","input":"x","stream":true}`, "provider", "completed", -1)
	f("openai-responses-stream-incomplete.sse", 200, responses, `{"model":"gpt-4o","input":"x","stream":true}`, "tokenizer", "completed", -1)
	f("openai-chat-cachewrite-gpt56.json", 200, chat("gpt-5.6-sol"), body, "provider", "completed", -1)
	f("openai-chat-service-tier-priority.json", 200, chat("gpt-5"), body, "provider", "completed", -1)
}

// reportedTruly reads usage, model and tier out of a recorded answer in the
// plainest way, and holds a record against it.
func reportedTruly(t *testing.T, file string, recorded []byte, r *usage.Record) {
	t.Helper()
	type object struct {
		Model string `json:"model"`
		Tier  string `json:"service_tier"`
		Usage *struct {
			Prompt     int64 `json:"prompt_tokens"`
			Input      int64 `json:"input_tokens"`
			Completion int64 `json:"completion_tokens"`
			Output     int64 `json:"output_tokens"`
		} `json:"usage"`
	}
	var last object
	take := func(data []byte) {
		var o struct {
			object
			Response *object `json:"response"`
		}
		if json.Unmarshal(data, &o) != nil {
			return
		}
		if o.Response != nil {
			o.object = *o.Response
		}
		if o.Model != "" {
			last.Model = o.Model
		}
		if o.Tier != "" {
			last.Tier = o.Tier
		}
		if u := o.Usage; u != nil && u.Prompt+u.Input > 0 {
			last.Usage = u
		}
	}
	if strings.HasSuffix(file, ".sse") {
		for line := range strings.Lines(string(recorded)) {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				take([]byte(data))
			}
		}
	} else {
		take(recorded)
	}
	if (last.Model != "" && string(r.Model) != last.Model) || string(r.ServiceTier) != last.Tier {
		t.Errorf("%s: model %q, tier %q; want %q, %q", file, r.Model, r.ServiceTier, last.Model, last.Tier)
	}
	if u := last.Usage; u != nil && (r.PromptTokens.N != u.Prompt+u.Input || r.CompletionTokens.N != u.Completion+u.Output) {
		t.Errorf("%s: %d and %d tokens; want %+v", file, r.PromptTokens.N, r.CompletionTokens.N, u)
	}
}

// TestRecordedHolds sends every recorded chat and lets upstream answer with what
// Azure billed: the hold covers it, be it bounded by bytes or counted.
func TestRecordedHolds(t *testing.T) {
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set: the recorded answers are not here")
	}
	var golden struct {
		Vectors []struct {
			Model   string
			Source  string
			Request map[string]json.RawMessage
			Usage   json.RawMessage
			Content string
			Calls   []struct{ Name, Args string } `json:"tool_calls"`
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "recorded", "golden-chat-usage.json"))
	if err == nil {
		err = json.Unmarshal(data, &golden)
	}
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(p *quota.Product) { p.Budget = 1e15; p.UnknownPrice = quota.UnknownMax }, nil)
	tight := newBench(t, func(p *quota.Product) { p.Budget = 4e9; p.UnknownPrice = quota.UnknownMax }, nil)
	var billed, estimated int64
	for _, v := range golden.Vectors {
		delete(v.Request, "stream_options")
		v.Request["stream"] = json.RawMessage("false")
		v.Request["model"], _ = json.Marshal(v.Model)
		body, _ := json.Marshal(v.Request)
		for _, b := range []*bench{b, tight} {
			b.answers(200, `{"id":"c","model":"`+v.Model+`","choices":[],"usage":`+string(v.Usage)+`}`)
			answer, got := b.do("POST", "/openai/v1/chat/completions", string(body))
			if answer.StatusCode == 429 && b == tight { // it used its budget up
				continue
			}
			if answer.StatusCode != 200 {
				t.Errorf("%s: %d %s", v.Source, answer.StatusCode, got)
				continue
			}
			if r := b.recordOf(answer); r.CostNanoUSD.N > r.HoldNanoUSD.N || r.CostNanoUSD.N == 0 {
				t.Errorf("%s, %s: the hold %d does not cover %d", v.Source, v.Model, r.HoldNanoUSD.N, r.CostNanoUSD.N)
			}
		}
	}
	for _, v := range golden.Vectors {
		body, _ := json.Marshal(v.Request)
		if v.Content == "" && len(v.Calls) == 0 { // the vectors leave out what it said
			continue
		}
		content, _ := json.Marshal(v.Content)
		var calls []string
		for _, c := range v.Calls {
			args, _ := json.Marshal(c.Args)
			calls = append(calls, `{"type":"function","function":{"name":"`+c.Name+`","arguments":`+string(args)+`}}`)
		}
		message := func(rest string) string {
			return `{"id":"c","model":"` + v.Model + `","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":` +
				string(content) + `,"tool_calls":[` + strings.Join(calls, ",") + `]}}]` + rest + `}`
		}
		b.answers(200, message(`,"usage":`+string(v.Usage)))
		answer, _ := b.do("POST", "/openai/v1/chat/completions", string(body))
		truth := b.recordOf(answer)
		b.answers(200, message(""))
		answer, _ = b.do("POST", "/openai/v1/chat/completions", string(body))
		guess := b.recordOf(answer)
		if guess.CostNanoUSD == guess.HoldNanoUSD { // it thinks: nothing but the hold is sure to cover it
			continue
		}
		t.Logf("%s %s %d/%d %d/%d", v.Model, v.Source, truth.PromptTokens.N, guess.PromptTokens.N, truth.CompletionTokens.N, guess.CompletionTokens.N)
		billed, estimated = billed+truth.CostNanoUSD.N, estimated+guess.CostNanoUSD.N
	}
	t.Logf("estimated %d, billed %d", estimated, billed)
	if off := estimated - billed; off*100 > billed || off*100 < -billed || billed == 0 {
		t.Errorf("estimated %d, billed %d: more than 1 %% off", estimated, billed)
	}
	if n := len(b.records()); n < 70 {
		t.Errorf("%d chats", n)
	}
}
