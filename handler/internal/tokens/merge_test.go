package tokens

import (
	"encoding/base64"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile has in o200k_base, from right to left, neighbours of ever higher rank:
// what is joined at its end decides what can be joined at its beginning. It is
// the longest such text of small letters.
const hostile = "vqyjhgzlwfjmwjbmvnmxlpdmcvuoqaezzujuzyltihrupptrorer"

// unbroken are texts of n bytes that are hard: one piece or a few, with many joins.
func unbroken(n int) map[string]string {
	random := rand.New(rand.NewPCG(1, 2))
	letters, binary := make([]byte, n), make([]byte, n)
	for i := range n {
		letters[i], binary[i] = byte('a'+random.IntN(26)), byte(random.Uint32())
	}
	han := make([]rune, n/3)
	for i := range han {
		han[i] = 0x4e00 + random.Int32N(0x5000)
	}
	texts := map[string]string{
		"letters": string(letters), "base64": base64.StdEncoding.EncodeToString(binary)[:n], "Han": string(han),
		"hostile": strings.Repeat(hostile, n/len(hostile)),
	}
	for name, unit := range map[string]string{
		"a": "a", "blanks": " ", "lines": "\n", "equals": "=", "digits": "7", "zhong": "中", "emoji": "🎉", "family": "👩‍👩‍👧", "ab": "ab", "the": "the", "dashes": "-_",
	} {
		texts[name] = strings.Repeat(unit, n/len(unit))
	}
	return texts
}

// plain merges by the definition, of a vocabulary that is a map.
func plain(ranks map[string]int, text string) (starts []uint32) {
	for i := range len(text) {
		starts = append(starts, uint32(i))
	}
	for {
		lowest, at := none, -1
		for i := range len(starts) - 1 {
			end := len(text)
			if i+2 < len(starts) {
				end = int(starts[i+2])
			}
			if rank, ok := ranks[text[starts[i]:end]]; ok && rank < lowest {
				lowest, at = rank, i
			}
		}
		if at < 0 {
			return starts
		}
		starts = slices.Delete(starts, at+1, at+2)
	}
}

// TestMergeLong merges in chunks of a few bytes, with made-up vocabularies in
// which chunks have an effect far to the left.
func TestMergeLong(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	draw := func(letters, size int) string {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte('a' + random.IntN(letters))
		}
		return string(b)
	}
	m := new(merger)
	for range 3_000 {
		letters := 1 + random.IntN(6)
		known := map[string]bool{}
		var tokens []string
		for i := range letters {
			tokens = append(tokens, string(rune('a'+i)))
		}
		for range random.IntN(60) { // a join of two tokens, as vocabularies are made
			joined := tokens[random.IntN(len(tokens))] + tokens[random.IntN(len(tokens))]
			if !known[joined] && len(joined) <= 40 {
				known[joined] = true
				tokens = append(tokens, joined)
			}
		}
		if random.IntN(4) == 0 { // and ranks that come from no such process
			random.Shuffle(len(tokens), func(i, j int) { tokens[i], tokens[j] = tokens[j], tokens[i] })
		}
		ranks := map[string]int{}
		for rank, token := range tokens {
			ranks[token] = rank
		}
		v := newVocabulary(tokens)
		text := draw(letters, 1+random.IntN(120))
		if random.IntN(3) == 0 {
			text = strings.Repeat(draw(letters, 1+random.IntN(5)), 1+random.IntN(30))
		}
		want := plain(ranks, text)
		if n := m.mergeLong(v, text, 1+random.IntN(12)); n != len(want) || !slices.Equal(m.starts, want) {
			t.Fatalf("%q with %q: tokens begin at %v; want %v", text, tokens, m.starts, want)
		}
		parts := m.merge(v, text)
		for i, p := range parts[:len(parts)-1] {
			if len(parts)-1 != len(want) || p.start != want[i] {
				t.Fatalf("%q with %q, at once: tokens begin at %v; want %v", text, tokens, parts, want)
			}
		}
	}
}

// TestMergeLongForgets counts more tokens than are remembered.
func TestMergeLongForgets(t *testing.T) {
	for n := startsMax - 1; n <= startsMax+1; n++ {
		if got := o200k.count(strings.Repeat("中", n)); got != int64(n) {
			t.Errorf("%d times a character of one token: %d tokens", n, got)
		}
	}
	const emoji = 5 * startsMax
	if got := o200k.count(strings.Repeat("🎉", emoji)); got != 2*emoji && got != emoji {
		t.Errorf("%d emoji: %d tokens", emoji, got)
	}
}

// TestMergeIsLinear counts steps: what is unbroken takes no more of them for a
// byte if it is longer.
func TestMergeIsLinear(t *testing.T) {
	const bytes, perByteMax = 20_000, 128
	for name, e := range encodings {
		long := unbroken(8 * bytes)
		for kind, text := range unbroken(bytes) {
			steps := func(text string) int64 {
				m := new(merger)
				e.countWith(m, valid(text))
				return m.steps
			}
			short, long := steps(text), steps(long[kind])
			if long > 9*short+bytes || long > 8*bytes*perByteMax {
				t.Errorf("%s, %s: %d steps for %d bytes, %d for 8 times as many", name, kind, short, bytes, long)
			}
		}
	}
}

// TestCountIsLinear measures time. It fails if not once in many tries 4 times
// as much takes less than 10 times as long, which a busy machine cannot cause.
func TestCountIsLinear(t *testing.T) {
	const tries = 50
	short, long := unbroken(20_000), unbroken(80_000)
	short["ends"], long["ends"] = strings.Repeat(" \n ", 5_000)+"x", strings.Repeat(" \n ", 20_000)+"x"
	short["marks"], long["marks"] = strings.Repeat("\u0301A", 5_000), strings.Repeat("\u0301A", 20_000)
	for name, e := range encodings {
		e.count("x")
	next:
		for kind, text := range short {
			var a, b time.Duration
			for range tries {
				start := time.Now()
				e.count(text)
				middle := time.Now()
				e.count(long[kind])
				a, b = middle.Sub(start), time.Since(middle)
				if b < 10*a {
					continue next
				}
			}
			t.Errorf("%s, %s: %v, and for 4 times as much %v", name, kind, a, b)
		}
	}
}

func newVocabulary(tokens []string) *vocabulary {
	var entries []byte
	for rank, token := range tokens {
		entries = append(entries, byte(rank), 0, 0, byte(len(token)))
		entries = append(entries, token...)
	}
	return index(string(entries), len(tokens))
}
