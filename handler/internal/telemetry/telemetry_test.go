package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLogger(t *testing.T) {
	f := func(want string, args ...any) {
		t.Helper()
		var b bytes.Buffer
		NewLogger(&b, slog.LevelInfo).Info("m", args...)
		var line map[string]any
		if err := json.Unmarshal(b.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line["level"] != "INFO" || line["msg"] != "m" || line["time"] == nil {
			t.Errorf("line %s", &b)
		}
		delete(line, "level")
		delete(line, "msg")
		delete(line, "time")
		got, _ := json.Marshal(line)
		if string(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(`{"error":"away","status":200}`, KeyStatus, 200, KeyError, errors.New("away"))
	f(`{"key_id":"k1","keys":2,"prompt_tokens":5}`, "prompt_tokens", 5, "key_id", "k1", "keys", 2)
	for _, name := range []string{
		"authorization", "Authorization", "api-key", "api_key", "ApiKey", "key", "code", "prompt", "messages", "completion", "x-functions-key",
		"Ocp-Apim-Subscription-Key", "subscriptionKey", "Set-Cookie", "content", "body", "token", "secret", "connection_string",
	} {
		f(fmt.Sprintf(`{%q:"[redacted]"}`, name), name, "s3cret")
		f(fmt.Sprintf(`{"g":{%q:"[redacted]"}}`, name), slog.Group("g", name, []string{"s3cret"}))
		f(fmt.Sprintf(`{%q:{"a":"[redacted]"}}`, name), slog.Group(name, "a", "s3cret"))
	}
	f(`{"a":"[redacted]"}`, "a", http.Header{"Api-Key": {"s3cret"}})
	f(`{"a":"[redacted]"}`, "a", []byte("s3cret"))
	f(`{"a":"[redacted]"}`, "a", &url.URL{RawQuery: "code=s3cret"})
	long := strings.Repeat("x", LogValueBytesMax)
	f(`{"a":"`+long+`"}`, "a", long)
	f(`{"a":"`+long+`[cut]"}`, "a", long+"y")
	f(`{"error":"`+long+`[cut]"}`, KeyError, errors.New(long+"y"))
	f(`{"a":"`+long[1:]+`[cut]"}`, "a", long[1:]+"é")

	var b bytes.Buffer
	log := NewLogger(&b, slog.LevelWarn).With("key", "s3cret").WithGroup("prompt")
	log.Info("not shown")
	if b.Len() != 0 {
		t.Errorf("below the level: %s", &b)
	}
	log.Warn("shown", "a", "s3cret")
	if strings.Contains(b.String(), "s3cret") || !strings.HasSuffix(b.String(), "\n") {
		t.Errorf("got %s", &b)
	}
}

func TestRegistry(t *testing.T) {
	var r Registry
	requests := r.Counter("requests_total", "Requests,\nforwarded.", "status", "200")
	r.Counter("requests_total", "", "status", `4"0\0`+"\n").Add(2)
	held := r.Gauge("held", "Running.")
	latency := r.Histogram("latency_ms", "Latency.", []int64{1, 10}, "op", "chat")
	r.Histogram("none", "No series with samples.", nil)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 250 {
				r.Counter("requests_total", "", "status", "200").Inc()
				held.Add(2)
				held.Add(-1)
				latency.Observe(10)
			}
		})
	}
	wait.Wait()
	held.Set(held.Value() + 1)
	latency.Observe(0)
	latency.Observe(1)
	latency.Observe(11)
	want := `# HELP requests_total Requests,\nforwarded.
# TYPE requests_total counter
requests_total{status="200"} 1000
requests_total{status="4\"0\\0\n"} 2
# HELP held Running.
# TYPE held gauge
held 1001
# HELP latency_ms Latency.
# TYPE latency_ms histogram
latency_ms_bucket{op="chat",le="1"} 2
latency_ms_bucket{op="chat",le="10"} 1002
latency_ms_bucket{op="chat",le="+Inf"} 1003
latency_ms_sum{op="chat"} 10012
latency_ms_count{op="chat"} 1003
# HELP none No series with samples.
# TYPE none histogram
none_bucket{le="+Inf"} 0
none_sum 0
none_count 0
`
	var b bytes.Buffer
	n, err := r.WriteTo(&b)
	if diff := cmp.Diff(want, b.String()); diff != "" || err != nil || n != int64(len(want)) {
		t.Errorf("%d %v %s", n, err, diff)
	}
	if n := testing.AllocsPerRun(100, func() { requests.Inc(); held.Add(1); latency.Observe(5) }); n != 0 {
		t.Errorf("%v allocations to count", n)
	}
}

func TestSeriesMax(t *testing.T) {
	var r Registry
	for i := range SeriesMax + 1 {
		r.Counter("c", "", "i", fmt.Sprint(i)).Inc()
	}
	var b bytes.Buffer
	_, _ = r.WriteTo(&b)
	if n := strings.Count(b.String(), "\nc{"); n != SeriesMax {
		t.Errorf("%d series", n)
	}
	if r.Counter("c", "", "i", fmt.Sprint(SeriesMax-1)).Value() != 1 || r.Counter("c", "", "i", fmt.Sprint(SeriesMax)).Value() != 0 {
		t.Error("the last series is not kept, or one past it is")
	}
}

func TestMistakesPanic(t *testing.T) {
	f := func(mistake func(r *Registry)) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		r := &Registry{}
		r.Counter("c", "")
		mistake(r)
	}
	f(func(r *Registry) { r.Gauge("c", "") })
	f(func(r *Registry) { r.Counter("a b", "") })
	f(func(r *Registry) { r.Counter("d", "", "label") })
	f(func(r *Registry) { r.Counter("d", "", "la-bel", "x") })
	f(func(r *Registry) { r.Histogram("h", "", []int64{2, 1}) })
}
