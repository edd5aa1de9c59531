package proxy_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// TestNullsAreReplaced: what upstream gets never has a member twice.
func TestNullsAreReplaced(t *testing.T) {
	f := func(path, body, want string, change func(p *quota.Product)) {
		t.Helper()
		b := newBench(t, change, nil)
		b.answers(200, chatAnswer)
		b.do("POST", path, body)
		sent := b.requests()[0].body
		decoder, names := json.NewDecoder(strings.NewReader(sent)), map[string]int{}
		_, _ = decoder.Token()
		for decoder.More() {
			name, err := decoder.Token()
			var value json.RawMessage
			if err != nil || decoder.Decode(&value) != nil {
				t.Fatalf("sent %s", sent)
			}
			names[name.(string)]++
		}
		for name, n := range names {
			if n > 1 {
				t.Errorf("%s: %q is sent %d times: %s", body, name, n, sent)
			}
		}
		if !strings.Contains(sent, want) {
			t.Errorf("%s: sent %s, want %s in it", body, sent, want)
		}
	}
	few := func(p *quota.Product) { p.MaxOutputTokens = 50 }
	const chat, responses = "/openai/v1/chat/completions", "/openai/v1/responses"
	f(chat, `{"model":"gpt-4o","messages":[],"max_completion_tokens":null}`, `"max_completion_tokens":50`, few)
	f(chat, `{"model":"gpt-4o","messages":[],"max_tokens":null}`, `"max_completion_tokens":50`, few)
	f(chat, `{"model":"gpt-4o","messages":[],"stream":true,"stream_options":null}`, `"stream_options":{"include_usage":true}`, few)
	f(responses, `{"max_output_tokens": null ,"model":"gpt-4o","input":"x"}`, `"max_output_tokens": 50 ,`, few)
	f(responses, `{"model":"gpt-4o","input":"x","max_tool_calls":null,"tools":[{"type":"web_search"}],"max_output_tokens":5}`, `"max_tool_calls":10`, rich)
	f(responses, `{"model":"gpt-4o","input":"x","tools":[{"type":"web_search"}],"max_output_tokens":5}`, `"max_tool_calls":10`, rich)
	f(responses, `{"model":"gpt-4o","input":"x","max_tool_calls":300,"tools":[{"type":"web_search"}],"max_output_tokens":5}`, `"max_tool_calls":300`, rich)
}

// TestLimitOfAnotherOperation: a limit that the operation does not know limits nothing.
func TestLimitOfAnotherOperation(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Budget = 10_000_000 }, nil)
	b.answers(200, chatAnswer)
	b.do("POST", "/openai/v1/chat/completions", `{"model":"gpt-4o","messages":[],"max_output_tokens":1}`)
	if sent := b.requests()[0].body; !strings.Contains(sent, `"max_completion_tokens":9`) {
		t.Errorf("sent %s", sent)
	}
}

// TestEchoedDeployment: Responses name the deployment as their model, which must
// not be taken for another model of that name.
func TestEchoedDeployment(t *testing.T) {
	b := newBench(t, rich, deployments(nil, `{"gpt-35-turbo":{"model":"gpt-5.5-pro"},"prod":{"model":"gpt-4o-mini"}}`))
	f := func(deployment, model string, cost int64) {
		t.Helper()
		b.answers(200, `{"id":"resp_`+deployment+`","status":"queued","model":"`+deployment+`","usage":null}`)
		b.do("POST", "/openai/v1/responses", `{"model":"`+deployment+`","input":"x","background":true,"max_output_tokens":1000}`)
		b.answers(200, `{"id":"resp_`+deployment+`","status":"completed","model":"`+deployment+`","usage":{"input_tokens":10,"output_tokens":10}}`)
		answer, got := b.do("GET", "/openai/v1/responses/resp_"+deployment, "")
		r := b.records()[0]
		if answer.StatusCode != 200 || r.Rev != 2 || string(r.Model) != model || r.CostNanoUSD.N != cost {
			t.Errorf("%s: %d %s: revision %d, model %s, cost %d; want %s, %d", deployment, answer.StatusCode, got, r.Rev, r.Model, r.CostNanoUSD.N, model, cost)
		}
	}
	f("gpt-35-turbo", "gpt-5.5-pro", 10*30_000+10*180_000)
	b.ledger.Tick()
	f("prod", "gpt-4o-mini", 10*150+10*600)
}

