package tokens

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/pkoukk/tiktoken-go"
	tiktoken_loader "github.com/pkoukk/tiktoken-go-loader"
)

// The differential test, in full: go test ./handler/internal/tokens -run TestOracle -fuzzstrings 100000 -fuzzseed 2
var (
	fuzzStrings = flag.Int("fuzzstrings", 10_000, "strings that TestOracle compares, for each encoding")
	fuzzSeed    = flag.Uint64("fuzzseed", 1, "seed of the strings of TestOracle")
)

var encodings = map[string]*encoding{"o200k_base": o200k, "cl100k_base": cl100k, "p50k_base": p50k, "r50k_base": r50k}

var oracles sync.Map // of names, to the encoders of pkoukk/tiktoken-go

func oracle(name string) *tiktoken.Tiktoken {
	made, _ := oracles.LoadOrStore(name, sync.OnceValue(func() *tiktoken.Tiktoken {
		tiktoken.SetBpeLoader(tiktoken_loader.NewOfflineLoader())
		encoder, err := tiktoken.GetEncoding(name)
		if err != nil {
			panic(err)
		}
		return encoder
	}))
	return made.(func() *tiktoken.Tiktoken)()
}

// ids are the tokens of a text: what count only counts.
func (e *encoding) ids(text string) []int {
	text = valid(text)
	v, t, m := e.vocabulary(), classes(), new(merger)
	ids := []int{}
	for text != "" {
		piece := text[:e.split(t, text)]
		text = text[len(piece):]
		starts := []uint32{0}
		switch {
		case v.rank(piece) != none:
		case len(piece) <= pieceBytesMax:
			starts = nil
			for _, p := range m.merge(v, piece) {
				starts = append(starts, p.start)
			}
			starts = starts[:len(starts)-1]
		default:
			m.mergeLong(v, piece, chunkBytes)
			starts = m.starts // all of them, if there are up to startsMax
		}
		for i, start := range starts {
			end := uint32(len(piece))
			if i+1 < len(starts) {
				end = starts[i+1]
			}
			ids = append(ids, int(v.rank(piece[start:end])))
		}
	}
	return ids
}

// compare holds the tokens and the count of a text against the oracle's.
func compare(t *testing.T, name, text string) {
	t.Helper()
	e, want := encodings[name], oracle(name).EncodeOrdinary(text)
	if got := e.ids(text); !slices.Equal(got, want) {
		t.Errorf("%s: %q is %v; want %v", name, text, got, want)
	}
	if got := e.count(text); got != int64(len(want)) {
		t.Errorf("%s: %q has %d tokens; want %d", name, text, got, len(want))
	}
}

// pieces of every kind that the patterns tell apart.
var fragments = []string{
	"word", "Hello", "HTTPServer", "iPhone", "x", "I", "ǅ", "naïve", "Straße", "e\u0301", "\u0301", "\u0301\u0302", "ʰ", "ª",
	"'s", "'S", "'t", "'re", "'RE", "'Ve", "'m", "'ll", "'lL", "'d", "'l", "'r", "'ſ", "'sx", "''s", "’s", "'", "''", "\"", "K", "ſ", "İ",
	"1", "12", "123", "1234567", "٣", "Ⅷ", "½", "₂", "𝟘", "3.14", "1,000",
	" ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", " \n", "\n ", " \n \n", "\v", "\f", "\u0085", "\u00a0", "\u2003", "\u2028", "\u3000", "\u200b", "\ufeff",
	".", ",", "!", "?!", "...", "—", "/", "//", "/\n", "://", "{\"", "\":", "()", "_", "foo_bar", "$", "€", "+=", "<|endoftext|>", "\x00", "\x7f", "\u00ad",
	"你好", "，", "世界。", "日本語", "です", "カタカナ", "한국어", "Привет", "ПРИВЕТ", "Ελλάδα", "עברית", "مرحبا", "हिन्दी", "বাংলা", "தமிழ்", "ไทย",
	"ລາວ", "မြန်မာ", "ქართული", "Հայերեն", "አማርኛ", "ខ្មែរ", "ᏣᎳᎩ", "ᠮᠣᠩᠭᠣᠯ", "བོད", "𐍈", "𝓐𝓫", "𠀀", "𞤀𞤢",
	"🎉", "👩‍👩‍👧", "👍🏽", "🇪🇺", "❤️", "☃", "\U000e0101", "\ue000", "\U0010ffff", "\ufffd", "\xff", "\xc3", "\xe4\xbd", "\xed\xa0\x80", "\xf4\x90\x80\x80",
}

