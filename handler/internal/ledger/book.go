package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// book is what one process knows of, and does to, one account: the lease that
// it holds, the requests that run under it, and what waits to be written. All
// that waits is written by one task, in as few transactions as fit; the task
// ends when nothing waits.
type book struct {
	ledger  *Ledger
	product string
	window  quota.Window

	mu       sync.Mutex // never held while waiting
	running  bool
	gone     bool      // it holds nothing, and is forgotten
	wants    []*want   // requests that ask for a hold
	endings  []*ending // requests that are over
	charges  []*charge // money already spent
	unlooked []*charge // of them, those whose names have to be looked for first
	looking  bool      // a task does that
	lates    []*ending // requests that are over, and whose lease is gone
	latesRun int       // tasks that end them
	live     map[string]*held
	acked    map[mark]bool          // records of the lease that the lake has
	offered  map[mark]time.Duration // of what the lease lists: when it was
	paged    map[mark]*page         // records of the lease's pages
	chores   chores

	// What is known of the store. Changed by the task only, under mu.
	known     bool
	account   account
	etag      string        // of the account; empty: there is none
	readAt    time.Duration // when the last read of the account was sent
	others    int64         // settled under other leases, when last read
	holders   int64         // open leases when last read
	wholeAt   time.Duration // when that read was sent
	product0  *quota.Product
	config    Entity // the row of product0
	lease     *lease // as committed; nil: none
	leaseETag string
	listBytes int   // that the lease's list of intents has at most
	slackNext int64 // of the transaction on its way; else lease.Slack

	crossed  []int64 // shares of the budget that are known as crossed
	noticing bool    // a task looks whether more are

	pressure   int64         // the account's counter as last seen; -1: never
	pressUntil time.Duration // until when idle shares go back
	failingAt  time.Duration // since when the store does not answer; -1: it does
	failedAt   time.Duration // when it last did not, while it does not

	usedAt  time.Duration // when a request was last admitted or ended
	wroteAt time.Duration // when the lease was last written
	pollAt  time.Duration
	rate    ewma
	tries   int
}

// chores are what the clock wants done.
type chores struct{ beat, poll, shrink, shut, idle bool }

func (c *chores) join(o chores) {
	c.beat, c.poll, c.shrink = c.beat || o.beat, c.poll || o.poll, c.shrink || o.shrink
	c.shut, c.idle = c.shut || o.shut, c.idle || o.idle
}

func (c chores) any() bool { return c.beat || c.poll || c.shrink || c.shut || c.idle }

// want is a request that asks for a hold.
type want struct {
	reservation Reservation
	hold        *Hold
	gate        Gate
	err         error
	done        bool          // the gate is open
	dropped     bool          // nobody waits any more
	asked       time.Duration // when it was queued
}

// held is a request that was admitted.
type held struct {
	intent  intent
	hold    *Hold
	listed  bool // in the lease row, as far as is known
	pending bool // in the row that is on its way
	lost    bool // its lease is gone: it ends by lateSettle
	leaseID string
	gate    Gate // open when listed, or lost
	opened  bool
}

// ending is a request that is over.
type ending struct {
	held    *held
	void    bool
	s       Settlement
	known   bool // its stored response has a row already
	gate    Gate
	err     error
	account *Account
	tries   int // of a late end
	done    bool
}

// charge is money that is spent already: it is recorded whatever the budget says.
type charge struct {
	record   usage.Record
	once     []Once
	gate     Gate
	err      error
	repeated bool
	looked   bool // its names are known to be free
	done     bool
	account  *Account
	settles  *Settlement // of a hold that was never listed
	hold     int64       // of it
	known    bool        // its stored response has a row already
}

// ewma is how fast holds are admitted: a guess at how much to ask for.
type ewma struct {
	at  time.Duration
	sum int64 // of about the last rateWindow
}

const rateWindow = 5 * time.Second

func (e *ewma) add(now time.Duration, amount int64) {
	if gap := max(0, now-e.at); gap >= rateWindow {
		e.sum = 0
	} else {
		high, low := bits.Mul64(uint64(e.sum), uint64(gap))
		faded, _ := bits.Div64(high, low, uint64(rateWindow)) // gap is less, so it fits
		e.sum -= int64(faded)
	}
	e.sum += min(amount, math.MaxInt64/8-e.sum)
	e.at = now
}

// per is what some seconds take.
func (e *ewma) per(seconds int64) int64 { return e.sum / int64(rateWindow/time.Second) * seconds }

