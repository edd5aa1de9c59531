package proxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// wav is silence of so many milliseconds, 8 kHz, 8 bit, mono.
func wav(ms int) string {
	data := make([]byte, ms*8)
	head := []byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x40\x1f\x00\x00\x01\x00\x08\x00data\x00\x00\x00\x00")
	binary.LittleEndian.PutUint32(head[4:], uint32(len(data)+36))
	binary.LittleEndian.PutUint32(head[40:], uint32(len(data)))
	return string(head) + string(data)
}

// form writes a multipart body of name, value pairs. A name that begins with @ is
// a file.
func form(pairs ...string) (body, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		if name, isFile := strings.CutPrefix(pairs[i], "@"); isFile {
			part, _ := w.CreateFormFile(name, "file.bin")
			_, _ = io.WriteString(part, pairs[i+1])
		} else {
			_ = w.WriteField(pairs[i], pairs[i+1])
		}
	}
	_ = w.Close()
	return b.String(), w.FormDataContentType()
}

func (b *bench) answersAs(contentType, body string) {
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
	}
}

// rich lets holds be bounded cheaply.
func rich(p *quota.Product) { p.Budget = 1e12 }

func TestImages(t *testing.T) {
	b := newBench(t, rich, nil)
	const path, deployment = "/openai/v1/images/generations", "/openai/deployments/dall-e-3/images/generations?api-version=2024-10-21"
	f := func(path, body, answered string, cost int64, source, key string, images int64) {
		t.Helper()
		b.answersAs("application/json", answered)
		if r := b.charged(path, body, cost, source, key); r.Operation != "images" || r.Images != usage.Of(images) {
			t.Errorf("%s: %s, %v images", body, r.Operation, r.Images)
		}
	}
	const one, two = `{"created":1,"data":[{"url":"https://example.com/a"}]}`, `{"created":1,"data":[{"b64_json":"AAAA"},{"b64_json":"AAAA"}]}`
	f(deployment, `{"prompt":"a cat"}`, one, 40_000_000, "tokenizer", "image_generation:standard/1024-x-1024/dall-e-3", 1)
	f(path, `{"model":"dall-e-3","prompt":"a cat","quality":"hd","size":"1024x1792"}`, one, 120_000_000, "tokenizer", "image_generation:hd/1024-x-1792/dall-e-3", 1)
	f(path, `{"model":"dall-e-3","prompt":"a cat","n":2}`, two, 80_000_000, "tokenizer", "image_generation:standard/1024-x-1024/dall-e-3", 2)
	usages := `,"quality":"medium","size":"1024x1024","usage":{"total_tokens":1106,"input_tokens":50,"output_tokens":1056,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}`
	f(path, `{"model":"gpt-image-1","prompt":"a cat","quality":"medium"}`, strings.TrimSuffix(one, "}")+usages, 10*5000+40*10000+1056*40000, "provider", "image_generation:gpt-image-1/", 1)
	f(path, `{"model":"gpt-image-1","prompt":"a cat","quality":"low","size":"1024x1024"}`, `{"data":[{"b64_json":"AA"}],"quality":"low","size":"1024x1024"}`, 11_000_000, "estimate", "image_generation:gpt-image-1/", 1)
	// A large answer is metered as it goes by.
	large := `{"created":1,"data":[{"b64_json":"` + strings.Repeat("A", 3<<20) + `"}]` + usages
	f(path, `{"model":"gpt-image-1","prompt":"a cat","quality":"medium"}`, large, 10*5000+40*10000+1056*40000, "provider", "image_generation:gpt-image-1/", 1)
}

func TestImageStream(t *testing.T) {
	b := newBench(t, rich, nil)
	stream := "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"" + strings.Repeat("A", 2<<20) + "\",\"partial_image_index\":0}\n\n" +
		"event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"" + strings.Repeat("B", 2<<20) +
		"\",\"size\":\"1024x1024\",\"quality\":\"low\",\"usage\":{\"input_tokens\":10,\"output_tokens\":372,\"input_tokens_details\":{\"text_tokens\":10,\"image_tokens\":0}}}\n\n"
	b.streams(50_000, stream)
	b.charged("/openai/v1/images/generations", `{"model":"gpt-image-1","prompt":"a cat","stream":true,"partial_images":1,"quality":"low"}`, 10*5000+372*40000, "provider", "image_generation:gpt-image-1/")
	if body := b.requests()[0].body; strings.Contains(body, "stream_options") || strings.Contains(body, "max_") {
		t.Errorf("sent %s", body)
	}
}

