package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// fate is what became of a transaction whose answer is not to be trusted.
type fate int

const (
	fateUnknown   fate = iota // it may have happened, or may still happen: the same bytes again
	fateCommitted             // it happened
	fateClosed                // it happened, and then the lease was reclaimed
	fateDead                  // it did not happen and never will
	fateLost                  // the lease is gone; whether it happened is not known
	fateGone                  // the lease is gone, and it did not happen
)

// commit sends a transaction until its fate is known. Every answer but OK is
// ambiguous: a conflict may be the answer to its own second copy.
func (b *book) commit(p *plan) error {
	for try := 0; ; try++ {
		ctx, cancel := b.ledger.timeout()
		sent := b.ledger.rt.Elapsed()
		etags, err := b.ledger.store.Apply(ctx, b.product, p.ops)
		cancel()
		if err == nil {
			b.apply(p, etags, sent)
			if p.closing && b.ledger.mutated(CloseWhileRunning) {
				b.lose(nil, false)
			}
			return b.admit(p)
		}
		if errors.Is(err, ErrInvalid) {
			return b.unsendable(p, err)
		}
		if b.ledger.mutated(UnknownIsFailed) || b.ledger.mutated(FreshKey) {
			return b.naive(p)
		}
		f, etags := b.resolve(p, err)
		switch f {
		case fateCommitted:
			b.apply(p, etags, sent)
			b.forget() // the account may have moved on since
			return b.admit(p)
		case fateClosed:
			b.apply(p, etags, sent)
			b.lose(nil, false)
			return b.admit(p)
		case fateDead:
			b.unpublish(p, false)
			b.ledger.pause(min(try, 2))
			return nil
		case fateLost, fateGone:
			b.lose(p, f == fateLost)
			return nil
		case fateUnknown:
			b.ledger.counters.add("resent")
			b.backoff(err)
		}
	}
}

// resolve finds out what became of a transaction whose answer was err. The order
// of the reads is the point: first the account and the row that may be in the
// way, then the lease. What they show was so before the lease was read; so if the
// lease does not have our nonce, none of it is our own doing.
func (b *book) resolve(p *plan, err error) (fate, []string) {
	etags := make([]string, len(p.ops))
	var early Entity
	var earlyFound bool
	if b.ledger.mutated(LeaseBeforeAccount) {
		early, earlyFound = b.read(leaseRow(b.window.Name, p.lease.ID))
	}
	moved, blocked := false, false
	if p.touchesA {
		row, _ := b.read(accountRow(b.window.Name))
		moved = row.ETag != b.etag // both empty: missing
		etags[p.accountI] = row.ETag
		if p.configI >= 0 {
			row, _ := b.read(rowConfig)
			moved = moved || row.ETag != b.config.ETag
			etags[p.configI] = row.ETag
		}
	}
	for _, row := range p.inTheWay(err) {
		if _, found := b.read(row); found && !b.ledger.mutated(BlockedIgnored) {
			blocked, p.found[row] = true, true
			break
		}
	}
	row, found := b.read(leaseRow(b.window.Name, p.lease.ID))
	if b.ledger.mutated(LeaseBeforeAccount) {
		row, found = early, earlyFound
	}
	switch {
	case !found && p.closing:
		return fateCommitted, etags // or somebody else closed it: it had nothing to lose
	case !found && p.opening && !moved && !blocked:
		return b.unmoved(), nil
	case !found && p.opening && !moved:
		if row, _ := b.read(accountRow(b.window.Name)); row.ETag == b.etag {
			return fateDead, nil // what is in the way is not our own
		}
		return b.withoutLease(p), etags
	case !found:
		return b.withoutLease(p), etags
	}
	etags[p.leaseI] = row.ETag
	mine, closed := row.Texts["Nonce"] == p.lease.Nonce, row.Ints["Closed"] != 0
	switch {
	case mine && closed:
		return fateClosed, etags
	case mine:
		return fateCommitted, etags
	case closed:
		return b.withoutLease(p), etags
	case moved, blocked:
		return fateDead, nil
	}
	return b.unmoved(), nil
}

