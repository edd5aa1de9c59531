package hostsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// OutputBytesMax bounds what is kept of each of the handler's two outputs: the
// newest bytes.
const OutputBytesMax = 1 << 20

// output keeps the end of a stream and passes all of it on.
type output struct {
	mu   sync.Mutex
	kept []byte
	next io.Writer // may be nil
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, p...)
	if len(o.kept) > 2*OutputBytesMax {
		o.kept = append([]byte(nil), o.kept[len(o.kept)-OutputBytesMax:]...)
	}
	if o.next != nil {
		_, _ = o.next.Write(p) // the handler must not die of a reader's end
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.kept[max(0, len(o.kept)-OutputBytesMax):])
}

// process is one life of the handler.
type process struct {
	cmd   *exec.Cmd
	port  string
	ready chan struct{} // closed when it has answered for the first time
	ended chan struct{} // closed when it has exited
	code  int           // after ended; -1: by a signal
}

// spawn starts the handler on a free port.
func (h *Host) spawn() (*process, error) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(probe.Addr().String())
	if err := probe.Close(); err != nil {
		return nil, err
	}
	p := &process{port: port, ready: make(chan struct{}), ended: make(chan struct{})}
	p.cmd = exec.Command(h.app.Executable) //nolint:gosec // the program that the application names
	p.cmd.Dir = h.app.WorkDir
	id := newGUID()
	p.cmd.Env = append(withoutHostVariables(h.options.Env),
		"FUNCTIONS_CUSTOMHANDLER_PORT="+port, "FUNCTIONS_CUSTOMHANDLER_WORKER_ID="+id,
		"FUNCTIONS_HTTPWORKER_PORT="+port, "FUNCTIONS_HTTPWORKER_ID="+id,
		"FUNCTIONS_APP_ROOT_PATH="+h.app.Dir, "ASPNETCORE_URLS="+h.URL)
	p.cmd.Stdout, p.cmd.Stderr = &h.stdout, &h.stderr
	p.cmd.WaitDelay = time.Second // a grandchild may hold the outputs open
	dieWithParent(p.cmd)
	started := make(chan error)
	go func() {
		// The kernel ends the child with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = p.cmd.Wait() // the state has the exit code
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func withoutHostVariables(env []string) []string {
	kept := make([]string, 0, len(env)+6)
	for _, e := range env {
		if !strings.HasPrefix(e, "FUNCTIONS_CUSTOMHANDLER_") && !strings.HasPrefix(e, "FUNCTIONS_HTTPWORKER_") &&
			!strings.HasPrefix(e, "FUNCTIONS_APP_ROOT_PATH=") && !strings.HasPrefix(e, "ASPNETCORE_URLS=") {
			kept = append(kept, e)
		}
	}
	return kept
}

// kill is SIGKILL, and waits for the end. No handler is ever told before.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// await polls the handler's root until it answers anything.
func (h *Host) await(p *process) error {
	ctx, cancel := context.WithTimeout(context.Background(), h.options.InitTimeout)
	defer cancel()
	ticker := time.NewTicker(h.options.PollInterval)
	defer ticker.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+p.port+"/", nil)
		if err != nil {
			return err
		}
		if answer, err := h.transport.RoundTrip(r); err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
			_ = answer.Body.Close()
			close(p.ready)
			return nil
		}
		select {
		case <-ticker.C:
		case <-p.ended:
			return fmt.Errorf("the handler exited with code %d before it listened; its standard error: %s", p.code, lastLines(h.Stderr()))
		case <-ctx.Done():
			return errors.New("the handler does not listen on port " + p.port + " after " + h.options.InitTimeout.String())
		}
	}
}

func lastLines(text string) string {
	const most = 2000
	return strconv.Quote(text[max(0, len(text)-most):])
}
