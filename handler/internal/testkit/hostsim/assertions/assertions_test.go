package assertions_test

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/testkit/hostsim"
)

// bench is what most of the assertions share: one host with its gateway, and an
// upstream.
type bench struct {
	*host
	u *upstream
	p product
}

const hostVersion = "4.1040.300"

// TestAssertions are what the gateway must do to live on the Functions host,
// each by its number in the list that the simulator was made from.
func TestAssertions(t *testing.T) {
	t.Parallel()
	u := startUpstream(t)
	b := &bench{u: u, host: startHost(t, hostsim.Options{
		Env: settings(t, u, "LOG_LEVEL=debug", "UNMETERED_PATHS=v1/files/*", "STREAM_KEEPALIVE="+keepAlive.String()), Version: hostVersion, MasterKey: masterKey,
	})}
	b.p = b.product("main", "1000")
	idle := watchIdle(b.HandlerURL()) // takes a minute
	swept := startSwept(t)            // half of one

	t.Run("01_listens_before_azure", func(t *testing.T) { listensBeforeAzure(t, u) })
	t.Run("02_settings_by_environment", b.settingsByEnvironment)
	t.Run("03_functions_below_root", functionsBelowRoot)
	t.Run("04_no_route_is_shadowed", b.noRouteShadowed)
	t.Run("05_wrong_method_is_the_hosts", b.wrongMethod)
	t.Run("06_http_functions_are_proxied", proxied)
	t.Run("07_host_header", b.hostHeader)
	t.Run("08_forwarded_for_is_not_trusted", b.forwardedFor)
	t.Run("09_invocation_id", b.invocationID)
	t.Run("10_function_keys_go_no_further", b.functionKeys)
	t.Run("11_keys_and_levels", b.keys)
	t.Run("12_stream_byte_by_byte", b.byteByByte)
	t.Run("13_client_gone", b.clientGone)
	t.Run("14_bodies_query_and_path", b.bodies)
	t.Run("16_exit_codes", func(t *testing.T) { exitCodes(t, u) })
	t.Run("17_own_deadlines", func(t *testing.T) { deadlines(t, u) })
	t.Run("18_timer", b.timer)
	t.Run("19_get_sent_again", func(t *testing.T) { getSentAgain(t, u) })
	t.Run("22_old_host", func(t *testing.T) { oldHost(t, u) })
	t.Run("23_budget_alert", func(t *testing.T) { budgetAlert(t, u) })
	t.Run("24_two_kinds_of_429", b.tooMany)
	t.Run("25_executable", executable)
	t.Run("15_sigkill_loses_nothing", func(t *testing.T) { swept.check(t) })
	t.Run("20_idle_connections", func(t *testing.T) {
		if err := <-idle; err != nil {
			t.Error(err)
		}
	})
	t.Run("21_logs_on_stdout", b.logs) // when all the others have used it
}

func listensBeforeAzure(t *testing.T, u *upstream) {
	const nobody = "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Zm9vYmFy;TableEndpoint=http://127.0.0.1:1/devstoreaccount1;"
	h := startHost(t, hostsim.Options{Env: settings(t, u, "QuotaStorage="+nobody)})
	if a := do(t, "GET", h.URL+"/health", nil); a.status != http.StatusOK {
		t.Errorf("health: %d %s", a.status, a.body)
	}
	port := h.HandlerURL()[strings.LastIndexByte(h.HandlerURL(), ':')+1:]
	if first, _, _ := strings.Cut(h.Stdout(), "\n"); first != "listening on http://127.0.0.1:"+port { // whatever ASPNETCORE_URLS says
		t.Errorf("first line %q", first)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		ip, _, err := net.ParseCIDR(address.String())
		if err != nil || ip.Equal(net.IPv4(127, 0, 0, 1)) || ip.IsLinkLocalUnicast() {
			continue
		}
		if c, err := net.DialTimeout("tcp", net.JoinHostPort(ip.String(), port), time.Second); err == nil {
			c.Close()
			t.Errorf("it listens on %v too", ip)
		}
	}
}

func (b *bench) settingsByEnvironment(t *testing.T) {
	if a := do(t, "GET", b.URL+"/openai/v1/files/x", nil, "Api-Key", b.p.key); a.status == http.StatusForbidden {
		t.Errorf("UNMETERED_PATHS did not arrive: %s", a.body)
	}
	data, err := os.ReadFile("/proc/" + itoa(b.Pid()) + "/environ")
	if errors.Is(err, os.ErrNotExist) {
		return // not Linux: what arrived has been seen to work
	}
	if err != nil {
		t.Fatal(err)
	}
	port := b.HandlerURL()[strings.LastIndexByte(b.HandlerURL(), ':')+1:]
	env := strings.Split(string(data), "\x00")
	for _, want := range append([]string{
		"FUNCTIONS_CUSTOMHANDLER_PORT=" + port, "FUNCTIONS_HTTPWORKER_PORT=" + port, "FUNCTIONS_APP_ROOT_PATH=" + dist(t), "ASPNETCORE_URLS=" + b.URL,
	}, b.env...) {
		if !slices.Contains(env, want) {
			t.Errorf("no %s", want)
		}
	}
}

