package simulator_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"mime/multipart"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/media"
	"github.com/costgate/costgate/handler/internal/simulator"
)

// upload posts a form: fields as name=value, and files of that name.
func upload(t *testing.T, base, path string, file []byte, fields string, header ...string) (status int, answer, kind string) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for field := range strings.SplitSeq(fields, "&") {
		name, value, _ := strings.Cut(field, "=")
		if value == "FILE" {
			part, _ := form.CreateFormFile(name, "x.bin")
			_, _ = part.Write(file)
		} else {
			_ = form.WriteField(name, value)
		}
	}
	_ = form.Close()
	r, err := http.NewRequest(http.MethodPost, base+path, &body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", form.FormDataContentType())
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	all, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got.StatusCode, string(all), got.Header.Get("Content-Type")
}

// wants tests for texts in an answer; one that begins with ! must not be there.
func wants(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if unwanted, no := strings.CutPrefix(want, "!"); strings.Contains(text, unwanted) == no {
			t.Errorf("%s: %q in %s", what, want, text)
		}
	}
}

// billed is the only line of the bill.
func billed(t *testing.T, s *simulator.Server) simulator.Line {
	t.Helper()
	b := s.Bill()
	if len(b.Lines) != 1 || b.Entries != 1 || b.CostNano != b.Lines[0].CostNano {
		t.Fatalf("bill %+v", b)
	}
	return b.Lines[0]
}

// typed reads the events of a stream by their names.
func typed(t *testing.T, stream string) (names []string, last map[string]any) {
	t.Helper()
	for line := range strings.SplitSeq(stream, "\n") {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			last = nil
			if err := json.Unmarshal([]byte(data), &last); err != nil {
				t.Fatalf("%s: %v", data, err)
			}
			names = append(names, last["type"].(string))
		}
	}
	return names, last
}

const apiVersion = "?api-version=2025-04-01-preview"

func TestImages(t *testing.T) {
	f := func(path, body string, outcome string, prompt, imageIn, completion, imageOut, nano int64, text ...string) {
		t.Helper()
		s, server := newServer(t, simulator.Options{})
		var answer string
		if strings.HasPrefix(body, "{") {
			_, answer, _ = post(t, server.URL, path, body, "x-simulator-fault", outcome)
		} else {
			_, answer, _ = upload(t, server.URL, path, []byte("pixels"), body)
		}
		wants(t, body, answer, text...)
		l := billed(t, s)
		if l.Operation != "images" || l.PromptTokens != prompt || l.ImageInTokens != imageIn || l.CompletionTokens != completion || l.ImageOutTokens != imageOut || l.CostNano != nano || l.ID != "" || l.RequestID == "" {
			t.Errorf("%s: line %+v", body, l)
		}
	}
	const generations, edits = "/openai/v1/images/generations", "/openai/v1/images/edits"
	f(generations, `{"model":"gpt-image-1","prompt":"two words","quality":"low","size":"1024x1536"}`, "", 8, 0, 408, 408, 8*2500+408*40_000,
		`"input_tokens":8`, `"output_tokens":408`, `"total_tokens":416`, `"output_tokens_details":{"image_tokens":408,"text_tokens":0}`, `"quality":"low"`, `"size":"1024x1536"`, `"output_format":"png"`, `"background":"opaque"`)
	f("/openai/deployments/gpt-image-1/images/generations"+apiVersion, `{"prompt":"x","n":2,"background":"transparent"}`, "", 7, 0, 2*1056, 2*1056, 7*2500+2*1056*40_000, `"background":"transparent"`)
	f(generations, `{"model":"gpt-image-1.5","prompt":"x","quality":"high"}`, "no_usage", 7, 0, 4160+209, 4160, 7*2500+209*10_000+4160*40_000, "!usage")
	f(generations, `{"model":"gpt-image-2","prompt":"x","quality":"high","size":"3584x2048"}`, "", 7, 0, 12_329, 12_329, 7*2500+12_329*40_000)
	f(generations, `{"model":"dall-e-3","prompt":"x","quality":"hd","n":1}`, "", 0, 0, 0, 0, 40_000_000, "!usage", `"url":"https://`, `"revised_prompt"`, `"created"`)
	f(edits, "model=gpt-image-1&prompt=x&quality=low&image[]=FILE&image[]=FILE&input_fidelity=high", "", 7+2*4354, 2*4354, 272, 272, 7*2500+2*4354*10_000+272*40_000,
		`"input_tokens_details":{"image_tokens":8708,"text_tokens":7}`)
	f("/openai/deployments/gpt-image-1/images/edits"+apiVersion, "prompt=x&quality=low&image=FILE&stream=true&partial_images=1", "", 7+194, 194, 372, 372, 7*2500+194*10_000+372*40_000,
		"event: image_edit.partial_image\n", "event: image_edit.completed\n")
}

