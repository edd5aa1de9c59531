package pricing

import (
	_ "embed"
	"iter"
	"slices"
	"strings"
	"sync"

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
	multiplier      int64 // ppm, of all entries; 0: none
	entries         []Entry
	layers          int              // laid over the first; see Entry.layer
	byModel         map[string][]int // indexes into entries
	variants        map[string][]variant
	tools           [itemCount][]int // indexes into entries, by what they sell
}

// Version names the book in records: "2026-08-01.2", or "2026-08-01.2+x" with an overlay x.
func (b *Book) Version() string { return b.version }

// Source says where the prices come from.
func (b *Book) Source() string { return b.source }

// All yields every entry, in the order of the file.
func (b *Book) All() iter.Seq[Entry] { return slices.Values(b.entries) }

// With is the book with the entries of overlay added. An entry of the same
// model, version, SKU, region, mode family and from-date is replaced; of two
// that are equally specific the overlay's counts, whatever their from-dates. A
// multiplier of the whole overlay becomes that of the whole book.
func (b *Book) With(overlay *Book) *Book {
	merged := &Book{
		version: b.version + "+" + overlay.version, source: b.source, multiplier: b.multiplier, layers: b.layers + 1 + overlay.layers,
	}
	if overlay.source != "" {
		merged.source = strings.TrimSpace(b.source + " Overlay: " + overlay.source)
	}
	if overlay.multiplier != 0 {
		merged.multiplier = overlay.multiplier
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
	for _, e := range overlay.entries {
		e.layer += b.layers + 1
		merged.entries = append(merged.entries, e)
	}
	merged.index()
	return merged
}

func (b *Book) index() {
	b.byModel = make(map[string][]int, len(b.entries))
	b.variants = map[string][]variant{}
	agreement := b.multiplier
	if agreement == 0 {
		agreement = money.PPM
	}
	for i := range b.entries {
		e := &b.entries[i]
		e.agreement = agreement
		e.noteMultipliers()
		if quality, size, model, ok := splitVariant(e.Model); ok && e.Mode == ModeImage && b.byModel[e.Model] == nil {
			b.variants[model] = append(b.variants[model], variant{e.Model, quality, size})
		}
		b.byModel[e.Model] = append(b.byModel[e.Model], i)
		if e.Mode == ModeTool {
			b.tools[toolNames[e.Model]] = append(b.tools[toolNames[e.Model]], i)
		}
	}
}
