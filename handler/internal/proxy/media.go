package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/costgate/costgate/handler/internal/jsonscan"
	"github.com/costgate/costgate/handler/internal/media"
	"github.com/costgate/costgate/handler/internal/tokens"
	"github.com/costgate/costgate/handler/internal/usage"
)

const (
	formPartsMax      = 64
	formFieldBytesMax = 1 << 20 // of a part that is no file
	partialImagesMax  = 16
	// mediaOverhead are tokens that stand for no text of a prompt.
	mediaOverhead = 64
	// soundTokens is the most tokens that a second of sound is, heard or spoken.
	// Models hear a token in 100 ms; spoken, gpt-4o-mini-tts has 21 in a second.
	soundTokens = 25
	// speechTokens is the most output tokens that a character of text takes to
	// speak: a third of a second, slowly.
	speechTokens = 8
	// transcriptTokens is the longest answer of a transcription model whose
	// limit the price book does not know.
	transcriptTokens = 2_000
)

// mediaFields are the members of a JSON body for images or speech that decide
// money.
var mediaFields = []string{
	"model", "stream", "n", "user", "prompt", "quality", "size", "partial_images", "response_format", "input", "instructions",
	"image", "images", "mask",
}

// mediaAsked is what a request for images or sound says about its cost.
type mediaAsked struct {
	images, partial       int64 // to be made; previews of each
	quality, size, format string
	text                  []string // prompts, instructions, and what is to be spoken
	spoken                string   // of it, what is to be spoken
	files                 int64    // images to be read
	sound                 []byte   // the file to be transcribed
}

// field takes in one member of a JSON body or one part of a form.
func (m *mediaAsked) field(field string, v jsonscan.Value) *failure {
	s := ""
	switch {
	case field == "partial_images" && string(v.Raw) == "0":
		return nil
	case field == "partial_images":
		return number(field, v, partialImagesMax, &m.partial)
	case field == "image" || field == "images" || field == "mask":
		if jsonscan.Array(v.Raw, func(jsonscan.Value) error { m.files++; return nil }) != nil {
			m.files++ // one, not a list
		}
		return nil
	}
	if f := text(field, v, &s); f != nil {
		return f
	}
	m.set(field, s)
	return nil
}

func (m *mediaAsked) set(field, s string) {
	switch field {
	case "quality":
		m.quality = clip(s, nameBytesMax)
	case "size":
		m.size = clip(s, nameBytesMax)
	case "response_format":
		m.format = clip(s, nameBytesMax)
	case "input":
		m.spoken = s
		m.text = append(m.text, s)
	case "prompt", "instructions":
		m.text = append(m.text, s)
	}
}

// formBoundary is the boundary of a multipart form.
func formBoundary(contentType string) (boundary string, ok bool) {
	kind, parameters, err := mime.ParseMediaType(contentType)
	return parameters["boundary"], err == nil && kind == "multipart/form-data"
}

// formFields are the parts of a form that decide money: each may be there once,
// for two parsers may choose differently.
var formFields = append(slices.DeleteFunc(slices.Clone(mediaFields), func(name string) bool {
	return strings.HasPrefix(name, "image") // several images are several parts
}), "file")

// form reads a multipart body: images to edit, or sound to transcribe. It is
// forwarded as it is.
func (a *asked) form(o *operation, boundary string) *failure {
	a.empty = true // there is no JSON to add members to
	a.media.images = 1
	reader := multipart.NewReader(bytes.NewReader(a.body), boundary)
	seen := map[string]bool{}
	for n := 0; ; n++ {
		part, err := reader.NextRawPart()
		if errors.Is(err, io.EOF) {
			return a.complete(o)
		}
		if err == nil && n >= formPartsMax {
			return badRequest("invalid_value", "", fmt.Sprintf("The form has more than %d parts.", formPartsMax))
		}
		var f *failure
		if err == nil {
			f, err = a.part(o, part, seen)
		}
		if f != nil {
			return f
		}
		if err != nil {
			return badRequest("invalid_body", "", "The form cannot be read: "+err.Error())
		}
	}
}

