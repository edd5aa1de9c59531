package hostsim

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func start(t *testing.T, mode string, o Options) *Host {
	t.Helper()
	if o.Dist == "" {
		o.Dist = newDist(t)
	}
	o.Env = append(append(os.Environ(), o.Env...), "HOSTSIM_FAKE="+mode, "OWN=setting", "FUNCTIONS_CUSTOMHANDLER_PORT=1")
	o.RetryWaits = []time.Duration{time.Millisecond, time.Millisecond}
	return Start(t, o)
}

// ask sends a request as written and reads the whole answer.
func ask(t *testing.T, h *Host, method, uri string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.URL+uri, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

func echo(t *testing.T, h *Host, method, uri string, body io.Reader, header ...string) seen {
	t.Helper()
	answer, text := ask(t, h, method, uri, body, header...)
	var s seen
	if err := json.Unmarshal([]byte(text), &s); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %q", method, uri, answer.StatusCode, text)
	}
	return s
}

func TestProcess(t *testing.T) {
	h := start(t, "1", Options{Version: "4.9"})
	s := echo(t, h, "GET", "/openai/echo", nil)
	port := s.Env["FUNCTIONS_CUSTOMHANDLER_PORT"]
	id := s.Env["FUNCTIONS_CUSTOMHANDLER_WORKER_ID"]
	want := map[string]string{
		"FUNCTIONS_CUSTOMHANDLER_PORT": port, "FUNCTIONS_CUSTOMHANDLER_WORKER_ID": id, "FUNCTIONS_HTTPWORKER_PORT": port,
		"FUNCTIONS_HTTPWORKER_ID": id, "FUNCTIONS_APP_ROOT_PATH": h.app.Dir, "ASPNETCORE_URLS": h.URL, "OWN": "setting",
	}
	if diff := cmp.Diff(want, s.Env); diff != "" || port == "" || id == "" || port == "1" {
		t.Errorf("port %q, id %q, %s", port, id, diff)
	}
	if dir, _ := filepath.EvalSymlinks(h.app.Dir); s.Dir != dir {
		t.Errorf("works in %s", s.Dir)
	}
	if s.Host != "127.0.0.1:"+port {
		t.Errorf("Host is %s", s.Host)
	}
	if !strings.Contains(h.Stdout(), "handler is up\n") || h.Stderr() != "" {
		t.Errorf("stdout %q, stderr %q", h.Stdout(), h.Stderr())
	}
}

func TestRequestHeaders(t *testing.T) {
	h := start(t, "1", Options{Version: "4.9"})
	s := echo(t, h, "POST", "/openai/echo?a=%20+&a=2&code=k", strings.NewReader("{}"),
		"Api-Key", "k", "Authorization", "Bearer k", "X-Functions-Key", "f", "X-Twice", "1", "X-Twice", "2", "Cookie", "a=1",
		"Cookie", "b=2",
		"X-Forwarded-For", "9.9.9.9", "X-Forwarded-Host", "evil", "X-Forwarded-Proto", "https", "X-Forwarded-Other", "x", "Forwarded", "for=1",
		"X-Azure-Functions-InvocationId", "mine", "X-Ms-Invocation-Id", "mine", "X-Azure-Functions-HostVersion", "1",
		"Keep-Alive", "1", "Te", "trailers", "Proxy-Authorization", "p", "Upgrade-Insecure-Requests", "1", "User-Agent", "",
		"Accept-Encoding", "br", "Content-Type", "application/json")
	id := s.Header.Get("X-Azure-Functions-Invocationid")
	want := http.Header{
		"Accept-Encoding": {"br"}, "Api-Key": {"k"}, "Authorization": {"Bearer k"}, "X-Functions-Key": {"f"}, "X-Twice": {"1, 2"},
		"Cookie":          {"a=1; b=2"},
		"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {strings.TrimPrefix(h.URL, "http://")}, "X-Forwarded-Proto": {"http"},
		"X-Azure-Functions-Invocationid": {id}, "X-Ms-Invocation-Id": {id}, "X-Azure-Functions-Hostversion": {"4.9"},
		"Content-Length": {"2"}, "Content-Type": {"application/json"},
	}
	if diff := cmp.Diff(want, s.Header); diff != "" || len(id) != 36 {
		t.Errorf("id %q %s", id, diff)
	}
	if s.URI != "/openai/echo?a=%20+&a=2&code=k" {
		t.Errorf("got %s", s.URI)
	}
	if s := echo(t, h, "GET", "/openai//x%2Fy/Echo/", nil); s.URI != "/openai//x%252Fy/Echo/" {
		t.Errorf("got %s", s.URI)
	}
	if answer, text := ask(t, h, "GET", "/openai/%00", nil); answer.StatusCode != 400 || text != "" {
		t.Errorf("%%00: %d %q", answer.StatusCode, text)
	}
}

