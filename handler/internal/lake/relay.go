package lake

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Limits of a Relay.
const (
	QueueMax      = 10_000   // entries in memory, however they came
	QueueBytesMax = 64 << 20 // of the records that wait; a single one may be larger than what is left of it
	BatchBytesMax = 1 << 20  // of one Send; a single record may be larger than what is left of it
	StoredMax     = 5000     // entries that are in the sink and not acknowledged, from which on none is sent
	RefusedMax    = 1000     // entries set aside because the sink can never take them
)

// Options of a Relay. The zero value is ready for use.
type Options struct {
	BatchMax    int           // records in one Send; 500
	Linger      time.Duration // how long a fresh record waits for company; 200 ms
	Interval    time.Duration // between two scans of the outbox; 3 s
	BackoffMin  time.Duration // first wait after an error of the sink; 250 ms
	BackoffMax  time.Duration // longest; 5 s
	CallTimeout time.Duration // of one call of the sink or the outbox; 30 s
	Grace       time.Duration // to send what is queued after Run's context ended; 5 s

	// Alone says that no other process uses the outbox. Otherwise an entry that
	// was not offered here is sent when two scans in a row have found it: the
	// first may have caught it on its way out of the process that made it.
	Alone bool

	Log *slog.Logger // default: none
}

func (o *Options) setDefaults() {
	positive(&o.BatchMax, 500)
	positive(&o.Linger, 200*time.Millisecond)
	positive(&o.Interval, 3*time.Second)
	positive(&o.BackoffMin, 250*time.Millisecond)
	positive(&o.BackoffMax, 5*time.Second)
	positive(&o.CallTimeout, 30*time.Second)
	positive(&o.Grace, 5*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func positive[T int | time.Duration](value *T, fallback T) {
	if *value <= 0 {
		*value = fallback
	}
}

// name is what identifies an entry.
type name struct{ product, row string }

func (e Entry) name() name { return name{e.Product, e.Row} }

// Relay moves entries from an outbox to a sink. [Relay.Run] does the work in one
// goroutine; [Relay.Offer] may be called from any.
//
// An entry is held from the moment it is queued until its acknowledgement has
// succeeded or the sink has refused it for good. While it is held it is never
// queued again, so this process has it in flight at most once.
type Relay struct {
	outbox  Outbox
	sink    Sink
	options Options
	wake    chan struct{} // capacity 1
	looks   chan chan struct{}

	mu     sync.Mutex
	queue  []Entry
	bytes  int            // of the records in queue
	held   map[name]*hold // queued, in flight, or stored and not acknowledged
	behind bool           // an entry was turned away: only a scan finds it
	stats  Stats          // what has been done; what waits is counted when asked for

	// Of Run's goroutine.
	ticks   <-chan time.Time  // when to look into the outbox
	more    bool              // it had more than one look returns
	asked   []chan struct{}   // who waits for a look
	found   int               // batches that the last look's entries may be in
	around  map[string]bool   // products that the next batch leaves out: the last try with them failed
	stored  []Entry           // in the sink, acknowledgement failed
	seen    map[name]struct{} // found by the last scan, not ripe
	refused map[name]struct{} // the sink cannot take them
}

// NewRelay makes a Relay. Nothing moves before Run; what is offered before that
// waits for it.
func NewRelay(outbox Outbox, sink Sink, o Options) *Relay {
	o.setDefaults()
	return &Relay{
		outbox: outbox, sink: sink, options: o, wake: make(chan struct{}, 1), looks: make(chan chan struct{}),
		held: map[name]*hold{}, seen: map[name]struct{}{}, refused: map[name]struct{}{},
	}
}

// Offer hands over an entry that has just become durable in the outbox, which
// saves reading it. It never blocks. It returns false if the entry was not
// taken because the queue is full, or because older entries were turned away
// and have not been fetched yet; the entry is found by a later scan.
func (r *Relay) Offer(e Entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.held[e.name()]; ok {
		return true
	}
	if r.behind || len(r.held) >= QueueMax || r.overflows(len(r.queue), e) {
		r.behind = true
		return false
	}
	r.held[e.name()] = &hold{since: time.Now()}
	r.queue, r.bytes = append(r.queue, e), r.bytes+len(e.Record)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return true
}

// Run moves entries until ctx ends; then it tries for the time of Grace to send
// what is queued. What it could not send stays in the outbox. It is called once.
func (r *Relay) Run(ctx context.Context) {
	// Calls outlive ctx by the grace: a batch in flight is not cut.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		timer := time.NewTimer(r.options.Grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-work.Done():
		}
	})()

	ticker := time.NewTicker(r.options.Interval)
	defer ticker.Stop()
	r.ticks = ticker.C
	r.more = r.scan(work)
	for {
		for r.more || r.queued() > 0 {
			if !r.flush(ctx, work) {
				return
			}
			if r.more = r.more && ctx.Err() == nil; !r.more {
				break // what came meanwhile waits for company
			}
			r.more = r.scan(work)
		}
		r.looked()
		select {
		case <-ctx.Done():
			if r.queued() > 0 { // offered since the queue was looked at
				continue
			}
			r.acknowledge(work, nil)
			return
		case <-r.wake:
			r.wait(ctx, r.options.Linger)
		case <-r.ticks:
			r.look(work)
		case done := <-r.looks:
			r.asked = append(r.asked, done)
			r.look(work)
		}
	}
}

