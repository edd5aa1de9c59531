package hostsim

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What a forwarding host loses and adds.
func TestForward(t *testing.T) {
	h := start(t, "1", Options{Mode: ModeForward, Version: "4.9"})
	public := strings.TrimPrefix(h.URL, "http://")
	s := echo(t, h, "POST", "/openai/./a%2Fb/echo?a=%20+&b=1&A=2&c", strings.NewReader("{}"), "Content-Type", "application/json",
		"Content-Encoding", "identity", "X-Forwarded-For", "9.9.9.9", "User-Agent", "u/1", "X-Azure-Functions-InvocationId", "mine", "X-Functions-Key", "k")
	ids := s.Header.Values("X-Azure-Functions-Invocationid")
	if len(ids) != 2 || ids[0] != "mine" || len(ids[1]) != 36 {
		t.Errorf("ids %v", ids)
	}
	want := http.Header{
		"Content-Type": {"application/json"}, "Content-Length": {"2"}, "X-Forwarded-For": {"9.9.9.9"}, "User-Agent": {"u/1 Azure-Functions-Host/4.9"},
		"X-Azure-Functions-Invocationid": ids, "X-Azure-Functions-Hostversion": {"4.9"}, "X-Functions-Key": {"k"},
		"Accept-Encoding": s.Header["Accept-Encoding"],
	}
	if diff := cmp.Diff(want, s.Header); diff != "" || s.Host != public || s.URI != "/openai/a%252Fb/echo?a=%20%20%2C2&b=1&c=" || s.Bytes != 2 {
		t.Errorf("Host %s, URI %s, %d bytes %s", s.Host, s.URI, s.Bytes, diff)
	}
	if s := echo(t, h, "POST", "/openai/echo", struct{ io.Reader }{strings.NewReader("lost")}); s.Bytes != 0 {
		t.Errorf("a chunked body of %d bytes arrived", s.Bytes)
	}
	if answer, text := ask(t, h, "GET", "/openai/plain", nil); answer.StatusCode != 429 || text != "<html>" || len(answer.Header["Set-Cookie"]) != 2 {
		t.Errorf("%d %q %v", answer.StatusCode, text, answer.Header)
	}
	if answer, _ := ask(t, h, "GET", "/openai/reset", nil); answer.StatusCode != 500 {
		t.Errorf("it was sent again: %d", answer.StatusCode)
	}
	done := make(chan string, 1)
	go func() {
		_, text := ask(t, h, "GET", "/openai/steps", nil)
		done <- text
	}()
	for range 3 {
		ask(t, h, "GET", "/openai/next", nil)
	}
	if text := <-done; text != "step 0\nstep 1\nstep 2\n" {
		t.Errorf("%q", text)
	}
}

