package service_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/service"
	"github.com/costgate/costgate/handler/internal/usage"
)

func TestCall(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.001","pricePerKB":"0.0001","bodyBytesMax":2048`, nil, nil)
	b.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Request-Id", "up-1")
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.Header().Set("X-Costgate-Cost", "forged")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1000))
	}
	answer, text, err := b.do("PUT", "/Services/W/a%2Fb//c/?q=1&code=fk&q=%20+", strings.Repeat("y", 25), "X-Request-Id", "caller-1", "Cookie", "session=1",
		"X-Functions-Key", "fk", "X-Costgate-Product", "forged", "X-Forwarded-For", "10.0.0.1", "X-Own", "mine")
	if err != nil || answer.StatusCode != 201 || len(text) != 1000 || len(answer.Header["Set-Cookie"]) != 2 {
		t.Fatalf("%d, %d bytes, %v, %v", answer.StatusCode, len(text), answer.Header, err)
	}
	got := b.requests()[0]
	if got.method != "PUT" || got.uri != "/base/a%2Fb//c/?q=1&q=%20+" || got.body != strings.Repeat("y", 25) || "http://"+got.host != b.service.URL {
		t.Errorf("the service saw %+v", got)
	}
	if got.header.Get("X-Own") != "mine" || got.header.Get("X-Request-Id") != "caller-1" || got.header.Get("Content-Length") != "25" ||
		got.header.Get("Accept-Encoding") != "" || got.header.Get("Api-Key") != "" {
		t.Errorf("headers %v", got.header)
	}
	for _, name := range []string{"Cookie", "X-Functions-Key", "X-Costgate-Product", "X-Forwarded-For"} {
		if got.header.Get(name) != "" {
			t.Errorf("%s travelled", name)
		}
	}
	// 1,025 bytes have begun two KB.
	for name, want := range map[string]string{
		"X-Costgate-Cost": "0.0012", "X-Costgate-Remaining": "0.9988", "X-Costgate-Hold": "0.0013", "X-Costgate-Product": b.product.ID, "X-Costgate-Usage-Source": "tokenizer",
	} {
		if got := answer.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	r := b.settled(1)[0]
	if r.ID != answer.Header.Get("X-Costgate-Request-Id") || r.Operation != "service" || r.Deployment != "w" || r.Status.N != 201 || r.Outcome != "completed" ||
		r.UsageSource != "tokenizer" || r.PriceKey != "service/w" || !strings.HasPrefix(string(r.PriceBook), "services-") || r.Stream == nil || *r.Stream ||
		r.Charge.N != 1_200_000 || r.CostNanoUSD.N != 1_200_000 || r.ListCostNanoUSD.N != 1_200_000 || r.HoldNanoUSD.N != 1_300_000 || r.KeyID != "k" ||
		r.RequestID != "caller-1" || r.UpstreamRequestID != "up-1" || r.Attempts.N != 1 || !r.LatencyMS.Known || !r.FirstByteMS.Known || r.Model != "" {
		t.Errorf("record %+v", r)
	}
	if diff := cmp.Diff([]usage.Item{{Meter: service.MeterCall, Quantity: 1}, {Meter: service.MeterKB, Quantity: 2}}, r.Items); diff != "" {
		t.Error(diff)
	}
}

func TestMethodsAndStatuses(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.001"`, nil, nil)
	n := 0
	f := func(method string, status int, outcome string) {
		t.Helper()
		b.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			w.Header().Set("Location", "/elsewhere")
			if status != 204 && status != 304 {
				w.Header().Set("Content-Length", "2")
			}
			w.WriteHeader(status)
			if method != "HEAD" && status != 204 && status != 304 {
				_, _ = io.WriteString(w, "ok")
			}
		}
		answer, text, err := b.do(method, "/services/w/x", "")
		n++
		r := b.record(answer, n)
		if err != nil || answer.StatusCode != status || answer.Header.Get("Location") != "/elsewhere" || len(answer.Header["Content-Type"]) != 0 ||
			string(r.Outcome) != outcome || r.Status.N != int64(status) || r.Charge.N != 1_000_000 || answer.Header.Get("X-Costgate-Cost") != "0.001" {
			t.Errorf("%s %d: %d %q %v, record %s %v, %v", method, status, answer.StatusCode, text, answer.Header, r.Outcome, r.Charge, err)
		}
		if method == "HEAD" && answer.Header.Get("Content-Length") != "2" {
			t.Error("HEAD lost the size of the answer")
		}
	}
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} {
		f(method, 200, "completed")
	}
	f("GET", 204, "completed")
	f("GET", 304, "completed")
	f("GET", 301, "completed") // passed on, not followed
	f("POST", 307, "completed")
	f("GET", 404, "upstream_error")
	f("GET", 429, "upstream_error")
	f("GET", 503, "upstream_error")
	if got := len(b.requests()); got != n {
		t.Errorf("%d calls for %d requests", got, n)
	}
}

