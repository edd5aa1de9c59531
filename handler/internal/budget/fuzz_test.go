package budget_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/budget"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
)

// watched stands for the books: it tells which products an alert was carried out
// on and which it braked.
type watched struct {
	products []*quota.Product
	mu       sync.Mutex
	touched  map[string]bool
	braked   map[string]bool
}

func newWatched() *watched {
	w := new(watched)
	add := func(id, budgetName string, tags map[string]string) {
		w.products = append(w.products, &quota.Product{ID: id, BudgetName: budgetName, Tags: tags, BudgetAlerts: graduated})
	}
	add("by name", "team-a", nil)
	add("by another name", "team-b", nil)
	add("by scope", "/subscriptions/s1/", nil)
	add("by id", "/subscriptions/s1/providers/Microsoft.Consumption/budgets/team-b", nil)
	add("by tag", "none", map[string]string{"budget": "team-c, /subscriptions/s2"})
	add("by nothing", "", map[string]string{"budget": " , "})
	return w
}

func (w *watched) Products(context.Context) ([]*quota.Product, error) { return w.products, nil }

func (w *watched) Edit(_ context.Context, id string, _ ledger.Once, edit func(d *ledger.Draft) error) (*quota.Product, bool, error) {
	for _, p := range w.products {
		if p.ID == id {
			w.mu.Lock()
			defer w.mu.Unlock()
			copied := *p
			w.touched[id] = true
			err := edit(&ledger.Draft{Product: &copied})
			w.braked[id] = copied.Stop != nil || copied.Throttle != nil
			return &copied, true, err
		}
	}
	return nil, false, ledger.ErrUnknownProduct
}

func (w *watched) AlertNotice(_ context.Context, p *quota.Product, _ string, _ time.Time, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.touched[p.ID] = true
	return nil
}

// names gathers, by another reader, what a body could name a budget with.
func names(value any, into map[string][]string) {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if text, ok := inner.(string); ok {
				into[strings.ToLower(key)] = append(into[strings.ToLower(key)], strings.ToLower(strings.TrimSpace(text)))
			}
			names(inner, into)
		}
	case []any:
		for _, inner := range v {
			names(inner, into)
		}
	}
}

// check posts a body and holds what happened against what the body names.
func check(tb testing.TB, w *watched, h *budget.Handler, body []byte) (status int) {
	w.touched, w.braked = map[string]bool{}, map[string]bool{}
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest("POST", "/api/Quota/Budget", bytes.NewReader(body)))
	if s := answer.Code; s != 200 && s != 400 && s != 413 {
		tb.Fatalf("%q: %d", body, s)
	}
	if len(w.touched) == 0 {
		return answer.Code
	}
	var document any
	decoder := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))))
	decoder.UseNumber() // 1e400 is JSON
	if err := decoder.Decode(&document); err != nil {
		tb.Fatalf("%q: no JSON, but carried out on %v", body, w.touched)
	}
	said := map[string][]string{}
	names(document, said)
	has := func(key string, is func(text string) bool) bool {
		for _, text := range said[key] {
			if is(text) {
				return true
			}
		}
		return false
	}
	equals := func(want string) func(string) bool { // Unicode's folding: "ſ" is an s, and the Kelvin sign a k
		return func(text string) bool { return strings.EqualFold(strings.TrimRight(text, "/"), want) }
	}
	id := func(prefix string) bool {
		return has("budgetid", func(text string) bool { return strings.HasPrefix(strings.ToLower(text), prefix) })
	}
	named := func(name string) bool {
		return has("budgetname", equals(name)) || has("budgetid", func(text string) bool { return strings.HasSuffix(strings.TrimRight(text, "/"), "/"+name) })
	}
	want := map[string]bool{
		"by name": named("team-a"), "by another name": named("team-b"),
		"by scope": has("scope", equals("/subscriptions/s1")) || id("/subscriptions/s1/") || has("subscriptionid", equals("s1")),
		"by id":    id("/subscriptions/s1/providers/microsoft.consumption/budgets/team-b") || has("scope", equals("/subscriptions/s1/providers/microsoft.consumption/budgets/team-b")),
		"by tag":   named("team-c") || has("scope", equals("/subscriptions/s2")) || id("/subscriptions/s2/") || has("subscriptionid", equals("s2")),
	}
	for product := range w.touched {
		if !want[product] {
			tb.Fatalf("%q: carried out on the product %q, which it does not name", body, product)
		}
	}
	return answer.Code
}