// What a host sends that cannot proxy.
func TestEnvelope(t *testing.T) {
	h := start(t, "1", Options{Mode: ModeEnvelope, HostKey: "hk", Version: "4.9"})
	call := func(method, uri string, body io.Reader, header ...string) (path string, envelope map[string]any) {
		t.Helper()
		answer, text := ask(t, h, method, uri, body, header...)
		var got struct {
			Path, Agent, Kind string
			Length            int64
			Body              json.RawMessage
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || answer.StatusCode != 202 || answer.Header.Get("X-Own") != "1" {
			t.Fatalf("%d %v %q", answer.StatusCode, answer.Header, text)
		}
		if got.Agent != "Azure-Functions-Host/4.9" || got.Kind != "application/json; charset=utf-8" || got.Length != -1 {
			t.Errorf("%+v", got)
		}
		if err := json.Unmarshal(got.Body, &envelope); err != nil {
			t.Fatal(err)
		}
		return got.Path, envelope
	}
	path, e := call("PATCH", "/API/quota/k%201?a=1&a=2", strings.NewReader(`{"x":1}`), "x-functions-key", "hk", "Content-Type", "application/json", "X-Two", "1", "X-Two", "2")
	request := e["Data"].(map[string]any)["req"].(map[string]any)
	headers := request["Headers"].(map[string]any)
	metadata := e["Metadata"].(map[string]any)
	sys := metadata["sys"].(map[string]any)
	got := []any{path, request["Url"], request["Method"], request["Query"], request["Params"], request["Body"], headers["X-Two"], metadata["keyId"], sys["MethodName"]}
	want := []any{
		"/Configure", h.URL + "/API/quota/k%201?a=1&a=2", "PATCH", map[string]any{"a": "1,2"}, map[string]any{"keyId": "k 1"}, `{"x":1}`,
		[]any{"1", "2"}, "k 1", "Configure",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	path, e = call("POST", "/openai/v1/chat/completions", struct{ io.Reader }{strings.NewReader("{}")})
	request = e["Data"].(map[string]any)["req"].(map[string]any)
	if _, has := request["Body"]; has || path != "/Proxy" || request["Params"].(map[string]any)["path"] != "v1/chat/completions" {
		t.Errorf("%s %v", path, request)
	}
	_, e = call("POST", "/openai/x", strings.NewReader("\xff"), "Content-Type", "application/octet-stream")
	if body := e["Data"].(map[string]any)["req"].(map[string]any)["Body"]; body != "/w==" {
		t.Errorf("bytes became %v", body)
	}
	if answer, _ := ask(t, h, "GET", "/api/Quota", nil); answer.StatusCode != 401 {
		t.Errorf("without a key: %d", answer.StatusCode)
	}
	f := func(mode string, status int, body string) {
		t.Helper()
		h := start(t, mode, Options{Mode: ModeEnvelope, FunctionTimeout: 500 * time.Millisecond, FunctionGrace: time.Millisecond})
		if answer, text := ask(t, h, "GET", "/health", nil); answer.StatusCode != status || text != body {
			t.Errorf("%s: %d %q", mode, answer.StatusCode, text)
		}
	}
	f("envelope empty", 500, "")
	f("envelope fails", 500, "")
	f("envelope none", 204, "")
	f("envelope object", 200, `{"a":1}`)
	f("envelope status", 500, "")
}

// What the host answers without the handler.
func TestOwnAnswers(t *testing.T) {
	h := start(t, "1", Options{MasterKey: "mk"})
	f := func(uri, key string, status int) {
		t.Helper()
		if answer, _ := ask(t, h, "GET", uri, nil, "x-functions-key", key); answer.StatusCode != status {
			t.Errorf("%s: %d", uri, answer.StatusCode)
		}
	}
	f("/admin/host/ping", "", 200)
	f("/admin/host/status", "", 401)
	f("/admin/host/status", "mk", 200)
	f("/admin/none", "mk", 404)
	h.Throttle(true)
	answer, text := ask(t, h, "GET", "/openai/echo", nil)
	if answer.StatusCode != 429 || text != "" || answer.Header.Get("X-Function-Scaleout") != "1" || answer.Header.Get("Retry-After") != "" {
		t.Errorf("throttled: %d %v %q", answer.StatusCode, answer.Header, text)
	}
	f("/none", "", 404)
	h.Throttle(false)
	f("/openai/echo", "", 200)

	h = start(t, "1", Options{Env: []string{"AzureWebJobsDisableHomepage=true"}})
	if answer, text := ask(t, h, "GET", "/", nil); answer.StatusCode != 204 || text != "" {
		t.Errorf("/: %d %q", answer.StatusCode, text)
	}
}

func TestScale(t *testing.T) {
	app := &App{FunctionTimeout: 30 * time.Minute}
	o := Options{Scale: 100, InvokeWait: time.Second}
	o.setDefaults(app)
	got := []time.Duration{o.ActivityTimeout, o.FunctionTimeout, o.FunctionGrace, o.ErrorWindow, o.InitTimeout, o.InvokeWait}
	want := []time.Duration{2400 * time.Millisecond, 18 * time.Second, 20 * time.Millisecond, 18 * time.Second, 30 * time.Second, time.Second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	waits := time.Duration(0)
	for _, w := range o.RetryWaits {
		waits += w
	}
	if len(o.RetryWaits) != 9 || waits != 1850*time.Millisecond {
		t.Errorf("%v", o.RetryWaits)
	}
}