func TestRefusals(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.001","bodyBytesMax":1000`, nil, nil)
	f := b.refused
	f(404, "not_found", "GET", "/services/other/x", "")
	f(404, "not_found", "GET", "/services//w/x", "")
	f(401, "invalid_api_key", "GET", "/services/w/x", "", "Api-Key", "")
	f(401, "invalid_api_key", "GET", "/services/other/x", "", "Api-Key", "wrong-key-0123456789")
	f(405, "method_not_allowed", "PROPFIND", "/services/w/x", "")
	f(405, "method_not_allowed", "TRACE", "/services/w/x", "")
	f(501, "upgrade_not_supported", "GET", "/services/w/x", "", "Connection", "Upgrade", "Upgrade", "websocket")
	f(501, "upgrade_not_supported", "GET", "/services/w/x", "", "Upgrade", "h2c, foo/2")
	f(501, "upgrade_not_supported", "GET", "/services/w/x", "", "Sec-Websocket-Key", "x")
	for _, path := range []string{"/%2e%2e/admin", "/%252e%252e/admin", "/..;/admin", "/a%5c..%5cadmin", "//h/x", "/%2f/h", "/a%00", "/a%0d%0aX:1"} {
		f(400, "invalid_path", "GET", "/services/w"+path, "")
	}
	f(413, "request_too_large", "POST", "/services/w/x", strings.Repeat("x", 1001))
	answer, err := client.Do(b.request("POST", "/services/w/x", io.MultiReader(strings.NewReader(strings.Repeat("x", 1001))))) // chunked
	if err != nil || answer.StatusCode != 413 {
		t.Errorf("chunked: %v, %v", answer, err)
	}
	if n := len(b.requests()); n != 0 {
		t.Errorf("%d requests reached the service", n)
	}
	for _, body := range []io.Reader{strings.NewReader(strings.Repeat("x", 1000)), io.MultiReader(strings.NewReader(strings.Repeat("x", 1000)))} {
		if answer, err := client.Do(b.request("POST", "/services/w/x", body)); err != nil || answer.StatusCode != 200 {
			t.Errorf("at the limit: %v, %v", answer, err)
		}
	}
	if answer, _, _ := b.do("GET", "/services/w/x", "", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "Http2-Settings", "AAMA"); answer.StatusCode != 200 {
		t.Errorf("an offer of HTTP/2: %d", answer.StatusCode)
	}
	b.settled(3)
}

