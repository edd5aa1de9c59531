package pack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tools puts stand-ins for func and node into a folder. Each writes its command
// line, and what the tests want to know of where it runs, to a log.
func tools(t *testing.T) (folder, logFile string) {
	t.Helper()
	folder = t.TempDir()
	logFile = filepath.Join(folder, "log")
	put(t, filepath.Join(folder, "func"), `#!/bin/sh
exec >>"$TOOL_LOG"
echo "func $*"
echo "in $(basename "$PWD")"
d=.; [ -d dist ] && d=dist
[ -f $d/host.json ] && [ -x $d/gateway ] && echo "application in $d"
[ -f $d/local.settings.json ] && echo "settings in $d, $(ls -l $d/local.settings.json | cut -c1-10)"
[ -z "$DATA_DIR" ] || echo "data in $(basename "$DATA_DIR"), outside of dist: $([ "$(dirname "$DATA_DIR")" = "$PWD" ] && echo yes)"
`, 0o755)
	put(t, filepath.Join(folder, "node"), "#!/bin/sh\necho \"node $1\" >>\"$TOOL_LOG\"\n", 0o755)
	return folder, logFile
}

func logged(t *testing.T, logFile string) []string {
	t.Helper()
	data, err := os.ReadFile(logFile)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}

func TestPublish(t *testing.T) {
	root := t.TempDir()
	copySources(t, root)
	folder, logFile := tools(t)
	env := []string{"TOOL_LOG=" + logFile, "PATH=" + folder + string(os.PathListSeparator) + os.Getenv("PATH")}
	if out, err := runMake(t, root, env, "publish", "APP=costgate-prod"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []string{"func azure functionapp publish costgate-prod --custom", "in dist", "application in ."}
	if diff := cmp.Diff(want, logged(t, logFile)); diff != "" {
		t.Error(diff)
	}
}

// TestStart: the host runs dist with a copy of the settings, its helpers end
// with it, and records lie where the next package does not delete them.
func TestStart(t *testing.T) {
	root := t.TempDir()
	copySources(t, root)
	put(t, filepath.Join(root, "e2e", "node_modules", ".installed"), "", 0o644) // what npm ci would leave
	folder, logFile := tools(t)
	env := []string{"TOOL_LOG=" + logFile, "PATH=" + folder + string(os.PathListSeparator) + os.Getenv("PATH")}
	if out, err := runMake(t, root, env, "start"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := logged(t, logFile)
	const azurite = "node e2e/node_modules/azurite/dist/src/azurite.js"
	if !slices.Contains(got, azurite) {
		t.Errorf("no Azurite: %q", got)
	}
	got = slices.DeleteFunc(got, func(line string) bool { return line == azurite }) // it runs beside
	want := []string{
		"func start --script-root dist", "in " + filepath.Base(root), "application in dist", "settings in dist, -rw-------", "data in .data, outside of dist: yes",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestWhatIsMissing: make says so before it builds anything.
func TestWhatIsMissing(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		root := t.TempDir()
		put(t, filepath.Join(root, "Makefile"), read(t, "Makefile"), 0o644)
		out, err := runMake(t, root, nil, args...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		if _, err := os.Stat(filepath.Join(root, "dist")); err == nil {
			t.Errorf("%v: something was built", args)
		}
	}
	f("make publish APP=<name>", "publish")
	f("install Azure Functions Core Tools", "publish", "APP=x", "FUNC=no-such-func")
	f("install Azure Functions Core Tools", "start", "FUNC=no-such-func")
	f("make run", "start", "FUNC=no-such-func")
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
