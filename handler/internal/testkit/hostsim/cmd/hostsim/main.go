// Command hostsim runs the simulated Functions host on an assembled application,
// by hand or for tests in other languages. The first line of its standard output
// is the URL; after it comes what the handler writes, each to its own stream. The
// handler gets this process's environment. SIGTERM lets calls in flight finish,
// SIGINT cuts them; both kill the handler. It ends with 1 when the host would
// stop: the handler has exited for the third time.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/costgate/costgate/handler/internal/testkit/hostsim"
)

var modes = map[string]hostsim.Mode{"proxy": hostsim.ModeProxy, "forward": hostsim.ModeForward, "envelope": hostsim.ModeEnvelope}

func main() {
	var o hostsim.Options
	flag.StringVar(&o.Dist, "dist", "dist", "folder with host.json, the function folders and the binary")
	flag.StringVar(&o.Listen, "listen", "127.0.0.1:0", "where the host listens; port 0: any")
	flag.StringVar(&o.HostKey, "key", "", "host and master key, for x-functions-key or ?code=; none: function routes answer 401")
	flag.DurationVar(&o.TimerEvery, "timer", time.Minute, "how often timer functions run; 0: only by POST /admin/functions/<name> with the key")
	flag.IntVar(&o.Scale, "scale", 1, "divide by it: 240 s of silence, functionTimeout, the 30 minutes of the third exit")
	mode := flag.String("mode", "proxy", "proxy, forward, or envelope: an old host")
	flag.Parse()
	o.MasterKey = o.HostKey
	var known bool
	if o.Mode, known = modes[*mode]; !known || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "hostsim: -mode is proxy, forward or envelope, and there are no arguments")
		os.Exit(2)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := run(o, signals); err != nil {
		fmt.Fprintln(os.Stderr, "hostsim:", err)
		os.Exit(1)
	}
}

func run(o hostsim.Options, signals <-chan os.Signal) error {
	stdout := &gate{to: os.Stdout}
	o.Stdout, o.Stderr = stdout, os.Stderr
	host, err := hostsim.New(o)
	if err != nil {
		return err
	}
	stdout.open(host.URL + "\n")
	select {
	case s := <-signals:
		if s == syscall.SIGTERM {
			return host.Shutdown()
		}
		return host.Close()
	case <-host.Done():
		return errors.Join(host.Err(), host.Close())
	}
}

// gate holds the handler's output back until the URL is on the first line. What
// comes before that is little: the handler's start.
type gate struct {
	mu     sync.Mutex
	to     io.Writer
	early  []byte
	opened bool
}

func (g *gate) open(first string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = true
	_, _ = g.to.Write(append([]byte(first), g.early...))
	g.early = nil
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.opened {
		g.early = append(g.early, p...)
		return len(p), nil
	}
	return g.to.Write(p)
}
