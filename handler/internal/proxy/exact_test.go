package proxy_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// charged runs one request on a bench and holds what it cost, where that comes
// from, and its price against what is wanted.
func (b *bench) charged(path, body string, cost int64, source, priceKey string, header ...string) usage.Record {
	b.t.Helper()
	before := len(b.records())
	answer, got := b.do("POST", path, body, header...)
	if n := len(b.records()) - before; answer.StatusCode != 200 || n != 1 {
		b.t.Fatalf("%s: %d %s; %d records", path, answer.StatusCode, got, n)
	}
	r := b.recordOf(answer)
	if r.CostNanoUSD != usage.Of(cost) || string(r.UsageSource) != source || !strings.HasPrefix(string(r.PriceKey), priceKey) {
		b.t.Errorf("%s: cost %d from %s by %s; want %d from %s by %s", path, r.CostNanoUSD.N, r.UsageSource, r.PriceKey, cost, source, priceKey)
	}
	if r.HoldNanoUSD.N < cost {
		b.t.Errorf("%s: the hold %d is below the cost %d", path, r.HoldNanoUSD.N, cost)
	}
	return r
}

func deployments(b *pricing.Book, list string) func(*proxy.Options) {
	d, err := pricing.ParseDeployments(list)
	if err != nil {
		panic(err)
	}
	return func(o *proxy.Options) {
		if o.Deployments = d; b != nil {
			o.Book = o.Book.With(b)
		}
	}
}

// answersWith makes upstream answer chat with a model, a tier and headers.
func (b *bench) answersWith(model, tier string, header ...string) {
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"id":"c","model":%q,"service_tier":%q,"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}`, model, tier)
	}
}

