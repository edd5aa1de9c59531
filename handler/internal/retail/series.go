package retail

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
)

// steps are the prices of a line in a region, by the day from which they hold.
type steps map[time.Time]money.Pico

// at is the price that holds on a day; 0 if there is none yet.
func (s steps) at(day time.Time) (price money.Pico) {
	var since time.Time
	for from, p := range s {
		if !from.After(day) && !from.Before(since) {
			since, price = from, p
		}
	}
	return price
}

// curves are the steps of a product's meters in the regions of one place.
type curves map[string]map[string]steps // meter, region

// set adds the steps of a region.
func (c curves) set(meter, region string, s steps) {
	if c[meter] == nil {
		c[meter] = map[string]steps{}
	}
	c[meter][region] = s
}

// days are all days on which any price changes, in order.
func (c curves) days() []time.Time {
	all := map[time.Time]bool{}
	for _, regions := range c {
		for _, s := range regions {
			for from := range s {
				all[from] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), time.Time.Compare)
}

// at is the price of every meter on a day, in a region or, where the region has
// none or is not named, the dearest of the place.
func (c curves) at(day time.Time, region string) map[string]money.Pico {
	prices := map[string]money.Pico{}
	for meter, regions := range c {
		price := money.Pico(0)
		for _, s := range regions {
			price = max(price, s.at(day))
		}
		if own := regions[region].at(day); own != 0 {
			price = own
		}
		if price != 0 {
			prices[meter] = price
		}
	}
	return prices
}

// differing are the regions whose prices are not always the place's.
func (c curves) differing() []string {
	found := map[string]bool{}
	for _, day := range c.days() {
		for _, regions := range c {
			if len(regions) < 2 {
				continue
			}
			dearest := money.Pico(0)
			for _, s := range regions {
				dearest = max(dearest, s.at(day))
			}
			for region, s := range regions {
				if own := s.at(day); own != 0 && own != dearest {
					found[region] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// family is a model in a deployment type and a place.
type family struct{ model, sku, place string }

// families sorts the quotes by family and version.
func (b *builder) families() map[family]map[string]curves {
	all := map[family]map[string]curves{}
	for l, regions := range b.quotes {
		for region, days := range regions {
			if b.spoilt[l][region] {
				continue
			}
			place, err := b.place(l.sku, region)
			if err != nil {
				continue // reported when it was read
			}
			f := family{l.model, l.sku, place}
			if all[f] == nil {
				all[f] = map[string]curves{}
			}
			if all[f][l.version] == nil {
				all[f][l.version] = curves{}
			}
			s := steps{}
			for from, q := range days {
				s[from] = q.price
			}
			all[f][l.version].set(l.meter, region, s)
		}
	}
	return all
}

// spread gives every version of a family the meters that are its own, and where
// there are none those without a date. If all versions of a model cost the
// same, so does the model without a version.
func (b *builder) spread(f family, versions map[string]curves) map[string]curves {
	undated := versions[""]
	targets := map[string]bool{}
	for version := range versions {
		targets[version] = true
	}
	var known []string
	if m := b.Catalog.byName[f.model]; m != nil {
		known = m.versions
	}
	if undated != nil {
		for _, version := range known {
			targets[version] = true
		}
	}
	out := map[string]curves{}
	for version := range targets {
		c := maps.Clone(undated)
		if c == nil {
			c = curves{}
		}
		maps.Copy(c, versions[version])
		out[version] = c
	}
	if undated == nil && b.alike(f, known, out) {
		out[""] = out[known[0]]
	}
	return out
}

// alike tells whether all versions of a model are there and cost the same.
// If they differ, the current book's price of the model without version stays.
func (b *builder) alike(f family, known []string, versions map[string]curves) bool {
	if len(known) == 0 {
		return false
	}
	first := fmt.Sprint(versions[known[0]])
	for _, version := range known {
		if versions[version] == nil || fmt.Sprint(versions[version]) != first {
			b.report.note("%s %s: not all versions cost the same; the entry without a version is not renewed", f.model, f.sku)
			return false
		}
	}
	return true
}

// entries are the entries of the new book, in order.
func (b *builder) entries() []entry {
	var out []entry
	for f, versions := range b.families() {
		for version, c := range b.spread(f, versions) {
			base := entry{Model: f.model, Version: version, SKU: f.sku, Region: f.place, Mode: b.modes[f.model]}
			out = append(out, b.history(base, c, "")...)
			for _, region := range c.differing() {
				b.report.note("%s %s: %s has prices of its own", f.model, f.sku, region)
				base.Region = region
				out = append(out, b.history(base, c, region)...)
			}
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.key(), b.key()) })
	return out
}

// history makes an entry for every day on which a price changed. A day whose
// prices are not complete has none; it is reported if it is today's.
func (b *builder) history(base entry, c curves, region string) (out []entry) {
	var last map[string]money.Pico
	missing := ""
	for _, day := range c.days() {
		e := base
		e.From, e.Meters = day, c.at(day, region)
		if maps.Equal(e.Meters, last) {
			continue
		}
		last = maps.Clone(e.Meters)
		why := b.complete(&e)
		if why == "" {
			out = append(out, e)
		}
		if !day.After(b.Now) || len(out) == 0 {
			missing = why
		}
	}
	if missing != "" {
		b.report.Incomplete[base.key()] = missing
	}
	return out
}
