// Package hostsim stands in for the Azure Functions host in tests: it reads an
// assembled application (host.json, function folders, the binary), starts the
// real binary as the host would, and passes requests to it with the changes that
// the host makes to them.
//
// What it does as observed on a running host (4.1037 with the proxying path of
// 2025):
//   - functions are tried by name, the first match wins, the method is part of
//     the match; letter case and a trailing slash do not matter; 404 otherwise;
//   - function keys are checked, 401 without a body, and travel on;
//   - a request body of known length is read whole first, at most 100 MiB;
//   - headers are changed, added, merged and dropped as listed in proxy.go;
//   - an answer's headers wait for its first byte; every write is flushed;
//     trailers are dropped although their announcement passes;
//   - a handler that fails is a bare 500; a request whose body was not begun is
//     tried up to ten times;
//   - the handler is ended by SIGKILL only. Exit code 0 means never again.
//
// What it does not do yet: restart a handler by itself, stop after the third
// exit, functionTimeout, forwarding and envelopes for HTTP functions, throttling.
package hostsim

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// Options of a Host. Only Dist is required.
type Options struct {
	Dist   string   // folder with host.json
	Listen string   // default 127.0.0.1:0
	Env    []string // the handler's environment, NAME=value; nil: that of this process

	FunctionKeys map[string]string // by function name
	HostKey      string            // for every function of level function
	MasterKey    string            // for everything

	Version        string    // of the host, as told to the handler
	Stdout, Stderr io.Writer // copies of what the handler writes

	PollInterval    time.Duration   // 25 ms
	InitTimeout     time.Duration   // 30 s
	ActivityTimeout time.Duration   // without a byte in any direction; 240 s
	RetryWaits      []time.Duration // between tries: 50, 100, 200 and six times 250 ms
	TimerEvery      time.Duration   // how often timers fire by themselves; 0: only by [Host.Timer]
	Now             func() time.Time
}

func (o *Options) setDefaults() {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if o.Version == "" {
		o.Version = "4.1040.300"
	}
	if o.PollInterval <= 0 {
		o.PollInterval = 25 * time.Millisecond
	}
	if o.InitTimeout <= 0 {
		o.InitTimeout = 30 * time.Second
	}
	if o.ActivityTimeout <= 0 {
		o.ActivityTimeout = 240 * time.Second
	}
	if o.RetryWaits == nil {
		o.RetryWaits = slices.Concat([]time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond},
			slices.Repeat([]time.Duration{250 * time.Millisecond}, 6))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// ErrDead is a handler that has exited with code 0: the host never starts it
// again.
var ErrDead = errors.New("the handler exited with code 0 and is never started again")

// Host is a running host with its handler.
type Host struct {
	URL string // http://127.0.0.1:port

	app            *App
	options        Options
	server         *http.Server
	transport      *http.Transport
	stdout, stderr output
	timers         sync.WaitGroup
	stop           chan struct{}
	closing        sync.Once

	mu      sync.Mutex // guards process; held while one is started
	process *process
}

// New reads the application, starts its handler and returns when it answers.
func New(o Options) (*Host, error) {
	o.setDefaults()
	app, err := ReadApp(o.Dist)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, err
	}
	h := &Host{URL: "http://" + listener.Addr().String(), app: app, options: o, stop: make(chan struct{})}
	h.stdout.next, h.stderr.next = o.Stdout, o.Stderr
	h.transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 1000, IdleConnTimeout: time.Minute}
	h.server = &http.Server{Handler: http.HandlerFunc(h.serve), ReadHeaderTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	go func() { _ = h.server.Serve(listener) }() // ends with Close
	if err := h.start(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	if o.TimerEvery > 0 {
		h.timers.Go(h.fireTimers)
	}
	return h, nil
}

// start starts a process and waits until it answers. Requests wait, too.
func (h *Host) start() error {
	h.mu.Lock()
	p, err := h.spawn()
	if err == nil {
		h.process = p
	}
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("the handler cannot be started: %w", err)
	}
	return h.await(p)
}

func (h *Host) current() *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.process
}

// Kill ends the handler by SIGKILL and waits until it is gone. It is not
// started again by itself.
func (h *Host) Kill() {
	if p := h.current(); p != nil {
		p.kill()
	}
}

// Restart kills the handler, if it runs, and starts it again. It fails with
// ErrDead if the handler had exited with 0.
func (h *Host) Restart() error {
	if code, exited := h.Exited(); exited && code == 0 {
		return ErrDead
	}
	h.Kill()
	return h.start()
}

// Exited tells whether the handler has ended, and how: -1 is a signal.
func (h *Host) Exited() (code int, exited bool) {
	p := h.current()
	if p == nil {
		return 0, false
	}
	select {
	case <-p.ended:
		return p.code, true
	default:
		return 0, false
	}
}

// Wait waits for the handler's end and returns its exit code.
func (h *Host) Wait(ctx context.Context) (code int, err error) {
	select {
	case <-h.current().ended:
		return h.current().code, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Pid is the handler's process id.
func (h *Host) Pid() int { return h.current().cmd.Process.Pid }

// Stdout is the newest of what the handlers of this host have written.
func (h *Host) Stdout() string { return h.stdout.String() }

// Stderr is the same of standard error.
func (h *Host) Stderr() string { return h.stderr.String() }

// Close kills the handler and ends everything. Requests in flight are cut.
func (h *Host) Close() error {
	var err error
	h.closing.Do(func() {
		close(h.stop)
		h.Kill()
		err = h.server.Close()
		h.timers.Wait()
		h.transport.CloseIdleConnections()
	})
	return err
}

// TB is what Start needs of a testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Start is New for a test, which fails if it cannot, and Close at its end.
func Start(t TB, o Options) *Host {
	t.Helper()
	h, err := New(o)
	if err != nil {
		t.Fatalf("hostsim: %v", err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
