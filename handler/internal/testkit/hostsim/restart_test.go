package hostsim

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A clock that tests set.
type clock struct{ seconds atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(1_800_000_000+c.seconds.Load(), 0) }

func exit(t *testing.T, h *Host, code string) {
	t.Helper()
	if answer, text := ask(t, h, "POST", "/openai/exit?with="+code, strings.NewReader("x")); answer.StatusCode != 500 || text != "" {
		t.Errorf("exit %s: %d %q", code, answer.StatusCode, text)
	}
}

// What a handler exits with decides what the host does.
func TestExits(t *testing.T) {
	c := &clock{}
	h := start(t, "1", Options{Now: c.now})
	for _, code := range []string{"200", "1", "200", "3", "200"} { // two errors, and what is none
		pid := h.Pid()
		exit(t, h, code)
		echo(t, h, "GET", "/openai/echo", nil) // waits for the next one
		if h.Pid() == pid {
			t.Errorf("exit %s: not started again", code)
		}
	}
	c.seconds.Store(30*60 + 1) // the two are forgotten
	h.Kill()
	c.seconds.Store(2*30*60 + 1) // the one is not
	h.Kill()
	echo(t, h, "GET", "/openai/echo", nil)
	if err := h.Err(); err != nil {
		t.Fatal(err)
	}
	h.Kill()
	<-h.Done()
	if err := h.Err(); !errors.Is(err, ErrTooMany) {
		t.Errorf("after the third: %v", err)
	}
	if answer, err := http.Get(h.URL); err == nil {
		answer.Body.Close()
		t.Error("the host still answers")
	}
	if diff := cmp.Diff([]int{200, 1, 200, 3, 200, -1, -1, -1}, h.Exits()); diff != "" {
		t.Error(diff)
	}
}

// A GET that ends the handler is sent to the next one, until the host stops.
func TestDeadlyGET(t *testing.T) {
	h := start(t, "1", Options{})
	if answer, err := http.Get(h.URL + "/openai/exit?with=9"); err == nil {
		_, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err == nil && answer.StatusCode != 500 {
			t.Errorf("%d", answer.StatusCode)
		}
	}
	<-h.Done()
	if diff := cmp.Diff([]int{9, 9, 9}, h.Exits()); diff != "" {
		t.Error(diff)
	}
}

func TestNeverAgain(t *testing.T) {
	h := start(t, "1", Options{})
	exit(t, h, "0")
	if answer, text := ask(t, h, "GET", "/openai/echo", nil); answer.StatusCode != 500 || text != "" {
		t.Errorf("after exit 0: %d %q", answer.StatusCode, text)
	}
	if err := h.Restart(); !errors.Is(err, ErrDead) {
		t.Errorf("after exit 0: %v", err)
	}
	if err := h.Err(); err != nil {
		t.Error(err)
	}
}

func TestRestart(t *testing.T) {
	h := start(t, "1", Options{NoRestart: true})
	first := h.Pid()
	h.Kill()
	if diff := cmp.Diff([]int{-1}, h.Exits()); diff != "" || h.Pid() != first {
		t.Error(diff)
	}
	for range 5 { // what the host does itself does not count
		if err := h.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	echo(t, h, "GET", "/openai/echo", nil)
	if n := strings.Count(h.Stdout(), "handler is up"); n != 6 || len(h.Exits()) != 1 {
		t.Errorf("started %d times, exits %v", n, h.Exits())
	}
}

func TestBadStart(t *testing.T) {
	f := func(mode string, want ...string) {
		t.Helper()
		o := Options{Dist: newDist(t), Env: append(os.Environ(), "HOSTSIM_FAKE="+mode)}
		if mode == "deaf" {
			o.InitTimeout = 100 * time.Millisecond
		}
		h, err := New(o)
		if err == nil {
			h.Close()
			t.Fatalf("%s: it started", mode)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v", mode, err)
			}
		}
		if strings.Count(err.Error(), "bad settings") != 3 && mode == "exits" {
			t.Errorf("not tried three times: %v", err)
		}
	}
	f("exits", "code 2", "bad settings", ErrTooMany.Error())
	f("deaf", "does not listen", ErrTooMany.Error())
	if _, err := New(Options{Dist: t.TempDir()}); err == nil {
		t.Error("an empty folder was taken")
	}
}

// A handler that never gets ready stops the host when a call has waited for too
// long.
func TestInvokeWait(t *testing.T) {
	o := Options{Dist: newDist(t), Env: append(os.Environ(), "HOSTSIM_FAKE=deaf"), InvokeWait: 50 * time.Millisecond}
	if h, err := New(o); err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("got %v", err)
		if h != nil {
			h.Close()
		}
	}
}

// One call that outlives functionTimeout takes all others with it; that is no
// exit of the handler's.
func TestFunctionTimeout(t *testing.T) {
	h := start(t, "1", Options{FunctionTimeout: 300 * time.Millisecond, FunctionGrace: 100 * time.Millisecond})
	pid := h.Pid()
	other := make(chan error, 1)
	late := make(chan int, 1)
	go func() {
		answer, err := http.Post(h.URL+"/openai/silent", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Error(err)
			late <- 0
			return
		}
		answer.Body.Close()
		late <- answer.StatusCode
	}()
	until(t, "the call runs", func() bool { return strings.Contains(h.Stdout(), "silent call began") })
	go func() {
		answer, err := http.Get(h.URL + "/openai/steps")
		if err == nil {
			_, err = io.ReadAll(answer.Body)
			answer.Body.Close()
		}
		other <- err
	}()
	if status := <-late; status != 500 {
		t.Errorf("late call: %d", status)
	}
	if err := <-other; err == nil {
		t.Error("the other call was not cut")
	}
	until(t, "another handler", func() bool { return h.Pid() != pid })
	echo(t, h, "GET", "/openai/echo", nil)
	if len(h.Exits()) != 0 {
		t.Errorf("exits %v", h.Exits())
	}
}

// until polls a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// A signal to the host lets calls in flight finish; the handler is not told.
func TestShutdown(t *testing.T) {
	h := start(t, "1", Options{})
	answer, err := http.Get(h.URL + "/openai/steps")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	ended := make(chan error, 1)
	go func() { ended <- h.Shutdown() }()
	until(t, "no new connection", func() bool {
		r, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(h.URL)
		if err == nil {
			r.Body.Close()
		}
		return err != nil
	})
	for range 3 {
		if r, err := http.Get(h.HandlerURL() + "/openai/next"); err != nil {
			t.Error(err)
		} else {
			r.Body.Close()
		}
	}
	if text, err := io.ReadAll(answer.Body); string(text) != "step 0\nstep 1\nstep 2\n" || err != nil {
		t.Errorf("%q %v", text, err)
	}
	if err := <-ended; err != nil || !errors.Is(h.Err(), ErrClosed) {
		t.Errorf("%v %v", err, h.Err())
	}
}
