package assertions_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/testkit/hostsim"
)

// Nothing is made of the Host header: the handler sees its own address, and the
// client's is in a header that it could have sent itself.
func (b *bench) hostHeader(t *testing.T) {
	for _, user := range []string{"host-1", "host-2"} {
		a := do(t, "POST", b.URL+chatPath, chat(user, false), "Api-Key", b.p.key, "Host", "evil.example", "X-Forwarded-Host", "evil.example")
		if a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if s := b.u.got(user); len(s) != 1 || "http://"+s[0].host != b.u.URL || s[0].header.Get("X-Forwarded-Host") != "" {
			t.Errorf("upstream saw %+v", s)
		}
	}
	a := b.api("GET", "/api/Quota/"+b.p.id+"/history?limit=1", "", "Host", "evil.example")
	if link := a.header.Get("Link"); !strings.HasPrefix(link, "</api/Quota/") || strings.Contains(link, "//") {
		t.Errorf("Link: %s", link)
	}
}

func (b *bench) forwardedFor(t *testing.T) {
	a := do(t, "POST", b.URL+chatPath, chat("for", false), "Api-Key", b.p.key, "X-Forwarded-For", "9.9.9.9", "Forwarded", "for=9.9.9.9",
		"X-Client-IP", "9.9.9.9", "X-Original-For", "9.9.9.9", "X-Arr-Log-Id", "9.9.9.9", "X-Ms-Client-Principal-Name", "9.9.9.9")
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for _, s := range b.u.got("for") {
		for name, values := range s.header {
			if strings.Contains(strings.Join(values, " "), "9.9.9.9") || strings.HasPrefix(name, "X-Forwarded") {
				t.Errorf("upstream got %s: %v", name, values)
			}
		}
	}
	if strings.Contains(b.Stdout(), "9.9.9.9") {
		t.Error("a log has it")
	}
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (b *bench) invocationID(t *testing.T) {
	a := do(t, "POST", b.URL+chatPath, chat("invocation", false), "Api-Key", b.p.key, "X-Azure-Functions-InvocationId", "mine",
		"X-Ms-Invocation-Id", "mine", "X-Azure-Functions-HostVersion", "0.0.1")
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if r := b.one(b.p, "invocation"); !guid.MatchString(r.RequestID) {
		t.Errorf("the record's request id is %q", r.RequestID)
	}
	for _, s := range b.u.got("invocation") {
		for name := range s.header {
			if strings.HasPrefix(name, "X-Azure-Functions") || name == "X-Ms-Invocation-Id" {
				t.Errorf("upstream got %s", name)
			}
		}
	}
	if out := b.Stdout(); strings.Count(out, hostVersion) != 1 || strings.Contains(out, "0.0.1\"") {
		t.Errorf("the log does not say the host's version once: %s", out)
	}
}

func (b *bench) functionKeys(t *testing.T) {
	const secret, other = "secret-function-key", "secret-code-key"
	a := do(t, "POST", b.URL+chatPath+"?code="+other+"&x=%20+&x=2", chat("keys", false), "Api-Key", b.p.key, "X-Functions-Key", secret, "Cookie", "c="+secret)
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s := b.u.got("keys")
	if len(s) != 1 || s[0].uri != chatPath+"?x=%20+&x=2" || s[0].header.Get("Api-Key") != upstreamKey || s[0].header.Get("Authorization") != "" {
		t.Errorf("upstream saw %+v", s)
	}
	for name, values := range s[0].header {
		if all := strings.Join(values, " "); strings.Contains(all, secret) || strings.Contains(all, b.p.key) {
			t.Errorf("upstream got %s: %v", name, values)
		}
	}
	for _, text := range []string{secret, other, b.p.key, masterKey, upstreamKey} {
		if strings.Contains(b.Stdout()+b.Stderr(), text) {
			t.Errorf("%s is in a log", text)
		}
	}
}

func (b *bench) keys(t *testing.T) {
	f := func(method, path, header string, status int) {
		t.Helper()
		var headers []string
		if header != "" {
			headers = []string{"X-Functions-Key", header}
		}
		if a := do(t, method, b.URL+path, strings.NewReader("{}"), headers...); a.status != status || status == 401 && a.body != "" {
			t.Errorf("%s %s with %q: %d %q", method, path, header, a.status, a.body)
		}
	}
	for _, call := range [][2]string{
		{"POST", "/api/Quota"}, {"GET", "/api/Quota"}, {"GET", "/api/Quota/x"}, {"PATCH", "/api/Quota/x"},
		{"GET", "/api/Quota/x/history"}, {"POST", "/api/Quota/Update"}, {"POST", "/api/Quota/Budget"},
	} {
		f(call[0], call[1], "", 401)
		f(call[0], call[1], "wrong", 401)
	}
	f("POST", "/api/Quota", createKey, 400)
	f("GET", "/api/Quota", createKey, 401)
	f("GET", "/api/Quota", hostKey, 200)
	f("GET", "/api/Quota", masterKey, 200)
	f("GET", "/api/Quota?code="+hostKey, "", 200)
	f("GET", "/api/Quota?code="+hostKey, "wrong", 401)
	f("GET", "/api/Quota?code=wrong", hostKey, 200)
	f("GET", "/health", "wrong", 200)
	if a := do(t, "GET", b.URL+"/me", nil); a.status != 401 || a.code() != "invalid_api_key" { // anonymous for the host, not for us
		t.Errorf("me without a product key: %d %s", a.status, a.body)
	}
}

// Each event is with the client before upstream writes the next, and the answer's
// headers before the second: they come with the first byte.
func (b *bench) byteByByte(t *testing.T) {
	next := make(chan struct{}, 1)
	b.u.script("steps", func(w http.ResponseWriter, r *http.Request, _ string) {
		s := newStream(w, "steps")
		for i := 0; wait(r, next) && i < 3; i++ {
			s.send(word("steps", i))
		}
		s.send(usageEvent("steps", 3, 4) + doneEvent)
	})
	next <- struct{}{}
	resp, err := client.Do(request(t, t.Context(), "POST", b.URL+chatPath, chat("steps", true, withUsage), "Api-Key", b.p.key))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Trailer != nil || resp.Header.Get("Trailer") != "" {
		t.Errorf("trailers are announced, which the host drops: %v", resp.Trailer)
	}
	for i := range 3 {
		want := word("steps", i)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("%q %v", got, err)
		}
		next <- struct{}{}
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != usageEvent("steps", 3, 4)+doneEvent {
		t.Errorf("%q %v", rest, err)
	}
	a := do(t, "GET", b.URL+"/me/requests/"+resp.Header.Get("X-Costgate-Request-Id"), nil, "Api-Key", b.p.key)
	var r record
	if a.json(t, &r); r.Cost != cost(3, 4) { // which the trailer would have told
		t.Errorf("%s", a.body)
	}
}

func (b *bench) tooMany(t *testing.T) {
	b.Throttle(true)
	a := do(t, "POST", b.URL+chatPath, chat("throttled", false), "Api-Key", b.p.key)
	b.Throttle(false)
	if a.status != 429 || a.header.Get("X-Function-Scaleout") != "1" || a.body != "" || a.header.Get("Retry-After") != "" {
		t.Errorf("the host's: %d %v %q", a.status, a.header, a.body)
	}
	poor := b.product("poor", "0.000000001")
	a = do(t, "POST", b.URL+chatPath, chat("poor", false), "Api-Key", poor.key)
	if a.status != 429 || a.header.Get("X-Function-Scaleout") != "" || a.code() != "insufficient_quota" || a.header.Get("X-Should-Retry") != "false" {
		t.Errorf("ours: %d %v %q", a.status, a.header, a.body)
	}
	if n := len(b.u.got("throttled")) + len(b.u.got("poor")); n != 0 {
		t.Errorf("%d were sent upstream", n)
	}
}

// pattern is a body of n bytes, and a hash of all of them.
type pattern struct {
	left int64
	at   byte
	sum  hash.Hash
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.left)]
	for i := range b {
		b[i] = p.at
		p.at = p.at*5 + 7
	}
	p.left -= int64(len(b))
	_, _ = p.sum.Write(b)
	return len(b), nil
}