func TestImageEdits(t *testing.T) {
	b := newBench(t, rich, nil)
	b.answersAs("application/json", `{"data":[{"b64_json":"AA"}],"usage":{"input_tokens":400,"output_tokens":272,"input_tokens_details":{"text_tokens":20,"image_tokens":380}}}`)
	body, kind := form("model", "gpt-image-1", "prompt", "a hat", "quality", "low", "@image[]", "PNG", "@image[]", "PNG", "n", "1")
	b.charged("/openai/v1/images/edits", body, 20*5000+380*10000+272*40000, "provider", "image_generation:gpt-image-1/", "Content-Type", kind)
	if sent := b.requests()[0]; sent.body != body || sent.header.Get("Content-Type") != kind {
		t.Error("the form was changed on its way")
	}
}

func TestTranscription(t *testing.T) {
	b := newBench(t, rich, nil)
	const path = "/openai/deployments/whisper-1/audio/transcriptions?api-version=2024-10-21"
	f := func(path, contentType, answered string, cost int64, source string, pairs ...string) {
		t.Helper()
		b.answersAs(contentType, answered)
		body, kind := form(append(pairs, "@file", wav(12_345))...)
		b.charged(path, body, cost, source, "", "Content-Type", kind)
	}
	const json, plain, v1 = "application/json", "text/plain; charset=utf-8", "/openai/v1/audio/transcriptions"
	f(path, json, `{"text":"Hello"}`, 1_234_500, "tokenizer")
	f(path, plain, "1\n00:00:00,000 --> 00:00:02,000\nHello\n", 1_234_500, "tokenizer", "response_format", "srt")
	f(path, json, `{"text":"Hello","usage":{"type":"duration","seconds":13}}`, 1_300_000, "provider")
	f(path, json, `{"task":"transcribe","duration":12.5,"text":"Hello"}`, 1_250_000, "provider", "response_format", "verbose_json")
	f(strings.Replace(path, "transcriptions", "translations", 1), json, `{"text":"Hello"}`, 1_234_500, "tokenizer")
	f(v1, json, `{"text":"Hello","usage":{"type":"tokens","input_tokens":120,"input_token_details":{"text_tokens":0,"audio_tokens":120},"output_tokens":3,"total_tokens":123}}`,
		120*6000+3*10000, "provider", "model", "gpt-4o-transcribe")
	f(v1, plain, "Hello", 124*6000+1*10000, "estimate", "model", "gpt-4o-transcribe", "response_format", "text")
}

func TestSpeech(t *testing.T) {
	b := newBench(t, rich, nil)
	const path = "/openai/v1/audio/speech"
	spoken := wav(10_000)
	b.answersAs("audio/wav", spoken)
	r := b.charged(path, `{"model":"tts-1","voice":"alloy","input":"Grüße, 世界!"}`, 10*15_000, "tokenizer", "audio_speech:tts-1/")
	if len(r.Items) != 1 || r.Items[0] != (usage.Item{Meter: usage.ItemCharacter, Quantity: 10}) {
		t.Errorf("items %+v", r.Items)
	}
	r = b.charged(path, `{"model":"gpt-4o-mini-tts","voice":"alloy","input":"`+strings.Repeat("Say this. ", 20)+`"}`, 61*2500+208*12000, "estimate", "")
	if r.AudioOutputTokens != usage.Of(208) {
		t.Errorf("audio %v", r.AudioOutputTokens)
	}
	b.streams(40, "data: {\"type\":\"speech.audio.delta\",\"audio\":\"AAAA\"}\n\ndata: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":14,\"output_tokens\":101,\"total_tokens\":115}}\n\n")
	b.charged(path, `{"model":"gpt-4o-mini-tts","voice":"alloy","input":"`+strings.Repeat("Say this. ", 20)+`","stream_format":"sse"}`, 14*2500+101*12000, "provider", "")
}

