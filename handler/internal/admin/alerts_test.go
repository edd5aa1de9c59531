package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/admin"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// shown is a member of an answer as its text has it.
func (a answer) shown(name string) string {
	var members map[string]json.RawMessage
	_ = json.Unmarshal([]byte(a.text), &members) // an answer that is none has no members
	return string(members[name])
}

func TestBudgetAlerts(t *testing.T) {
	f := newFixture(t)
	id := f.create(simple).json["ProductId"].(string)
	if got := f.get(id).shown("BudgetAlerts"); got != `[{"at":1,"do":"stop"}]` {
		t.Errorf("default: %s", got)
	}
	ok := func(sent, want string) {
		t.Helper()
		a := f.configure(id, `{"budgetAlerts":`+sent+`}`)
		a.want(t, 200)
		if got := a.shown("BudgetAlerts"); got != want {
			t.Errorf("%s is shown as %s, want %s", sent, got, want)
		}
		if again := f.configure(id, `{"budgetAlerts":`+want+`}`); again.status != 200 || again.shown("BudgetAlerts") != want { // what is shown may be sent
			t.Errorf("%s: %d %s", want, again.status, again.text)
		}
	}
	ok(`[]`, `[]`)
	ok(`[{"at": 0.8, "do": "notify"}, {"at": 1.0, "do": "stop"}]`, `[{"at":0.8,"do":"notify"},{"at":1,"do":"stop"}]`)
	ok(`[{"at":0.9,"do":"throttle","share":0.25}]`, `[{"at":0.9,"do":"throttle","share":0.25}]`)
	ok(`[{"AT":0.9,"Do":"Throttle","share":null,"on":null}]`, `[{"at":0.9,"do":"throttle","share":0.5}]`)
	ok(`[{"at":1.2,"do":"stop","on":"Forecasted"},{"at":1,"do":"stop","on":"actual"}]`, `[{"at":1.2,"do":"stop","on":"forecasted"},{"at":1,"do":"stop"}]`)
	ok(`[{"at":0.000001,"do":"notify"},{"at":10,"do":"throttle","share":0.000001},{"at":10,"do":"throttle","share":1}]`,
		`[{"at":0.000001,"do":"notify"},{"at":10,"do":"throttle","share":0.000001},{"at":10,"do":"throttle","share":1}]`)
	step := `{"at":1,"do":"stop"},`
	ok(`[`+strings.Repeat(step, admin.StepsMax-1)+`{"at":1,"do":"stop"}]`, `[`+strings.Repeat(step, admin.StepsMax-1)+`{"at":1,"do":"stop"}]`)

	bad := func(sent, field, fix string) {
		t.Helper()
		a := f.configure(id, `{"budgetAlerts":`+sent+`}`)
		a.want(t, 400, "field", field)
		if detail, _ := a.json["detail"].(string); !strings.Contains(detail, fix) || !strings.Contains(detail, field) {
			t.Errorf("%s: %s; want %q and %q", sent, detail, field, fix)
		}
	}
	bad(`{}`, "budgetAlerts", "must be an array")
	bad(`[`+strings.Repeat(step, admin.StepsMax)+`{"at":1,"do":"stop"}]`, "budgetAlerts", "at most 20 steps")
	bad(`[5]`, "budgetAlerts[0]", "not a JSON object")
	bad(`[{}]`, "budgetAlerts[0]", `needs "at" and "do"`)
	bad(`[{"at":1}]`, "budgetAlerts[0]", `needs "at" and "do"`)
	bad(`[{"at":1,"do":"stop"},{"do":"stop"}]`, "budgetAlerts[1]", `needs "at" and "do"`)
	bad(`[{"at":1,"do":"stop","if":1}]`, "budgetAlerts[0]", "Known are: at, do, share, on")
	bad(`[{"at":1,"at":1,"do":"stop"}]`, "budgetAlerts[0]", `"at" is there twice`)
	for _, at := range []string{"0", "-1", "10.000001", "0.0000001", `"0.8"`, "1e1", "null"} {
		bad(`[{"at":`+at+`,"do":"stop"}]`, "budgetAlerts[0].at", "up to 10 with at most 6 decimals")
	}
	bad(`[{"at":1,"do":"pause"}]`, "budgetAlerts[0].do", `"notify" or "stop" or "throttle"`)
	bad(`[{"at":1,"do":null}]`, "budgetAlerts[0].do", `"notify" or "stop" or "throttle"`)
	bad(`[{"at":1,"do":"stop","on":"guess"}]`, "budgetAlerts[0].on", `"actual" or "forecasted"`)
	for _, share := range []string{"0", "-0.5", "1.000001", "0.0000001", `"half"`} {
		bad(`[{"at":1,"do":"throttle","share":`+share+`}]`, "budgetAlerts[0].share", "up to 1 with at most 6 decimals")
	}
	bad(`[{"at":1,"do":"stop","share":0.5}]`, "budgetAlerts[0].share", `"throttle" only`)
}

