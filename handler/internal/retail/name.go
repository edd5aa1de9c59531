package retail

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/costgate/costgate/handler/internal/pricing"
)

// NameBytesMax is the length of the longest meter name read.
const NameBytesMax = 200

// ErrExcluded says that a meter is understood but has no place in the book.
var ErrExcluded = errors.New("left out")

// Name is what a meter's name says.
type Name struct {
	Model   string
	Version string // empty: the name has no date; it is for every version without a meter of its own
	Mode    pricing.Mode
	SKU     string // as ARM spells it
	Meter   string // of the price book: "in", "long_prio_out"
	Per     int64  // tokens that the name says the price is for; 0: it does not
}

// counts is what a meter of the price book counts.
func counts(meter string) dimension {
	switch meter {
	case "sec_in":
		return ofTime
	case "char_in":
		return ofCharacters
	}
	return ofTokens
}

// Parse reads a meter's name, such as "5.6 luna ShortCo Cd Wr Std Gl 1M Tokens".
// Every word has to be understood: one that is neither of the vocabulary nor of
// the model's name fails it. An error that is [ErrExcluded] is of a meter that
// the book cannot have.
func (c *Catalog) Parse(name string) (Name, error) {
	if len(name) > NameBytesMax {
		return Name{}, fmt.Errorf("the name has more than %d bytes", NameBytesMax)
	}
	seen, rest, date := c.read(name)
	if err := excludedBy(seen); err != nil {
		return Name{}, err
	}
	m, kind := c.find(rest)
	if m == nil {
		return Name{}, fmt.Errorf("model %q is not known", strings.Join(rest, " "))
	}
	n := Name{Model: m.name, Mode: m.mode}
	var err error
	if date != "" {
		if n.Version, err = m.version(date); err != nil {
			return Name{}, err
		}
	}
	if n.SKU, err = sku(seen); err != nil {
		return Name{}, err
	}
	if n.Meter, err = meter(m, kind, seen); err != nil {
		return Name{}, err
	}
	n.Per = per(seen)
	return n, nil
}

// read sorts a name's words: what they mean, which are left over, and the date among them.
func (c *Catalog) read(name string) (seen map[class]bool, rest []string, date string) {
	seen = map[class]bool{}
	words := c.split(name)
	for i, word := range words {
		class, known := vocabulary[word]
		switch {
		case known:
			seen[class] = true
		case word == "preview" && i > 0 && words[i-1] == "tokens": // of the meter, not of the model
		case stamp(word) && date == "":
			date = word
		default:
			rest = append(rest, word)
		}
	}
	return seen, rest, date
}

// per is the unit that a name gives.
func per(seen map[class]bool) int64 {
	switch {
	case seen[aMillion]:
		return 1_000_000
	case seen[aThousand]:
		return 1_000
	}
	return 0
}

