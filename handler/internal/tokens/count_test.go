package tokens

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestWindowsKeepCounts compares the sum over the windows with the count of the
// whole text, for texts with everyday runs and for texts of nasty pieces.
func TestWindowsKeepCounts(t *testing.T) {
	words := rapid.SampledFrom([]string{
		"word", "Hello", "it's", "don't", "I'LL", "x", "42", "1234567", "3.14", "foo_bar", "camelCase", "{\"a\":1}", "https://example.com/a?b=c",
		"naïve", "Straße", "你好，世界", "日本語です。", "Привет", "مرحبا", "ไทย",
		"🎉", "👩‍👩‍👧", "e\u0301", "\u00a0", "—", "…", "’s", "'", "\"", ")", "/", "\r\n",
	})
	gaps := rapid.SampledFrom([]string{" ", " ", " ", "", "  ", "\n", "\n\n", "\t", ", ", ".\n", " \n ", "'", "/\n", ",", "'s ", "   "})
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		for range rapid.IntRange(0, 60).Draw(t, "words") {
			b.WriteString(words.Draw(t, "word") + gaps.Draw(t, "gap"))
		}
		text := b.String()
		for name, e := range map[string]encoding{"cl100k": cl100k, "o200k": o200k} {
			whole := len(e().EncodeOrdinary(text))
			// Cut at every place where window may cut.
			sum, start := 0, 0
			var previous rune
			for i, current := range text {
				if i > 0 && splits(previous, current) {
					sum += len(e().EncodeOrdinary(text[start:i]))
					start = i
				}
				previous = current
			}
			sum += len(e().EncodeOrdinary(text[start:]))
			if sum != whole {
				t.Fatalf("%s: %q has %d tokens, its pieces %d", name, text, whole, sum)
			}
		}
	})
}

func TestLongTextKeepsCount(t *testing.T) {
	text := strings.Repeat("The quick brown fox doesn't jump over 12345 lazy dogs, does it?\n\n"+
		"No.  Never {\"a\": [1,2,3]} \u4f60\u597d\u3002\n", 400)
	for _, model := range []string{"gpt-4", "gpt-4o", "text-davinci-003", "davinci"} {
		c := counter{family: familyOf(model)}
		if got, want := Text(model, text), int64(len(c.encoding().EncodeOrdinary(text))); got != want || len(text) < 4*windowBytes {
			t.Errorf("%s: %d tokens; want %d", model, got, want)
		}
	}
}

// TestWindowsAreBounded proves that no tokenizer call sees a long run: its work is quadratic in one.
func TestWindowsAreBounded(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	letters := make([]byte, 100_000)
	for i := range letters {
		letters[i] = byte('a' + random.IntN(26))
	}
	for name, text := range map[string]string{
		"letters": string(letters), "a": strings.Repeat("a", 100_000),
		"blanks": strings.Repeat(" ", 100_000), "digits": strings.Repeat("7", 100_000),
		"lines": strings.Repeat("\n", 100_000), "Chinese": strings.Repeat("中", 40_000), "emoji": strings.Repeat("🎉", 25_000),
		"signs": strings.Repeat("=", 100_000), "words": strings.Repeat("word ", 20_000),
		"mixed": strings.Repeat("a", 511) + "中" + strings.Repeat("1", 600) + "中",
	} {
		t.Run(name, func(t *testing.T) {
			for rest := text; rest != ""; {
				size := window(rest)
				piece := rest[:size]
				if size == 0 || size > windowBytes+RunBytesMax+utf8.UTFMax || !utf8.ValidString(piece) {
					t.Fatalf("a window of %d bytes", size)
				}
				run := 0
				var previous rune
				for i, current := range piece {
					if i > 0 && splits(previous, current) {
						run = i
					}
					if i-run > RunBytesMax {
						t.Fatalf("a run of %d bytes", i-run)
					}
					previous = current
				}
				rest = rest[size:]
			}
		})
	}
	if got := Text("gpt-4o", strings.Repeat("a", 100<<10)); got != 100<<10/8 {
		t.Errorf("100 KiB of a: %d tokens", got)
	}
	for n := RunBytesMax - 1; n <= RunBytesMax+1; n++ {
		if got, want := window(strings.Repeat("a", n)), min(n, RunBytesMax); got != want {
			t.Errorf("window of %d letters = %d; want %d", n, got, want)
		}
	}
}