var seeds = []string{
	actualBody, forecastBody, partialBody, legacyBody, legacyShareBody, otherBody, alert("Actual", "team-b", "$50.00", now), forecast("team-c", "$1", "$100.00", now),
	`{"data":{"BudgetName":"team-b","Budget":1,"SpendingAmount":1,"SubscriptionId":"s2"}}`,
	strings.ReplaceAll(actualBody, "team-a", "team-b"),
}

func FuzzAlert(f *testing.F) {
	for _, body := range seeds {
		f.Add([]byte(body))
	}
	w := newWatched()
	h := budget.New(budget.Options{Ledger: w, Now: func() time.Time { at, _ := time.Parse(time.RFC3339, now); return at }})
	f.Fuzz(func(t *testing.T, data []byte) { check(t, w, h, data) })
}

func FuzzParseAmount(f *testing.F) {
	for _, text := range []string{"$11,111.00", "1.111,00 €", "1 234", "(5)", "₹1,00,000.00", "1e3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a := budget.ParseAmount(text)
		digits := strings.ContainsAny(text, "123456789")
		if a.Known && a.Nano != 0 && !digits {
			t.Errorf("%q is %v", text, a.Nano)
		}
		if a.Known && a.Nano == 0 && !strings.Contains(text, "0") {
			t.Errorf("%q is zero", text)
		}
		if !a.Known && a.Nano != 0 {
			t.Errorf("%q is unknown, and %v", text, a.Nano)
		}
	})
}

// tokens are what mutations put in.
var tokens = []string{
	`"team-a"`, `"team-b"`, `"TEAM-C"`, `"/subscriptions/s1"`, `"/subscriptions/s2/"`, `null`, `0`, `-1`, `1e400`, `true`, `[]`, `{}`, `""`, `"$1,000.00"`, `"1.000"`,
	`"Actual"`, `"Forecasted"`, `"BudgetName":`, `"Scope":`, `"BudgetId":`, `"data":`, `,`, `{`, `}`, `"`, `\u0000`, "\xff", `"9999-12-31T23:59:59Z"`, `"0000-01-01T00:00:00Z"`,
	`"AIP Budget Notification"`, `"azureMonitorCommonAlertSchema"`, `"monitoringService":"Platform"`, "\xef\xbb\xbf", `[[[[[[[[`, `"SpentAmount":"$999,999.00"`,
}

func mutate(random *rand.Rand, corpus [][]byte) []byte {
	body := bytes.Clone(corpus[random.IntN(len(corpus))])
	for range 1 + random.IntN(3) {
		if len(body) == 0 {
			break
		}
		at := random.IntN(len(body))
		end := min(len(body), at+random.IntN(20))
		switch random.IntN(12) {
		case 0:
			body[at] ^= 1 << random.IntN(8)
		case 1:
			body = append(body[:at:at], body[end:]...)
		case 2: // twice
			body = append(body[:end:end], body[at:]...)
		case 3:
			body = append(append(body[:at:at], tokens[random.IntN(len(tokens))]...), body[end:]...)
		case 4: // two bodies become one
			other := corpus[random.IntN(len(corpus))]
			body = append(body[:at:at], other[random.IntN(len(other)):]...)
		default: // a value becomes another one
			if colon := bytes.IndexByte(body[at:], ':'); colon >= 0 {
				begin := at + colon + 1
				if stop := bytes.IndexAny(body[begin:], ",}"); stop >= 0 {
					body = append(append(body[:begin:begin], tokens[random.IntN(len(tokens))]...), body[begin+stop:]...)
				}
			}
		}
	}
	return body
}

// TestMutatedAlerts: 100,000 broken, odd and mixed-up alerts; none panics, and
// none is carried out on a product that it does not name.
func TestMutatedAlerts(t *testing.T) {
	var corpus [][]byte
	for _, body := range seeds {
		corpus = append(corpus, []byte(body))
	}
	files, _ := filepath.Glob(filepath.Join(os.Getenv("COSTGATE_TESTDATA"), "host-and-budget", "budget-*.json")) // Microsoft's own, where they are
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		corpus = append(corpus, data)
	}
	w := newWatched()
	h := budget.New(budget.Options{Ledger: w, Now: func() time.Time { at, _ := time.Parse(time.RFC3339, now); return at }})
	random := rand.New(rand.NewPCG(8, 8))
	understood, braked := 0, 0
	for range 100_000 {
		if check(t, w, h, mutate(random, corpus)) == 200 {
			understood++
		}
		for _, b := range w.braked {
			if b {
				braked++
			}
		}
	}
	if understood < 10_000 || braked < 1_000 { // the test looks at something
		t.Errorf("%d understood, %d brakes", understood, braked)
	}
	t.Logf("%d understood, %d brakes", understood, braked)
}
