package funchost

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPort(t *testing.T) {
	f := func(value, port string, hosted, ok bool) {
		t.Helper()
		gotPort, gotHosted, err := Port(func(name string) string {
			if name != "FUNCTIONS_CUSTOMHANDLER_PORT" {
				t.Fatalf("asked for %s", name)
			}
			return value
		})
		if gotPort != port || gotHosted != hosted || (err == nil) != ok {
			t.Errorf("%q: got %q, %v, %v", value, gotPort, gotHosted, err)
		}
	}
	f("", "", false, true)
	f("7080", "7080", true, true)
	f("65535", "65535", true, true)
	f("65536", "", true, false)
	f("0", "", true, false)
	f("-1", "", true, false)
	f("http", "", true, false)
	f("127.0.0.1:80", "", true, false)
}

func TestStripInbound(t *testing.T) {
	h := http.Header{}
	for _, name := range []string{
		"x-functions-key", "x-functions-clientid", "X-ARR-SSL", "X-ARR-LOG-ID", "X-Azure-Functions-HostVersion",
		"X-Azure-Functions-InvocationId", "x-ms-invocation-id", "X-Forwarded-For", "X-Forwarded-Proto", "Forwarded",
		"x-ms-client-principal", "x-ms-client-principal-id", "X-MS-TOKEN-AAD-ACCESS-TOKEN", "DISGUISED-HOST", "X-Original-URL",
		"X-WAWS-Unencoded-URL", "X-SITE-DEPLOYMENT-ID", "CLIENT-IP", "X-Client-IP", "X-Client-Port", "MAX-FORWARDS",
		"WAS-DEFAULT-HOSTNAME", "X-AppService-Proto", "Cookie", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authorization", "Proxy-Connection", "Expect", "X-Named", "X-Also-Named", "x-ms-site-restricted-token",
	} {
		h.Set(name, "secret")
	}
	h["Connection"] = []string{"keep-alive, X-Named", "x-also-named"}
	h["x-functions-KEY"] = []string{"not canonical"}
	kept := http.Header{
		"Api-Key": {"k"}, "Authorization": {"Bearer k"}, "Content-Type": {"application/json"}, "Accept": {"a", "b"},
		"X-Ms-Client-Request-Id": {"1"}, "Openai-Organization": {"o"}, "X-Stainless-Lang": {"js"}, "User-Agent": {"u"}, "X-Arrow": {"1"},
	}
	for name, values := range kept {
		h[name] = values
	}
	StripInbound(h)
	if diff := cmp.Diff(kept, h); diff != "" {
		t.Error(diff)
	}
	if n := testing.AllocsPerRun(100, func() { StripInbound(h) }); n != 0 {
		t.Errorf("%v allocations with nothing to strip", n)
	}
}

func TestStripQuery(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		if got := StripQuery(raw); got != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
	f("", "")
	f("api-version=2024-10-21", "api-version=2024-10-21")
	f("code=abc", "")
	f("code", "")
	f("code=abc&a=1", "a=1")
	f("a=1&code=abc", "a=1")
	f("a=1&code=x%2F&b=2&CODE=y&c", "a=1&b=2&c")
	f("a=1&%63ode=x&b=2", "a=1&b=2")
	f("codes=1&xcode=2&a=code", "codes=1&xcode=2&a=code")
	f("a=%20+&a=%zz&&b=", "a=%20+&a=%zz&&b=")
	f("&&code=1&&", "&&&")
	f("%zzcode=1", "%zzcode=1")
	if n := testing.AllocsPerRun(100, func() { StripQuery("api-version=2024-10-21&a=b&a=c") }); n != 0 {
		t.Errorf("%v allocations with nothing to strip", n)
	}
}

