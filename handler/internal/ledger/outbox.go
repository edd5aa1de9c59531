package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the outbox.
const (
	lookEntriesMax = 1000             // that one call of Unsent returns
	togetherMin    = 3                // records that are read by one call if they lie close together
	togetherMax    = 2                // calls for those of one list
	lookMax        = 20 * time.Second // of one call of Unsent
	lookProductMax = 10 * time.Second // of it, for one product
	offersMax      = 20_000           // entries of which is known when they were returned
	offerBytesMax  = 8 << 20          // of records that are kept to be returned a second time
	adoptedMax     = 50_000           // acknowledged records of closed leases that are remembered
)

// OutboxEntry is a record that the lake has not acknowledged, and its outbox row.
type OutboxEntry struct {
	Product, Row string
	Record       []byte // JSON
}

type entryName struct{ product, row string }

// outboxState is what this process knows of the outbox besides what the store
// has. All of it may be forgotten: a record is read, or sent, once more then.
type outboxState struct {
	mu    sync.Mutex // never held while waiting
	looks int64      // calls of Unsent
	next  string     // the product that the next look begins with
	fresh []string   // products in which the last look found something for the first time

	offers map[entryName]*offer
	bytes  int // of the records in offers

	adopted map[entryName]*adoptedList
	marks   int   // in adopted
	touches int64 // counts the changes of adopted

	paged atomic.Int64 // records on the pages that books remember
}

// offer is when an entry was returned. The reader of the outbox passes over what
// another process may have just sent, until two looks in a row have shown it. So
// an entry is returned by two of them, and then not for resendAfter.
type offer struct {
	look   int64
	at     time.Duration
	twice  bool
	record []byte // for the second time; nil: read it again
}

// adoptedList is what the lake has of a closed lease, or of a page, of a process
// that is gone.
type adoptedList struct {
	marks   map[mark]bool
	touched int64
}

// look is one call of Unsent.
type look struct {
	ledger  *Ledger
	number  int64
	limit   int
	entries []OutboxEntry
	seen    map[string]bool // products
	fresh   []string        // products with entries that are returned for the first time
	read    int             // products that could be read
	failed  []error
	docs    map[string][]byte // records of the list at hand that were read together, by their rows
}

// Unsent returns records that the lake has not acknowledged, at most limit and
// at most 1,000 of them: those of closed leases, those with an outbox row, and
// those of this process that were offered more than 10 s ago. Other processes
// send their own.
//
// It goes over as many products as it can in 20 s, and the next call goes on
// where it stopped. What two calls have returned, one after the other, it leaves
// out for 10 s, and does not read: its reader has it. It fails only if nothing
// could be read; a product or a row that cannot be read is logged, and passed
// over.
func (l *Ledger) Unsent(ctx context.Context, limit int) ([]OutboxEntry, error) {
	ctx, cancel := l.rt.Deadline(ctx, lookMax)
	defer cancel()
	k := &look{ledger: l, limit: min(limit, lookEntriesMax), seen: map[string]bool{}}
	number, again, next := l.outbox.begin(l.rt.Elapsed())
	k.number = number
	k.own(ctx)
	ids, err := l.productIDs(ctx)
	if err != nil {
		k.failed = noted(k.failed, fmt.Errorf("read products: %w", err))
	}
	for _, id := range again {
		k.product(ctx, id)
	}
	l.outbox.end(k.fresh, k.round(ctx, ids, next))
	failed := errors.Join(k.failed...)
	if failed != nil && k.read == 0 && len(k.entries) == 0 {
		return nil, failed
	}
	if failed != nil {
		l.log.Warn("a part of the outbox could not be read", "error", failed)
	}
	return k.entries, nil
}

// round looks at the products from next on, and returns where to go on.
func (k *look) round(ctx context.Context, ids []string, next string) string {
	if len(ids) == 0 {
		return next
	}
	from := sort.SearchStrings(ids, next)
	if next == "" {
		from = int(k.ledger.rt.Random(int64(len(ids)))) // each process somewhere else
	}
	for i := range ids {
		id := ids[(from+i)%len(ids)]
		if k.full() || ctx.Err() != nil {
			return id
		}
		began := k.ledger.rt.Elapsed()
		if whole := k.product(ctx, id); !whole && ctx.Err() != nil && k.ledger.rt.Elapsed()-began < lookProductMax {
			return id // it did not have its time: the next look begins with it
		}
	}
	return ids[from%len(ids)]
}

