package ledger

import (
	"context"
	"time"
)

// Limits of the collection of names.
const (
	collectPagesMax = 20              // that one sweep reads, over all products
	collectMax      = 8 * time.Second // of one sweep
	collectEvery    = time.Hour       // at least, between the beginnings of two rounds of a process
)

// collection is how far this process is with a round over the names of effects:
// there may be a million of them, so that a sweep sees a part.
type collection struct {
	partitions []string // that are left, the first one partly
	from       string   // the row to go on from; empty: the first
	due        time.Duration
}

// collect deletes names of effects that are older than 7 days, by the store's
// clock: those of a product, and those of idempotent Creates in the index. It goes
// on where the last sweep stopped. Nothing depends on when a name goes.
func (l *Ledger) collect(ctx context.Context) {
	ctx, cancel := l.rt.Deadline(ctx, collectMax)
	defer cancel()
	c := &l.sweeps.names
	if len(c.partitions) == 0 {
		if l.rt.Elapsed() < c.due {
			return
		}
		// Every process begins somewhere else, in case it does not live for a round.
		c.partitions, c.from = rotated(l.rt, append([]string{indexPartition}, l.sweeps.ids...)), ""
		c.due = l.rt.Elapsed() + collectEvery
	}
	for pages := 0; pages < collectPagesMax && len(c.partitions) > 0 && ctx.Err() == nil; pages++ {
		next, err := l.collectPage(ctx, c.partitions[0], c.from)
		if err != nil && ctx.Err() != nil {
			return // the next sweep reads this page
		}
		if c.from = next; next == "" {
			c.partitions = c.partitions[1:]
		}
		if err != nil { // the rest of this partition is for the next round
			l.log.Warn("old names of effects stay for now", "error", err)
			return
		}
	}
}

// collectPage deletes the old names of one page. next is the row to go on from,
// empty after the last one and after an error.
func (l *Ledger) collectPage(ctx context.Context, partition, from string) (next string, err error) {
	prefix := prefixOnce
	if partition == indexPartition {
		prefix = prefixCreate
	}
	page, err := l.store.Range(ctx, partition, max(from, prefix), after(prefix), PageMax)
	if err != nil {
		return "", err
	}
	var old []Op
	for _, e := range page.Entities {
		if page.Date.Sub(e.Updated) > onceForgotten {
			old = append(old, Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: e.ETag}})
		}
	}
	for len(old) > 0 {
		n := min(len(old), OpsMax)
		if err := l.deleteAll(ctx, partition, old[:n]); err != nil {
			return "", err
		}
		l.counters.add("names collected")
		old = old[n:]
	}
	return page.Next, nil
}