// scripts are where single characters are drawn from.
var scripts = []*unicode.RangeTable{
	unicode.Latin, unicode.Greek, unicode.Cyrillic, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Arabic,
	unicode.Hebrew, unicode.Devanagari, unicode.Bengali, unicode.Tamil, unicode.Telugu, unicode.Thai, unicode.Lao, unicode.Tibetan, unicode.Myanmar,
	unicode.Georgian, unicode.Armenian, unicode.Ethiopic, unicode.Khmer, unicode.Mongolian, unicode.Cherokee, unicode.Deseret, unicode.Gothic,
	unicode.Lu, unicode.Ll, unicode.Lt, unicode.Lm, unicode.Lo, unicode.Mn, unicode.Mc, unicode.Me, unicode.Nd, unicode.Nl, unicode.No,
	unicode.White_Space, unicode.P, unicode.S, unicode.C,
}

func drawRune(r *rand.Rand) rune {
	table := scripts[r.IntN(len(scripts))]
	n := r.IntN(len(table.R16) + len(table.R32))
	if n < len(table.R16) {
		one := table.R16[n]
		return rune(one.Lo) + rune(r.IntN(int((one.Hi-one.Lo)/one.Stride)+1))*rune(one.Stride)
	}
	one := table.R32[n-len(table.R16)]
	return rune(one.Lo) + rune(r.IntN(int((one.Hi-one.Lo)/one.Stride)+1))*rune(one.Stride)
}

func drawText(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(12) {
		switch r.IntN(8) {
		case 0:
			b.WriteRune(drawRune(r))
		case 1: // a word of one script
			table := scripts[r.IntN(len(scripts))]
			for range 1 + r.IntN(6) {
				if c := drawRune(r); unicode.Is(table, c) || r.IntN(4) == 0 {
					b.WriteRune(c)
				}
			}
		case 2:
			for range 1 + r.IntN(8) {
				b.WriteByte(" aAzZ09'.\n"[r.IntN(10)])
			}
		case 3: // what repeats
			b.WriteString(strings.Repeat(fragments[r.IntN(len(fragments))], 1+r.IntN(5)))
		case 4:
			b.WriteByte(byte(r.IntN(256)))
		default:
			b.WriteString(fragments[r.IntN(len(fragments))])
		}
	}
	return b.String()
}

func TestOracle(t *testing.T) {
	for name := range encodings {
		t.Run(name, func(t *testing.T) {
			random, n := rand.New(rand.NewPCG(*fuzzSeed, 0)), *fuzzStrings
			if testing.Short() {
				n /= 10
			}
			for range n {
				if compare(t, name, drawText(random)); t.Failed() {
					return
				}
			}
		})
	}
}

// TestOracleExhaustive compares all short texts of what the patterns treat in a
// special way, and all characters up to U+2FFF between two letters.
func TestOracleExhaustive(t *testing.T) {
	for name := range encodings {
		t.Run(name, func(t *testing.T) {
			var all func(text string, n int)
			all = func(text string, n int) {
				if compare(t, name, text); n == 0 || t.Failed() {
					return
				}
				for _, next := range " \n\t\rx." {
					all(text+string(next), n-1)
				}
			}
			depth := 6
			if testing.Short() {
				depth = 4
			}
			all("", depth)
			for r := rune(0); r <= 0x2fff && !t.Failed(); r++ {
				compare(t, name, "a"+string(r)+"b")
				compare(t, name, "A'"+string(r)+string(r))
			}
		})
	}
}

// TestOracleLong compares texts without a place to split them.
func TestOracleLong(t *testing.T) {
	bytes := 3000 // the oracle is quadratic
	if testing.Short() {
		bytes = 600
	}
	for name := range encodings {
		for kind, text := range unbroken(bytes) {
			compare(t, name, text)
			if t.Failed() {
				t.Fatal(kind)
			}
		}
	}
}
