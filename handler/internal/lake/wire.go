package lake

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

const (
	portTLS, portPlain = "5671", "5672"

	dialTimeout = 5 * time.Second
	// dialPause lies between a failed dial and the next. The SDK's loops that
	// renew tokens dial without one, in as many goroutines as there are partitions.
	dialPause = 500 * time.Millisecond
)

// wire makes the connections of the SDK, watches what comes in on them, and can
// drop them: all that waits for a peer that has fallen silent then ends, also what
// has no deadline.
type wire struct {
	address string      // host:port
	tls     *tls.Config // nil: none, for the emulator

	unaccepted atomic.Int64 // transfers neither accepted nor rejected

	mu     sync.Mutex
	open   map[*wireConn]struct{}
	lost   bool      // a connection that was open is not, against our will
	failed time.Time // the last dial that failed
}

// newWire is for a namespace, host or host:port. TLS is that of config, nil for
// the defaults, and verifies the host's name.
func newWire(namespace string, plain bool, config *tls.Config) *wire {
	w := &wire{address: namespace, open: map[*wireConn]struct{}{}}
	host, _, err := net.SplitHostPort(namespace)
	port := portTLS
	if plain {
		port = portPlain
	}
	if err != nil { // it has no port
		host, w.address = namespace, net.JoinHostPort(namespace, port)
	}
	if plain {
		return w
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	w.tls = config.Clone()
	w.tls.MinVersion = max(w.tls.MinVersion, tls.VersionTLS12)
	if w.tls.ServerName == "" {
		w.tls.ServerName = host
	}
	return w
}

// dial is the SDK's hook for web sockets, which takes any connection and adds no
// TLS to it.
func (w *wire) dial(ctx context.Context, _ azeventhubs.WebSocketConnParams) (net.Conn, error) {
	if err := w.pause(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var (
		raw net.Conn
		err error
	)
	if w.tls == nil {
		raw, err = new(net.Dialer).DialContext(ctx, "tcp", w.address)
	} else {
		raw, err = (&tls.Dialer{Config: w.tls}).DialContext(ctx, "tcp", w.address)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed = time.Now()
		return nil, err
	}
	c := &wireConn{Conn: raw, wire: w}
	c.outcomes.count = func() { w.unaccepted.Add(1) }
	w.open[c] = struct{}{}
	return c, nil
}

// pause waits out what is left of the pause after a failed dial.
func (w *wire) pause(ctx context.Context) error {
	w.mu.Lock()
	left := time.Until(w.failed.Add(dialPause))
	w.mu.Unlock()
	if left <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// within is a context for calls of the SDK. When its time is up the connections are
// cut: whatever the call waits for then ends, and the next one finds a new
// connection, not the one that did not answer.
func (w *wire) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			w.drop()
		}
	})
	return ctx, func() {
		stop()
		cancel()
	}
}

// drop cuts all connections, without a farewell: that would wait, too.
func (w *wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.open {
		raw := c.Conn
		if t, ok := raw.(*tls.Conn); ok {
			raw = t.NetConn()
		}
		_ = raw.Close()
		w.lost = true
	}
	clear(w.open)
}

// isLost tells, once, that a connection was lost.
func (w *wire) isLost() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := w.lost
	w.lost = false
	return lost
}

// gone is called when a connection can be used no more.
func (w *wire) gone(c *wireConn, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, isOpen := w.open[c]; isOpen {
		delete(w.open, c)
		w.lost = w.lost || lost
	}
}

type wireConn struct {
	net.Conn
	wire     *wire
	outcomes outcomes
}

// Read is called by one goroutine at a time. What it has seen is counted before
// the SDK sees it.
func (c *wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.outcomes.read(p[:n])
	if err != nil {
		c.wire.gone(c, true)
	}
	return n, err
}

func (c *wireConn) Close() error {
	c.wire.gone(c, false)
	return c.Conn.Close()
}
