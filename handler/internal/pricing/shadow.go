package pricing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// ShadowedMax is how many entries [Book.Shadowed] names.
	ShadowedMax = 50

	shadowKeysMax = 3 // named of those that go before an entry
)

// forever is when all entries have come into force.
var forever = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Shadowed names the entries laid over a book that do not count, now or when
// all first days have come, where an entry below is more specific: one without
// version does not change the price of a dated version, for example. Each
// message says what to write instead. At most ShadowedMax are named; a last
// message says that there are more.
func (b *Book) Shadowed() (messages []string) {
	standing := b.standing()
	for i := range b.entries {
		e := &b.entries[i]
		if e.layer == 0 || !slices.Contains(standing[e.Model], i) {
			continue
		}
		message := b.shadow(e, standing[e.Model])
		if message == "" {
			continue
		}
		if len(messages) == ShadowedMax {
			return append(messages, "and there are more entries like these")
		}
		messages = append(messages, message)
	}
	return messages
}

// standing are the entries, by model, that no other one replaces in the end.
func (b *Book) standing() map[string][]int {
	place := func(e *Entry) identity {
		id := e.identity()
		id.from = 0
		return id
	}
	last := make(map[identity]int, len(b.entries))
	for i := range b.entries {
		e := &b.entries[i]
		j, ok := last[place(e)]
		if other := &b.entries[j]; !ok || e.layer > other.layer || e.layer == other.layer && e.From.After(other.From) {
			last[place(e)] = i
		}
	}
	standing := map[string][]int{}
	for i := range b.entries {
		if e := &b.entries[i]; last[place(e)] == i {
			standing[e.Model] = append(standing[e.Model], i)
		}
	}
	return standing
}

// shadow says what goes before an entry although the entry is laid over it.
func (b *Book) shadow(e *Entry, standing []int) string {
	var keys, fields []string
	for _, i := range standing {
		other := &b.entries[i]
		if other.Mode.family() != e.Mode.family() || other.layer >= e.layer || len(keys) > shadowKeysMax {
			continue
		}
		w, ok := meet(e, other)
		if !ok || b.best(&w, standing, nil) != other {
			continue
		}
		keys = append(keys, other.Key)
		for _, field := range [...]struct{ name, mine, theirs string }{
			{"version", e.Version, other.Version}, {"sku", e.SKU, other.SKU}, {"region", e.Region, other.Region},
		} {
			if field.mine != field.theirs && field.theirs != "" && !slices.Contains(fields, field.name) {
				fields = append(fields, field.name)
			}
		}
	}
	if len(keys) == 0 {
		return ""
	}
	more := ""
	if len(keys) > shadowKeysMax {
		keys, more = keys[:shadowKeysMax], " and others"
	}
	return fmt.Sprintf("price %s does not count where the book, or an earlier file, has a more specific one: %s%s; to replace those, write entries with their %s",
		e.Key, strings.Join(keys, ", "), more, strings.Join(fields, " and "))
}

// meet is what both of two entries of a model fit. ok is false if there is no
// such thing, or if the second is not the more specific one there.
func meet(a, b *Entry) (w wanted, ok bool) {
	w = wanted{
		version: cmp.Or(a.Version, b.Version), sku: cmp.Or(a.SKU, b.SKU), region: cmp.Or(a.Region, b.Region), family: a.Mode.family(), at: forever,
	}
	if inZone(w.sku) {
		if a.Region != "" && zoneOf(b.Region) == a.Region { // a region is less than its zone
			w.region = b.Region
		}
		w.zone = zoneOf(w.region)
	}
	fit := func(e *Entry) (r [3]int64, ok bool) {
		r = [3]int64{versionRank(e.Version, w.version, ""), regionRank(e.Region, w.region, w.zone), int64(len(e.SKU))}
		return r, r[0] >= 0 && r[1] >= 0 && (e.SKU == "" || e.SKU == w.sku)
	}
	mine, okA := fit(a)
	theirs, okB := fit(b)
	return w, okA && okB && slices.Compare(theirs[:], mine[:]) > 0
}
