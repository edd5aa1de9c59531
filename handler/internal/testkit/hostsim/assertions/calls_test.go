package assertions_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/testkit/azurite"
	"github.com/costgate/costgate/handler/internal/testkit/faultproxy"
	"github.com/costgate/costgate/handler/internal/testkit/hostsim"
)

func (b *bench) timer(t *testing.T) {
	now := time.Now()
	status := &hostsim.TickStatus{Last: now.Add(-time.Minute), Next: now, LastUpdated: now.Add(-time.Minute)}
	for _, tick := range []hostsim.Tick{{}, {PastDue: true}, {Status: status}, {Status: status, PastDue: true}} {
		logs, err := b.Tick(t.Context(), "Maintain", tick)
		if err != nil || len(logs) != 1 || !strings.HasPrefix(logs[0], "done in ") || strings.Contains(logs[0], "past due") != tick.PastDue {
			t.Errorf("%+v: %v %v", tick, logs, err)
		}
	}
	for _, path := range []string{"/Maintain", "/maintain/"} { // no redirect, and never an empty answer
		a := do(t, "POST", b.HandlerURL()+path, strings.NewReader(`{"Data":{"timer":"{}"},"Metadata":{}}`))
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(a.body, "{") {
			t.Errorf("%s: %d %v %q", path, a.status, a.header, a.body)
		}
	}
	if a := b.api("POST", "/admin/functions/Maintain", ""); a.status != http.StatusAccepted {
		t.Errorf("admin: %d", a.status)
	}
}

