// Package ledger keeps the money: what every product may spend, what is held
// for requests that are running, and one record for each that ran.
//
// It owns these promises (names as in docs/ARCHITECTURE.md):
//   - hard limit: the holds and charges of a hard product never exceed its
//     budget for the period, at any parallelism, on any number of processes;
//   - one record per forwarded request, whatever ends it;
//   - what was spent is the sum of the records, always: a record and its charge
//     are one transaction.
//
// A product's budget for a period is an account row. A process takes a share of
// it, a lease, in a row of its own, and lists there, before it forwards
// anything, each request that it runs and what that may cost at most. So
// processes do not contend for a row, what a dead one may have spent is known,
// and whoever closes a lease fences the process that holds it: no clock decides
// about money. docs/ACCOUNTING.md tells the protocol.
//
// An answer that did not arrive says nothing, and neither does a conflict: a
// message may be delivered twice (see commit.go). Nothing is ever reset: the
// period is part of the account's key.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Limits of the ledger.
const (
	AccountsCachedMax = 10_000 // accounts with a writer's state in memory
	KeysCachedMax     = 50_000 // product keys, known and unknown
	QueueMax          = 100_000
	HistoryMax        = 1000 // records in one page of history
	KeysPerProductMax = 20
	ProductsMax       = 100_000
	IntentsMax        = 1000      // requests that run under one lease
	IntentBytesMax    = 300 << 10 // of what a lease says of them
	AuditRowsMax      = 20_000
	UnsentMax         = 128 // records that one lease lists for the lake; more are on pages of as many

	TxnRowsMax     = OpsMax - 3 // besides the account, the configuration and the lease
	TxnRowBytesMax = 1 << 20    // of them
	OrphansMax     = 95         // records that one reclaim writes itself; the rest it lists
	ListedMax      = 45         // listed intents that one transaction turns into records
	sweepRoundsMax = 1000
	clocksOff      = time.Hour // how far a process's clock may be off for an edit to reach the period that it uses
	lateTasksMax   = 4
	amendTriesMax  = 20

	productTTL        = 5 * time.Second  // how long a product is used without being read again
	unknownKeyTTL     = time.Second      // the same for "there is no such key"
	productStaleMax   = 10 * time.Minute // how long it is used while the store cannot be reached
	heartbeatInterval = 10 * time.Second
	abandonedAfter    = 30 * time.Second        // a lease that was not written for so long is reclaimed
	validity          = 5 * time.Second         // how old what is known of a stop or a budget may be
	pollInterval      = 2500 * time.Millisecond // between two reads of an account that is in use
	idleClose         = 20 * time.Second        // a lease that was not used for so long is given back
	tickInterval      = 500 * time.Millisecond
	sweepInterval     = time.Minute
	pressureFor       = 5 * time.Second // how long a request that found all money held calls it back
	grantSeconds      = 10              // what a lease asks for at most, in seconds of its spending
	slackSeconds      = 2               // the slack of overlap, likewise
	txnTimeout        = 3 * time.Second
	resendAfter       = 10 * time.Second // a record that the lake has not acknowledged is offered again
	onceForgotten     = 7 * 24 * time.Hour
	settleWaitMax     = 10 * time.Second // how long an answer is kept open for its settlement
	reserveWaitMax    = 15 * time.Second
	outageAfter       = validity        // so long without an answer of the store, and requests are refused at once
	softWaitMax       = 2 * time.Second // the same for a soft product, which then goes on without
)

// The errors of a Ledger. Use errors.Is.
var (
	ErrUnknownProduct = errors.New("no such product")
	ErrUnknownKey     = errors.New("no product has this key")
	ErrKeyTaken       = errors.New("this key belongs to another product")
	ErrUnknownRecord  = errors.New("no such record")
	ErrNotSwept       = errors.New("the record was not swept: it holds what the request really cost")
	ErrOtherBody      = errors.New("this idempotency key was used with another body")
	ErrBusy           = fmt.Errorf("too many operations wait: %w", ErrUnavailable)
)

