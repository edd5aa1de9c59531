package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Below infra each file of snapshots/ is a shape of the deployment: parameters,
// and beside them what main.bicep makes of these. The tests here and in the
// other infra_*_test.go files ask the committed ones; with BICEP in the
// environment, the compiler, they are also made anew and compared. With UPDATE=1
// they are written.

const (
	infraDir = "../infra"
	template = infraDir + "/azuredeploy.json"
	shapes   = infraDir + "/snapshots"
)

// Where the shapes are deployed to. Names are made from it, so it is fixed.
var shapePlace = []string{
	"--tenant-id", "00000000-0000-0000-0000-000000000001",
	"--subscription-id", "00000000-0000-0000-0000-000000000002",
	"--resource-group", "rg-costgate", "--location", "eastus2", "--deployment-name", "snapshot",
}

// bicep runs the compiler. All that it says is a failure: it has no other way to
// tell of a warning.
func bicep(t *testing.T, dir string, args ...string) {
	t.Helper()
	command := exec.Command(os.Getenv("BICEP"), args...)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Fatalf("bicep %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestInfraBuild(t *testing.T) {
	compiler := os.Getenv("BICEP")
	if compiler == "" {
		t.Skip("BICEP is not set: the Bicep files are not compiled, only what was compiled before is read")
	}
	if _, err := exec.LookPath(compiler); err != nil {
		t.Fatalf("BICEP: %v", err)
	}
	// A copy, so that nothing of what the compiler writes is left.
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(infraDir)); err != nil {
		t.Fatal(err)
	}
	t.Run("build", func(t *testing.T) {
		out := t.TempDir()
		bicep(t, dir, "build", "--pattern", "**/*.bicep", "--outdir", out)
		bicep(t, dir, "build-params", "--pattern", "**/*.bicepparam", "--outdir", out)
	})
	t.Run("lint", func(t *testing.T) {
		bicep(t, dir, "lint", "--pattern", "**/*.bicep")
		bicep(t, dir, "lint", "--pattern", "**/*.bicepparam")
	})
	t.Run("format", func(t *testing.T) {
		files := infraFiles(t, ".bicep", ".bicepparam")
		before := map[string][]byte{}
		for _, file := range files {
			before[file] = readFile(t, filepath.Join(dir, file))
		}
		bicep(t, dir, "format", "--pattern", "**/*.bicep", "--insert-final-newline", "--newline-kind", "LF")
		bicep(t, dir, "format", "--pattern", "**/*.bicepparam", "--insert-final-newline", "--newline-kind", "LF")
		for _, file := range files {
			if !bytes.Equal(before[file], readFile(t, filepath.Join(dir, file))) {
				t.Errorf("%s is not formatted: bicep format --insert-final-newline %[1]s", file)
			}
		}
	})
	t.Run("template", func(t *testing.T) {
		bicep(t, dir, "build", "main.bicep", "--outfile", "azuredeploy.json")
		committed(t, template, readFile(t, filepath.Join(dir, "azuredeploy.json")))
	})
	for _, file := range infraFiles(t, ".bicepparam") {
		t.Run("snapshot "+file, func(t *testing.T) {
			bicep(t, dir, append([]string{"snapshot", file, "--mode", "overwrite"}, shapePlace...)...)
			name := strings.TrimSuffix(file, ".bicepparam") + ".snapshot.json"
			made := canonical(t, readFile(t, filepath.Join(dir, name)))
			if s := parseSnapshot(t, file, made); len(s.Diagnostics) > 0 {
				t.Errorf("%s: %s", file, s.Diagnostics)
			}
			// main.bicepparam has its own name for the environment, and this month.
			if strings.HasPrefix(file, "snapshots"+string(filepath.Separator)) {
				committed(t, filepath.Join(infraDir, name), made)
			}
		})
	}
}