// A GET whose handler dies is sent to the next one. What it makes known is
// charged once.
func getSentAgain(t *testing.T, u *upstream) {
	h := startHost(t, hostsim.Options{Env: settings(t, u)})
	p := h.product("again", "10")
	const id = "resp_again"
	response := func(status, usage string) string {
		return fmt.Sprintf(`{"id":%q,"object":"response","status":%q,"background":true,"model":"trial","output":[],"usage":%s}`, id, status, usage)
	}
	asJSON := func(text string) script {
		return func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, text)
		}
	}
	u.script("again", asJSON(response("queued", "null")))
	a := do(t, "POST", h.URL+"/openai/v1/responses", strings.NewReader(`{"model":"trial","user":"again","input":"hi","background":true,"store":true,"max_output_tokens":100}`), "Api-Key", p.key)
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if r := h.one(p, "again"); r.Charge != r.Hold || r.Charge == 0 {
		t.Errorf("before it is known: %+v", r)
	}
	arrived := make(chan struct{})
	done := asJSON(response("completed", `{"input_tokens":5,"output_tokens":7,"total_tokens":12}`))
	u.script("GET /openai/v1/responses/"+id, func(w http.ResponseWriter, r *http.Request, body string) {
		if len(u.got("/openai/v1/responses/"+id)) > 1 {
			done(w, r, body)
			return
		}
		close(arrived)
		<-r.Context().Done()
	})
	answered := make(chan answer, 1)
	go func() { answered <- do(t, "GET", h.URL+"/openai/v1/responses/"+id, nil, "Api-Key", p.key) }()
	<-arrived
	h.Kill()
	if a := <-answered; a.status != http.StatusOK || !strings.Contains(a.body, `"completed"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := len(u.got("/openai/v1/responses/" + id)); n != 2 {
		t.Errorf("sent %d times", n)
	}
	if a := do(t, "GET", h.URL+"/openai/v1/responses/"+id, nil, "Api-Key", p.key); a.status != http.StatusOK { // and once more
		t.Errorf("%d %s", a.status, a.body)
	}
	if r := h.one(p, "again"); r.Charge != cost(5, 7) || r.Rev != 2 || r.UsageSource != "provider" {
		t.Errorf("%+v, want %d", r, cost(5, 7))
	}
	h.balanced(p)
	h.verify()
}

// A host that does not proxy gets a clear answer for every function, at once.
func oldHost(t *testing.T, u *upstream) {
	h := startHost(t, hostsim.Options{Env: settings(t, u), Mode: hostsim.ModeEnvelope})
	before := u.count()
	for _, call := range [][2]string{
		{"POST", "/api/Quota"}, {"GET", "/api/Quota"}, {"GET", "/api/Quota/x"}, {"PATCH", "/api/Quota/x"}, {"GET", "/api/Quota/x/history"},
		{"POST", "/api/Quota/Update"}, {"POST", "/api/Quota/Budget"}, {"GET", "/health"}, {"GET", "/me"}, {"POST", chatPath}, {"POST", "/services/w/x"},
	} {
		a := h.api(call[0], call[1], "{}")
		if a.status != http.StatusNotImplemented || a.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.body, "enableProxyingHttpRequest") {
			t.Errorf("%v: %d %v %q", call, a.status, a.header, a.body)
		}
	}
	if n := u.count() - before; n != 0 {
		t.Errorf("%d requests went upstream", n)
	}
	if !strings.Contains(h.Stdout(), "too old") || h.Stderr() != "" || len(h.Exits()) != 0 {
		t.Errorf("logs %s %s, exits %v", h.Stdout(), h.Stderr(), h.Exits())
	}
	if _, err := h.Timer(t.Context(), "Maintain"); err != nil { // timers are envelopes on every host
		t.Error(err)
	}

	h = startHost(t, hostsim.Options{Env: settings(t, u), Mode: hostsim.ModeForward}) // serves, without streaming
	p := h.product("forwarded", "10")
	a := do(t, "POST", h.URL+chatPath, chat("forwarded", true, withUsage), "Api-Key", p.key, "X-Azure-Functions-InvocationId", "mine")
	if r := h.one(p, "forwarded"); a.status != http.StatusOK || !strings.HasSuffix(a.body, doneEvent) || r.UsageSource != "provider" || r.Charge == 0 {
		t.Errorf("%d %q %+v", a.status, a.body, r)
	}
	for _, s := range u.got("forwarded") {
		if s.header.Get("X-Azure-Functions-Invocationid") != "" || s.header.Get("X-Azure-Functions-Hostversion") != "" {
			t.Errorf("upstream got %v", s.header)
		}
	}
}

// alert is a budget alert in the common schema.
func alert(kind, budget, spent string) string {
	return fmt.Sprintf(`{"schemaId":"azureMonitorCommonAlertSchema","data":{"essentials":{"monitoringService":"CostAlerts","firedDateTime":%q,"severity":null},
		"alertContext":{"AlertCategory":"budgets","AlertData":{"Scope":"/subscriptions/1/","ThresholdType":%q,"BudgetType":"Cost","BudgetThreshold":"$50.00",
		"NotificationThresholdAmount":"$50.00","BudgetName":%q,"BudgetId":"/subscriptions/1/b","BudgetStartDate":"2026-11-01","SpentAmount":%q}}}}`,
		time.Now().UTC().Format(time.RFC3339), kind, budget, spent)
}

func budgetAlert(t *testing.T, u *upstream) {
	table := faultproxy.Start(t, tablesURL(t))
	h := startHost(t, hostsim.Options{Env: settings(t, u, "QuotaStorage="+azurite.ConnectionString(table.URL+"/"+azurite.Account)), Scale: 1})
	p := h.product("alerted", "10", `,"budgetName":"Team"`)
	f := func(body string, status int, want, state string) {
		t.Helper()
		a := h.api("POST", "/api/Quota/Budget", body)
		if a.status != status || want != "" && strings.TrimSpace(a.body) != want {
			t.Errorf("%d %q", a.status, a.body)
		}
		if v := h.view(p.id); v.State != state {
			t.Errorf("after %s: %+v", body, v)
		}
	}
	f(alert("Forecasted", "Team", "$60.00"), 200, "true", "open")
	f(alert("Actual", "Nobody's", "$60.00"), 200, "true", "open")
	f(`{"schemaId":"azureMonitorCommonAlertSchema"`, 400, "", "open")
	stop := alert("Actual", "Team", "$60.00")
	down := func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "$batch")
	}
	table.Next(down, repeat(faultproxy.Fault{Status: http.StatusServiceUnavailable, Code: "ServerBusy"}, 2000)...)
	began := time.Now()
	if a := h.api("POST", "/api/Quota/Budget", stop); a.status != http.StatusServiceUnavailable { // which an action group tries again, and a 500 not
		t.Errorf("outage: %d %s", a.status, a.body)
	}
	t.Logf("an outage was told after %v", time.Since(began).Round(100*time.Millisecond))
	table.Next(down)
	f(stop, 200, "true", "stopped")
	f(stop, 200, "true", "stopped")
	if a := do(t, "POST", h.URL+chatPath, chat("stopped", false), "Api-Key", p.key); a.status != 429 || a.code() != "insufficient_quota" || len(u.got("stopped")) != 0 {
		t.Errorf("stopped: %d %s", a.status, a.body)
	}
}

func repeat(f faultproxy.Fault, n int) []faultproxy.Fault {
	all := make([]faultproxy.Fault, n)
	for i := range all {
		all[i] = f
	}
	return all
}

// tablesURL is the address of the test binary's Azurite.
func tablesURL(t *testing.T) string {
	t.Helper()
	_, rest, _ := strings.Cut(azurite.Start(t), "TableEndpoint=")
	endpoint, _, _ := strings.Cut(rest, "/"+azurite.Account)
	return endpoint
}
