package pack

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// contract is the route table that clients rely on: function, methods (none:
// every one that Azure OpenAI knows), route, auth level.
var contract = []string{
	"BudgetAlert POST api/Quota/Budget function",
	"Configure PATCH api/Quota/{keyId} function",
	"Create POST api/Quota function",
	"GetAll GET api/Quota function",
	"GetById GET api/Quota/{keyId} function",
	"Health GET health anonymous",
	"History GET api/Quota/{keyId}/history function",
	"Maintain timer 0 * * * * *",
	"Me GET me/{*path} anonymous",
	"Proxy * openai/{*path} anonymous",
	"Service * services/{service}/{*path} anonymous",
	"Update POST api/Quota/Update function",
}

const allMethods = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"

type binding struct {
	Type, Direction, Name, AuthLevel, Route, Schedule string
	Methods                                           []string
}

// describe reads a function as a line of the contract.
func describe(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var function struct{ Bindings []binding }
	if err := json.Unmarshal(data, &function); err != nil || len(function.Bindings) == 0 {
		t.Fatalf("%s: %v", file, err)
	}
	name, in := filepath.Base(filepath.Dir(file)), function.Bindings[0]
	if in.Type == "timerTrigger" {
		return name + " timer " + in.Schedule
	}
	// The host proxies a function of exactly these two bindings, and no other.
	if len(function.Bindings) != 2 || in.Type != "httpTrigger" || function.Bindings[1].Type != "http" || function.Bindings[1].Name != "res" {
		t.Errorf("%s: the host would not proxy it: %+v", name, function.Bindings)
	}
	methods := strings.ToUpper(strings.Join(in.Methods, ","))
	if methods == allMethods {
		methods = "*"
	}
	return strings.Join([]string{name, methods, in.Route, in.AuthLevel}, " ")
}

func TestRoutesOfTheContract(t *testing.T) {
	f := func(folder string) {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(folder, "*", functionFile))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range names {
			got = append(got, describe(t, name))
		}
		if diff := cmp.Diff(contract, got); diff != "" {
			t.Error(diff)
		}
	}
	f(filepath.Join(repository, "functions"))
	f(build(t).dist)
}

// TestHostFile holds what the rest of the program rests on.
func TestHostFile(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(build(t).dist, hostFile))
	if err != nil {
		t.Fatal(err)
	}
	var host struct {
		FunctionTimeout string
		Extensions      struct{ HTTP struct{ RoutePrefix *string } }
		CustomHandler   struct {
			EnableProxyingHTTPRequest, EnableForwardingHTTPRequest bool
			Port                                                   *int
		}
	}
	if err := json.Unmarshal(data, &host); err != nil {
		t.Fatal(err)
	}
	prefix := host.Extensions.HTTP.RoutePrefix
	if host.FunctionTimeout != "00:30:00" || prefix == nil || *prefix != "" || !host.CustomHandler.EnableProxyingHTTPRequest ||
		host.CustomHandler.EnableForwardingHTTPRequest || host.CustomHandler.Port != nil {
		t.Errorf("%s", data)
	}
}

// TestNothingElseInDist: beside the application there is only .funcignore, which
// the tools that publish read.
func TestNothingElseInDist(t *testing.T) {
	dist := build(t).dist
	files, err := Files(dist)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{".funcignore": true}
	for _, f := range files {
		want[strings.Split(f.Name, "/")[0]] = true
	}
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, e := range entries {
		got[e.Name()] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestPlainBuild: no flag, no tag and no generated file is needed to build the
// handler.
func TestPlainBuild(t *testing.T) {
	out := filepath.Join(t.TempDir(), "handler")
	command := exec.Command("go", "build", "-o", out, "./handler")
	command.Dir = build(t).root
	if text, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	text, err := exec.Command(out, "help").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(text), "usage: gateway") {
		t.Errorf("%v\n%s", err, text)
	}
}
