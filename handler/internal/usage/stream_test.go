package usage_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/sse"
	"github.com/costgate/costgate/handler/internal/usage"
)

// account is what a fixture says, in one line.
func account(a usage.Answer) string {
	var calls []string
	for _, c := range a.ToolCalls {
		calls = append(calls, c.Name+c.Arguments)
	}
	return fmt.Sprintf("%s|%s %s %s %s|%s filtered=%v finished=%v|%s|%s", counts(a.Usage), a.Model, a.ResponseID, a.ServiceTier, a.Status,
		a.ErrorCode, a.Filtered, a.Finished, a.Text, strings.Join(calls, " "))
}

// TestFixtures reads every stream in testdata, with \n and with \r\n, in any
// chunks, with and without its text.
func TestFixtures(t *testing.T) {
	f := func(name, want string, usageOnly int) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(1, 1))
		for _, stream := range []string{string(data), strings.ReplaceAll(string(data), "\n", "\r\n")} {
			for range 20 {
				a, n := read(stream, true, random)
				if got := account(a); got != want || n != usageOnly {
					t.Fatalf("%s:\n%s, %d usage chunks; want\n%s, %d", name, got, n, want, usageOnly)
				}
				quick, n := read(stream, false, random)
				a.Text, a.ToolCalls, a.TextBytes, a.ToolCallBytes = nil, nil, 0, 0
				quick.Deltas, quick.Choices = a.Deltas, a.Choices // of events that were not looked into
				if diff := cmp.Diff(a, quick); diff != "" || n != usageOnly {
					t.Fatalf("%s: without text, %d usage chunks:\n%s", name, n, diff)
				}
			}
		}
	}
	const used = "in=21 cached=16 audio=0 out=7 reasoning=3 audioout=0"
	const chat = "|gpt-4o-2024-11-20 chatcmpl-Fx1  |"
	f("chat-usage.sse", used+`|gpt-4o-2024-11-20 chatcmpl-Fx1 default | filtered=false finished=true|The "usage":{ of é😀 is fine.|`, 1)
	f("chat-blocked.sse", chat+" filtered=true finished=true|One two |", 0)
	f("chat-async-filter.sse", used+chat+" filtered=false finished=true|One two.|", 1)
	f("chat-tools.sse", used+chat+` filtered=false finished=true||get_weather{"city":"Oslo"}  get_time{}`, 1)
	f("chat-two-choices.sse", chat+" filtered=false finished=true|Hello World|", 0)
	f("chat-old-role.sse", chat+" filtered=false finished=true|Hi.|", 0)
	f("chat-error.sse", chat+"server_error filtered=false finished=false|abc|", 0)
	f("completions.sse", "|gpt-3.5-turbo-instruct cmpl-Fx1  | filtered=false finished=true|abxy|", 0)
	const response = "in=75 cached=64 out=23 reasoning=8|gpt-5.4 resp_Fx1 default "
	f("responses-completed.sse", response+`completed| filtered=false finished=true|Think. Hello|get_time{"tz":1}`, 0)
	f("responses-incomplete-zeros.sse", "|gpt-5.4 resp_Fx1 default incomplete| filtered=false finished=true|Hello|", 0)
	f("responses-filtered.sse", response+"incomplete| filtered=true finished=true||", 0)
	f("responses-failed.sse", "|gpt-5.4 resp_Fx1 auto failed|server_error filtered=false finished=true||", 0)
	f("responses-error.sse", "|gpt-5.4 resp_Fx1 auto in_progress|rate_limit_exceeded filtered=false finished=false||", 0)
}

func TestCounts(t *testing.T) {
	f := func(name string, choices, stops, deltas int) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		a, _ := read(string(data), true, rand.New(rand.NewPCG(1, 1)))
		if a.Choices != choices || a.Stops != stops || a.Deltas != deltas {
			t.Errorf("%s: %d choices, %d stops, %d deltas", name, a.Choices, a.Stops, a.Deltas)
		}
	}
	f("chat-two-choices.sse", 2, 2, 6)
	f("chat-async-filter.sse", 1, 1, 4)
	f("completions.sse", 2, 2, 5)
	f("responses-completed.sse", 1, 0, 5)
}

