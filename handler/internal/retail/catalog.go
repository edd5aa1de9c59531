package retail

import (
	"fmt"
	"slices"
	"strings"

	"github.com/costgate/costgate/handler/internal/pricing"
)

// ModelsMax is how many models can be added by name.
const ModelsMax = 200

// modeTool is the mode of what models call, which is sold by the call.
const modeTool pricing.Mode = "tool"

// model is a model that meters may be of.
type model struct {
	name     string
	mode     pricing.Mode
	versions []string // known, dated ones
}

// media tells whether the model prices several kinds of token apart.
func (m *model) media() bool {
	switch m.mode {
	case pricing.ModeRealtime, pricing.ModeTranscription, pricing.ModeSpeech, pricing.ModeImage:
		return true
	}
	return m.nativeAudio()
}

// nativeAudio tells whether meters of the model without a kind are of audio tokens.
func (m *model) nativeAudio() bool { return strings.Contains(m.name, "-audio") }

// Catalog is what meters may be of: the models of a price book, and added ones.
type Catalog struct {
	byName  map[string]*model
	byWords map[string]*model // "gpt 4o mini"
	words   map[string]bool   // all words of all models
}

// NewCatalog knows the models of a book and those added by name, dated
// ("gpt-6-2026-09-01") or not, with a mode if it is not chat
// ("gpt-realtime-2.1=realtime").
func NewCatalog(book *pricing.Book, added []string) (*Catalog, error) {
	if len(added) > ModelsMax {
		return nil, fmt.Errorf("%d models; at most %d can be added", len(added), ModelsMax)
	}
	c := &Catalog{byName: map[string]*model{}, byWords: map[string]*model{}, words: map[string]bool{}}
	for e := range book.All() {
		if !strings.Contains(e.Model, "/") && e.Mode != modeTool && e.Mode != pricing.ModeVideo { // a size and a quality, or not sold by the token
			c.add(e.Model, e.Version, e.Mode)
		}
	}
	for _, text := range added {
		full, mode, _ := strings.Cut(text, "=")
		name, version := pricing.NormalizeModel(full)
		if mode == "" {
			mode = string(pricing.ModeChat)
			if known := c.byName[name]; known != nil {
				mode = string(known.mode)
			}
		}
		if name == "" || strings.ContainsAny(name, "/ ") || !knownMode(mode) {
			return nil, fmt.Errorf("model %q: write a name, a version if need be, and a mode if it is not chat: gpt-realtime-2.1=realtime", text)
		}
		c.add(name, version, pricing.Mode(mode))
	}
	for words, name := range aliases {
		if m := c.byName[name]; m != nil && c.byWords[words] == nil {
			c.index(words, m)
		}
	}
	return c, nil
}

func (c *Catalog) add(name, version string, mode pricing.Mode) {
	m := c.byName[name]
	if m == nil {
		m = &model{name: name, mode: mode}
		c.byName[name] = m
		c.index(strings.ReplaceAll(name, "-", " "), m)
	}
	if version != "" && !slices.Contains(m.versions, version) {
		m.versions = append(m.versions, version)
		slices.Sort(m.versions)
	}
}

func (c *Catalog) index(words string, m *model) {
	c.byWords[words] = m
	for word := range strings.FieldsSeq(words) {
		c.words[word] = true
	}
}

// knownMode asks the price book's parser, which alone knows the modes.
func knownMode(mode string) bool {
	_, err := pricing.Parse(fmt.Appendf(nil, `{"prices":[{"model":"m","mode":%q,"pico_usd":{"in":1,"out":1}}]}`, mode))
	return err == nil
}

// version is the version of a model that a stamp in a meter's name means: the
// only one of that day, MMDD or MMDDYYYY.
func (m *model) version(stamp string) (string, error) {
	var found []string
	for _, v := range m.versions {
		date := strings.TrimPrefix(v, "turbo-")
		same := strings.HasPrefix(v, stamp) // 0613, 1106-preview
		if len(date) == len("2026-01-31") {
			same = date[5:7]+date[8:] == stamp || date[5:7]+date[8:]+date[:4] == stamp
		}
		if same {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("no version %s of %s is known", stamp, m.name)
	}
	return "", fmt.Errorf("version %s of %s can be any of %s", stamp, m.name, strings.Join(found, ", "))
}

// find is the model that words name exactly, and the kind of token that one of
// the words may name. The reading with the longest model name wins, so that
// "gpt 4o audio" is no gpt-4o.
func (c *Catalog) find(words []string) (m *model, kind string) {
	if m := c.exact(words); m != nil {
		return m, ""
	}
	for i := len(words) - 1; i >= 0; i-- {
		switch words[i] {
		case kindText, kindAudio, kindImage:
			m := c.exact(slices.Concat(words[:i], words[i+1:]))
			if m != nil && m.media() {
				return m, words[i]
			}
		}
	}
	return nil, ""
}

// exact finds a model by all its words. Meters of the newer models leave out "gpt".
func (c *Catalog) exact(words []string) *model {
	key := strings.Join(words, " ")
	if m := c.byWords[key]; m != nil {
		return m
	}
	if key != "" && key[0] >= '0' && key[0] <= '9' {
		return c.byWords["gpt "+key]
	}
	return nil
}
