package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAsk(t *testing.T) {
	f := func(status int, text string, stream bool, want string) {
		t.Helper()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sent, err := io.ReadAll(r.Body); err != nil || strings.Contains(string(sent), `"stream":true`) != stream {
				t.Errorf("sent %s, %v", sent, err)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}))
		defer server.Close()
		got := newClient().ask(t.Context(), server.URL, "key", stream, time.Now().Add(-time.Second))
		if got.loss != want {
			t.Errorf("%d %q: %q, want %q", status, text, got.loss, want)
		}
		if want == "" && (got.first < time.Second || got.whole < got.first) {
			t.Errorf("%d %q: %v, %v", status, text, got.first, got.whole)
		}
	}
	f(200, `{}`, false, "")
	f(200, "data: {}\n\ndata: [DONE]\n\n", true, "")
	f(200, "data: {}\n\n", true, "cut")
	f(200, "", false, "empty answer")
	f(429, `{"error":{"code":"budget_held"}}`, false, "429 budget_held")
	f(503, "busy", true, "503")
}

func TestLoops(t *testing.T) { synctest.Test(t, testLoops) }

func testLoops(t *testing.T) {
	ask := func(i int) answer {
		if i%2 == 1 {
			return answer{loss: "odd"}
		}
		return answer{first: time.Duration(10 - i), whole: time.Duration(20 - i)}
	}
	got := openLoop(t.Context(), 1000, 10*time.Millisecond, 0, func(n int, _ time.Time) answer { return ask(n) })
	if len(got.whole) != 5 || got.whole[0] != 12 || got.whole[4] != 20 || got.losses() != "5 (odd)" || got.took != 10*time.Millisecond {
		t.Errorf("open: %v, %s", got.whole, got.losses())
	}
	got.warmedBy(&tally{lost: map[string]int{"odd": 2}})
	all := &tally{}
	all.join(got)
	all.join(got)
	if want := "10 (odd), 4 (warm-up: odd)"; len(all.first) != 10 || all.losses() != want {
		t.Errorf("joined: %d, %s", len(all.first), all.losses())
	}
	got = closedLoop(t.Context(), 2, time.Millisecond, func(client int) answer { time.Sleep(time.Millisecond); return ask(client) })
	if len(got.whole) != 1 || got.losses() != "1 (odd)" {
		t.Errorf("closed: %v, %s", got.whole, got.losses())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := closedLoop(ended, 1, time.Hour, ask); len(got.whole) != 0 || got.losses() != "0" {
		t.Errorf("ended: %v", got.whole)
	}
}

func TestPerThousand(t *testing.T) {
	if got := perThousand(3, 2); got != "1500" {
		t.Errorf("got %s", got)
	}
	if got := perThousand(3, 0); got != "" {
		t.Errorf("of nothing: %s", got)
	}
}