func TestTextBytesMax(t *testing.T) {
	const perLine = "a b c d e f g h\n" // 16 bytes
	line := Text("gpt-4o", perLine)
	f := func(bytes int, wantGuess bool) {
		t.Helper()
		c := counter{family: familyOf("gpt-4o")}
		c.encoding = o200k
		// Pretend that most of the budget is used, in text of the same density.
		c.counted = TextBytesMax - 16
		c.inText = c.counted / 16 * line
		c.tokens = c.inText
		before := c.tokens
		c.add(strings.Repeat(perLine, bytes/16) + strings.Repeat("z", bytes%16))
		if c.guessed != wantGuess {
			t.Errorf("%d bytes: guessed = %v", bytes, c.guessed)
		}
		if c.total() < before+line || c.most() < c.total() || c.counted > TextBytesMax {
			t.Errorf("%d bytes: total %d, most %d, counted %d", bytes, c.total()-before, c.most()-before, c.counted)
		}
		if wantGuess && c.most() != before+line+int64(bytes-16) {
			t.Errorf("%d bytes: most = %d", bytes, c.most()-before)
		}
	}
	f(16, false)
	f(17, true)
	f(16*100, true)
	c := counter{family: familyOf("gpt-4o"), counted: TextBytesMax - 1}
	c.add("é") // does not fit, and is not cut in two
	if c.skipped != 2 || c.counted != TextBytesMax-1 {
		t.Errorf("skipped %d, counted %d", c.skipped, c.counted)
	}
}

func TestText(t *testing.T) {
	f := func(model, text string, want int64) {
		t.Helper()
		if got := Text(model, text); got != want {
			t.Errorf("Text(%s, %q) = %d; want %d", model, text, got, want)
		}
	}
	f("gpt-4o", "", 0)
	f("gpt-4o", "Hello, world!", 4)
	f("gpt-4o", "<|endoftext|>", 7) // text of a user, not a control token
	f("gpt-4o", "\xff\xfe\xfd", 1)
	f("no-such-model", "hello world", 2)
	// 你好 is one token in o200k and two in cl100k.
	for _, model := range []string{
		"gpt-4o", "GPT-4o-mini-2024-07-18", "azure/gpt-4.1", "gpt-4.5-preview", "gpt-5", "gpt-5.4-mini", "gpt-6",
		"o1", "o3-mini", "o4-mini", "chatgpt-4o-latest",
		"codex-mini", "",
	} {
		f(model, "你好", 1)
	}
	for _, model := range []string{
		"gpt-4", "gpt-4-32k", "gpt-4-turbo-2024-04-09", "gpt-35-turbo", "gpt-35-turbo-instruct", "gpt-3.5-turbo-16k", "text-embedding-3-large",
		"text-embedding-ada-002", "ada", "davinci-002",
	} {
		f(model, "你好", 2)
	}
	f("code-davinci-002", "    x", 2) // p50k has tokens of several blanks,
	f("curie", "    x", 4)            // r50k has not
}

func BenchmarkText(b *testing.B) {
	for name, text := range map[string]string{
		"english": strings.Repeat("The quick brown fox jumps over the lazy dog. ", 2330), "a": strings.Repeat("a", 100<<10),
		"blanks": strings.Repeat(" ", 100<<10), "Chinese": strings.Repeat("中", 34_000),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				Text("gpt-4o", text)
			}
		})
	}
}
