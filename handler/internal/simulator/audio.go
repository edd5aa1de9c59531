package simulator

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/costgate/costgate/handler/internal/media"
)

const (
	audioTokensPerSecond = 10   // of what is heard
	wordsPerSecond       = 3    // of what was said, in tokens
	speechTokenMS        = 48   // of what is spoken: 1,250 tokens a minute
	speechTokensMin      = 10   // the shortest speech
	speechInputMax       = 4096 // characters
	speechRate           = 24_000
	speechChunk          = 4096 // bytes of an event
)

// isWhisper tells the models that are billed by the second.
func isWhisper(model string) bool { return strings.Contains(model, "whisper") }

// transcription answers transcriptions and translations. Whisper is billed by
// the second, the others by tokens.
func (c *call) transcription() {
	ms, ok := media.Duration(c.file)
	if !ok {
		badRequest(c.w, "Invalid file format. Supported formats: ['flac', 'm4a', 'mp3', 'mp4', 'mpeg', 'mpga', 'oga', 'ogg', 'wav', 'webm']", "file", "invalid_value")
		return
	}
	seconds := (ms + 999) / 1000
	n := c.settings.CompletionTokens
	if n == 0 {
		n = wordsPerSecond * seconds
	}
	pieces := c.answerText(min(n, CompletionMax))
	said := strings.Join(pieces, "")
	var usage string
	if isWhisper(c.model) {
		n = 0
		c.use(itemAudioIn, c.heard(ms))
		usage = fmt.Sprintf(`{"type":"duration","seconds":%d}`, seconds)
	} else {
		c.audioIn = audioTokensPerSecond * seconds
		words := c.server.options.Counter.Text(c.model, text(c.in.Prompt))
		c.prompt = c.audioIn + words
		usage = fmt.Sprintf(`{"type":"tokens","input_tokens":%d,"input_token_details":{"audio_tokens":%d,"text_tokens":%d},"output_tokens":%d,"total_tokens":%d}`,
			c.prompt, c.audioIn, words, n, c.prompt+n)
	}
	member := `,"usage":` + usage
	if c.settings.Fault == "no_usage" {
		member = ""
	}
	if c.in.Stream && !isWhisper(c.model) {
		c.transcriptStream(grouped(pieces, c.settings.Chunks), member, n)
		return
	}
	c.charge("completed", n)
	switch lowered(c.in.ResponseFormat, "json") {
	case "text":
		c.sendAs("text/plain; charset=utf-8", said+"\n")
	case "srt":
		c.sendAs("text/plain; charset=utf-8", "1\n00:00:00,000 --> "+clock(ms, ",")+"\n"+said+"\n\n")
	case "vtt":
		c.sendAs("text/plain; charset=utf-8", "WEBVTT\n\n00:00:00.000 --> "+clock(ms, ".")+"\n"+said+"\n\n")
	case "verbose_json":
		c.send(fmt.Sprintf(`{"task":"transcribe","language":"english","duration":%d.%03d,"text":%s,"segments":[]%s}`, ms/1000, ms%1000, quote(said), member))
	default:
		c.send(`{"text":` + quote(said) + member + `}`)
	}
}

// heard is how many milliseconds of whisper are billed: what the answer says,
// whole seconds in its usage, else the length of the file.
func (c *call) heard(ms int64) int64 {
	format := lowered(c.in.ResponseFormat, "json")
	if c.settings.Fault == "no_usage" || format != "json" && format != "verbose_json" {
		return ms
	}
	return (ms + 999) / 1000 * 1000
}

// clock is a time as subtitles have it.
func clock(ms int64, point string) string {
	return fmt.Sprintf("%02d:%02d:%02d%s%03d", ms/3_600_000, ms/60_000%60, ms/1000%60, point, ms%1000)
}

