package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/admin"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

const key = "admin-test-key-0123456789"

type fixture struct {
	t      *testing.T
	clock  atomic.Int64 // Unix ns; the ledger's tasks read it too
	store  *memstore.Store
	ledger *ledger.Ledger
	admin  *admin.Handler
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t}
	f.set(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC))
	clock := f.now
	f.store = memstore.New(1, clock)
	f.ledger = ledger.New(f.store, ledger.Options{Instance: "t", Now: clock})
	f.admin = admin.New(admin.Options{Ledger: f.ledger, Book: pricing.Builtin(), Now: clock})
	return f
}

func (f *fixture) now() time.Time    { return time.Unix(0, f.clock.Load()).UTC() }
func (f *fixture) set(now time.Time) { f.clock.Store(now.UnixNano()) }

type answer struct {
	status int
	header http.Header
	text   string
	json   map[string]any
}

func (f *fixture) call(serve func(w http.ResponseWriter, r *http.Request), body string, header ...string) answer {
	f.t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/api/Quota", strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	serve(w, r)
	a := answer{status: w.Code, header: w.Header(), text: w.Body.String()}
	_ = json.Unmarshal(w.Body.Bytes(), &a.json) // arrays stay text
	return a
}

func (f *fixture) create(body string, header ...string) answer {
	f.t.Helper()
	return f.call(f.admin.Create, body, header...)
}

func (f *fixture) configure(id, body string, header ...string) answer {
	f.t.Helper()
	return f.call(func(w http.ResponseWriter, r *http.Request) { f.admin.Configure(w, r, id) }, body, header...)
}

func (f *fixture) get(id string) answer {
	f.t.Helper()
	return f.call(func(w http.ResponseWriter, r *http.Request) { f.admin.GetByID(w, r, id) }, "")
}

func (f *fixture) update(body string, header ...string) answer {
	f.t.Helper()
	return f.call(f.admin.Update, body, header...)
}

func (a answer) want(t *testing.T, status int, pairs ...any) {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.text)
	}
	for i := 0; i < len(pairs); i += 2 {
		name, _ := pairs[i].(string)
		if got := fmt.Sprint(a.json[name]); got != fmt.Sprint(pairs[i+1]) {
			t.Errorf("%s = %s, want %v", name, got, pairs[i+1])
		}
	}
}

const simple = `{"SubscriptionKey":"` + key + `","productName":"P","AMOUNT":"12.50"}`

func TestCreateAndGet(t *testing.T) {
	f := newFixture(t)
	made := f.create(simple)
	made.want(t, 200, "SubscriptionKey", key, "ProductName", "P", "Amount", "12.5", "RateLimitOnCost", true, "Budget", "12.5", "Spent", "0",
		"Held", "0", "Unit", "USD", "Period", "2026-11", "PeriodStart", "2026-11-01T00:00:00Z", "PeriodEnd", "2026-12-01T00:00:00Z", "State", "open",
		"Enforcement", "hard", "Durability", "strict", "Disconnect", "drain", "UnknownPrice", "reject", "BudgetName", "P", "TimeZone", "UTC")
	id, _ := made.json["ProductId"].(string)
	f.get(key).want(t, 200, "SubscriptionKey", key, "ProductId", id)
	f.get(id).want(t, 200, "SubscriptionKey", nil, "ProductId", id)
	f.get("no-such-key-0123456789").want(t, 404, "Amount", "0", "status", 404)
	f.get("p_nosuchproduct").want(t, 404, "Amount", "0")
}

func TestCreateMakesAKeyAndShowsItOnce(t *testing.T) {
	f := newFixture(t)
	body := `{"productName":"P","amount":1}`
	first := f.create(body, "Idempotency-Key", "i1")
	made, _ := first.json["SubscriptionKey"].(string)
	if len(made) < 26 {
		t.Fatalf("made key %q", made)
	}
	again := f.create(body, "Idempotency-Key", "i1")
	again.want(t, 200, "SubscriptionKey", nil, "ProductId", first.json["ProductId"])
	f.create(`{"productName":"Q","amount":1}`, "Idempotency-Key", "i1").want(t, 422)
	f.get(made).want(t, 200, "ProductId", first.json["ProductId"])
	if other := f.create(body); other.json["ProductId"] == first.json["ProductId"] {
		t.Error("without a name every Create makes a product")
	}
}

