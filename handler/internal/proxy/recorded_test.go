package proxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/quota"
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
		b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Type", "application/json")
			if strings.HasSuffix(file, ".sse") {
				w.Header().Set("Content-Type", "text/event-stream")
			}
			w.WriteHeader(status)
			_, _ = w.Write(recorded)
		}
		answer, got := b.do("POST", path, body)
		r := b.oneRecord()
		if answer.StatusCode != status || got != string(recorded) || string(r.UsageSource) != source || string(r.Outcome) != outcome ||
			(cost >= 0 && r.CostNanoUSD.N != cost) || (cost < 0 && r.CostNanoUSD.N <= 0) {
			t.Errorf("%s: %d, bytes equal %v, %s, %s, %d; want %s, %s, %d", file, answer.StatusCode, got == string(recorded), r.UsageSource, r.Outcome, r.CostNanoUSD.N, source, outcome, cost)
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
