package pricing

import (
	"slices"
	"strings"
	"time"
)

// Query says what a price is wanted for.
type Query struct {
	Model   string // a model name, dated or not, in any spelling that Azure uses
	Version string // the deployment's model version; may be empty
	SKU     string // the deployment type; empty is GlobalStandard
	Region  string // an Azure region ("eastus", "East US") or a data zone ("us", "eu"); may be empty
	Mode    Mode   // empty is chat
	Quality string // of images: "standard", "hd", "low"...; empty: the API's default
	Size    string // of images: "1024x1792"; empty: the API's default
	At      time.Time
}

// Lookup finds the entry that prices a query: the one of this model that is the
// most specific, by version, then by region, then by SKU; among equals that of
// the book laid on top, and of one book the one with the latest from-date not
// after At. An empty field of an entry fits everything.
//
// Versions are tried in this order: the query's, the date in the model's name,
// the undated entry. A query without any version takes the undated entry or, if
// the model has dated entries only, the dearest of them.
//
// Another model's price never serves. Nor does another SKU's, but for two: a
// batch deployment without entries of its own has the batch price of the
// corresponding standard deployment, or half of its price; and a provisioned
// deployment without entries of its own has the price of its spill-over, marked
// as such ([Entry.Spillover]).
//
// Entries of text models carry the prices of tools; those of image models the
// price per image of the query's quality and size, if there is one.
func (b *Book) Lookup(q Query) (Entry, bool) { return b.find(q, nil) }

// LookupProvisioned finds the price per token that an operator gave to what a
// provisioned deployment itself serves, for charging it back. The built-in book
// has none.
func (b *Book) LookupProvisioned(q Query) (Entry, bool) {
	sku, ok := canonicalSKU(q.SKU)
	if !ok || !Provisioned(sku) {
		return Entry{}, false
	}
	return b.sold(q, sku, true, nil)
}

// LookupOverflow finds what prices a request that a provisioned deployment
// passes on because its capacity is used up. borrowed tells that the deployment
// type which serves it has no price, and that this is the next one's: good for a
// hold, not for a charge.
func (b *Book) LookupOverflow(q Query) (e Entry, borrowed, ok bool) {
	for i, sku := range []string{SpilloverSKU(q.SKU), skuDataZoneStandard, skuGlobalStandard} {
		q.SKU = sku
		if e, ok = b.Lookup(q); ok {
			return e, i > 0, true
		}
	}
	return Entry{}, false, false
}

// wanted is a query, read: what an entry has to fit.
type wanted struct {
	model, version, dated string // dated: the version that the model's name has
	sku                   string
	own                   bool // only entries that name the SKU
	region, zone          string
	family                Mode
	at                    time.Time
}

func (b *Book) find(q Query, x *Explanation) (Entry, bool) {
	if q.SKU == "" {
		q.SKU = skuGlobalStandard
	}
	sku, ok := canonicalSKU(q.SKU)
	if !ok {
		x.step("%q is no deployment type; they are %s", q.SKU, strings.Join(skus, ", "))
		return Entry{}, false
	}
	scope, batch := strings.CutSuffix(sku, batchSuffix)
	switch {
	case batch:
		if e, ok := b.own(q, sku, x); ok {
			return e, true
		}
		x.step("no entry of %s: the batch price of %s%s, or half of its price", sku, scope, skuStandard)
		e, ok := b.sold(q, scope+skuStandard, false, x)
		if !ok {
			return Entry{}, false
		}
		return e.batch(sku)
	case Provisioned(sku):
		if e, ok := b.own(q, sku, x); ok {
			return e, true
		}
		x.step("no entry of %s: the price of its spill-over, %s", sku, SpilloverSKU(sku))
		e, ok := b.sold(q, SpilloverSKU(sku), false, x)
		e.Spillover = ok
		return e, ok
	}
	return b.sold(q, sku, false, x)
}

// own finds the entry that names the deployment type. Only if there is one it is
// explained: else another way is gone.
func (b *Book) own(q Query, sku string, x *Explanation) (Entry, bool) {
	e, ok := b.sold(q, sku, true, nil)
	if ok && x != nil {
		return b.sold(q, sku, true, x)
	}
	return e, ok
}

// sold finds the entry for a deployment type, which must be named by the entry
// if own is set, and completes it with what is sold along with it.
func (b *Book) sold(q Query, sku string, own bool, x *Explanation) (Entry, bool) {
	w := wanted{sku: sku, own: own, region: normalizeRegion(q.Region), family: q.Mode.family(), at: q.At}
	if inZone(sku) {
		w.zone = zoneOf(w.region)
	}
	name, dated := NormalizeModel(q.Model)
	w.dated = dated
	w.model, w.version = canonical(name, strings.ToLower(strings.TrimSpace(q.Version)), q.Mode)
	if w.version == "" {
		w.model, w.version = canonical(name, dated, q.Mode)
	}
	if x != nil {
		x.wanted(&q, &w)
	}
	best := b.one(&w, x)
	if q.Mode == ModeImage {
		image := b.variantOf(&q, &w, x)
		switch {
		case best == nil:
			best = image
		case image != nil && best.items[itemImage].price == 0:
			return best.withImage(image), true
		}
	}
	if best == nil {
		return Entry{}, false
	}
	e := *best
	if w.family == ModeChat {
		b.attachTools(&e, &w, x)
	}
	return e, true
}

