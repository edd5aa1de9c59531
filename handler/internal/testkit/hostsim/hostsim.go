// Package hostsim stands in for the Azure Functions host in tests: it reads an
// assembled application (host.json, function folders, the binary), starts the
// real binary as the host would, and passes requests to it with the changes that
// the host makes to them.
//
// What it does as observed on a running host (4.1037 with the proxying path of
// 2025), or as the host's source says:
//   - functions are tried by name, the first match wins, the method is part of
//     the match; letter case and a trailing slash do not matter; 404 otherwise;
//   - function keys are checked, 401 without a body, and travel on;
//   - a request body of known length is read whole first, at most 100 MiB;
//   - headers are changed, added, merged and dropped as listed in proxy.go;
//   - an answer's headers wait for its first byte; every write is flushed;
//     trailers are dropped although their announcement passes;
//   - 240 s without a byte end a call; a handler that fails is a bare 500; a
//     request whose body was not begun is sent up to ten times, under one
//     invocation id;
//   - the handler is ended by SIGKILL only. What it exits with decides what comes
//     next: 0 is never again, 200 is a clean restart, all else is an error, and the
//     third error within 30 minutes of the last stops the host;
//   - one call that outlives functionTimeout ends the handler and with it every
//     other call;
//   - a host that forwards instead of proxying, or that is too old for either and
//     sends envelopes, see [Mode].
//
// What differs from it: every process gets a port of its own; POST
// /admin/functions/<timer> answers when the function has run; redirects of an
// answer to an envelope are failures.
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
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Mode is how calls of HTTP functions reach the handler.
type Mode int

// The three ways. Only the first lets answers stream.
const (
	ModeProxy    Mode = iota // as they are: enableProxyingHttpRequest
	ModeForward              // rebuilt, and the answer buffered: enableForwardingHttpRequest
	ModeEnvelope             // as JSON, POST /<function>: a host that knows neither setting
)

// Options of a Host. Only Dist is required.
type Options struct {
	Dist   string   // folder with host.json
	Listen string   // default 127.0.0.1:0
	Env    []string // the handler's environment, NAME=value; nil: that of this process
	Mode   Mode     // whatever host.json asks for: an old host ignores what it does not know

	FunctionKeys map[string]string // by function name
	HostKey      string            // for every function of level function
	MasterKey    string            // for everything

	Version        string    // of the host, as told to the handler
	Stdout, Stderr io.Writer // copies of what the handler writes
	NoRestart      bool      // a handler that has exited stays so until Restart

	// Scale divides the next four, so that tests take seconds for minutes. What
	// depends on how long a process takes to start is not divided.
	Scale           int
	ActivityTimeout time.Duration // of a proxied call, without a byte in any direction; 240 s
	FunctionTimeout time.Duration // of a call; as host.json says
	FunctionGrace   time.Duration // from there until the handler is killed; 2 s
	ErrorWindow     time.Duration // an exit this long after the last one begins a new count; 30 min

	PollInterval time.Duration   // 25 ms
	InitTimeout  time.Duration   // until the handler listens; 30 s
	InvokeWait   time.Duration   // of a call, for a handler that starts; then the host stops; 120 s
	StopWait     time.Duration   // of Shutdown, for calls in flight; 10 s
	RetryWaits   []time.Duration // between tries: 50, 100, 200 and six times 250 ms
	TimerEvery   time.Duration   // how often timers fire by themselves; 0: only by [Host.Timer]
	Now          func() time.Time
}

// errorsMax is how many exits stop the host.
const errorsMax = 3

