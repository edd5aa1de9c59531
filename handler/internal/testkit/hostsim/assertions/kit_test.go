// Package assertions_test holds the real binary, assembled as it is published,
// against what the Functions host does: see TestAssertions.
package assertions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/testkit/azurite"
	"github.com/costgate/costgate/handler/internal/testkit/hostsim"
)

var repository = filepath.Join("..", "..", "..", "..", "..")

// The keys of every host of these tests.
const (
	masterKey   = "master-key-0123456789"
	hostKey     = "host-key-0123456789"
	createKey   = "create-key-0123456789"
	upstreamKey = "upstream-key-0123456789"
)

// scale is how many times faster than real time the host's patience ends: 240 s
// of silence are 4.8 s.
const scale = 50

// waitMax bounds every wait for a condition.
const waitMax = 2 * time.Minute

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

// dist is the assembled application, with the binary built as make package does,
// for this machine.
func dist(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "costgate-dist-"); built.err == nil {
			built.err = assemble(built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

func assemble(dir string) error {
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", filepath.Join(dir, "gateway"), "./handler")
	build.Dir, build.Env = repository, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(repository, "functions", "*", "function.json"))
	if err != nil {
		return err
	}
	for _, from := range append(files, filepath.Join(repository, "host.json")) {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		to := dir
		if filepath.Base(from) == "function.json" {
			to = filepath.Join(dir, filepath.Base(filepath.Dir(from)))
		}
		if err := errors.Join(os.MkdirAll(to, 0o755), os.WriteFile(filepath.Join(to, filepath.Base(from)), data, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// variant is a copy of the application with one file changed.
func variant(t *testing.T, name, old, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(dist(t))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), old) {
		t.Fatalf("%s has no %s (%v)", name, old, err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), old, text, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// settings are the environment of a hosted gateway whose tables are its own.
// more come last, and so count.
func settings(t *testing.T, u *upstream, more ...string) []string {
	t.Helper()
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir(), "DATA_DIR=" + t.TempDir(),
		"AZURE_OPENAI_ENDPOINT=" + u.URL, "AZURE_OPENAI_API_KEY=" + upstreamKey, "PRICES_FILE=" + prices,
		"QuotaStorage=" + azurite.Start(t), "QuotaTableName=" + azurite.Table(),
	}, more...)
}

// host is a hosted gateway.
type host struct {
	*hostsim.Host
	t   *testing.T
	env []string
}

func startHost(t *testing.T, o hostsim.Options) *host {
	t.Helper()
	if o.Dist == "" {
		o.Dist = dist(t)
	}
	o.MasterKey, o.HostKey, o.FunctionKeys = masterKey, hostKey, map[string]string{"Create": createKey}
	if o.Scale == 0 {
		o.Scale = scale
	}
	return &host{Host: hostsim.Start(t, o), t: t, env: o.Env}
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), into); err != nil {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
}

// code is the code of an error in the OpenAI format.
func (a answer) code() string {
	var envelope struct {
		Error struct{ Code, Type, Message string }
	}
	if json.Unmarshal([]byte(a.body), &envelope) != nil || envelope.Error.Type == "" || envelope.Error.Message == "" {
		return ""
	}
	return envelope.Error.Code
}

var client = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 300, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func request(t *testing.T, ctx context.Context, method, url string, body io.Reader, header ...string) *http.Request { //nolint:revive // t is first everywhere
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func do(t *testing.T, method, url string, body io.Reader, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	resp, err := client.Do(request(t, ctx, method, url, body, header...))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v after %q", method, url, err, text)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// api calls a quota route with the master key.
func (h *host) api(method, path, body string, header ...string) answer {
	h.t.Helper()
	return do(h.t, method, h.URL+path, strings.NewReader(body), append(header, "X-Functions-Key", masterKey)...)
}

// product is one that a test uses.
type product struct{ key, id string }

func (h *host) product(name, budget string, more ...string) product {
	h.t.Helper()
	p := product{key: "product-key-" + name + "-0123456789"}
	fields := fmt.Sprintf(`{"subscriptionKey":%q,"productName":%q,"amount":%q%s}`, p.key, name, budget, strings.Join(more, ""))
	made := h.api("POST", "/api/Quota", fields)
	if made.status != http.StatusOK {
		h.t.Fatalf("create: %d %s", made.status, made.body)
	}
	p.id = h.view(p.key).ProductID
	return p
}

type view struct {
	ProductID           string `json:"ProductId"`
	Budget, Spent, Held string
	State               string
}

func (h *host) view(id string) (v view) {
	h.t.Helper()
	h.api("GET", "/api/Quota/"+id, "").json(h.t, &v)
	return v
}

// record is what the history says of a request.
type record struct {
	ID          string
	Rev         int
	Kind        string
	RequestID   string `json:"request_id"`
	Outcome     string
	UsageSource string `json:"usage_source"`
	Status      int64
	User        string
	Operation   string
	Charge      int64
	Cost        int64 `json:"cost_nano_usd"`
	Hold        int64 `json:"hold_nano_usd"`
	Attempts    int64
}

// records are those of requests.
func (h *host) records(p product) (all []record) {
	h.t.Helper()
	var page []record
	h.api("GET", "/api/Quota/"+p.id+"/history?limit=1000", "").json(h.t, &page)
	for _, r := range page {
		if r.Kind == "request" {
			all = append(all, r)
		}
	}
	return all
}

// one waits for the record of a request by its user.
func (h *host) one(p product, user string) (found record) {
	h.t.Helper()
	until(h.t, "a record of "+user, func() bool {
		n := 0
		for _, r := range h.records(p) {
			if r.User == user {
				found = r
				n++
			}
		}
		if n > 1 {
			h.t.Fatalf("%d records of %s", n, user)
		}
		return n == 1
	})
	return found
}

// balanced checks that what was spent is the sum of the records, and that
// nothing is held.
func (h *host) balanced(p product) {
	h.t.Helper()
	sum := int64(0)
	for _, r := range h.records(p) {
		sum += r.Charge
	}
	if v := h.view(p.id); v.Spent != dollars(sum) || v.Held != "0" {
		h.t.Errorf("spent %s and %s held, the records sum to %s", v.Spent, v.Held, dollars(sum))
	}
}

// dollars writes nano-dollars as the gateway does.
func dollars(nano int64) string {
	text := fmt.Sprintf("%d.%09d", nano/1e9, nano%1e9)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// verify runs the gateway's own audit on a host's tables.
func (h *host) verify() {
	h.t.Helper()
	c := exec.CommandContext(h.t.Context(), filepath.Join(dist(h.t), "gateway"), "verify")
	c.Env = h.env
	if out, err := c.CombinedOutput(); err != nil {
		h.t.Errorf("gateway verify: %v: %s", err, out)
	}
}

// chat is a chat request's body.
func chat(user string, stream bool, more ...string) io.Reader {
	return bytes.NewReader(fmt.Appendf(nil, `{"model":"trial","user":%q,"max_tokens":1000,"stream":%v%s,"messages":[{"role":"user","content":"Say something."}]}`,
		user, stream, strings.Join(more, "")))
}

const chatPath = "/openai/v1/chat/completions"

const withUsage = `,"stream_options":{"include_usage":true}`

// until polls a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(waitMax)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", waitMax, what)
		}
	}
}