// one is the entry of a model for a version or, if there is no version, the
// dearest of the dated entries.
func (b *Book) one(w *wanted, x *Explanation) *Entry {
	indexes := b.byModel[w.model]
	if best := b.best(w, indexes, x); best != nil || w.version != "" {
		return best
	}
	var dearest *Entry
	for _, i := range indexes {
		dated := *w
		dated.version = b.entries[i].Version
		if e := b.best(&dated, indexes, nil); e != nil && (dearest == nil || e.dearerThan(dearest)) {
			dearest = e
		}
	}
	if dearest != nil {
		x.step("no version is named and no undated entry fits: the dearest version is taken")
		x.chose(dearest, "the dearest of the versions")
	}
	return dearest
}

// rank is how specific an entry is for a query: by version, region and SKU; then
// its book's layer and its from-date.
type rank [5]int64

// best is the most specific entry among some for a version, which may also be
// named by the date in the model's name, or nil.
func (b *Book) best(w *wanted, indexes []int, x *Explanation) *Entry {
	var best *Entry
	var bestRank rank
	for _, i := range indexes {
		e := &b.entries[i]
		byVersion, byRegion := versionRank(e.Version, w.version, w.dated), regionRank(e.Region, w.region, w.zone)
		why := ""
		switch {
		case e.Mode.family() != w.family:
			why = "of another mode"
		case !e.From.IsZero() && e.From.After(w.at):
			why = "its first day has not come"
		case e.SKU != w.sku && (w.own || e.SKU != ""):
			why = "of another SKU"
		case byVersion < 0:
			why = "of another version"
		case byRegion < 0:
			why = "of another region"
		}
		if why != "" {
			x.passed(e, why)
			continue
		}
		x.passed(e, "fits, but is less specific or older")
		this := rank{byVersion, byRegion, int64(len(e.SKU)), int64(e.layer), e.fromUnix()}
		if best == nil || slices.Compare(this[:], bestRank[:]) > 0 {
			best, bestRank = e, this
		}
	}
	if best != nil && x != nil {
		x.chose(best, reasonOf(best, bestRank))
	}
	return best
}

// versionRank is how well an entry's version fits, negative if it does not.
func versionRank(entry, asked, named string) int64 {
	switch {
	case entry == asked && asked != "":
		return 2
	case entry == named && named != "":
		return 1
	case entry == "":
		return 0
	}
	return -1
}

func regionRank(entry, asked, zone string) int64 {
	switch {
	case entry == "":
		return 0
	case entry == asked:
		return 2
	case entry == zone:
		return 1
	}
	return -1
}

// attachTools gives an entry the prices of the tools that it does not name itself.
func (b *Book) attachTools(e *Entry, w *wanted, x *Explanation) {
	of := *w
	of.family, of.own, of.version, of.dated = ModeTool, false, "", ""
	for item, indexes := range b.tools {
		if len(indexes) == 0 || e.items[item].price != 0 {
			continue
		}
		if tool := b.best(&of, indexes, x); tool != nil {
			e.items[item] = tool.items[item]
		}
	}
	e.noteMultipliers()
}

// Dearest is the price for a model of a mode that the book does not know: the
// dearest entry valid at a time among those of the mode's family, by output
// price, then by input price; for embeddings by input price. What the family
// sells by other units than tokens has the dearest price too. Prices are
// compared with the entry's own multiplier. An entry that a later one has
// replaced still counts.
func (b *Book) Dearest(mode Mode, at time.Time) (Entry, bool) {
	family := mode.family()
	if family == ModeTool {
		return Entry{}, false
	}
	var best *Entry
	var items [itemCount]itemPrice
	for i := range b.entries {
		e := &b.entries[i]
		if (e.Mode.family() != family && (e.Mode != ModeTool || family != ModeChat)) || (!e.From.IsZero() && e.From.After(at)) {
			continue
		}
		for item := range items {
			if e.items[item].charged() > items[item].charged() {
				items[item] = e.items[item]
			}
		}
		if e.Mode != ModeTool && (best == nil || e.dearerThan(best)) {
			best = e
		}
	}
	if best == nil {
		return Entry{}, false
	}
	e := *best
	e.items = items
	e.noteMultipliers()
	return e, true
}

// dearerThan compares what two entries of one mode family charge. Ties go by key, so that the choice is stable.
func (e *Entry) dearerThan(other *Entry) bool {
	if a, b := e.SellsTokens(), other.SellsTokens(); a != b {
		return a
	}
	mine, theirs := &e.bands, &other.bands
	for _, class := range [...][2]int{
		{bandStandard, classOut}, {bandStandard, classImageOut}, {bandStandard, classIn}, {bandLong, classOut},
	} {
		a := itemPrice{mine[class[0]].price[class[1]], e.own}.charged()
		if b := (itemPrice{theirs[class[0]].price[class[1]], other.own}).charged(); a != b {
			return a > b
		}
	}
	for item := range e.items {
		if a, b := e.items[item].charged(), other.items[item].charged(); a != b {
			return a > b
		}
	}
	return e.Key < other.Key
}
