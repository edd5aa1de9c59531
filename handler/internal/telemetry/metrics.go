package telemetry

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// SeriesMax bounds the series of a registry. Those made beyond it count into
// the void, so that a label with too many values costs no memory.
const SeriesMax = 1000

// Registry holds metrics by name and labels. The zero value is ready for use.
type Registry struct {
	mu       sync.Mutex
	families []*family
	series   int
}

type family struct {
	name, help, kind string
	series           []series
}

type series struct {
	labels string // a="x",b="y"; empty: none
	metric any
}

// Counter only grows.
type Counter struct{ n atomic.Int64 }

// Add adds n, which must not be negative.
func (c *Counter) Add(n int64) { c.n.Add(n) }

// Inc adds one.
func (c *Counter) Inc() { c.n.Add(1) }

// Value returns the count.
func (c *Counter) Value() int64 { return c.n.Load() }

// Gauge goes up and down.
type Gauge struct{ n atomic.Int64 }

// Add adds n.
func (g *Gauge) Add(n int64) { g.n.Add(n) }

// Set sets the value.
func (g *Gauge) Set(n int64) { g.n.Store(n) }

// Value returns the value.
func (g *Gauge) Value() int64 { return g.n.Load() }

// Histogram counts integers (milliseconds, tokens, bytes) into fixed buckets.
type Histogram struct {
	bounds []int64 // upper, inclusive, ascending
	counts []atomic.Int64
	sum    atomic.Int64
}

// Observe counts a value.
func (h *Histogram) Observe(v int64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.counts[i].Add(1)
	h.sum.Add(v)
}

// Counter returns the counter of a name and of labels, given as name and value
// in turn. The first call makes it. Keep it: the look-up is not for every use.
// A name that is not valid, or that is another kind of metric, is a mistake in
// the program and panics.
func (r *Registry) Counter(name, help string, labels ...string) *Counter {
	return lookup(r, "counter", name, help, labels, func() *Counter { return &Counter{} })
}

// Gauge is the same for gauges.
func (r *Registry) Gauge(name, help string, labels ...string) *Gauge {
	return lookup(r, "gauge", name, help, labels, func() *Gauge { return &Gauge{} })
}

// Histogram is the same for histograms. bounds are ascending upper bounds; one
// without end is added.
func (r *Registry) Histogram(name, help string, bounds []int64, labels ...string) *Histogram {
	if !slices.IsSorted(bounds) {
		panic("telemetry: bounds of " + name + " do not ascend")
	}
	return lookup(r, "histogram", name, help, labels, func() *Histogram {
		return &Histogram{bounds: slices.Clone(bounds), counts: make([]atomic.Int64, len(bounds)+1)}
	})
}

var namePattern = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func lookup[T any](r *Registry, kind, name, help string, labels []string, fresh func() *T) *T {
	text := labelText(name, labels)
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.families, func(f *family) bool { return f.name == name })
	if i < 0 {
		i = len(r.families)
		r.families = append(r.families, &family{name: name, help: help, kind: kind})
	}
	f := r.families[i]
	if f.kind != kind {
		panic(fmt.Sprintf("telemetry: %s is a %s, not a %s", name, f.kind, kind))
	}
	for _, s := range f.series {
		if s.labels == text {
			return s.metric.(*T)
		}
	}
	m := fresh()
	if r.series < SeriesMax {
		r.series++
		f.series = append(f.series, series{text, m})
	}
	return m
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func labelText(name string, labels []string) string {
	if !namePattern.MatchString(name) || len(labels)%2 != 0 {
		panic("telemetry: bad name or labels of " + name)
	}
	var b strings.Builder
	for i := 0; i < len(labels); i += 2 {
		if !namePattern.MatchString(labels[i]) {
			panic("telemetry: bad label " + labels[i] + " of " + name)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(labels[i] + `="` + labelEscapes.Replace(labels[i+1]) + `"`)
	}
	return b.String()
}

// Each visits counters and gauges. series is the name with its labels.
func (r *Registry) Each(visit func(series string, value int64)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		for _, s := range f.series {
			name := f.name
			if s.labels != "" {
				name += "{" + s.labels + "}"
			}
			switch m := s.metric.(type) {
			case *Counter:
				visit(name, m.Value())
			case *Gauge:
				visit(name, m.Value())
			}
		}
	}
}

var helpEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`)

// WriteTo writes everything in Prometheus' text format, version 0.0.4.
func (r *Registry) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	r.mu.Lock()
	for _, f := range r.families {
		if len(f.series) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.name, helpEscapes.Replace(f.help), f.name, f.kind)
		for _, s := range f.series {
			switch m := s.metric.(type) {
			case *Counter:
				sample(&b, f.name, s.labels, m.Value())
			case *Gauge:
				sample(&b, f.name, s.labels, m.Value())
			case *Histogram:
				m.write(&b, f.name, s.labels)
			}
		}
	}
	r.mu.Unlock()
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// write takes the count from the buckets, so that both agree while others count.
func (h *Histogram) write(b *strings.Builder, name, labels string) {
	prefix := labels
	if prefix != "" {
		prefix += ","
	}
	total := int64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
		le := "+Inf"
		if i < len(h.bounds) {
			le = strconv.FormatInt(h.bounds[i], 10)
		}
		sample(b, name+"_bucket", prefix+`le="`+le+`"`, total)
	}
	sample(b, name+"_sum", labels, h.sum.Load())
	sample(b, name+"_count", labels, total)
}

func sample(b *strings.Builder, name, labels string, value int64) {
	if labels != "" {
		labels = "{" + labels + "}"
	}
	fmt.Fprintf(b, "%s%s %d\n", name, labels, value)
}