func functionsBelowRoot(t *testing.T) {
	app, err := hostsim.ReadApp(dist(t))
	if err != nil || len(app.Functions) != 12 || app.FunctionTimeout != 30*time.Minute {
		t.Errorf("%v %+v", err, app)
	}
	nested := variant(t, "host.json", "{", "{")
	if err := os.MkdirAll(filepath.Join(nested, "functions"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(nested, "Proxy"), filepath.Join(nested, "functions", "Proxy")); err != nil {
		t.Fatal(err)
	}
	if _, err := hostsim.ReadApp(nested); err == nil || !strings.Contains(err.Error(), "directly below its root") {
		t.Errorf("a folder of folders: %v", err)
	}
}

// Every route is served by its own function, though the host tries them by name.
func (b *bench) noRouteShadowed(t *testing.T) {
	f := func(method, path, body string, status int, want string) {
		t.Helper()
		a := do(t, method, b.URL+path, strings.NewReader(body), "X-Functions-Key", masterKey, "Api-Key", b.p.key)
		if found, err := regexp.MatchString(want, a.body); err != nil || !found || a.status != status {
			t.Errorf("%s %s: %d %q", method, path, a.status, a.body)
		}
	}
	const other = `{"subscriptionKey":"product-key-other-0123456789","productName":"other","amount":"1"}`
	f("POST", "/api/Quota", other, 200, `"ProductName":"other"`)
	f("POST", "/API/quota/", other, 200, `"ProductName":"other"`)
	f("POST", "/api/Quota/Update", `{"subscriptionKey":"product-key-other-0123456789","prompt":"x","responseBody":{"model":"trial","usage":{"prompt_tokens":1,"completion_tokens":1}}}`, 200, `^true$`)
	f("POST", "/api/Quota/Budget", alert("Actual", "no such budget", "$50.00"), 200, `^true$`)
	f("GET", "/api/Quota", "", 200, `^\[\{`)
	f("GET", "/api/Quota/"+b.p.id, "", 200, `^\{.*"ProductId":"`+b.p.id)
	f("GET", "/api/Quota/"+b.p.key, "", 200, `"ProductId":"`+b.p.id)
	f("PATCH", "/api/Quota/"+b.p.id, `{"tags":{"a":"b"}}`, 200, `"ProductId":"`+b.p.id)
	f("GET", "/API/QUOTA/"+b.p.id+"/HISTORY/", "", 200, `^\[`)
	f("GET", "/health", "", 200, `^ok`)
	f("GET", "/me", "", 200, `"SubscriptionKey":null`)
	f("GET", "/me/requests/none", "", 404, `"not_found"`)
	f("GET", "/openai/v1/models", "", 200, `"object":"list"`)
	f("GET", "/OpenAI/v1/models/", "", 200, `"object":"list"`)
	f("POST", "/openai/deployments/trial/chat/completions?api-version=2024-10-21", `{"messages":[{"role":"user","content":"hi"}]}`, 200, `"usage"`)
	f("POST", "/openai/v1/none", "{}", 403, `"operation_not_priced"`)
	f("POST", "/services/none/x", "{}", 404, `"not_found"`)
}

// What no function has is answered by the host, bare: the handler would have a
// body for it.
func (b *bench) wrongMethod(t *testing.T) {
	f := func(method, path string, status int) {
		t.Helper()
		if a := b.api(method, path, ""); a.status != status || status == 404 && a.body != "" {
			t.Errorf("%s %s: %d %q", method, path, a.status, a.body)
		}
	}
	f("PUT", "/api/Quota", 404)
	f("DELETE", "/api/Quota/"+b.p.id, 404)
	f("POST", "/health", 404)
	f("TRACE", "/openai/v1/models", 404)
	f("GET", "/api/Quota/a/b/c", 404)
	f("POST", "/Maintain", 404)
	f("GET", "/nothing", 404)
	f("GET", "/", 200)
	if a := b.api("GET", "/", ""); !strings.Contains(a.body, "<html") && !strings.Contains(a.body, "<title>") {
		t.Errorf("/ is not the host's: %q", a.body)
	}
	app, err := hostsim.ReadApp(dist(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range app.Functions {
		if first, _, _ := strings.Cut(strings.ToLower(f.Route), "/"); first == "admin" || first == "runtime" {
			t.Errorf("%s has the route %s", f.Name, f.Route)
		}
	}
}

func proxied(t *testing.T) {
	app, err := hostsim.ReadApp(dist(t)) // which refuses functions that would not be proxied
	if err != nil {
		t.Fatal(err)
	}
	timers := 0
	for _, f := range app.Functions {
		if f.Timer {
			timers++
		}
	}
	if timers != 1 {
		t.Errorf("%d timers", timers)
	}
	one := variant(t, "Proxy/function.json", `"bindings": [`, `"bindings": [{"type":"eventHub","direction":"out","name":"hub"},`)
	if _, err := hostsim.ReadApp(one); err == nil {
		t.Error("a function with an output of its own was taken")
	}
}

// Of the files that are published, exactly the one that host.json starts can be
// executed.
func executable(t *testing.T) {
	var found []string
	err := filepath.WalkDir(dist(t), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if info, err := entry.Info(); err != nil || info.Mode()&0o111 != 0 {
			found = append(found, filepath.Base(path))
		}
		return nil
	})
	if diff := cmp.Diff([]string{"gateway"}, found); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	app, err := hostsim.ReadApp(dist(t))
	if err != nil || app.Executable != filepath.Join(app.Dir, "gateway") {
		t.Errorf("%v %+v", err, app)
	}
}

// Nothing of a healthy gateway is an error or a warning to the host.
func (b *bench) logs(t *testing.T) {
	if text := b.Stderr(); text != "" {
		t.Errorf("standard error: %s", text)
	}
	lines := b.Lines()
	if len(lines) < 3 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		if line.Level != hostsim.LevelInformation {
			t.Errorf("%+v", line)
		}
	}
	if exits := b.Exits(); len(exits) != 0 {
		t.Errorf("the handler ended: %v", exits)
	}
	b.balanced(b.p)
	b.verify()
}

func itoa(n int) string { return strconv.Itoa(n) }
