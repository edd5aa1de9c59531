package usage_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/sse"
	"github.com/costgate/costgate/handler/internal/usage"
)

// TestArraysInBodies: what is counted are the elements of the arrays at the
// top, however they are written.
func TestArraysInBodies(t *testing.T) {
	f := func(body, want string) {
		t.Helper()
		for most := 1; most < 20; most++ {
			for _, a := range []usage.Answer{usage.FromBody([]byte(body), false), pieces(body, most, rand.New(rand.NewPCG(1, 1)))} {
				if got := sold(a); got != want || !a.Finished {
					t.Fatalf("%s in pieces of up to %d: %s, finished %v; want %s", body, most, got, a.Finished, want)
				}
			}
		}
	}
	f(`{"data":[]}`, "|0  ")
	f(`{"data":null}`, "|0  ")
	f(` { "data" : [ { } , {} ,{}] } `, "|3  ")
	f(`{"data":["a,b",[1,[2]],null,{"a":"]"},5, true ,"\\",""]}`, "|8  ")
	f(`{"d\u0061ta":[{"\"":"\"]"},{"a":"\\"}],"x":"\"data\":[1]"}`, "|2  ")
	f(`{"x":{"data":[1]},"y":[{"data":[1]}],"z":"data","data":[1]}`, "|1  ")
	f(`{"data":{"data":[1,2]}}`, "|0  ")
	f(`{"data":[1,2],"object":"list"}`, "|0  ")
	const search = `{"type":"web_search_call"}`
	f(`{"output":[`+search+`,1,[`+search+`],"web_search_call",{"item":`+search+`},`+search+`]}`, "web_search_call=2|0  ")
	f(`{"outpu\u0074":[{"type":"web_search_cal\u006c","action":{"x":{"type":"open_page"},"type":"search"}}]}`, "web_search_call=1|0  ")
	f(`{"output":[{"type":"web_search_call","action":null},{"type":"web_search_call","action":{"type":"find"}},{"type":"web_search_call","action":"find"}]}`,
		"web_search_call=2|0  ")
	f(`{"response":{"x":{"output":[`+search+`]},"output":[`+search+`],"data":[1]},"data":[1]}`, "web_search_call=1|1  ")
	f(`{"response":[{"output":[`+search+`]}]}`, "|0  ")
	f(`{"response":{"data":[1]},"x":{"output":[`+search+`]}}`, "|0  ")
	f(`{"response":{},"output":[`+search+`]}`, "web_search_call=1|0  ")
}

// TestBrokenArrays: whatever the pieces, what is behind the end does not count.
func TestBrokenArrays(t *testing.T) {
	for _, body := range []string{`{"""data":[0`, `{"a":1]{"data":[0`, `{"a":1}{"data":[0]}`, `{"data":[{1}],"output":[{}]`, `{"data":[1}]{"data":[1,2]}`} {
		whole := usage.NewBodyReader()
		_, _ = whole.Write([]byte(body))
		if diff := cmp.Diff(whole.Answer(), pieces(body, 1, rand.New(rand.NewPCG(1, 1)))); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
}

func TestContainersMax(t *testing.T) {
	f := func(n int, want int64) {
		t.Helper()
		var items []string
		for range 2 {
			for i := range n {
				items = append(items, fmt.Sprintf(`{"type":"code_interpreter_call","container_id":"c%d"}`, i))
			}
		}
		body := `{"output":[` + strings.Join(items, ",") + `]}`
		for _, a := range []usage.Answer{usage.FromBody([]byte(body), false), pieces(body, 1000, rand.New(rand.NewPCG(1, 1)))} {
			if len(a.Items) != 1 || a.Items[0] != (usage.Item{Meter: usage.ItemCodeInterpreter, Quantity: want}) {
				t.Errorf("%d containers: %v", n, a.Items)
			}
		}
	}
	f(usage.ContainersMax, usage.ContainersMax)
	f(usage.ContainersMax+1, usage.ContainersMax+2) // the last one is not remembered
}

// TestLargeImagesAreNotKept: neither in bodies nor in events.
func TestLargeImagesAreNotKept(t *testing.T) {
	image := strings.Repeat("iVBORw0K", 1<<20)
	body := []byte(`{"created":1,"data":[{"b64_json":"` + image + `"},{"b64_json":"x"}],"usage":{"output_tokens":9}}`)
	event := []byte("data: {\"type\":\"image_generation.completed\",\"b64_json\":\"" + image + "\",\"usage\":{\"output_tokens\":9}}\n\n")
	inPieces := func(p []byte, take func([]byte)) {
		for len(p) > 0 {
			n := min(32<<10, len(p))
			take(p[:n])
			p = p[n:]
		}
	}
	f := func(what string, images int64, run func() usage.Answer) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a := run()
		runtime.ReadMemStats(&after)
		if kept := after.TotalAlloc - before.TotalAlloc; kept > 64<<10 || a.Images != images || counts(a.Usage) != "out=9" || !a.Finished {
			t.Errorf("%s: %d bytes allocated, %d images, %s", what, kept, a.Images, counts(a.Usage))
		}
	}
	f("body", 2, func() usage.Answer {
		r := usage.NewBodyReader()
		inPieces(body, func(p []byte) { _, _ = r.Write(p) })
		return r.Answer()
	})
	f("event", 1, func() usage.Answer {
		var s usage.Stream
		scanner := sse.NewScanner(1 << 10)
		inPieces(event, func(p []byte) { scanner.Feed(p, func(e sse.Event) { s.Oversized(e.Raw) }) })
		return s.Answer()
	})
}