// excludedBy says why a meter with such words has no place in the book.
func excludedBy(seen map[class]bool) error {
	var reasons []string
	for class := range seen {
		if why, ok := excluded[class]; ok {
			reasons = append(reasons, why)
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrExcluded, slices.Min(reasons))
}

// sku is the deployment type. There is no regional batch.
func sku(seen map[class]bool) (string, error) {
	var found []string
	for _, one := range []struct {
		class        class
		usual, batch string
	}{{aGlobal, "GlobalStandard", "GlobalBatch"}, {aZone, "DataZoneStandard", "DataZoneBatch"}, {aRegional, "Standard", ""}} {
		switch {
		case seen[one.class] && seen[aBatch]:
			found = append(found, one.batch)
		case seen[one.class]:
			found = append(found, one.usual)
		}
	}
	switch {
	case len(found) == 0:
		return "", errors.New("the name has no deployment type")
	case len(found) > 1:
		return "", errors.New("the name has two deployment types")
	case found[0] == "":
		return "", errors.New("there is no regional batch deployment")
	}
	return found[0], nil
}

// meter is the name of the price book's meter, with its band.
func meter(m *model, kind string, seen map[class]bool) (string, error) {
	base, err := baseMeter(m, kind, seen)
	if err != nil {
		return "", err
	}
	prefix, err := band(seen)
	return prefix + base, err
}

// band is the prefix of a meter's name in the price book.
func band(seen map[class]bool) (prefix string, err error) {
	switch {
	case seen[aLong] && seen[aShort]:
		return "", errors.New("the name has two context bands")
	case seen[aPriority] && (seen[aStandard] || seen[aBatch]):
		return "", errors.New("the name has two service tiers")
	}
	if seen[aLong] {
		prefix = "long_"
	}
	if seen[aPriority] {
		prefix += "prio_"
	}
	return prefix, nil
}

func baseMeter(m *model, kind string, seen map[class]bool) (string, error) {
	in, out, cached, write := seen[anInput], seen[anOutput], seen[aCached], seen[aWrite]
	if in && out || out && (cached || write) || write && !cached {
		return "", errors.New("the name's direction is unclear")
	}
	undirected := !in && !out && !cached
	switch {
	case m.mode == pricing.ModeEmbedding:
		if out || cached || kind != "" {
			return "", errors.New("embeddings have no such meter")
		}
		return "in", nil
	case undirected && kind == "" && m.mode == pricing.ModeTranscription:
		return "sec_in", nil
	case undirected && kind == "" && m.mode == pricing.ModeSpeech:
		return "char_in", nil
	case undirected:
		return "", errors.New("the name has no direction")
	case kind == "" && m.nativeAudio():
		kind = kindAudio
	case kind == "" && m.media():
		return "", errors.New("the name does not say which tokens are meant: text, audio or image")
	}
	prefix := map[string]string{kindAudio: "audio_", kindImage: "image_"}[kind]
	switch {
	case out:
		return prefix + "out", nil
	case write && prefix == "":
		return "in_cache_write", nil
	case write:
		return "", errors.New("the book has no such meter")
	case cached && prefix == "image_":
		return "", errors.New("the book has no price for cached images")
	case cached:
		return prefix + "in_cached", nil
	}
	return prefix + "in", nil
}

// split divides a name into words that are known, if it can, and brings them
// into one spelling. What is not known stays whole.
func (c *Catalog) split(name string) []string {
	var words []string
	for _, chunk := range chunks(name) {
		for _, word := range c.segment(chunk) {
			if other, ok := spellings[word]; ok {
				word = other
			}
			if n := len(words); n > 0 {
				if pair, ok := pairs[[2]string{words[n-1], word}]; ok {
					words[n-1] = pair
					continue
				}
			}
			words = append(words, word)
		}
	}
	return words
}

// known tells whether a word means something. Words that were run together must
// have at least three letters or a digit: shorter ones are in every other word.
func (c *Catalog) known(word string, glued bool) bool {
	if glued && len(word) < 3 && !strings.ContainsAny(word, "0123456789") {
		return false
	}
	if _, ok := vocabulary[word]; ok {
		return true
	}
	_, spelling := spellings[word]
	return spelling || c.words[word] || stamp(word)
}

// segment divides words that were run together, "mini0718" or "batchoutp", into
// as few known ones as cover it. A number is never divided.
func (c *Catalog) segment(chunk string) []string {
	if c.known(chunk, false) || len(chunk) > 40 {
		return []string{chunk}
	}
	numeric := func(b byte) bool { return b >= '0' && b <= '9' || b == '.' }
	best := make([][]string, len(chunk)+1) // of the first i bytes
	best[0] = []string{}
	for end := 1; end <= len(chunk); end++ {
		if end < len(chunk) && numeric(chunk[end-1]) && numeric(chunk[end]) {
			continue
		}
		for start := range end {
			if best[start] == nil || !c.known(chunk[start:end], true) {
				continue
			}
			if best[end] == nil || len(best[start])+1 < len(best[end]) {
				best[end] = append(slices.Clone(best[start]), chunk[start:end])
			}
		}
	}
	if best[len(chunk)] == nil {
		return []string{chunk}
	}
	return best[len(chunk)]
}