func (k *look) full() bool { return len(k.entries) >= k.limit }

// product looks at the rows of a product, once. It returns false if it did not
// see all of them.
func (k *look) product(ctx context.Context, id string) bool {
	if k.seen[id] {
		return true
	}
	if k.full() || ctx.Err() != nil {
		return false
	}
	k.seen[id] = true
	ctx, cancel := k.ledger.rt.Deadline(ctx, lookProductMax)
	defer cancel()
	lists, open := map[string]bool{}, map[string]bool{}
	for from := prefixOutbox; from != ""; { // between the outbox and the books there are no other rows
		page, err := k.ledger.store.Range(ctx, id, from, after(prefixAccount), PageMax)
		if err != nil {
			k.failed = noted(k.failed, fmt.Errorf("outbox of %s: %w", id, err))
			return false
		}
		for _, e := range page.Entities {
			if k.full() || ctx.Err() != nil {
				return false
			}
			switch kind, _, _ := splitBooksRow(e.Row); {
			case kind == "L":
				lists[e.Row] = true
				k.lease(ctx, id, e)
			case isPage(e.Row):
				lists[e.Row] = true
				if !k.waits(ctx, id, e, open) {
					k.page(ctx, id, e)
				}
			case strings.HasPrefix(e.Row, prefixOutbox):
				k.offer(ctx, id, e.Row, e.Texts["Usage"])
			}
		}
		from = page.Next
	}
	if ctx.Err() != nil { // of the last rows too
		return false
	}
	k.read++
	k.ledger.outbox.keepAdopted(id, lists)
	return true
}

// lease returns what a closed lease has to tell.
func (k *look) lease(ctx context.Context, product string, e Entity) {
	if e.Ints["Closed"] == 0 {
		return
	}
	lease, err := leaseHead(e)
	if err != nil {
		k.complain(entryName{product, e.Row}, err)
		return
	}
	_, period, _ := splitBooksRow(e.Row)
	k.list(ctx, product, e.Row, lease.Unsent, func(m mark) string { return markRow(period, lease.ID, m) })
}

// page returns what a page has to tell.
func (k *look) page(ctx context.Context, product string, e Entity) {
	marks, err := marksOf(e.Texts)
	if err != nil {
		k.complain(entryName{product, e.Row}, err)
		return
	}
	k.list(ctx, product, e.Row, marks, func(m mark) string { return m.in(e.Row) })
}

// list returns what the lake lacks of a list that is nobody's.
func (k *look) list(ctx context.Context, product, row string, marks []mark, name func(mark) string) {
	have, missing := k.ledger.outbox.have(entryName{product, row}), 0
	k.readTogether(ctx, product, marks, have, name)
	for _, m := range marks {
		if have[m] {
			continue
		}
		if missing++; !k.full() {
			k.offerMark(ctx, product, name(m), m)
		}
	}
	k.docs = nil                        // what is read later may be a later revision
	if missing == 0 && len(marks) > 0 { // all was sent: only the row is left
		if err := k.ledger.ackListed(ctx, product, row, nil); err != nil {
			k.failed = noted(k.failed, fmt.Errorf("list %s/%s: %w", product, row, err))
		}
	}
}

// own finds what was offered by this process and is not acknowledged: the
// relay's queue was full.
func (k *look) own(ctx context.Context) {
	for _, b := range k.ledger.inOrder() {
		b.mu.Lock()
		marks, lease, done := b.overdue(), "", b.donePages()
		if b.lease != nil {
			lease = b.lease.ID
		}
		b.mu.Unlock()
		if err := b.deletePages(ctx, done); err != nil {
			k.failed = noted(k.failed, fmt.Errorf("pages of %s: %w", b.product, err))
		}
		name := func(m mark) string { return markRow(b.window.Name, lease, m) }
		for some := range slices.Chunk(marks, UnsentMax) {
			k.readTogether(ctx, b.product, some, nil, name)
			for _, m := range some {
				if k.full() || ctx.Err() != nil {
					return
				}
				k.offerMark(ctx, b.product, name(m), m)
			}
			k.docs = nil
		}
	}
}