func TestCreateAgainSetsWhatItNames(t *testing.T) {
	f := newFixture(t)
	f.create(simple).want(t, 200)
	f.update(`{"subscriptionKey":"`+key+`","prompt":"","responseBody":{"model":"gpt-4o","usage":{"prompt_tokens":1000,"completion_tokens":100}}}`).want(t, 200)
	f.create(`{"subscriptionKey":"`+key+`","amount":"20"}`).want(t, 200, "Budget", "20", "Spent", "0.0035", "Amount", "19.9965", "ProductName", "P")
	f.create(`{"subscriptionKey":"`+key+`","amount":"0.001"}`).want(t, 200, "Amount", "-0.0025", "State", "exhausted")
	f.create(`{"subscriptionKey":"`+key+`","rateLimitOnCost":false}`).want(t, 409, "field", "rateLimitOnCost")
}

func TestCreateNamedIsOnce(t *testing.T) {
	f := newFixture(t)
	f.create(simple, "Idempotency-Key", "i").want(t, 200, "Budget", "12.5")
	f.configure(key, `{"amount":"99"}`).want(t, 200, "Budget", "99")
	f.create(simple, "Idempotency-Key", "i").want(t, 200, "Budget", "99", "SubscriptionKey", key)
	f.create(strings.Replace(simple, "12.50", "13", 1), "Idempotency-Key", "i").want(t, 422)
}

func TestBadFields(t *testing.T) {
	f := newFixture(t)
	bad := func(body, field string) {
		t.Helper()
		a := f.create(body)
		if a.status != 400 || a.header.Get("Content-Type") != "application/problem+json" || fmt.Sprint(a.json["field"]) != field {
			t.Errorf("%s: %d %s; want 400 for %q", body, a.status, a.text, field)
		}
	}
	with := func(more string) string { return `{"productName":"P","amount":"1",` + more + `}` }
	bad(`{"amount":"1"}`, "productName")
	bad(`{"productName":"P"}`, "amount")
	bad(`{"productName":"P","amount":"1e3"}`, "amount")
	bad(`{"productName":"P","amount":"-1"}`, "amount")
	bad(`{"productName":"P","amount":0.0000000001}`, "amount")
	bad(`{"productName":"P","amount":true}`, "amount")
	bad(`{"productName":"P","amount":"1.5","rateLimitOnCost":false}`, "amount")
	bad(`{"productName":"","amount":"1"}`, "productName")
	bad(`{"productName":"a\u0007b","amount":"1"}`, "productName")
	bad(`{"productName":"`+strings.Repeat("x", admin.NameRunesMax+1)+`","amount":"1"}`, "productName")
	bad(with(`"subscriptionKey":"short"`), "subscriptionKey")
	bad(with(`"subscriptionKey":"p_0123456789abcdef"`), "subscriptionKey")
	bad(with(`"subscriptionKey":"0123456789abcde/"`), "subscriptionKey")
	bad(with(`"period":"year"`), "period")
	bad(with(`"timeZone":"Mars"`), "timeZone")
	bad(with(`"timeZone":"Local"`), "timeZone")
	bad(with(`"enforcement":"firm"`), "enforcement")
	bad(with(`"maxOutputTokens":0`), "maxOutputTokens")
	bad(with(`"maxOutputTokens":1000001`), "maxOutputTokens")
	bad(with(`"multiplierPpm":0`), "multiplierPpm")
	bad(with(`"multiplierPpm":1.1`), "multiplierPpm")
	bad(with(`"multiplierPpm":100000001`), "multiplierPpm")
	bad(with(`"models":"gpt-4o"`), "models")
	bad(with(`"tags":{"a":1}`), "tags")
	bad(with(tagsOf(admin.TagsBytesMax+1)), "tags")
	bad(with(`"budgetAlerts":[{"at":0,"do":"stop"}]`), "budgetAlerts[0].at")
	bad(with(`"budgetAlerts":[{"at":1}]`), "budgetAlerts[0]")
	bad(with(`"budgetAlerts":[{"at":1,"do":"panic"}]`), "budgetAlerts[0].do")
	bad(with(`"notifyAt":[0.12345678]`), "notifyAt[0]")
	bad(with(`"deposit":"1"`), "deposit") // Configure's
	bad(with(`"Amount":"2"`), "amount")   // twice
	bad(`[]`, "<nil>")
	bad(`{`, "<nil>")
	if a := f.create(with(`"colour":1,"size":2`)); a.status != 400 || !strings.Contains(a.text, "colour, size") {
		t.Errorf("unknown fields: %s", a.text)
	}
	for size, want := range map[int]int{admin.BodyBytesMax: 200, admin.BodyBytesMax + 1: 413} {
		body := `{"productName":"P","amount":"1"}`
		if a := f.create(body + strings.Repeat(" ", size-len(body))); a.status != want {
			t.Errorf("%d bytes: %d, want %d", size, a.status, want)
		}
	}
	f.create(`{"productName":"`+strings.Repeat("é", admin.NameRunesMax)+`","amount":"0"}`).want(t, 200, "State", "exhausted")
}