func TestKeys(t *testing.T) {
	h := start(t, "1", Options{FunctionKeys: map[string]string{"Create": "fk", "GetAll": "other"}, HostKey: "hk", MasterKey: "mk"})
	f := func(method, uri, key string, status int) {
		t.Helper()
		var header []string
		if key != "" {
			header = []string{"x-functions-key", key}
		}
		answer, text := ask(t, h, method, uri, nil, header...)
		if answer.StatusCode != status || (status != http.StatusOK) != (text == "") {
			t.Errorf("%s %s with %q: %d %q", method, uri, key, answer.StatusCode, text)
		}
	}
	f("POST", "/api/Quota", "", 401)
	f("POST", "/api/Quota", "fk", 200)
	f("POST", "/api/Quota", "hk", 200)
	f("POST", "/api/Quota", "mk", 200)
	f("POST", "/api/Quota", "other", 401)
	f("POST", "/api/Quota?code=fk", "", 200)
	f("POST", "/api/Quota?Code=fk", "", 200)
	f("POST", "/api/Quota?code=fk", "wrong", 401)
	f("POST", "/api/Quota?code=wrong", "fk", 200)
	f("GET", "/openai/v1/models", "", 200)
	f("GET", "/openai/v1/models", "wrong", 200)
	f("GET", "/none", "mk", 404)
	f("PUT", "/api/Quota", "mk", 404)
	if answer, text := ask(t, h, "GET", "/", nil); answer.StatusCode != 200 || !strings.Contains(text, "html") {
		t.Errorf("/: %d %q", answer.StatusCode, text)
	}
}

// zeros is a body of n zero bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBodies(t *testing.T) {
	h := start(t, "1", Options{})
	body := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	sum := sha256.Sum256(body)
	want := hex.EncodeToString(sum[:])
	if s := echo(t, h, "POST", "/openai/echo", bytes.NewReader(body)); s.Length != int64(len(body)) || s.SHA != want {
		t.Errorf("known length: %d of %d", s.Bytes, s.Length)
	}
	if s := echo(t, h, "POST", "/openai/echo", struct{ io.Reader }{bytes.NewReader(body)}); s.Length != -1 || s.SHA != want {
		t.Errorf("chunked: %d of %d", s.Bytes, s.Length)
	}
	if s := echo(t, h, "POST", "/openai/echo", nil); s.Length != 0 || s.Bytes != 0 {
		t.Errorf("none: %d of %d", s.Bytes, s.Length)
	}
	if s := echo(t, h, "POST", "/openai/echo", struct{ io.Reader }{zeros(RequestBytesMax)}); s.Bytes != RequestBytesMax {
		t.Errorf("at the limit: %d", s.Bytes)
	}
	r, err := http.NewRequestWithContext(t.Context(), "POST", h.URL+"/openai/echo", zeros(RequestBytesMax+1))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = RequestBytesMax + 1
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 500 || answer.ContentLength != 0 {
		t.Errorf("one byte more: %d", answer.StatusCode)
	}
}

