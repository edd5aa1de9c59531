package ledger

import (
	"context"
	"math/rand/v2"
	"time"
)

// realtime is the Runtime of production. Nothing else in this package reads a
// clock or starts a goroutine (a test enforces it).
type realtime struct {
	now   func() time.Time
	began time.Time
}

// Realtime is the machine's own clocks and goroutines. now may be nil.
func Realtime(now func() time.Time) Runtime {
	if now == nil {
		now = time.Now
	}
	return &realtime{now, time.Now()}
}

func (r *realtime) Now() time.Time         { return r.now() }
func (r *realtime) Elapsed() time.Duration { return time.Since(r.began) }
func (r *realtime) Go(task func())         { go task() }
func (r *realtime) Sleep(d time.Duration)  { time.Sleep(d) }
func (r *realtime) Gate() Gate             { return gate(make(chan struct{})) }
func (r *realtime) Random(n int64) int64   { return rand.Int64N(n) }

func (r *realtime) Deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

type gate chan struct{}

func (g gate) Open() { close(g) }

func (g gate) Wait(ctx context.Context) error {
	select { // an open gate goes before an ended context
	case <-g:
		return nil
	default:
	}
	select {
	case <-g:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
