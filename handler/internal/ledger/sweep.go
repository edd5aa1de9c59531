package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Tick does what the clock wants done; call it about twice a second. It only
// starts work.
func (l *Ledger) Tick() {
	l.mu.Lock()
	books := make([]*book, 0, len(l.books))
	for _, b := range l.books {
		books = append(books, b)
	}
	l.mu.Unlock()
	for _, b := range books {
		b.tick()
	}
}

func (b *book) tick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lease == nil {
		return
	}
	now := b.ledger.rt.Elapsed()
	quiet := now - b.usedAt
	if now-b.wroteAt >= heartbeatInterval {
		b.chores.beat = true
	}
	every := pollInterval
	if b.lease.Granted-b.lease.Settled > b.lease.held() && b.known && b.underPressure() {
		every = pollInterval / 4
	}
	if now-max(b.readAt, b.pollAt) >= every && quiet < idleClose {
		b.chores.poll, b.pollAt = true, now
	}
	if len(b.live) == 0 && quiet >= idleClose && b.allAcked() {
		b.chores.shut = true
	}
	if len(b.live) == 0 && quiet >= time.Second && b.lease.Slack > 0 {
		b.chores.idle = true
	}
	b.kick()
}

func (b *book) allAcked() bool {
	for _, m := range b.lease.Unsent {
		if !b.acked[m] {
			return false
		}
	}
	return true
}

// Close gives back what this process holds of every account, as far as nothing
// runs under it. Nothing depends on it.
func (l *Ledger) shut() {
	l.mu.Lock()
	books := make([]*book, 0, len(l.books))
	for _, b := range l.books {
		books = append(books, b)
	}
	l.mu.Unlock()
	for _, b := range books {
		b.mu.Lock()
		if b.lease != nil && len(b.live) == 0 && b.allAcked() {
			b.chores.shut = true
			b.kick()
		}
		b.mu.Unlock()
	}
}

// Run ticks and, if sweeping, sweeps once a minute until ctx ends.
func (l *Ledger) Run(ctx context.Context, sweeping bool) {
	swept := l.rt.Elapsed()
	for ctx.Err() == nil {
		l.rt.Sleep(tickInterval)
		l.Tick()
		if sweeping && l.rt.Elapsed()-swept >= sweepInterval {
			swept = l.rt.Elapsed()
			l.start(func() {
				if _, err := l.Sweep(ctx); err != nil && ctx.Err() == nil {
					l.log.Warn("sweep failed", "error", err)
				}
			})
		}
	}
}

// Sweep charges what processes that are gone have held: each intent becomes a
// record at its hold. It also deletes names of effects older than 7 days, and
// audits a slice of the books. Any process may sweep at any time, several at
// once too.
func (l *Ledger) Sweep(ctx context.Context) (swept int, err error) {
	ids, err := l.productIDs(ctx)
	if err != nil {
		return 0, fmt.Errorf("read products: %w", err)
	}
	for _, id := range ids {
		n, sweepErr := l.sweepProduct(ctx, id)
		swept += n
		if sweepErr == nil {
			sweepErr = l.forgetOnce(ctx, id)
		}
		if sweepErr != nil {
			err = errors.Join(err, fmt.Errorf("sweep %s: %w", id, sweepErr))
		}
	}
	if err == nil {
		err = l.audit(ctx, ids)
	}
	return swept, err
}

// allBooks reads the books of every period of a product.
func (l *Ledger) allBooks(ctx context.Context, product string) (map[string]*periodBooks, []string, error) {
	all, order := map[string]*periodBooks{}, []string{}
	err := l.scan(ctx, product, prefixAccount, func(e Entity, date time.Time) error {
		_, period, _ := splitBooksRow(e.Row)
		if all[period] == nil {
			all[period] = new(periodBooks)
			order = append(order, period)
		}
		all[period].date = date
		return all[period].add(e)
	})
	return all, order, err
}

// sweepProduct goes over a product's books until nothing is left to do, or
// something did not work out.
func (l *Ledger) sweepProduct(ctx context.Context, id string) (swept int, err error) {
	for range sweepRoundsMax {
		again := false
		all, order, err := l.allBooks(ctx, id)
		if err != nil {
			return swept, err
		}
		for _, period := range order {
			n, more, err := l.sweepPeriod(id, all[period])
			swept += n
			again = again || more
			if err != nil {
				return swept, err
			}
		}
		if !again || ctx.Err() != nil {
			return swept, ctx.Err()
		}
	}
	return swept, nil
}

// sweepPeriod makes at most one reclaim: it moves the account.
func (l *Ledger) sweepPeriod(id string, books *periodBooks) (swept int, again bool, err error) {
	if !books.exists {
		return 0, false, nil
	}
	listed := map[string]bool{}
	for i := range books.writeOffs {
		w := &books.writeOffs[i]
		listed[w.leaseID] = true
		again = true
		if l.mutated(SweepDeletesList) {
			w.list = nil
		}
		if err := l.materialize(id, w, books.account.Window.Name); err != nil {
			return 0, false, err
		}
	}
	for i := range books.leases {
		lease := &books.leases[i]
		switch {
		case lease.Closed && (len(lease.Unsent) == 0 || l.mutated(SweepDeletesUnsent)) && !listed[lease.ID]:
			l.drop(id, books.account.Window.Name, lease)
		case l.abandoned(lease, books.date):
			n, err := l.reclaim(id, books, lease)
			return n, true, err
		}
	}
	return 0, again, nil
}

// drop deletes a closed lease that has nothing left to tell.
func (l *Ledger) drop(product, period string, lease *storedLease) {
	ctx, cancel := l.timeout()
	defer cancel()
	_, _ = l.store.Apply(ctx, product, []Op{{Kind: Delete, Entity: Entity{Row: leaseRow(period, lease.ID), ETag: lease.etag}}}) // the next sweep sees it
}

// forgetOnce deletes the names of effects that are older than 7 days.
func (l *Ledger) forgetOnce(ctx context.Context, id string) error {
	var old []Op
	err := l.scan(ctx, id, prefixOnce, func(e Entity, date time.Time) error {
		if date.Sub(e.Updated) > onceForgotten && len(old) < OpsMax {
			old = append(old, Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: e.ETag}})
		}
		return nil
	})
	if err != nil || len(old) == 0 {
		return err
	}
	return l.deleteAll(ctx, id, old)
}
