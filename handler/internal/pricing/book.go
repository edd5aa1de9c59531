package pricing

import (
	_ "embed"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
)

//go:embed prices.json
var builtinFile []byte

var builtin = sync.OnceValue(func() *Book {
	book, err := Parse(builtinFile)
	if err != nil {
		panic(err) // the file is part of the program, and a test loads it
	}
	return book
})

// Builtin is the price book that comes with the program.
func Builtin() *Book { return builtin() }

// Book is an immutable list of prices, safe for concurrent use.
type Book struct {
	version, source string
	entries         []Entry
	byModel         map[string][]int // indexes into entries
}

// Version names the book in records: "2026-08-01.1", or "2026-08-01.1+x" with an overlay x.
func (b *Book) Version() string { return b.version }

// Source says where the prices come from.
func (b *Book) Source() string { return b.source }

// All yields every entry, in the order of the file.
func (b *Book) All() iter.Seq[Entry] { return slices.Values(b.entries) }

// With is the book with the entries of overlay added. An entry of the same
// model, version, SKU, region, mode family and from-date is replaced.
func (b *Book) With(overlay *Book) *Book {
	merged := &Book{version: b.version + "+" + overlay.version, source: b.source}
	if overlay.source != "" {
		merged.source = strings.TrimSpace(b.source + " Overlay: " + overlay.source)
	}
	replaced := make(map[identity]bool, len(overlay.entries))
	for i := range overlay.entries {
		replaced[overlay.entries[i].identity()] = true
	}
	for i := range b.entries {
		if !replaced[b.entries[i].identity()] {
			merged.entries = append(merged.entries, b.entries[i])
		}
	}
	merged.entries = append(merged.entries, overlay.entries...)
	merged.index()
	return merged
}

func (b *Book) index() {
	b.byModel = make(map[string][]int, len(b.entries))
	for i := range b.entries {
		b.byModel[b.entries[i].Model] = append(b.byModel[b.entries[i].Model], i)
	}
}

// Query says what a price is wanted for.
type Query struct {
	Model   string // a model name, dated or not, in any spelling that Azure uses
	Version string // the deployment's model version; may be empty
	SKU     string // the deployment type; empty is GlobalStandard
	Region  string // an Azure region ("eastus", "East US") or a data zone ("us", "eu"); may be empty
	Mode    Mode   // empty is chat
	Quality string // of images: "standard", "hd", "low"...; empty: any
	Size    string // of images: "1024x1792"; empty: any
	At      time.Time
}

// Lookup finds the entry that prices a query: the one of this model that is the
// most specific, by version, then by region, then by SKU, and among equals the
// one with the latest from-date not after At. An empty field of an entry fits
// everything.
//
// Versions are tried in this order: the query's, the date in the model's name,
// the undated entry. A query without any version takes the undated entry or, if
// the model has dated entries only, the dearest of them.
//
// Another SKU's price never serves, nor does another model's.
func (b *Book) Lookup(q Query) (Entry, bool) {
	if q.SKU == "" {
		q.SKU = skuGlobalStandard
	}
	known, ok := canonicalSKU(q.SKU)
	if !ok || provisioned(known) {
		return Entry{}, false
	}
	q.SKU = known
	name, dated := NormalizeModel(q.Model)
	model, version := canonical(name, strings.ToLower(strings.TrimSpace(q.Version)), q.Mode)
	if version == "" {
		model, version = canonical(name, dated, q.Mode)
	}
	if best := b.best(q, model, version, dated); best != nil {
		return *best, true
	}
	if version != "" {
		return Entry{}, false
	}
	var best *Entry
	for _, i := range b.byModel[model] {
		if e := b.best(q, model, b.entries[i].Version, ""); e != nil && (best == nil || e.dearerThan(best)) {
			best = e
		}
	}
	if best == nil {
		return Entry{}, false
	}
	return *best, true
}

// best is the most specific entry of a model for a version, which may also be
// named by the date in the model's name, or nil.
func (b *Book) best(q Query, model, version, dated string) *Entry {
	region := normalizeRegion(q.Region)
	zone := ""
	if q.SKU == skuDataZoneStandard || q.SKU == skuDataZoneBatch {
		zone = zoneOf(region)
	}
	var best *Entry
	var bestRank [4]int64
	for _, i := range b.byModel[model] {
		e := &b.entries[i]
		if e.Mode.family() != q.Mode.family() || (!e.From.IsZero() && e.From.After(q.At)) || (e.SKU != "" && e.SKU != q.SKU) {
			continue
		}
		byVersion, byRegion := versionRank(e.Version, version, dated), regionRank(e.Region, region, zone)
		if byVersion < 0 || byRegion < 0 {
			continue
		}
		rank := [4]int64{byVersion, byRegion, int64(len(e.SKU)), e.fromUnix()}
		if best == nil || slices.Compare(rank[:], bestRank[:]) > 0 {
			best, bestRank = e, rank
		}
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

// Dearest is the dearest entry valid at a time among those of a mode's family,
// by output price, then by input price; for embeddings by input price. Modes
// sold by other units than tokens have none. An entry that a later one has
// replaced still counts.
func (b *Book) Dearest(mode Mode, at time.Time) (Entry, bool) {
	family := mode.family()
	if family != ModeChat && family != ModeEmbedding {
		return Entry{}, false
	}
	var best *Entry
	for i := range b.entries {
		e := &b.entries[i]
		if e.Mode.family() == family && (e.From.IsZero() || !e.From.After(at)) && (best == nil || e.dearerThan(best)) {
			best = e
		}
	}
	if best == nil {
		return Entry{}, false
	}
	return *best, true
}

// dearerThan compares the prices of two entries of one mode family. Ties go by key, so that the choice is stable.
func (e *Entry) dearerThan(other *Entry) bool {
	for _, pair := range [][2]money.Pico{
		{e.meters["out"], other.meters["out"]},
		{e.meters["in"], other.meters["in"]},
		{e.bands[bandLong].out, other.bands[bandLong].out},
	} {
		if pair[0] != pair[1] {
			return pair[0] > pair[1]
		}
	}
	return e.Key < other.Key
}
