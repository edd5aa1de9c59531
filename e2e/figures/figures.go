// Package figures is what the benchmarks share: how figures of several rounds are
// summed up, and where in the documentation they are written.
package figures

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Median is the value in the middle of the rounds; low and high are the ends.
func Median[T cmp.Ordered, R any](rounds []R, of func(R) T) (middle, low, high T) {
	values := make([]T, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2], values[0], values[len(values)-1]
}

// Percentile of sorted durations; of none it is 0.
func Percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

// Milliseconds writes a duration as a number of milliseconds.
func Milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
}

// Machine says what figures were measured on, without naming it.
func Machine() string {
	model := "unknown CPU"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(info), "model name\t: "); ok {
			model, _, _ = strings.Cut(rest, "\n")
		}
	}
	return fmt.Sprintf("%d cores (%s), %s/%s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// Replace puts a report between the marks of a file: <!-- mark:begin --> and
// <!-- mark:end -->, each on a line of its own.
func Replace(path, mark, report string) error {
	begin, end := "<!-- "+mark+":begin -->\n", "<!-- "+mark+":end -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no %s ... %s", path, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return os.WriteFile(path, []byte(head+begin+report+end+tail), 0o600)
}
