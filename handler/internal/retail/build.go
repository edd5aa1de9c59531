package retail

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
)

// FactorMax is how much dearer or cheaper than in the current book a price may
// be. Beyond it the unit of measure is wrong, by 1000 times as a rule.
const FactorMax = 100

// ErrNothing says that no price was understood, so that there is no book.
var ErrNothing = errors.New("no complete price was found")

// Input is what a book is made of.
type Input struct {
	Items   []Item
	Catalog *Catalog
	ARM     *ARM          // nil: names alone tell what a meter is
	Current *pricing.Book // compared with, and the source of what the API does not tell
	Now     time.Time
	Source  string // where the items are from: the endpoint
}

// Result is a book, in the form that it is written in, and what it was made from.
type Result struct {
	File   []byte
	Book   *pricing.Book
	Report *Report
}

// product is what has a price of its own.
type product struct{ model, version, sku string }

// line is a meter of a product.
type line struct {
	product
	meter string
}

// quote is a price, and how sure it is.
type quote struct {
	price money.Pico
	rank  int // higher is better: joined by id, of the primary region
	meter string
}

type builder struct {
	Input
	report *Report
	modes  map[string]pricing.Mode
	// quotes are the prices of a line, by region and first day.
	quotes map[line]map[string]map[time.Time]quote
	// spoilt are lines in a region whose price is not certain.
	spoilt map[line]map[string]bool
	probe  *pricing.Book
	entry  map[string]bool // meters that the price book knows, as asked
}

// Build makes a price book. It fails with [ErrNothing], or if the book is larger
// than a price file may be.
func Build(in Input) (*Result, error) {
	b := &builder{
		Input: in, report: newReport(), modes: map[string]pricing.Mode{},
		quotes: map[line]map[string]map[time.Time]quote{}, spoilt: map[line]map[string]bool{}, entry: map[string]bool{},
	}
	var err error
	if b.probe, err = pricing.Parse([]byte(zoneProbe)); err != nil {
		return nil, err
	}
	for i := range in.Items {
		b.read(&in.Items[i])
	}
	entries := b.entries()
	b.report.Entries = len(entries)
	b.compare(entries)
	b.report.finish()
	if len(entries) == 0 {
		return &Result{Report: b.report}, ErrNothing
	}
	day := in.Now.UTC().Format(time.DateOnly)
	file := write("retail-"+day, "Azure Retail Prices API ("+in.Source+"), read on "+day+"; list prices in USD.", entries)
	book, err := pricing.Parse(file)
	if err != nil {
		return nil, fmt.Errorf("the new book does not load; name fewer regions? %w", err)
	}
	b.report.Version = book.Version()
	return &Result{file, book, b.report}, nil
}

// use is a reading of a meter: what it is the price of.
type use struct {
	line
	mode pricing.Mode
	rank int
}

// read takes a price of the API, or reports why not.
func (b *builder) read(i *Item) {
	if !i.sold() {
		return
	}
	b.report.Items++
	uses, unit, err := b.uses(i)
	switch {
	case errors.Is(err, ErrExcluded):
		b.report.Excluded.add(i, err)
		return
	case errors.Is(err, errRefused):
		b.report.Refused.add(i, err)
		return
	case err != nil:
		b.report.Unmatched.add(i, err)
		return
	}
	from, ok := day(i.EffectiveStartDate)
	if !ok {
		b.report.Refused.add(i, fmt.Errorf("%w: effectiveStartDate %.40q is no date", errRefused, i.EffectiveStartDate))
		return
	}
	price, err := unit.pico(i.RetailPrice.String())
	if err != nil {
		b.report.Refused.add(i, err)
		return
	}
	for _, u := range uses {
		if !b.plausible(u, i.region(), price) {
			b.report.Refused.add(i, fmt.Errorf("%w: more than %d times dearer or cheaper than the current book; the unit must be wrong", errRefused, FactorMax))
			return
		}
	}
	b.report.Matched++
	for _, u := range uses {
		b.modes[u.model] = u.mode
		b.quote(i, u, from, quote{price, u.rank, i.MeterName})
	}
}

var errRefused = errors.New("refused")

// uses is what a meter is the price of, by its id if Azure Resource Manager
// knows it, and by its name.
func (b *builder) uses(i *Item) (uses []use, u unit, err error) {
	seen, _, _ := b.Catalog.read(i.MeterName)
	name, nameErr := b.Catalog.Parse(i.MeterName)
	if errors.Is(nameErr, ErrExcluded) {
		return nil, unit{}, nameErr
	}
	rank := 0
	if i.IsPrimaryMeterRegion {
		rank = 1
	}
	joined, err := b.joined(i, seen, rank+2)
	if err != nil {
		return nil, unit{}, err
	}
	switch named := (use{line{product{name.Model, name.Version, name.SKU}, name.Meter}, name.Mode, rank}); {
	case nameErr != nil && len(joined) == 0:
		return nil, unit{}, nameErr
	case len(joined) == 0:
		uses = []use{named}
	case nameErr != nil || slices.ContainsFunc(joined, named.agrees):
		b.report.Joined++
		if uses = joined; nameErr == nil {
			named.rank = rank + 2
			uses = append(uses, named)
		}
	default:
		b.report.Joined++
		b.report.Conflicts.add(i, fmt.Errorf("its name says %v, its id is billed for %v; the id counts", named.line, joined[0].line))
		uses = joined
	}
	for _, one := range uses {
		if _, err := b.place(one.sku, i.region()); err != nil {
			return nil, unit{}, err
		}
	}
	if u, err = parseUnit(i.UnitOfMeasure, counts(uses[0].meter)); err != nil {
		return nil, unit{}, fmt.Errorf("%w: %w", errRefused, err)
	}
	if said := per(seen); said != 0 && said != u.size && !u.time {
		return nil, unit{}, fmt.Errorf("%w: the name is of %d, the unit of measure is %q", errRefused, said, i.UnitOfMeasure)
	}
	return uses, u, nil
}