// TestFormsAreClear: a part whose name another parser could read otherwise is refused.
func TestFormsAreClear(t *testing.T) {
	b := newBench(t, rich, nil)
	b.answersAs("application/json", `{"data":[],"usage":{"input_tokens":1,"output_tokens":1}}`)
	f := func(status int, code, disposition string) {
		t.Helper()
		body := "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-image-1\r\n--x\r\n" + disposition + "\r\n\r\n10\r\n--x--\r\n"
		answer, got := b.do("POST", "/openai/v1/images/edits", body, "Content-Type", "multipart/form-data; boundary=x")
		if answer.StatusCode != status || status != 200 && errorCode(t, got) != code {
			t.Errorf("%s: %d %s; want %d %s", disposition, answer.StatusCode, got, status, code)
		}
	}
	f(200, "", `Content-Disposition: form-data; name="n"`)
	f(200, "", `content-disposition: form-data; name="image[]"; filename*=utf-8''a.png`)
	f(400, "invalid_body", `Content-Disposition: form-data; name="a"; name="n"`)
	f(400, "invalid_body", `Content-Disposition: form-data; name=n; x`)
	f(400, "invalid_body", `Content-Disposition: form-data; name="n"; name*=utf-8''a`)
	f(400, "invalid_body", `Content-Disposition: form-data; name*=utf-8''n`)
	f(400, "invalid_body", `Content-Disposition: attachment; name="n"`)
	f(400, "invalid_body", "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"n\"")
	f(400, "invalid_body", `Content-Type: text/plain`)
	f(400, "invalid_value", "Content-Disposition: form-data; name=\"n\"\r\nContent-Transfer-Encoding: base64")
	r, _ := http.NewRequest("POST", b.gateway.URL+"/openai/v1/images/edits", strings.NewReader("x"))
	r.Header = http.Header{"Api-Key": {productKey}, "Content-Type": {"multipart/form-data; boundary=x", "multipart/form-data; boundary=y"}}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if answer.StatusCode != 400 || errorCode(t, string(got)) != "invalid_header" {
		t.Errorf("two content types: %d %s", answer.StatusCode, got)
	}
}

func TestTranscriptionNeedsItsSound(t *testing.T) {
	b := newBench(t, rich, nil)
	b.answersAs("application/json", `{"text":"x"}`)
	const path = "/openai/v1/audio/transcriptions"
	f := func(body, kind string, status int) {
		t.Helper()
		if answer, got := b.do("POST", path, body, "Content-Type", kind); answer.StatusCode != status || status == 400 && errorCode(t, got) != "missing_file" {
			t.Errorf("%.40q: %d %s", body, answer.StatusCode, got)
		}
	}
	f(`{"model":"whisper-1","file":"https://example.com/a"}`, "application/json", 400)
	f(`{"model":"whisper-1"}`, "text/plain", 400)
	body, kind := form("model", "whisper-1")
	f(body, kind, 400)
	body, kind = form("model", "whisper-1", "file", wav(60_000)) // no file name, but sound
	f(body, kind, 200)
	if r := b.oneRecord(); r.CostNanoUSD != usage.Of(6_000_000) {
		t.Errorf("a minute costs %d", r.CostNanoUSD.N)
	}
	// Parts that decide nothing may be long and may come again.
	body, kind = form("model", "whisper-1", "@file", wav(10), "known_speaker_references[]", strings.Repeat("x", 2<<20),
		"timestamp_granularities[]", "word", "timestamp_granularities[]", "segment")
	f(body, kind, 200)
}

