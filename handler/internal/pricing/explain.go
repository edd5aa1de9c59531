package pricing

import (
	"fmt"
	"time"
)

// Candidate is an entry that was looked at for a query.
type Candidate struct {
	Key    string `json:"key"`
	Why    string `json:"why"`
	Chosen bool   `json:"chosen"`
}

// Explanation is how [Book.Lookup] comes to its answer.
type Explanation struct {
	Steps      []string    `json:"steps"`
	Candidates []Candidate `json:"candidates"`
}

// Explain does what Lookup does, and says how.
func (b *Book) Explain(q Query) (Entry, bool, Explanation) {
	x := &Explanation{}
	e, ok := b.find(q, x)
	if ok {
		x.step("the price is %s", e.Key)
	}
	return e, ok, *x
}

// The methods below do nothing if nobody asked for an explanation.

func (x *Explanation) step(format string, args ...any) {
	if x != nil {
		x.Steps = append(x.Steps, fmt.Sprintf(format, args...))
	}
}

// wanted says how the query is read.
func (x *Explanation) wanted(q *Query, w *wanted) {
	of := ""
	if FineTuned(q.Model) {
		of = ", the base of a fine-tuned model"
	}
	x.step("the model %q is %s%s", q.Model, w.model, of)
	switch {
	case w.version != "" && w.dated != "" && w.version != w.dated:
		x.step("versions in order: %s, %s (from the name), undated", w.version, w.dated)
	case w.version != "":
		x.step("versions in order: %s, undated", w.version)
	default:
		x.step("no version is named")
	}
	switch {
	case inZone(w.sku) && w.zone == "":
		x.step("SKU %s, but region %q is in no data zone that is known", w.sku, w.region)
	case inZone(w.sku):
		x.step("SKU %s, region %q: data zone %s", w.sku, w.region, w.zone)
	default:
		x.step("SKU %s, region %q", w.sku, w.region)
	}
}

// passed notes an entry that was looked at, and why it is not taken unless it
// is chosen in the end.
func (x *Explanation) passed(e *Entry, why string) {
	if x != nil {
		x.Candidates = append(x.Candidates, Candidate{Key: e.Key, Why: why})
	}
}

// chose marks a candidate.
func (x *Explanation) chose(e *Entry, why string) {
	if x == nil {
		return
	}
	for i := len(x.Candidates) - 1; i >= 0; i-- {
		if c := &x.Candidates[i]; c.Key == e.Key {
			c.Why, c.Chosen = why, true
			return
		}
	}
}

// reasonOf says in which respects an entry is specific.
func reasonOf(e *Entry, rank rank) string {
	why := "the most specific that fits: "
	switch rank[0] {
	case 2:
		why += "version as asked"
	case 1:
		why += "version as in the name"
	default:
		why += "any version"
	}
	switch rank[1] {
	case 2:
		why += ", region as asked"
	case 1:
		why += ", region by its zone"
	default:
		why += ", any region"
	}
	if e.SKU != "" {
		why += ", this SKU"
	} else {
		why += ", any SKU"
	}
	if !e.From.IsZero() {
		why += ", since " + e.From.Format(time.DateOnly)
	}
	return why
}
