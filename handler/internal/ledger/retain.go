package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/costgate/costgate/handler/internal/usage"
)

// Limits of retention.
const (
	// RetentionLeast is the shortest time for which records are kept behind the end
	// of their period. Nothing that is late comes later than that.
	RetentionLeast = 24 * time.Hour
	// retainTxnsMax is how many transactions of up to 99 records one sweep of a
	// product spends on it.
	retainTxnsMax = 20
)

// total is the row that takes the place of records that are not kept any more:
// what they cost together.
type total struct {
	recorded
	cost  int64 // nano-USD
	whole bool  // every record of the period is in it
	row   Entity
}

func totalRow(period string) string { return prefixAccount + period + suffixTotal }

func totalOf(e Entity) total {
	return total{recorded{e.Ints["Charge"], e.Ints["Records"], e.Ints["Tokens"]}, e.Ints["CostNanoUSD"], e.Ints["Whole"] != 0, e}
}

func (t *total) entity(period string) Entity {
	whole := int64(0)
	if t.whole {
		whole = 1
	}
	return Entity{
		Row: totalRow(period),
		Ints: map[string]int64{
			"Charge": t.spent, "Records": t.records, "Tokens": t.tokens, "CostNanoUSD": t.cost, "Whole": whole,
		},
		Texts: map[string]string{"Period": period}, ETag: t.row.ETag,
	}
}

// Retain deletes the records of those periods of a product that ended before a
// moment and of which the lake has everything, and keeps their sum, so that
// Verify still proves what was spent. It returns how many it deleted; more tells
// that it stopped before the end. A period in which anything is left to settle
// or to send is left alone.
func (l *Ledger) Retain(ctx context.Context, productID string, before time.Time) (deleted int, more bool, err error) {
	periods, err := l.allBooks(ctx, productID)
	if err != nil {
		return 0, false, err
	}
	return l.retain(ctx, productID, periods, before)
}

func (l *Ledger) retain(ctx context.Context, product string, periods []*readPeriod, before time.Time) (deleted int, more bool, err error) {
	var unsent map[string]bool
	for left := retainTxnsMax; len(periods) > 0; periods = periods[1:] {
		p := periods[0]
		end := p.account.Window.End
		if !p.exists || end.IsZero() || !end.Before(before) || p.total.whole || len(p.leases)+len(p.writeOffs)+len(p.unreadable) > 0 {
			continue
		}
		if unsent == nil {
			if unsent, err = l.unsentRows(ctx, product); err != nil {
				return deleted, true, err
			}
		}
		for done := false; !done; left-- {
			if left == 0 || ctx.Err() != nil {
				return deleted, true, ctx.Err()
			}
			var n int
			if n, done, err = l.retainSome(ctx, product, p, unsent); err != nil {
				return deleted, true, fmt.Errorf("retention of %s: %w", p.name, err)
			}
			deleted += n
		}
	}
	return deleted, false, nil
}

// unsentRows are the records of a product that the lake lacks.
func (l *Ledger) unsentRows(ctx context.Context, product string) (map[string]bool, error) {
	rows := map[string]bool{}
	err := l.scan(ctx, product, prefixOutbox, func(e Entity, _ time.Time) error {
		pointed, err := pointedBy(e)
		for _, row := range pointed {
			rows[row] = true
		}
		return err
	})
	return rows, err
}

// retainSome moves up to OpsMax-1 records of a period into its total, in one
// transaction under the ETags of all of them: a record that is revised meanwhile
// makes it fail, and a copy of it that arrives late can do nothing. done tells
// that nothing is left to move.
func (l *Ledger) retainSome(ctx context.Context, product string, p *readPeriod, unsent map[string]bool) (deleted int, done bool, err error) {
	if err := l.readTotal(ctx, product, p); err != nil {
		return 0, false, err
	}
	records, waiting, err := l.oldRecords(ctx, product, p, unsent)
	if err == nil && len(records) > 0 {
		// What was revised since unsent was read: from here on the ETags tell.
		unsent, err = l.unsentRows(ctx, product)
		all := len(records)
		records = slices.DeleteFunc(records, func(e Entity) bool { return unsent[e.Row] })
		waiting = waiting || len(records) < all
	}
	if err != nil {
		return 0, false, err
	}
	sum := p.total
	before := make([]Entity, 0, len(records)+1)
	ops := make([]Op, 0, len(records)+1)
	for _, e := range records {
		sum.add(e)
		if usage.Kind(e.Texts["Kind"]).Spends() {
			sum.cost += e.Ints["CostNanoUSD"]
		}
		before = append(before, e)
		ops = append(ops, Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: e.ETag}})
	}
	if sum.whole = len(records) < OpsMax-1 && !waiting; len(records) == 0 && !sum.whole {
		return 0, true, nil // the lake lacks all that are left
	}
	op := Op{Kind: Insert, Entity: sum.entity(p.name)}
	if sum.row.Row != "" {
		op.Kind = Replace
		before = append(before, sum.row)
	}
	ops = append(ops, op)
	if err := l.sound(product, before, ops, 0); err != nil {
		return 0, false, err
	}
	if _, err := l.store.Apply(ctx, product, ops); err != nil {
		return 0, false, err
	}
	l.counters.add("retained")
	return len(records), sum.whole || len(records) < OpsMax-1, nil
}

func (l *Ledger) readTotal(ctx context.Context, product string, p *readPeriod) error {
	p.total = total{}
	row, err := l.store.Get(ctx, product, totalRow(p.name))
	if err == nil {
		p.total = totalOf(row)
	} else if !errors.Is(err, ErrMissing) {
		return err
	}
	return nil
}

// oldRecords are the first records of a period that the lake has, at most
// OpsMax-1. waiting tells that it lacks others.
func (l *Ledger) oldRecords(ctx context.Context, product string, p *readPeriod, unsent map[string]bool) (records []Entity, waiting bool, err error) {
	from, to := usageRowAt(p.account.Window.End.Add(auditMargin).UnixMilli()), after(prefixUsage)
	if start := p.account.Window.Start; !start.IsZero() {
		to = usageRowAt(start.Add(-auditMargin).UnixMilli())
	}
	for from != "" && len(records) < OpsMax-1 {
		page, err := l.store.Range(ctx, product, from, to, PageMax)
		if err != nil {
			return nil, false, err
		}
		for _, e := range page.Entities {
			switch {
			case e.Texts["Period"] != p.name:
			case unsent[e.Row]:
				waiting = true
			case len(records) < OpsMax-1:
				records = append(records, e)
			}
		}
		from = page.Next
	}
	return records, waiting, nil
}