// agrees tells whether two readings are of the same price. A name without a date is of any version.
func (u use) agrees(other use) bool {
	return u.model == other.model && u.sku == other.sku && u.meter == other.meter && (u.version == "" || u.version == other.version)
}

func (l line) String() string {
	return strings.Join([]string{l.model, cmp.Or(l.version, "*"), l.sku, l.meter}, "/")
}

// joined is what Azure Resource Manager bills by a meter.
func (b *builder) joined(i *Item, seen map[class]bool, rank int) (uses []use, err error) {
	if b.ARM == nil {
		return nil, nil
	}
	for _, a := range b.ARM.uses[strings.ToLower(i.MeterID)] {
		mode := a.mode
		if known := b.Catalog.byName[a.model]; known != nil {
			if mode = known.mode; known.media() || (a.mode == pricing.ModeEmbedding) != (mode == pricing.ModeEmbedding) {
				continue // its names do not tell text from audio and images
			}
		} else if a.mode == pricing.ModeEmbedding && !strings.Contains(a.model, "embedding") || mediaName(a.model) {
			continue
		}
		prefix, err := band(seen)
		if err != nil {
			return nil, err
		}
		if slices.Contains([]string{"GlobalStandard", "DataZoneStandard", "Standard", "GlobalBatch", "DataZoneBatch"}, a.sku) {
			uses = append(uses, use{line{product{a.model, a.version, a.sku}, prefix + a.meter}, mode, rank})
		}
	}
	return uses, nil
}

// mediaName tells whether a model that no book knows sounds as if it priced several kinds of token apart.
func mediaName(model string) bool {
	return slices.ContainsFunc([]string{"audio", "realtime", "transcribe", "tts", "image", "sora", "whisper", "dall"}, func(word string) bool {
		return strings.Contains(model, word)
	})
}

// plausible compares a price with the current book's.
func (b *builder) plausible(u use, region string, price money.Pico) bool {
	current, ok := b.Current.Lookup(pricing.Query{Model: u.model, Version: u.version, SKU: u.sku, Region: region, Mode: u.mode, At: b.Now})
	if !ok {
		return true
	}
	old, ok := current.Price(u.meter)
	return !ok || made(&current) || price <= FactorMax*old && old <= FactorMax*price
}

// quote notes a price. Of several of one day the surest counts; if they differ, none does.
func (b *builder) quote(i *Item, u use, from time.Time, q quote) {
	regions := b.quotes[u.line]
	if regions == nil {
		regions = map[string]map[time.Time]quote{}
		b.quotes[u.line] = regions
	}
	days := regions[i.region()]
	if days == nil {
		days = map[time.Time]quote{}
		regions[i.region()] = days
	}
	old, ok := days[from]
	if !ok || q.rank > old.rank {
		days[from] = q
		return
	}
	if q.rank == old.rank && q.price != old.price {
		b.report.Conflicts.add(i, fmt.Errorf("%v of %s has another price from %q; neither is used", u.line, from.Format(time.DateOnly), old.meter))
		if b.spoilt[u.line] == nil {
			b.spoilt[u.line] = map[string]bool{}
		}
		b.spoilt[u.line][i.region()] = true
	}
}

// zoneProbe has a price for each data zone; the price book knows which regions are in them.
const zoneProbe = `{"prices":[
{"model":"z","sku":"DataZoneStandard","region":"us","pico_usd":{"in":1,"out":1}},
{"model":"z","sku":"DataZoneStandard","region":"eu","pico_usd":{"in":1,"out":1}}]}`

// place is the region or zone that a price of a deployment type is for: empty
// for all the world, which government and Chinese clouds are not part of.
func (b *builder) place(sku, region string) (string, error) {
	switch {
	case strings.HasPrefix(sku, "Global"):
		for _, other := range []string{"usgov", "usdod", "china"} {
			if strings.HasPrefix(region, other) {
				return region, nil
			}
		}
		return "", nil
	case region == "":
		return "", errors.New("it has no region")
	case strings.HasPrefix(sku, "DataZone"):
		if e, ok := b.probe.Lookup(pricing.Query{Model: "z", SKU: "DataZoneStandard", Region: region}); ok {
			return e.Region, nil
		}
	}
	return region, nil
}