// TestToolTypes: the type of a tool is there once, in one spelling.
func TestToolTypes(t *testing.T) {
	b := newBench(t, rich, nil)
	b.answers(200, chatAnswer)
	f := func(tools string, status int, code string) {
		t.Helper()
		answer, got := b.do("POST", "/openai/v1/responses", `{"model":"gpt-4o","input":"x","max_output_tokens":5,"tools":`+tools+`}`)
		if answer.StatusCode != status || status != 200 && errorCode(t, got) != code {
			t.Errorf("%s: %d %s; want %d %s", tools, answer.StatusCode, got, status, code)
		}
	}
	f(`[{"type":"function","name":"f"},{"type":"web_search"}]`, 200, "")
	f(`[]`, 200, "")
	f(`[{"type":"image_generation","type":"function"}]`, 400, "duplicate_field")
	f(`[{"type":"image_generation","Type":"function"}]`, 400, "duplicate_field")
	f(`[{"TYPE":"function"}]`, 400, "unknown_field")
	f(`[{"ty\u0070e":"image_generation"}]`, 403, "operation_not_priced")
	f(`[{"type":7}]`, 400, "invalid_value")
	f(`[7]`, 400, "invalid_value")
	f(`{"type":"function"}`, 400, "invalid_value")
	f("["+strings.TrimSuffix(strings.Repeat(`{"type":"function"},`, 1024), ",")+"]", 200, "")
	f("["+strings.TrimSuffix(strings.Repeat(`{"type":"function"},`, 1025), ",")+"]", 400, "invalid_value")
}

// TestHiddenInputBehindAResponse: a file counts as the whole context, also behind
// a response whose tokens are known; so does a response of another model.
func TestHiddenInputBehindAResponse(t *testing.T) {
	b := newBench(t, rich, nil)
	b.answers(200, `{"id":"resp_1","status":"completed","model":"gpt-4o","usage":{"input_tokens":10,"output_tokens":5}}`)
	const path, context = "/openai/v1/responses", 128_000 * 2500
	b.do("POST", path, `{"model":"gpt-4o","input":"x","max_output_tokens":50}`)
	f := func(more string, whole bool) {
		t.Helper()
		answer, _ := b.do("POST", path, `{"max_output_tokens":50,"previous_response_id":"resp_1",`+more+`}`)
		if hold := b.recordOf(answer).HoldNanoUSD.N; (hold >= context) != whole && !strings.Contains(more, "mini") || hold < 500_000 && !whole {
			t.Errorf("%s: hold %d", more, hold)
		}
	}
	f(`"model":"gpt-4o","input":"y"`, false)
	f(`"model":"gpt-4o","input":[{"role":"user","content":[{"type":"input_file","file_data":"data:application/pdf;base64,AAAA"}]}]`, true)
	f(`"model":"gpt-4o","input":[{"type":"item_reference","id":"msg_1"}]`, true)
	f(`"model":"gpt-4o","input":[{"role":"user","content":[{"type":"input_file","file\u005fid":"file-1"}]}]`, true)
	answer, _ := b.do("POST", path, `{"model":"gpt-4o-mini","input":"y","max_output_tokens":50,"previous_response_id":"resp_1"}`)
	if hold := b.recordOf(answer).HoldNanoUSD.N; hold < 128_000*150 {
		t.Errorf("another model: hold %d", hold)
	}
	answer, _ = b.do("POST", "/openai/v1/chat/completions", `{"model":"gpt-audio","max_tokens":50,"messages":[{"role":"assistant","audio":{"id":"audio_1"}},{"role":"user","content":"y"}]}`)
	if hold := b.recordOf(answer).HoldNanoUSD.N; hold < 128_000*2500 {
		t.Errorf("an earlier spoken answer: hold %d", hold)
	}
}