func (c *call) transcriptStream(pieces []string, usage string, n int64) {
	s := c.stream()
	sent := int64(0)
	for _, piece := range pieces {
		if !s.delta([]byte(`data: {"type":"transcript.text.delta","delta":` + quote(piece) + "}\n\n")) {
			break
		}
		sent++
	}
	if s.gone {
		c.chargeGone(sent)
	} else {
		c.charge("completed", n)
		s.send([]byte(`data: {"type":"transcript.text.done","text":` + quote(strings.Join(pieces, "")) + usage + "}\n\n"))
	}
	s.end()
}

// chargeGone bills a stream that did not come to its end.
func (c *call) chargeGone(sent int64) {
	if c.settings.Fault == "cut" {
		c.charge("cut", sent)
		return
	}
	c.charge("gone", sent)
}

// speech speaks a text: the longer, the longer. The models that are billed by
// tokens tell of them at the end of a stream of events only, the others never.
func (c *call) speech() {
	input := text(c.in.Input)
	characters := int64(utf8.RuneCountInString(input))
	if characters == 0 || characters > speechInputMax {
		badRequest(c.w, "The input has 1 to 4096 characters.", "input", "invalid_value")
		return
	}
	tokens := max(speechTokensMin, characters)
	sound, kind := spoken(lowered(c.in.ResponseFormat, "mp3"), tokens)
	if kind == "" {
		badRequest(c.w, "This simulator speaks mp3, wav and pcm.", "response_format", "invalid_value")
		return
	}
	if !strings.HasPrefix(c.model, "gpt-") {
		c.use(itemCharacter, characters)
		c.charge("completed", 0)
		c.sendAs(kind, string(sound))
		return
	}
	c.prompt, c.audioOut = c.server.options.Counter.Text(c.model, input)+c.server.options.Counter.Text(c.model, text(c.in.Instructions)), tokens
	if c.in.StreamFormat != "sse" {
		c.charge("completed", tokens)
		c.sendAs(kind, string(sound))
		return
	}
	usage := ""
	if c.settings.Fault != "no_usage" {
		usage = fmt.Sprintf(`,"usage":{"input_tokens":%d,"output_tokens":%d,"total_tokens":%d}`, c.prompt, tokens, c.prompt+tokens)
	}
	s := c.stream()
	sent := int64(0)
	for rest := sound; len(rest) > 0; {
		part := rest[:min(speechChunk, len(rest))]
		event, _ := json.Marshal(map[string]string{"type": "speech.audio.delta", "audio": base64.StdEncoding.EncodeToString(part)}) // plain text
		if !s.delta(append(append([]byte("data: "), event...), "\n\n"...)) {
			break
		}
		rest = rest[len(part):]
		sent = tokens - tokens*int64(len(rest))/int64(len(sound))
	}
	if s.gone {
		c.audioOut = sent
		c.chargeGone(sent)
	} else {
		c.charge("completed", tokens)
		s.send([]byte(`data: {"type":"speech.audio.done"` + usage + "}\n\n"))
	}
	s.end()
}

// spoken is silence of so many tokens, and its content type; none if the format
// is not known here.
func spoken(format string, tokens int64) (sound []byte, kind string) {
	samples := tokens * speechTokenMS * speechRate / 1000
	switch format {
	case "mp3": // frames of 24 ms, 32 kbit/s, MPEG-2 layer III
		frame := append([]byte{0xff, 0xf3, 0x44, 0xc4}, make([]byte, 92)...)
		return bytes.Repeat(frame, int(2*tokens)), "audio/mpeg"
	case "pcm":
		return make([]byte, 2*samples), "audio/pcm"
	case "wav":
		size := uint32(2 * samples)
		head := append([]byte("RIFF"), binary.LittleEndian.AppendUint32(nil, size+36)...)
		head = append(head, "WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"...)
		head = binary.LittleEndian.AppendUint32(head, speechRate)
		head = binary.LittleEndian.AppendUint32(head, 2*speechRate)
		head = append(head, "\x02\x00\x10\x00data"...)
		return append(binary.LittleEndian.AppendUint32(head, size), make([]byte, size)...), "audio/wav"
	}
	return nil, ""
}
