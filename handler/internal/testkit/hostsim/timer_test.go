package hostsim

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestTimer(t *testing.T) {
	f := func(mode, want string) {
		t.Helper()
		h := start(t, mode, Options{MasterKey: "mk", HostKey: "hk", FunctionTimeout: 500 * time.Millisecond, FunctionGrace: time.Millisecond})
		pid := h.Pid()
		logs, err := h.Timer(t.Context(), "maintain")
		if want == "" {
			if diff := cmp.Diff([]string{"swept"}, logs); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mode, err)
		}
		if mode == "timer empty" { // the host waited, and then it ended the handler
			until(t, "another handler", func() bool { return h.Pid() != pid })
		}
		for key, status := range map[string]int{"": 401, "hk": 401, "mk": 202} {
			if want != "" && status == 202 {
				status = 500
			}
			if answer, _ := ask(t, h, "POST", "/admin/functions/Maintain", nil, "x-functions-key", key); answer.StatusCode != status {
				t.Errorf("%s: admin with key %q: %d", mode, key, answer.StatusCode)
			}
		}
		if _, err := h.Timer(t.Context(), "Create"); err == nil {
			t.Error("Create is no timer")
		}
	}
	f("1", "")
	f("timer empty", "empty answer, and functionTimeout has passed")
	f("timer text", "content type")
	f("timer fails", "status 500")
	f("timer broken", "answer")
}

// The fake tells which history it was given.
func TestTick(t *testing.T) {
	h := start(t, "timer tells", Options{})
	f := func(tick Tick, want string) {
		t.Helper()
		logs, err := h.Tick(t.Context(), "Maintain", tick)
		if err != nil || len(logs) != 1 || logs[0] != want {
			t.Errorf("%v %v, want %q", err, logs, want)
		}
	}
	at := time.Date(2026, 11, 25, 10, 52, 0, 3_967_000, time.UTC)
	status := &TickStatus{Last: at, Next: at.Add(time.Minute), LastUpdated: at}
	local := func(t time.Time) string { return t.Local().Format(time.RFC3339Nano) }
	f(Tick{}, "null false")
	f(Tick{PastDue: true}, "null true")
	f(Tick{Status: status, PastDue: true}, `{"Last":"`+local(at)+`","LastUpdated":"`+local(at)+`","Next":"`+local(at.Add(time.Minute))+`"} true`)
}

func TestTimerFires(t *testing.T) {
	out := make(chan string, 100)
	start(t, "timer fails", Options{TimerEvery: time.Millisecond, Stderr: writerFunc(func(p []byte) {
		select {
		case out <- string(p):
		default:
		}
	})})
	for range 2 {
		if line := <-out; !strings.Contains(line, "timer Maintain failed") {
			t.Errorf("got %q", line)
		}
	}
}

func TestOutputBound(t *testing.T) {
	var o output
	for i := range 40 {
		_, _ = o.Write(bytes.Repeat([]byte{byte('a' + i%26)}, OutputBytesMax/10))
	}
	if s := o.String(); len(s) != OutputBytesMax || !strings.HasSuffix(s, "n") || len(o.kept) > 2*OutputBytesMax {
		t.Errorf("%d bytes of %d kept", len(s), len(o.kept))
	}
}

// A line comes whole, however it was written, and none is longer than the bound.
func TestLines(t *testing.T) {
	var got []string
	o := output{line: func(text string) { got = append(got, text) }}
	for _, p := range []string{"a", "b\nc", "\n\nd\n", strings.Repeat("x", LineBytesMax), "\n", strings.Repeat("x", LineBytesMax+1) + "\n", "part"} {
		_, _ = o.Write([]byte(p))
	}
	long := strings.Repeat("x", LineBytesMax)
	if diff := cmp.Diff([]string{"ab", "c", "", "d", long, long}, got); diff != "" {
		t.Error(diff)
	}
	var l lines
	for range 2*LinesMax + 1 {
		l.add(LevelError, "x")
	}
	if n := len(l.all()); n != LinesMax || len(l.kept) > 2*LinesMax {
		t.Errorf("%d lines of %d", n, len(l.kept))
	}
	for text, want := range map[string]Level{"x": LevelError, "a Warning": LevelWarning} {
		if got := levelOf(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