// Refusal is why a reserve was denied. It is an error.
type Refusal struct { //nolint:errname // it is what a caller acts on, an error only by the way
	Reason Reason
	Stop   quota.Stop   // of ReasonStopped
	Window quota.Window // the running period
}

// Reason is why a reserve was denied.
type Reason string

// Exhausted: the hold does not fit into what is left of the budget. Held: it
// would fit if running requests settled for less than their holds.
const (
	ReasonStopped   Reason = "stopped"
	ReasonExhausted Reason = "exhausted"
	ReasonHeld      Reason = "held"
)

func (r *Refusal) Error() string { return "refused: " + string(r.Reason) }

// Options are the parts a Ledger needs.
type Options struct {
	Instance string                     // a name that no process ever had before
	Embedded bool                       // this process is the only user of the store
	Now      func() time.Time           // of the default Runtime
	Runtime  Runtime                    // default Realtime(Now)
	NewID    func(now time.Time) string // default UUIDv7
	// OnRecord hands a record that was stored to the lake. It must not block. What
	// it does not take is found by the next look at the outbox.
	OnRecord func(product, outbox string, record usage.Record) (taken bool)
	// OnCrossing is called when a product's spending has reached a share of its
	// budget (Product.NotifyAtPPM) and that was stored, to be told of: see
	// WaitingCrossings. It must not block. nil: nobody wants to know, and nothing is
	// stored.
	OnCrossing func()
	// Retention is how long records are kept behind the end of their period, at
	// least RetentionLeast; 0: for ever. See Retain.
	Retention time.Duration
	Log       *slog.Logger
	Limits    Limits // zero: those of the constants
	// Mutant breaks one rule of the protocol, by its name. It is for the
	// simulator, which must notice.
	Mutant Mutant
}

// Limits are lower ones than the constants of the same names, for tests that
// want to reach them.
type Limits struct {
	Intents, IntentBytes, Unsent, TxnRows, TxnRowBytes, Orphans, Listed int
}

// Ledger is the books of all products. It is safe for concurrent use.
type Ledger struct {
	store   Store
	options Options
	log     *slog.Logger
	rt      Runtime

	mu        sync.Mutex // asked for before a book's, never after it
	books     map[accountKey]*book
	keys      map[string]*cachedKey
	newest    map[string]*quota.Product // by id; at most ProductsMax
	sweeps    sweepState
	outbox    outboxState
	counters  counters
	crossings crossingState
	broken    sync.Map // by product: the assertion that failed

	mu2   sync.Mutex
	tasks int // that run
}

type accountKey struct{ product, period string }