// complete tells what a form lacks.
func (a *asked) complete(o *operation) *failure {
	if o.name == opTranscription && len(a.media.sound) == 0 {
		return badRequest("missing_file", "file", "Send the sound in a form (multipart/form-data), in a part named \"file\".")
	}
	return nil
}

// partName is the name of a part. Another parser must not find another one in it.
func partName(part *multipart.Part) (string, *failure) {
	unclear := badRequest("invalid_body", "", "A part of the form has no clear name. Send each with one header Content-Disposition: form-data; name=\"...\".")
	disposition := part.Header["Content-Disposition"]
	if len(disposition) != 1 {
		return "", unclear
	}
	kind, parameters, err := mime.ParseMediaType(disposition[0])
	if err != nil || kind != "form-data" || parameters["name"] == "" {
		return "", unclear
	}
	encoded := strings.Contains(strings.ReplaceAll(strings.ToLower(disposition[0]), "filename*", ""), "name*")
	for parameter := range parameters {
		if encoded || parameter != "name" && parameter != "filename" {
			return "", unclear
		}
	}
	return parameters["name"], nil
}

func (a *asked) part(o *operation, part *multipart.Part, seen map[string]bool) (*failure, error) {
	name, f := partName(part)
	if f != nil {
		return f, nil
	}
	if e := part.Header.Get("Content-Transfer-Encoding"); e != "" && !slices.Contains([]string{"binary", "8bit", "7bit"}, strings.ToLower(e)) {
		return badRequest("invalid_value", name, "The part "+strconv.Quote(clip(name, 64))+" has a Content-Transfer-Encoding. Send it as it is."), nil
	}
	lower := strings.ToLower(name)
	if slices.Contains(formFields, lower) {
		if lower != name {
			return badRequest("unknown_field", name, fmt.Sprintf("Field names have one spelling: send %q, not %q.", lower, name)), nil
		}
		if seen[name] {
			return badRequest("duplicate_field", name, fmt.Sprintf("The field %q is there twice. Send it once.", name)), nil
		}
		seen[name] = true
	}
	switch {
	case o.name == opTranscription && name == "file":
		content, err := io.ReadAll(part)
		a.media.sound = content
		return nil, err
	case part.FileName() != "" || strings.HasPrefix(name, "image") || name == "mask":
		a.media.files++
		return nil, nil
	case !slices.Contains(formFields, name): // it decides nothing
		return nil, nil
	}
	content, err := io.ReadAll(io.LimitReader(part, formFieldBytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(content) > formFieldBytesMax {
		return badRequest("invalid_value", name, fmt.Sprintf("The field %q is longer than %d bytes.", clip(name, 64), formFieldBytesMax)), nil
	}
	value := string(content)
	switch name {
	case "model":
		a.model = value
	case "stream":
		a.stream = value == "true"
	case "user":
		a.user = clip(value, userBytesMax)
	case "n":
		return number(name, jsonscan.Value{Raw: content}, ChoicesMax, &a.media.images), nil
	case "partial_images":
		return a.media.field(name, jsonscan.Value{Raw: content}), nil
	default:
		a.media.set(name, value)
	}
	return nil, nil
}

// mediaDemand is the most that a request for images or sound can use: tokens of
// the prompt and of the answer, or what is sold by the piece.
func (x *exchange) mediaDemand(counted bool) (prompt, output int64, items []usage.Item) {
	m, tokened := &x.asked.media, x.entry.SellsTokens()
	prompt = mediaOverhead
	for _, s := range m.text {
		if counted && len(s) <= CountBytesMax {
			prompt += tokens.Text(x.target.Model, s)
		} else {
			prompt += int64(len(s))
		}
	}
	switch {
	case x.operation.name == opImages && tokened:
		prompt += m.files * tokens.ImageInput(x.target.Model)
		prompt *= m.images // several images are billed like several requests
		return prompt, m.images * tokens.ImageOutput(x.target.Model, m.quality, m.size, m.partial), nil
	case x.operation.name == opImages:
		return 0, 0, []usage.Item{{Meter: usage.ItemImage, Quantity: m.images}}
	case x.operation.name == opTranscription && tokened:
		output = x.entry.MaxOut
		if output <= 0 {
			output = transcriptTokens
		}
		return prompt + soundIn(media.Bound(m.sound)), output, nil
	case x.operation.name == opTranscription:
		return 0, 0, []usage.Item{{Meter: usage.ItemAudioIn, Quantity: wholeSeconds(media.Bound(m.sound))}}
	case tokened:
		output = speechTokens*int64(utf8.RuneCountInString(m.spoken)) + mediaOverhead
		if most := x.entry.MaxOut; most > 0 {
			output = min(output, most)
		}
		return prompt, output, nil
	}
	return 0, 0, []usage.Item{{Meter: usage.ItemCharacter, Quantity: int64(utf8.RuneCountInString(m.spoken))}}
}

// wholeSeconds is a length as it may be billed: rounded up, by whatever rule.
func wholeSeconds(ms int64) int64 { return (ms/1000 + 2) * 1000 }

func soundIn(ms int64) int64 { return ms/1000*soundTokens + soundTokens }

// heard is what an answer about images or sound used that does not say so
// itself. Source is how well that is known; empty: not at all.
func (x *exchange) heard(answered []byte) (u usage.Usage, items []usage.Item, source usage.Source) {
	m, tokened := &x.asked.media, x.entry.SellsTokens()
	switch {
	case x.operation.name == opImages && x.entry.Sells(usage.ItemImage) && x.answer.Images > 0:
		source = usage.SourceTokenizer
		if tokened { // made of tokens that nobody has told
			source = usage.SourceEstimate
		}
		return u, []usage.Item{{Meter: usage.ItemImage, Quantity: x.answer.Images}}, source
	case x.operation.name == opTranscription && !tokened:
		if ms, ok := media.Duration(m.sound); ok {
			return u, []usage.Item{{Meter: usage.ItemAudioIn, Quantity: ms}}, usage.SourceTokenizer
		}
	case x.operation.name == opTranscription:
		if ms, ok := media.Duration(m.sound); ok {
			heard := (ms + 99) / 100 // a token in 100 ms
			prompt := heard
			for _, s := range m.text {
				prompt += tokens.Text(x.target.Model, s)
			}
			u.Prompt, u.AudioIn, u.Completion = usage.Of(prompt), usage.Of(heard), usage.Of(x.transcript(answered))
			return u, nil, usage.SourceEstimate
		}
	case x.operation.name == opSpeech && !tokened:
		_, _, items = x.mediaDemand(true)
		return u, items, usage.SourceTokenizer
	case x.operation.name == opSpeech:
		ms, ok := media.Duration(answered)
		if m.format == "pcm" {
			ms, ok = (int64(len(answered))+pcmBytesPerMS-1)/pcmBytesPerMS, len(answered) > 0
		}
		if ok {
			prompt := int64(0)
			for _, s := range m.text {
				prompt += tokens.Text(x.target.Model, s)
			}
			spoken := (ms*spokenTokens + 9_999) / 10_000
			u.Prompt, u.Completion, u.AudioOut = usage.Of(prompt), usage.Of(spoken), usage.Of(spoken)
			return u, nil, usage.SourceEstimate
		}
	}
	return u, nil, ""
}

// ofSound says which tokens of a reported usage are sound where the report does
// not: all that is spoken, and all that is heard but for a prompt that nobody
// tells apart.
func (x *exchange) ofSound(u usage.Usage) usage.Usage {
	switch {
	case x.operation.name == opSpeech && !u.AudioOut.Known:
		u.AudioOut = u.Completion
	case x.operation.name == opTranscription && !u.AudioIn.Known:
		u.AudioIn = u.Prompt
	}
	return u
}

// pcmBytesPerMS: spoken PCM has 24,000 samples of 16 bits in a second and no
// header to tell.
const pcmBytesPerMS = 48

// spokenTokens is how many output tokens ten seconds of speech are: the price
// per second of gpt-4o-mini-tts divided by its price per token.
const spokenTokens = 208

// transcript counts the text of a transcription's answer, in JSON or plain.
func (x *exchange) transcript(answered []byte) int64 {
	said := string(answered)
	_ = jsonscan.Object(answered, func(key []byte, v jsonscan.Value) error { // plain text is no object
		if string(key) == "text" {
			if s, ok := jsonscan.String(v.Raw); ok {
				said = s
			}
		}
		return nil
	})
	return tokens.Text(x.target.Model, said)
}
