package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Tick does what the clock wants done; call it about twice a second. It only
// starts work.
func (l *Ledger) Tick() {
	for _, b := range l.inOrder() {
		b.tick()
	}
}

// inOrder are the books of this process in the order of their names: what is
// written first must not depend on a map's order.
func (l *Ledger) inOrder() []*book {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.books), func(x, y *book) int {
		return cmp.Or(strings.Compare(x.product, y.product), strings.Compare(x.window.Name, y.window.Name))
	})
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
	if b.underPressure() {
		every = pollInterval / 4
	}
	idle := b.lease.Granted - b.lease.Settled - b.lease.held()
	if now-max(b.readAt, b.pollAt) >= every && (quiet < idleClose || idle > 0) {
		b.chores.poll, b.pollAt = true, now
	}
	if quiet >= idleClose && idle > 0 { // what runs may take long; the rest is for others
		b.chores.shrink, b.chores.idle = true, true
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
	if b.ledger.mutated(CloseUnsent) {
		return true
	}
	for _, m := range b.lease.Unsent {
		if !b.acked[m] {
			return false
		}
	}
	return len(b.paged) == 0
}

// Close gives back what this process holds of every account, as far as nothing
// runs under it. Nothing depends on it.
func (l *Ledger) shut() {
	for _, b := range l.inOrder() {
		b.mu.Lock()
		if b.lease != nil && len(b.live) == 0 && b.allAcked() {
			b.chores.shut = true
			b.kick()
		}
		b.mu.Unlock()
	}
}

// Run ticks and, if sweeping, sweeps once a minute until ctx ends, and returns
// when its last sweep has ended too.
func (l *Ledger) Run(ctx context.Context, sweeping bool) {
	swept := l.rt.Elapsed()
	var last Gate
	for ctx.Err() == nil {
		l.rt.Sleep(tickInterval)
		l.Tick()
		if sweeping && l.rt.Elapsed()-swept >= sweepInterval && !l.sweepRuns() {
			swept = l.rt.Elapsed()
			ended := l.rt.Gate()
			last = ended
			l.rt.Go(func() { // not a task that Drain waits for: it has nothing to lose
				defer ended.Open()
				l.sweepAndTell(ctx)
			})
		}
	}
	if last != nil {
		_ = last.Wait(context.Background())
	}
}

func (l *Ledger) sweepAndTell(ctx context.Context) {
	swept, err := l.Sweep(ctx)
	if swept > 0 {
		l.log.Info("holds of dead processes were charged", "records", swept)
	}
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, ErrBroken): // that one was logged where it was found
	case errors.Is(err, ErrUnfinished):
		l.log.Info("the sweep goes on with the next one", "error", err)
	default:
		l.log.Warn("sweep failed", "error", err)
	}
}

// Limits of a sweep.
const (
	sweepMax         = 50 * time.Second // of all
	sweepBooksMax    = 40 * time.Second // of it, for the books; the rest is for names and the audit
	sweepProductMax  = 15 * time.Second // of it, for one product
	sweepTriesMax    = 10               // of one change, in one sweep of a product
	sweepFailuresMax = 5                // products one after the other that cannot be read: the store is out of reach
	sweepErrorsMax   = 20               // that one answer tells of
)

// The errors of Sweep. Use errors.Is.
var (
	// ErrBroken is a row that no sweep can deal with: an operator has to look at
	// it. It was logged, and everything else was swept.
	ErrBroken = errors.New("the books have a row that cannot be swept")
	// ErrUnfinished is the end of the time: the next sweep of this process goes
	// on where this one stopped.
	ErrUnfinished = errors.New("not every product was swept in the time that there was")
)

func broken(product, row string, err error) error {
	return fmt.Errorf("%w: product %s, row %s: %w", ErrBroken, product, row, err)
}

// sweepState is how far the sweeps of this process are. All but running belongs
// to the sweep that runs.
type sweepState struct {
	running bool // guarded by Ledger.mu
	ids     []string
	next    int     // in ids
	failed  []error // of the products before next: what another sweep may mend
	broken  []error // and what none will
	names   collection
}

