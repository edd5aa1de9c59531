package pack

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the func CLI publishes, by its sources (azure-functions-core-tools,
// src/Cli/func: Helpers/ZipHelper.cs, Common/FileSystemHelpers.cs and
// Common/GitIgnoreParser.cs): every file of the folder but for some names, and
// but for what .funcignore denies; 0777 for the entry whose name is exactly
// defaultExecutablePath, 0666 for all others.

// funcIgnore is its reading of .funcignore. It is not git's: a pattern without
// a slash is looked for in the root only, and every pattern matches a beginning
// of the name that ends at the edge of a word.
type funcIgnore struct{ denied *regexp.Regexp }

var special = regexp.MustCompile(`[\-\[\]/{}()+?.\\^$|]`)

func parseFuncIgnore(text string) funcIgnore {
	var parts []string
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		pattern := special.ReplaceAllString(strings.TrimPrefix(line, "/"), `\$0`)
		pattern = strings.ReplaceAll(pattern, "**", "(.+)")
		parts = append(parts, strings.ReplaceAll(pattern, "*", `([^/]+)`))
	}
	if len(parts) == 0 {
		return funcIgnore{regexp.MustCompile(`$^`)}
	}
	// Go knows no escape of / and -, and needs none.
	joined := strings.NewReplacer(`\/`, `/`, `\-`, `-`).Replace(strings.Join(parts, ")|("))
	return funcIgnore{regexp.MustCompile(`^((` + joined + `))\b`)}
}

func (i funcIgnore) denies(name string) bool { return i.denied.MatchString(name) }

// funcPublishes lists what would be in the zip, as readZip does.
func funcPublishes(t *testing.T, root string) []string {
	t.Helper()
	ignore := funcIgnore{regexp.MustCompile(`$^`)}
	if data, err := os.ReadFile(filepath.Join(root, ".funcignore")); err == nil {
		ignore = parseFuncIgnore(string(data))
	}
	handler, err := handlerName(filepath.Join(root, hostFile))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	err = filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		switch name := strings.ToLower(entry.Name()); {
		case err != nil:
			return err
		case entry.IsDir() && (name == ".git" || name == ".vscode"):
			return filepath.SkipDir
		case entry.IsDir(), slices.Contains([]string{".funcignore", ".gitignore", "local.settings.json", "project.lock.json"}, name):
			return nil
		}
		relative, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		if mode := "-rw-rw-rw- "; !ignore.denies(relative) {
			if relative == handler {
				mode = "-rwxrwxrwx "
			}
			lines = append(lines, mode+relative)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[11:], b[11:]) })
	return lines
}

// TestFuncPublishesTheSame: from dist, as make package left it and as make
// start leaves it, the func CLI deploys the files of our zip.
func TestFuncPublishesTheSame(t *testing.T) {
	want := make([]string, len(golden))
	for i, line := range golden {
		want[i] = strings.NewReplacer("-rw-r--r--", "-rw-rw-rw-", "-rwxr-xr-x", "-rwxrwxrwx").Replace(line)
	}
	dist := filepath.Join(t.TempDir(), "dist")
	if err := os.CopyFS(dist, os.DirFS(build(t).dist)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, funcPublishes(t, dist)); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"local.settings.json", ".env", ".demo.env", ".data/lake/usage-1.jsonl", ".data/costgate.db", ".vscode/settings.json"} {
		put(t, filepath.Join(dist, filepath.FromSlash(name)), "secret", 0o600)
	}
	if diff := cmp.Diff(want, funcPublishes(t, dist)); diff != "" {
		t.Error(diff)
	}
}

// TestFuncPublishesNoSource: who publishes from the root by mistake gets an
// application without functions, and sends no source, no secret and no record.
func TestFuncPublishesNoSource(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(repository, ".funcignore"))
	if err != nil {
		t.Fatal(err)
	}
	ignore := parseFuncIgnore(string(data))
	entries, err := os.ReadDir(repository)
	if err != nil {
		t.Fatal(err)
	}
	kept := []string{"gateway", "host.json", "local.settings.json"} // the last is never published
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() {
			name = path.Join(name, "x")
		}
		if !ignore.denies(name) && !slices.Contains(kept, name) && name != ".git/x" {
			t.Errorf("%s would be published from the root: name it in .funcignore", name)
		}
	}
	for _, line := range golden {
		if name := line[11:]; ignore.denies(name) {
			t.Errorf("%s would not be published", name)
		}
	}
}

func TestParseFuncIgnore(t *testing.T) {
	f := func(text, name string, want bool) {
		t.Helper()
		if got := parseFuncIgnore(text).denies(name); got != want {
			t.Errorf("%q denies %s: %v", text, name, got)
		}
	}
	f("", "a", false)
	f("# a\n\n", "a", false)
	f("/a/", "a/b", true)
	f("a", "a/b", true)
	f("a", "b/a", false) // git would
	f("a", "a-b", true)  // git would not
	f("a", "ab", false)  // b goes on with the word
	f("/.*", ".x", true)
	f("/.*", "x.y", false)
	f("/*.md", "README.md", true)
	f("*.md", "docs/x.md", false) // git would
	f("**.md", "docs/x.md", true)
	f("go.mod\ngo.sum", "go.sum", true)
	f("go.mod", "goxmod", false)
}
