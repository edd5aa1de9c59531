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
// This is its first form: every reserve, settle and void is a conditional
// transaction on the account row of the product's period. Within a process one
// writer per account puts all that wait into one transaction, so requests of
// one process do not contend; processes do. Nothing is ever reset: the period
// is part of the account's key.
//
// An answer that did not arrive says nothing, and neither does a conflict: a
// message may be delivered twice. So after every error each operation looks for
// its own effect before it is tried again (see writer.go).
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

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

	productTTL        = 5 * time.Second  // how long a product is used without being read again
	unknownKeyTTL     = time.Second      // the same for "there is no such key"
	productStaleMax   = 10 * time.Minute // how long it is used while the store cannot be reached
	heartbeatInterval = 10 * time.Second
	abandonedAfter    = 30 * time.Second // a process without a heartbeat for so long is swept
	instanceForgotten = 24 * time.Hour
	onceForgotten     = 7 * 24 * time.Hour
	settleWaitMax     = 10 * time.Second // how long an answer is kept open for its settlement
	reserveWaitMax    = 15 * time.Second
	softWaitMax       = 2 * time.Second // the same for a soft product, which then goes on without
)

// The errors of a Ledger. Use errors.Is.
var (
	ErrUnknownProduct = errors.New("no such product")
	ErrUnknownKey     = errors.New("no product has this key")
	ErrKeyTaken       = errors.New("this key belongs to another product")
	ErrUnknownRecord  = errors.New("no such record")
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
	Instance string                                            // a name that no process ever had before
	Embedded bool                                              // this process is the only user of the store
	Now      func() time.Time                                  // default time.Now
	NewID    func(now time.Time) string                        // default UUIDv7
	OnRecord func(product, outbox string, record usage.Record) // a record was stored: hand it to the lake; must not block
	Log      *slog.Logger
}

// Ledger is the books of all products. It is safe for concurrent use.
type Ledger struct {
	store   Store
	options Options
	log     *slog.Logger

	mu       sync.Mutex
	accounts map[accountKey]*writer
	keys     map[string]*cachedKey
	pending  sync.WaitGroup // writers that run
}

type accountKey struct{ product, period string }