// readTogether reads the records of a list that are due, where they lie close
// together: one call for some hundred of them, not one for each. What it does not
// find is read alone.
func (k *look) readTogether(ctx context.Context, product string, marks []mark, have map[mark]bool, name func(mark) string) {
	k.docs = nil
	if k.full() || ctx.Err() != nil {
		return
	}
	now, rows := k.ledger.rt.Elapsed(), make([]string, 0, len(marks))
	for _, m := range marks {
		row, err := usageRow(m.ID)
		if record, due := k.ledger.outbox.due(entryName{product, name(m)}, k.number, now); err == nil && !have[m] && due && record == nil {
			rows = append(rows, row)
		}
	}
	if rows = rows[:min(len(rows), k.limit-len(k.entries))]; len(rows) < togetherMin {
		return
	}
	slices.Sort(rows)
	k.docs = make(map[string][]byte, len(rows))
	from, last := rows[0], rows[len(rows)-1]
	for range togetherMax {
		page, err := k.ledger.store.Range(ctx, product, from, last+".", PageMax)
		if err != nil {
			return // each is tried alone, and tells what is wrong
		}
		for _, e := range page.Entities {
			if _, wanted := slices.BinarySearch(rows, e.Row); wanted {
				k.docs[e.Row] = []byte(e.Texts["Doc"])
			}
		}
		if from = page.Next; from == "" {
			return
		}
	}
}

func (k *look) offerMark(ctx context.Context, product, row string, m mark) {
	name, err := usageRow(m.ID)
	if err != nil {
		k.complain(entryName{product, row}, err)
		return
	}
	k.offer(ctx, product, row, name)
}

// offer returns an entry, if it is due.
func (k *look) offer(ctx context.Context, product, row, usageRow string) {
	name, now := entryName{product, row}, k.ledger.rt.Elapsed()
	record, due := k.ledger.outbox.due(name, k.number, now)
	if !due {
		return
	}
	if record == nil {
		record = k.docs[usageRow]
	}
	if record == nil {
		e, err := k.ledger.store.Get(ctx, product, usageRow)
		if errors.Is(err, ErrMissing) { // a defect; it must not keep the others from the lake
			k.complain(name, err)
			return
		} else if err != nil {
			k.failed = noted(k.failed, fmt.Errorf("record of outbox entry %s/%s: %w", product, row, err))
			return
		}
		record = []byte(e.Texts["Doc"])
	}
	k.entries = append(k.entries, OutboxEntry{Product: product, Row: row, Record: record})
	first := k.ledger.outbox.returned(name, offer{look: k.number, at: now, record: record})
	if first && (len(k.fresh) == 0 || k.fresh[len(k.fresh)-1] != product) {
		k.fresh = append(k.fresh, product)
	}
}

// complain logs an entry that cannot be returned, now and then.
func (k *look) complain(name entryName, err error) {
	now := k.ledger.rt.Elapsed()
	if _, due := k.ledger.outbox.due(name, k.number, now); due {
		k.ledger.log.Error("BUG: an outbox entry without a record", "product_id", name.product, "row", name.row, "error", err)
		k.ledger.outbox.returned(name, offer{look: k.number, at: now, twice: true})
	}
}

// begin is the begin of a look. It forgets the offers that are old enough to be
// made again.
func (s *outboxState) begin(now time.Duration) (number int64, again []string, next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, o := range s.offers {
		if now-o.at > resendAfter {
			s.drop(name)
		}
	}
	s.looks++
	again, s.fresh = s.fresh, nil
	return s.looks, again, s.next
}

func (s *outboxState) end(fresh []string, next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh, s.next = fresh, next
}