// withoutLease is the fate of a transaction whose lease is gone: it cannot happen
// any more, and if it did, each record that it wrote is there, as it wrote it.
func (b *book) withoutLease(p *plan) fate {
	for i := range p.ops {
		if !strings.HasPrefix(p.ops[i].Entity.Row, prefixUsage) {
			continue
		}
		if row, found := b.read(p.ops[i].Entity.Row); found && row.Texts["Doc"] == p.ops[i].Entity.Texts["Doc"] {
			return fateClosed
		}
		return fateGone
	}
	return fateLost
}

// read reads a row of the product until the store answers.
func (b *book) read(row string) (e Entity, found bool) {
	for {
		ctx, cancel := b.ledger.timeout()
		e, err := b.ledger.store.Get(ctx, b.product, row)
		cancel()
		if err == nil || errors.Is(err, ErrMissing) {
			b.answered()
			return e, err == nil
		}
		b.backoff(err)
	}
}

// inTheWay are the rows that may keep a transaction from ever happening: the
// names of effects, and stored responses. Only an answer that says that a row
// exists gives reason to look, and it says which.
func (p *plan) inTheWay(err error) (rows []string) {
	at := (*OpError)(nil)
	if !errors.Is(err, ErrExists) || !errors.As(err, &at) {
		return nil
	}
	for i := range p.ops {
		row := p.ops[i].Entity.Row
		if (at.Index == i || at.Index < 0) && (strings.HasPrefix(row, prefixOnce) || strings.HasPrefix(row, prefixResponse)) {
			rows = append(rows, row)
		}
	}
	return rows
}

// unmoved: that a transaction's rows are as they were proves nothing: it may
// still be on its way.
func (b *book) unmoved() fate {
	if b.ledger.mutated(UnmovedIsDead) {
		return fateDead
	}
	return fateUnknown
}

// unsendable is a defect: the store does not accept the transaction's form.
func (b *book) unsendable(p *plan, err error) error {
	b.ledger.breakProduct(b.product, fmt.Errorf("BUG: the store does not accept a transaction: %w", err))
	b.unpublish(p, false)
	return err
}

// apply takes over what a transaction wrote.
func (b *book) apply(p *plan, etags []string, sent time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.ledger.rt.Elapsed()
	b.wroteAt, b.failingAt = now, -1
	if p.touchesA {
		b.account, b.etag, b.readAt = p.account, etags[p.accountI], sent
		b.pressed()
		if p.configI >= 0 {
			b.config.ETag = etags[p.configI]
		}
	}
	if p.opening {
		b.holders++
	}
	if p.closing {
		b.lease, b.leaseETag, b.slackNext = nil, "", 0
		b.holders--
	} else {
		l := p.lease
		b.lease, b.leaseETag, b.slackNext = &l, etags[p.leaseI], l.Slack
	}
	for _, m := range p.acked {
		delete(b.acked, m)
	}
	for _, h := range p.added {
		h.listed, h.pending = true, false
		h.pass()
	}
	for i := range p.admitted { // of added the last ones, in the same order
		h := p.added[len(p.added)-len(p.admitted)+i]
		b.live[h.intent.ID] = h
	}
	b.hand(p, now) // before anybody is told: who is told may look at the lake
	view := b.view()
	for _, e := range p.ended {
		delete(b.live, e.held.intent.ID)
		e.held.pass()
		e.account = &view
		e.finish(nil)
	}
	for _, c := range p.charged {
		c.account = &view
		c.finish(nil)
	}
	if len(p.ended)+len(p.admitted) > 0 {
		b.usedAt = now
	}
	b.notice()
}

func (h *held) pass() {
	if !h.opened {
		h.opened = true
		h.gate.Open()
	}
}

// hand gives fresh records to the lake. b.mu is held; OnRecord does not block.
func (b *book) hand(p *plan, now time.Duration) {
	for i := range p.records {
		r := &p.records[i]
		b.offered[mark{r.ID, r.Rev}] = now
	}
	for _, full := range p.pages {
		b.turn(full)
	}
	for i := range p.records {
		r := &p.records[i]
		m := mark{r.ID, r.Rev}
		if !b.ledger.options.OnRecord(b.product, markRow(b.window.Name, p.lease.ID, m), *r) {
			b.untaken(m, now-2*resendAfter)
		}
	}
}

