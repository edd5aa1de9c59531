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

// sold is what an answer tells beside its tokens, in one line.
func sold(a usage.Answer) string {
	var out []string
	for _, item := range a.Items {
		out = append(out, fmt.Sprintf("%s=%d", item.Meter, item.Quantity))
	}
	return fmt.Sprintf("%s|%d %s %s", strings.Join(out, " "), a.Images, a.Quality, a.Size)
}

func fixture(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// pieces feeds a body in random pieces of up to most bytes.
func pieces(body string, most int, random *rand.Rand) usage.Answer {
	r := usage.NewBodyReader()
	for body != "" {
		n := 1 + random.IntN(min(most, len(body)))
		_, _ = r.Write([]byte(body[:n]))
		body = body[n:]
	}
	return r.Answer()
}

const tools = "web_search_call=2 file_search_call=1 code_interpreter_session=3|0  "

// TestSoldInStreams reads streams whole, with and without their text, and with
// a scanner that holds next to nothing.
func TestSoldInStreams(t *testing.T) {
	f := func(name, usageWant, want string, finished bool) {
		t.Helper()
		stream := fixture(t, name)
		random := rand.New(rand.NewPCG(1, 1))
		for try := range 20 {
			a, _ := read(stream, try%2 == 0, random)
			for _, a := range []usage.Answer{a, readPieces(stream, 1+random.IntN(200), random)} {
				if got := sold(a); got != want || counts(a.Usage) != usageWant || a.Finished != finished || a.HasUsage != (usageWant != "" || strings.Contains(want, "_ms=")) {
					t.Fatalf("%s: %s, %s, finished %v; want %s, %s", name, counts(a.Usage), got, a.Finished, usageWant, want)
				}
			}
		}
	}
	const image = "in=12 image=0 out=1056 imageout=1056"
	f("transcription.sse", "in=44 audio=40 out=6", "|0  ", true)
	f("transcription-seconds.sse", "", "audio_in_ms=9500|0  ", true)
	f("speech.sse", "in=14 out=101", "|0  ", true)
	f("image.sse", image, "|1 high 1024x1536", true)
	f("image-edit.sse", image, "|1 high 1024x1536", true)
	f("responses-tools.sse", "in=75 cached=64 out=23 reasoning=8", tools, true)
	f("responses-tools-cut.sse", "", "web_search_call=2 file_search_call=1|0  ", false)
	f("responses-tools-failed.sse", "", tools, true) // its list is empty, and the calls were made
	f("responses-completed.sse", "in=75 cached=64 out=23 reasoning=8", "|0  ", true)
}

// readPieces feeds a stream in random pieces to a scanner of events of up to
// most bytes: what is larger comes in pieces.
func readPieces(stream string, most int, random *rand.Rand) usage.Answer {
	var s usage.Stream
	scanner := sse.NewScanner(most)
	for stream != "" {
		n := 1 + random.IntN(min(100, len(stream)))
		scanner.Feed([]byte(stream[:n]), func(e sse.Event) {
			if e.Oversized {
				s.Oversized(e.Raw)
				return
			}
			s.Event(e.Name, e.Data)
		})
		stream = stream[n:]
	}
	return s.Answer()
}

// TestListWins: where the terminal event lists items, those told of one by one
// do not count beside it.
func TestListWins(t *testing.T) {
	f := func(terminal, want string) {
		t.Helper()
		for _, oversized := range []bool{false, true} {
			var s usage.Stream
			feed := func(event string) {
				if oversized {
					s.Oversized([]byte("data: " + event + "\n\n"))
				} else {
					s.Event(nil, []byte(event))
				}
			}
			for range 5 { // beyond the events that are always looked into
				feed(`{"type":"response.in_progress","response":{"output":[]}}`)
			}
			feed(`{"type":"response.output_item.done","item":{"type":"file_search_call"}}`)
			feed(`{"type":"response.output_item.done","item":{"action":{"type":"search"},"type":"web_search_call"}}`)
			feed(`{"type":"response.output_item.done","item":{"action":{"type":"open_page"},"type":"web_search_call"}}`)
			feed(terminal)
			if got := sold(s.Answer()); got != want+"|0  " {
				t.Errorf("%s, oversized %v: %s; want %s", terminal, oversized, got, want)
			}
		}
	}
	f(`{"type":"response.completed","response":{"output":[{"type":"file_search_call"}]}}`, "file_search_call=1")
	f(`{"type":"response.completed","response":{"output":[{"type":"message"}]}}`, "")
	f(`{"type":"response.failed","response":{"output":[]}}`, "web_search_call=1 file_search_call=1")
	f(`{"type":"response.completed","response":{"output":null}}`, "web_search_call=1 file_search_call=1")
	f(`{"type":"response.in_progress","response":{"output":[{"type":"file_search_call"}]}}`, "web_search_call=1 file_search_call=1")
	f(`{"type":"response.completed"}`, "web_search_call=1 file_search_call=1")
}

// TestTypeInName: an event whose data has no type is what its name says.
func TestTypeInName(t *testing.T) {
	var s usage.Stream
	s.Event([]byte("response.output_item.done"), []byte(`{"item":{"type":"file_search_call"}}`))
	s.Event([]byte("image_edit.completed"), []byte(`{"usage":{"input_tokens":3}}`))
	if a := s.Answer(); sold(a) != "file_search_call=1|1  " || !a.Finished {
		t.Errorf("%+v", a)
	}
}

// TestTextOfAudio: deltas bring it in streams, one member in a body.
func TestTextOfAudio(t *testing.T) {
	f := func(name, want string) {
		t.Helper()
		a, _ := read(fixture(t, name), true, rand.New(rand.NewPCG(1, 1)))
		if strings.HasSuffix(name, ".json") {
			a = usage.FromBody([]byte(fixture(t, name)), true)
		}
		if string(a.Text) != want {
			t.Errorf("%s: %q; want %q", name, a.Text, want)
		}
	}
	f("transcription.sse", `Good morning, "usage":{}`)
	f("transcription-seconds.sse", "Hi. You there.")
	f("speech.sse", "")
	f("transcription.json", "Good morning.")
	f("transcription-verbose.json", "Good morning.")
	f("chat-audio.json", "I cannot. Hm. Hi.")
}

func TestSoldInBodies(t *testing.T) {
	f := func(name, usageWant, want string) {
		t.Helper()
		body := fixture(t, name)
		a := usage.FromBody([]byte(body), false)
		if got := sold(a); got != want || counts(a.Usage) != usageWant || !a.Finished {
			t.Errorf("%s: %s, %s; want %s, %s", name, counts(a.Usage), got, usageWant, want)
		}
		a.Choices, a.Stops, a.Deltas = 0, 0, 0 // a reader does not see them
		random := rand.New(rand.NewPCG(1, 1))
		for _, most := range []int{1, 2, 3, 10, 100, 100, 100, 1 << 20} {
			if diff := cmp.Diff(a, pieces(body, most, random)); diff != "" {
				t.Errorf("%s in pieces of up to %d: %s", name, most, diff)
			}
		}
	}
	f("responses-tools.json", "in=75 cached=64 out=23 reasoning=8", tools)
	f("images.json", "in=21 image=9 out=2112 imageout=2112", "|2 high 1024x1536")
	f("images-urls.json", "", "|1  ")
	f("transcription.json", "in=44 audio=40 out=6", "|0  ")
	f("transcription-seconds.json", "", "audio_in_ms=9000|0  ")
	f("transcription-verbose.json", "", "audio_in_ms=8471|0  ")
	f("chat-audio.json", "in=30 cached=0 audio=10 image=0 out=40 reasoning=0 audioout=30", "|0  ")
}

func TestCustomToolCall(t *testing.T) {
	a := usage.FromBody([]byte(fixture(t, "chat-audio.json")), true)
	if len(a.ToolCalls) != 1 || a.ToolCalls[0] != (usage.ToolCall{Name: "run", Arguments: "x = 1"}) {
		t.Errorf("%+v", a.ToolCalls)
	}
}

// TestLastUsageCounts, with what is unknown in it.
func TestLastUsageCounts(t *testing.T) {
	var s usage.Stream
	for _, object := range []string{`{"prompt_tokens":1,"x":1}`, `{"prompt_tokens":2}`, `{"prompt_tokens":0}`} {
		s.Event(nil, []byte(`{"choices":[],"usage":`+object+`}`))
	}
	if a := s.Answer(); counts(a.Usage) != "in=2" || a.Extra != nil {
		t.Errorf("%s, %s", counts(a.Usage), a.Extra)
	}
}

// TestSoundIsNoText, though realtime brings both in a member "delta".
func TestSoundIsNoText(t *testing.T) {
	s := usage.Stream{GatherText: true}
	for _, kind := range []string{"response.audio.delta", "response.output_audio.delta", "response.output_audio_transcript.delta"} {
		s.Event(nil, []byte(`{"type":"`+kind+`","delta":"UklGRg=="}`))
	}
	if a := s.Answer(); string(a.Text) != "UklGRg==" || a.Deltas != 3 {
		t.Errorf("%q of %d deltas", a.Text, a.Deltas)
	}
}

func TestSeconds(t *testing.T) {
	f := func(seconds string, want int64) {
		t.Helper()
		for _, body := range []string{`{"usage":{"type":"duration","seconds":` + seconds + `}}`, `{"text":"x","duration":` + seconds + `}`} {
			a := usage.FromBody([]byte(body), false)
			var got int64
			if len(a.Items) == 1 && a.Items[0].Meter == usage.ItemAudioIn {
				got = a.Items[0].Quantity
			}
			if got != want || a.HasUsage != (want > 0) {
				t.Errorf("%s: %d ms, has usage %v; want %d", body, got, a.HasUsage, want)
			}
		}
	}
	f("9.5", 9500)
	f(`"12.34"`, 12340)
	f("12", 12000)
	f("12.0", 12000)
	f("0.0000", 0)
	f("0.0001", 1)
	f("8.4700", 8470)
	f("8.470000267028809", 8471)
	f("0", 0)
	f("-1", 0)
	f(`"-1"`, 0)
	f(`"1.2.3"`, 0)
	f(`""`, 0)
	f(`".5"`, 0)
	f(`"x"`, 0)
	f("1e3", 0)
	f("null", 0)
	f("true", 0)
	f("[1]", 0)
	f("1000000000", usage.CountMax)
	f("1000000000.0001", 0)
	f("99999999999999999999", 0)
	f("000000000000001", 0) // no number, and too long for one
}

// TestDurationOfOthers: only a transcription is sold by its duration.
func TestDurationOfOthers(t *testing.T) {
	for _, body := range []string{
		`{"model":"m","duration":3}`, `{"id":"c","duration":3}`, `{"status":"completed","duration":3}`, `{"error":{"code":"x"},"duration":3}`,
		`{"usage":{"input_tokens":1,"seconds":9},"duration":3}`,
	} {
		if a := usage.FromBody([]byte(body), false); a.Items != nil {
			t.Errorf("%s: %v", body, a.Items)
		}
	}
}

func TestImagesOfAStream(t *testing.T) {
	s := usage.Stream{Images: 2}
	event := `{"type":"image_generation.completed","b64_json":"x","usage":{"input_tokens":12,"output_tokens":1056,"output_tokens_details":{"image_tokens":1056}}}`
	s.Event(nil, []byte(event))
	if s.Finished() {
		t.Error("finished with the first of two images")
	}
	s.Oversized([]byte("data: " + event + "\n\n"))
	a := s.Answer()
	if want := "in=24 out=2112 imageout=2112"; counts(a.Usage) != want || a.Images != 2 || !s.Finished() {
		t.Errorf("%s, %d images, finished %v; want %s", counts(a.Usage), a.Images, s.Finished(), want)
	}
	var r usage.Record
	if r.SetAnswer(&a); r.Usage() != a.Usage {
		t.Errorf("the record has %s", counts(r.Usage()))
	}
}

func TestStatuses(t *testing.T) {
	a := usage.FromBody([]byte(`{"id":"r","status":"cancelled","usage":null}`), false)
	if !a.Finished || a.HasUsage || a.Status != "cancelled" {
		t.Errorf("%+v", a)
	}
	for _, kind := range []string{"response.cancelled", "response.done"} {
		var s usage.Stream
		s.Event(nil, []byte(`{ "type" : "`+kind+`","response":{"status":"cancelled","usage":{"input_tokens":3,"output_tokens":0}}}`))
		if a := s.Answer(); !a.Finished || counts(a.Usage) != "in=3 out=0" {
			t.Errorf("%s: %+v", kind, a)
		}
	}
}

// TestEmptyModel: the model of a chunk that has none is not taken.
func TestEmptyModel(t *testing.T) {
	var s usage.Stream
	for _, model := range []string{`""`, `"m"`, `""`, `null`} {
		s.Event(nil, []byte(`{"model":`+model+`,"choices":[]}`))
	}
	if m := s.Answer().Model; m != "m" {
		t.Errorf("model %q", m)
	}
}

// TestNoJSON: transcriptions may be text, with or without times.
func TestNoJSON(t *testing.T) {
	for _, body := range []string{
		"Good morning.\n", "1\n00:00:00,000 --> 00:00:02,000\nGood {\"usage\":{\"prompt_tokens\":3}}\n", "WEBVTT\n\n00:00.000 --> 00:02.000\nHi\n",
		"", "\xff\xfe{", `"text"`, "[1]",
	} {
		for _, gather := range []bool{false, true} {
			if diff := cmp.Diff(usage.Answer{}, usage.FromBody([]byte(body), gather)); diff != "" {
				t.Errorf("%q: %s", body, diff)
			}
		}
		if diff := cmp.Diff(usage.Answer{}, pieces(body, 5, rand.New(rand.NewPCG(1, 1)))); diff != "" {
			t.Errorf("%q: %s", body, diff)
		}
	}
}
