package export

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/usage"
)

const bookText = `{"version":"t","prices":[
	{"model":"gpt-4o","version":"2024-11-20","sku":"GlobalStandard","region":"","mode":"chat","from":"2026-08-01","ctx_in":128000,"max_out":16384,
		"pico_usd":{"in":2500000,"in_cached":1250000,"out":10000000,"audio_in":40000001,"audio_out":80000003,"prio_in":5000000,"prio_out":20000000}},
	{"model":"long","version":"","sku":"GlobalStandard","region":"","mode":"chat","ctx_in":1000000,"max_out":16384,"long_threshold":1000,
		"pico_usd":{"in":1333,"out":7,"long_in":2777,"long_out":11}},
	{"model":"whisper-1","version":"","sku":"GlobalStandard","region":"","mode":"audio_transcription","pico_usd":{"sec_in":100000000}},
	{"model":"dall-e-3","version":"","sku":"GlobalStandard","region":"","mode":"image_generation","pico_usd":{"per_image":40000000000}},
	{"model":"web_search","version":"","sku":"","region":"","mode":"tool","pico_usd":{"web_search_call":14000000001}},
	{"model":"gpt-image-1","version":"","sku":"GlobalStandard","region":"","mode":"image_generation","pico_usd":{"in":5000000,"image_in":10000000,"out":10000000,"image_out":40000000}}]}`

func testBook(t testing.TB) *pricing.Book {
	t.Helper()
	book, err := pricing.Parse([]byte(bookText))
	if err != nil {
		t.Fatal(err)
	}
	return book
}

// priced is a record that costs what the book says, times a markup.
func priced(t testing.TB, book *pricing.Book, r usage.Record, q pricing.Query, markup int64) usage.Record {
	t.Helper()
	q.At = r.Time
	entry, ok := book.Lookup(q)
	if !ok {
		t.Fatalf("no price for %+v", q)
	}
	entry = entry.WithMarkup(markup)
	cost, err := entry.Charge(r.Usage(), r.Items, string(r.ServiceTier))
	if err != nil {
		t.Fatal(err)
	}
	r.PriceKey, r.ListCostNanoUSD, r.CostNanoUSD = usage.Text(entry.Key), usage.Of(int64(cost.List)), usage.Of(int64(cost.Charged))
	r.Region, r.SKU = usage.Text(q.Region), usage.Text(q.SKU)
	return r
}

var gpt4o = pricing.Query{Model: "gpt-4o", Version: "2024-11-20", SKU: "GlobalStandard", Region: "eastus"}

// focus exports records as FOCUS and checks all rules.
func focus(t *testing.T, book *pricing.Book, records ...usage.Record) (rows []map[string]string, report *Report) {
	t.Helper()
	o := Options{From: lakeOf(t, map[string]string{"a.jsonl": lines(t, records...)}), To: Stdout, Format: FOCUS, Prices: book, BillingAccount: "acc", BillingName: "Account"}
	var out bytes.Buffer
	report, err := Run(t.Context(), o, &out)
	if err != nil {
		t.Fatal(err)
	}
	header, err := csv.NewReader(bytes.NewReader(out.Bytes())).Read()
	if err != nil {
		t.Fatal(err)
	}
	rows = parseCSV(t, out.String())
	checkFocus(t, header, rows)
	return rows, report
}

