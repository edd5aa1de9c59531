package tokens

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// class is what the patterns of the encodings ask of a character, as bits.
type class uint8

const (
	letter class = 1 << iota // \p{L}
	number                   // \p{N}
	space                    // \s
	line                     // \r or \n, which are spaces too
	upper                    // what a word of o200k_base begins with: Lu, Lt, Lm, Lo, M
	lower                    // what it goes on with: Ll, Lm, Lo, M
)

// classedRunes is how many characters the table has. Of those above it, only
// some marks have a class.
const classedRunes = 4 << 16

type classTable [classedRunes]class

// classes is filled from the tables of package unicode at its first use, in about 1 ms.
var classes = sync.OnceValue(func() *classTable {
	t := new(classTable)
	for _, category := range []struct {
		bits class
		of   *unicode.RangeTable
	}{
		{letter | upper, unicode.Lu},
		{letter | upper, unicode.Lt},
		{letter | upper | lower, unicode.Lm},
		{letter | upper | lower, unicode.Lo},
		{letter | lower, unicode.Ll},
		{upper | lower, unicode.M},
		{number, unicode.N},
		{space, unicode.White_Space},
	} {
		for _, r := range category.of.R16 {
			for c := uint32(r.Lo); c <= uint32(r.Hi); c += uint32(r.Stride) {
				t[c] |= category.bits
			}
		}
		for _, r := range category.of.R32 {
			for c := r.Lo; c <= min(r.Hi, classedRunes-1); c += r.Stride {
				t[c] |= category.bits
			}
		}
	}
	t['\r'] |= line
	t['\n'] |= line
	return t
})

// at is the class of the character that begins at a byte of a text, and its
// size in bytes, which is 0 at the end of the text.
func (t *classTable) at(text string, i int) (class, int) {
	if i >= len(text) {
		return 0, 0
	}
	if c := text[i]; c < utf8.RuneSelf {
		return t[c], 1
	}
	r, size := utf8.DecodeRuneInString(text[i:])
	if r < classedRunes {
		return t[r], size
	}
	if unicode.Is(unicode.M, r) {
		return upper | lower, size
	}
	return 0, size
}
