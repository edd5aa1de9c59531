package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Balance is the account of the product's running period, read from the store.
// A period in which nothing happened has the product's budget and nothing else.
func (l *Ledger) Balance(ctx context.Context, p *quota.Product) (Account, error) {
	window, err := p.WindowAt(l.options.Now())
	if err != nil {
		return Account{}, err
	}
	books, err := l.readBooks(ctx, p.ID, window.Name)
	if err != nil {
		return Account{}, err
	}
	if !books.exists {
		return Account{Period: window.Name, Start: window.Start, End: window.End, Budget: p.Budget}, nil
	}
	return books.view(), nil
}

// Record reads one record of a product by its id. It fails with
// ErrUnknownRecord, also if the record belongs to another product.
func (l *Ledger) Record(ctx context.Context, productID, recordID string) (usage.Record, error) {
	name, err := usageRow(recordID)
	if err != nil {
		return usage.Record{}, ErrUnknownRecord
	}
	row, err := l.store.Get(ctx, productID, name)
	if errors.Is(err, ErrMissing) {
		return usage.Record{}, ErrUnknownRecord
	} else if err != nil {
		return usage.Record{}, err
	}
	return recordOf(row)
}

// HistoryQuery selects records: admitted in [From, To) (zero: no bound), after
// the record with the id After, at most Limit (1 to HistoryMax).
type HistoryQuery struct {
	From, To time.Time
	After    string
	Limit    int
}

// History reads a product's records, newest first. more tells whether there
// are others behind the last one. An After that is no record id is
// ErrUnknownRecord.
func (l *Ledger) History(ctx context.Context, productID string, q HistoryQuery) (records []usage.Record, more bool, err error) {
	from, to := prefixUsage, after(prefixUsage)
	if !q.To.IsZero() {
		from = usageRowAt(q.To.UnixMilli() - 1) // rows of that last millisecond begin here
	}
	if !q.From.IsZero() {
		to = usageRowAt(q.From.UnixMilli() - 1)
	}
	if q.After != "" {
		row, err := usageRow(q.After)
		if err != nil {
			return nil, false, ErrUnknownRecord
		}
		from = max(from, row+"0") // the next possible row: an id has no longer form
	}
	if from >= to {
		return nil, false, nil
	}
	page, err := l.store.Range(ctx, productID, from, to, min(max(q.Limit, 1), HistoryMax))
	if err != nil {
		return nil, false, err
	}
	for _, e := range page.Entities {
		r, err := recordOf(e)
		if err != nil {
			return nil, false, err
		}
		records = append(records, r)
	}
	return records, page.Next != "", nil
}

// StoredResponse tells whether a product made a stored response, and how many
// tokens it is as a context.
func (l *Ledger) StoredResponse(ctx context.Context, productID, responseID string) (tokens int64, owned bool, err error) {
	row, err := l.store.Get(ctx, productID, responseRow(responseID))
	if errors.Is(err, ErrMissing) {
		return 0, false, nil
	} else if err != nil {
		return 0, false, err
	}
	return row.Ints["Tokens"], true, nil
}

// OutboxEntry is a record that the lake has not acknowledged, and its outbox row.
type OutboxEntry struct {
	Product, Row string
	Record       []byte // JSON
}

// Unsent returns records that the lake has not acknowledged: those of closed
// leases, those with an outbox row, and those of this process that were offered
// some time ago. Other processes send their own.
func (l *Ledger) Unsent(ctx context.Context, limit int) ([]OutboxEntry, error) {
	entries, err := l.ownUnsent(ctx, limit)
	if err != nil {
		return entries, err
	}
	ids, err := l.productIDs(ctx)
	if err != nil {
		return entries, err
	}
	for _, id := range ids {
		if len(entries) >= limit {
			break
		}
		more, err := l.closedUnsent(ctx, id, limit-len(entries))
		entries = append(entries, more...)
		if err != nil {
			return entries, err
		}
		if len(entries) >= limit {
			break
		}
		page, err := l.store.Range(ctx, id, prefixOutbox, after(prefixOutbox), min(limit-len(entries), PageMax))
		if err != nil {
			return entries, err
		}
		for _, e := range page.Entities {
			if entries, err = l.appendUnsent(ctx, entries, id, e.Row, e.Texts["Usage"]); err != nil {
				return entries, err
			}
		}
	}
	return entries, nil
}

func (l *Ledger) appendUnsent(ctx context.Context, entries []OutboxEntry, product, row, usageRow string) ([]OutboxEntry, error) {
	record, err := l.store.Get(ctx, product, usageRow)
	if errors.Is(err, ErrMissing) { // a defect; it must not keep the others from the lake
		l.log.Error("BUG: outbox entry without its record", "product_id", product, "row", row)
		return entries, nil
	} else if err != nil {
		return entries, fmt.Errorf("record of outbox entry %s/%s: %w", product, row, err)
	}
	return append(entries, OutboxEntry{Product: product, Row: row, Record: []byte(record.Texts["Doc"])}), nil
}

