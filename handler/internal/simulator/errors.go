package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func fail(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	body, _ := json.Marshal(value) // made of plain values
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func notFound(w http.ResponseWriter) {
	fail(w, http.StatusNotFound, `{"error":{"code":"404","message":"Resource not found"}}`)
}

func badRequest(w http.ResponseWriter, message, param, code string) {
	var p any
	if param != "" {
		p = param
	}
	writeJSON(w, http.StatusBadRequest, map[string]any{"error": map[string]any{
		"message": message, "type": "invalid_request_error", "param": p, "code": code,
	}})
}

// optionsSince is the first API version that knows stream_options.
const optionsSince = "2024-08-01"

// refused answers requests that the service refuses, and faults that were
// asked for. Of it only prompts that it filters, and those that are too long,
// are billed: it has read them.
func (c *call) refused() bool {
	hasOptions := len(c.in.StreamOptions) > 0 && !bytes.Equal(c.in.StreamOptions, []byte("null"))
	version := c.r.URL.Query().Get("api-version")
	old := len(version) >= len(optionsSince) && version[:len(optionsSince)] < optionsSince
	switch {
	case hasOptions && c.operation == "responses":
		badRequest(c.w, "Unknown parameter: 'stream_options.include_usage'.", "stream_options.include_usage", "unknown_parameter")
	case hasOptions && (old || len(c.in.DataSources) > 0 || c.settings.Fault == "no_stream_options"):
		badRequest(c.w, "Validation error at #/stream_options: Extra inputs are not permitted", "stream_options", "invalid_request")
	case hasOptions && !c.in.Stream:
		badRequest(c.w, "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options", "invalid_request")
	default:
		return c.faulty()
	}
	return true
}

func (c *call) faulty() bool {
	c.w.Header().Set("Apim-Request-Id", c.requestID)
	switch c.settings.Fault {
	case "429":
		c.w.Header().Set("Retry-After", "7")
		c.w.Header().Set("Retry-After-Ms", "7000")
		fail(c.w, http.StatusTooManyRequests, `{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 7 seconds."}}`)
	case "500":
		fail(c.w, http.StatusInternalServerError, `{"error":{"code":"InternalServerError","message":"The server had an error while processing your request. Sorry about that!"}}`)
	case "408":
		fail(c.w, http.StatusRequestTimeout, `{"error":{"code":"Timeout","message":"The operation was timeout."}}`)
	case "context_length_exceeded":
		c.count()
		c.charge("refused", 0)
		badRequest(c.w, "This model's maximum context length is 128000 tokens. However, your messages resulted in more. Please reduce the length of the messages.", "messages", "context_length_exceeded")
	case "prompt_filtered":
		c.count()
		c.charge("refused", 0)
		fail(c.w, http.StatusBadRequest, `{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{"hate":{"filtered":true,"severity":"high"}}}}}`)
	case "cut_before":
		panic(http.ErrAbortHandler)
	default:
		return false
	}
	return true
}

// wait waits, unless the client leaves first.
func wait(gone <-chan struct{}, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-gone:
		return false
	}
}

// control serves the simulator's own routes.
func (s *Server) control(w http.ResponseWriter, r *http.Request, what string) {
	switch {
	case what == "bill" && r.Method == http.MethodGet:
		b := s.Bill()
		if r.URL.Query().Get("lines") == "0" {
			b.Lines = nil
		}
		writeJSON(w, http.StatusOK, b)
	case what == "bill" && r.Method == http.MethodDelete:
		s.bill.reset()
		w.WriteHeader(http.StatusNoContent)
	case what == "requests" && r.Method == http.MethodGet:
		s.mu.Lock()
		defer s.mu.Unlock()
		writeJSON(w, http.StatusOK, s.requests)
	case what == "settings" && r.Method == http.MethodGet:
		s.mu.Lock()
		defer s.mu.Unlock()
		writeJSON(w, http.StatusOK, s.settings)
	case what == "settings" && r.Method == http.MethodPost:
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
		decoder.DisallowUnknownFields()
		var settings Settings
		err := decoder.Decode(&settings)
		if err == nil {
			err = settings.check()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.settings = settings
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "GET or DELETE bill, GET requests, GET or POST settings", http.StatusNotFound)
	}
}

