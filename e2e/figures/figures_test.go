package figures

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var sorted []time.Duration
	for i := range 100 {
		sorted = append(sorted, time.Duration(i))
	}
	for p, want := range map[int]time.Duration{0: 0, 50: 50, 99: 99, 100: 99} {
		if got := Percentile(sorted, p); got != want {
			t.Errorf("p%d = %d", p, got)
		}
	}
	if got := Percentile(nil, 50); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
}

func TestMedian(t *testing.T) {
	middle, low, high := Median([]int{5, 1, 3}, func(n int) int { return n })
	if middle != 3 || low != 1 || high != 5 {
		t.Errorf("got %d (%d-%d)", middle, low, high)
	}
}

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.md")
	f := func(text, want string, fails bool) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Replace(path, "b", "new\n"); (err != nil) != fails {
			t.Fatalf("%q: %v", text, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("got %q, %v", got, err)
		}
	}
	f("a\n<!-- b:begin -->\nold\n<!-- b:end -->\nz\n", "a\n<!-- b:begin -->\nnew\n<!-- b:end -->\nz\n", false)
	f("<!-- a:begin -->\n<!-- a:end -->\n<!-- b:begin -->\n<!-- b:end -->\n", "<!-- a:begin -->\n<!-- a:end -->\n<!-- b:begin -->\nnew\n<!-- b:end -->\n", false)
	for _, text := range []string{"", "<!-- b:begin -->\n", "<!-- b:end -->\n<!-- b:begin -->\n"} {
		f(text, text, true)
	}
}