func TestMediaRefused(t *testing.T) {
	b := newBench(t, func(p *quota.Product) { p.Unit, p.Budget = quota.UnitTokens, 1e9 }, nil)
	b.answersAs("application/json", `{}`)
	f := func(status int, code, path string, pairs ...string) {
		t.Helper()
		body, kind := form(pairs...)
		if answer, got := b.do("POST", path, body, "Content-Type", kind); answer.StatusCode != status || errorCode(t, got) != code {
			t.Errorf("%v: %d %s; want %d %s", pairs, answer.StatusCode, got, status, code)
		}
	}
	const path = "/openai/v1/audio/transcriptions"
	f(403, "operation_not_priced", path, "model", "whisper-1", "@file", wav(10)) // the budget counts tokens
	f(403, "model_not_priced", path, "model", "whisper-9", "@file", wav(10))
	f(400, "missing_model", path, "@file", wav(10))
	f(400, "duplicate_field", path, "model", "whisper-1", "model", "gpt-4o-transcribe", "@file", wav(10))
	f(400, "duplicate_field", path, "model", "whisper-1", "@file", wav(10), "@file", wav(10))
	f(400, "unknown_field", path, "Model", "whisper-1", "@file", wav(10))
	f(400, "invalid_value", "/openai/v1/images/edits", "model", "gpt-image-1", "n", "129", "@image", "x")
	f(400, "invalid_value", "/openai/v1/images/edits", "model", "gpt-image-1", "n", "two", "@image", "x")
	f(400, "invalid_value", "/openai/v1/images/edits", "model", "gpt-image-1", "partial_images", "17", "@image", "x")
	if answer, got := b.do("POST", path, "--x\r\nbroken", "Content-Type", "multipart/form-data; boundary=x"); answer.StatusCode != 400 || errorCode(t, got) != "invalid_body" {
		t.Errorf("broken form: %d %s", answer.StatusCode, got)
	}
	if n := len(b.requests()); n != 0 {
		t.Errorf("%d requests reached upstream", n)
	}
}

func TestFormPartsMax(t *testing.T) {
	b := newBench(t, rich, nil)
	b.answersAs("application/json", `{"data":[],"usage":{"input_tokens":1,"output_tokens":1}}`)
	for n, want := range map[int]int{64: 200, 65: 400} {
		pairs := []string{"model", "gpt-image-1"}
		for len(pairs) < 2*n {
			pairs = append(pairs, "@image[]", "x")
		}
		body, kind := form(pairs...)
		if answer, got := b.do("POST", "/openai/v1/images/edits", body, "Content-Type", kind); answer.StatusCode != want {
			t.Errorf("%d parts: %d %s", n, answer.StatusCode, got)
		}
	}
	for n, want := range map[int]int{1 << 20: 200, 1<<20 + 1: 400} {
		body, kind := form("model", "gpt-image-1", "prompt", strings.Repeat("x", n), "@image", "x")
		if answer, got := b.do("POST", "/openai/v1/images/edits", body, "Content-Type", kind); answer.StatusCode != want {
			t.Errorf("%d bytes: %d %s", n, answer.StatusCode, got)
		}
	}
}

// TestLearnedHolds: a soft product holds what its requests usually cost; a hard
// one always the most.
func TestLearnedHolds(t *testing.T) {
	f := func(enforcement quota.Enforcement, after int64) {
		t.Helper()
		b := newBench(t, func(p *quota.Product) { p.Enforcement, p.Budget = enforcement, 1e12 }, nil)
		n := 0
		b.answer = func(w http.ResponseWriter, _ *http.Request, _ string) {
			n++
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":%d}}`, 100+n%20)
		}
		for range 60 {
			b.chat(`{"messages":[{"role":"user","content":"Hello"}]}`)
		}
		records := b.records()
		output := func(r usage.Record) int64 { return r.HoldNanoUSD.N / 10_000 }
		if first, last := output(records[len(records)-1]), output(records[0]); first < 16_384 || last < after*99/100 || last > after+100 {
			t.Errorf("%s: holds for %d, then for %d tokens; want %d", enforcement, first, last, after)
		}
		if body := b.requests()[len(b.requests())-1].body; strings.Contains(body, "max_") {
			t.Errorf("%s: a limit was put in: %s", enforcement, body)
		}
	}
	f(quota.EnforceSoft, 119)
	f(quota.EnforceHard, 16_384)
}
