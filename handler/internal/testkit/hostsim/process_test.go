package hostsim

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestKillAndRestart(t *testing.T) {
	h := start(t, "1", Options{})
	first := h.Pid()
	h.Kill()
	if code, exited := h.Exited(); !exited || code != -1 {
		t.Errorf("exit code %d, %v", code, exited)
	}
	if answer, _ := ask(t, h, "GET", "/openai/echo", nil); answer.StatusCode != 500 {
		t.Errorf("killed: %d", answer.StatusCode)
	}
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, exited := h.Exited(); exited || h.Pid() == first {
		t.Error("it was not started again")
	}
	echo(t, h, "GET", "/openai/echo", nil)
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	ask(t, h, "POST", "/openai/exit?with=0", strings.NewReader("x"))
	if code, err := h.Wait(t.Context()); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := h.Restart(); !errors.Is(err, ErrDead) {
		t.Errorf("after exit 0: %v", err)
	}
	if n := strings.Count(h.Stdout(), "handler is up"); n != 3 {
		t.Errorf("started %d times", n)
	}
}

func TestBadStart(t *testing.T) {
	f := func(mode, want string) {
		t.Helper()
		o := Options{Dist: newDist(t), Env: append(os.Environ(), "HOSTSIM_FAKE="+mode), InitTimeout: 300 * time.Millisecond}
		if mode == "exits" {
			o.InitTimeout = 0
		}
		if h, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mode, err)
			if h != nil {
				h.Close()
			}
		}
	}
	f("exits", "exited with code 2")
	f("exits", "bad settings")
	f("deaf", "does not listen")
	if _, err := New(Options{Dist: t.TempDir()}); err == nil {
		t.Error("an empty folder was taken")
	}
}

func TestTimer(t *testing.T) {
	f := func(mode, want string) {
		t.Helper()
		h := start(t, mode, Options{MasterKey: "mk", HostKey: "hk"})
		logs, err := h.Timer(t.Context(), "maintain")
		if want == "" {
			if diff := cmp.Diff([]string{"swept"}, logs); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mode, err)
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
	f("timer empty", "empty answer")
	f("timer text", "content type")
	f("timer fails", "status 500")
	f("timer broken", "answer")
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

// The handler dies with the simulator, even if that is killed.
func TestChildDies(t *testing.T) {
	build := exec.Command("go", "build", "-o", filepath.Join(t.TempDir(), "hostsim"), "./cmd/hostsim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	f := func(signal syscall.Signal) {
		t.Helper()
		cmd := exec.Command(build.Args[3], "-dist", newDist(t), "-key", "k", "-timer", "0")
		cmd.Env = append(os.Environ(), "HOSTSIM_FAKE=1")
		stdout, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		lines.Scan()
		h := &Host{URL: lines.Text()}
		if s := echo(t, h, "POST", "/api/Quota", nil, "x-functions-key", "k"); s.Env["ASPNETCORE_URLS"] != h.URL {
			t.Errorf("got %v, URL %s", s.Env, h.URL)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if lines.Scan(); lines.Text() != "handler is up" {
			t.Errorf("second line %q", lines.Text())
		}
		for lines.Scan() { // until nobody has the other end
			t.Errorf("line %q", lines.Text())
		}
		err = cmd.Wait()
		if (err == nil) != (signal == syscall.SIGINT) {
			t.Errorf("%v: %v", signal, err)
		}
		if r, err := http.Get(h.URL + "/openai/echo"); err == nil {
			r.Body.Close()
			t.Error("something still answers")
		}
	}
	f(syscall.SIGINT)
	if runtime.GOOS == "linux" {
		f(syscall.SIGKILL)
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