// The product's key travels by no way; other credentials do only with auth pass.
func TestAuth(t *testing.T) {
	f := func(fields string, header []string, want http.Header) {
		t.Helper()
		b := newBench(t, fields+`,"pricePerCall":"0"`, nil, nil)
		if answer, text, _ := b.do("GET", "/services/w/x", "", header...); answer.StatusCode != 200 {
			t.Fatalf("%v: %d %s", header, answer.StatusCode, text)
		}
		got := http.Header{}
		for name, values := range b.requests()[0].header {
			switch name {
			case "Api-Key", "Authorization", "Ocp-Apim-Subscription-Key", "X-Key", "X-Functions-Key":
				got[name] = values
			}
			if strings.Contains(strings.Join(values, ""), productKey) {
				t.Errorf("%v: the product's key travelled in %s", header, name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, %v: %s", fields, header, diff)
		}
	}
	const bearer = "Bearer " + productKey
	pass := `"auth":"pass"`
	f(pass, []string{"Authorization", "Bearer own"}, http.Header{"Authorization": {"Bearer own"}})
	f(pass, []string{"Authorization", bearer}, http.Header{}) // in both
	f(pass, []string{"Api-Key", "", "Authorization", bearer, "X-Key", "own"}, http.Header{"X-Key": {"own"}})
	f(pass, []string{"Api-Key", "", "Ocp-Apim-Subscription-Key", productKey, "Authorization", "Basic b3du"}, http.Header{"Authorization": {"Basic b3du"}})
	f(pass, []string{"Ocp-Apim-Subscription-Key", "own", "Authorization", "Basic b3du"},
		http.Header{"Authorization": {"Basic b3du"}, "Ocp-Apim-Subscription-Key": {"own"}})
	header := `"auth":"header","header":"x-key","secretSetting":"KEY"`
	f(header, []string{"Authorization", "Bearer own", "X-Key", "forged", "Ocp-Apim-Subscription-Key", "own"}, http.Header{"X-Key": {"s3cret"}})
	f(`"auth":"header","header":"Authorization","secretSetting":"KEY"`, nil, http.Header{"Authorization": {"s3cret"}})
	f(`"auth":"header","header":"x-functions-key","secretSetting":"KEY"`, []string{"X-Functions-Key", "own"}, http.Header{"X-Functions-Key": {"s3cret"}})
}

// The product's key travels in no header and no parameter; the rest of a query
// stays as it is.
func TestKeyElsewhere(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0","auth":"header","header":"x-key","secretSetting":"KEY"`, nil, nil)
	f := func(query, want string, header ...string) {
		t.Helper()
		b.do("GET", "/services/w/x"+query, "", header...)
		requests := b.requests()
		got := requests[len(requests)-1]
		if got.uri != "/base/x"+want || got.header.Get("X-Key") != "s3cret" || got.header.Get("X-Own") != "mine" {
			t.Errorf("%s: %s, want %s, %v", query, got.uri, want, got.header)
		}
		for name, values := range got.header {
			if strings.Contains(strings.Join(values, ""), productKey) {
				t.Errorf("the key travelled in %s", name)
			}
		}
	}
	own := []string{"X-Own", "mine", "X-Api-Key", productKey, "X-Key", "Key " + productKey, "User-Agent", productKey}
	f("?api-key="+productKey, "", own...)
	f("?"+productKey, "", own...)
	f("?b=%20+&a=1&key=%70"+productKey[1:]+"&a&&b=%2f", "?b=%20+&a=1&a&&b=%2f", own...)
	f("?a="+productKey+"0&&=;", "?a="+productKey+"0&&=;", own...)
	f("?x=1&code=fk&k="+productKey, "?x=1", "X-Own", "mine", "Api-Key", "", "Authorization", "bearer "+productKey)
	b.settled(5)
}

func TestBudget(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.4"`, nil, nil)
	for range 2 {
		b.do("GET", "/services/w/x", "")
	}
	b.refused(429, "insufficient_quota", "GET", "/services/w/x", "")
	if b.settled(2); b.spent() != 800_000_000 {
		t.Errorf("spent %d", b.spent())
	}
}

func TestHeld(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.6"`, nil, nil)
	entered, leave := make(chan bool), make(chan bool)
	b.answer = func(http.ResponseWriter, *http.Request) { entered <- true; <-leave }
	done := make(chan bool)
	go func() { b.do("GET", "/services/w/x", ""); close(done) }()
	<-entered
	b.refused(429, "budget_held", "GET", "/services/w/x", "")
	close(leave)
	<-done
	b.settled(1)
}

func TestStopped(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0"`, func(p *quota.Product) { p.Stop = &quota.Stop{Reason: "test"} }, nil)
	b.refused(429, "insufficient_quota", "GET", "/services/w/x", "")
	b.settled(0)
}

func TestRequestLimits(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0"`, func(p *quota.Product) { p.RequestsPerMinute = 2 }, nil)
	for range 2 {
		b.do("GET", "/services/w/x", "")
	}
	b.refused(429, "rate_limit_exceeded", "GET", "/services/w/x", "")
	b.settled(2)
}

// A product of tokens is charged none; its records say what the calls cost.
func TestTokenBudget(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.5","pricePerKB":"1","bodyBytesMax":1024`, func(p *quota.Product) { p.Unit, p.Budget = quota.UnitTokens, 10 }, nil)
	answer, _, _ := b.do("GET", "/services/w/x", "")
	r := b.settled(1)[0]
	if answer.StatusCode != 200 || r.Charge.N != 0 || !r.Charge.Known || r.Unit != "tokens" || r.CostNanoUSD.N != 1_500_000_000 || r.HoldNanoUSD.N != 1_500_000_000 ||
		b.spent() != 0 || answer.Header.Get("X-Costgate-Cost") != "0" {
		t.Errorf("%d, %+v", answer.StatusCode, r)
	}
}

func TestMultiplier(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.000000007","pricePerKB":"0.000000002","bodyBytesMax":1024`, func(p *quota.Product) { p.MultiplierPPM = 1_500_000 }, nil)
	b.do("GET", "/services/w/x", "")
	if r := b.settled(1)[0]; r.ListCostNanoUSD.N != 9 || r.CostNanoUSD.N != 14 || r.Charge.N != 14 || r.HoldNanoUSD.N != 14 {
		t.Errorf("%+v", r)
	}
}

func TestFreeServiceHasRecords(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0"`, nil, nil)
	b.do("GET", "/services/w/x", "")
	if r := b.settled(1)[0]; r.Charge.N != 0 || !r.Charge.Known || r.Outcome != "completed" {
		t.Errorf("%+v", r)
	}
}