func (o *Options) setDefaults(app *App) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if o.Version == "" {
		o.Version = "4.1040.300"
	}
	scale := time.Duration(max(o.Scale, 1))
	for value, normal := range map[*time.Duration]time.Duration{
		&o.ActivityTimeout: 240 * time.Second / scale, &o.FunctionTimeout: app.FunctionTimeout / scale,
		&o.FunctionGrace: 2 * time.Second / scale, &o.ErrorWindow: 30 * time.Minute / scale,
		&o.PollInterval: 25 * time.Millisecond, &o.InitTimeout: 30 * time.Second, &o.InvokeWait: 120 * time.Second, &o.StopWait: 10 * time.Second,
	} {
		if *value <= 0 {
			*value = normal
		}
	}
	if o.RetryWaits == nil {
		o.RetryWaits = slices.Concat([]time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond},
			slices.Repeat([]time.Duration{250 * time.Millisecond}, 6))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// setting is what the handler's environment says, the last entry as a process
// would see it.
func (o *Options) setting(name string) (value string) {
	for _, e := range o.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// Host is a running host with its handler.
type Host struct {
	URL string // http://127.0.0.1:port

	app            *App
	options        Options
	server         *http.Server
	transport      *http.Transport
	stdout, stderr output
	lines          lines
	background     sync.WaitGroup
	done           chan struct{} // closed when the host has stopped
	throttled      atomic.Bool

	mu      sync.Mutex
	process *process
	failed  []time.Time // exits that count
	exits   []int       // codes of all that exited without being told by the host
	ended   error       // why the host stopped
}

// New reads the application, starts its handler and returns when it answers.
// It fails when the host would stop: the handler has failed to start three
// times.
func New(o Options) (*Host, error) {
	app, err := ReadApp(o.Dist)
	if err != nil {
		return nil, err
	}
	o.setDefaults(app)
	var listen net.ListenConfig
	listener, err := listen.Listen(context.Background(), "tcp", o.Listen)
	if err != nil {
		return nil, err
	}
	h := &Host{URL: "http://" + listener.Addr().String(), app: app, options: o, done: make(chan struct{})}
	h.stdout.next, h.stderr.next = o.Stdout, o.Stderr
	h.stdout.line = func(text string) { h.lines.add(LevelInformation, text) }
	h.stderr.line = func(text string) { h.lines.add(levelOf(text), text) }
	h.transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 1000, IdleConnTimeout: time.Minute}
	h.server = &http.Server{Handler: http.HandlerFunc(h.serve), ReadHeaderTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	h.background.Go(func() { _ = h.server.Serve(listener) }) // ends with stop
	h.mu.Lock()
	err = h.launch()
	h.mu.Unlock()
	if err == nil {
		_, err = h.handler(context.Background())
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	if o.TimerEvery > 0 {
		h.background.Go(h.fireTimers)
	}
	return h, nil
}

// Throttle makes the host refuse calls for want of capacity, or not.
func (h *Host) Throttle(on bool) { h.throttled.Store(on) }

// Stdout is the newest of what the handlers of this host have written.
func (h *Host) Stdout() string { return h.stdout.String() }

// Stderr is the same of standard error.
func (h *Host) Stderr() string { return h.stderr.String() }

// Lines is the same of both, with the level at which the host would log each
// line.
func (h *Host) Lines() []Line { return h.lines.all() }

// Done is closed when the host has stopped, by Close or because its handler
// failed too often. Err says why.
func (h *Host) Done() <-chan struct{} { return h.done }

// Err is why the host has stopped; nil while it runs.
func (h *Host) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// ErrClosed is the end of a host that was closed.
var ErrClosed = errors.New("the host was closed")

// Shutdown is what a signal does to the host: calls in flight may finish for a
// while, then the handler is killed. It is told nothing.
func (h *Host) Shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), h.options.StopWait)
	defer cancel()
	err := h.server.Shutdown(ctx)
	return errors.Join(err, h.Close())
}

// Close kills the handler and ends everything. Calls in flight are cut.
func (h *Host) Close() error {
	h.end(ErrClosed)
	h.background.Wait()
	h.transport.CloseIdleConnections()
	return nil
}

// end stops the host. The first reason counts.
func (h *Host) end(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endLocked(why)
}

func (h *Host) endLocked(why error) {
	if h.ended != nil {
		return
	}
	h.ended = why
	close(h.done)
	if h.process != nil {
		h.process.retire()
	}
	_ = h.server.Close()
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