// due tells whether an entry is to be returned, and has its record if that is
// still known.
func (s *outboxState) due(name entryName, number int64, now time.Duration) (record []byte, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.offers[name]
	if o == nil {
		return nil, true
	}
	return o.record, o.look != number && (!o.twice || now-o.at > resendAfter)
}

// returned remembers that an entry was returned, as far as there is room. It
// tells whether that has to be done again by the next look.
func (s *outboxState) returned(name entryName, fresh offer) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.offers[name]
	fresh.twice = fresh.twice || before != nil && !before.twice && before.look == fresh.look-1
	s.drop(name)
	if len(s.offers) >= offersMax {
		return false
	}
	if fresh.twice || s.bytes+len(fresh.record) > offerBytesMax {
		fresh.record = nil
	}
	if s.offers == nil {
		s.offers = map[entryName]*offer{}
	}
	s.offers[name], s.bytes = &fresh, s.bytes+len(fresh.record)
	return !fresh.twice
}

// drop forgets an offer. s.mu is held.
func (s *outboxState) drop(name entryName) {
	if o := s.offers[name]; o != nil {
		s.bytes -= len(o.record)
		delete(s.offers, name)
	}
}

// Acknowledge forgets records that the lake has. Those that an own lease lists
// leave it with its next transaction; a closed lease goes when all are gone. What
// is gone already is no error. After an error the same entries may be
// acknowledged again; it keeps none of the others from being forgotten.
func (l *Ledger) Acknowledge(ctx context.Context, entries []OutboxEntry) error {
	rows, lists, done := map[string][]Op{}, map[entryName][]mark{}, map[*book][]*page{}
	for _, e := range entries {
		l.outbox.settled(entryName{e.Product, e.Row})
		row, name, listed := strings.Cut(e.Row, " ")
		if !listed {
			rows[e.Product] = append(rows[e.Product], Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: AnyETag}})
			continue
		}
		m, err := markOf(name)
		if err != nil {
			l.log.Error("BUG: an outbox entry that never was", "product_id", e.Product, "row", e.Row, "error", err)
			continue
		}
		b := l.bookOf(e.Product, row)
		if b == nil {
			lists[entryName{e.Product, row}] = append(lists[entryName{e.Product, row}], m)
		} else if g := b.ack(m); g != nil && !slices.Contains(done[b], g) {
			done[b] = append(done[b], g)
		}
	}
	var failed []error
	for _, list := range slices.SortedFunc(maps.Keys(lists), entryName.compare) {
		if err := l.ackListed(ctx, list.product, list.row, lists[list]); err != nil {
			failed = noted(failed, err)
		}
	}
	for _, b := range slices.SortedFunc(maps.Keys(done), (*book).compare) {
		if err := b.deletePages(ctx, done[b]); err != nil {
			failed = noted(failed, err)
		}
	}
	for _, product := range slices.Sorted(maps.Keys(rows)) {
		for ops := range slices.Chunk(rows[product], OpsMax) {
			if err := l.deleteAll(ctx, product, ops); err != nil {
				failed = noted(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

func (n entryName) compare(other entryName) int {
	return cmp.Or(strings.Compare(n.product, other.product), strings.Compare(n.row, other.row))
}

func (s *outboxState) settled(name entryName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(name)
}

// bookOf is the book of this process that a lease's row is of, or nil.
func (l *Ledger) bookOf(product, row string) *book {
	_, period, id := splitBooksRow(row)
	l.mu.Lock()
	b := l.books[accountKey{product, period}]
	l.mu.Unlock()
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lease == nil || b.lease.ID != id {
		return nil
	}
	return b
}

// ack forgets a record of the lease, with its next transaction. It returns the
// page that has it, if the lake has all of that.
func (b *book) ack(m mark) *page {
	b.mu.Lock()
	defer b.mu.Unlock()
	if g := b.paged[m]; g != nil {
		if g.acked[m] = true; len(g.acked) == len(g.marks) || b.ledger.mutated(PageDeletedEarly) {
			return g
		}
		return nil
	}
	if _, offered := b.offered[m]; offered {
		b.acked[m] = true
		delete(b.offered, m)
	}
	return nil
}

// ackListed remembers what the lake has of a closed lease or of a page, and
// deletes its row when that is all. A lease that is still open is another
// process's, or was this one's until now: it is told again later.
func (l *Ledger) ackListed(ctx context.Context, product, row string, marks []mark) error {
	name := entryName{product, row}
	have := l.outbox.adopt(name, marks)
	e, err := l.store.Get(ctx, product, row)
	if errors.Is(err, ErrMissing) {
		l.outbox.forget(name)
		return nil
	} else if err != nil {
		return err
	}
	listed, whole := listedBy(e)
	if !whole {
		return nil
	}
	for _, m := range listed {
		if !have[m] {
			return nil
		}
	}
	if kind, period, id := splitBooksRow(row); kind != "" {
		if _, err := l.store.Get(ctx, product, writeOffRow(period, id)); !errors.Is(err, ErrMissing) {
			return err // its list comes first; the next look at the outbox asks again
		}
	}
	if _, err := l.store.Apply(ctx, product, []Op{{Kind: Delete, Entity: Entity{Row: row, ETag: e.ETag}}}); err == nil {
		l.outbox.forget(name)
	}
	return nil // whatever happened, the next look at the outbox sees it
}

// listedBy are the records of a closed lease or of a page. It is not whole if it
// is still open, or cannot be read: a look at the outbox says so again and again.
func listedBy(e Entity) (marks []mark, whole bool) {
	if isPage(e.Row) {
		marks, err := marksOf(e.Texts)
		return marks, err == nil
	}
	lease, err := leaseHead(e)
	return lease.Unsent, err == nil && lease.Closed
}

// adopt adds to what the lake has of a lease, and returns all of it. If that is
// too much for the memory, the leases go that were not touched for the longest
// time: their records are sent once more.
func (s *outboxState) adopt(name entryName, marks []mark) map[mark]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	lease := s.adopted[name]
	if lease == nil {
		if len(marks) == 0 {
			return nil
		}
		if s.adopted == nil {
			s.adopted = map[entryName]*adoptedList{}
		}
		lease = &adoptedList{marks: map[mark]bool{}}
		s.adopted[name] = lease
	}
	s.touches++
	lease.touched = s.touches
	before := len(lease.marks)
	for _, m := range marks {
		lease.marks[m] = true
	}
	s.marks += len(lease.marks) - before
	for s.marks > adoptedMax && len(s.adopted) > 1 {
		s.remove(s.oldest())
	}
	return maps.Clone(lease.marks)
}

func (s *outboxState) oldest() (name entryName) {
	at := int64(math.MaxInt64)
	for other, lease := range s.adopted {
		if lease.touched < at {
			name, at = other, lease.touched
		}
	}
	return name
}

func (s *outboxState) have(name entryName) map[mark]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease := s.adopted[name]; lease != nil {
		return maps.Clone(lease.marks)
	}
	return nil
}

func (s *outboxState) forget(name entryName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(name)
}

// keepAdopted forgets the leases of a product that are gone, by whomever they
// were deleted.
func (s *outboxState) keepAdopted(product string, leases map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.adopted {
		if name.product == product && !leases[name.row] {
			s.remove(name)
		}
	}
}

// remove forgets a lease. s.mu is held.
func (s *outboxState) remove(name entryName) {
	if lease := s.adopted[name]; lease != nil {
		s.marks -= len(lease.marks)
		delete(s.adopted, name)
	}
}

// deleteAll deletes rows some of which may be gone.
func (l *Ledger) deleteAll(ctx context.Context, partition string, ops []Op) error {
	for len(ops) > 0 {
		_, err := l.store.Apply(ctx, partition, ops)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrMissing) {
			return err
		}
		var at *OpError
		if errors.As(err, &at) && at.Index >= 0 && at.Index < len(ops) {
			ops = append(append([]Op{}, ops[:at.Index]...), ops[at.Index+1:]...)
			continue
		}
		if len(ops) == 1 {
			return nil
		}
		half := len(ops) / 2
		if err := l.deleteAll(ctx, partition, ops[:half]); err != nil {
			return err
		}
		ops = ops[half:]
	}
	return nil
}
