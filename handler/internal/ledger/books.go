package ledger

import (
	"context"
	"errors"
	"fmt"
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
	row, err := l.store.Get(ctx, p.ID, accountRow(window.Name))
	if errors.Is(err, ErrMissing) {
		return Account{Period: window.Name, Start: window.Start, End: window.End, Budget: p.Budget}, nil
	} else if err != nil {
		return Account{}, err
	}
	return accountOf(row), nil
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

// Unsent returns records that the lake has not acknowledged, oldest first for
// each product.
func (l *Ledger) Unsent(ctx context.Context, limit int) ([]OutboxEntry, error) {
	ids, err := l.productIDs(ctx)
	if err != nil {
		return nil, err
	}
	var entries []OutboxEntry
	for _, id := range ids {
		page, err := l.store.Range(ctx, id, prefixOutbox, after(prefixOutbox), min(max(limit-len(entries), 1), PageMax))
		if err != nil {
			return entries, err
		}
		for _, e := range page.Entities {
			row, err := l.store.Get(ctx, id, e.Texts["Usage"])
			if errors.Is(err, ErrMissing) { // a defect; it must not keep the others from the lake
				l.log.Error("BUG: outbox row without its record", "product_id", id, "row", e.Row)
				continue
			} else if err != nil {
				return entries, fmt.Errorf("record of outbox row %s/%s: %w", id, e.Row, err)
			}
			entries = append(entries, OutboxEntry{Product: id, Row: e.Row, Record: []byte(row.Texts["Doc"])})
		}
		if len(entries) >= limit {
			break
		}
	}
	return entries, nil
}

// Acknowledge forgets outbox rows whose records the lake has.
func (l *Ledger) Acknowledge(ctx context.Context, entries []OutboxEntry) error {
	byProduct := map[string][]Op{}
	for _, e := range entries {
		byProduct[e.Product] = append(byProduct[e.Product], Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: AnyETag}})
	}
	var failed error
	for product, ops := range byProduct {
		for len(ops) > 0 {
			n := min(len(ops), OpsMax)
			failed = errors.Join(failed, l.deleteAll(ctx, product, ops[:n]))
			ops = ops[n:]
		}
	}
	return failed
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

// Difference is something that Verify found.
type Difference struct {
	Product string `json:"product_id"`
	Period  string `json:"period"`
	What    string `json:"what"`
}

// Verify compares every account of a product with its records and intents. It
// needs a quiet product: what changes while it reads shows as a difference.
func (l *Ledger) Verify(ctx context.Context, productID string) ([]Difference, error) {
	type sums struct{ spent, held, records int64 }
	found := map[string]*sums{}
	at := func(period string) *sums {
		if found[period] == nil {
			found[period] = new(sums)
		}
		return found[period]
	}
	err := l.scan(ctx, productID, prefixUsage, func(e Entity, _ time.Time) error {
		if usage.Kind(e.Texts["Kind"]).Spends() {
			s := at(e.Texts["Period"])
			s.spent += e.Ints["Charge"]
			s.records++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = l.scan(ctx, productID, prefixIntent, func(e Entity, _ time.Time) error {
		at(e.Texts["Period"]).held += e.Ints["Amount"]
		return nil
	})
	if err != nil {
		return nil, err
	}
	var differences []Difference
	err = l.scan(ctx, productID, prefixAccount, func(e Entity, _ time.Time) error {
		if !strings.HasSuffix(e.Row, suffixAccount) {
			return nil
		}
		a := accountOf(e)
		s := at(a.Period)
		for _, c := range []struct {
			what      string
			book, sum int64
		}{{"spent", a.Spent, s.spent}, {"held", a.Held, s.held}, {"records", a.Records, s.records}} {
			if c.book != c.sum {
				differences = append(differences, Difference{productID, a.Period, fmt.Sprintf("%s: the account says %d, its rows sum to %d", c.what, c.book, c.sum)})
			}
		}
		delete(found, a.Period)
		return nil
	})
	for period, s := range found {
		if *s != (sums{}) {
			differences = append(differences, Difference{productID, period, fmt.Sprintf("no account, but rows: spent %d, held %d", s.spent, s.held)})
		}
	}
	return differences, err
}
