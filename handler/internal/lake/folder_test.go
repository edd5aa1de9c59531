package lake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func records(texts ...string) [][]byte {
	out := make([][]byte, len(texts))
	for i, text := range texts {
		out[i] = []byte(text)
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFolderHours(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "lake")
	now := time.Date(2026, 11, 24, 12, 59, 59, 0, time.FixedZone("CET", 3600))
	f := NewFolder(dir, "i-1", func() time.Time { return now })
	defer f.Close()
	send := func(texts ...string) {
		t.Helper()
		if err := f.Send(t.Context(), records(texts...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Send(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing was sent, and there is a folder: %v", err)
	}
	send(`{"id":"1"}`, `{"id":"2"}`)
	send(`{"id":"3"}`)
	now = now.Add(time.Second)
	send(`{"id":"4"}`)
	first, second := filepath.Join(dir, "usage-2026-11-24T11-i-1.jsonl"), filepath.Join(dir, "usage-2026-11-24T12-i-1.jsonl")
	if diff := cmp.Diff("{\"id\":\"1\"}\n{\"id\":\"2\"}\n{\"id\":\"3\"}\n", read(t, first)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("{\"id\":\"4\"}\n", read(t, second)); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]fs.FileMode{dir: 0o750, first: 0o640} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestFolderRepairs(t *testing.T) {
	f := func(before, after string) {
		t.Helper()
		dir := t.TempDir()
		now := time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)
		name := filepath.Join(dir, "usage-2026-11-24T11-i.jsonl")
		other := filepath.Join(dir, "usage-2026-11-24T11-j.jsonl")
		for _, n := range []string{name, other} {
			if err := os.WriteFile(n, []byte(before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		folder := NewFolder(dir, "i", func() time.Time { return now })
		defer folder.Close()
		if err := folder.Send(t.Context(), records(`{}`)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, name); got != after+"{}\n" {
			t.Errorf("%.40q: got %.40q", before, got)
		}
		if got := read(t, other); got != before {
			t.Errorf("another process's file was touched")
		}
	}
	long := strings.Repeat("x", 150_000)
	f("", "")
	f("{\"a\":1}\n", "{\"a\":1}\n")
	f("{\"a\":1}\n{\"b\"", "{\"a\":1}\n")
	f("{\"b\"", "")
	f(long, "")
	f("{}\n"+long, "{}\n")
}

func TestFolderRefuses(t *testing.T) {
	dir := t.TempDir()
	folder := NewFolder(dir, "i", time.Now)
	defer folder.Close()
	f := func(record, id string, ok bool) {
		t.Helper()
		err := folder.Send(t.Context(), records(`{"id":"good"}`, record))
		if ok {
			if err != nil {
				t.Errorf("%.40s: %v", record, err)
			}
			return
		}
		bad := (*RecordError)(nil)
		if !errors.As(err, &bad) || bad.Index != 1 || bad.ID != id || !strings.Contains(err.Error(), fmt.Sprintf("%q", id)) {
			t.Errorf("%.40s: %v", record, err)
		}
	}
	sized := func(n int) string {
		return `{"id":"big","x":"` + strings.Repeat("x", n-19) + `"}`
	}
	f(sized(RecordBytesMax), "", true)
	f(sized(RecordBytesMax+1), "big", false)
	f("{\"id\":\"two\",\n\"a\":1}", "two", false)
	f("{\"id\":\"cr\",\r\"a\":1}", "cr", false)
	f("", "", false)
	f("text", "", false)
	f(`{"id":"`+strings.Repeat("i", 65)+"\"\n}", "", false)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := folder.Send(ended, records(`{}`)); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
	if err := NewFolder(dir, "../x", time.Now).Send(t.Context(), records(`{}`)); err == nil {
		t.Error("a name that leaves the folder was taken")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || strings.Count(read(t, filepath.Join(dir, entries[0].Name())), "\n") != 2 {
		t.Errorf("%v %v", entries, err)
	}
}

// A write that fails leaves no part of its batch behind, and the next one works.
func TestFolderWriteFails(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)
	folder := NewFolder(dir, "i", func() time.Time { return now })
	defer folder.Close()
	if err := folder.Send(t.Context(), records(`{"id":"1"}`)); err != nil {
		t.Fatal(err)
	}
	_ = folder.file.Close() // as if the disk had gone
	if err := folder.Send(t.Context(), records(`{"id":"2"}`)); err == nil {
		t.Fatal("no error")
	}
	if err := folder.Send(t.Context(), records(`{"id":"3"}`)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "usage-2026-11-24T11-i.jsonl")); got != "{\"id\":\"1\"}\n{\"id\":\"3\"}\n" {
		t.Errorf("%q", got)
	}
}
