package main

import (
	"encoding/json"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/costgate/costgate/"

// imports lists what each package may import of this module. The order is the
// direction: a package names only packages that stand before it, but for the
// tests' own kit.
var imports = []struct {
	name string
	may  []string
}{
	{"money", nil},
	{"sse", nil},
	{"jsonscan", nil},
	{"telemetry", nil},
	{"funchost", nil},
	{"usage", []string{"jsonscan"}},
	{"pricing", []string{"money", "usage", "jsonscan"}},
	{"tokens", []string{"jsonscan"}},
	{"quota", []string{"money"}},
	{"ledger", []string{"quota", "money", "usage"}},
	{"ledger/storetest", []string{"ledger"}},
	{"ledger/sim", []string{"ledger", "quota", "usage"}},
	{"boltstore", []string{"ledger"}},
	{"tablestore", []string{"ledger"}},
	{"lake", []string{"usage"}},
	{"upstream", nil},
	{"proxy", []string{"ledger", "pricing", "usage", "tokens", "quota", "sse", "jsonscan", "money", "funchost", "telemetry"}},
	{"admin", []string{"ledger", "pricing", "usage", "tokens", "quota", "sse", "jsonscan", "money", "telemetry"}},
	{"budget", []string{"ledger", "quota", "usage", "money", "jsonscan", "telemetry"}},
	{"simulator", []string{"jsonscan"}},
	{"testkit/memstore", []string{"ledger"}},
	{"testkit/azurite", nil},
	{"testkit/faultproxy", nil},
	{"testkit/hostsim", nil},
	{"testkit/hostsim/cmd/hostsim", []string{"testkit/hostsim"}},
}

// outside lists which packages may import a library.
var outside = map[string][]string{
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables": {"tablestore"},
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity":    {"handler"},
	"github.com/pkoukk/tiktoken-go":                       {"tokens"},
	"github.com/pkoukk/tiktoken-go-loader":                {"tokens"},
	"go.etcd.io/bbolt":                                    {"boltstore"},
}

// TestArchitecture holds the imports of every package against the tables above.
func TestArchitecture(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	seen := map[string]bool{}
	for decoder.More() {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module+"handler/internal/")
		if p.ImportPath == module+"handler" {
			name = "handler"
		}
		seen[name] = true
		checkImports(t, name, p.Imports)
	}
	for i, row := range imports {
		if !seen[row.name] {
			t.Errorf("the table names %s, which does not exist", row.name)
		}
		for _, may := range row.may {
			if !slices.ContainsFunc(imports[:i], func(r struct {
				name string
				may  []string
			}) bool {
				return r.name == may
			}) {
				t.Errorf("%s may import %s, which stands after it", row.name, may)
			}
		}
	}
}

func checkImports(t *testing.T, name string, imported []string) {
	t.Helper()
	var may []string
	known := name == "handler" // main names concrete parts
	for _, row := range imports {
		if row.name == name {
			may, known = row.may, true
		}
	}
	if !known {
		t.Errorf("%s is not in the table: say what it may import", name)
	}
	for _, other := range imported {
		if own, ok := strings.CutPrefix(other, module+"handler/internal/"); ok && name != "handler" && !slices.Contains(may, own) {
			t.Errorf("%s must not import %s", name, own)
		}
		for library, allowed := range outside {
			if (other == library || strings.HasPrefix(other, library+"/")) && !slices.Contains(allowed, path.Clean(name)) {
				t.Errorf("%s must not import %s: only %v may", name, library, allowed)
			}
		}
	}
}