// look looks into the outbox. What it finds comes first.
func (r *Relay) look(work context.Context) {
	r.acknowledge(work, nil)
	r.more = r.scan(work) || r.more
	r.found = 2 // batches of a page
}

// meanwhile looks into the outbox between two batches, if it is time: under a
// load that never lets the queue run empty there is no other moment.
func (r *Relay) meanwhile(work context.Context) {
	if r.found > 0 {
		r.found--
	}
	if r.found == 0 {
		r.looked()
	}
	ticks := r.ticks
	if r.isBehind() { // nothing is offered until the queue is empty; then what was turned away comes after it
		ticks = nil
	}
	select {
	case <-ticks:
		r.look(work)
	case done := <-r.looks:
		r.asked = append(r.asked, done)
		r.look(work)
	default:
	}
}

func (r *Relay) isBehind() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.behind
}

// looked tells those that have asked for a look that what it found was sent.
func (r *Relay) looked() {
	for _, done := range r.asked {
		close(done)
	}
	r.asked, r.found = nil, 0
}

// Look makes Run look into the outbox now, and waits until what it found first
// is sent: a process that is woken for a moment only, by the Maintain timer, does
// not have the time to wait for the next look. What other processes may be about
// to send needs two looks.
func (r *Relay) Look(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case r.looks <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wait ends early with ctx.
func (r *Relay) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *Relay) queued() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue)
}

