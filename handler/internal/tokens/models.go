package tokens

import "strings"

// family is what counting depends on.
type family struct {
	encoding *encoding
	prime    int64 // tokens that begin the answer, part of every prompt
	extra    int64 // hidden tokens of every prompt
	tools    int64 // hidden tokens of a prompt with tools
	pair     int64 // tokens around a tool call and its result
	answer   int64 // hidden tokens of a chat answer, as most often measured
	reply    int64 // hidden tokens of a Responses answer that is plain text; hidden items come on top
	image    imageRule
	// guess marks what nobody measured: no count is exact, and only bytes bound it.
	guess bool
}

// The newer families differ in their images only.
var (
	gpt4  = family{encoding: cl100k, prime: 3, pair: 7, image: tiles(85, 170)}
	gpt4o = family{encoding: o200k, prime: 3, pair: 7, reply: 1, image: tiles(85, 170)}
	gpt41 = family{encoding: o200k, prime: 3, pair: 7, answer: 1, reply: 1, image: tiles(85, 170)}
	gpt5  = family{encoding: o200k, prime: 2, tools: 81, pair: 13, answer: 9, reply: 6, image: tiles(70, 140)}
	gpt52 = family{encoding: o200k, prime: 2, tools: 81, pair: 13, answer: 4, reply: 6, image: patches(120, patchesMax)}
	o3    = family{encoding: o200k, prime: 2, pair: 13, answer: 11, reply: 1, image: tiles(75, 150)}

	// other has the newest encoding and the largest constants.
	other = family{encoding: o200k, prime: 3, tools: 81, pair: 13, answer: 9, reply: 6, image: patches(120, patchesMax)}
)

func (f family) with(image imageRule) family { f.image = image; return f }

func (f family) hiding(extra int64) family { f.extra = extra; return f }

func (f family) guessed() family { f.guess = true; return f }

// families is searched from the top for a prefix that ends where a word of the
// name ends, so the longer of two prefixes comes first. The encodings are those
// of tiktoken's model.py, with Azure's spellings.
var families = []struct {
	prefix string
	family family
}{
	{"gpt-4o-mini", gpt4o.with(tiles(2833, 5667))},
	{"gpt-4o", gpt4o},
	{"chatgpt-4o", gpt4o},
	{"gpt-4.1-mini", gpt41.with(patches(162, 1536))},
	{"gpt-4.1-nano", gpt41.with(patches(246, 1536))},
	{"gpt-4.1", gpt41},
	{"gpt-4.5", gpt4o},
	{"gpt-4", gpt4},
	{"gpt-3.5", gpt4},
	{"gpt-35", gpt4},
	// OpenAI documented 162 for gpt-5-mini and billed 120.
	{"gpt-5-mini", gpt5.with(imageRule{per100: 120, atMost: 162, cap: 1536})},
	{"gpt-5-nano", gpt5.with(patches(246, 1536))},
	{"gpt-5", gpt5},
	{"gpt-5.1", gpt5.with(tiles(85, 170))},
	{"gpt-5.4-mini", gpt52.with(imageRule{per100: 120, atMost: 162, cap: patchesMax})},
	{"gpt-5.4-nano", gpt52.with(imageRule{per100: 120, atMost: 246, cap: patchesMax})},
	{"gpt-5.5", gpt52.with(patches(120, 10_000))},
	{"gpt-oss", gpt52.hiding(64).guessed()}, // o200k_harmony: the ranks of o200k_base; a system message of its own
	{"gpt", gpt52},                          // gpt-5.2 and what is newer
	{"o1-mini", o3.hiding(8)},
	{"o4-mini", o3.with(patches(172, 1536))},
	{"o1", o3},
	{"o3", o3},
	{"computer-use", gpt4o},
	{"codex", other},
	{"model-router", other},
	{"text-embedding", family{encoding: cl100k}},
	{"davinci-002", family{encoding: cl100k}},
	{"babbage-002", family{encoding: cl100k}},
	{"text-davinci-002", family{encoding: p50k}},
	{"text-davinci-003", family{encoding: p50k}},
	{"text-davinci-edit", family{encoding: p50k}},
	{"code-search", family{encoding: r50k}},
	{"code", family{encoding: p50k}},
	{"text", family{encoding: r50k}},
	{"davinci", family{encoding: r50k}},
	{"curie", family{encoding: r50k}},
	{"babbage", family{encoding: r50k}},
	{"ada", family{encoding: cl100k}}, // how Azure writes text-embedding-ada-002
}

// familyOf finds the family of a model, whatever the letter case. Azure's and
// OpenAI's marks of a fine-tuned model are left out: its base model counts.
func familyOf(model string) family {
	name := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(model)), "azure/")
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "ft:"), ".ft-")
	for _, f := range families {
		rest, ok := strings.CutPrefix(name, f.prefix)
		if ok && (rest == "" || strings.ContainsRune("-:_", rune(rest[0]))) {
			return f.family
		}
	}
	return other.guessed()
}

// Reasons tells whether a model thinks out of sight, in tokens that are billed. The
// name is normalised.
func Reasons(model string) bool {
	for _, family := range []string{"o1", "o3", "o4", "gpt-5", "gpt-6", "codex", "computer-use"} {
		if rest, ok := strings.CutPrefix(model, family); ok && (rest == "" || rest[0] == '-' || rest[0] == '.') {
			return true
		}
	}
	return false
}