func TestConfigure(t *testing.T) {
	f := newFixture(t)
	id := f.create(simple).json["ProductId"].(string)
	f.configure(id, `{"deposit":"2.5"}`, "Idempotency-Key", "d").want(t, 200, "Budget", "15")
	f.configure(id, `{"deposit":"2.5"}`, "Idempotency-Key", "d").want(t, 200, "Budget", "15")
	f.configure(id, `{"deposit":"3"}`, "Idempotency-Key", "d").want(t, 422)
	f.configure(id, `{"amount":"10"}`).want(t, 200, "Budget", "10")
	f.configure(id, `{"state":"stopped"}`).want(t, 200, "State", "stopped")
	f.configure(id, `{"state":"open"}`).want(t, 200, "State", "open")
	f.configure(id, `{"subscriptionKey":"x"}`).want(t, 400)
	f.configure(id, `{"rateLimitOnCost":true,"models":["gpt-4o"],"maxOutputTokens":100,"tags":{"team":"a"}}`).want(t, 200, "MaxOutputTokens", 100, "Models", "[gpt-4o]")
	f.configure(id, `{"maxOutputTokens":null,"multiplierPpm":950000}`).want(t, 200, "MaxOutputTokens", nil, "MultiplierPpm", 950_000)
	f.configure(id, `{"multiplierPpm":null}`).want(t, 200, "MultiplierPpm", nil)
	f.configure("p_nosuchproduct", `{"amount":"1"}`).want(t, 404)
	records, _, err := f.ledger.History(t.Context(), id, ledger.HistoryQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	count := map[usage.Kind]int{}
	for _, r := range records {
		count[r.Kind]++
	}
	kinds := fmt.Sprint(count[usage.KindCreate], count[usage.KindDeposit], count[usage.KindStop], count[usage.KindLift], count[usage.KindConfig])
	if kinds != "1 1 1 1 4" {
		t.Errorf("history kinds: %s", kinds)
	}
}

func TestPeriodChangesWithTheNextPeriod(t *testing.T) {
	f := newFixture(t)
	id := f.create(simple).json["ProductId"].(string)
	f.configure(id, `{"period":"day","timeZone":"Europe/Berlin"}`).want(t, 200, "Period", "2026-11")
	f.set(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	f.get(id).want(t, 200, "Period", "2026-12-01", "PeriodEnd", "2026-12-02T00:00:00+01:00")
	total := f.create(`{"productName":"T","amount":1,"period":"total"}`).json["ProductId"].(string)
	f.get(total).want(t, 200, "Period", "total", "PeriodStart", nil, "PeriodEnd", nil)
	f.configure(total, `{"period":"day"}`).want(t, 409)
}

func TestKeysRotate(t *testing.T) {
	f := newFixture(t)
	id := f.create(simple).json["ProductId"].(string)
	a := f.configure(id, `{"addKey":true}`)
	added, _ := a.json["AddedKey"].(string)
	a.want(t, 200)
	f.get(added).want(t, 200, "ProductId", id)
	f.configure(id, `{"revokeKey":"`+key+`"}`).want(t, 200)
	f.get(key).want(t, 404)
	f.get(added).want(t, 200, "ProductId", id)
	f.configure(id, `{"revokeKey":"`+key+`"}`).want(t, 400, "field", "revokeKey")
	again := f.create(simple) // the revoked key may make another product
	if again.status != 200 || again.json["ProductId"] == id {
		t.Errorf("%d %s", again.status, again.text)
	}
	f.configure(id, `{"addKey":"`+key+`"}`).want(t, 409)
}

func TestTokenProduct(t *testing.T) {
	f := newFixture(t)
	f.create(`{"subscriptionKey":"`+key+`","productName":"P","amount":1000,"rateLimitOnCost":false}`).want(t, 200, "Amount", "1000", "Unit", "tokens", "RateLimitOnCost", false)
	f.update(`{"subscriptionKey":"`+key+`","prompt":"","responseBody":{"model":"gpt-4o","usage":{"prompt_tokens":100,"completion_tokens":11}}}`).want(t, 200)
	f.get(key).want(t, 200, "Amount", "889", "Spent", "111")
}

func TestUpdateRefuses(t *testing.T) {
	f := newFixture(t)
	f.create(simple).want(t, 200)
	for body, status := range map[string]int{
		`{}`: 400, `{"subscriptionKey":"` + key + `"}`: 400,
		`{"subscriptionKey":"` + key + `","prompt":"","responseBody":"nonsense"}`:                                                                400,
		`{"subscriptionKey":"` + key + `","prompt":"","responseBody":{"usage":{"prompt_tokens":1}}}`:                                             400, // no model
		`{"subscriptionKey":"` + key + `","prompt":"","responseBody":{},"x":1}`:                                                                  400,
		`{"subscriptionKey":"unknown-key-0123456789","prompt":"","responseBody":{"model":"gpt-4o","usage":{"prompt_tokens":1}}}`:                 404,
		`{"subscriptionKey":"` + key + `","prompt":"","responseBody":{"model":"never-heard-of","usage":{"prompt_tokens":1}}}`:                    200, // the dearest: it is spent
		`{"subscriptionKey":"` + key + `","prompt":"","responseBody":"{\"model\":\"gpt-4o\",\"usage\":{\"prompt_tokens\":1}}"}`:                  200,
		`{"subscriptionKey":"` + key + `","prompt":{"input":"x"},"responseBody":{"model":"text-embedding-3-small","usage":{"prompt_tokens":1}}}`: 200,
	} {
		if a := f.update(body); a.status != status {
			t.Errorf("%s: %d %s, want %d", body, a.status, a.text, status)
		}
	}
}

func TestGetAllAndHistory(t *testing.T) {
	f := newFixture(t)
	id := f.create(simple).json["ProductId"].(string)
	for range 3 {
		f.set(f.now().Add(time.Second))
		f.update(`{"subscriptionKey":"`+key+`","prompt":"","responseBody":{"model":"gpt-4o","usage":{"prompt_tokens":1000,"completion_tokens":100}}}`).want(t, 200)
	}
	var all []map[string]any
	if err := json.Unmarshal([]byte(f.call(f.admin.GetAll, "").text), &all); err != nil || len(all) != 1 {
		t.Fatalf("%v, %d products", err, len(all))
	}
	for name, want := range map[string]any{"SubscriptionKey": nil, "Amount": 12.5, "Balance": 12.4895, "TotalTokens": 3300.0, "Operation": "Create", "RowKey": id, "ProductId": id} {
		if all[0][name] != want {
			t.Errorf("%s = %v, want %v", name, all[0][name], want)
		}
	}
	page := func(query string) (records []map[string]any, link string, status int) {
		r := httptest.NewRequest(http.MethodGet, "/api/Quota/"+id+"/history"+query, nil)
		w := httptest.NewRecorder()
		f.admin.History(w, r, id)
		_ = json.Unmarshal(w.Body.Bytes(), &records) // a problem is no array
		return records, w.Header().Get("Link"), w.Code
	}
	records, link, _ := page("?limit=2&code=secret")
	if len(records) != 2 || !strings.Contains(link, `rel="next"`) || strings.Contains(link, "secret") {
		t.Fatalf("%d records, link %s", len(records), link)
	}
	r := records[0]
	if r["TransCost"] != 0.0035 || r["TotalTokens"] != 1100.0 || r["Model"] != "gpt-4o" || r["RowKey"] != r["id"] || r["cost_nano_usd"] != 3_500_000.0 || r["SubscriptionKey"] != nil {
		t.Errorf("row %v", r)
	}
	next, _, _ := strings.Cut(strings.TrimPrefix(link, "</api/Quota/"+id+"/history"), ">")
	rest, link, _ := page(next)
	if len(rest) != 2 || link != "" || rest[1]["kind"] != "create" {
		t.Errorf("second page: %d records, link %q", len(rest), link)
	}
	for _, bad := range []string{"?limit=0", "?limit=1001", "?limit=x", "?from=yesterday", "?after=nobody"} {
		if _, _, status := page(bad); status != 400 {
			t.Errorf("%s: %d", bad, status)
		}
	}
}

func TestStoreDown(t *testing.T) {
	f := newFixture(t)
	id := f.create(simple).json["ProductId"].(string)
	f.store.SetFaults(memstore.Faults{Down: true})
	a := f.get(id)
	a.want(t, 503)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestMe(t *testing.T) {
	f := newFixture(t)
	f.create(simple).want(t, 200)
	f.update(`{"subscriptionKey":"`+key+`","prompt":"","responseBody":{"model":"gpt-4o","usage":{"prompt_tokens":1000,"completion_tokens":100}}}`).want(t, 200)
	p, err := f.ledger.Find(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	f.call(func(w http.ResponseWriter, r *http.Request) { f.admin.Me(w, r, p) }, "").want(t, 200, "SubscriptionKey", nil, "Spent", "0.0035")
	records, _, _ := f.ledger.History(t.Context(), p.ID, ledger.HistoryQuery{Limit: 1})
	mine := func(id string) answer {
		return f.call(func(w http.ResponseWriter, r *http.Request) { f.admin.MyRecord(w, r, p, id) }, "")
	}
	mine(records[0].ID).want(t, 200, "id", records[0].ID, "rev", 1)
	mine("00000000-0000-7000-8000-000000000000").want(t, 404)
	mine("x").want(t, 404)
}

// tagsOf are tags that take so many bytes as JSON; they are sent unescaped.
func tagsOf(bytes int) string {
	tags, left := []string{}, bytes-len(`{}`)
	for i := 0; left > 0; i++ {
		name := fmt.Sprintf("t%02d", i)
		overhead := len(name) + len(`"":""`)
		if i > 0 {
			overhead++ // the comma
		}
		n := min(admin.TagValueRunesMax, (left-overhead)/6)
		value := strings.Repeat("<", n)
		if left -= overhead + 6*n; left < 6+20 { // what is left goes into this one
			value, left = value+strings.Repeat("x", left), 0
		}
		tags = append(tags, `"`+name+`":"`+value+`"`)
	}
	return `"tags":{` + strings.Join(tags, ",") + `}`
}

// TestTagsMax: every record carries the tags, so all of them together are bounded.
func TestTagsMax(t *testing.T) {
	f := newFixture(t)
	body := func(bytes int) string {
		return `{"productName":"P","amount":"1",` + tagsOf(bytes) + `}`
	}
	f.create(body(admin.TagsBytesMax)).want(t, http.StatusOK)
	f.create(body(admin.TagsBytesMax+1)).want(t, http.StatusBadRequest)
}
