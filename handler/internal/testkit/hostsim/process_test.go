package hostsim

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

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