func (l *Ledger) book(product string, window quota.Window) *book {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := accountKey{product, window.Name}
	b := l.books[key]
	if b == nil {
		if len(l.books) >= AccountsCachedMax {
			for other, idle := range l.books {
				if idle.retire() {
					delete(l.books, other)
					break
				}
			}
		}
		b = &book{
			ledger: l, product: product, window: window,
			live: map[string]*held{}, acked: map[mark]bool{}, offered: map[mark]time.Duration{}, paged: map[mark]*page{}, pressure: -1, failingAt: -1,
		}
		l.books[key] = b
	}
	return b
}

// retire ends a book that holds nothing. Who still has it gets another one.
func (b *book) retire() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = !b.running && b.lease == nil && len(b.live) == 0 && b.latesRun == 0 && !b.looking && !b.busy()
	return b.gone
}

// busy tells whether something waits to be written.
func (b *book) busy() bool {
	return len(b.wants) > 0 || len(b.endings) > 0 || len(b.charges) > 0 || b.chores.any()
}

// kick starts the task if it does not run. b.mu is held.
func (b *book) kick() {
	if !b.running && b.busy() {
		b.running = true
		b.ledger.start(b.run)
	}
}

func (b *book) run() {
	for {
		b.mu.Lock()
		if !b.busy() {
			b.running = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		switch wrote, err := b.step(); {
		case err != nil:
			b.backoff(err)
		case wrote:
			b.tries = 0
		case b.waiting(): // what waits cannot be written now; never spin
			b.ledger.pause(1)
		}
	}
}

func (b *book) backoff(err error) {
	b.failing(err)
	b.tries++
	if errors.Is(err, ErrUnavailable) && b.tries%5 == 1 || b.tries%20 == 0 {
		b.ledger.log.Warn("ledger transaction not confirmed, trying again",
			"product_id", b.product, "period", b.window.Name, "tries", b.tries, "error", err)
	}
	b.ledger.pause(b.tries)
}

// answered notes that the store does answer.
func (b *book) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failingAt = -1
}

func (b *book) waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy()
}

// failing answers the requests that wait, when the store has not answered for so
// long that nothing that is known is valid any more.
func (b *book) failing(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.ledger.rt.Elapsed()
	switch {
	case !errors.Is(err, ErrUnavailable):
		return
	case b.failingAt < 0 || now-b.failedAt > 2*outageAfter: // nobody has asked meanwhile
		b.failingAt, b.failedAt = now, now
		return
	}
	b.failedAt = now
	switch {
	case now-b.failingAt >= outageAfter:
		b.ledger.counters.add("outage")
		for _, w := range b.wants {
			w.finish(err)
		}
		b.wants = nil
	}
}

// step reads what must be known, and writes one transaction of what waits, if it
// makes one.
func (b *book) step() (wrote bool, err error) {
	b.dropWants()
	if err := b.prepare(); err != nil {
		return false, err
	}
	fresh := false
	for {
		p := b.compose(fresh)
		if p.err != nil {
			b.refuse(p)
			return false, p.err
		}
		if p.doubt { // what this process remembers says no: ask the store before saying so
			if err := b.recall(); err != nil {
				return false, err
			}
			fresh = true
			continue
		}
		b.refuse(p)
		if len(p.ops) == 0 {
			b.press(p)
			return len(p.denied) > 0, nil
		}
		err := b.commit(p)
		if err == nil {
			b.press(p)
		}
		return true, err
	}
}

// press calls idle shares of other processes back, after a request was refused
// that would have fitted into them. Nothing depends on whether it succeeds.
func (b *book) press(p *plan) {
	b.mu.Lock()
	others := b.holders
	if b.lease != nil {
		others--
	}
	needed := others > 0 && b.known && b.etag != "" && b.pressUntil-b.ledger.rt.Elapsed() < pressureFor/2
	a, before := b.account, b.account.entity()
	before.ETag = b.etag
	b.mu.Unlock()
	if !needed || !slices.ContainsFunc(p.denied, denial.held) {
		return
	}
	a.Pressure++
	a.Version++
	e := a.entity()
	e.ETag = before.ETag
	ops := []Op{{Kind: Replace, Entity: e}}
	if b.ledger.sound(b.product, []Entity{before}, ops, 0) != nil {
		return
	}
	ctx, cancel := b.ledger.timeout()
	defer cancel()
	etags, err := b.ledger.store.Apply(ctx, b.product, ops)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.known = false
		return
	}
	b.ledger.counters.add("pressed")
	b.account, b.etag = a, etags[0]
	b.pressed()
}