// TestLimitsUnknown: of a model whose limits nobody knows the client's is
// believed, and one is put in where it gives none.
func TestLimitsUnknown(t *testing.T) {
	book, err := pricing.Parse([]byte(`{"prices":[{"model":"m","pico_usd":{"in":1000000,"out":10000000}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, rich, deployments(book, ""))
	b.answers(200, chatAnswer)
	answer, _ := b.do("POST", "/openai/v1/chat/completions", `{"model":"m","messages":[],"max_completion_tokens":100000}`)
	if hold := b.recordOf(answer).HoldNanoUSD.N; hold < 1_000_000_000 {
		t.Errorf("hold %d", hold)
	}
	b.do("POST", "/openai/v1/chat/completions", `{"model":"m","messages":[]}`)
	if sent := b.requests()[1].body; !strings.Contains(sent, `"max_completion_tokens":16384`) {
		t.Errorf("sent %s", sent)
	}
}

// TestHoldLearnsWhatServes: a deployment that answers as a dearer version, or in
// the priority tier unasked, is held for by that from then on.
func TestHoldLearnsWhatServes(t *testing.T) {
	b := newBench(t, rich, nil)
	f := func(model, tier string, held int64) {
		t.Helper()
		b.answersWith(model, tier)
		answer, _ := b.do("POST", "/openai/v1/chat/completions", `{"model":"gpt-4o","messages":[],"max_tokens":1000}`)
		if r := b.recordOf(answer); r.HoldNanoUSD.N/1000/1000 != held {
			t.Errorf("%s %s: hold %d, want %d", model, tier, r.HoldNanoUSD.N, held)
		}
	}
	f("gpt-4o-2024-11-20", "default", 10)
	f("gpt-4o-2024-05-13", "default", 10) // nobody could know
	f("gpt-4o-2024-05-13", "default", 16)
	f("gpt-4o-2024-11-20", "priority", 16)
	f("gpt-4o-2024-11-20", "default", 33)
}

// TestLargeImageFits: a picture is held for as an image, and never for more than
// the model can read.
func TestLargeImageFits(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Budget = 5e9 }, nil)
	b.answers(200, chatAnswer)
	body := `{"max_tokens":50,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/jpeg;base64,` + strings.Repeat("A", 6<<20) + `"}}]}]}`
	answer, got := b.chat(body)
	if answer.StatusCode != 200 {
		t.Fatalf("%d %s", answer.StatusCode, got)
	}
	if r := b.oneRecord(); r.HoldNanoUSD.N > 128_000*2500+50*10_000 {
		t.Errorf("hold %d", r.HoldNanoUSD.N)
	}
}

// TestCrowdedBody: a body of nothing but brackets is not decoded.
func TestCrowdedBody(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answers(200, chatAnswer)
	body := `{"max_tokens":5,"x":"file","messages":[` + strings.TrimSuffix(strings.Repeat("[],", 1<<20), ",") + `]}`
	if n := testing.AllocsPerRun(1, func() { b.chat(body) }); n > 50_000 {
		t.Errorf("%v allocations", n)
	}
}

// TestErrorInPlaceOfAnAnswer: a stream that is nothing but an error costs nothing.
func TestErrorInPlaceOfAnAnswer(t *testing.T) {
	f := func(stream string, cost bool, outcome, source string) {
		t.Helper()
		b := newBench(t, nil, nil)
		b.streams(1000, stream)
		b.do("POST", "/openai/v1/chat/completions", `{"model":"gpt-4o","messages":[],"max_tokens":50,"stream":true}`)
		if r := b.oneRecord(); (r.CostNanoUSD.N > 0) != cost || string(r.Outcome) != outcome || string(r.UsageSource) != source {
			t.Errorf("%.80s: cost %d, %s, %s", stream, r.CostNanoUSD.N, r.Outcome, r.UsageSource)
		}
	}
	const said = `{"choices":[{"delta":{"content":"Hi there"},"index":0}],"id":"c","model":"gpt-4o"}`
	f(sse(`{"error":{"code":"429","message":"slow down"}}`), false, "upstream_error", "none")
	f(sse(said, `{"error":{"code":"server_error"}}`), true, "upstream_error", "estimate")
	f(sse(said), true, "upstream_error", "estimate") // it ends without an end
	f(sse(said, "[DONE]"), true, "completed", "tokenizer")
}

// TestRouterThinks: the model that served decides whether its thoughts are hidden.
func TestRouterThinks(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Ms-Served-Model", "gpt-5-2025-08-07")
		_, _ = io.WriteString(w, sse(`{"choices":[{"delta":{"content":"Hi"},"index":0}],"id":"c","model":"gpt-5-2025-08-07"}`, "[DONE]"))
	}
	b.do("POST", "/openai/v1/chat/completions", `{"model":"gpt-4o","messages":[],"max_tokens":50,"stream":true}`)
	if r := b.oneRecord(); r.CostNanoUSD != r.HoldNanoUSD || r.UsageSource != "estimate" {
		t.Errorf("cost %d of %d, %s", r.CostNanoUSD.N, r.HoldNanoUSD.N, r.UsageSource)
	}
}

// TestTokenBudgetOfPieces: what is sold by the piece takes the hold from a budget
// of tokens, never nothing.
func TestTokenBudgetOfPieces(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Unit, p.Budget = quota.UnitTokens, 1e9 }, nil)
	b.answersAs("application/json", `{"data":[{"b64_json":"AA"}],"quality":"low","size":"1024x1024"}`)
	b.do("POST", "/openai/v1/images/generations", `{"model":"gpt-image-1","prompt":"a cat","quality":"low","size":"1024x1024"}`)
	if r := b.oneRecord(); r.Charge.N < 272 || r.UsageSource != "estimate" || r.CostNanoUSD != usage.Of(11_000_000) {
		t.Errorf("charge %d tokens, %s, cost %d", r.Charge.N, r.UsageSource, r.CostNanoUSD.N)
	}
}

