package pack

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// golden is what is deployed, in the order of the archive.
var golden = []string{
	"-rw-r--r-- BudgetAlert/function.json",
	"-rw-r--r-- Configure/function.json",
	"-rw-r--r-- Create/function.json",
	"-rw-r--r-- GetAll/function.json",
	"-rw-r--r-- GetById/function.json",
	"-rw-r--r-- Health/function.json",
	"-rw-r--r-- History/function.json",
	"-rw-r--r-- Maintain/function.json",
	"-rw-r--r-- Me/function.json",
	"-rw-r--r-- Proxy/function.json",
	"-rw-r--r-- Service/function.json",
	"-rw-r--r-- Update/function.json",
	"-rwxr-xr-x gateway",
	"-rw-r--r-- host.json",
}

func TestZipHasExactlyTheApplication(t *testing.T) {
	if diff := cmp.Diff(golden, readZip(t, build(t).zip)); diff != "" {
		t.Error(diff)
	}
}

// TestSameSourceSameBytes builds a second time in another folder, from files of
// another time, under another umask.
func TestSameSourceSameBytes(t *testing.T) {
	first := build(t)
	root := t.TempDir()
	copySources(t, root)
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, name := range []string{"host.json", "go.mod", "handler/main.go", "functions/Me/function.json"} {
		if err := os.Chtimes(filepath.Join(root, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := runMake(t, root, []string{"TEST_UMASK=077"}, "zip"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"dist/gateway", "bin/costgate.zip"} {
		a, err := os.ReadFile(filepath.Join(first.root, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: %d and %d bytes that differ", name, len(a), len(b))
		}
		if bytes.Contains(b, []byte(root)) {
			t.Errorf("%s tells where it was built", name)
		}
	}
}

// newDist is a small application: its binary is only a head.
func newDist(t *testing.T) string {
	t.Helper()
	dist := t.TempDir()
	put(t, filepath.Join(dist, "host.json"), `{"customHandler":{"description":{"defaultExecutablePath":"gateway"}}}`, 0o644)
	put(t, filepath.Join(dist, "Me", "function.json"), "{}", 0o644)
	put(t, filepath.Join(dist, "gateway"), binaryFor(t, elf.EM_X86_64, false), 0o644) // its mode on disk does not count
	return dist
}

func TestLeftOut(t *testing.T) {
	dist := newDist(t)
	for _, name := range leftOut {
		put(t, filepath.Join(dist, name), "secret", 0o644)
	}
	files, err := Files(dist)
	want := []File{{"Me/function.json", 0o644}, {"gateway", 0o755}, {"host.json", 0o644}}
	if diff := cmp.Diff(want, files); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestRefusals(t *testing.T) {
	f := func(want string, change func(dist string)) {
		t.Helper()
		dist := newDist(t)
		change(dist)
		var b bytes.Buffer
		if err := Write(&b, dist); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	write := func(name, text string) func(string) {
		return func(dist string) { put(t, filepath.Join(dist, name), text, 0o644) }
	}
	f("notes.txt: does not belong", write("notes.txt", "x"))
	f(".env: does not belong", write(".env", "x"))
	f("Me: a function's folder", write("Me/run.sh", "x"))
	f("functions: a function's folder", write("functions/Me/function.json", "{}"))
	f(".data: a function's folder", write(".data/lake/usage.jsonl", "{}"))
	f("Me: a function's folder", func(dist string) {
		name := filepath.Join(dist, "Me", "function.json")
		if err := os.Rename(name, filepath.Join(dist, "Me", "Function.json")); err != nil {
			t.Fatal(err)
		}
	})
	f("host.json", write("host.json", "{"))
	for _, name := range []string{"", ".", "./gateway", "bin/gateway", "/gateway"} {
		f("defaultExecutablePath", write("host.json", `{"customHandler":{"description":{"defaultExecutablePath":"`+name+`"}}}`))
	}
	f("not a Linux binary", write("gateway", "#!/bin/sh\n"))
	f("not for amd64", write("gateway", binaryFor(t, elf.EM_AARCH64, false)))
	f("linked dynamically", write("gateway", binaryFor(t, elf.EM_X86_64, true)))
	f("not a regular file", func(dist string) {
		if err := os.Remove(filepath.Join(dist, "gateway")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dist, "gateway"), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	f("no such file", func(dist string) {
		if err := os.Remove(filepath.Join(dist, "gateway")); err != nil {
			t.Fatal(err)
		}
	})
}