func (b *bench) bodies(t *testing.T) {
	sums := make(chan string, 1)
	b.u.script("POST /openai/v1/files/up", func(w http.ResponseWriter, _ *http.Request, body string) {
		sums <- fmt.Sprintf("%d %x", len(body), sha256.Sum256([]byte(body)))
		w.WriteHeader(http.StatusNoContent)
	})
	send := func(n int64, chunked bool) {
		t.Helper()
		body := &pattern{left: n, sum: sha256.New()}
		r := request(t, t.Context(), "POST", b.URL+"/openai/v1/files/up", body, "Api-Key", b.p.key)
		if !chunked {
			r.ContentLength = n
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if want := fmt.Sprintf("%d %x", n, body.sum.Sum(nil)); resp.StatusCode != http.StatusNoContent || <-sums != want {
			t.Errorf("%d bytes, chunked %v: %d", n, chunked, resp.StatusCode)
		}
	}
	for _, chunked := range []bool{false, true} {
		send(30<<10+1, chunked)
		send(1<<20, chunked)
		send(hostsim.RequestBytesMax, chunked)
	}
	over := request(t, t.Context(), "POST", b.URL+"/openai/v1/files/up", io.LimitReader(&pattern{left: 1 << 40, sum: sha256.New()}, hostsim.RequestBytesMax+1), "Api-Key", b.p.key)
	over.ContentLength = hostsim.RequestBytesMax + 1
	if resp, err := client.Do(over); err == nil { // it may be cut while it sends
		resp.Body.Close()
		if resp.StatusCode != http.StatusInternalServerError {
			t.Errorf("one byte more: %d", resp.StatusCode)
		}
	}
	f := func(base, key, uri string, status int) {
		t.Helper()
		before := len(b.u.got(uri))
		a := do(t, "GET", base+uri, nil, "Api-Key", key)
		if n := len(b.u.got(uri)) - before; a.status != status || (n == 1) != (status != http.StatusForbidden) {
			t.Errorf("%s%s: %d %q, arrived %d times", base, uri, a.status, a.body, n)
		}
	}
	alone, key := standalone(t, b.u)
	for base, key := range map[string]string{b.URL: b.p.key, alone: key} { // hosted and not, the same arrives
		f(base, key, "/openai/v1/files/a%2Fb", 404)
		f(base, key, "/openai/v1/files/a%2fb/c", 404)
		f(base, key, "/openai/v1/files/a?x=%20+&x=2&y&x=%2F", 404)
		f(base, key, "/openai/deployments/a%2Fb/chat/completions", 403) // it could be another operation to upstream
		f(base, key, "/openai/v1/files/..%2Fmodels", 403)
	}
}

// standalone runs the same binary without a host, with a product of its own.
func standalone(t *testing.T, u *upstream) (url, key string) {
	t.Helper()
	key = "product-key-alone-0123456789"
	c := exec.CommandContext(t.Context(), filepath.Join(dist(t), "gateway"), "-listen", "127.0.0.1:0")
	c.Env = append(settings(t, u), "ADMIN_KEY="+masterKey, "UNMETERED_PATHS=v1/files/*")
	stdout, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	lines := bufio.NewScanner(stdout)
	lines.Scan()
	_, url, _ = strings.Cut(lines.Text(), "listening on ")
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	made := do(t, "POST", url+"/api/Quota", strings.NewReader(`{"subscriptionKey":"`+key+`","productName":"alone","amount":"1"}`), "X-Functions-Key", masterKey)
	if made.status != http.StatusOK {
		t.Fatalf("%d %s", made.status, made.body)
	}
	return url, key
}