func TestUsageOnly(t *testing.T) {
	f := func(data string, want bool) {
		t.Helper()
		for _, gather := range []bool{false, true} {
			s := usage.Stream{GatherText: gather}
			for range 5 { // beyond the events that are always looked into
				s.Event(nil, []byte(`{"id":"c","choices":[{"index":0,"delta":{"content":"a"}}]}`))
			}
			if got := s.Event(nil, []byte(data)); got != want {
				t.Errorf("gather %v: %s: %v", gather, data, got)
			}
		}
	}
	f(`{"choices":[],"usage":{"prompt_tokens":1}}`, true)
	f(`{"choices":[],"usage":{"prompt_tokens":0}}`, true)
	f(`{ "usage" : { } , "choices" : [ ] }`, true)
	f(`{"choices":[],"usage":{"prompt_tokens":1},"latency_checkpoint":{}}`, true)
	f(`{"choices":[],"usage":null}`, false)
	f(`{"choices":[]}`, false)
	f(`{"usage":{"prompt_tokens":1}}`, false)
	f(`{"choices":null,"usage":{"prompt_tokens":1}}`, false)
	f(`{"choices":{},"usage":{"prompt_tokens":1}}`, false)
	f(`{"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":1}}`, false)
	f(`{"choices":[],"prompt_filter_results":[],"usage":{"prompt_tokens":1}}`, false)
	f(`{"choices":[],"prompt_annotations":[],"usage":{"prompt_tokens":1}}`, false)
	f(`{"choices":[],"error":{"code":"x"},"usage":{"prompt_tokens":1}}`, false)
	f(`{"choices":[],"usage":{"prompt_tokens":1}`, false)
	f(`[DONE]`, false)
}

