package usage_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/usage"
)

// truth is what a recorded answer holds, read by encoding/json.
type truth struct {
	usage       map[string]any // the last one that is not all zeros
	model, tier string
}

func (t *truth) read(tb testing.TB, document []byte) {
	tb.Helper()
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		tb.Fatalf("%s: %v", document, err)
	}
	t.object(object)
}

func (t *truth) object(object map[string]any) {
	if s, _ := object["model"].(string); s != "" {
		t.model = s
	}
	if s, _ := object["service_tier"].(string); s != "" {
		t.tier = s
	}
	if u, ok := object["usage"].(map[string]any); ok {
		if said := usageIn(u); said.Prompt.N+said.Completion.N > 0 {
			t.usage = u
		}
	}
	if response, ok := object["response"].(map[string]any); ok {
		t.object(response)
	}
}

// usageIn reads a decoded usage object.
func usageIn(u map[string]any) usage.Usage {
	count := func(paths ...string) (c usage.Count) {
		for _, path := range paths {
			var value any = u
			for key := range strings.SplitSeq(path, ".") {
				within, _ := value.(map[string]any)
				value = within[key]
			}
			if number, ok := value.(json.Number); ok {
				if n, err := strconv.ParseInt(string(number), 10, 64); err == nil {
					c = usage.Of(n)
				}
			}
		}
		return c
	}
	in := func(name string) usage.Count {
		return count("prompt_tokens_details."+name, "input_tokens_details."+name, "input_token_details."+name)
	}
	out := func(name string) usage.Count {
		return count("completion_tokens_details."+name, "output_tokens_details."+name, "output_token_details."+name)
	}
	return usage.Usage{
		Prompt: count("input_tokens", "prompt_tokens"), Cached: in("cached_tokens"), CacheWrite: in("cache_write_tokens"),
		AudioIn: in("audio_tokens"), AudioInCached: in("cached_tokens_details.audio_tokens"), ImageIn: in("image_tokens"),
		Completion: count("output_tokens", "completion_tokens"), Reasoning: out("reasoning_tokens"),
		AudioOut: out("audio_tokens"), ImageOut: out("image_tokens"),
	}
}

func (t *truth) check(tb testing.TB, what string, a usage.Answer) {
	tb.Helper()
	if want := usageIn(t.usage); a.Usage != want || a.HasUsage != (t.usage != nil) || a.Model != t.model || a.ServiceTier != t.tier {
		tb.Fatalf("%s: %s|%s|%s; want %s|%s|%s", what, counts(a.Usage), a.Model, a.ServiceTier, counts(want), t.model, t.tier)
	}
}

func recorded(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set: the recorded answers are not here")
	}
	return filepath.Join(dir, "recorded")
}

// TestRecordedInRandomSplits: every recorded answer says what encoding/json
// finds in it, however its bytes come. The reference data is not part of the
// repository; COSTGATE_TESTDATA says where it is.
func TestRecordedInRandomSplits(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(recorded(t), "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 3))
	seen := 0
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasSuffix(name, ".meta.json") || strings.HasPrefix(name, "golden-") || strings.HasSuffix(name, ".md") {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		var want truth
		switch filepath.Ext(name) {
		case ".json":
			want.read(t, data)
			for try := range 20 {
				want.check(t, name, usage.FromBody(data, try%2 == 0))
				want.check(t, name+" in pieces", pieces(string(data), 1+random.IntN(len(data)), random))
			}
		case ".sse":
			for line := range strings.Lines(string(data)) {
				if event, ok := strings.CutPrefix(line, "data: "); ok && strings.TrimSpace(event) != "[DONE]" {
					want.read(t, []byte(event))
				}
			}
			for try := range 20 {
				a, _ := read(string(data), try%2 == 0, random)
				want.check(t, name, a)
				want.check(t, name+" in pieces", readPieces(string(data), 1+random.IntN(4000), random))
			}
		case ".ndjson": // of a WebSocket: each line is an event
			for _, gather := range []bool{false, true} {
				stream := usage.Stream{GatherText: gather}
				var all truth
				for line := range strings.Lines(string(data)) {
					var one truth
					one.read(t, []byte(line))
					all.read(t, []byte(line))
					one.check(t, name, usage.FromBody([]byte(line), gather))
					stream.Event(nil, []byte(line))
				}
				all.check(t, name, stream.Answer())
				if a := stream.Answer(); !a.HasUsage || !a.Finished {
					t.Errorf("%s: %+v", name, a)
				}
			}
		default:
			t.Errorf("%s is not tested", name)
		}
	}
	if seen == 0 {
		t.Error("there are no recorded answers")
	}
}

// TestGoldenUsage reads the usage objects of the recorded chat requests.
func TestGoldenUsage(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(recorded(t), "golden-chat-usage.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Vectors []struct{ Usage json.RawMessage }
	}
	if err := json.Unmarshal(data, &golden); err != nil || len(golden.Vectors) == 0 {
		t.Fatalf("%d vectors: %v", len(golden.Vectors), err)
	}
	for i, v := range golden.Vectors {
		body := fmt.Appendf(nil, `{"model":"m","usage":%s}`, v.Usage)
		var want truth
		want.read(t, body)
		a := usage.FromBody(body, false)
		want.check(t, fmt.Sprintf("vector %d", i), a)
		if a.Extra != nil {
			t.Errorf("vector %d has members that are not known: %s", i, a.Extra)
		}
	}
}
