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
	"time"
)

// process is one life of the handler.
type process struct {
	cmd     *exec.Cmd
	port    string
	ready   chan struct{} // closed when it has answered for the first time
	ended   chan struct{} // closed when it has exited
	judged  chan struct{} // closed when the host has acted on that
	code    int           // after ended; -1: by a signal
	trouble error         // after judged: why it never became ready
	retired bool          // the host ended it itself; guarded by the host's lock
}

// spawn starts the handler on a free port.
func (h *Host) spawn() (*process, error) {
	var listen net.ListenConfig
	probe, err := listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(probe.Addr().String())
	if err := probe.Close(); err != nil {
		return nil, err
	}
	p := &process{port: port, ready: make(chan struct{}), ended: make(chan struct{}), judged: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), h.app.Executable) //nolint:gosec // the program that the application names
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

// retire is SIGKILL. No handler is ever told before.
func (p *process) retire() {
	p.retired = true
	_ = p.cmd.Process.Kill()
}

// why is the reason for which a process that has ended does not serve.
func (p *process) why() error {
	if p.trouble != nil {
		return p.trouble
	}
	if p.code == 0 {
		return ErrDead
	}
	return fmt.Errorf("%w, code %d", ErrExited, p.code)
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
			return nil
		}
		select {
		case <-ticker.C:
		case <-p.ended:
			return fmt.Errorf("%w, code %d, before it listened; its standard error: %s", ErrExited, p.code, lastLines(h.Stderr()))
		case <-ctx.Done():
			return errors.New("the handler does not listen on port " + p.port + " after " + h.options.InitTimeout.String())
		}
	}
}

func lastLines(text string) string {
	const most = 2000
	return strconv.Quote(text[max(0, len(text)-most):])
}
