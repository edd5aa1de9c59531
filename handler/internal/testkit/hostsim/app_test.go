package hostsim

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var repository = filepath.Join("..", "..", "..", "..")

// newDist assembles the repository's application around this test binary.
func newDist(t *testing.T) string {
	t.Helper()
	dist := t.TempDir()
	copyFile(t, filepath.Join(repository, "host.json"), filepath.Join(dist, "host.json"))
	folders, err := os.ReadDir(filepath.Join(repository, "functions"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		copyFile(t, filepath.Join(repository, "functions", f.Name(), "function.json"), filepath.Join(dist, f.Name(), "function.json"))
	}
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(dist, "gateway"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dist
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(data))
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The function folders are the table of the documented contract, in the order in
// which the host tries them.
func TestFunctions(t *testing.T) {
	app, err := ReadApp(newDist(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range app.Functions {
		got = append(got, strings.Join([]string{f.Name, strings.Join(f.Methods, ","), f.Route, f.Auth, f.Binding}, " "))
	}
	want := []string{
		"BudgetAlert POST api/Quota/Budget function req",
		"Configure PATCH api/Quota/{keyId} function req",
		"Create POST api/Quota function req",
		"GetAll GET api/Quota function req",
		"GetById GET api/Quota/{keyId} function req",
		"Health GET health anonymous req",
		"History GET api/Quota/{keyId}/history function req",
		"Maintain    timer",
		"Me GET me/{*path} anonymous req",
		"Proxy GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS openai/{*path} anonymous req",
		"Service GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS services/{service}/{*path} anonymous req",
		"Update POST api/Quota/Update function req",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if app.FunctionTimeout != 30*time.Minute || filepath.Base(app.Executable) != "gateway" {
		t.Errorf("%v %s", app.FunctionTimeout, app.Executable)
	}
	var timer functionFile
	if err := readStrict(filepath.Join(app.Dir, "Maintain", "function.json"), &timer); err != nil {
		t.Fatal(err)
	}
	if timer.Bindings[0].Schedule != "0 * * * * *" {
		t.Errorf("%+v", timer)
	}
}

// Every route reaches its function, none is shadowed by a catch-all.
func TestRoutes(t *testing.T) {
	app, err := ReadApp(newDist(t))
	if err != nil {
		t.Fatal(err)
	}
	f := func(method, raw, want string) {
		t.Helper()
		path, ok := decodePath(raw)
		if !ok {
			t.Errorf("%s was refused", raw)
		}
		got := ""
		if found := app.find(method, path); found != nil {
			got = found.Name
		}
		if got != want {
			t.Errorf("%s %s: got %q, want %q", method, raw, got, want)
		}
	}
	f("POST", "/api/Quota", "Create")
	f("POST", "/api/quota/", "Create")
	f("GET", "/API/QUOTA", "GetAll")
	f("POST", "/api/Quota/Update", "Update")
	f("POST", "/api/Quota/Budget", "BudgetAlert")
	f("GET", "/api/Quota/abc", "GetById")
	f("GET", "/api/Quota/Update", "GetById")
	f("PATCH", "/api/Quota/abc", "Configure")
	f("GET", "/API/QUOTA/abc/HISTORY/", "History")
	f("GET", "/api/Quota/a%2Fb", "GetById")
	f("GET", "/health", "Health")
	f("GET", "/me", "Me")
	f("GET", "/me/requests/1", "Me")
	f("POST", "/OpenAI/deployments/d/chat/completions", "Proxy")
	f("OPTIONS", "/openai", "Proxy")
	f("HEAD", "/openai//v1//", "Proxy")
	f("GET", "/x/../openai/v1/models", "Proxy")
	f("POST", "/services/w", "Service")
	f("POST", "/services/w/a/b", "Service")
	f("POST", "/services", "")
	f("POST", "/services//a", "")
	f("TRACE", "/openai/v1", "")
	f("POST", "/health", "")
	f("DELETE", "/api/Quota/abc", "")
	f("GET", "/api//Quota", "")
	f("GET", "/Maintain", "")
	f("GET", "/", "")
}

func TestPaths(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		path, ok := decodePath(raw)
		if got := encodePath(path); got != want || !ok {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
	f("/openai/a%2Fb%2fc", "/openai/a%252Fb%252fc")
	f("/openai//A/b/", "/openai//A/b/")
	f("/openai/%41%20%7E~%C3%A9", "/openai/A%20~~%C3%A9")
	f("/openai/a:b@c;d=e,f", "/openai/a:b@c;d=e,f")
	f("/openai/x/../v1/./models", "/openai/v1/models")
	f("/openai/x/%2E%2E/v1/..", "/openai/")
	f("/../../a", "/a")
	f("/a/.well", "/a/.well")
	f("/a%25b", "/a%25b")
	if _, ok := decodePath("/a%00b"); ok {
		t.Error("%00 was taken")
	}
}

func TestReadAppRefuses(t *testing.T) {
	f := func(want string, change func(dist string)) {
		t.Helper()
		dist := newDist(t)
		change(dist)
		if _, err := ReadApp(dist); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	in := func(name, old, text string) func(string) {
		return func(dist string) {
			path := filepath.Join(dist, name)
			data, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(data), old) {
				t.Fatalf("%s has no %s (%v)", path, old, err)
			}
			write(t, path, strings.Replace(string(data), old, text, 1))
		}
	}
	f("directly below its root", func(dist string) {
		copyFile(t, filepath.Join(dist, "Me", "function.json"), filepath.Join(dist, "functions", "Me2", "function.json"))
	})
	f("directly below its root", func(dist string) {
		copyFile(t, filepath.Join(dist, "Me", "function.json"), filepath.Join(dist, "function.json"))
	})
	f("this file only", func(dist string) { write(t, filepath.Join(dist, "Me", "notes.txt"), "x") })
	f("two functions", func(dist string) {
		copyFile(t, filepath.Join(dist, "Me", "function.json"), filepath.Join(dist, "ME", "function.json"))
	})
	f("not a function name", func(dist string) {
		copyFile(t, filepath.Join(dist, "Me", "function.json"), filepath.Join(dist, "1st", "function.json"))
	})
	f("unknown field", in("Me/function.json", `"route"`, `"rout"`))
	f("named res", in("Me/function.json", `"res"`, `"$return"`))
	f("host's own", in("Me/function.json", `me/{*path}`, `admin/x`))
	f("only the last segment", in("Me/function.json", `me/{*path}`, `{*path}/x`))
	f("not simulated", in("Me/function.json", `me/{*path}`, `me/{id:int}`))
	f("authLevel", in("Me/function.json", `anonymous`, `user`))
	f("six fields", in("Maintain/function.json", `0 * * * * *`, `* * * * *`))
	f("enableProxyingHttpRequest", in("host.json", `"enableProxyingHttpRequest": true`, `"enableProxyingHttpRequest": false`))
	f("unknown field", in("host.json", `enableProxyingHttpRequest`, `enableProxyHttpRequest`))
	f("exactly this name", in("host.json", `"gateway"`, `"./gateway"`))
	f("version", in("host.json", `"2.0"`, `"1.0"`))
	f("no such file", in("host.json", `"gateway"`, `"other"`))
	f("not executable", func(dist string) {
		_ = os.Remove(filepath.Join(dist, "gateway"))
		write(t, filepath.Join(dist, "gateway"), "text")
	})
	f("no functions", func(dist string) {
		folders, _ := filepath.Glob(filepath.Join(dist, "*", "function.json"))
		for _, name := range folders {
			_ = os.Remove(name)
		}
	})
}

// What Core Tools read: without IsEncrypted they take the values for encrypted;
// every value must be a string.
func TestLocalSettings(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(repository, "local.settings.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		IsEncrypted *bool
		Values      map[string]string
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if file.IsEncrypted == nil || *file.IsEncrypted {
		t.Error("IsEncrypted is not false")
	}
	for name, want := range map[string]string{
		"FUNCTIONS_WORKER_RUNTIME": "custom", "AzureWebJobsStorage": "UseDevelopmentStorage=true", "QuotaStorage": "UseDevelopmentStorage=true",
		"AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:7072",
	} {
		if file.Values[name] != want {
			t.Errorf("%s is %q", name, file.Values[name])
		}
	}
}
