package tokens

import (
	"strings"
	"testing"

	tiktoken_loader "github.com/pkoukk/tiktoken-go-loader"
)

func TestTextBytesMax(t *testing.T) {
	const perLine = "a b c d e f g h\n" // 16 bytes
	line := Text("gpt-4o", perLine)
	f := func(bytes int, wantGuess bool) {
		t.Helper()
		c := counter{family: familyOf("gpt-4o")}
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
	f("gpt-4o", "<|endoftext|>", 7)   // text of a user, not a control token
	f("gpt-4o", "\xff\xfe\xfd", 1)    // as U+FFFD three times
	f("code-davinci-002", "    x", 2) // p50k_base has tokens of several blanks,
	f("curie", "    x", 4)            // r50k_base has not
	f("gpt-4o", strings.Repeat("a", 100<<10), 100<<10/8)
	f("gpt-4o", strings.Repeat("a", 100<<10+9), 100<<10/8+2)
}

func TestFamilyOf(t *testing.T) {
	f := func(want *encoding, models ...string) {
		t.Helper()
		for _, model := range models {
			if familyOf(model).encoding != want {
				t.Errorf("%q has another encoding", model)
			}
		}
	}
	f(o200k, "gpt-4o", "GPT-4o-mini-2024-07-18", " azure/gpt-4.1 ", "gpt-4.1-nano-2025-04-14", "gpt-4.5-preview", "gpt-5", "gpt-5.4-mini", "gpt-5-chat-latest",
		"gpt-5.6-sol", "gpt-5-pro", "gpt-6", "o1", "o1-preview", "o1-mini", "o3-mini", "o3-pro", "o4-mini", "chatgpt-4o-latest", "codex-mini", "gpt-5-codex",
		"gpt-oss-120b", "gpt-oss-20b", "gpt-realtime", "gpt-realtime-mini", "gpt-audio", "gpt-4o-audio-preview", "gpt-4o-realtime-preview", "gpt-4o-transcribe",
		"gpt-4o-mini-tts", "gpt-image-1", "computer-use-preview", "model-router", "no-such-model", "",
		"ft:gpt-4o-2024-08-06:org::id", "ft:gpt-4o-mini-2024-07-18:org:name:id", "gpt-4o-2024-08-06.ft-abc", "gpt-4o.ft-abc", "gpt-4.1-mini-2025-04-14.ft-0f1e")
	f(cl100k, "gpt-4", "gpt-4-32k", "gpt-4-0613", "gpt-4-turbo-2024-04-09", "gpt-4-1106-preview", "gpt-35-turbo", "gpt-35-turbo-16k", "gpt-35-turbo-instruct",
		"gpt-3.5-turbo-0125", "gpt-3.5-turbo-instruct:20230824-v2", "text-embedding-3-large", "text-embedding-3-small", "text-embedding-ada-002",
		"text-embedding-ada-002-v2", "ada", "davinci-002", "babbage-002", "ft:gpt-3.5-turbo:org::id", "ft:gpt-4-0613:org::id", "ft:davinci-002:org::id",
		"gpt-35-turbo-0613.ft-abc")
	f(p50k, "text-davinci-003", "text-davinci-002", "code-davinci-002", "code-cushman-001", "text-davinci-edit-001", "code-davinci-edit-001")
	f(r50k, "text-davinci-001", "text-curie-001", "text-ada-001", "davinci", "davinci:2023-07-21-v2", "curie", "babbage", "text-similarity-ada-001",
		"text-search-davinci-doc-001", "code-search-babbage-code-001")
	for model, want := range map[string]int64{"gpt-4o": 3, "gpt-35-turbo": 3, "gpt-5": 2, "gpt-5.1": 2, "gpt-5.6": 2, "gpt-7": 2, "o3-mini": 2, "GPT-4.5": 3} {
		if f := familyOf(model); f.prime != want || f.guess {
			t.Errorf("%s: prime %d, guess %v", model, f.prime, f.guess)
		}
	}
	for _, model := range []string{"", "gpt-oss-120b", "DeepSeek-V3", "grok-4", "gpt4o"} {
		if !familyOf(model).guess {
			t.Errorf("%s is known", model)
		}
	}
}

// TestLazy proves that a vocabulary is loaded once, when it is first used.
func TestLazy(t *testing.T) {
	for name, e := range encodings {
		if v := e.vocabulary(); v != e.vocabulary() {
			t.Errorf("%s is loaded anew", name)
		}
	}
	if _, err := load("no_such_base"); err == nil {
		t.Error("a vocabulary that is not there loads")
	}
}

// TestVocabulary holds the tables against the ranks that the oracle's loader reads.
func TestVocabulary(t *testing.T) {
	for name, e := range encodings {
		ranks, err := tiktoken_loader.NewOfflineLoader().LoadTiktokenBpe(name + ".tiktoken")
		if err != nil {
			t.Fatal(err)
		}
		v, n := e.vocabulary(), 0
		for offset := 0; offset < len(v.entries); n++ {
			rank, token := v.entry(offset)
			if want, ok := ranks[token]; !ok || uint32(want) != rank {
				t.Fatalf("%s: %q has rank %d; want %d", name, token, rank, want)
			}
			offset += entryBytes + len(token)
		}
		if n != len(ranks) {
			t.Errorf("%s: %d tokens; want %d", name, n, len(ranks))
		}
		for token, want := range ranks {
			if got := v.rank(token); got != uint32(want) {
				t.Fatalf("%s: %q is found at %d; want %d", name, token, got, want)
			}
			if with := token + "\x00"; ranks[with] == 0 && v.rank(with) != none {
				t.Fatalf("%s: %q is found", name, with)
			}
		}
	}
}

func TestCountAllocates(t *testing.T) {
	texts := []string{"The quick brown fox doesn't jump over 12345 lazy dogs.\n\n {\"a\": [1]} 你好，世界", strings.Repeat("a", 50_000)}
	m := new(merger) // under the race detector, pools forget
	for _, text := range texts {
		o200k.countWith(m, text)
		if n := testing.AllocsPerRun(10, func() { o200k.countWith(m, text) }); n > 0 {
			t.Errorf("%d bytes: %v allocations", len(text), n)
		}
	}
}

func FuzzCount(f *testing.F) {
	for _, text := range fragments {
		f.Add(text, uint8(1))
		f.Add(text, uint8(100))
	}
	f.Fuzz(func(t *testing.T, text string, times uint8) {
		if len(text)*int(times) > 2000 { // the oracle is quadratic
			return
		}
		for name := range encodings {
			compare(t, name, strings.Repeat(text, int(times)))
		}
	})
}
