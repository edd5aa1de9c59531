package ledger

import (
	"context"
	"errors"
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
