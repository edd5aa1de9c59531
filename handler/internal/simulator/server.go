// Package simulator stands in for Azure OpenAI in demos, tests and benchmarks:
// chat, legacy completions, embeddings, responses (in the background and with
// tools too), images, transcriptions and speech, streamed and not, in the shapes
// that the service has. What it answers follows from its seed, the
// request and its settings. It counts what it uses by itself and keeps its own
// bill, to compare a gateway's books with.
package simulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of what is kept and accepted.
const (
	BodyBytesMax       = 128 << 20
	BillLinesMax       = 200_000
	RequestsKeptMax    = 1000
	StoredResponsesMax = 10_000
	CountsKeptMax      = 4096
	CompletionMax      = 128_000 // tokens
	defaultCompletion  = 30
)

// Counter counts tokens as the service would.
type Counter interface {
	Text(model, text string) int64
	// Prompt counts a request body of an operation (chat, completions, embeddings, responses).
	Prompt(operation, model string, body []byte) int64
}

// Options configure a Server.
type Options struct {
	Seed     uint64
	Key      string // accepted in api-key or as a bearer token; empty: any
	Counter  Counter
	Prices   func(model string) (Price, bool) // for the bill
	Models   map[string]string                // deployment -> model as it is reported
	Settings Settings
}

// Server is the simulator. It is safe for concurrent use.
type Server struct {
	options Options
	bill    bill

	mu       sync.Mutex
	settings Settings
	requests []Request
	stored   map[string]*storedResponse
	order    []string // of stored
	counts   map[[32]byte]int64
	seen     map[[32]byte]bool // prompts, for cached tokens
	received uint64            // calls, for the ids of requests
}

// Request is one that the server received.
type Request struct {
	Method string      `json:"method"`
	Path   string      `json:"path"`
	Query  string      `json:"query"`
	Header http.Header `json:"header"`
}

// versions are the models as the service reports them.
var versions = map[string]string{
	"gpt-4o": "gpt-4o-2024-11-20", "gpt-4o-mini": "gpt-4o-mini-2024-07-18", "gpt-4.1": "gpt-4.1-2025-04-14",
	"gpt-4.1-mini": "gpt-4.1-mini-2025-04-14", "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14", "gpt-5": "gpt-5-2025-08-07",
	"gpt-5-mini": "gpt-5-mini-2025-08-07", "gpt-5-nano": "gpt-5-nano-2025-08-07", "o3": "o3-2025-04-16", "o4-mini": "o4-mini-2025-04-16",
	"o3-mini": "o3-mini-2025-01-31", "gpt-image-1": "gpt-image-1", "dall-e-3": "dall-e-3", "whisper": "whisper", "tts": "tts", "tts-hd": "tts-hd",
	"gpt-4o-transcribe": "gpt-4o-transcribe", "gpt-4o-mini-tts": "gpt-4o-mini-tts", "gpt-5.4": "gpt-5.4-2026-03-05", "gpt-5.4-mini": "gpt-5.4-mini-2026-03-17",
}

// New makes a Server.
func New(o Options) *Server {
	if o.Counter == nil {
		o.Counter = wordCounter{}
	}
	return &Server{
		options: o, settings: o.Settings, bill: bill{prices: o.Prices},
		stored: map[string]*storedResponse{}, counts: map[[32]byte]int64{}, seen: map[[32]byte]bool{},
	}
}

// wordCounter counts words, where no tokenizer was given.
type wordCounter struct{}

func (wordCounter) Text(_, text string) int64 { return int64(len(strings.Fields(text))) }
func (wordCounter) Prompt(_, _ string, body []byte) int64 {
	return int64(len(bytes.Fields(body)))
}

// call is one request for an answer.
type call struct {
	server     *Server
	w          http.ResponseWriter
	r          *http.Request
	operation  string
	deployment string
	model      string
	body       []byte
	in         input
	settings   Settings
	random     *rand.Rand
	created    int64
	id         string
	requestID  string // of the header apim-request-id
	file       []byte // the first upload of a form
	files      int64  // uploads

	// What is billed, in tokens: all of the prompt, and the parts of prompt and
	// answer that have prices of their own.
	prompt, cached, write, imageIn, audioIn int64
	imageOut, audioOut                      int64
	items                                   map[string]int64
	priceName                               string // if it is not the model
}