// committed holds a file against what was made. With UPDATE=1 it writes it.
func committed(t *testing.T, path string, made []byte) {
	t.Helper()
	if was, err := os.ReadFile(path); err == nil && bytes.Equal(canonical(t, was), canonical(t, made)) {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatalf("%s is not what the compiler makes: run make infra BICEP=...", path)
	}
	if err := os.WriteFile(path, made, 0o600); err != nil {
		t.Fatal(err)
	}
}

// canonical is JSON with its members sorted: the compiler writes the outputs of a
// snapshot in any order. Who compiled it, and when, does not count.
func canonical(t *testing.T, text []byte) []byte {
	t.Helper()
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(withoutGenerator(value)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func withoutGenerator(value any) any {
	switch v := value.(type) {
	case map[string]any:
		delete(v, "_generator")
		for name, member := range v {
			v[name] = withoutGenerator(member)
		}
	case []any:
		for i, element := range v {
			v[i] = withoutGenerator(element)
		}
	}
	return value
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// infraFiles are the files below infra with one of the endings.
func infraFiles(t *testing.T, endings ...string) (names []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(infraDir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && slices.Contains(endings, filepath.Ext(path)) {
			names = append(names, path)
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("%d files of %v, %v", len(names), endings, err)
	}
	return names
}

// snapshot is a shape of the deployment.
type snapshot struct {
	name        string
	Resources   []resource        `json:"predictedResources"`
	Outputs     map[string]string `json:"outputs"`
	Diagnostics []json.RawMessage `json:"diagnostics"`
}

// resource is one of Azure. What is known only when it is deployed is an
// expression in brackets.
type resource struct {
	ID, Type, Name, Location, Kind string
	SKU                            map[string]any
	Tags                           map[string]string
	Identity                       object
	Properties                     object
}

type object map[string]any

// at is a member of a member of an object; nil if there is none.
func (o object) at(path string) any {
	var value any = map[string]any(o)
	for _, name := range strings.Split(path, ".") {
		members, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = members[name]
	}
	return value
}

func parseSnapshot(t *testing.T, name string, text []byte) *snapshot {
	t.Helper()
	s := &snapshot{name: name}
	if err := json.Unmarshal(text, s); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(s.Resources) == 0 {
		t.Fatalf("%s has no resources", name)
	}
	return s
}

// eachShape runs a test on each committed shape.
func eachShape(t *testing.T, test func(t *testing.T, s *snapshot)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shapes, "*.snapshot.json"))
	if err != nil {
		t.Fatal(err)
	}
	params, err := filepath.Glob(filepath.Join(shapes, "*.bicepparam"))
	if err != nil || len(params) < 5 || len(files) != len(params) {
		t.Fatalf("%d snapshots of %d parameter files, %v", len(files), len(params), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".snapshot.json")
		t.Run(name, func(t *testing.T) { test(t, parseSnapshot(t, name, readFile(t, file))) })
	}
}

func shape(t *testing.T, name string) *snapshot {
	t.Helper()
	return parseSnapshot(t, name, readFile(t, filepath.Join(shapes, name+".snapshot.json")))
}

// all are the resources of a type.
func (s *snapshot) all(kind string) (found []resource) {
	for _, r := range s.Resources {
		if r.Type == kind {
			found = append(found, r)
		}
	}
	return found
}

// one is the only resource of a type whose name begins with a prefix.
func (s *snapshot) one(t *testing.T, kind, prefix string) resource {
	t.Helper()
	found := slices.DeleteFunc(s.all(kind), func(r resource) bool { return !strings.HasPrefix(r.Name, prefix) })
	if len(found) != 1 {
		t.Fatalf("%s has %d of %s %s", s.name, len(found), kind, prefix)
	}
	return found[0]
}

// want holds members of an object against what they should be, as JSON.
func want(t *testing.T, what string, o object, members map[string]string) {
	t.Helper()
	for path, wanted := range members {
		got, err := json.Marshal(o.at(path))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != wanted {
			t.Errorf("%s: %s is %s, want %s", what, path, got, wanted)
		}
	}
}