func TestOneRowPerMeter(t *testing.T) {
	book := testBook(t)
	f := func(r usage.Record, q pricing.Query, want string) {
		t.Helper()
		rows, report := focus(t, book, priced(t, book, r, q, 0))
		if got := pick(rows, "x_Meter", "PricingQuantity", "PricingUnit", "ListUnitPrice", "ListCost"); got != want || report.Unsplit != 0 {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	r := sold(1)
	f(r, gpt4o, "in 600 Tokens 0.0000025 0.0015; in_cached 400 Tokens 0.00000125 0.0005; out 100 Tokens 0.00001 0.001")
	r.ServiceTier = "priority"
	f(r, gpt4o, "prio_in 600 Tokens 0.000005 0.003; prio_in_cached 400 Tokens 0.0000025 0.001; prio_out 100 Tokens 0.00002 0.002")
	r = sold(1)
	r.AudioInputTokens, r.AudioOutputTokens, r.UsageExtra = usage.Of(300), usage.Of(90), usage.Extra(`{"cached_audio_input_tokens":100}`)
	f(r, gpt4o, "audio_in 200 Tokens 0.000040000001 0.008; audio_in_cached 100 Tokens 0.000040000001 0.004; audio_out 90 Tokens 0.000080000003 0.007200001; "+
		"in 400 Tokens 0.0000025 0.001; in_cached 300 Tokens 0.00000125 0.000375; out 10 Tokens 0.00001 0.0001")
	r = sold(1)
	r.CachedTokens, r.Items = usage.Count{}, []usage.Item{{Meter: "web_search_call", Quantity: 2}, {Meter: "web_search_call", Quantity: 1}, {Meter: "x", Quantity: 0}}
	f(r, gpt4o, "in 1000 Tokens 0.0000025 0.0025; out 100 Tokens 0.00001 0.001; web_search_call 3 Calls 0.014000000001 0.042000001")
	r = usage.Record{Schema: 1, ID: id(1), Rev: 1, Kind: usage.KindRequest, Time: noon, Items: []usage.Item{{Meter: usage.ItemAudioIn, Quantity: 12_345}}}
	f(r, pricing.Query{Model: "whisper-1", SKU: "GlobalStandard", Mode: pricing.ModeTranscription}, "sec_in 12.345 Seconds 0.0001 0.0012345")
	r.Items = []usage.Item{{Meter: usage.ItemImage, Quantity: 2}}
	f(r, pricing.Query{Model: "dall-e-3", SKU: "GlobalStandard", Mode: pricing.ModeImage}, "per_image 2 Images 0.04 0.08")
	r.Items, r.PromptTokens, r.CompletionTokens = nil, usage.Of(1001), usage.Of(3)
	f(r, pricing.Query{Model: "long", SKU: "GlobalStandard"}, "long_in 1001 Tokens 0.000000002777 0.00000278; long_out 3 Tokens 0.000000000011 0")
	r.PromptTokens = usage.Of(10)
	f(r, pricing.Query{Model: "gpt-image-1", SKU: "GlobalStandard", Mode: pricing.ModeImage}, "image_out 3 Tokens 0.00004 0.00012; in 10 Tokens 0.000005 0.00005")
}

// Where only the total is known there is one row for it.
func TestOneRowPerRecord(t *testing.T) {
	book := testBook(t)
	good := priced(t, book, sold(1), gpt4o, 0)
	f := func(book *pricing.Book, change func(*usage.Record)) {
		t.Helper()
		r := good
		change(&r)
		rows, report := focus(t, book, r)
		want := fmt.Sprintf("%s 1 Requests", money.Nano(r.CostNanoUSD.N))
		if got := pick(rows, "BilledCost", "PricingQuantity", "PricingUnit"); got != want || report.Unsplit != 1 {
			t.Errorf("%s, %+v", got, report)
		}
	}
	f(nil, func(*usage.Record) {})
	f(book, func(r *usage.Record) { r.ListCostNanoUSD.N++ })
	f(book, func(r *usage.Record) { r.PriceKey = "" })
	f(book, func(r *usage.Record) { r.PriceKey = "gpt-5/GlobalProvisionedManaged/hourly" })
	f(book, func(r *usage.Record) { r.PriceKey = "gpt-4o/2024-11-20/GlobalStandard/*" })
	f(book, func(r *usage.Record) { r.PromptTokens, r.CompletionTokens = usage.Count{}, usage.Count{} })
	f(book, func(r *usage.Record) { r.PromptTokens = usage.Of(usage.CountMax + 1) })
	f(book, func(r *usage.Record) { r.Items = []usage.Item{{Meter: "new_meter", Quantity: 1}} })
	f(book, func(r *usage.Record) { r.Items = []usage.Item{{Meter: "web_search_call", Quantity: 1 << 62}} })
	f(book, func(r *usage.Record) {
		r.ListCostNanoUSD = usage.Count{}
		r.CostNanoUSD = usage.Of(9)
		r.UsageSource = "swept"
	})
	f(book, func(r *usage.Record) { r.CostNanoUSD, r.ListCostNanoUSD = usage.Of(1<<49), usage.Of(1<<49) })
}

func TestRowsOfOtherKinds(t *testing.T) {
	writeOff := usage.Record{Schema: 1, ID: id(1), Rev: 2, Kind: usage.KindWriteOff, Time: noon, ProductID: "p1", Unit: "usd", CostNanoUSD: usage.Of(7), Outcome: "swept"}
	tokens := usage.Record{Schema: 1, ID: id(2), Rev: 1, Kind: usage.KindWriteOff, Time: noon, ProductID: "p1", Unit: "tokens", Charge: usage.Of(7)}
	deposit := usage.Record{Schema: 1, ID: id(3), Rev: 1, Kind: usage.KindDeposit, Time: noon, ProductID: "p1", Unit: "usd", Charge: usage.Of(-7)}
	update := usage.Record{Schema: 1, ID: id(4), Rev: 1, Kind: usage.KindUpdate, Time: noon, ProductID: "p1", CostNanoUSD: usage.Of(5), ListCostNanoUSD: usage.Of(5)}
	rows, report := focus(t, nil, writeOff, tokens, deposit, update)
	if got := pick(rows, "x_RecordKind", "ChargeCategory", "BilledCost", "SkuId", "ResourceId"); got != "write_off Adjustment 0.000000007  ; update Usage 0.000000005 */*/*/*#request " {
		t.Error(got)
	}
	if report.NoMoney != 2 || report.Cost != 12 {
		t.Errorf("%+v", report)
	}
}

func TestFocusGolden(t *testing.T) {
	book := testBook(t)
	r := priced(t, book, sold(1), gpt4o, 1_100_000)
	r.Time = time.Date(2026, 12, 31, 23, 59, 59, 999e6, time.UTC)
	rows, _ := focus(t, book, r)
	want := map[string]string{
		"BilledCost": "0.00165", "BillingAccountId": "acc", "BillingAccountName": "Account", "BillingCurrency": "USD",
		"BillingPeriodEnd": "2027-01-01T00:00:00Z", "BillingPeriodStart": "2026-12-01T00:00:00Z", "ChargeCategory": "Usage", "ChargeClass": "",
		"ChargeDescription": "gpt-4o Input Tokens", "ChargeFrequency": "Usage-Based", "ChargePeriodEnd": "2027-01-01T00:00:00Z",
		"ChargePeriodStart": "2026-12-31T23:00:00Z", "ConsumedQuantity": "600", "ConsumedUnit": "Tokens", "ContractedCost": "0.00165",
		"EffectiveCost": "0.00165", "InvoiceId": "", "InvoiceIssuerName": "Microsoft", "ListCost": "0.0015", "ListUnitPrice": "0.0000025",
		"PricingCategory": "Standard", "PricingQuantity": "600", "PricingUnit": "Tokens", "ProviderName": "Microsoft", "PublisherName": "Microsoft",
		"RegionId": "eastus", "RegionName": "East US", "ResourceId": "gpt4o", "ResourceName": "", "ResourceType": "Model Deployment",
		"ServiceCategory": "AI and Machine Learning", "ServiceName": "Azure OpenAI", "ServiceSubcategory": "Generative AI",
		"SkuId": "gpt-4o/2024-11-20/GlobalStandard/*#in", "SkuMeter": "Input Tokens", "SkuPriceDetails": "",
		"SkuPriceId": "gpt-4o/2024-11-20/GlobalStandard/*@2026-08-01#in", "SubAccountId": "p1", "SubAccountName": `Search, "new"`,
		"Tags": `{"env":"x","team":"a"}`, "x_BudgetPeriod": "2026-11", "x_CostNanoUsd": "1650000", "x_KeyId": "k1", "x_ListCostNanoUsd": "1500000",
		"x_Meter": "in", "x_Model": "gpt-4o", "x_ModelSku": "GlobalStandard", "x_Operation": "chat", "x_Outcome": "completed", "x_PriceBook": "",
		"x_PriceKey": "gpt-4o/2024-11-20/GlobalStandard/*@2026-08-01", "x_RecordId": id(1), "x_RecordKind": "request", "x_RecordRevision": "1",
		"x_RecordTime": "2026-12-31T23:59:59.999Z", "x_ServiceTier": "default", "x_UsageSource": "provider", "x_User": "anna",
	}
	for name, cell := range want {
		if rows[0][name] != cell {
			t.Errorf("%s: %q, want %q", name, rows[0][name], cell)
		}
	}
	if len(rows[0]) != len(want) {
		t.Errorf("%d columns, want %d", len(rows[0]), len(want))
	}
}

// Whatever a record says, its rows add up to its cost and to its list cost to
// the nano-dollar; and a record that was priced by the book is split by it, each
// part within a nano-dollar of its price times its quantity.
func TestRowsAddUp(t *testing.T) {
	book := testBook(t)
	queries := []pricing.Query{
		gpt4o, {Model: "long", SKU: "GlobalStandard"}, {Model: "gpt-image-1", SKU: "GlobalStandard", Mode: pricing.ModeImage},
		{Model: "gpt-4o", Version: "2024-11-20", SKU: "GlobalBatch"},
	}
	rapid.Check(t, func(rt *rapid.T) {
		count := func(name string, most int64) usage.Count {
			if rapid.IntRange(0, 3).Draw(rt, name+" known") == 0 {
				return usage.Count{}
			}
			return usage.Of(rapid.Int64Range(-1, most).Draw(rt, name))
		}
		r := sold(1)
		r.PromptTokens, r.CompletionTokens = usage.Of(rapid.Int64Range(1, 1_000_000).Draw(rt, "prompt")), count("completion", 100_000)
		most := r.PromptTokens.N + 10
		r.CachedTokens, r.CacheWriteTokens, r.AudioInputTokens = count("cached", most), count("write", most), count("audio", most)
		r.ImageInputTokens, r.AudioOutputTokens = count("image", most), count("audio out", 1000)
		r.UsageExtra = usage.Extra(fmt.Sprintf(`{"image_output_tokens":%d,"cached_audio_input_tokens":%d}`,
			rapid.Int64Range(0, 2000).Draw(rt, "image out"), rapid.Int64Range(0, 2000).Draw(rt, "audio cached")))
		r.ServiceTier = usage.Text(rapid.SampledFrom([]string{"", "default", "priority"}).Draw(rt, "tier"))
		q := rapid.SampledFrom(queries).Draw(rt, "query")
		if q.Mode == "" && rapid.Bool().Draw(rt, "items") {
			r.Items = []usage.Item{{Meter: "web_search_call", Quantity: rapid.Int64Range(0, 5).Draw(rt, "calls")}}
		}
		markup := rapid.Int64Range(1, pricing.MultiplierMax).Draw(rt, "markup")
		r = priced(t, book, r, q, markup)
		altered := rapid.IntRange(0, 4).Draw(rt, "altered") == 0
		if altered {
			r.CostNanoUSD = usage.Of(rapid.Int64Min(0).Draw(rt, "cost"))
			r.ListCostNanoUSD = usage.Of(rapid.Int64Min(0).Draw(rt, "list"))
		}
		m := meters{book: book, found: map[string]*sheet{}}
		parts, whole := m.split(&r, money.Nano(r.ListCostNanoUSD.N), money.Nano(r.CostNanoUSD.N))
		if whole && !altered {
			rt.Fatalf("not split: %+v", r)
		}
		list, cost := new(big.Int), new(big.Int)
		for _, p := range parts {
			if p.list < 0 || p.cost < 0 {
				rt.Fatalf("negative: %+v", p)
			}
			list.Add(list, big.NewInt(int64(p.list)))
			cost.Add(cost, big.NewInt(int64(p.cost)))
			exact := new(big.Int).Mul(big.NewInt(p.n), big.NewInt(int64(p.pico)))
			off := exact.Sub(exact, new(big.Int).Mul(big.NewInt(int64(p.list)), femtoPerNano))
			if p.pico > 0 && off.Abs(off).Cmp(femtoPerNano) >= 0 {
				rt.Fatalf("%s femto-USD off: %+v", off, p)
			}
		}
		if list.Int64() != r.ListCostNanoUSD.N || cost.Int64() != r.CostNanoUSD.N {
			rt.Fatalf("%s and %s, want %d and %d: %+v", list, cost, r.ListCostNanoUSD.N, r.CostNanoUSD.N, parts)
		}
	})
}

// The same, through the file: random records under all rules of FOCUS.
func TestRandomRecordsFollowTheRules(t *testing.T) {
	book := testBook(t)
	rapid.Check(t, func(rt *rapid.T) {
		var records []usage.Record
		sums := map[string]int64{}
		for n := range rapid.IntRange(1, 8).Draw(rt, "records") {
			r := sold(n)
			r.Kind = rapid.SampledFrom([]usage.Kind{"request", "request", "update", "write_off", "alert"}).Draw(rt, "kind")
			r.Time = noon.Add(time.Duration(rapid.Int64Range(0, 1<<53).Draw(rt, "time")))
			r.PromptTokens, r.CompletionTokens = usage.Of(rapid.Int64Range(0, 3000).Draw(rt, "prompt")), usage.Of(rapid.Int64Range(0, 500).Draw(rt, "completion"))
			if rapid.Bool().Draw(rt, "priced") {
				r = priced(t, book, r, gpt4o, 0)
			}
			for _, text := range []*usage.Text{&r.Deployment, &r.Region, &r.Model, &r.PriceKey, &r.Product, &r.ProductID, &r.User} {
				if rapid.IntRange(0, 4).Draw(rt, "null") == 0 {
					*text = ""
				}
			}
			if r.ProductID == "" {
				r.Product = ""
			}
			if r.Kind.Spends() {
				sums[r.ID] = r.CostNanoUSD.N
			}
			records = append(records, r)
		}
		rows, _ := focus(t, book, records...)
		for _, row := range rows {
			n, err := strconv.ParseInt(row["x_CostNanoUsd"], 10, 64)
			if billed, _ := money.ParseNano(row["BilledCost"]); err != nil || int64(billed) != n {
				rt.Fatalf("%s and %s differ", row["BilledCost"], row["x_CostNanoUsd"])
			}
			sums[row["x_RecordId"]] -= n
		}
		for record, left := range sums {
			if left != 0 {
				rt.Fatalf("%s: %d nano-USD are in no row", record, left)
			}
		}
	})
}

func TestMeterNames(t *testing.T) {
	for _, name := range pricing.Meters() {
		if strings.HasPrefix(name, "batch_") {
			continue // their prices are those of the deployment
		}
		if got := readable(name); got == "" || strings.HasSuffix(got, " ") {
			t.Errorf("%s has no name", name)
		}
	}
	for _, meter := range []string{"per_image", "sec_in", "sec_out", "char_in", "video_sec", "code_interpreter_session", "web_search_call", "file_search_call"} {
		if units[meter] == "" {
			t.Errorf("%s has no unit", meter)
		}
	}
}