// TestProvisionedCut: what capacity that is paid by the hour broke off costs nothing.
func TestProvisionedCut(t *testing.T) {
	b := newBench(t, rich, deployments(nil, `{"ptu":{"model":"gpt-5","sku":"GlobalProvisionedManaged"}}`))
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("X-Ms-Is-Spilled-Over", "false")
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = fmt.Fprint(w, `{"id":"c"`)
	}
	b.do("POST", "/openai/v1/chat/completions", `{"model":"ptu","messages":[]}`)
	if r := b.oneRecord(); r.CostNanoUSD.N != 0 || !strings.HasSuffix(string(r.PriceKey), "/hourly") {
		t.Errorf("cost %d by %s", r.CostNanoUSD.N, r.PriceKey)
	}
}

// TestContextExceeded: a prompt that is too long is charged up to what the model reads.
func TestContextExceeded(t *testing.T) {
	b := newBench(t, rich, nil)
	b.answers(400, `{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`)
	b.chat(`{"max_tokens":5,"messages":[{"role":"user","content":"` + strings.Repeat("hello ", 300_000) + `"}]}`)
	if r := b.oneRecord(); r.PromptTokens != usage.Of(128_000) || r.CostNanoUSD != usage.Of(128_000*2500) {
		t.Errorf("%d tokens, %d", r.PromptTokens.N, r.CostNanoUSD.N)
	}
}

func TestSpokenPCM(t *testing.T) {
	b := newBench(t, rich, nil)
	b.answersAs("audio/pcm", strings.Repeat("\x00", 480_000)) // ten seconds
	b.charged("/openai/v1/audio/speech", `{"model":"gpt-4o-mini-tts","voice":"alloy","response_format":"pcm","input":"`+strings.Repeat("Say this. ", 20)+`"}`, 61*2500+208*12000, "estimate", "")
}