func TestAnswers(t *testing.T) {
	h := start(t, "1", Options{NoRestart: true})
	answer, text := ask(t, h, "GET", "/openai/plain", nil)
	date := answer.Header.Get("Date")
	want := http.Header{"Set-Cookie": {"a=1", "b=2"}, "Server": {"own"}, "Retry-After-Ms": {"7"}, "Date": {date}, "Content-Length": {"6"}}
	if diff := cmp.Diff(want, answer.Header); diff != "" || answer.StatusCode != 429 || text != "<html>" || date == "" {
		t.Errorf("%d %q %s", answer.StatusCode, text, diff)
	}
	if answer, text := ask(t, h, "HEAD", "/openai/plain", nil); answer.StatusCode != 429 || text != "" {
		t.Errorf("HEAD: %d %q", answer.StatusCode, text)
	}
	answer, text = ask(t, h, "GET", "/openai/trailer", nil)
	if _, announced := answer.Trailer["X-Cost"]; !announced || answer.Trailer.Get("X-Cost") != "" || text != "body" {
		t.Errorf("trailers %v, body %q", answer.Trailer, text)
	}
	// Sent three times, under one id.
	if _, text := ask(t, h, "GET", "/openai/reset", nil); !strings.HasPrefix(text, "3 1 ") || len(text) != len("3 1 ")+36 {
		t.Errorf("after two failures: %q", text)
	}
	if answer, text := ask(t, h, "POST", "/openai/a/exit?with=7", strings.NewReader("x")); answer.StatusCode != 500 || text != "" {
		t.Errorf("exit: %d %q", answer.StatusCode, text)
	}
	if diff := cmp.Diff([]int{7}, h.Exits()); diff != "" {
		t.Error(diff)
	}
	if answer, text := ask(t, h, "GET", "/openai/echo", nil); answer.StatusCode != 500 || text != "" {
		t.Errorf("no handler: %d %q", answer.StatusCode, text)
	}
}

func TestStreams(t *testing.T) {
	h := start(t, "1", Options{})
	get := func(what string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), "GET", h.URL+"/openai/"+what, nil)
		if err != nil {
			t.Error(err)
			return nil
		}
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Error(err)
		}
		return answer
	}
	answer := get("steps")
	lines := bufio.NewReader(answer.Body)
	for i := range 3 { // each arrives before the next is written
		if line, err := lines.ReadString('\n'); line != fmt.Sprintf("step %d\n", i) {
			t.Fatalf("got %q, %v", line, err)
		}
		ask(t, h, "GET", "/openai/next", nil)
	}
	answer.Body.Close()

	late := make(chan *http.Response, 1)
	go func() { late <- get("late") }()
	ask(t, h, "GET", "/openai/next", nil) // its headers are flushed
	select {
	case <-late:
		t.Error("headers came before the first byte")
	default:
	}
	ask(t, h, "GET", "/openai/next", nil)
	answer = <-late
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusTeapot || string(text) != "late" {
		t.Errorf("%d %q", answer.StatusCode, text)
	}
	answer.Body.Close()

	answer = get("cut")
	if text, err := io.ReadAll(answer.Body); string(text) != "part" || err == nil {
		t.Errorf("cut: %q %v", text, err)
	}
	answer.Body.Close()
}

func TestSilence(t *testing.T) {
	h := start(t, "1", Options{ActivityTimeout: 50 * time.Millisecond})
	if answer, text := ask(t, h, "POST", "/openai/silent", strings.NewReader("x")); answer.StatusCode != 500 || text != "" {
		t.Errorf("%d %q", answer.StatusCode, text)
	}
}

// A client that leaves ends the handler's request.
func TestClientGone(t *testing.T) {
	lines, out := io.Pipe()
	defer lines.Close()
	h := start(t, "1", Options{Stdout: out})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", h.URL+"/openai/silent", struct{ io.Reader }{strings.NewReader("x")})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := http.DefaultTransport.RoundTrip(r)
		done <- err
	}()
	said := bufio.NewScanner(lines)
	until := func(line string) {
		for said.Text() != line && said.Scan() {
			continue
		}
	}
	until("silent call began")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	until("silent call ended")
}
