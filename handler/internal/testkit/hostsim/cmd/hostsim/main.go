// Command hostsim runs the simulated Functions host on an assembled application,
// for tests in other languages. The first line of its standard output is the
// URL; after it comes what the handler writes, each to its own stream. The
// handler gets this process's environment. SIGINT and SIGTERM end both.
package main

import (
	"context"
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

func main() {
	dist := flag.String("dist", "dist", "folder with host.json, the function folders and the binary")
	listen := flag.String("listen", "127.0.0.1:0", "where the host listens; port 0: any")
	key := flag.String("key", "", "host and master key, for x-functions-key or ?code=; none: function routes answer 401")
	every := flag.Duration("timer", time.Minute, "how often timer functions run; 0: only by POST /admin/functions/<name> with the key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dist, *listen, *key, *every); err != nil {
		fmt.Fprintln(os.Stderr, "hostsim:", err)
		os.Exit(1) //nolint:gocritic // the signals end with the process
	}
}

func run(ctx context.Context, dist, listen, key string, every time.Duration) error {
	stdout := &gate{to: os.Stdout}
	host, err := hostsim.New(hostsim.Options{
		Dist: dist, Listen: listen, HostKey: key, MasterKey: key, TimerEvery: every, Stdout: stdout, Stderr: os.Stderr,
	})
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	stdout.open(host.URL + "\n")
	if code, err := host.Wait(ctx); err == nil {
		fmt.Fprintf(os.Stderr, "hostsim: the handler exited with code %d\n", code)
		<-ctx.Done()
	}
	return nil
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
