package pricing

import (
	"fmt"
	"slices"
	"strings"
)

// Mode is what a model does, and so which meters it has.
type Mode string

// The modes. Chat, responses and completion are one family: the price of one serves the others.
const (
	ModeChat          Mode = "chat"
	ModeResponses     Mode = "responses"
	ModeCompletion    Mode = "completion"
	ModeEmbedding     Mode = "embedding"
	ModeImage         Mode = "image_generation"
	ModeTranscription Mode = "audio_transcription"
	ModeSpeech        Mode = "audio_speech"
	ModeRealtime      Mode = "realtime"
	ModeVideo         Mode = "video_generation"
	// ModeTool is the mode of what a model calls: web search, file search, code
	// interpreter. Entries of chat models take its prices over.
	ModeTool Mode = "tool"
)

var modes = []Mode{
	ModeChat, ModeResponses, ModeCompletion, ModeEmbedding, ModeImage, ModeTranscription, ModeSpeech, ModeRealtime, ModeVideo,
	ModeTool,
}

// Modes are the modes of models, in the order in which a price is looked for
// when no mode is named.
func Modes() []Mode {
	return []Mode{ModeChat, ModeEmbedding, ModeImage, ModeTranscription, ModeSpeech, ModeRealtime, ModeVideo}
}

// ParseMode reads the name of a mode. The error names the known ones.
func ParseMode(name string) (Mode, error) {
	if !slices.Contains(modes, Mode(name)) {
		return "", fmt.Errorf("unknown mode %q; the modes are %v", name, modes)
	}
	return Mode(name), nil
}

// family is the mode that stands for all modes sold by the same price.
func (m Mode) family() Mode {
	switch m {
	case "", ModeResponses, ModeCompletion:
		return ModeChat
	}
	return m
}

// NormalizeModel brings a model's name into the form that the book uses, and
// splits off the version that is part of it: "azure/gpt-35-turbo-0613" is
// gpt-3.5-turbo and 0613, "gpt-4o-2024-11-20" is gpt-4o and 2024-11-20,
// "text-embedding-ada-002-v2" is text-embedding-ada-002 and no version. A
// fine-tuned model, "ft:gpt-4o-2024-08-06:org::id" or "gpt-4o-2024-08-06.ft-id",
// is its base model. A name is never shortened in any other way.
func NormalizeModel(name string) (model, version string) {
	s := strings.ToLower(strings.TrimSpace(name))
	s = strings.TrimPrefix(s, "azure/")
	if base, ok := baseModel(s); ok {
		s = base
	}
	if head, tail, ok := strings.Cut(s, ":"); ok && trimV(tail) != tail {
		s = head
	}
	s = trimV(s)
	if rest, ok := strings.CutPrefix(s, "gpt-35"); ok && (rest == "" || rest[0] == '-') {
		s = "gpt-3.5" + rest
	}
	return splitVersion(s)
}

// FineTuned tells whether a model's name is that of a fine-tuned one.
func FineTuned(name string) bool {
	_, ok := baseModel(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(name)), "azure/"))
	return ok
}

// baseModel is the model that a fine-tuned one was made from.
func baseModel(s string) (string, bool) {
	if rest, ok := strings.CutPrefix(s, "ft:"); ok {
		base, _, named := strings.Cut(rest, ":")
		return base, named && base != ""
	}
	base, id, ok := strings.Cut(s, ".ft-")
	return base, ok && base != "" && id != ""
}

// trimV removes a suffix -v and digits.
func trimV(s string) string {
	i := strings.LastIndex(s, "-v")
	if i <= 0 || i+2 == len(s) || strings.Trim(s[i+2:], "0123456789") != "" {
		return s
	}
	return s[:i]
}

// splitVersion splits "-2024-11-20", "-0613", "-1106-preview" or "-08062026" off a name.
func splitVersion(s string) (model, version string) {
	for _, shape := range []string{"-dddd-dd-dd", "-dddd", "-dddd-preview", "-dddd20dd"} {
		i := len(s) - len(shape)
		if i > 0 && hasShape(s[i:], shape) && (len(shape) == len("-2024-11-20") || isMonthDay(s[i+1:])) {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// hasShape compares two texts of one length, where d in the shape is any digit.
func hasShape(s, shape string) bool {
	for i := range len(shape) {
		if digit := s[i] >= '0' && s[i] <= '9'; shape[i] == 'd' && !digit || shape[i] != 'd' && s[i] != shape[i] {
			return false
		}
	}
	return true
}

// isMonthDay tells whether a text begins with a date like 0613 or 1106.
func isMonthDay(s string) bool {
	month, day := s[:2], s[2:4]
	return month >= "01" && month <= "12" && day >= "01" && day <= "31"
}

// canonical resolves names that mean another model: Azure reports ada for
// text-embedding-ada-002, and lists gpt-4-turbo as gpt-4 of version
// turbo-2024-04-09 and its vision preview as gpt-4 of version vision-preview.
func canonical(model, version string, mode Mode) (string, string) {
	switch {
	case model == "ada" && mode == ModeEmbedding:
		model = "text-embedding-ada-002"
	case model == "whisper" && mode == ModeTranscription: // as Azure names OpenAI's whisper-1
		model = "whisper-1"
	case (model == "tts" || model == "tts-hd") && mode == ModeSpeech:
		model = "tts-1" + strings.TrimPrefix(model, "tts")
	}
	if model == "gpt-4-vision-preview" || model == "gpt-4" && version == "vision-preview" {
		return "gpt-4-turbo-vision-preview", version
	}
	if rest, ok := strings.CutPrefix(version, "turbo-"); ok && model == "gpt-4" {
		return "gpt-4-turbo", rest
	}
	return model, version
}

// is56OrLater tells whether a model is of the families that are charged for
// writing the prompt cache: gpt-5.6 and later.
func is56OrLater(model string) bool {
	rest, ok := strings.CutPrefix(model, "gpt-")
	if !ok {
		return false
	}
	numbers, _, _ := strings.Cut(rest, "-")
	major, minor, _ := strings.Cut(numbers, ".")
	a, okA := small(major)
	b, okB := small(minor)
	return okA && (okB || minor == "") && (a > 5 || a == 5 && b >= 6)
}

// small reads a number of at most three digits.
func small(s string) (n int, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, s != "" && len(s) <= 3
}