// New makes a ledger on a store.
func New(store Store, options Options) *Ledger {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.NewID == nil {
		options.NewID = NewID
	}
	if options.OnRecord == nil {
		options.OnRecord = func(string, string, usage.Record) {}
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	return &Ledger{
		store: store, options: options, log: options.Log,
		accounts: map[accountKey]*writer{}, keys: map[string]*cachedKey{},
	}
}

// NewID makes a record id: a UUID version 7 whose time is now, so that the id
// names the row.
func NewID(now time.Time) string {
	id := uuid.Must(uuid.NewV7())
	ms := now.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id.String()
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

	instance string // of the process that holds it
}

// Hold is money set aside for one request. It must be settled or voided.
type Hold struct {
	Product  *quota.Product
	Amount   int64 // in the product's unit
	Record   usage.Record
	Account  Account // as it was when the hold was taken
	period   quota.Window
	unlisted bool // the store was out of reach and the product is soft: there is no intent
}

// Reserve takes a hold and makes the intent durable. It returns a *Refusal if
// the budget does not allow it, and an error that is ErrUnavailable if the store
// did not answer (a soft product gets an unlisted hold then).
func (l *Ledger) Reserve(ctx context.Context, r Reservation) (*Hold, error) {
	now := l.options.Now()
	window, err := r.Product.WindowAt(now)
	if err != nil {
		return nil, err
	}
	r.instance = l.options.Instance
	hold := l.newHold(&r, window, now)
	wait := reserveWaitMax
	if r.Product.Enforcement == quota.EnforceSoft {
		wait = softWaitMax
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err = l.writer(r.Product.ID, window).do(ctx, &reserveOp{reservation: r, hold: hold})
	switch {
	case err == nil:
		return hold, nil
	case errors.As(err, new(*Refusal)):
		return nil, err
	}
	// The writer may still be at work on this hold: it is undone, and not used.
	l.undo(hold)
	if r.Product.Enforcement != quota.EnforceSoft || errors.Is(err, errFinal) {
		return nil, fmt.Errorf("reserve: %w", errors.Join(ErrUnavailable, err))
	}
	unlisted := l.newHold(&r, window, now)
	unlisted.unlisted, unlisted.Amount = true, r.Max
	if r.HoldNanoUSD != nil {
		unlisted.Record.HoldNanoUSD = r.HoldNanoUSD(r.Max)
	}
	return unlisted, nil
}

// newHold makes a hold with a record and an id of its own.
func (l *Ledger) newHold(r *Reservation, window quota.Window, now time.Time) *Hold {
	hold := &Hold{Product: r.Product, Record: r.Record, period: window}
	record := &hold.Record
	record.Schema, record.Rev, record.Kind = usage.RecordSchema, 1, usage.KindRequest
	record.ID, record.Time = l.options.NewID(now), now.UTC()
	record.Period, record.ProductID, record.Product = usage.Text(window.Name), usage.Text(r.Product.ID), usage.Text(r.Product.Name)
	record.Unit, record.Tags = usage.Text(r.Product.Unit), r.Product.Tags
	return hold
}

// undo makes sure that a reserve of unknown outcome leaves no intent behind.
func (l *Ledger) undo(hold *Hold) {
	l.writer(hold.Product.ID, hold.period).enqueue(context.Background(), &voidOp{hold: hold, unknown: true})
}

// Settlement is how a request ended.
type Settlement struct {
	Record usage.Record // complete; ID, Time and Period as in the hold's record
	// StoredResponse is the id of a response that Azure keeps for the product,
	// or empty; StoredTokens is how many tokens it is as a context.
	StoredResponse string
	StoredTokens   int64
}

// Settle turns a hold into a record and its charge, in one transaction. It
// waits until that is durable or ctx ends or 10 s have passed; the settlement
// then goes on in the background until it is done. It returns the account as it
// was after the charge; nil if that is not known yet.
func (l *Ledger) Settle(ctx context.Context, hold *Hold, s Settlement) (*Account, error) {
	op := &settleOp{hold: hold, settlement: s}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWaitMax)
	defer cancel()
	w := l.writer(hold.Product.ID, hold.period)
	if err := w.do(ctx, op); err != nil {
		return nil, fmt.Errorf("settle %s: %w", hold.Record.ID, err)
	}
	return op.account, nil
}

// Void gives a hold back: its request was not forwarded. Like Settle it goes on
// in the background if the store does not answer.
func (l *Ledger) Void(ctx context.Context, hold *Hold) error {
	if hold.unlisted {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWaitMax)
	defer cancel()
	return l.writer(hold.Product.ID, hold.period).do(ctx, &voidOp{hold: hold})
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
	record.Schema, record.Rev, record.ID, record.Time = usage.RecordSchema, 1, l.options.NewID(now), now.UTC()
	record.Period, record.ProductID, record.Product = usage.Text(window.Name), usage.Text(p.ID), usage.Text(p.Name)
	record.Unit, record.Tags = usage.Text(p.Unit), p.Tags
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWaitMax)
	defer cancel()
	op := &chargeOp{product: p, record: record, once: once}
	if err := l.writer(p.ID, window).do(ctx, op); err != nil {
		return false, fmt.Errorf("charge: %w", err)
	}
	return !op.repeated, nil
}

// Headroom is what is available to a product as far as this process knows
// without asking the store.
func (l *Ledger) Headroom(p *quota.Product) (available int64, known bool) {
	window, err := p.WindowAt(l.options.Now())
	if err != nil {
		return 0, false
	}
	l.mu.Lock()
	w := l.accounts[accountKey{p.ID, window.Name}]
	l.mu.Unlock()
	if w == nil {
		return 0, false
	}
	return w.headroom()
}

// writer finds or makes the writer of an account.
func (l *Ledger) writer(product string, window quota.Window) *writer {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := accountKey{product, window.Name}
	w := l.accounts[key]
	if w == nil {
		if len(l.accounts) >= AccountsCachedMax {
			for other, idle := range l.accounts {
				if idle.idle() {
					delete(l.accounts, other)
					break
				}
			}
		}
		w = &writer{ledger: l, product: product, window: window}
		l.accounts[key] = w
	}
	return w
}

// Drain waits until everything queued is durable, or ctx ends.
func (l *Ledger) Drain(ctx context.Context) error {
	done := make(chan struct{})
	go func() { l.pending.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// backoff waits a jittered while that grows with the number of tries.
func backoff(try int) time.Duration {
	base := min(5*time.Millisecond<<min(try, 10), time.Second)
	return base/2 + rand.N(base)
}
