package lake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// files are the texts of a folder's files, in the order of their names.
func files(t *testing.T, dir string) (names, texts []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
		texts = append(texts, read(t, filepath.Join(dir, e.Name())))
	}
	return names, texts
}

// clock is a time that tests move.
type clock struct{ now time.Time }

func newClock() *clock {
	return &clock{time.Date(2026, 11, 24, 12, 59, 59, 123e6, time.FixedZone("CET", 3600))}
}

func (c *clock) folder(dir, instance string) *Folder {
	return NewFolder(FolderOptions{Dir: dir, Instance: instance, Now: func() time.Time { return c.now }})
}

func store(t *testing.T, f *Folder, texts ...string) {
	t.Helper()
	if err := f.Send(t.Context(), records(texts...)); err != nil {
		t.Fatal(err)
	}
}

// A file is for an hour, whatever comes in it.
func TestFolderAge(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "data", "lake"), newClock()
	f := c.folder(dir, "i-1")
	defer f.Close()
	store(t, f)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing was sent, and there is a folder: %v", err)
	}
	store(t, f, `{"id":"1"}`, `{"id":"2"}`)
	c.now = c.now.Add(FileAgeMax - time.Millisecond)
	store(t, f, `{"id":"3"}`)
	c.now = c.now.Add(time.Millisecond)
	store(t, f, `{"id":"4"}`)
	names, texts := files(t, dir)
	wantNames := []string{"usage-20261124T115959.123Z-i-1.jsonl", "usage-20261124T125959.123Z-i-1.jsonl"}
	if diff := cmp.Diff(wantNames, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"{\"id\":\"1\"}\n{\"id\":\"2\"}\n{\"id\":\"3\"}\n", "{\"id\":\"4\"}\n"}, texts); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]fs.FileMode{dir: 0o750, filepath.Join(dir, names[0]): 0o640} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

// A file ends before the batch that would go past its limit. No batch is split,
// also one that is larger than a file.
func TestFolderSize(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	f := c.folder(dir, "i")
	defer f.Close()
	if f.bytesMax != 64<<20 {
		t.Errorf("a file has up to %d bytes", f.bytesMax)
	}
	f.bytesMax = 12
	store(t, f, `{}`, `{}`)         // 6 bytes
	store(t, f, `{}`, `{}`)         // 12, the limit
	store(t, f, `{}`)               // 15 is past it
	store(t, f, `{"id":"123456"}`)  // larger than what is left
	store(t, f, `{"id":"1234567"}`) // larger than a file
	names, texts := files(t, dir)
	if diff := cmp.Diff([]string{"{}\n{}\n{}\n{}\n", "{}\n", "{\"id\":\"123456\"}\n", "{\"id\":\"1234567\"}\n"}, texts); diff != "" {
		t.Error(diff)
	}
	if !slices.IsSorted(names) || names[3] != "usage-20261124T115959.126Z-i.jsonl" {
		t.Errorf("%v", names)
	}
}

// A process that starts begins a file of its own, with a name that was used too.
func TestFolderRestart(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	for i := range 3 {
		f := c.folder(dir, "i")
		store(t, f, fmt.Sprintf(`{"id":"%d"}`, i))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		store(t, f, fmt.Sprintf(`{"id":"%d again"}`, i)) // opens it again
		f.Close()
	}
	_, texts := files(t, dir)
	want := []string{"{\"id\":\"0\"}\n{\"id\":\"0 again\"}\n", "{\"id\":\"1\"}\n{\"id\":\"1 again\"}\n", "{\"id\":\"2\"}\n{\"id\":\"2 again\"}\n"}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Error(diff)
	}
}

// What a dead process left unfinished is cut by one of its name, or by any that is
// alone in the folder.
func TestFolderMends(t *testing.T) {
	f := func(before, after string) {
		t.Helper()
		for _, alone := range []bool{false, true} {
			dir, c := t.TempDir(), newClock()
			own, other := filepath.Join(dir, "usage-20261124T100000.000Z-i.jsonl"), filepath.Join(dir, "usage-20261124T100000.000Z-j.jsonl")
			foreign := filepath.Join(dir, "notes.jsonl")
			for _, name := range []string{own, other, foreign} {
				if err := os.WriteFile(name, []byte(before), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(filepath.Join(dir, "usage-old.jsonl"), 0o750); err != nil {
				t.Fatal(err)
			}
			folder := c.folder(dir, "i")
			folder.o.Alone = alone
			store(t, folder, `{}`)
			folder.Close()
			wantOther := before
			if alone {
				wantOther = after
			}
			for name, want := range map[string]string{own: after, other: wantOther, foreign: before} {
				if got := read(t, name); got != want {
					t.Errorf("%.40q, alone %v: %s is %.40q", before, alone, filepath.Base(name), got)
				}
			}
			if got := read(t, folder.name); got != "{}\n" {
				t.Errorf("%.40q: got %.40q", before, got)
			}
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
	folder := newClock().folder(dir, "i")
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
	if err := newClock().folder(dir, "../x").Send(t.Context(), records(`{}`)); err == nil {
		t.Error("a name that leaves the folder was taken")
	}
	if _, texts := files(t, dir); len(texts) != 1 || strings.Count(texts[0], "\n") != 2 {
		t.Errorf("%d files", len(texts))
	}
}

// A write that fails leaves no part of its batch behind, and the next one works, in
// the same file: a full disk is not filled with empty ones.
func TestFolderWriteFails(t *testing.T) {
	dir := t.TempDir()
	folder := newClock().folder(dir, "i")
	defer folder.Close()
	store(t, folder, `{"id":"1"}`)
	for range 3 {
		_ = folder.file.Close() // as if the disk had gone
		if err := folder.Send(t.Context(), records(`{"id":"2"}`)); err == nil {
			t.Fatal("no error")
		}
		torn, err := os.OpenFile(folder.name, os.O_APPEND|os.O_WRONLY, 0) // what could not be taken back
		if err != nil {
			t.Fatal(err)
		}
		_, _ = torn.WriteString("{\"id\":\"2\"}\n{\"id")
		torn.Close()
		if folder.file != nil {
			t.Fatal("the file is still open")
		}
		if err := folder.reopen(); err != nil {
			t.Fatal(err)
		}
	}
	store(t, folder, `{"id":"3"}`)
	if _, texts := files(t, dir); !slices.Equal(texts, []string{"{\"id\":\"1\"}\n{\"id\":\"3\"}\n"}) {
		t.Errorf("%q", texts)
	}
}

// A file that was taken away or removed gets no more records: nobody would see them.
func TestFolderFileTakenAway(t *testing.T) {
	dir, away := t.TempDir(), filepath.Join(t.TempDir(), "taken.jsonl")
	folder := newClock().folder(dir, "i")
	defer folder.Close()
	store(t, folder, `{"id":"1"}`)
	if err := os.Rename(folder.name, away); err != nil {
		t.Fatal(err)
	}
	store(t, folder, `{"id":"2"}`)
	folder.Close()
	if err := os.Remove(folder.name); err != nil {
		t.Fatal(err)
	}
	store(t, folder, `{"id":"3"}`)
	if _, texts := files(t, dir); !slices.Equal(texts, []string{"{\"id\":\"3\"}\n"}) || read(t, away) != "{\"id\":\"1\"}\n" {
		t.Errorf("%q", texts)
	}
}