// dropWants forgets requests that nobody waits for any more.
func (b *book) dropWants() {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.wants[:0]
	for _, w := range b.wants {
		if !w.dropped {
			kept = append(kept, w)
		}
	}
	clear(b.wants[len(kept):])
	b.wants = kept
}

// valid tells whether what is known of the account is young enough to admit.
func (b *book) valid() bool {
	return b.known && (b.ledger.rt.Elapsed()-b.readAt <= validity || b.ledger.mutated(StopUnseen))
}

// prepare does all reading that a transaction needs: composing one must not wait.
func (b *book) prepare() error {
	b.mu.Lock()
	read := !b.known || b.chores.poll || (len(b.wants) > 0 && !b.valid())
	whole := !b.known
	read = read && !(b.known && b.ledger.mutated(StopUnseen))
	b.chores.poll = false
	b.mu.Unlock()
	if read {
		var err error
		if whole {
			err = b.readAll()
		} else {
			err = b.refresh()
		}
		if err != nil {
			if errors.Is(err, ErrUnknownProduct) {
				b.failAll(err)
				return nil
			}
			return err
		}
	}
	return nil
}

// failAll ends all that waits: the product is gone.
func (b *book) failAll(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.wants {
		w.finish(err)
	}
	for _, c := range b.charges {
		c.finish(err)
	}
	b.wants, b.charges, b.chores = nil, nil, chores{}
}

// queue puts a charge to those that are written next, or first to those whose
// names are looked for: nothing else waits for that. b.mu is held.
func (b *book) queue(charges ...*charge) {
	for _, c := range charges {
		if c.looked || len(c.once) == 0 {
			b.charges = append(b.charges, c)
			continue
		}
		b.unlooked = append(b.unlooked, c)
		if !b.looking {
			b.looking = true
			b.ledger.start(b.look)
		}
	}
	b.kick()
}

// look finds out which charges were made before.
func (b *book) look() {
	try := 0
	for c := b.nextUnlooked(); c != nil; c = b.nextUnlooked() {
		ctx, cancel := b.ledger.timeout()
		repeated, err := b.ledger.named(ctx, b.product, c.once)
		cancel()
		if err != nil && !errors.Is(err, ErrOtherBody) {
			try++
			b.ledger.pause(min(try, 6))
			continue
		}
		try = 0
		b.mu.Lock()
		b.unlooked = b.unlooked[1:]
		if repeated || err != nil {
			c.repeated = repeated
			c.finish(err)
		} else {
			c.looked = true
			b.queue(c)
		}
		b.mu.Unlock()
	}
}

// nextUnlooked is the next to be looked for; if there is none the task is over.
func (b *book) nextUnlooked() *charge {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.unlooked) == 0 {
		b.looking = false
		return nil
	}
	return b.unlooked[0]
}

