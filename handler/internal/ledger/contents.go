package ledger

import (
	"context"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/usage"
)

// EachRecord calls visit for every record that is kept of a product, the newest
// first. An error of visit ends it.
func (l *Ledger) EachRecord(ctx context.Context, productID string, visit func(usage.Record) error) error {
	return l.scan(ctx, productID, prefixUsage, func(e Entity, _ time.Time) error {
		r, err := recordOf(e)
		if err != nil {
			return err
		}
		return visit(r)
	})
}

// Total is what records of a period cost that are not kept any more.
type Total struct {
	Period              string
	Charge, CostNanoUSD int64
	Records, Tokens     int64
	Whole               bool // none of the period's records is kept
}

// Waiting are the ids of those records of a product that the lake has not
// acknowledged, and Totals what is kept of its records that went.
func (l *Ledger) Waiting(ctx context.Context, productID string) (ids map[string]bool, totals []Total, err error) {
	ids = map[string]bool{}
	books, err := l.allBooks(ctx, productID)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range books {
		for i := range p.leases {
			for _, m := range p.leases[i].Unsent {
				ids[m.ID] = true
			}
		}
		if t := &p.total; t.row.Row != "" {
			totals = append(totals, Total{p.name, t.spent, t.cost, t.records, t.tokens, t.whole})
		}
	}
	err = l.scan(ctx, productID, prefixOutbox, func(e Entity, _ time.Time) error {
		id, _, _ := strings.Cut(strings.TrimPrefix(e.Row, prefixOutbox), ".")
		ids[id] = true
		marks, err := marksOf(e.Texts)
		for _, m := range marks {
			ids[m.ID] = true
		}
		return err
	})
	return ids, totals, err
}
