package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
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
	{"media", nil},
	{"funchost", nil},
	{"usage", []string{"jsonscan"}},
	{"pricing", []string{"money", "usage", "jsonscan"}},
	{"retail", []string{"money", "pricing"}},
	{"tokens", []string{"jsonscan"}},
	{"quota", []string{"money"}},
	{"ledger", []string{"quota", "money", "usage"}},
	{"ledger/storetest", []string{"ledger"}},
	{"ledger/sim", []string{"ledger", "quota", "usage"}},
	{"boltstore", []string{"ledger"}},
	{"tablestore", []string{"ledger"}},
	{"lake", []string{"usage"}},
	{"audit", []string{"ledger", "usage"}},
	{"export", []string{"usage", "money", "pricing"}},
	{"predecessor", []string{"quota", "money"}},
	{"upstream", nil},
	{"ratelimit", []string{"quota", "money"}},
	{"proxy", []string{"ledger", "pricing", "usage", "tokens", "media", "quota", "sse", "jsonscan", "money", "funchost", "ratelimit", "telemetry"}},
	{"service", []string{"ledger", "usage", "quota", "jsonscan", "money", "funchost", "upstream", "ratelimit", "proxy"}},
	{"admin", []string{"ledger", "pricing", "usage", "tokens", "quota", "sse", "jsonscan", "money", "telemetry"}},
	{"budget", []string{"ledger", "quota", "usage", "money", "jsonscan", "telemetry"}},
	{"notify", []string{"ledger", "quota", "money"}},
	{"simulator", []string{"jsonscan", "media"}},
	{"testkit/memstore", []string{"ledger"}},
	{"testkit/azurite", nil},
	{"testkit/faultproxy", nil},
	{"testkit/hostsim", nil},
	{"testkit/hostsim/cmd/hostsim", []string{"testkit/hostsim"}},
	{"testkit/hostsim/assertions", nil}, // tests only
	{"testkit/ehpeer", nil},
	{"testkit/ehpeer/cmd/ehpeer", []string{"testkit/ehpeer"}},
}

// outside lists which packages may import a library.
var outside = map[string][]string{
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables":            {"tablestore"},
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity":               {"handler"},
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2": {"lake"},
	"github.com/hamba/avro/v2":                                       {"export"},
	"github.com/parquet-go/parquet-go":                               {"export"},
	"github.com/pkoukk/tiktoken-go":                                  {"tokens"},
	"github.com/pkoukk/tiktoken-go-loader":                           {"tokens"},
	"go.etcd.io/bbolt":                                               {"boltstore"},
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

// TestLedgerRunsOnItsRuntime: what the simulator tests is what runs in
// production only if the ledger has no clock, goroutine, wait or chance of its
// own, but for the Runtime in realtime.go.
func TestLedgerRunsOnItsRuntime(t *testing.T) {
	files, err := filepath.Glob("internal/ledger/*.go")
	if err != nil || len(files) < 10 {
		t.Fatalf("the ledger has %d files: %v", len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || filepath.Base(name) == "realtime.go" {
			continue
		}
		for _, found := range outOfRuntime(t, name, nil) {
			t.Errorf("%s: the ledger waits, tells time, draws and runs tasks by its Runtime only", found)
		}
	}
}

func TestOutOfRuntimeIsFound(t *testing.T) {
	f := func(code string, want bool) {
		t.Helper()
		source := "package p\nimport (\"context\"; \"time\"; clock \"time\")\n" + code
		if found := outOfRuntime(t, "p.go", source); (len(found) > 0) != want {
			t.Errorf("%s: found %v", code, found)
		}
	}
	f(`func f() { go f() }`, true)
	f(`func f() { select {} }`, true)
	f(`var c = make(chan int)`, true)
	f(`type t struct { c <-chan int }`, true)
	f(`func f(ctx context.Context) { <-ctx.Done() }`, true)
	f(`func f(c C) { c <- 1 }`, true)
	f(`var _ = time.Now()`, true)
	f(`var now = time.Now`, true)
	f(`var _ = clock.Since(t)`, true)
	f(`func f() { time.Sleep(1) }`, true)
	f(`var _ = time.NewTimer(1)`, true)
	f(`var _, _ = context.WithTimeout(nil, 1)`, true)
	f(`var _ = context.AfterFunc`, true)
	f("import \"math/rand/v2\"", true)
	f("import \"crypto/rand\"", true)
	f(`import "github.com/google/uuid"; var _ = uuid.New()`, true)
	f(`import "sync"; var w sync.WaitGroup`, true)
	f(`import "sync"; var m sync.Mutex`, false)
	f(`var _ = time.UnixMilli(1).Add(time.Second)`, false)
	f(`var _ = context.WithoutCancel(context.Background())`, false)
	f(`func f(rt R) { rt.Sleep(rt.Now()); rt.Go(f) }`, false)
}

// ownMeans are what a Runtime stands for.
var ownMeans = map[string][]string{
	"time":    {"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"},
	"context": {"WithTimeout", "WithTimeoutCause", "WithDeadline", "WithDeadlineCause", "AfterFunc"},
	"sync":    {"Cond", "NewCond", "WaitGroup"},

	"github.com/google/uuid": {"New", "NewString", "NewRandom", "NewUUID", "NewV6", "NewV7", "Must"},
}

// outOfRuntime lists what a file does without the Runtime. source may be nil: the
// file is read.
func outOfRuntime(t *testing.T, name string, source any) (found []string) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	say := func(n ast.Node, what string) { found = append(found, files.Position(n.Pos()).String()+": "+what) }
	means := map[string][]string{} // by the name that the file gives the package
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if slices.Contains([]string{"math/rand", "math/rand/v2", "crypto/rand", "os/signal"}, imported) {
			say(spec, imported)
		}
		local := path.Base(imported)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if own := ownMeans[imported]; own != nil {
			means[local] = own
			if local == "." {
				say(spec, "import of "+imported+" into the file's own names")
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			say(n, "go")
		case *ast.SelectStmt:
			say(n, "select")
		case *ast.ChanType:
			say(n, "chan")
		case *ast.SendStmt:
			say(n, "<-")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				say(n, "<-")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && slices.Contains(means[x.Name], n.Sel.Name) {
				say(n, x.Name+"."+n.Sel.Name)
			}
		}
		return true
	})
	return found
}
