package retail

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
)

// ReportLinesMax is how many lines of each kind [Report.WriteText] writes.
const ReportLinesMax = 40

// Report is what was made of the prices, and what was not.
type Report struct {
	Version string `json:"version"` // of the new book
	Items   int    `json:"items"`   // prices of Azure OpenAI, of all regions and dates
	Matched int    `json:"matched"` // of these, prices that are in the book
	Joined  int    `json:"joined"`  // of these, by meter id
	Entries int    `json:"entries"` // of the book

	Excluded  findings `json:"excluded"`  // understood, but no price of ours
	Unmatched findings `json:"unmatched"` // not understood
	Refused   findings `json:"refused"`   // understood, but unit, price or date cannot be
	Conflicts findings `json:"conflicts"` // two prices, or two meanings

	Incomplete map[string]string `json:"incomplete"` // entries not written, and what is missing
	Added      []string          `json:"added"`      // entries of what the current book has no price for
	Changed    []Change          `json:"changed"`
	Gone       []string          `json:"gone"` // meters of the current book that the API does not have
	Kept       set               `json:"kept"` // meters whose price is derived from the program's book, or from the current one
	Notes      set               `json:"notes"`
}

// Change is a price that differs from the current book's.
type Change struct {
	Key      string     `json:"key"`
	Meter    string     `json:"meter"`
	Old      money.Pico `json:"old_pico_usd"`
	New      money.Pico `json:"new_pico_usd"`
	Permille int64      `json:"permille"` // (new - old) / old, towards zero
}

// Finding is a meter that something is to be said about.
type Finding struct {
	Meter  string `json:"meter"`
	Unit   string `json:"unit"`
	Reason string `json:"reason"`
	Prices int    `json:"prices"` // how many, of all regions and dates
}

type findingKey struct{ meter, unit, reason string }

// findings counts what is the same for several regions and dates as one.
type findings map[findingKey]int

func (f findings) add(i *Item, why error) {
	reason := strings.TrimPrefix(strings.TrimPrefix(why.Error(), errRefused.Error()+": "), ErrExcluded.Error()+": ")
	f[findingKey{i.MeterName, i.UnitOfMeasure, reason}]++
}

// List is the findings in order.
func (f findings) List() []Finding {
	list := make([]Finding, 0, len(f))
	for key, n := range f {
		list = append(list, Finding{key.meter, key.unit, key.reason, n})
	}
	slices.SortFunc(list, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Meter, b.Meter), strings.Compare(a.Unit, b.Unit), strings.Compare(a.Reason, b.Reason))
	})
	return list
}

// MarshalJSON writes the list.
func (f findings) MarshalJSON() ([]byte, error) { return marshal(f.List()) }

// set is a list of different texts.
type set map[string]bool

func (s set) list() []string {
	return slices.AppendSeq([]string{}, slices.Values(slices.Sorted(maps.Keys(s))))
}

// MarshalJSON writes the list.
func (s set) MarshalJSON() ([]byte, error) { return marshal(s.list()) }

func newReport() *Report {
	return &Report{
		Excluded: findings{}, Unmatched: findings{}, Refused: findings{}, Conflicts: findings{},
		Incomplete: map[string]string{}, Kept: set{}, Notes: set{},
		Added: []string{}, Changed: []Change{}, Gone: []string{},
	}
}

func (r *Report) note(format string, args ...any) { r.Notes[fmt.Sprintf(format, args...)] = true }

func (r *Report) finish() {
	slices.Sort(r.Gone)
	slices.Sort(r.Added)
	slices.SortFunc(r.Changed, func(a, b Change) int { return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Meter, b.Meter)) })
}

// compare notes how the entries in force differ from the current book, and what
// of the current book they do not have.
func (b *builder) compare(entries []entry) {
	r := b.report
	renewed := map[family]bool{}
	for i := range entries {
		e := &entries[i]
		renewed[family{e.Model, e.SKU, e.Region}] = true
		renewed[family{e.Model, "", ""}] = true // an entry of any SKU needs no successor of its own
		last := i+1 == len(entries) || entries[i+1].From.After(b.Now) || !sameButFrom(e, &entries[i+1])
		if e.From.After(b.Now) || !last {
			continue
		}
		current, ok := b.today(e)
		if !ok || made(&current) {
			r.Added = append(r.Added, e.key())
			continue
		}
		for _, meter := range meterNames {
			was, had := current.Price(meter)
			is := e.Meters[meter]
			switch {
			case had && is == 0:
				r.Gone = append(r.Gone, e.key()+" "+meter)
			case had && is != 0 && is != was:
				r.Changed = append(r.Changed, Change{e.key(), meter, was, is, int64(is-was) * 1000 / int64(was)})
			}
		}
	}
	for e := range b.Current.All() {
		if sellsTokens(&e) && !renewed[family{e.Model, e.SKU, e.Region}] {
			r.Gone = append(r.Gone, e.Key)
		}
	}
}

// sellsTokens tells whether an entry is of what meters are read for: a model, not a tool, an image or a film.
func sellsTokens(e *pricing.Entry) bool {
	return !strings.Contains(e.Model, "/") && e.Mode != pricing.ModeImage && e.Mode != pricing.ModeVideo && e.Mode != modeTool
}

func sameButFrom(a, b *entry) bool {
	return a.Model == b.Model && a.Version == b.Version && a.SKU == b.SKU && a.Region == b.Region
}

// WriteText writes the report for people: counts, and the first lines of every list.
func (r *Report) WriteText(w io.Writer) {
	fmt.Fprintf(w, "%d prices read, %d understood (%d by meter id); %d entries in book %s\n", r.Items, r.Matched, r.Joined, r.Entries, cmp.Or(r.Version, "(none)"))
	list := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(w, "%s: %d\n", title, len(lines))
		for i, line := range lines {
			if i == ReportLinesMax {
				fmt.Fprintf(w, "  ... and %d more; -report has all\n", len(lines)-i)
				break
			}
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
	for _, f := range []struct {
		title string
		of    findings
	}{{"refused", r.Refused}, {"conflicts", r.Conflicts}, {"unmatched meters", r.Unmatched}} {
		var lines []string
		for _, one := range f.of.List() {
			lines = append(lines, fmt.Sprintf("%q (unit %q, %d prices): %s", one.Meter, one.Unit, one.Prices, one.Reason))
		}
		list(f.title, lines)
	}
	var changes, missing []string
	for _, c := range r.Changed {
		changes = append(changes, fmt.Sprintf("%s %s: %d -> %d pico-USD (%s %%)", c.Key, c.Meter, c.Old, c.New, percent(c.Permille)))
	}
	for _, key := range slices.Sorted(maps.Keys(r.Incomplete)) {
		missing = append(missing, key+": "+r.Incomplete[key])
	}
	list("changed prices", changes)
	list("incomplete, not written", missing)
	list("kept in their ratio to the usual price", r.Kept.list())
	list("not in the price list any more", r.Gone)
	list("notes", r.Notes.list())
	fmt.Fprintf(w, "new: %d entries; left out: %d meters\n", len(r.Added), len(r.Excluded))
}

// percent writes parts per thousand as per cent, with one decimal.
func percent(permille int64) string {
	sign := "+"
	if permille < 0 {
		sign, permille = "-", -permille
	}
	return fmt.Sprintf("%s%d.%d", sign, permille/10, permille%10)
}

// JSON is the whole report.
func (r *Report) JSON() ([]byte, error) { return marshal(r) }

func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(v)
	return out.Bytes(), err
}
