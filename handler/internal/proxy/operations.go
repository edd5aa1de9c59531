package proxy

import (
	"net/http"
	"strings"

	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/tokens"
)

// operation is a row of the one table that decides what a request is: metered,
// free, about a stored object, or refused because nobody knows what it costs.
type operation struct {
	kind    kind
	name    string       // of a metered operation, in records
	tokens  tokens.Op    // how its prompt is counted; of media their own way
	mode    pricing.Mode // which prices it has
	path    string       // below openai/, parameters in braces, * is the rest
	methods string       // space-separated
}

// The operations that are not about text alone.
const (
	opImages        = "images"
	opTranscription = "transcription"
	opSpeech        = "speech"
)

// media tells whether an operation makes or reads images or sound.
func (o *operation) media() bool {
	return o.name == opImages || o.name == opTranscription || o.name == opSpeech
}

type kind int

const (
	kindMetered kind = iota + 1
	kindFree         // answers without using a model
	kindStored       // about a stored response, of the product that made it
	kindFetched      // the same, and answers with the response itself
)

// operations is the table. Paths are matched segment by segment without regard
// to letter case; the first match wins; what does not match is refused.
var operations = []operation{
	{kindMetered, "chat", tokens.OpChat, pricing.ModeChat, "deployments/{deployment}/chat/completions", http.MethodPost},
	{kindMetered, "completions", tokens.OpCompletions, pricing.ModeCompletion, "deployments/{deployment}/completions", http.MethodPost},
	{kindMetered, "embeddings", tokens.OpEmbeddings, pricing.ModeEmbedding, "deployments/{deployment}/embeddings", http.MethodPost},
	{kindMetered, "chat", tokens.OpChat, pricing.ModeChat, "v1/chat/completions", http.MethodPost},
	{kindMetered, "completions", tokens.OpCompletions, pricing.ModeCompletion, "v1/completions", http.MethodPost},
	{kindMetered, "embeddings", tokens.OpEmbeddings, pricing.ModeEmbedding, "v1/embeddings", http.MethodPost},
	{kindMetered, "responses", tokens.OpResponses, pricing.ModeResponses, "v1/responses", http.MethodPost},
	{kindMetered, "responses", tokens.OpResponses, pricing.ModeResponses, "responses", http.MethodPost},
	{kindMetered, opImages, "", pricing.ModeImage, "deployments/{deployment}/images/generations", http.MethodPost},
	{kindMetered, opImages, "", pricing.ModeImage, "deployments/{deployment}/images/edits", http.MethodPost},
	{kindMetered, opImages, "", pricing.ModeImage, "v1/images/generations", http.MethodPost},
	{kindMetered, opImages, "", pricing.ModeImage, "v1/images/edits", http.MethodPost},
	{kindMetered, opTranscription, "", pricing.ModeTranscription, "deployments/{deployment}/audio/transcriptions", http.MethodPost},
	{kindMetered, opTranscription, "", pricing.ModeTranscription, "deployments/{deployment}/audio/translations", http.MethodPost},
	{kindMetered, opTranscription, "", pricing.ModeTranscription, "v1/audio/transcriptions", http.MethodPost},
	{kindMetered, opTranscription, "", pricing.ModeTranscription, "v1/audio/translations", http.MethodPost},
	{kindMetered, opSpeech, "", pricing.ModeSpeech, "deployments/{deployment}/audio/speech", http.MethodPost},
	{kindMetered, opSpeech, "", pricing.ModeSpeech, "v1/audio/speech", http.MethodPost},
	{kind: kindFetched, path: "v1/responses/{response}", methods: "GET"},
	{kind: kindStored, path: "v1/responses/{response}", methods: "DELETE"},
	{kind: kindStored, path: "v1/responses/{response}/input_items", methods: "GET"},
	{kind: kindFetched, path: "v1/responses/{response}/cancel", methods: "POST"},
	{kind: kindFetched, path: "responses/{response}", methods: "GET"},
	{kind: kindStored, path: "responses/{response}", methods: "DELETE"},
	{kind: kindStored, path: "responses/{response}/input_items", methods: "GET"},
	{kind: kindFetched, path: "responses/{response}/cancel", methods: "POST"},
	{kind: kindFree, path: "v1/models", methods: "GET HEAD"},
	{kind: kindFree, path: "v1/models/{model}", methods: "GET HEAD"},
	{kind: kindFree, path: "models", methods: "GET HEAD"},
	{kind: kindFree, path: "models/{model}", methods: "GET HEAD"},
	{kind: kindFree, path: "deployments", methods: "GET HEAD"},
	{kind: kindFree, path: "deployments/{deployment}", methods: "GET HEAD"},
}

// Unmetered makes free operations of paths that an operator opens: each is a
// path below openai/, for example "v1/files" or "v1/files/*".
func unmetered(paths []string) []operation {
	opened := make([]operation, 0, len(paths))
	for _, path := range paths {
		opened = append(opened, operation{kind: kindFree, path: strings.Trim(path, "/"), methods: "GET HEAD POST PUT PATCH DELETE"})
	}
	return opened
}

// match finds the operation of a method and an escaped path below openai/, and
// the value of its parameter.
func match(table []operation, method, path string) (*operation, string) {
	path = strings.Trim(path, "/")
	for i := range table {
		o := &table[i]
		if parameter, ok := matchPath(o.path, path); ok && hasMethod(o.methods, method) {
			return o, parameter
		}
	}
	return nil, ""
}

func hasMethod(methods, method string) bool {
	for candidate := range strings.FieldsSeq(methods) {
		if candidate == method {
			return true
		}
	}
	return false
}

func matchPath(pattern, path string) (parameter string, ok bool) {
	for pattern != "" {
		var want, got string
		want, pattern, _ = strings.Cut(pattern, "/")
		if want == "*" { // whoever reads an encoded slash as a slash stays below the pattern
			return parameter, plainSegments(strings.NewReplacer("%2F", "/", "%2f", "/").Replace(path))
		}
		got, path, _ = strings.Cut(path, "/")
		switch {
		case strings.HasPrefix(want, "{"):
			if !plainSegment(got) {
				return "", false
			}
			parameter = got
		case !strings.EqualFold(want, got):
			return "", false
		}
	}
	return parameter, path == ""
}

// plainSegment refuses what could mean another path to the next parser: dot
// segments, and anything escaped or unusual. Deployment, model and response
// names have none of it.
func plainSegment(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > segmentBytesMax {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == ':', c == '~':
		default:
			return false
		}
	}
	return true
}

func plainSegments(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if !plainSegment(segment) {
			return false
		}
	}
	return true
}
