package tokens

import (
	"math"
	"math/bits"
	"unicode/utf8"
)

// TextBytesMax is how much text of one request is tokenized. The tokens of what is beyond it are extrapolated.
const TextBytesMax = 4 << 20

// Text is the number of tokens of a text in the encoding of a model.
func Text(model, text string) int64 {
	c := counter{family: familyOf(model)}
	c.add(text)
	return c.total()
}

// counter adds up the tokens of the texts of one request.
type counter struct {
	family
	tokens  int64 // of the counted bytes, and constants
	counted int64 // bytes
	inText  int64 // tokens of the counted bytes
	skipped int64 // bytes beyond TextBytesMax
	unseen  int64 // what images may have beyond what was assumed
	guessed bool  // something was not counted but assumed
}

// add counts a text, as far as TextBytesMax allows.
func (c *counter) add(text string) {
	if room := TextBytesMax - c.counted; int64(len(text)) > room {
		cut := int(room)
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		c.skipped += int64(len(text) - cut)
		c.guessed = true
		text = text[:cut]
	}
	if text == "" {
		return
	}
	c.counted += int64(len(text))
	n := c.encoding.count(text)
	c.tokens += n
	c.inText += n
}

// total is the best estimate: what was skipped has as many tokens per byte as what was counted.
func (c *counter) total() int64 {
	if c.skipped == 0 {
		return c.tokens
	}
	if c.counted == 0 {
		return c.tokens + c.skipped
	}
	hi, lo := bits.Mul64(uint64(c.skipped), uint64(c.inText))
	quotient, remainder := bits.Div64(hi, lo, uint64(c.counted)) // hi < counted: both factors are far below 2^63
	if remainder != 0 {
		quotient++
	}
	return c.tokens + int64(min(quotient, math.MaxInt64))
}

// most is the bound: what was skipped has a token per byte, and images are the largest.
func (c *counter) most() int64 { return c.tokens + c.skipped + c.unseen }
