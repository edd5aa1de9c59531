package ledger

import (
	"errors"
	"fmt"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// abandoned tells whether a lease's process is taken for dead: both times are
// the store's own. A wrong guess costs a reclaim, never money: the row's ETag
// fences the process, which then ends its requests by lateSettle.
func (l *Ledger) abandoned(lease *storedLease, date time.Time) bool {
	if lease.Closed || l.mutated(NobodyReclaims) {
		return false
	}
	dead := l.options.Embedded && lease.Instance != l.options.Instance || date.Sub(lease.updated) > abandonedAfter
	return dead && !l.owns(lease.ID)
}

func (l *Ledger) owns(leaseID string) bool {
	for _, b := range l.inOrder() {
		b.mu.Lock()
		own := b.lease != nil && b.lease.ID == leaseID
		b.mu.Unlock()
		if own {
			return true
		}
	}
	return false
}

// reclaim is tryReclaim for a caller that reads the books again whatever came of
// it: only ErrBroken is an error, because that does not go away.
func (l *Ledger) reclaim(product string, books *periodBooks, lease *storedLease) (done int, err error) {
	done, err = l.tryReclaim(product, books, lease)
	if !errors.Is(err, ErrBroken) {
		err = nil
	}
	return done, err
}

// tryReclaim closes an abandoned lease in one transaction: what may have been
// spent becomes records at the hold, as many as the transaction has room for, and
// a list of the others; the rest goes back to the account. done is the number of
// requests that were charged. ErrBroken: it can never be written. Any other error
// says only that the answer was not "yes": the next sweep sees what happened.
func (l *Ledger) tryReclaim(product string, books *periodBooks, lease *storedLease) (done int, err error) {
	if err := lease.whole(); err != nil {
		return 0, broken(product, lease.row.Row, err)
	}
	if l.mutated(ReclaimFreesAll) {
		copied := *lease
		copied.Intents, copied.Slack = nil, 0
		lease = &copied
	}
	if l.mutated(ReclaimIgnoresSlack) {
		copied := *lease
		copied.Slack = 0
		lease = &copied
	}
	r := &reclaiming{
		room: room{limits: &l.options.Limits}, product: product, period: books.account.Window.Name, lease: lease,
		account: books.account, rest: lease.Intents,
	}
	if lease.Slack > 0 && !l.mutated(SlackWithoutRow) {
		p, err := l.describe(product)
		if err != nil {
			return 0, err
		}
		if err := r.writeOff(p); err != nil {
			return 0, broken(product, lease.row.Row, err)
		}
	}
	ops, err := r.transaction(books.row)
	if err == nil {
		err = l.sound(product, []Entity{books.row, lease.row}, ops, 0)
	}
	if err != nil {
		return 0, broken(product, lease.row.Row, err)
	}
	if err := l.applyOrBroken(product, lease.row.Row, ops); err != nil {
		return 0, err
	}
	l.counters.add("reclaimed")
	for i := range r.records {
		l.options.OnRecord(product, markRow(r.period, lease.ID, mark{r.records[i].ID, r.records[i].Rev}), r.records[i])
	}
	return len(lease.Intents), nil
}

// applyOrBroken sends a transaction. The store's refusal of its form is no
// matter of chance.
func (l *Ledger) applyOrBroken(product, row string, ops []Op) error {
	ctx, cancel := l.timeout()
	defer cancel()
	_, err := l.store.Apply(ctx, product, ops)
	if errors.Is(err, ErrInvalid) {
		return broken(product, row, fmt.Errorf("BUG: %w", err))
	}
	return err
}

// describe reads what a product is. It is nil if the row says nothing readable:
// money does not wait for a name.
func (l *Ledger) describe(product string) (*quota.Product, error) {
	ctx, cancel := l.timeout()
	defer cancel()
	row, err := l.store.Get(ctx, product, rowConfig)
	if errors.Is(err, ErrMissing) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	p, err := productOf(row)
	if err != nil {
		l.log.Error("a write-off says nothing of its product", "product_id", product, "error", err)
		return nil, nil
	}
	return p, nil
}

// room is what a transaction has left for the rows of records.
type room struct {
	limits      *Limits
	rows, bytes int
}

// take counts the rows of one more record if they fit: those of the first one
// always do.
func (r *room) take(most int, ops ...Op) bool {
	bytes := 0
	for _, op := range ops {
		bytes += OpBytes(op)
	}
	if r.rows > 0 && (r.rows >= most || r.bytes+bytes > r.limits.TxnRowBytes) {
		return false
	}
	r.rows, r.bytes = r.rows+1, r.bytes+bytes
	return true
}

// reclaiming is a reclaim that is composed. Besides the rows in its room the
// transaction has the account, the list of the rest, which is at most what the
// lease's row had, and that row with at most limits.Unsent + limits.Orphans marks:
// together well below TxnBytesMax.
type reclaiming struct {
	room
	product, period string
	lease           *storedLease
	account         account
	records         []usage.Record
	inserts         []Op
	rest            []intent // that are not among records
}

// add makes a record of the reclaim's, if there is room.
func (r *reclaiming) add(record usage.Record) (bool, error) {
	row, _, err := recordEntities(&record)
	if err != nil {
		return false, err
	}
	op := Op{Kind: Insert, Entity: row}
	if !r.take(r.limits.Orphans, op) {
		return false, nil
	}
	r.records, r.inserts = append(r.records, record), append(r.inserts, op)
	return true, nil
}

// writeOff records what the dead process may have forwarded without listing it.
func (r *reclaiming) writeOff(p *quota.Product) error {
	_, err := r.add(writeOffRecord(r.product, r.period, r.lease, p))
	r.account.Records++
	return err
}

// orphans records the listed requests at their holds, as many as fit.
func (r *reclaiming) orphans() error {
	for len(r.rest) > 0 {
		record, err := r.rest[0].orphan()
		if err != nil {
			return err
		}
		if fits, err := r.add(record); err != nil || !fits {
			return err
		}
		r.rest = r.rest[1:]
	}
	return nil
}

// transaction composes it. before is the account's row.
func (r *reclaiming) transaction(before Entity) ([]Op, error) {
	if err := r.orphans(); err != nil {
		return nil, err
	}
	ops := append([]Op{r.money(before)}, r.inserts...)
	if len(r.rest) > 0 {
		list, err := writeOffEntity(r.period, r.lease.ID, r.rest)
		if err != nil {
			return nil, err
		}
		ops = append(ops, Op{Kind: Insert, Entity: list})
	}
	end, err := r.end()
	return append(ops, end), err
}

// money is the change of the account: what was and may have been spent under the
// lease is closed, the rest of the grant comes back.
func (r *reclaiming) money(before Entity) Op {
	a, l := &r.account, r.lease
	charged := l.held() + l.Slack
	a.Version++
	a.Committed -= l.Granted - l.Settled - charged
	a.Closed += l.Settled + charged
	a.Records += l.Records + int64(len(l.Intents))
	a.Tokens += l.Tokens
	a.Overruns += l.Overruns
	e := a.entity()
	e.ETag = before.ETag
	return Op{Kind: Replace, Entity: e}
}

// end closes the lease's row: it stays for what it has to tell the lake, and for
// as long as there is a list; else it goes at once.
func (r *reclaiming) end() (Op, error) {
	closed := r.lease.lease
	closed.Closed, closed.Intents, closed.Slack = true, nil, 0
	closed.Unsent = append([]mark{}, r.lease.Unsent...)
	for i := range r.records {
		closed.Unsent = append(closed.Unsent, mark{r.records[i].ID, r.records[i].Rev})
	}
	e, err := closed.entity(r.period)
	e.ETag = r.lease.etag
	kind := Replace
	if len(closed.Unsent) == 0 && len(r.rest) == 0 {
		kind = Delete
	}
	return Op{Kind: kind, Entity: e}, err
}

// writeOffRecord is the record of a lease's slack. Its id is the lease's. p may
// be nil; an amount of unknown unit, or of tokens, is no amount of money.
func writeOffRecord(product, period string, lease *storedLease, p *quota.Product) usage.Record {
	r := usage.Record{
		Schema: usage.RecordSchema, ID: lease.ID, Rev: 1, Kind: usage.KindWriteOff, Time: timeOf(lease.ID),
		Period: usage.Text(period), ProductID: usage.Text(product), Charge: usage.Of(lease.Slack),
		Outcome: usage.Text(usage.OutcomeSwept), UsageSource: usage.Text(usage.SourceSwept),
	}
	if p == nil {
		return r
	}
	r.Product, r.Unit, r.Tags = usage.Text(p.Name), usage.Text(p.Unit), p.Tags
	if p.Unit == quota.UnitUSD {
		r.CostNanoUSD = usage.Of(lease.Slack)
	}
	return r
}

// materialize turns what a reclaim listed into records, as many as one
// transaction has room for. Its errors are those of tryReclaim.
func (l *Ledger) materialize(product string, w *storedWriteOff, period string) error {
	var inserts []Op
	has := room{limits: &l.options.Limits}
	for i := range w.list {
		row, outbox, err := w.list[i].orphanRows()
		if err != nil {
			return broken(product, w.row.Row, err)
		}
		pair := []Op{{Kind: Insert, Entity: row}, {Kind: Insert, Entity: outbox}}
		if !has.take(l.options.Limits.Listed, pair...) {
			break
		}
		inserts = append(inserts, pair...)
	}
	head, err := l.withoutIntents(period, w, w.list[has.rows:])
	ops := append([]Op{head}, inserts...)
	if err == nil {
		err = l.sound(product, []Entity{w.row}, ops, 0)
	}
	if err != nil {
		return broken(product, w.row.Row, err)
	}
	if err := l.applyOrBroken(product, w.row.Row, ops); err != nil {
		return err
	}
	l.counters.add("materialized")
	return nil
}

func (i *intent) orphanRows() (row, outbox Entity, err error) {
	r, err := i.orphan()
	if err != nil {
		return row, outbox, err
	}
	return recordEntities(&r)
}

// withoutIntents is the change of a write-off row that leaves only some of its
// list: the row exists if and only if its list is not empty.
func (l *Ledger) withoutIntents(period string, w *storedWriteOff, left []intent) (Op, error) {
	if l.mutated(ListAnyETag) {
		copied := *w
		copied.row.ETag = AnyETag
		w = &copied
	}
	if len(left) == 0 {
		return Op{Kind: Delete, Entity: Entity{Row: w.row.Row, ETag: w.row.ETag}}, nil
	}
	e, err := writeOffEntity(period, w.leaseID, left)
	e.ETag = w.row.ETag
	return Op{Kind: Replace, Entity: e}, err
}
