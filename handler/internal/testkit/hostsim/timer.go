package hostsim

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Tick is what the host tells a timer of its history. The zero value is that of
// a host without storage.
type Tick struct {
	Status  *TickStatus // nil: it never ran before
	PastDue bool
}

// TickStatus is when a timer ran and will run.
type TickStatus struct{ Last, Next, LastUpdated time.Time }

// Timer invokes a timer function that has no history, and returns what its
// answer wants logged. An answer that the host would count as a failure is an
// error; so is one that makes it wait until functionTimeout, after which the
// handler has been replaced.
func (h *Host) Timer(ctx context.Context, name string) (logs []string, err error) {
	return h.Tick(ctx, name, Tick{})
}

// Tick is Timer with a history.
func (h *Host) Tick(ctx context.Context, name string, tick Tick) (logs []string, err error) {
	f := h.timer(name)
	if f == nil {
		return nil, fmt.Errorf("no timer function is named %q", name)
	}
	ctx, done := h.limited(ctx)
	defer done()
	var status any
	if tick.Status != nil {
		local := func(t time.Time) string { return t.Local().Format(time.RFC3339Nano) }
		status = object{"Last": local(tick.Status.Last), "Next": local(tick.Status.Next), "LastUpdated": local(tick.Status.LastUpdated)}
	}
	data := object{f.Binding: object{"Schedule": object{"AdjustForDST": true}, "ScheduleStatus": status, "IsPastDue": tick.PastDue}}
	answer, err := h.send(ctx, f, data, object{})
	return answer.Logs, err
}

func (h *Host) timer(name string) *Function {
	for i, f := range h.app.Functions {
		if f.Timer && strings.EqualFold(f.Name, name) {
			return &h.app.Functions[i]
		}
	}
	return nil
}

// fireTimers invokes every timer function until the host stops. After the first
// time they have a history.
func (h *Host) fireTimers() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-h.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	ticker := time.NewTicker(h.options.TimerEvery)
	defer ticker.Stop()
	var tick Tick
	for {
		select {
		case <-h.done:
			return
		case <-ticker.C:
		}
		for _, f := range h.app.Functions {
			if !f.Timer {
				continue
			}
			if _, err := h.Tick(ctx, f.Name, tick); err != nil && ctx.Err() == nil {
				_, _ = fmt.Fprintf(&h.stderr, "hostsim: timer %s failed: %v\n", f.Name, err)
			}
		}
		now := h.options.Now()
		tick.Status = &TickStatus{Last: now, Next: now.Add(h.options.TimerEvery), LastUpdated: now}
	}
}
