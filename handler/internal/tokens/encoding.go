package tokens

import (
	"strings"
	"sync"

	"github.com/pkoukk/tiktoken-go"
	tiktoken_loader "github.com/pkoukk/tiktoken-go-loader"
)

// encoding is one vocabulary, loaded at its first use (0.1 to 0.4 s of CPU).
type encoding func() *tiktoken.Tiktoken

var (
	offline = sync.OnceFunc(func() { tiktoken.SetBpeLoader(tiktoken_loader.NewOfflineLoader()) })

	o200k  = vocabulary(tiktoken.MODEL_O200K_BASE)
	cl100k = vocabulary(tiktoken.MODEL_CL100K_BASE)
	p50k   = vocabulary(tiktoken.MODEL_P50K_BASE)
	r50k   = vocabulary(tiktoken.MODEL_R50K_BASE)
)

func vocabulary(name string) encoding {
	return sync.OnceValue(func() *tiktoken.Tiktoken {
		offline()
		t, err := tiktoken.GetEncoding(name)
		if err != nil {
			panic(err) // the vocabularies are part of the program
		}
		return t
	})
}

// family is what counting depends on.
type family struct {
	encoding encoding
	prime    int64 // tokens that begin the answer, part of every prompt
	extra    int64 // hidden tokens of every prompt
	tools    int64 // hidden tokens of a prompt with tools
	pair     int64 // tokens around a tool call and its result
	answer   int64 // hidden tokens of a chat answer, the upper end of what was measured
	reply    int64 // hidden tokens of a Responses answer that is plain text; hidden items come on top
	image    imageRule
}

// families is searched from the top for a prefix that ends where a word of the
// name ends, so the longer of two prefixes comes first.
var families = []struct {
	prefix string
	family family
}{
	{"gpt-4o-mini", family{encoding: o200k, prime: 3, pair: 7, answer: 1, reply: 1, image: tiles(2833, 5667)}},
	{"gpt-4o", family{encoding: o200k, prime: 3, pair: 7, answer: 1, reply: 1, image: tiles(85, 170)}},
	{"chatgpt-4o", family{encoding: o200k, prime: 3, pair: 7, answer: 1, reply: 1, image: tiles(85, 170)}},
	{"gpt-4.1-mini", family{encoding: o200k, prime: 3, pair: 7, answer: 1, reply: 1, image: patches(162, 1536)}},
	{"gpt-4.1-nano", family{encoding: o200k, prime: 3, pair: 7, answer: 1, reply: 1, image: patches(246, 1536)}},
	{"gpt-4.1", family{encoding: o200k, prime: 3, pair: 7, answer: 1, reply: 1, image: tiles(85, 170)}},
	{"gpt-4.5", family{encoding: o200k, prime: 3, pair: 7, answer: 1, reply: 1, image: tiles(85, 170)}},
	{"gpt-4", family{encoding: cl100k, prime: 3, pair: 7, image: tiles(85, 170)}},
	{"gpt-3.5", family{encoding: cl100k, prime: 3, pair: 7, image: tiles(85, 170)}},
	{"gpt-35", family{encoding: cl100k, prime: 3, pair: 7, image: tiles(85, 170)}},
	{"gpt-5-mini", family{encoding: o200k, prime: 2, tools: 81, pair: 13, answer: 16, reply: 6, image: patches(162, 1536)}},
	{"gpt-5-nano", family{encoding: o200k, prime: 2, tools: 81, pair: 13, answer: 16, reply: 6, image: patches(246, 1536)}},
	{"gpt-5.1", family{encoding: o200k, prime: 2, tools: 81, pair: 13, answer: 11, reply: 6, image: tiles(85, 170)}},
	{"gpt-5.2", family{encoding: o200k, prime: 2, tools: 81, pair: 13, answer: 11, reply: 6, image: tiles(85, 170)}},
	{"gpt-5.3", family{encoding: o200k, prime: 2, tools: 81, pair: 13, answer: 11, reply: 6, image: tiles(85, 170)}},
	{"gpt-5", family{encoding: o200k, prime: 2, tools: 81, pair: 13, answer: 16, reply: 6, image: tiles(70, 140)}},
	{"gpt-6", family{encoding: o200k, prime: 2, tools: 81, pair: 13, answer: 16, reply: 6, image: patches(120, patchesMax)}},
	{"o1-mini", family{encoding: o200k, prime: 2, extra: 8, pair: 13, answer: 14, reply: 1, image: tiles(75, 150)}},
	{"o4-mini", family{encoding: o200k, prime: 2, pair: 13, answer: 14, reply: 1, image: patches(172, 1536)}},
	{"o1", family{encoding: o200k, prime: 2, pair: 13, answer: 14, reply: 1, image: tiles(75, 150)}},
	{"o3", family{encoding: o200k, prime: 2, pair: 13, answer: 14, reply: 1, image: tiles(75, 150)}},
	{"computer-use", family{encoding: o200k, prime: 3, pair: 7, answer: 1, reply: 1, image: tiles(85, 170)}},
	{"text-embedding", family{encoding: cl100k}},
	{"davinci-002", family{encoding: cl100k}},
	{"babbage-002", family{encoding: cl100k}},
	{"text-davinci-002", family{encoding: p50k}},
	{"text-davinci-003", family{encoding: p50k}},
	{"code", family{encoding: p50k}},
	{"codex", other},
	{"text", family{encoding: r50k}},
	{"davinci", family{encoding: r50k}},
	{"curie", family{encoding: r50k}},
	{"babbage", family{encoding: r50k}},
	{"ada", family{encoding: cl100k}}, // how Azure writes text-embedding-ada-002
}

// other is assumed of models that are not in the table: the newest encoding and the largest constants.
var other = family{encoding: o200k, prime: 3, tools: 81, pair: 13, answer: 16, reply: 6, image: patches(120, patchesMax)}

// familyOf finds the family of a model, whatever the letter case and the prefix azure/.
func familyOf(model string) family {
	name := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(model)), "azure/")
	for _, f := range families {
		rest, ok := strings.CutPrefix(name, f.prefix)
		if ok && (rest == "" || strings.ContainsRune("-:_", rune(rest[0]))) {
			return f.family
		}
		if ok && f.prefix == "gpt-5" && rest[0] == '.' { // gpt-5.4 and later, and what else there may be
			newer := f.family
			newer.image = patches(120, patchesMax)
			return newer
		}
	}
	return other
}