// view is the account as far as this process knows it. b.mu is held.
func (b *book) view() Account {
	a := b.account
	v := Account{
		Period: a.Window.Name, Start: a.Window.Start, End: a.Window.End, Budget: a.Budget, Spent: a.Closed + b.others,
		Records: a.Records, Tokens: a.Tokens, Overruns: a.Overruns, Version: a.Version,
	}
	if b.lease != nil {
		v.Spent += b.lease.Settled
		v.Held = b.lease.held() + b.lease.Slack
	}
	return v
}

// admit lets the requests go that a committed transaction lists, unless the
// wait for it was so long that a stop may have come meanwhile.
func (b *book) admit(p *plan) error {
	b.mu.Lock()
	valid := b.valid() || len(p.admitted) == 0
	b.mu.Unlock()
	if b.ledger.mutated(StopNotRechecked) {
		valid = true
	}
	waited := !valid
	if !valid {
		if err := b.refresh(); err != nil {
			valid = false
		} else {
			valid = true
		}
	}
	b.mu.Lock()
	stop, stopped := b.product0.Stopped(b.ledger.rt.Now())
	stopped = stopped && !b.ledger.mutated(StopNotRechecked)
	view := b.view()
	for i, w := range p.admitted {
		h := p.added[len(p.added)-len(p.admitted)+i]
		var err error
		switch {
		case h.lost: // once more, under another id
			b.lateVoidOf(h)
			b.ledger.rename(w)
			b.wants = append(b.wants, w)
			continue
		case !valid:
			err = ErrUnavailable
		case stopped:
			err = &Refusal{Reason: ReasonStopped, Stop: stop, Window: b.window}
		case waited && b.overcommitted(): // the budget was lowered meanwhile
			err = &Refusal{Reason: ReasonHeld, Window: b.window}
		}
		if err != nil || w.dropped {
			b.endings = append(b.endings, &ending{held: h, void: true, gate: b.ledger.rt.Gate()})
		}
		w.hold.Account = view
		w.finish(err)
	}
	b.mu.Unlock()
	return nil
}

func (b *book) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known = false
}

// refuse answers the requests that do not fit.
func (b *book) refuse(p *plan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range p.denied {
		b.wants = without(b.wants, []*want{d.want})
		d.want.finish(d.err)
	}
}

// unpublish puts back what a dead transaction carried; the next one is composed
// from the store's state. maybe: it is not known whether it happened.
func (b *book) unpublish(p *plan, maybe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known = false
	b.chores.join(p.chores)
	if b.lease != nil {
		b.slackNext = b.lease.Slack
	}
	for _, h := range p.added {
		h.pending = false
	}
	for _, w := range p.admitted {
		if maybe && b.ledger.mutated(RequeueSameID) {
			continue
		}
		if maybe { // the old id may be listed, or charged already
			b.lateVoidOf(w.hold.held)
		}
		b.ledger.rename(w)
	}
	for _, c := range p.charged {
		for _, once := range c.once {
			c.looked = c.looked && !p.found[once.row()]
		}
		c.known = c.settles != nil && (c.known || p.found[responseRow(c.settles.StoredResponse)])
	}
	for _, e := range p.ended {
		e.known = e.known || p.found[responseRow(e.s.StoredResponse)]
	}
	b.wants = append(append([]*want{}, p.admitted...), b.wants...)
	b.endings = append(append([]*ending{}, p.ended...), b.endings...)
	waiting := b.charges
	b.charges = nil
	b.queue(p.charged...)
	b.charges = append(b.charges, waiting...)
}

