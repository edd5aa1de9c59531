package pricing

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
)

// Entry is the price of one model, version, SKU and region from a date on.
// Entries come from a [Book] and are read-only.
type Entry struct {
	// Key names the entry in records: "gpt-4o/2024-11-20/GlobalStandard/us@2026-08-01",
	// where * stands for any, and the date is left out if there is none. "+batch"
	// behind it says that the batch price was made from it, "+high/1024x1536"
	// that the price per image is that of this quality and size. See [ParseKey].
	Key                  string
	Model                string // normalised, undated
	Version, SKU, Region string // empty: any
	Mode                 Mode
	From                 time.Time // first day, UTC; zero: always
	CtxIn, MaxOut        int64     // tokens; 0: unknown
	LongThreshold        int64     // prompts above it have long-context prices; 0: none do
	// Spillover says that the entry was asked for a provisioned deployment and is
	// the price of its spill-over: what the provisioned capacity itself serves is
	// paid by the hour and costs nothing more.
	Spillover bool

	meters  map[string]money.Pico // as the file gives them
	derived bool                  // bands are not those of the meters
	layer   int                   // 0 is the first book, and each one laid over it is one more
	bands   [bandCount]band
	items   [itemCount]itemPrice
	// Multipliers in ppm: the agreement's (the whole book's), the entry's own and
	// the product's.
	agreement, own, markup int64
	multiplied             bool // some multiplier is not PPM
}

const (
	keyBatch  = "+batch"
	keyHourly = "/hourly" // ends what records have in place of a key if the deployment is paid by the hour
)

// identity is what makes two entries the same price at different times of editing.
type identity struct {
	model, version, sku, region string
	family                      Mode
	from                        int64
}

func (e *Entry) identity() identity {
	return identity{e.Model, e.Version, e.SKU, e.Region, e.Mode.family(), e.fromUnix()}
}

// fromUnix is the from-date for comparing; no date comes before every date.
func (e *Entry) fromUnix() int64 {
	if e.From.IsZero() {
		return math.MinInt64
	}
	return e.From.Unix()
}

func (e *Entry) key() string {
	parts := []string{e.Model, e.Version, e.SKU, e.Region}
	for i, part := range parts {
		if part == "" {
			parts[i] = "*"
		}
	}
	key := strings.Join(parts, "/")
	if family := e.Mode.family(); family != ModeChat {
		key = fmt.Sprintf("%s:%s", family, key)
	}
	if !e.From.IsZero() {
		key += "@" + e.From.Format(time.DateOnly)
	}
	return key
}

// Price is the price of a meter as the file gives it, in pico-USD per unit.
func (e *Entry) Price(meter string) (money.Pico, bool) {
	price, ok := e.meters[meter]
	return price, ok
}

// SellsTokens tells whether the entry has prices per token. One that has none
// charges items only.
func (e *Entry) SellsTokens() bool { return e.bands[bandStandard].price[classIn] != 0 }

// Sells tells whether items of a meter (usage.ItemImage and the like) have a
// price here, be it the entry's own or that of a tool or an image variant.
func (e *Entry) Sells(itemMeter string) bool {
	item, _, ok := itemOf(itemMeter)
	return ok && e.items[item].price != 0
}

// MultiplierMax is the largest multiplier, in parts per million: 100 times the
// list price.
const MultiplierMax = 100 * money.PPM

// WithMarkup is the entry for a product whose costs are multiplied by ppm parts
// per million. Zero or less is no multiplier; above MultiplierMax it is that.
func (e Entry) WithMarkup(ppm int64) Entry {
	if e.markup = min(ppm, MultiplierMax); ppm <= 0 {
		e.markup = money.PPM
	}
	e.noteMultipliers()
	return e
}

// Multipliers are what list prices are multiplied by, in ppm and in this order:
// that of the agreement, the entry's own, the product's.
func (e *Entry) Multipliers() (agreement, own, markup int64) { return e.agreement, e.own, e.markup }

func (e *Entry) noteMultipliers() {
	e.multiplied = e.agreement != money.PPM || e.own != money.PPM || e.markup != money.PPM
	for i := range e.items {
		e.multiplied = e.multiplied || (e.items[i].price != 0 && e.items[i].ppm != money.PPM)
	}
}

// Figure is a price in effect, in pico-USD per unit.
type Figure struct {
	Meter string     `json:"meter"` // without its band's prefix
	Pico  money.Pico `json:"pico_usd"`
	Given bool       `json:"given"` // by the price file; else it follows from a rule
}

// Band is the prices of a tier and a length of prompt.
type Band struct {
	Name    string   `json:"name"` // "standard", "priority", "long", "long priority"
	Figures []Figure `json:"figures"`
}

// Bands lists the token prices in effect, without multipliers.
func (e *Entry) Bands() (bands []Band) {
	if !e.SellsTokens() {
		return nil
	}
	for i, name := range [bandCount]string{"standard", "priority", "long", "long priority"} {
		if i >= bandLong && e.LongThreshold == 0 {
			break
		}
		b := Band{Name: name}
		for class, meter := range classNames {
			given := e.meters[bandPrefixes[i]+meter] != 0 && !e.derived
			b.Figures = append(b.Figures, Figure{Meter: meter, Pico: e.bands[i].price[class], Given: given})
		}
		bands = append(bands, b)
	}
	return bands
}

// Items lists the prices in effect of what is not a token, without multipliers.
func (e *Entry) Items() (figures []Figure) {
	for item, meter := range itemMeters {
		if price := e.items[item].price; price != 0 {
			figures = append(figures, Figure{Meter: meter, Pico: price, Given: e.meters[meter] != 0})
		}
	}
	return figures
}

// KeyParts is what a price key says.
type KeyParts struct {
	Model, Version, SKU, Region string // empty: any
	Mode                        Mode   // the family's
	Quality, Size               string // of images
}

// ParseKey reads an [Entry.Key] back from a record. ok is false for what is
// none, as for "gpt-5/GlobalProvisionedManaged/hourly".
func ParseKey(key string) (parts KeyParts, ok bool) {
	parts.Mode = ModeChat
	if IsHourly(key) {
		return KeyParts{}, false
	}
	if i := strings.LastIndexByte(key, '+'); i >= 0 {
		quality, size, _, isVariant := splitVariant(key[i+1:] + "/any")
		switch {
		case key[i:] == keyBatch:
			key = key[:i]
		case isVariant:
			key, parts.Quality, parts.Size = key[:i], quality, size
		}
	}
	if mode, rest, found := strings.Cut(key, ":"); found && slices.Contains(modes, Mode(mode)) {
		parts.Mode, key = Mode(mode), rest
	}
	if i := strings.LastIndexByte(key, '@'); i > strings.LastIndexByte(key, '/') {
		key = key[:i]
	}
	for _, part := range []*string{&parts.Region, &parts.SKU, &parts.Version} {
		i := strings.LastIndexByte(key, '/')
		if i < 0 {
			return KeyParts{}, false
		}
		if *part = key[i+1:]; *part == "*" {
			*part = ""
		}
		key = key[:i]
	}
	parts.Model = key
	if quality, size, model, isVariant := splitVariant(key); isVariant && parts.Mode == ModeImage {
		parts.Model, parts.Quality, parts.Size = model, quality, size
	}
	return parts, key != ""
}

// HourlyKey is what a record has in place of an entry's key if provisioned
// capacity served it, which is paid by the hour.
func HourlyKey(model, sku string) string { return model + "/" + sku + keyHourly }

// IsHourly tells whether a record's price key is one of [HourlyKey].
func IsHourly(key string) bool { return strings.HasSuffix(key, keyHourly) }