// What is left has no code for any reader of queries, and is what was there
// without it, in order.
func TestStripQueryProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := []string{"a=1", "code=s", "Code=%31", "", "c%6Fde=", "b=%2F+", "code", "codex=1"}
		parts := rapid.SliceOf(rapid.SampledFrom(some)).Draw(t, "parts")
		got := StripQuery(strings.Join(parts, "&"))
		var want []string
		for _, p := range parts {
			if !isCode(p) {
				want = append(want, p)
			}
		}
		if got != strings.Join(want, "&") {
			t.Fatalf("got %q, want %q", got, want)
		}
		values, err := url.ParseQuery(got)
		if err != nil {
			t.Fatal(err)
		}
		for name := range values {
			if strings.EqualFold(name, "code") {
				t.Fatalf("%q still has %s", got, name)
			}
		}
	})
}

// What the host made of a path, and what the client had written.
func TestRestorePath(t *testing.T) {
	f := func(arrived, want string) {
		t.Helper()
		u, err := url.ParseRequestURI(arrived)
		if err != nil {
			t.Fatal(err)
		}
		RestorePath(u)
		if got := u.EscapedPath(); got != want {
			t.Errorf("%s: got %s, want %s", arrived, got, want)
		}
		if plain, err := url.PathUnescape(want); err != nil || u.Path != plain {
			t.Errorf("%s: the path is %s", arrived, u.Path)
		}
	}
	f("/openai/a%252Fb%252fc", "/openai/a%2Fb%2fc")
	f("/openai/a%252F%20b", "/openai/a%2F%20b")
	f("/openai/a%2Fb", "/openai/a%2Fb")
	f("/openai/a%25252Fb", "/openai/a%25252Fb")
	f("/openai/a%2525", "/openai/a%2525")
	f("/openai/a%2520b", "/openai/a%2520b")
	f("/openai//a/", "/openai//a/")
	u, _ := url.ParseRequestURI("/openai/deployments/d/chat/completions?a=%252F")
	if n := testing.AllocsPerRun(100, func() { RestorePath(u) }); n != 0 || u.RawQuery != "a=%252F" {
		t.Errorf("%v allocations with nothing to do, query %s", n, u.RawQuery)
	}
}

func TestVersionWatch(t *testing.T) {
	var seen []string
	watch := VersionWatch(func(version string) { seen = append(seen, version) })
	watch(http.Header{})
	watch(http.Header{"X-Azure-Functions-Hostversion": {"4.1040.1"}})
	watch(http.Header{"X-Azure-Functions-Hostversion": {"4.1041.1"}})
	if diff := cmp.Diff([]string{"4.1040.1"}, seen); diff != "" {
		t.Error(diff)
	}
}

func post(t *testing.T, h http.Handler, body io.Reader) (status int, answer map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/Maintain", body))
	if kind := w.Header().Get("Content-Type"); kind != "application/json" {
		t.Errorf("content type %q", kind)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Errorf("body %q: %v", w.Body, err)
	}
	return w.Code, answer
}

func TestTimer(t *testing.T) {
	f := func(body string, status int, late bool) {
		t.Helper()
		ran := false
		got, answer := post(t, Timer(func(context.Context) error { ran = true; return nil }), strings.NewReader(body))
		if got != status || ran != (status == http.StatusOK) {
			t.Errorf("%s: status %d, ran %v", body, got, ran)
		}
		if status != http.StatusOK {
			return
		}
		outputs, isObject := answer["Outputs"].(map[string]any)
		logs, isList := answer["Logs"].([]any)
		value, has := answer["ReturnValue"]
		if !isObject || len(outputs) != 0 || !isList || len(logs) != 1 || !has || value != nil {
			t.Errorf("%s: answer %v", body, answer)
		} else if strings.Contains(logs[0].(string), "past due") != late {
			t.Errorf("%s: logs %v", body, logs)
		}
	}
	const sys = `"Metadata":{"sys":{"MethodName":"Maintain","UtcNow":"2026-11-24T11:00:00Z","RandGuid":"1"}}`
	f(`{"Data":{"timer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":null,"IsPastDue":false}},`+sys+`}`, 200, false)
	f(`{"Data":{"timer":{"ScheduleStatus":{"Last":"2026-11-24T12:00:00+01:00"},"IsPastDue":true}},`+sys+`}`, 200, true)
	f(`{"Data":{"other":"{\"IsPastDue\":true}"}}`, 200, true)
	f(`{"Data":{"timer":"text"}}`, 200, false)
	f(`{"Data":[]}`, 200, false)
	f(`{}`, 200, false)
	f(``, 200, false)
	f(`[]`, 400, false)
	f(`{"Data":`, 400, false)
	f(`{"a":"`+strings.Repeat("x", EnvelopeBytesMax-8)+`"}`, 200, false)
	f(`{"a":"`+strings.Repeat("x", EnvelopeBytesMax-7)+`"}`, 413, false)
}