func TestBudgetName(t *testing.T) {
	f := newFixture(t)
	id := f.create(simple).json["ProductId"].(string)
	scope := "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/" + strings.Repeat("g", 90)
	f.configure(id, `{"budgetName":"`+scope+`"}`).want(t, 200, "BudgetName", scope)
	f.configure(id, `{"budgetName":"`+strings.Repeat("b", admin.BudgetRunesMax)+`"}`).want(t, 200)
	f.configure(id, `{"budgetName":"`+strings.Repeat("b", admin.BudgetRunesMax+1)+`"}`).want(t, 400, "field", "budgetName")
	f.configure(id, `{"budgetName":""}`).want(t, 400, "field", "budgetName")
}

// brake does to a product what an alert does.
func (f *fixture) brake(id string, until time.Time) {
	f.t.Helper()
	_, _, err := f.ledger.Edit(f.t.Context(), id, ledger.Once{}, func(d *ledger.Draft) error {
		d.Product.JoinStop(quota.Stop{Reason: "the Azure budget b has reached 100 %", By: "budget alert 1", Since: f.now(), Until: until})
		d.Product.JoinThrottle(quota.Throttle{SharePPM: 250_000, Reason: "the Azure budget b has reached 90 %", By: "budget alert 1", Since: f.now(), Until: until})
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestStateAndThrottle(t *testing.T) {
	f := newFixture(t)
	december := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	open := func(id string) {
		t.Helper()
		a := f.get(id)
		a.want(t, 200, "State", "open", "Throttle", nil)
		if a.shown("Throttle") != "null" || a.shown("StopReason") != "" || a.shown("ThrottleUntil") != "" {
			t.Errorf("open: %s", a.text)
		}
	}
	id := f.create(simple).json["ProductId"].(string)
	open(id)
	f.brake(id, december)
	f.get(id).want(t, 200, "State", "stopped", "StopReason", "the Azure budget b has reached 100 %", "StopUntil", "2026-12-01T00:00:00Z",
		"Throttle", 0.25, "ThrottleReason", "the Azure budget b has reached 90 %", "ThrottleUntil", "2026-12-01T00:00:00Z")
	f.configure(id, `{"state":"open"}`).want(t, 200, "State", "open", "Throttle", nil)
	open(id)
	f.brake(id, december)
	f.configure(id, `{"state":"stopped"}`).want(t, 200, "State", "stopped", "StopReason", "an operator stopped it", "StopUntil", nil, "Throttle", 0.25)
	f.brake(id, december) // a later alert does not end an operator's stop
	f.set(december)
	f.get(id).want(t, 200, "State", "stopped", "Throttle", nil)
	f.configure(id, `{"state":"open"}`).want(t, 200, "State", "open")
	open(id)
	f.brake(id, december.AddDate(0, 1, 0))
	f.set(december.AddDate(0, 1, 0)) // it ends by itself
	open(id)
	f.configure(id, `{"state":"open"}`).want(t, 200)
	open(id)
}

// told is what the history says of a product: kind, charge, who, call, words.
func (f *fixture) told(id string, past map[string]bool) (lines []string) {
	f.t.Helper()
	err := f.ledger.EachRecord(f.t.Context(), id, func(r usage.Record) error {
		if !past[r.ID] {
			past[r.ID] = true
			lines = append(lines, fmt.Sprintf("%s %d %s|%s|%s", r.Kind, r.Charge.N, r.User, r.RequestID, r.UsageExtra))
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func TestHistoryTellsWhoDidWhat(t *testing.T) {
	f := newFixture(t)
	id := f.create(simple).json["ProductId"].(string)
	past := map[string]bool{}
	f.told(id, past)
	by := []string{"X-Costgate-Actor", "ann@example.test", "X-Request-Id", "r1"}
	do := func(body string, header []string, want ...string) {
		t.Helper()
		f.configure(id, body, header...).want(t, 200)
		if got := f.told(id, past); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", body, got, want)
		}
	}
	do(`{"state":"stopped"}`, by, "stop 0 ann@example.test|r1|")
	do(`{"state":"open"}`, by, `lift 0 ann@example.test|r1|{"stop":true,"throttle":false}`)
	do(`{"deposit":"2"}`, by, "deposit -2000000000 ann@example.test|r1|")
	do(`{"amount":"20","tags":{"a":"b"},"models":null}`, by, `config 0 ann@example.test|r1|{"changed":{"amount":"20","models":true,"tags":true}}`)
	do(`{"state":"stopped","deposit":"1","maxOutputTokens":5}`, by,
		`config 0 ann@example.test|r1|{"changed":{"maxOutputTokens":true}}`, "deposit -1000000000 ann@example.test|r1|", "stop 0 ann@example.test|r1|")
	do(`{"state":"stopped","enforcement":null}`, by, "config 0 ann@example.test|r1|") // changes nothing
	other := "admin-other-key-0123456789"
	keyID := "k_" + quota.HashKey(other)[:12]
	do(`{"addKey":"`+other+`"}`, nil, `config 0 admin key||{"changed":{"addKey":"`+keyID+`"}}`)
	do(`{"revokeKey":"`+other+`"}`, nil, `config 0 admin key||{"changed":{"revokeKey":"`+keyID+`"}}`)
	do(`{}`, append([]string{"X-Ms-Client-Principal-Name", "Ann Ä"}, by...), "config 0 Ann Ä|r1|")
	f.create(simple, by...).want(t, 200) // a repeated Create
	if got, want := f.told(id, past), []string{`config 0 ann@example.test|r1|{"changed":{"amount":"12.5","productName":true}}`}; !slices.Equal(got, want) {
		t.Errorf("Create again:\n got %q\nwant %q", got, want)
	}
	p, err := f.ledger.Find(t.Context(), id)
	if err != nil || p.Stop.By != "ann@example.test" {
		t.Errorf("%v, stopped by %+v", err, p.Stop)
	}
}

func TestActorIsNoKey(t *testing.T) {
	f := newFixture(t)
	id := f.create(simple).json["ProductId"].(string)
	bad := func(keyID, body string, header ...string) {
		t.Helper()
		a := f.configure(keyID, body, header...)
		a.want(t, 400, "field", "X-Costgate-Actor")
		if strings.Contains(a.text, key) {
			t.Errorf("the answer has the key: %s", a.text)
		}
	}
	bad(key, `{}`, "X-Costgate-Actor", key)
	bad(id, `{"revokeKey":"`+key+`"}`, "X-Costgate-Actor", key)
	bad(id, `{"addKey":"`+key+`2"}`, "X-Costgate-Actor", key+"2")
	bad(id, `{}`, "X-Costgate-Actor", "function-key", "X-Functions-Key", "function-key")
	bad(id, `{}`, "X-Costgate-Actor", strings.Repeat("é", admin.CallerRunesMax+1))
	bad(id, `{}`, "X-Costgate-Actor", "a\tb")
	f.create(simple, "X-Costgate-Actor", key).want(t, 400, "field", "X-Costgate-Actor")
	f.configure(id, `{}`, "X-Costgate-Actor", strings.Repeat("é", admin.CallerRunesMax)).want(t, 200)
	code := f.call(func(w http.ResponseWriter, r *http.Request) {
		r.URL.RawQuery = "code=the-admin-key"
		f.admin.Configure(w, r, id)
	}, `{}`, "X-Costgate-Actor", "the-admin-key")
	code.want(t, 400, "field", "X-Costgate-Actor")
}
