package admin_test

import (
	"testing"

	"github.com/costgate/costgate/handler/internal/admin"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/pricing"
)

// TestUpdatePrices: the dearest deployment that runs the model, or has its name;
// the version by the answer; tools; tier; the product's multiplier.
func TestUpdatePrices(t *testing.T) {
	f := newFixture(t)
	deployments, err := pricing.ParseDeployments(`{"g":{"model":"gpt-4o"},"zone":{"model":"gpt-4o","version":"2024-11-20","sku":"DataZoneStandard","region":"eastus"},
		"prod":{"model":"gpt-4o-mini"},"gpt-35-turbo":{"model":"gpt-5.5-pro"},"emb":{"model":"text-embedding-ada-002"},
		"turbo":{"model":"gpt-4","version":"turbo-2024-04-09"},"five":{"model":"gpt-5"},"ptu":{"model":"o3","sku":"GlobalProvisionedManaged"}}`)
	if err != nil {
		t.Fatal(err)
	}
	f.admin = admin.New(admin.Options{Ledger: f.ledger, Book: pricing.Builtin(), Deployments: deployments, Now: f.now})
	id := f.create(`{"subscriptionKey":"` + key + `","productName":"P","amount":"1000"}`).json["ProductId"].(string)
	f.set(f.now().Add(1e9))
	check := func(prompt, response string, cost int64, source string) {
		t.Helper()
		f.update(`{"subscriptionKey":"`+key+`","prompt":`+prompt+`,"responseBody":`+response+`}`).want(t, 200)
		records, _, err := f.ledger.History(t.Context(), id, ledger.HistoryQuery{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if r := records[0]; r.CostNanoUSD.N != cost || string(r.UsageSource) != source {
			t.Errorf("%s: %d by %s from %s; want %d from %s", response, r.CostNanoUSD.N, r.PriceKey, r.UsageSource, cost, source)
		}
		f.set(f.now().Add(1e9))
	}
	used := func(model, more string) string {
		return `{"model":"` + model + `","usage":{"prompt_tokens":1000,"completion_tokens":1000}` + more + `}`
	}
	check(`""`, used("gpt-4o-2024-11-20", ""), 13_750_000, "provider") // the zone is dearer
	check(`""`, used("gpt-4o-2024-05-13", ""), 20_000_000, "provider") // its version is
	check(`""`, used("prod", ""), 750_000, "provider")
	check(`""`, used("gpt-35-turbo", ""), 210_000_000, "provider")
	check(`""`, used("gpt-4-turbo-2024-04-09", ""), 40_000_000, "provider")
	check(`""`, used("o3", ""), 10_000_000, "provider") // may have spilled over
	check(`""`, used("gpt-5.4", `,"service_tier":"priority"`), 35_000_000, "provider")
	check(`""`, `{"model":"ada","object":"list","usage":{"prompt_tokens":1000,"total_tokens":1000}}`, 100_000, "provider")
	check(`""`, `{"id":"resp_1","status":"completed","model":"gpt-4.1","output":[{"type":"web_search_call","action":{"type":"search"}}],"usage":{"input_tokens":1000,"output_tokens":1000}}`, 20_000_000, "provider")
	said := func(model string) string {
		return `{"model":"` + model + `","choices":[{"index":0,"message":{"role":"assistant","content":"Hello world"}}]}`
	}
	check(`"Hi"`, said("gpt-4o-mini"), 150+2*600, "tokenizer")
	check(`"Hi"`, said("gpt-5"), 1250+11*10_000, "estimate")
	check(`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}],"x":1}`, said("gpt-4.1"), 2_248_000, "estimate")
	f.configure(id, `{"multiplierPpm":1100000}`).want(t, 200)
	f.set(f.now().Add(1e9))
	check(`""`, used("prod", ""), 825_000, "provider")
}