// input is what is read of a request body.
type input struct {
	Model               string          `json:"model"`
	Stream              bool            `json:"stream"`
	StreamOptions       json.RawMessage `json:"stream_options"`
	MaxTokens           *int64          `json:"max_tokens"`
	MaxCompletionTokens *int64          `json:"max_completion_tokens"`
	MaxOutputTokens     *int64          `json:"max_output_tokens"`
	N                   *int            `json:"n"`
	Tools               []tool          `json:"tools"`
	ToolChoice          json.RawMessage `json:"tool_choice"`
	DataSources         json.RawMessage `json:"data_sources"`
	ServiceTier         string          `json:"service_tier"`
	Input               json.RawMessage `json:"input"`
	Dimensions          int             `json:"dimensions"`
	EncodingFormat      string          `json:"encoding_format"`
	Previous            string          `json:"previous_response_id"`
	Store               *bool           `json:"store"`
	Background          json.RawMessage `json:"background"` // a bool, or of an image its background
	MaxToolCalls        *int64          `json:"max_tool_calls"`
	WebSearchOptions    json.RawMessage `json:"web_search_options"`
	Prompt              json.RawMessage `json:"prompt"`
	Quality             string          `json:"quality"`
	Size                string          `json:"size"`
	PartialImages       int64           `json:"partial_images"`
	OutputFormat        string          `json:"output_format"`
	ResponseFormat      json.RawMessage `json:"response_format"`
	InputFidelity       string          `json:"input_fidelity"`
	Instructions        json.RawMessage `json:"instructions"`
	StreamFormat        string          `json:"stream_format"`
}

type tool struct {
	Type     string `json:"type"`
	Name     string `json:"name"`
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

// ServeHTTP serves the API and, below /_simulator/, the simulator's own.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.ToLower(strings.Trim(r.URL.Path, "/"))
	if control, ok := strings.CutPrefix(path, "_simulator/"); ok {
		s.control(w, r, control)
		return
	}
	s.remember(r)
	if !s.admitted(r) {
		fail(w, http.StatusUnauthorized, `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource."}}`)
		return
	}
	rest, ok := strings.CutPrefix(path, "openai/")
	if !ok {
		notFound(w)
		return
	}
	parts := strings.Split(rest, "/")
	dated := parts[0] != "v1"
	if dated && r.URL.Query().Get("api-version") == "" {
		notFound(w)
		return
	}
	if !dated {
		parts = parts[1:]
	}
	s.route(w, r, parts, dated)
}

func (s *Server) route(w http.ResponseWriter, r *http.Request, parts []string, dated bool) {
	name := ""
	if dated && len(parts) > 2 && parts[0] == "deployments" {
		name, parts = strings.Split(strings.Trim(r.URL.Path, "/"), "/")[2], parts[2:]
	}
	what := strings.Join(parts, "/")
	switch operation := operations[what]; {
	case r.Method == http.MethodGet && (what == "models" || what == "deployments"):
		s.list(w)
	case r.Method == http.MethodPost && operation != "":
		s.serve(w, r, operation, name)
	case (len(parts) == 2 || len(parts) == 3) && parts[0] == "responses":
		s.storedRoute(w, r, strings.Split(strings.Trim(r.URL.Path, "/"), "/"))
	default:
		notFound(w)
	}
}

// operations are the paths that answer with a model's work.
var operations = map[string]string{
	"chat/completions": "chat", "completions": "completions", "embeddings": "embeddings", "responses": "responses",
	"images/generations": "images", "images/edits": "images",
	"audio/transcriptions": "transcription", "audio/translations": "transcription", "audio/speech": "speech",
}

func (s *Server) admitted(r *http.Request) bool {
	if s.options.Key == "" {
		return true
	}
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return r.Header.Get("Api-Key") == s.options.Key || bearer == s.options.Key
}

func (s *Server) remember(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) >= RequestsKeptMax {
		s.requests = slices.Delete(s.requests, 0, RequestsKeptMax/2)
	}
	s.requests = append(s.requests, Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone()})
}

func (s *Server) list(w http.ResponseWriter) {
	var data []map[string]any
	for name := range versions {
		data = append(data, map[string]any{"id": name, "object": "model", "status": "succeeded"})
	}
	slices.SortFunc(data, func(a, b map[string]any) int { return strings.Compare(a["id"].(string), b["id"].(string)) }) //nolint:forcetypeassert // made above
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": data})
}