// Sweep charges what processes that are gone have held: each intent becomes a
// record at its hold. It also deletes old names of effects, and audits a slice of
// the books. It returns the number of requests that it charged.
//
// Any process may sweep at any time, several at once too. In one process one
// sweep runs at a time: a call that meets another one does nothing and returns
// nil at once. A sweep ends within 50 s; if the time was too short for all
// products its error is ErrUnfinished, and the next call goes on from there. What
// cannot be swept keeps nothing else from it: an error that is ErrBroken is told
// when all other products are swept, across as many calls as that took. Any
// other error says that a later sweep may do better.
func (l *Ledger) Sweep(ctx context.Context) (swept int, err error) {
	if !l.beginSweep() {
		l.counters.add("sweep skipped")
		return 0, nil
	}
	defer l.endSweep()
	ctx, cancel := l.rt.Deadline(ctx, sweepMax)
	defer cancel()
	if err := l.beginPass(ctx); err != nil {
		return 0, fmt.Errorf("read products: %w", err)
	}
	swept, err = l.sweepBooks(ctx)
	l.collect(ctx)
	l.collectCrossings(ctx)
	if auditErr := l.audit(ctx, l.sweeps.ids); err == nil || errors.Is(err, ErrBroken) {
		err = errors.Join(err, auditErr)
	}
	return swept, err
}

func (l *Ledger) beginSweep() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sweeps.running {
		return false
	}
	l.sweeps.running = true
	return true
}

func (l *Ledger) endSweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweeps.running = false
}

func (l *Ledger) sweepRuns() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sweeps.running
}

// beginPass begins a pass over all products, unless one goes on: anywhere, so
// that processes that do not live long reach all of them together.
func (l *Ledger) beginPass(ctx context.Context) error {
	s := &l.sweeps
	if s.next < len(s.ids) {
		return nil
	}
	ids, err := l.productIDs(ctx)
	if err != nil {
		return err
	}
	s.ids, s.next, s.failed, s.broken = rotated(l.rt, ids), 0, nil, nil
	return nil
}

// sweepBooks goes on with the pass.
func (l *Ledger) sweepBooks(ctx context.Context) (swept int, err error) {
	s := &l.sweeps
	ctx, cancel := l.rt.Deadline(ctx, sweepBooksMax)
	defer cancel()
	first, failures := s.next, 0
	for s.next < len(s.ids) {
		if ctx.Err() != nil || failures == sweepFailuresMax {
			l.counters.add("sweep cut")
			if failures == sweepFailuresMax {
				return swept, errors.Join(s.failed...)
			}
			return swept, fmt.Errorf("%w: %d of %d are left", ErrUnfinished, len(s.ids)-s.next, len(s.ids))
		}
		id := s.ids[s.next]
		n, err := l.sweepOne(ctx, id)
		swept += n
		if err != nil && ctx.Err() != nil && s.next > first {
			continue // the next call begins with it
		}
		s.next++ // whatever came of it: nothing keeps the others waiting
		failures++
		if err == nil {
			failures = 0
		} else {
			s.failed = noted(s.failed, fmt.Errorf("sweep %s: %w", id, err))
		}
	}
	if len(s.failed) > 0 {
		return swept, errors.Join(s.failed...)
	}
	return swept, errors.Join(s.broken...)
}

// sweepOne sweeps a product. An error says that it could not be read, or that
// the time ran out.
func (l *Ledger) sweepOne(ctx context.Context, id string) (swept int, err error) {
	ctx, cancel := l.rt.Deadline(ctx, sweepProductMax)
	defer cancel()
	p := &productSweep{ledger: l, id: id, tries: map[string]int{}, failed: map[string]error{}, broken: map[string]error{}}
	err = p.run(ctx)
	s := &l.sweeps
	for _, row := range slices.Sorted(maps.Keys(p.failed)) {
		s.failed = noted(s.failed, fmt.Errorf("sweep %s, row %s: %w", id, row, p.failed[row]))
	}
	for _, row := range slices.Sorted(maps.Keys(p.broken)) {
		l.counters.add("broken row")
		l.log.Error("BROKEN: a row of the books cannot be swept, and what it holds stays held until an operator mends it",
			"product_id", id, "row", row, "error", p.broken[row])
		s.broken = noted(s.broken, p.broken[row])
	}
	return p.swept, err
}

// rotated is a list that begins at another place.
func rotated(rt Runtime, ids []string) []string {
	if len(ids) == 0 {
		return nil
	}
	at := rt.Random(int64(len(ids)))
	return append(append(make([]string, 0, len(ids)), ids[at:]...), ids[:at]...)
}

func noted(errs []error, err error) []error {
	if len(errs) < sweepErrorsMax {
		return append(errs, err)
	}
	return errs
}

// readPeriod is what could be read of the books of a period.
type readPeriod struct {
	periodBooks
	name       string
	unreadable map[string]error // by row
}