// lose forgets a lease that somebody else closed. Every request that runs under
// it ends by itself. p is the transaction that was on its way, or nil; maybe: it
// is not known whether it happened.
func (b *book) lose(p *plan, maybe bool) {
	b.ledger.counters.add("lost")
	if p != nil {
		b.unpublish(p, maybe && !b.ledger.mutated(LostIsFailed))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lease, b.leaseETag, b.slackNext, b.known = nil, "", 0, false
	if b.ledger.mutated(LostIsFailed) {
		return
	}
	b.forgetPages()
	b.acked, b.offered, b.chores = map[mark]bool{}, map[mark]time.Duration{}, chores{}
	for _, h := range b.ordered() {
		h.lost = true
		h.pass()
		delete(b.live, h.intent.ID)
	}
	var kept []*ending
	for _, e := range b.endings {
		if e.held.lost {
			b.late(e)
		} else {
			kept = append(kept, e)
		}
	}
	b.endings = kept
}

// late ends a request whose lease is gone. Only some at a time: each changes the
// account. b.mu is held.
func (b *book) late(e *ending) {
	b.lates = append(b.lates, e)
	if b.latesRun < lateTasksMax {
		b.latesRun++
		b.ledger.start(b.runLate)
	}
}

func (b *book) runLate() {
	for e := b.nextLate(); e != nil; e = b.nextLate() {
		var err error
		var done bool
		if e.void {
			done, err = b.tryLateVoid(e.held.intent.ID, e.held.leaseID)
		} else {
			done, err = b.tryLateSettle(e)
		}
		if !done && !errors.Is(err, errFinal) && !errors.Is(err, ErrInvalid) {
			b.ledger.pause(min(e.tries, 6))
			b.mu.Lock()
			e.tries++
			b.lates = append(b.lates, e) // behind the others: what keeps it may not keep them
			b.mu.Unlock()
			continue
		}
		if !done {
			b.ledger.log.Error("BUG: a late record cannot be written", "product_id", b.product, "record", e.held.intent.ID, "error", err)
		}
		b.mu.Lock()
		e.finish(err)
		b.mu.Unlock()
	}
}

// nextLate takes one from the queue; if there is none the task is over.
func (b *book) nextLate() *ending {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lates) == 0 {
		b.latesRun--
		return nil
	}
	e := b.lates[0]
	b.lates = b.lates[1:]
	return e
}

// lateVoidOf gives back what a request may hold that is listed again under
// another id. b.mu is held.
func (b *book) lateVoidOf(h *held) {
	b.late(&ending{held: h, void: true, gate: b.ledger.rt.Gate()})
}

var errLeaseLost = fmt.Errorf("the lease was reclaimed: %w", ErrUnavailable)

func (l *Ledger) timeout() (ctx context.Context, cancel context.CancelFunc) {
	return l.rt.Deadline(context.Background(), txnTimeout)
}

// pause waits a jittered while that grows with the number of tries.
func (l *Ledger) pause(try int) {
	base := min(5*time.Millisecond<<min(try, 10), time.Second)
	l.rt.Sleep(base/2 + time.Duration(l.rt.Random(int64(base))))
}

// start runs a task that Drain waits for.
func (l *Ledger) start(task func()) {
	l.mu2.Lock()
	l.tasks++
	l.mu2.Unlock()
	l.rt.Go(func() {
		task()
		l.mu2.Lock()
		l.tasks--
		l.mu2.Unlock()
	})
}

// rename gives a request that has to be listed again a record id of its own:
// the late fate of the old one must not touch it.
func (l *Ledger) rename(w *want) {
	fresh := *w.hold
	fresh.held = nil
	fresh.Record.ID = l.options.NewID(l.rt.Now())
	fresh.Record.Time = timeOf(fresh.Record.ID)
	w.hold = &fresh
}

func timeOf(recordID string) time.Time {
	ms, _ := idMillis(recordID) // it was just made
	return time.UnixMilli(ms).UTC()
}

func randomName(rt Runtime) string {
	return fmt.Sprintf("%012x%012x", rt.Random(1<<48), rt.Random(1<<48))
}

// recordIDFor makes a UUID version 7.
func recordIDFor(rt Runtime, now time.Time) string {
	var id uuid.UUID
	ms := now.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	a, c := rt.Random(1<<62), rt.Random(1<<62)
	for i := range 5 {
		id[6+i], id[11+i] = byte(a>>(8*i)), byte(c>>(8*i))
	}
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id.String()
}