// TestPricedByWhatServed: the deployment's model, its version by the answer, the
// overflow of provisioned capacity, another model's answer, the tier.
func TestPricedByWhatServed(t *testing.T) {
	book, err := pricing.Parse([]byte(`{"version":"t","prices":[
		{"model":"m","sku":"GlobalStandard","pico_usd":{"in":10000000,"out":20000000}},
		{"model":"m","version":"2024-01-02","sku":"GlobalStandard","pico_usd":{"in":5000000,"out":8000000}},
		{"model":"m","sku":"DataZoneStandard","pico_usd":{"in":11000000,"out":22000000}},
		{"model":"n","pico_usd":{"in":1000000,"out":2000000,"prio_in":3000000,"prio_out":6000000}},
		{"model":"paid","sku":"ProvisionedManaged","pico_usd":{"in":1000000,"out":1000000}},
		{"model":"paid","sku":"Standard","pico_usd":{"in":7000000,"out":7000000}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(p *quota.Product) { p.Budget = 1e12 }, deployments(book, `{"a":{"model":"m"},"b":{"model":"m","version":"2024-01-02"},
		"ptu":{"model":"m","sku":"GlobalProvisionedManaged"},"zone":{"model":"m","sku":"DataZoneProvisionedManaged","region":"eastus"},
		"own":{"model":"paid","sku":"ProvisionedManaged"},"regional":{"model":"m","sku":"ProvisionedManaged","region":"eastus"}}`))
	f := func(deployment, served, tier string, cost int64, priceKey, sku string, header ...string) {
		t.Helper()
		b.answersWith(served, tier, header...)
		r := b.charged("/openai/deployments/"+deployment+"/chat/completions?api-version=2024-10-21",
			`{"messages":[],"max_tokens":100,"service_tier":"auto"}`+strings.Repeat(" ", 2000), cost, "provider", priceKey)
		if string(r.SKU) != sku {
			t.Errorf("%s: sku %s, want %s", deployment, r.SKU, sku)
		}
	}
	const spilled = "X-Ms-Is-Spilled-Over"
	f("a", "m", "default", 12_000_000, "m/*/GlobalStandard", "GlobalStandard")
	f("a", "m-2024-01-02", "default", 5_800_000, "m/2024-01-02/GlobalStandard", "GlobalStandard")
	f("b", "m", "default", 5_800_000, "m/2024-01-02/GlobalStandard", "GlobalStandard")
	f("a", "n", "default", 1_200_000, "n/*/*", "GlobalStandard")
	f("a", "n", "priority", 3_600_000, "n/*/*", "GlobalStandard")
	f("a", "unheard-of", "default", 12_000_000, "m/*/GlobalStandard", "GlobalStandard")
	f("n", "n", "", 1_200_000, "n/*/*", "GlobalStandard")
	f("ptu", "m", "default", 0, "m/GlobalProvisionedManaged/hourly", "GlobalProvisionedManaged", spilled, "false")
	f("ptu", "m", "default", 12_000_000, "m/*/GlobalStandard", "GlobalStandard", spilled, "true")
	f("zone", "m", "default", 13_200_000, "m/*/DataZoneStandard", "DataZoneStandard", spilled, "True")
	f("own", "paid", "default", 1_100_000, "paid/*/ProvisionedManaged", "ProvisionedManaged", spilled, "false")
	f("own", "paid", "default", 7_700_000, "paid/*/Standard", "Standard", spilled, "true")
	f("regional", "m", "default", 0, "m/ProvisionedManaged/hourly", "ProvisionedManaged")
}

// TestUnknownModelServed: nobody knows what the model costs that answered, so it
// costs no less than what was held.
func TestUnknownModelServed(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answersWith("unheard-of-9", "default")
	answer, _ := b.chat(`{"messages":[{"role":"user","content":"Hello"}],"max_tokens":1000}`)
	if r := b.oneRecord(); answer.StatusCode != 200 || r.CostNanoUSD != r.HoldNanoUSD || r.CostNanoUSD.N == 0 {
		t.Errorf("%d, %d of %d", answer.StatusCode, r.CostNanoUSD.N, r.HoldNanoUSD.N)
	}
}

func TestMultipliers(t *testing.T) {
	book, err := pricing.Parse([]byte(`{"version":"t","multiplier_ppm":900000,"prices":[{"model":"m","pico_usd":{"in":10000000,"out":20000000}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(p *quota.Product) { p.MultiplierPPM = 1_100_000 }, deployments(book, ""))
	b.answersWith("m", "")
	r := b.charged("/openai/v1/chat/completions", `{"model":"m","messages":[],"max_tokens":100}`+strings.Repeat(" ", 1000), 11_880_000, "provider", "m/*/*")
	if r.ListCostNanoUSD != usage.Of(12_000_000) || r.Charge != usage.Of(11_880_000) {
		t.Errorf("list %d, charge %d", r.ListCostNanoUSD.N, r.Charge.N)
	}
}

// TestOneCentLeft: a request without an output limit gets an answer that costs a
// cent at most, not a refusal.
func TestOneCentLeft(t *testing.T) {
	f := func(model, path, body, field string) {
		t.Helper()
		b := newBench(t, func(p *quota.Product) { p.Budget = 10_000_000 }, nil)
		var limit int64
		b.answer = func(w http.ResponseWriter, _ *http.Request, body string) {
			_, after, _ := strings.Cut(body, `"`+field+`":`)
			_, _ = fmt.Sscan(strings.FieldsFunc(after, func(r rune) bool { return r == ',' || r == '}' })[0], &limit)
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"id":"x","model":%q,"usage":{"prompt_tokens":20,"completion_tokens":%d}}`, model, limit) // all that it may
		}
		answer, got := b.do("POST", path, body)
		if r := b.oneRecord(); answer.StatusCode != 200 || r.CostNanoUSD.N > 10_000_000 || r.CostNanoUSD.N < 5_000_000 || limit < 16 {
			t.Errorf("%s: %d %s: limit %d, cost %d", model, answer.StatusCode, got, limit, r.CostNanoUSD.N)
		}
	}
	const chat, responses = "/openai/v1/chat/completions", "/openai/v1/responses"
	f("gpt-4o", chat, `{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}`, "max_completion_tokens")
	f("gpt-5", chat, `{"model":"gpt-5","messages":[{"role":"user","content":"Hello"}]}`, "max_completion_tokens")
	f("gpt-4", chat, `{"model":"gpt-4","messages":[{"role":"user","content":"Hello"}]}`, "max_tokens")
	f("gpt-5.4", responses, `{"model":"gpt-5.4","input":"Hello"}`, "max_output_tokens")
	f("o3", responses, `{"model":"o3","input":"Hello"}`, "max_output_tokens")
}

// TestBackgroundResponse: it is charged at its hold, and at its cost once its
// result is fetched, once.
func TestBackgroundResponse(t *testing.T) {
	b := newBench(t, nil, nil)
	const path = "/openai/v1/responses"
	b.answers(200, `{"id":"resp_1","object":"response","status":"queued","background":true,"model":"gpt-4o","output":[],"usage":null}`)
	if answer, got := b.do("POST", path, `{"model":"gpt-4o","input":"x","background":true,"max_output_tokens":500}`); answer.StatusCode != 200 {
		t.Fatalf("%d %s", answer.StatusCode, got)
	}
	r := b.oneRecord()
	if r.UsageSource != "estimate" || r.Charge != r.HoldNanoUSD || r.Rev != 1 {
		t.Errorf("queued: %+v", r)
	}
	fetch := func(method, path, body string, rev int, cost int64) {
		t.Helper()
		b.answers(200, body)
		answer, got := b.do(method, path, "")
		if answer.StatusCode != 200 || got != body {
			t.Fatalf("%s %s: %d %s", method, path, answer.StatusCode, got)
		}
		if r := b.oneRecord(); r.Rev != rev || r.CostNanoUSD.N != cost && rev > 1 {
			t.Errorf("revision %d, cost %d; want %d, %d", r.Rev, r.CostNanoUSD.N, rev, cost)
		}
	}
	const done = `{"id":"resp_1","object":"response","status":"completed","background":true,"model":"gpt-4o","service_tier":"default","output":[],` +
		`"usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":40},"output_tokens":10,"total_tokens":110}}`
	const cost = 60*2500 + 40*1250 + 10*10000
	fetch("GET", path+"/resp_1", `{"id":"resp_1","status":"in_progress","model":"gpt-4o","usage":null}`, 1, 0)
	fetch("GET", path+"/resp_1/input_items", `{"object":"list","data":[]}`, 1, 0)
	fetch("GET", path+"/resp_1", done, 2, cost)
	fetch("GET", path+"/resp_1", strings.Replace(done, `"output_tokens":10`, `"output_tokens":99`, 1), 2, cost)
	if a := b.account(); a.Spent != cost || a.Records != 1 || a.Tokens != 110 {
		t.Errorf("account %+v", a)
	}
	if differences, err := b.ledger.Verify(t.Context(), b.product.ID); err != nil || len(differences) > 0 {
		t.Errorf("%v %v", differences, err)
	}
	if r := b.oneRecord(); r.UsageSource != "provider" || r.Outcome != "completed" || r.CachedTokens != usage.Of(40) {
		t.Errorf("fetched: %+v", r)
	}
}

// TestBackgroundStreamFetched: the stream of a response that is fetched brings its usage too.
func TestBackgroundStreamFetched(t *testing.T) {
	b := newBench(t, nil, nil)
	b.answers(200, `{"id":"resp_1","status":"queued","model":"gpt-4o","usage":null}`)
	b.do("POST", "/openai/v1/responses", `{"model":"gpt-4o","input":"x","background":true,"max_output_tokens":500}`)
	stream := "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\",\"usage\":null}}\n\n" +
		"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"status\":\"completed\",\"model\":\"gpt-4o\"," +
		"\"usage\":{\"input_tokens\":100,\"output_tokens\":10}}}\n\n"
	for _, piece := range []int{1, 50, 10_000} {
		b.streams(piece, stream)
		if _, got := b.do("GET", "/openai/v1/responses/resp_1?stream=true", ""); got != stream {
			t.Errorf("pieces of %d: %q", piece, got)
		}
		if r := b.oneRecord(); r.Rev != 2 || r.CostNanoUSD.N != 350_000 {
			t.Errorf("pieces of %d: revision %d, cost %d", piece, r.Rev, r.CostNanoUSD.N)
		}
	}
}

// TestToolsSoldByTheCall: searches and sessions are on the bill beside the tokens.
func TestToolsSoldByTheCall(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Budget = 100e9 }, nil)
	b.answers(200, `{"id":"resp_1","object":"response","status":"completed","model":"gpt-4o","output":[
		{"type":"web_search_call","status":"completed","action":{"type":"search","query":"x"}},{"type":"web_search_call","status":"completed","action":{"type":"search"}},
		{"type":"code_interpreter_call","container_id":"cntr_1","status":"completed"},{"type":"code_interpreter_call","container_id":"cntr_1","status":"completed"},
		{"type":"message","content":[{"type":"output_text","text":"y"}]}],"usage":{"input_tokens":1000,"output_tokens":100}}`)
	const tokens, search, session = 1000*2500 + 100*10000, 10_000_000, 30_000_000
	r := b.charged("/openai/v1/responses", `{"model":"gpt-4o","input":"x","max_output_tokens":100,"tools":[{"type":"web_search"},{"type":"code_interpreter","container":{"type":"auto"}}]}`,
		tokens+2*search+session, "provider", "gpt-4o/*/GlobalStandard")
	if len(r.Items) != 2 {
		t.Errorf("items %+v", r.Items)
	}
	f := func(maxToolCalls string, calls int64) {
		t.Helper()
		r := b.charged("/openai/v1/responses", `{"model":"gpt-4o","input":"x","max_output_tokens":100`+maxToolCalls+`,"tools":[{"type":"web_search"},{"type":"code_interpreter"}]}`,
			tokens+2*search+session, "provider", "gpt-4o/*/GlobalStandard")
		if want := 128_000*2500 + 100*10000 + calls*(search+session); r.HoldNanoUSD.N != want {
			t.Errorf("hold %d, want %d", r.HoldNanoUSD.N, want)
		}
	}
	f("", 10)
	f(`,"max_tool_calls":3`, 3)
}

// TestUnknownUsageIsKept: what Azure adds to its usage one day is in the record,
// but for anything that could be a text.
func TestUnknownUsageIsKept(t *testing.T) {
	b := newBench(t, rich, nil)
	b.answers(200, `{"id":"c","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,`+
		`"prompt_tokens_details":{"cached_tokens":0,"video_tokens":7},"tea_cups":1,"note":"a whole sentence"}}`)
	r := b.charged("/openai/v1/chat/completions", `{"model":"gpt-4o","messages":[],"max_tokens":10}`, 45_000, "provider", "gpt-4o/")
	if got, want := string(r.UsageExtra), `{"prompt_tokens_details":{"video_tokens":7},"tea_cups":1}`; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
}

// TestContentIsLoggedOnDemand: prompts and answers are in the log if, and only if,
// they are asked for; keys never are.
func TestContentIsLoggedOnDemand(t *testing.T) {
	for _, on := range []bool{false, true} {
		var log bytes.Buffer
		b := newBench(t, rich, func(o *proxy.Options) {
			o.LogContent, o.Log = on, slog.New(slog.NewJSONHandler(&log, nil))
		})
		b.answers(200, chatAnswer)
		long := strings.Repeat("secret prompt ", 10_000)
		b.chat(`{"max_tokens":5,"messages":[{"role":"user","content":"` + long + `"}]}`)
		b.answersAs("audio/wav", wav(100))
		b.do("POST", "/openai/v1/audio/speech", `{"model":"tts-1","input":"spoken words","voice":"alloy"}`)
		b.gateway.Close() // what is logged behind the answer is there
		got := log.String()
		if has := strings.Contains(got, "secret prompt") && strings.Contains(got, "spoken words") && strings.Contains(got, `\"content\":\"Hi\"`); has != on {
			t.Errorf("on %v: %.300s", on, got)
		}
		if strings.Contains(got, productKey) || len(got) > 3*proxy.ContentBytesMax {
			t.Errorf("a key is logged, or %d bytes are too much", len(got))
		}
	}
}
