package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// load is an open loop of so many requests per second, or a closed one of so
// many clients.
type load struct {
	perSecond, clients int
	span               time.Duration
}

func (l load) String() string {
	if l.clients > 0 {
		return fmt.Sprintf("c=%d", l.clients)
	}
	return fmt.Sprintf("%d/s", l.perSecond)
}

func (l load) run(ctx context.Context, span time.Duration, ask func(due time.Time) answer) *tally {
	if l.clients > 0 {
		return closedLoop(ctx, l.clients, span, func(int) answer { return ask(time.Now()) })
	}
	return openLoop(ctx, l.perSecond, span, 0, func(_ int, due time.Time) answer { return ask(due) })
}

// count is what a load cost the table.
type count struct {
	*tally
	transactions, reads int
	behind              int // records that had not come to the lake when waiting ended
}

// countTransactions counts the calls of one process. Under the gentlest load all
// variants run at the same time, each on an Azurite of its own: it has to last
// long, and who else asks another table does not change a count.
func (b *bench) countTransactions(ctx context.Context) error {
	worlds := make([]*world, len(b.variants))
	for i, v := range b.variants {
		w, err := b.open(ctx, v, b.instant, 1, true)
		if err != nil {
			return err
		}
		defer w.close()
		worlds[i] = w
	}
	for i, l := range b.loads {
		counts, errs := make([]*count, len(worlds)), make([]error, len(worlds))
		var together sync.WaitGroup
		for j, w := range worlds {
			together.Go(func() { counts[j], errs[j] = w.count(ctx, l, 2*b.warmUp) })
			if i > 0 {
				together.Wait() // one after the other
			}
		}
		together.Wait()
		for j, v := range b.variants {
			if errs[j] != nil {
				return errs[j]
			}
			c := counts[j]
			b.counted[name(v, l)] = c
			b.say("%s, %s: %d served in %v, %d transactions, %d reads, not served: %s", l, v.name, len(c.whole), c.took.Round(time.Millisecond), c.transactions, c.reads, c.losses())
		}
	}
	return ctx.Err()
}

// count counts from the first request until the lake has every record: handing
// them over costs transactions too.
func (w *world) count(ctx context.Context, l load, warmUp time.Duration) (*count, error) {
	ask := func(due time.Time) answer { return w.ask(ctx, 0, false, due) }
	have, err := w.fleet.Lake()
	if err != nil {
		return nil, err
	}
	warmed := l.run(ctx, warmUp, ask)
	if _, err := w.drain(ctx, len(have)+len(warmed.whole)); err != nil {
		return nil, err
	}
	if have, err = w.fleet.Lake(); err != nil {
		return nil, err
	}
	before := w.proxy.Counts()
	c := &count{tally: l.run(ctx, l.span, ask)}
	c.warmedBy(warmed)
	if c.behind, err = w.drain(ctx, len(have)+len(c.whole)); err != nil {
		return nil, err
	}
	after := w.proxy.Counts()
	c.transactions, c.reads = after["transactions"]-before["transactions"], after["reads"]-before["reads"]
	return c, nil
}

const (
	drainMax = 15 * time.Second
	ackMax   = 700 * time.Millisecond // from a record's coming to the lake until the table knows
)

// drain waits until the lake has n records, and says how many it lacks after 15 s.
func (w *world) drain(ctx context.Context, n int) (behind int, err error) {
	for began := time.Now(); ; {
		have, err := w.fleet.Lake()
		if err != nil {
			return 0, err
		}
		behind = max(0, n-len(have))
		if behind == 0 || time.Since(began) > drainMax || ctx.Err() != nil {
			pause(ctx, ackMax)
			return behind, nil
		}
		pause(ctx, 200*time.Millisecond)
	}
}