func TestTimerFails(t *testing.T) {
	status, answer := post(t, Timer(func(context.Context) error { return errors.New("table is away") }), strings.NewReader(`{}`))
	if status != http.StatusInternalServerError || answer["error"] != "table is away" {
		t.Errorf("got %d %v", status, answer)
	}
	w := httptest.NewRecorder()
	Timer(func(context.Context) error { t.Error("ran"); return nil }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/Maintain", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Body.Len() == 0 {
		t.Errorf("GET: %d %q", w.Code, w.Body)
	}
}

func TestEnvelope(t *testing.T) {
	f := func(method, path, kind, invocation string, want bool) {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(`{"Data":{"req":{"Url":"http://h/api/Quota"}}}`))
		r.Header.Set("Content-Type", kind)
		if invocation != "" {
			r.Header.Set("X-Azure-Functions-InvocationId", invocation)
		}
		if got := IsEnvelope(r); got != want {
			t.Errorf("%s %s %s %s: %v", method, path, kind, invocation, got)
		}
		if body, _ := io.ReadAll(r.Body); len(body) == 0 {
			t.Error("the body was read")
		}
	}
	const kind = "application/json; charset=utf-8"
	f("POST", "/Create", kind, "1", true)
	f("POST", "/proxy", kind, "1", true)
	f("POST", "/Proxy", "application/json", "1", true)
	f("POST", "/Maintain", kind, "1", false)
	f("POST", "/Create", kind, "", false)
	f("POST", "/Create", "text/plain", "1", false)
	f("POST", "/Create", "", "1", false)
	f("GET", "/Create", kind, "1", false)
	f("POST", "/api/Quota", kind, "1", false)
	f("POST", "/openai/v1/chat/completions", kind, "1", false)

	w := httptest.NewRecorder()
	RefuseEnvelope(w)
	var answer struct {
		Outputs struct {
			Res struct {
				StatusCode, Body string
				Headers          map[string]string
			}
		}
		Logs []string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	res := answer.Outputs.Res
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || res.StatusCode != "501" || len(answer.Logs) != 1 {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	for _, word := range []string{"4.1040", "enableProxyingHttpRequest"} {
		if !strings.Contains(res.Body, word) {
			t.Errorf("%q does not say %s", res.Body, word)
		}
	}
}

// The names known here are those of the function folders.
func TestFunctionNames(t *testing.T) {
	folders, err := os.ReadDir(filepath.Join("..", "..", "..", "functions"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range folders {
		if name := strings.ToLower(f.Name()); name != "maintain" {
			names = append(names, name)
		}
	}
	if diff := cmp.Diff(names, httpFunctions); diff != "" {
		t.Error(diff)
	}
}

// Recorded invocations of real hosts.
func TestRecorded(t *testing.T) {
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set: no recorded invocations to read")
	}
	for _, name := range []string{"host-timer-invocation.json", "host-timer-invocation-status.json"} {
		body, err := os.ReadFile(filepath.Join(dir, "host-and-budget", name))
		if err != nil {
			t.Fatal(err)
		}
		if late, err := pastDue(body); late || err != nil {
			t.Errorf("%s: %v %v", name, late, err)
		}
	}
}