// scan queues what the outbox has and this process does not hold, before what
// was offered meanwhile. It returns true if there may be more.
func (r *Relay) scan(work context.Context) (more bool) {
	r.mu.Lock()
	room := QueueMax - len(r.held)
	page := min(room, 2*r.options.BatchMax)
	limit := len(r.held) + page + len(r.refused)
	wasBehind := r.behind
	// From here on offers are welcome: what was turned away before is in the
	// outbox already, so this scan or the next one finds it.
	r.behind = false
	r.mu.Unlock()
	call, cancel := context.WithTimeout(work, r.options.CallTimeout)
	entries, err := r.outbox.Unsent(call, limit)
	cancel()
	if err != nil && work.Err() == nil {
		r.options.Log.Warn("outbox could not be read", "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	full := page > 0 && len(entries) >= page // a backlog: these are old, whoever made them
	if err != nil || full {
		r.behind = r.behind || wasBehind
	}
	found := make([]Entry, 0, len(entries))
	seen := map[name]struct{}{}
	for _, e := range entries {
		_, isHeld := r.held[e.name()]
		_, isRefused := r.refused[e.name()]
		_, ripe := r.seen[e.name()]
		switch {
		case isHeld || isRefused:
		case len(r.held) >= QueueMax, r.overflows(len(r.queue)+len(found), e):
			r.behind = true
		case r.options.Alone || full || wasBehind || ripe:
			r.held[e.name()] = &hold{since: time.Now(), found: true}
			found, r.bytes = append(found, e), r.bytes+len(e.Record)
		default:
			seen[e.name()] = struct{}{}
		}
	}
	if err == nil {
		r.seen = seen
	}
	r.queue = slices.Insert(r.queue, r.foundBefore(), found...)
	return full && len(found) > 0 && len(r.refused) < RefusedMax
}

// flush sends the queue batch by batch, until it is empty, or until what is left
// is fresh and less than a batch. Errors are waited out; it returns false if that
// was ended by the end of work.
func (r *Relay) flush(ctx, work context.Context) bool {
	backoff := r.options.BackoffMin
	for r.queued() > 0 {
		err := r.step(work)
		if err == nil {
			backoff = r.options.BackoffMin
			r.meanwhile(work)
			if r.caughtUp() {
				return true
			}
			continue
		}
		if work.Err() != nil {
			r.options.Log.Warn("records stay in the outbox: time is up", "error", err)
			return false
		}
		r.options.Log.Warn("records wait", "records", r.queued(), "error", err)
		pause := backoff/2 + rand.N(backoff/2+1)
		if ctx.Err() != nil { // in the grace: more tries, shorter waits
			ctx, pause = work, min(pause, r.options.Grace/10)
		}
		r.wait(ctx, pause)
		backoff = min(2*backoff, r.options.BackoffMax)
	}
	return true
}

// caughtUp tells whether all that waits came just now: it lingers. If entries
// were turned away, now is the time to fetch them.
func (r *Relay) caughtUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		r.more = r.more || r.behind
		return true
	}
	return len(r.queue) < r.options.BatchMax && len(r.wake) > 0 && !r.behind && len(r.around) == 0 && r.found == 0
}

var errUnacknowledged = errors.New("too many stored records are not acknowledged")

// step sends one batch, unless too much that was sent is not acknowledged.
func (r *Relay) step(work context.Context) error {
	if len(r.stored) >= StoredMax {
		if r.acknowledge(work, nil); len(r.stored) >= StoredMax {
			return errUnacknowledged
		}
	}
	return r.send(work, r.take())
}

// send stores and acknowledges a batch of the queue's. What it returns is
// to be waited out; a record that was refused is not.
func (r *Relay) send(work context.Context, batch []Entry) error {
	records := make([][]byte, len(batch))
	for i, e := range batch {
		records[i] = e.Record
	}
	call, cancel := context.WithTimeout(work, r.options.CallTimeout)
	err := r.sink.Send(call, records)
	cancel()
	if err == nil {
		r.remove(batch, nil, nil)
		r.acknowledge(work, batch)
		return nil
	}
	partial, bad := (*PartialError)(nil), (*RecordError)(nil)
	parts := errors.As(err, &partial) && len(partial.Stored) == len(batch)
	if !parts {
		partial = &PartialError{Stored: make([]bool, len(batch))}
	}
	if !errors.As(err, &bad) || bad.Index < 0 || bad.Index >= len(batch) {
		bad = nil
	}
	if stored := r.remove(batch, partial.Stored, bad); len(stored) > 0 {
		r.acknowledge(work, stored)
	}
	if bad != nil {
		return nil // the rest goes with the next batch
	}
	if parts {
		r.goAround(batch, partial.Stored)
	}
	return err
}

// acknowledge tells the outbox what the sink has, now and from earlier tries.
// What fails is kept and tried again later, after the rest: it is not sent again
// by this process, though by another after this one has died.
func (r *Relay) acknowledge(work context.Context, fresh []Entry) {
	for i := range fresh {
		fresh[i].Record = nil
	}
	waiting := append(r.stored, fresh...)
	r.stored = nil
	for len(waiting) > 0 {
		batch := waiting[:min(len(waiting), r.options.BatchMax)]
		waiting = waiting[len(batch):]
		call, cancel := context.WithTimeout(work, r.options.CallTimeout)
		err := r.outbox.Acknowledge(call, batch)
		cancel()
		if err != nil {
			r.options.Log.Warn("stored records could not be acknowledged", "records", len(batch), "error", err)
			r.stored = append(slices.Clone(waiting), batch...)
			return
		}
		r.mu.Lock()
		for _, e := range batch {
			delete(r.held, e.name())
		}
		r.mu.Unlock()
	}
}