// ownUnsent finds what was offered and forgotten: the relay's queue was full.
func (l *Ledger) ownUnsent(ctx context.Context, limit int) (entries []OutboxEntry, err error) {
	l.mu.Lock()
	books := make([]*book, 0, len(l.books))
	for _, b := range l.books {
		books = append(books, b)
	}
	l.mu.Unlock()
	for _, b := range books {
		b.mu.Lock()
		var marks []mark
		lease := ""
		if b.lease != nil {
			lease = b.lease.ID
			for _, m := range b.lease.Unsent {
				if at, offered := b.offered[m]; offered && l.rt.Elapsed()-at > resendAfter && len(entries)+len(marks) < limit {
					marks = append(marks, m)
					b.offered[m] = l.rt.Elapsed()
				}
			}
		}
		b.mu.Unlock()
		for _, m := range marks {
			name, err := usageRow(m.ID)
			if err != nil {
				return entries, err
			}
			if entries, err = l.appendUnsent(ctx, entries, b.product, markRow(b.window.Name, lease, m), name); err != nil {
				return entries, err
			}
		}
	}
	return entries, nil
}

func (l *Ledger) closedUnsent(ctx context.Context, product string, limit int) (entries []OutboxEntry, err error) {
	all, order, err := l.allBooks(ctx, product)
	if err != nil {
		return nil, err
	}
	for _, period := range order {
		for i := range all[period].leases {
			lease := &all[period].leases[i]
			if !lease.Closed {
				continue
			}
			l.mu.Lock()
			have := maps.Clone(l.adopted[product+"/"+leaseRow(period, lease.ID)])
			l.mu.Unlock()
			if len(have) >= len(lease.Unsent) && len(lease.Unsent) > 0 { // all was sent: only the row is left
				if err := l.ackClosed(ctx, product, leaseRow(period, lease.ID), nil); err != nil {
					return entries, err
				}
			}
			for _, m := range lease.Unsent {
				if have[m] || len(entries) >= limit {
					continue
				}
				name, err := usageRow(m.ID)
				if err != nil {
					return entries, err
				}
				if entries, err = l.appendUnsent(ctx, entries, product, markRow(period, lease.ID, m), name); err != nil {
					return entries, err
				}
			}
		}
	}
	return entries, nil
}

// Acknowledge forgets records that the lake has. Those that an own lease lists
// leave it with its next transaction; a closed lease goes when all are gone.
func (l *Ledger) Acknowledge(ctx context.Context, entries []OutboxEntry) error {
	byProduct, leases := map[string][]Op{}, map[string]map[string][]mark{}
	for _, e := range entries {
		row, name, listed := strings.Cut(e.Row, " ")
		if !listed {
			byProduct[e.Product] = append(byProduct[e.Product], Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: AnyETag}})
			continue
		}
		m, err := markOf(name)
		if err != nil {
			return fmt.Errorf("outbox entry %s: %w", e.Row, err)
		}
		if l.ackOwn(e.Product, row, m) {
			continue
		}
		if leases[e.Product] == nil {
			leases[e.Product] = map[string][]mark{}
		}
		leases[e.Product][row] = append(leases[e.Product][row], m)
	}
	var failed error
	for product, rows := range leases {
		for row, marks := range rows {
			failed = errors.Join(failed, l.ackClosed(ctx, product, row, marks))
		}
	}
	for product, ops := range byProduct {
		for len(ops) > 0 {
			n := min(len(ops), OpsMax)
			failed = errors.Join(failed, l.deleteAll(ctx, product, ops[:n]))
			ops = ops[n:]
		}
	}
	return failed
}

func (l *Ledger) ackOwn(product, row string, m mark) bool {
	_, period, id := splitBooksRow(row)
	l.mu.Lock()
	b := l.books[accountKey{product, period}]
	l.mu.Unlock()
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lease == nil || b.lease.ID != id {
		return false
	}
	b.acked[m] = true
	delete(b.offered, m)
	return true
}

// ackClosed remembers what the lake has of a closed lease, and deletes the lease
// when that is all. A lease that is still open is another process's, or was
// this one's until now: it is told again later.
func (l *Ledger) ackClosed(ctx context.Context, product, row string, marks []mark) error {
	name := product + "/" + row
	l.mu.Lock()
	if l.adopted[name] == nil {
		l.adopted[name] = map[mark]bool{}
	}
	for _, m := range marks {
		l.adopted[name][m] = true
	}
	have := maps.Clone(l.adopted[name])
	l.mu.Unlock()
	e, err := l.store.Get(ctx, product, row)
	if errors.Is(err, ErrMissing) {
		l.forgetAdopted(name)
		return nil
	} else if err != nil {
		return err
	}
	lease, err := leaseHead(e)
	if err != nil || !lease.Closed {
		return err
	}
	for _, m := range lease.Unsent {
		if !have[m] {
			return nil
		}
	}
	_, period, id := splitBooksRow(row)
	if _, err := l.store.Get(ctx, product, writeOffRow(period, id)); !errors.Is(err, ErrMissing) {
		return err // its list comes first; the sweep asks again
	}
	if _, err := l.store.Apply(ctx, product, []Op{{Kind: Delete, Entity: Entity{Row: row, ETag: e.ETag}}}); err == nil {
		l.forgetAdopted(name)
	}
	return nil // whatever happened, the next look at the outbox sees it
}

func (l *Ledger) forgetAdopted(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.adopted, name)
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