// TestFinishedMeansNothingFollows: the usage comes behind the finish_reason.
func TestFinishedMeansNothingFollows(t *testing.T) {
	var s usage.Stream
	s.Event(nil, []byte(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`))
	if s.Finished() || s.Answer().Stops != 1 {
		t.Errorf("behind a finish_reason: finished %v, %d stops", s.Finished(), s.Answer().Stops)
	}
	s.Event(nil, []byte(`{"choices":[],"usage":{"prompt_tokens":1}}`))
	if s.Finished() {
		t.Error("behind the usage, before [DONE]")
	}
	if s.Event(nil, []byte(" [DONE]")); !s.Finished() {
		t.Error("behind [DONE]")
	}
}

// TestUsageSurvivesWhatCannotBeRead: what Azure billed counts, even if the
// event has something in it that no parser would take.
func TestUsageSurvivesWhatCannotBeRead(t *testing.T) {
	var s usage.Stream
	s.Event([]byte("response.completed"), []byte(`{"type":"response.completed","response":{"id":"r","output":[{"text":"`+"\xff"+
		`"}],"usage":{"input_tokens":3,"output_tokens":4}}}`))
	if a := s.Answer(); counts(a.Usage) != "in=3 out=4" || a.ResponseID != "r" || !a.Finished {
		t.Errorf("event: %+v", a)
	}
	a := usage.FromBody([]byte(`{"id":"c","choices":[{"message":{"content":"`+"\xff"+`"}}],`+
		`"usage":{"prompt_tokens":3,"completion_tokens":4}}`), true)
	if counts(a.Usage) != "in=3 out=4" || a.ResponseID != "c" || !a.Finished {
		t.Errorf("body: %+v", a)
	}
	s = usage.Stream{}
	if s.Event([]byte("response.completed"), []byte(`{"type":`)); !s.Finished() {
		t.Error("the terminal event's name says that it ended")
	}
}

// TestOversizedEvents: the last event of a response repeats the output and may
// be larger than what the scanner holds.
func TestOversizedEvents(t *testing.T) {
	large := strings.Repeat(`{ \"usage\":{} `, 20_000)
	stream := "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"m\"}}\n\n" +
		"event: response.output_text.done\ndata: {\"type\":\"response.output_text.done\",\"text\":\"" + large + "\"}\n\n" +
		"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"output\":[{\"text\":\"" +
		large +
		"\"}],\"service_tier\":\"default\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\n\n"
	random := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		var s usage.Stream
		scanner := sse.NewScanner(1 << 10)
		for rest := stream; rest != ""; {
			n := 1 + random.IntN(min(9000, len(rest)))
			scanner.Feed([]byte(rest[:n]), func(e sse.Event) {
				if e.Oversized {
					s.Oversized(e.Raw)
					return
				}
				s.Event(e.Name, e.Data)
			})
			rest = rest[n:]
		}
		if got, want := account(s.Answer()), "in=3 out=4|m r default completed| filtered=false finished=true||"; got != want {
			t.Fatalf("%s; want %s", got, want)
		}
	}
}

func TestOversizedPiecesThatAreNoEvent(t *testing.T) {
	var s usage.Stream
	s.Oversized([]byte("data: x\n"))
	s.Oversized([]byte("data: {1:2, not JSON {\"usage\":{\"prompt_tokens\":9}}"))
	s.Oversized([]byte(`"usage":{"prompt_tokens":9}}`))
	if s.Answer().HasUsage {
		t.Error("usage is read out of something broken")
	}
	// The next event ends it, and an object that was cut off.
	s.Event(nil, []byte(`{"choices":[{"index":0,"delta":{}}]}`))
	s.Oversized([]byte(`data: {"id":"cut`))
	s.Event(nil, []byte(`{"choices":[{"index":0,"delta":{}}]}`))
	if s.Oversized([]byte("data: {\"usage\":{\"prompt_tokens\":3}}\n\n")); counts(s.Answer().Usage) != "in=3" {
		t.Errorf("%+v", s.Answer())
	}
}

// TestFirstIDStays: annotations of the content filter may have another one.
func TestFirstIDStays(t *testing.T) {
	var s usage.Stream
	for _, id := range []string{"", "a", "b"} {
		s.Event(nil, []byte(`{"id":"`+id+`","choices":[{"index":0}]}`))
	}
	if id := s.Answer().ResponseID; id != "a" {
		t.Errorf("id %q", id)
	}
}

func TestOrdinaryResponseEventsCostNothing(t *testing.T) {
	var s usage.Stream
	name, data := []byte("response.output_text.delta"), []byte(`{"type":"response.output_text.delta","delta":"word"}`)
	for range 4 {
		s.Event(name, data)
	}
	if n := testing.AllocsPerRun(100, func() { s.Event(name, data); s.Event(nil, data) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkOrdinaryChunk(b *testing.B) {
	var s usage.Stream
	data := []byte(`{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},` +
		`"violence":{"filtered":false,"severity":"safe"}},` +
		`"delta":{"content":" word"},"finish_reason":null,"index":0,"logprobs":null}],"created":1760000000,"id":"c","model":"m","usage":null}`)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		s.Event(nil, data)
	}
}

func BenchmarkOrdinaryResponseEvent(b *testing.B) {
	var s usage.Stream
	data := []byte(`{"type":"response.output_text.delta","sequence_number":9,"item_id":"msg_1","output_index":0,"content_index":0,"delta":" word","logprobs":[]}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		s.Event([]byte("response.output_text.delta"), data)
		s.Event(nil, data)
	}
}

// BenchmarkLargeBody reads an answer with images, of which nothing is kept.
func BenchmarkLargeBody(b *testing.B) {
	body := []byte(`{"created":1,"data":[{"b64_json":"` + strings.Repeat("iVBORw0K", 1<<18) + `"}],"usage":{"input_tokens":9,"output_tokens":1056}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r := usage.NewBodyReader()
		for rest := body; len(rest) > 0; {
			n := min(32<<10, len(rest))
			_, _ = r.Write(rest[:n])
			rest = rest[n:]
		}
		if !r.Answer().HasUsage {
			b.Fatal("no usage")
		}
	}
}

// BenchmarkLargeEmbeddings reads numbers, the slowest of what is passed over.
func BenchmarkLargeEmbeddings(b *testing.B) {
	one := `{"object":"embedding","index":0,"embedding":[` + strings.Repeat("-0.0123456789,", 1535) + `0]}`
	body := []byte(`{"object":"list","data":[` + strings.Repeat(one+",", 99) + one + `],"model":"m","usage":{"prompt_tokens":9}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r := usage.NewBodyReader()
		_, _ = r.Write(body)
		if !r.Answer().HasUsage {
			b.Fatal("no usage")
		}
	}
}