// Settings are the switches: of the server, or of one request by headers named
// x-simulator- and the member's name with dashes.
type Settings struct {
	LatencyMS        int64  `json:"latency_ms"`        // before the head of an answer
	Chunks           int64  `json:"chunks"`            // deltas of a stream; 0: one for each token
	ChunkDelayUS     int64  `json:"chunk_delay_us"`    // between two deltas
	CompletionTokens int64  `json:"completion_tokens"` // of an answer; 0: about 30
	Fault            string `json:"fault"`
	CutAfter         int64  `json:"cut_after"`        // deltas before the fault cut
	Split            uint64 `json:"split"`            // seed for writing a stream in random pieces; 0: one for each event
	Flush            string `json:"flush"`            // "end": flush a stream once
	BackgroundPolls  int64  `json:"background_polls"` // times that a background response is found in progress; 0: once, -1: never
	ToolCalls        int64  `json:"tool_calls"`       // of each tool that the service runs; 0: one, -1: none
	ServiceTier      string `json:"service_tier"`     // that answers; empty: the one that is asked for
	ServedModel      string `json:"served_model"`     // that answers instead of the deployment's
	Spilled          bool   `json:"spilled"`          // the answer says that it was spilled over
}

var faults = []string{"", "408", "429", "500", "cut", "cut_before", "blocked", "zero_usage", "no_usage", "filtered", "prompt_filtered", "context_length_exceeded", "no_stream_options", "hang"}

// callsMax bounds the calls of a tool, and the polls of a background response.
const callsMax = 100

func (s *Settings) check() error {
	known := false
	for _, f := range faults {
		known = known || f == s.Fault
	}
	switch {
	case !known:
		return fmt.Errorf("fault %q is not one of %s", s.Fault, strings.Join(faults[1:], ", "))
	case s.CompletionTokens < 0 || s.CompletionTokens > CompletionMax || s.Chunks < 0 || s.Chunks > CompletionMax:
		return fmt.Errorf("completion_tokens and chunks are 0 to %d", CompletionMax)
	case s.LatencyMS < 0 || s.LatencyMS > 600_000 || s.ChunkDelayUS < 0 || s.ChunkDelayUS > 600_000_000 || s.CutAfter < 0:
		return fmt.Errorf("delays are 0 to 10 minutes")
	case s.Flush != "" && s.Flush != "end":
		return fmt.Errorf("flush is empty or end")
	case s.BackgroundPolls < -1 || s.BackgroundPolls > callsMax || s.ToolCalls < -1 || s.ToolCalls > callsMax:
		return fmt.Errorf("background_polls and tool_calls are -1 to %d", callsMax)
	case strings.Trim(s.ServiceTier+s.ServedModel, plainLetters) != "":
		return fmt.Errorf("service_tier and served_model are plain names")
	}
	return nil
}

const plainLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

// settingsFor are the server's settings with those of the request's headers.
func (s *Server) settingsFor(h http.Header) (Settings, error) {
	s.mu.Lock()
	settings := s.settings
	s.mu.Unlock()
	numbers := map[string]*int64{
		"X-Simulator-Latency-Ms": &settings.LatencyMS, "X-Simulator-Chunks": &settings.Chunks, "X-Simulator-Chunk-Delay-Us": &settings.ChunkDelayUS,
		"X-Simulator-Completion-Tokens": &settings.CompletionTokens, "X-Simulator-Cut-After": &settings.CutAfter,
		"X-Simulator-Background-Polls": &settings.BackgroundPolls, "X-Simulator-Tool-Calls": &settings.ToolCalls,
	}
	texts := map[string]*string{
		"X-Simulator-Fault": &settings.Fault, "X-Simulator-Flush": &settings.Flush,
		"X-Simulator-Service-Tier": &settings.ServiceTier, "X-Simulator-Served-Model": &settings.ServedModel,
	}
	for name, values := range h {
		if !strings.HasPrefix(name, "X-Simulator-") {
			continue
		}
		var err error
		switch number := numbers[name]; {
		case number != nil:
			_, err = fmt.Sscan(values[0], number)
		case name == "X-Simulator-Split":
			_, err = fmt.Sscan(values[0], &settings.Split)
		case name == "X-Simulator-Spilled":
			settings.Spilled, err = strconv.ParseBool(values[0])
		case texts[name] != nil:
			*texts[name] = values[0]
		default:
			err = fmt.Errorf("no such setting")
		}
		if err != nil {
			return settings, fmt.Errorf("header %s: %w", name, err)
		}
	}
	return settings, settings.check()
}