// refresh reads the account again, and the configuration if the account knows
// of another one.
func (b *book) refresh() error {
	ctx, cancel := b.ledger.timeout()
	defer cancel()
	sent := b.ledger.rt.Elapsed()
	row, err := b.ledger.store.Get(ctx, b.product, accountRow(b.window.Name))
	missing := errors.Is(err, ErrMissing)
	if err != nil && !missing {
		return err
	}
	product, config := b.product0, b.config
	if missing || row.Ints["Config"] != product.Version {
		if product, config, err = b.ledger.readProduct(ctx, b.product); err != nil {
			return err
		}
	}
	b.mu.Lock()
	closed := !missing && row.Ints["Closed"] != b.account.Closed
	b.mu.Unlock()
	if closed { // a lease of another process is gone: what it settled counts there now
		return b.readAll()
	}
	if !missing && (b.hidden(row) || b.recount(row)) {
		return b.readAll()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.product0, b.config, b.readAt, b.failingAt = product, config, sent, -1
	if missing {
		b.account, b.etag = b.unopened(), ""
	} else {
		b.account, b.etag = accountOf(row), row.ETag
	}
	b.pressed()
	b.notice()
	return nil
}

// unopened is the account of a period in which nothing happened.
func (b *book) unopened() account {
	return account{Window: b.window, Budget: b.product0.Budget}
}

// pressed notes that idle shares are called back: the account's counter has
// moved since this process last looked. b.mu is held.
func (b *book) pressed() {
	if b.account.Pressure > b.pressure {
		if b.pressure >= 0 {
			b.pressUntil = b.ledger.rt.Elapsed() + pressureFor
		}
		b.pressure = b.account.Pressure
	}
	if b.lease != nil && (b.underPressure() || b.overcommitted()) {
		b.chores.shrink = true
	}
}

// underPressure: for some seconds after it was asked for, nobody keeps more than
// it needs. b.mu is held.
func (b *book) underPressure() bool { return b.ledger.rt.Elapsed() < b.pressUntil }

// readAll reads the whole books of the period, in one page's snapshot.
func (b *book) readAll() error {
	ctx, cancel := b.ledger.timeout()
	defer cancel()
	sent := b.ledger.rt.Elapsed()
	books, err := b.ledger.readBooks(ctx, b.product, b.window.Name)
	if err != nil {
		return err
	}
	return b.takeBooks(ctx, &books, sent)
}

// takeBooks takes over what a read shows that was sent at some time.
func (b *book) takeBooks(ctx context.Context, books *periodBooks, sent time.Duration) (err error) {
	product, config := b.product0, b.config
	if product == nil || !books.exists || books.account.Config != product.Version {
		if product, config, err = b.ledger.readProduct(ctx, b.product); err != nil {
			return err
		}
	}
	b.mu.Lock()
	gone := b.lease != nil
	for i := range books.leases {
		if l := &books.leases[i]; gone && l.ID == b.lease.ID && !l.Closed {
			gone = false
		}
	}
	b.mu.Unlock()
	if gone {
		b.lose(nil, false)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known, b.product0, b.config, b.readAt, b.failingAt = true, product, config, sent, -1
	b.account, b.etag = books.account, books.row.ETag
	if !books.exists {
		b.account = b.unopened()
	}
	b.others, b.holders, b.wholeAt = 0, 0, sent
	for i := range books.leases {
		if l := &books.leases[i]; !l.Closed {
			b.holders++
			if b.lease == nil || l.ID != b.lease.ID {
				b.others += l.Settled
			}
		}
	}
	b.pressed()
	b.notice()
	return nil
}

// recall reads everything before a request is refused, and frees what processes
// that are gone have held.
func (b *book) recall() error {
	ctx, cancel := b.ledger.timeout()
	defer cancel()
	sent := b.ledger.rt.Elapsed()
	books, err := b.ledger.readBooks(ctx, b.product, b.window.Name)
	if err != nil {
		return err
	}
	own := ""
	if b.lease != nil {
		own = b.lease.ID
	}
	for i := range books.leases {
		if l := &books.leases[i]; l.ID != own && b.ledger.abandoned(l, books.date) {
			if _, err := b.ledger.reclaim(b.product, &books, l); err != nil {
				continue // it is broken, and the sweep says so
			}
			return b.readAll() // the account has moved; the rest is for the next denial, or the sweep
		}
	}
	return b.takeBooks(ctx, &books, sent)
}

// readBooks reads a period's rows. It is one page, and so one snapshot, as long
// as there are fewer than PageMax leases.
func (l *Ledger) readBooks(ctx context.Context, product, period string) (periodBooks, error) {
	var books periodBooks
	end := prefixAccount + period + afterBooks
	for from := accountRow(period); from != ""; {
		page, err := l.store.Range(ctx, product, from, end, PageMax)
		if err != nil {
			return books, err
		}
		books.date = page.Date
		for _, e := range page.Entities {
			if err := books.add(e); err != nil {
				return books, err
			}
		}
		from = page.Next
	}
	return books, nil
}

func (b *periodBooks) add(e Entity) error {
	kind, _, _ := splitBooksRow(e.Row)
	switch kind {
	case "A":
		b.exists, b.account, b.row = true, accountOf(e), e
	case "T":
		b.total = totalOf(e)
	case "L":
		l, err := leaseHead(e)
		if err != nil {
			return fmt.Errorf("lease %s/%s: %w", e.Partition, e.Row, err)
		}
		b.leases = append(b.leases, storedLease{l, e.ETag, e.Updated, e.Ints["Held"], e})
	case "W":
		list, err := intentsOf(e.Texts)
		if err != nil {
			return fmt.Errorf("write-off %s/%s: %w", e.Partition, e.Row, err)
		}
		_, _, id := splitBooksRow(e.Row)
		b.writeOffs = append(b.writeOffs, storedWriteOff{id, list, e})
	}
	return nil
}

func (w *want) finish(err error) {
	if !w.done {
		w.done, w.err = true, err
		w.gate.Open()
	}
}

func (e *ending) finish(err error) {
	if !e.done {
		e.done, e.err = true, err
		e.gate.Open()
	}
}

func (c *charge) finish(err error) {
	if !c.done {
		c.done, c.err = true, err
		c.gate.Open()
	}
}
