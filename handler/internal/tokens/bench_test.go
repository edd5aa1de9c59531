package tokens

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// corpus is 100 KB of each kind of text: the prose, code and data of this repository, and a page of Chinese.
func corpus(tb testing.TB) map[string]string {
	tb.Helper()
	read := func(patterns ...string) string {
		var b strings.Builder
		for _, pattern := range patterns {
			names, err := filepath.Glob(filepath.Join("..", "..", "..", pattern))
			if err != nil {
				tb.Fatal(err)
			}
			for _, name := range names {
				data, err := os.ReadFile(name)
				if err != nil {
					tb.Fatal(err)
				}
				b.Write(data)
			}
		}
		return b.String()
	}
	texts := map[string]string{
		"english": read("README.md", "docs/*.md", "docs/adr/*.md"),
		"code":    read("handler/internal/ledger/*.go"),
		"json":    records(),
		"chinese": "我们认为下面这些真理是不言而喻的：人人生而平等，造物者赋予他们若干不可剥夺的权利，其中包括生命权、自由权和追求幸福的权利。" +
			"为了保障这些权利，人类才在他们之间建立政府，而政府之正当权力，是经被治理者的同意而产生的。",
	}
	for name, text := range texts {
		texts[name] = strings.ToValidUTF8(strings.Repeat(text, 100<<10/len(text)+1)[:100<<10], "")
	}
	return texts
}

// records are answers of a chat with everything that varies in them.
func records() string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	for i := range 300 {
		if encoder.Encode(map[string]any{
			"id": i * 7919, "created": 1_700_000_000 + i*86_413, "model": "gpt-4o-mini-2024-07-18", "object": "chat.completion",
			"usage":   map[string]any{"prompt_tokens": i * 13, "completion_tokens": i * 3, "prompt_tokens_details": map[string]any{"cached_tokens": i}},
			"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": nil}}},
		}) != nil {
			panic("a map of plain values does not encode")
		}
	}
	return b.String()
}

var sizes = []struct {
	name  string
	bytes int
}{{"1KB", 1 << 10}, {"100KB", 100 << 10}}

// BenchmarkCount and BenchmarkPkoukk count the same texts, o200k_base and cl100k_base.
func BenchmarkCount(b *testing.B) {
	benchmark(b, func(name, text string) int { return int(encodings[name].count(text)) })
}

func BenchmarkPkoukk(b *testing.B) {
	benchmark(b, func(name, text string) int { return len(oracle(name).EncodeOrdinary(text)) })
}

func benchmark(b *testing.B, count func(name, text string) int) {
	texts := corpus(b)
	for _, name := range []string{"o200k_base", "cl100k_base"} {
		count(name, "x") // loads it
		for _, kind := range []string{"english", "code", "json", "chinese"} {
			for _, size := range sizes {
				text := strings.ToValidUTF8(texts[kind][:min(size.bytes, len(texts[kind]))], "")
				b.Run(name+"/"+kind+"/"+size.name, func(b *testing.B) {
					b.SetBytes(int64(len(text)))
					b.ReportAllocs()
					for b.Loop() {
						count(name, text)
					}
				})
			}
		}
	}
}

// BenchmarkUnbroken counts 1 MB without a place to split it.
func BenchmarkUnbroken(b *testing.B) {
	o200k.count("x")
	for kind, text := range unbroken(1 << 20) {
		text = valid(text)
		b.Run(kind, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				o200k.count(text)
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, name := range []string{"o200k_base", "cl100k_base"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := load(name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPrompt counts whole chats, with the decoding of their JSON.
func BenchmarkPrompt(b *testing.B) {
	texts := corpus(b)
	for _, size := range sizes {
		content := texts["english"][:size.bytes]
		body, err := json.Marshal(map[string]any{"model": "gpt-4o", "messages": []any{
			map[string]any{"role": "system", "content": "You are a helpful assistant."},
			map[string]any{"role": "user", "content": content},
		}})
		if err != nil {
			b.Fatal(err)
		}
		for name, f := range map[string]func(){
			"prompt": func() { Prompt(OpChat, "gpt-4o", body) },
			"decode": func() { decode(body) },
			"bytes":  func() { BoundBytes(OpChat, "gpt-4o", body) },
		} {
			b.Run(name+"/"+size.name, func(b *testing.B) {
				f()
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					f()
				}
			})
		}
	}
}
