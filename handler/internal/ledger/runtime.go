package ledger

import (
	"context"
	"time"
)

// Runtime is how the protocol tells time, waits and runs things side by side.
// It has no other way to do so: what runs in production is what the simulator
// runs, on virtual time and in an order that a seed decides.
type Runtime interface {
	// Now is the wall clock. It names periods and ids; no safety depends on it.
	Now() time.Time
	// Elapsed is a monotonic clock of this process.
	Elapsed() time.Duration
	// Go runs a task beside the caller.
	Go(task func())
	// Sleep waits.
	Sleep(d time.Duration)
	// Gate makes a closed gate.
	Gate() Gate
	// Deadline is a context that ends after d.
	Deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
	// Random is a number in [0, n).
	Random(n int64) int64
}

// Gate lets one event be waited for.
type Gate interface {
	// Open lets all pass, now and later. It may be called once.
	Open()
	// Wait returns nil when the gate is open, or the context's error.
	Wait(ctx context.Context) error
}
