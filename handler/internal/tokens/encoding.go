package tokens

import (
	"strings"
	"sync"
	"unicode/utf8"
)

// encoding turns text into tokens as tiktoken's encode_ordinary does: names of
// control tokens in a text are text.
type encoding struct {
	vocabulary func() *vocabulary // loaded at its first use, once
	split      splitter
}

var (
	o200k  = &encoding{loaded("o200k_base"), splitO200K}
	cl100k = &encoding{loaded("cl100k_base"), splitCL100K}
	p50k   = &encoding{loaded("p50k_base"), splitP50K}
	r50k   = &encoding{loaded("r50k_base"), splitP50K}
)

func loaded(name string) func() *vocabulary {
	return sync.OnceValue(func() *vocabulary {
		v, err := load(name)
		if err != nil {
			panic(err) // the vocabularies are part of the program
		}
		return v
	})
}

// count is the number of tokens of a text, in time linear in its size and
// without allocating. A byte that is not UTF-8 counts as U+FFFD.
func (e *encoding) count(text string) int64 {
	if !utf8.ValidString(text) {
		text = valid(text)
	}
	m := mergers.Get().(*merger)
	defer mergers.Put(m)
	return e.countWith(m, text)
}

// countWith counts the tokens of valid UTF-8.
func (e *encoding) countWith(m *merger, text string) (n int64) {
	v, t := e.vocabulary(), classes()
	for text != "" {
		size := e.split(t, text)
		n += int64(m.count(v, text[:size]))
		text = text[size:]
	}
	return n
}

// valid replaces each byte that is not UTF-8 by U+FFFD.
func valid(text string) string { return strings.Map(func(r rune) rune { return r }, text) }