// serve answers one of the operations.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, operation, deployment string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, BodyBytesMax))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, `{"error":{"code":"413","message":"Request body too large."}}`)
		return
	}
	c := &call{server: s, w: w, r: r, operation: operation, deployment: deployment, body: body}
	if err := c.read(); err != nil {
		badRequest(w, "Could not parse the body of the request: "+err.Error(), "", "invalid_json")
		return
	}
	if c.deployment == "" {
		c.deployment = c.in.Model
	}
	if c.deployment == "" || strings.HasPrefix(c.deployment, "no-") {
		w.Header()["Content-Type"] = nil // the service sends none here
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error":{"type":"invalid_request_error","code":"DeploymentNotFound","message":"The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again.","param":null}}`)
		return
	}
	if c.settings, err = s.settingsFor(r.Header); err != nil {
		badRequest(w, err.Error(), "", "invalid_simulator_setting")
		return
	}
	c.model = s.modelOf(c.deployment)
	if c.settings.ServedModel != "" {
		c.model = c.settings.ServedModel
	}
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, s.options.Seed), body...))
	c.random = rand.New(rand.NewPCG(binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])))
	c.id, c.created = newID(c.random), 1_780_000_000+int64(s.options.Seed%1_000_000)
	c.requestID = s.requestID()
	if c.refused() {
		return
	}
	c.count()
	if !wait(r.Context().Done(), time.Duration(c.settings.LatencyMS)*time.Millisecond) {
		return
	}
	switch operation {
	case "embeddings":
		c.embeddings()
	case "responses":
		c.responses()
	case "images":
		c.images()
	case "transcription":
		c.transcription()
	case "speech":
		c.speech()
	default:
		c.chat()
	}
}

// requestID is an id that no other answer has.
func (s *Server) requestID() string {
	s.mu.Lock()
	s.received++
	n := s.received
	s.mu.Unlock()
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, s.options.Seed), n))
	return hex.EncodeToString(sum[:16])
}

// count counts the prompt of an operation on text. The others count their own.
func (c *call) count() {
	switch c.operation {
	case "images", "transcription", "speech":
	default:
		c.prompt = c.server.countPrompt(c)
	}
}

func (s *Server) modelOf(deployment string) string {
	if model, ok := s.options.Models[strings.ToLower(deployment)]; ok {
		return model
	}
	if model, ok := versions[strings.ToLower(deployment)]; ok {
		return model
	}
	return deployment
}

// countPrompt counts a prompt; bodies that come again are not counted again, so
// that a benchmark does not measure the tokenizer.
func (s *Server) countPrompt(c *call) int64 {
	key := sha256.Sum256(append([]byte(c.operation+c.model+"\x00"), c.body...))
	s.mu.Lock()
	n, ok := s.counts[key]
	again := s.seen[key]
	s.mu.Unlock()
	if !ok {
		n = s.options.Counter.Prompt(c.operation, c.model, c.body)
	}
	s.mu.Lock()
	if len(s.counts) >= CountsKeptMax {
		clear(s.counts)
		clear(s.seen)
	}
	s.counts[key], s.seen[key] = n, true
	s.mu.Unlock()
	switch {
	case n < cachedFrom || c.operation == "embeddings":
	case again:
		c.cached = n / 128 * 128
	case writesCache(c.model):
		c.write = n - 3 // as it was seen: 1217 of 1220
	}
	return n
}

// cachedFrom is the shortest prompt that the service caches, in tokens.
const cachedFrom = 1024

// writesCache tells the models that bill what they write to the cache.
func writesCache(model string) bool { return strings.HasPrefix(model, "gpt-5.6") }

func newID(random *rand.Rand) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	var id [29]byte
	for i := range id {
		id[i] = letters[random.IntN(len(letters))]
	}
	return string(id[:])
}

// head sets the headers that the service sends with every answer.
func (c *call) head() http.Header {
	h := c.w.Header()
	for name, value := range map[string]string{
		"Apim-Request-Id": c.requestID, "X-Request-Id": c.requestID[:16] + "-x", "X-Ms-Region": "East US 2", "X-Ms-Deployment-Name": c.deployment,
		"X-Ms-Is-Spilled-Over": strconv.FormatBool(c.settings.Spilled), "X-Ms-Rai-Invoked": "true", "Azureml-Model-Session": "d20260330170902-" + c.requestID[:12],
		"X-Ratelimit-Limit-Requests": "10000", "X-Ratelimit-Limit-Tokens": "10000000", "X-Ratelimit-Remaining-Requests": "9999",
		"X-Ratelimit-Remaining-Tokens": "9999990", "X-Ratelimit-Renewalperiod-Requests": "60", "X-Ms-Served-Model": c.model,
	} {
		h[name] = []string{value}
	}
	return h
}
