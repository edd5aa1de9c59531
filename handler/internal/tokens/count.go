package tokens

import (
	"math"
	"math/bits"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// TextBytesMax is how much text of one request is tokenized. The tokens of what is beyond it are extrapolated.
	TextBytesMax = 1 << 20
	// windowBytes is how much text is tokenized at once.
	windowBytes = 8 << 10
	// RunBytesMax is the longest text without a place to cut it that is tokenized as one. The
	// tokenizer's work grows with the square of such a run. Longer ones are cut anywhere, which
	// can make a count too high by a token per cut.
	RunBytesMax = 512
)

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
	c.counted += int64(len(text))
	n := c.encode(text)
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
	quotient, remainder := bits.Div64(hi, lo, uint64(c.counted)) // inText is at most counted, so hi < counted
	if remainder != 0 {
		quotient++
	}
	return c.tokens + int64(min(quotient, math.MaxInt64))
}

// most is the bound: what was skipped has a token per byte.
func (c *counter) most() int64 { return c.tokens + c.skipped }

// encode counts the tokens of a text, cut into windows.
func (c *counter) encode(text string) (n int64) {
	if text == "" {
		return 0
	}
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	encoder := c.encoding()
	for text != "" {
		size := window(text)
		n += int64(len(encoder.EncodeOrdinary(text[:size])))
		text = text[size:]
	}
	return n
}

// window is how many bytes of a text to tokenize at once. It cuts where the
// encodings split words anyway; only a run of RunBytesMax without such a place
// is cut elsewhere, between two characters.
func window(text string) int {
	if len(text) <= RunBytesMax {
		return len(text)
	}
	run := 0 // where the current run begins
	var previous rune
	for i, current := range text {
		if i > 0 && splits(previous, current) {
			if i >= windowBytes {
				return i
			}
			run = i
		}
		if i-run >= RunBytesMax {
			if digit(previous) && digit(current) && digit(rune(text[i-2])) {
				return i - RunBytesMax%3 // digits go by threes
			}
			return i
		}
		previous = current
	}
	return len(text)
}

func digit(r rune) bool { return r >= '0' && r <= '9' }

// splits tells whether all encodings begin a new word between two characters,
// whatever stands before and after them:
//   - before a blank that follows no blank;
//   - before punctuation or space that follows a letter or a digit. An
//     apostrophe may belong to the word ("it's"), so it does not count.
func splits(previous, current rune) bool {
	if current == ' ' {
		return !unicode.IsSpace(previous)
	}
	return (unicode.IsLetter(previous) || unicode.IsNumber(previous)) && current != '\'' &&
		(unicode.IsPunct(current) || unicode.IsSpace(current) || current < utf8.RuneSelf && unicode.IsSymbol(current))
}