// New makes a ledger on a store.
func New(store Store, options Options) *Ledger {
	if options.Runtime == nil {
		options.Runtime = Realtime(options.Now)
	}
	options.Now = options.Runtime.Now
	if options.Limits == (Limits{}) {
		options.Limits = Limits{IntentsMax, IntentBytesMax, UnsentMax, TxnRowsMax, TxnRowBytesMax, OrphansMax, ListedMax}
	}
	if options.NewID == nil {
		options.NewID = func(now time.Time) string { return recordIDFor(options.Runtime, now) }
	}
	if options.OnRecord == nil {
		options.OnRecord = func(string, string, usage.Record) bool { return true }
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	return &Ledger{
		store: store, options: options, log: options.Log, rt: options.Runtime,
		books: map[accountKey]*book{}, keys: map[string]*cachedKey{}, newest: map[string]*quota.Product{},
	}
}

// Reservation asks for money before a request is forwarded.
type Reservation struct {
	Product *quota.Product
	// Min and Max bound the hold, in the product's unit. A hard product is
	// granted Max if it fits, else all that is available if that is at least
	// Min, else it is refused.
	Min, Max int64
	// Record is what is known of the request: it becomes the record if this
	// process dies. ID, Rev, Time, Period, Product and Unit are filled in here.
	Record usage.Record
	// HoldNanoUSD is what the granted amount is worth, for the record.
	HoldNanoUSD func(granted int64) usage.Count
}

// Hold is money set aside for one request. It must be settled or voided.
type Hold struct {
	Product  *quota.Product
	Amount   int64 // in the product's unit
	Record   usage.Record
	Account  Account // as it was when the hold was taken
	period   quota.Window
	unlisted bool // the store was out of reach and the product is soft: there is no intent
	held     *held
	book     *book
}

// Unlisted tells whether the hold is in no row: the store was out of reach and
// the product is soft.
func (h *Hold) Unlisted() bool { return h.unlisted }

// grant makes it a hold of an amount.
func (h *Hold) grant(amount int64, r *Reservation) {
	h.Amount = amount
	if r.HoldNanoUSD != nil {
		h.Record.HoldNanoUSD = r.HoldNanoUSD(amount)
	}
}

// Durable waits until the hold survives the process; then the client may see
// the answer's first byte. For all but overlap products it is so at once. An
// error means that the request must end without an answer.
func (h *Hold) Durable(ctx context.Context) error {
	if h.held == nil {
		return nil
	}
	ctx, cancel := h.book.ledger.rt.Deadline(ctx, reserveWaitMax)
	defer cancel()
	if err := h.held.gate.Wait(ctx); err != nil {
		return fmt.Errorf("hold %s is not durable: %w", h.Record.ID, errors.Join(ErrUnavailable, err))
	}
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	if !h.held.listed {
		return errLeaseLost
	}
	return nil
}

// Reserve takes a hold and makes the intent durable (an overlap product's may be
// made so while the request runs: see Durable). It returns a *Refusal if the
// budget does not allow it, and an error that is ErrUnavailable if the store did
// not answer (a soft product gets an unlisted hold then).
func (l *Ledger) Reserve(ctx context.Context, r Reservation) (*Hold, error) {
	now := l.rt.Now()
	window, err := r.Product.WindowAt(now)
	if err != nil {
		return nil, err
	}
	b := l.book(r.Product.ID, window)
	w := &want{reservation: r, hold: l.newHold(&r, window, now), gate: l.rt.Gate()}
	if b.quick(w) {
		return w.hold, nil
	}
	wait := reserveWaitMax
	if r.Product.Enforcement == quota.EnforceSoft {
		wait = softWaitMax
	}
	if b, err = l.ask(b, w); err != nil {
		return nil, err
	}
	ctx, cancel := l.rt.Deadline(ctx, wait)
	defer cancel()
	if waitErr := w.gate.Wait(ctx); waitErr != nil {
		b.mu.Lock()
		w.dropped = true
		done := w.done
		b.mu.Unlock()
		if !done {
			return l.withoutStore(&r, window, now, errors.Join(ErrUnavailable, waitErr))
		}
		if w.err == nil { // it came in the very moment
			return w.hold, nil
		}
	}
	switch {
	case w.err == nil:
		return w.hold, nil
	case errors.As(w.err, new(*Refusal)):
		return nil, w.err
	}
	return l.withoutStore(&r, window, now, w.err)
}

// withoutStore lets a soft product go on, unless it is stopped as far as is
// known: its hold is in no row, and its record follows when the store is back.
func (l *Ledger) withoutStore(r *Reservation, window quota.Window, now time.Time, err error) (*Hold, error) {
	if r.Product.Enforcement != quota.EnforceSoft || errors.Is(err, errFinal) || errors.Is(err, ErrUnknownProduct) || errors.Is(err, ErrBusy) || errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	stop, stopped := l.newestOf(r.Product).Stopped(now)
	b := l.book(r.Product.ID, window)
	b.mu.Lock()
	waiting, view := len(b.charges)+len(b.unlooked), Account{Period: window.Name, Budget: r.Product.Budget}
	if b.product0 != nil {
		view = b.view()
	}
	b.mu.Unlock()
	if stopped {
		return nil, &Refusal{Reason: ReasonStopped, Stop: stop, Window: window}
	}
	if waiting >= QueueMax {
		return nil, ErrBusy
	}
	l.counters.add("unlisted")
	unlisted := l.newHold(r, window, now)
	unlisted.unlisted, unlisted.Account = true, view
	unlisted.grant(r.Max, r)
	return unlisted, nil
}

// ask queues a request for a hold. It returns the book that has it.
func (l *Ledger) ask(b *book, w *want) (*book, error) {
	b = l.lock(b)
	defer b.mu.Unlock()
	if len(b.wants) >= QueueMax {
		return b, ErrBusy
	}
	w.asked = l.rt.Elapsed()
	b.wants = append(b.wants, w)
	b.kick()
	return b, nil
}

// lock locks the book of an account: that one, or, if it was forgotten
// meanwhile, the one that took its place.
func (l *Ledger) lock(b *book) *book {
	for {
		b.mu.Lock()
		if !b.gone {
			return b
		}
		b.mu.Unlock()
		b = l.book(b.product, b.window)
	}
}

// newHold makes a hold with a record and an id of its own.
func (l *Ledger) newHold(r *Reservation, window quota.Window, now time.Time) *Hold {
	hold := &Hold{Product: r.Product, Record: r.Record, period: window}
	record := &hold.Record
	record.Schema, record.Rev, record.Kind = usage.RecordSchema, 1, usage.KindRequest
	record.ID = l.options.NewID(now)
	record.Time = timeOf(record.ID)
	record.Period, record.ProductID, record.Product = usage.Text(window.Name), usage.Text(r.Product.ID), usage.Text(r.Product.Name)
	record.Unit, record.Tags = usage.Text(r.Product.Unit), r.Product.Tags
	return hold
}

// Settlement is how a request ended.
type Settlement struct {
	Record usage.Record // complete; ID, Time and Period as in the hold's record
	// StoredResponse is the id of a response that Azure keeps for the product,
	// or empty; StoredTokens is how many tokens it is as a context, counted as
	// StoredModel does.
	StoredResponse string
	StoredTokens   int64
	StoredModel    string
}

// Settle turns a hold into a record and its charge, in one transaction. It
// waits until that is durable or ctx ends or 10 s have passed; the settlement
// then goes on in the background until it is done. It returns the account as it
// was after the charge; nil if that is not known yet.
func (l *Ledger) Settle(ctx context.Context, hold *Hold, s Settlement) (*Account, error) {
	wait := settleWaitMax
	if hold.unlisted { // the store was away when it began
		wait = softWaitMax
	}
	ctx, cancel := l.rt.Deadline(context.WithoutCancel(ctx), wait)
	defer cancel()
	if hold.unlisted {
		c := &charge{record: s.Record, settles: &s, hold: hold.Amount, gate: l.rt.Gate()}
		account, _, err := l.spend(ctx, l.book(hold.Product.ID, hold.period), c)
		return account, err
	}
	e := &ending{held: hold.held, s: s, gate: l.rt.Gate()}
	return hold.book.end(ctx, e)
}

// end queues the end of a request and waits for it. If ctx ends first it goes on
// all the same.
func (b *book) end(ctx context.Context, e *ending) (*Account, error) {
	b.mu.Lock()
	if e.held.lost {
		b.late(e)
	} else {
		b.endings = append(b.endings, e)
		b.kick()
	}
	b.mu.Unlock()
	if err := e.gate.Wait(ctx); err != nil {
		return nil, fmt.Errorf("end of %s: %w", e.held.intent.ID, err)
	}
	return e.account, e.err
}

// spend queues money already spent and waits until it is recorded. If ctx ends
// first it goes on all the same; the error is ErrUnavailable then.
func (l *Ledger) spend(ctx context.Context, b *book, c *charge) (account *Account, repeated bool, err error) {
	b = l.lock(b)
	if c.settles == nil && len(b.charges)+len(b.unlooked) >= QueueMax {
		b.mu.Unlock()
		return nil, false, ErrBusy
	}
	b.queue(c)
	b.mu.Unlock()
	if err := c.gate.Wait(ctx); err != nil {
		return nil, false, errors.Join(ErrUnavailable, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return c.account, c.repeated, c.err
}

// Void gives a hold back: its request was not forwarded. Like Settle it goes on
// in the background if the store does not answer.
func (l *Ledger) Void(ctx context.Context, hold *Hold) error {
	if hold.unlisted {
		return nil
	}
	ctx, cancel := l.rt.Deadline(context.WithoutCancel(ctx), settleWaitMax)
	defer cancel()
	_, err := hold.book.end(ctx, &ending{held: hold.held, void: true, gate: l.rt.Gate()})
	return err
}

// Once names an effect that must happen once. The zero value is no name.
type Once struct {
	Key  string // what the caller named it
	Body string // a digest of what the caller asked for; another one is refused
}

func (o Once) row() string { return prefixOnce + digest("once", o.Key) }

// Charge records money that is already spent: over the limit if need be. It is
// done once for each of the given names; done is false if it had been done
// before. An Idempotency-Key that was used with another body is ErrOtherBody.
func (l *Ledger) Charge(ctx context.Context, p *quota.Product, record usage.Record, once ...Once) (done bool, err error) {
	now := l.options.Now()
	window, err := p.WindowAt(now)
	if err != nil {
		return false, err
	}
	record.Schema, record.Rev, record.ID = usage.RecordSchema, 1, l.options.NewID(now)
	record.Time = timeOf(record.ID)
	record.Period, record.ProductID, record.Product = usage.Text(window.Name), usage.Text(p.ID), usage.Text(p.Name)
	record.Unit, record.Tags = usage.Text(p.Unit), p.Tags
	ctx, cancel := l.rt.Deadline(context.WithoutCancel(ctx), settleWaitMax)
	defer cancel()
	repeated, err := l.named(ctx, p.ID, once)
	if repeated || errors.Is(err, ErrOtherBody) {
		return false, err
	}
	// If the store does not answer now it is asked later: the money is spent.
	c := &charge{record: record, once: once, looked: err == nil, gate: l.rt.Gate()}
	_, repeated, err = l.spend(ctx, l.book(p.ID, window), c)
	if err != nil {
		return false, fmt.Errorf("charge: %w", err)
	}
	return !repeated, nil
}

// named tells whether an effect with one of these names has happened.
func (l *Ledger) named(ctx context.Context, product string, names []Once) (bool, error) {
	for _, once := range names {
		row, err := l.store.Get(ctx, product, once.row())
		switch {
		case errors.Is(err, ErrMissing):
		case err != nil:
			return false, err
		case row.Texts["Body"] != once.Body:
			return false, ErrOtherBody
		default:
			return true, nil
		}
	}
	return false, nil
}

func (o Once) entity() Entity { return Entity{Row: o.row(), Texts: map[string]string{"Body": o.Body}} }

func responseRow(responseID string) string { return prefixResponse + digest("response", responseID) }

// errFinal marks errors that end an operation instead of having it tried again.
var errFinal = errors.New("not to be tried again")

func final(err error) error { return fmt.Errorf("%w (%w)", err, errFinal) }

// Headroom is what is available to a product as far as this process knows
// without asking the store.
func (l *Ledger) Headroom(p *quota.Product) (available int64, known bool) {
	window, err := p.WindowAt(l.options.Now())
	if err != nil {
		return 0, false
	}
	l.mu.Lock()
	b := l.books[accountKey{p.ID, window.Name}]
	l.mu.Unlock()
	if b == nil {
		return 0, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.known {
		return 0, false
	}
	available = b.account.Budget - b.account.Committed
	if b.lease != nil {
		available += b.lease.Granted - b.lease.Settled - b.lease.held()
	}
	return available, true
}

// Drain waits until everything queued is durable, and gives back what is not
// used, or ctx ends.
func (l *Ledger) Drain(ctx context.Context) error {
	l.shut()
	for {
		l.mu2.Lock()
		tasks := l.tasks
		l.mu2.Unlock()
		if tasks == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.rt.Sleep(2 * time.Millisecond)
	}
}

// counters count what is rare and has to happen in a simulation.
type counters struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counters) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[what]++
}

// Counters are how often what is rare happened: resent transactions, lost
// leases, reclaims, and late settlements by branch.
func (l *Ledger) Counters() map[string]int {
	l.counters.mu.Lock()
	defer l.counters.mu.Unlock()
	return maps.Clone(l.counters.n)
}
