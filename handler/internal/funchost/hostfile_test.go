package funchost

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFunctionTimeout(t *testing.T) {
	f := func(file string, want time.Duration, ok bool) {
		t.Helper()
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "host.json"), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := FunctionTimeout(root); got != want || (err == nil) != ok {
			t.Errorf("%.60s: %v %v", file, got, err)
		}
	}
	f(`{"version":"2.0"}`, 30*time.Minute, true)
	f(`{"functionTimeout":"00:05:00"}`, 5*time.Minute, true)
	f(`{"functionTimeout":"01:00:01"}`, time.Hour+time.Second, true)
	f(`{"functionTimeout":"1.12:00:00"}`, 36*time.Hour, true)
	f(`{"functionTimeout":"-1"}`, 0, true)
	f(`{"functionTimeout":"00:00:00"}`, 0, false)
	f(`{"functionTimeout":"30m"}`, 0, false)
	f(`{"functionTimeout":"70000.00:00:00"}`, 0, false)
	f(`{"functionTimeout":30}`, 0, false)
	f(`{`, 0, false)
	f(`{}`+strings.Repeat(" ", hostFileBytesMax-2), 30*time.Minute, true)
	f(`{}`+strings.Repeat(" ", hostFileBytesMax-1), 0, false)
	if _, err := FunctionTimeout(t.TempDir()); err == nil {
		t.Error("no file, no error")
	}
	if got, err := FunctionTimeout(filepath.Join("..", "..", "..")); got != 30*time.Minute || err != nil {
		t.Errorf("ours: %v %v", got, err)
	}
}

func FuzzFunctionTimeout(f *testing.F) {
	for _, text := range []string{"", "-1", "00:30:00", "1.00:00:00", "24:00:00", "..", "1.", "-1.00:00:01"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseTimeout(text); err == nil && (d < 0 || d == 0 && text != "-1") {
			t.Errorf("%q is %v", text, d)
		}
	})
}