// allBooks reads the books of every period of a product, in the order of their
// names. A row that cannot be read does not hide the others.
func (l *Ledger) allBooks(ctx context.Context, product string) ([]*readPeriod, error) {
	var all []*readPeriod
	at := map[string]*readPeriod{}
	err := l.scan(ctx, product, prefixAccount, func(e Entity, date time.Time) error {
		_, name, _ := splitBooksRow(e.Row)
		p := at[name]
		if p == nil {
			p = &readPeriod{name: name, unreadable: map[string]error{}}
			at[name] = p
			all = append(all, p)
		}
		p.date = date
		if err := p.add(e); err != nil {
			p.unreadable[e.Row] = err
		}
		return nil
	})
	return all, err
}

// productSweep is one sweep of a product.
type productSweep struct {
	ledger *Ledger
	id     string
	swept  int
	tries  map[string]int   // of a change, by the row and the ETag that it replaces
	failed map[string]error // by row: what the next sweep tries again
	broken map[string]error // by row
	missed int              // tries that failed in this round
}

// run goes over the books until nothing is left that can be done.
func (s *productSweep) run(ctx context.Context) error {
	for range sweepRoundsMax {
		periods, err := s.ledger.allBooks(ctx, s.id)
		if err != nil {
			return err
		}
		again := false
		s.missed = 0
		for _, p := range periods {
			again = s.period(p) || again
		}
		switch {
		case !again:
			s.crossings(ctx, periods)
			return s.retain(ctx, periods)
		case ctx.Err() != nil:
			return ctx.Err()
		case s.missed > 0:
			s.ledger.pause(s.missed)
		}
	}
	return errors.New("the books move too fast")
}

// retain forgets the records of periods that ended long ago.
func (s *productSweep) retain(ctx context.Context, periods []*readPeriod) error {
	keep := s.ledger.options.Retention
	if keep <= 0 || len(periods) == 0 {
		return nil
	}
	deleted, _, err := s.ledger.retain(ctx, s.id, periods, periods[0].date.Add(-max(keep, RetentionLeast)))
	if deleted > 0 {
		s.ledger.log.Info("records of periods that ended long ago were deleted; their sums are kept", "product_id", s.id, "records", deleted)
	}
	if err != nil {
		s.ledger.log.Warn("records of periods that ended long ago stay for now", "product_id", s.id, "error", err)
	}
	return nil
}

// period makes at most one reclaim, because that moves the account. It tells
// whether there may be more to do.
func (s *productSweep) period(p *readPeriod) (again bool) {
	listed := map[string]bool{}
	for row, err := range p.unreadable {
		s.broken[row] = broken(s.id, row, err)
		if kind, _, lease := splitBooksRow(row); kind == "W" {
			listed[lease] = true
		}
	}
	if !p.exists {
		return false
	}
	for i := range p.writeOffs {
		w := &p.writeOffs[i]
		listed[w.leaseID] = true
		if s.ledger.mutated(SweepDeletesList) {
			w.list = nil
		}
		made, more := s.change(w.row, func() error { return s.ledger.materialize(s.id, w, p.account.Window.Name) })
		again = again || made || more
	}
	for i := range p.leases {
		lease := &p.leases[i]
		switch {
		case lease.Closed && (len(lease.Unsent) == 0 || s.ledger.mutated(SweepDeletesUnsent)) && !listed[lease.ID]:
			s.ledger.drop(s.id, p.account.Window.Name, lease)
		case s.ledger.abandoned(lease, p.date):
			made, more := s.change(lease.row, func() error {
				n, err := s.ledger.tryReclaim(s.id, &p.periodBooks, lease)
				s.swept += n
				return err
			})
			if made {
				return true
			}
			again = again || more
		}
	}
	return again
}

// change changes a row, unless that has failed too often already. An answer that
// did not come says nothing, so the next round looks at the row again.
func (s *productSweep) change(row Entity, do func() error) (made, again bool) {
	try := row.Row + " " + row.ETag
	if s.tries[try] >= sweepTriesMax {
		return false, false
	}
	err := do()
	s.tries[try]++
	switch {
	case err == nil:
		return true, true
	case errors.Is(err, ErrBroken):
		s.tries[try] = sweepTriesMax
		s.broken[row.Row] = err
		return false, false
	}
	s.missed++
	if s.tries[try] < sweepTriesMax {
		return false, true
	}
	if errors.Is(err, ErrExists) { // every time, and the row is as it was: its records exist already
		s.broken[row.Row] = broken(s.id, row.Row, err)
	} else {
		s.failed[row.Row] = err
	}
	return false, false
}

// drop deletes a closed lease that has nothing left to tell.
func (l *Ledger) drop(product, period string, lease *storedLease) {
	ctx, cancel := l.timeout()
	defer cancel()
	_, _ = l.store.Apply(ctx, product, []Op{{Kind: Delete, Entity: Entity{Row: leaseRow(period, lease.ID), ETag: lease.etag}}}) // the next sweep sees it
}