func TestImageStream(t *testing.T) {
	s, server := newServer(t, simulator.Options{})
	_, stream, err := post(t, server.URL, "/openai/v1/images/generations", `{"model":"gpt-image-1","prompt":"x","quality":"low","stream":true,"partial_images":2}`)
	if err != nil {
		t.Fatal(err)
	}
	names, last := typed(t, stream)
	if fmt.Sprint(names) != "[image_generation.partial_image image_generation.partial_image image_generation.completed]" {
		t.Errorf("events %v", names)
	}
	usage, _ := last["usage"].(map[string]any)
	if usage["output_tokens"] != float64(472) || billed(t, s).CompletionTokens != 472 {
		t.Errorf("usage %v", usage)
	}
	picture, err := base64.StdEncoding.DecodeString(last["b64_json"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(picture)); err != nil {
		t.Errorf("no picture: %v", err)
	}
}

func TestImageRefusals(t *testing.T) {
	s, server := newServer(t, simulator.Options{})
	for _, more := range []string{`"n":0`, `"n":11`, `"partial_images":4`, `"size":"1x1"`, `"quality":"x"`, `"model":"gpt-image-2","size":"3856x1024"`} {
		body := `{"model":"gpt-image-1","prompt":"x",` + more + `}`
		if status, text, _ := post(t, server.URL, "/openai/v1/images/generations", body); status != 400 {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	if n := s.Bill().Entries; n != 0 {
		t.Errorf("%d entries", n)
	}
}

// speech asks for a text to be spoken.
func speech(t *testing.T, base, more string) string {
	t.Helper()
	status, sound, err := post(t, base, "/openai/v1/audio/speech", `{"voice":"alloy",`+more+`}`)
	if err != nil || status != 200 {
		t.Fatalf("%d %v %s", status, err, sound)
	}
	return sound
}

func TestSpeech(t *testing.T) {
	f := func(more string, ms, prompt, audioOut, nano int64, items map[string]int64) {
		t.Helper()
		s, server := newServer(t, simulator.Options{})
		sound := speech(t, server.URL, more)
		if got, _ := media.Duration([]byte(sound)); got != ms {
			t.Errorf("%s: %d ms", more, got)
		}
		l := billed(t, s)
		if l.Operation != "speech" || l.PromptTokens != prompt || l.AudioOutTokens != audioOut || l.CompletionTokens != audioOut || l.CostNano != nano || !reflect.DeepEqual(l.Items, items) || l.ID != "" || l.RequestID == "" {
			t.Errorf("%s: line %+v", more, l)
		}
	}
	long := strings.Repeat("ä b ", 25)
	f(`"model":"tts","input":"`+long+`"`, 4800, 0, 0, 100*15_000, map[string]int64{"char_in": 100})
	f(`"model":"tts-hd","input":"Hi","response_format":"wav"`, 480, 0, 0, 2*15_000, map[string]int64{"char_in": 2})
	f(`"model":"gpt-4o-mini-tts","input":"`+long+`","instructions":"be calm"`, 4800, 52, 100, 52*2500+100*12_000, nil)
	f(`"model":"gpt-4o-mini-tts","input":"Hi","response_format":"pcm"`, 0, 1, 10, 2500+10*12_000, nil)
}

func TestSpeechStream(t *testing.T) {
	s, server := newServer(t, simulator.Options{})
	body := `{"model":"gpt-4o-mini-tts","voice":"x","stream_format":"sse","input":"` + strings.Repeat("word ", 20) + `"}`
	_, stream, err := post(t, server.URL, "/openai/v1/audio/speech", body)
	if err != nil {
		t.Fatal(err)
	}
	names, last := typed(t, stream)
	want := map[string]any{"type": "speech.audio.done", "usage": map[string]any{"input_tokens": 20.0, "output_tokens": 100.0, "total_tokens": 120.0}}
	if names[0] != "speech.audio.delta" || !reflect.DeepEqual(last, want) || billed(t, s).AudioOutTokens != 100 {
		t.Errorf("events %v, last %v", names, last)
	}
	_, _, err = post(t, server.URL, "/openai/v1/audio/speech", body, "x-simulator-fault", "cut", "x-simulator-cut-after", "2")
	if lines := s.Bill().Lines; err == nil || lines[1].Outcome != "cut" || lines[1].AudioOutTokens >= 100 || lines[1].AudioOutTokens == 0 {
		t.Errorf("cut: %v %+v", err, lines[1])
	}
}

func TestTranscription(t *testing.T) {
	_, server := newServer(t, simulator.Options{})
	sound := []byte(speech(t, server.URL, `"model":"tts","input":"`+strings.Repeat("x", 50)+`"`)) // 2.4 s
	const path = "/openai/v1/audio/transcriptions"
	f := func(path, fields, fault, kind string, audioMS, prompt, completion, nano int64, text ...string) {
		t.Helper()
		s, server := newServer(t, simulator.Options{})
		status, answer, got := upload(t, server.URL, path, sound, fields, "x-simulator-fault", fault)
		if status != 200 || !strings.HasPrefix(got, kind) {
			t.Errorf("%s: %d %s %s", fields, status, got, answer)
		}
		wants(t, fields, answer, text...)
		l := billed(t, s)
		if l.Operation != "transcription" || l.Items["audio_in_ms"] != audioMS || l.PromptTokens != prompt || l.CompletionTokens != completion || l.CostNano != nano || l.ID != "" || l.RequestID == "" {
			t.Errorf("%s: line %+v", fields, l)
		}
	}
	const seconds3 = 3*100_000 + 1 // 3 x 100,000,001 pico-USD, rounded up
	f(path, "model=whisper&file=FILE", "", "application/json", 3000, 0, 0, seconds3, `"usage":{"type":"duration","seconds":3}`)
	f("/openai/deployments/whisper/audio/translations"+apiVersion, "file=FILE&response_format=verbose_json", "", "application/json", 3000, 0, 0, seconds3, `"duration":2.400`, `"seconds":3`)
	f(path, "model=whisper&file=FILE&response_format=verbose_json", "no_usage", "application/json", 2400, 0, 0, 240_001, `"duration":2.400`, "!usage")
	f(path, "model=whisper&file=FILE&response_format=text", "", "text/plain", 2400, 0, 0, 240_001)
	f(path, "model=whisper&file=FILE&response_format=srt", "", "text/plain", 2400, 0, 0, 240_001, "00:00:00,000 --> 00:00:02,400\n")
	f(path, "model=whisper&file=FILE&response_format=vtt", "", "text/plain", 2400, 0, 0, 240_001, "WEBVTT")
	f(path, "model=gpt-4o-transcribe&file=FILE&prompt=two+words", "", "application/json", 0, 31, 9, 30*6000+2500+9*10_000,
		`"usage":{"type":"tokens","input_tokens":31,"input_token_details":{"audio_tokens":30,"text_tokens":1},"output_tokens":9,"total_tokens":40}`)
	f(path, "model=gpt-4o-transcribe&file=FILE", "no_usage", "application/json", 0, 30, 9, 30*6000+9*10_000, "!usage")
	f(path, "model=gpt-4o-transcribe&file=FILE&stream=true", "", "text/event-stream", 0, 30, 9, 30*6000+9*10_000,
		`{"type":"transcript.text.delta","delta":`, `{"type":"transcript.text.done","text":`, `"output_tokens":9`)
	f(path, "model=whisper&file=FILE&stream=true", "", "application/json", 3000, 0, 0, seconds3)

	if status, text, _ := upload(t, server.URL, path, []byte("no sound"), "model=whisper&file=FILE"); status != 400 || !strings.Contains(text, "Invalid file format") {
		t.Errorf("no sound: %d %s", status, text)
	}
	if status, text, _ := upload(t, server.URL, path, nil, "model=whisper"+strings.Repeat("&x=y", 64)); status != 400 {
		t.Errorf("too many parts: %d %s", status, text)
	}
}
