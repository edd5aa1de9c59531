package ledger

import (
	"context"
	"errors"
	"strings"

	"github.com/costgate/costgate/handler/internal/usage"
)

// lateRows are the rows that decide how a request ends whose lease is gone.
type lateRows struct {
	usage, writeOff Entity
	found, listed   bool
	list            storedWriteOff
	at              int // in the list
}

func (b *book) lateRow(ctx context.Context, row string, into *Entity) (bool, error) {
	e, err := b.ledger.store.Get(ctx, b.product, row)
	if errors.Is(err, ErrMissing) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	*into = e
	return true, nil
}

// lateUsage reads the record.
func (b *book) lateUsage(ctx context.Context, id string, r *lateRows) (err error) {
	name, err := usageRow(id)
	if err != nil {
		return err
	}
	r.found, err = b.lateRow(ctx, name, &r.usage)
	return err
}

// lateListed reads the write-off row, and looks for the request in it.
func (b *book) lateListed(ctx context.Context, id, leaseID string, r *lateRows) error {
	exists, err := b.lateRow(ctx, writeOffRow(b.window.Name, leaseID), &r.writeOff)
	if err != nil || !exists {
		return err
	}
	list, err := intentsOf(r.writeOff.Texts)
	if err != nil {
		return err
	}
	r.list = storedWriteOff{leaseID, list, r.writeOff}
	for i := range list {
		if list[i].ID == id {
			r.listed, r.at = true, i
		}
	}
	return nil
}

// tryLateSettle records what a request really cost whose lease was reclaimed: it
// was charged at its hold then, in its own record, in the list of the write-off
// row, or in the write-off of the slack. Each branch is one transaction under
// the ETag of the row that it takes the money from, so several of them, and a
// materialize, may race in any order. It is done, or to be tried again.
func (b *book) tryLateSettle(e *ending) (done bool, err error) {
	ctx, cancel := b.ledger.timeout()
	defer cancel()
	record, leaseID := e.s.Record, e.held.leaseID
	var r lateRows
	if b.ledger.mutated(LateDropped) {
		return true, nil
	}
	if b.ledger.mutated(LateBlind) {
		return b.lateApply(ctx, e, record, lateBranch{name: "overrun", records: 1}, func(row Entity) ([]Op, error) {
			return []Op{{Kind: Insert, Entity: row}}, nil
		})
	}
	if err := b.lateUsage(ctx, record.ID, &r); err != nil {
		return false, err
	}
	if r.found && r.usage.Texts["Source"] != string(usage.SourceSwept) {
		return true, nil
	}
	if r.found {
		record.Rev = int(r.usage.Ints["Rev"]) + 1
		branch := lateBranch{"orphan", r.usage.Ints["Charge"], r.usage.Ints["Tokens"], 0, r.usage}
		return b.lateApply(ctx, e, record, branch, func(row Entity) ([]Op, error) {
			row.ETag = r.usage.ETag
			return []Op{{Kind: Replace, Entity: row}}, nil
		})
	}
	if err := b.lateListed(ctx, record.ID, leaseID, &r); err != nil {
		return false, err
	}
	if r.listed {
		branch := lateBranch{"listed", r.list.list[r.at].Hold, 0, 0, r.writeOff}
		return b.lateApply(ctx, e, record, branch, func(row Entity) ([]Op, error) {
			head, err := b.ledger.withoutIntents(b.window.Name, &r.list, cut(r.list.list, r.at))
			return []Op{head, {Kind: Insert, Entity: row}}, err
		})
	}
	writeOff := Entity{}
	name, err := usageRow(leaseID)
	if err != nil {
		return false, final(err)
	}
	slack, err := b.lateRow(ctx, name, &writeOff)
	if err != nil {
		return false, err
	}
	// The list may have become a record since it was read: then the insert of the
	// record fails, and the next try finds it.
	if charge := spentBy(&record); slack && writeOff.Ints["Charge"] >= charge {
		return b.lateApply(ctx, e, record, lateBranch{"slack", charge, 0, 1, writeOff}, func(row Entity) ([]Op, error) {
			rest, err := recordOf(writeOff)
			if err != nil {
				return nil, err
			}
			rest.Rev++
			if !b.ledger.mutated(WriteOffNotReduced) {
				rest.Charge.N -= charge
				rest.CostNanoUSD.N -= min(rest.CostNanoUSD.N, record.CostNanoUSD.N) // zero where unknown
			}
			restRow, restOut, err := recordEntities(&rest)
			restRow.ETag = writeOff.ETag
			return []Op{{Kind: Replace, Entity: restRow}, {Kind: Insert, Entity: restOut}, {Kind: Insert, Entity: row}}, err
		})
	}
	return b.lateApply(ctx, e, record, lateBranch{name: "overrun", records: 1}, func(row Entity) ([]Op, error) {
		return []Op{{Kind: Insert, Entity: row}}, nil
	})
}

func cut(list []intent, at int) []intent {
	return append(append([]intent{}, list[:at]...), list[at+1:]...)
}

// lateBranch is where the money is that a late record replaces.
type lateBranch struct {
	name            string
	charged, tokens int64 // what the books have for it
	records         int64 // that the account gains
	before          Entity
}

// lateApply writes a late record, and the account.
func (b *book) lateApply(ctx context.Context, e *ending, record usage.Record, branch lateBranch, rows func(row Entity) ([]Op, error)) (done bool, err error) {
	row, outbox, err := recordEntities(&record)
	if err != nil {
		return false, final(err)
	}
	ops, err := rows(row)
	if err != nil {
		return false, final(err)
	}
	ops = append(ops, Op{Kind: Insert, Entity: outbox})
	if id := e.s.StoredResponse; id != "" {
		var known Entity
		if exists, err := b.lateRow(ctx, responseRow(id), &known); err != nil {
			return false, err
		} else if !exists {
			ops = append(ops, responseOp(&e.s))
		}
	}
	c := correction{spent: spentBy(&record) - branch.charged, tokens: row.Ints["Tokens"] - branch.tokens, records: branch.records}
	if spentBy(&record) > e.held.intent.Hold {
		c.overruns = 1
	}
	if err := b.ledger.correct(ctx, b.product, b.window.Name, c, branch.before, ops); err != nil {
		return false, err
	}
	b.ledger.counters.add("late " + branch.name)
	b.ledger.options.OnRecord(b.product, outboxRow(record.ID, record.Rev), record)
	return true, nil
}

// correction is what a change of records does to an account whose lease is gone.
type correction struct{ spent, tokens, records, overruns int64 }

// correct sends a transaction together with its change of the account, which it
// reads. before is the row, besides the account, that the transaction replaces.
func (l *Ledger) correct(ctx context.Context, product, period string, c correction, before Entity, ops []Op) error {
	row, err := l.store.Get(ctx, product, accountRow(period))
	if err != nil {
		return err
	}
	a := accountOf(row)
	a.Version++
	a.Committed += c.spent
	a.Closed += c.spent
	a.Tokens += c.tokens
	a.Records += c.records
	a.Overruns += c.overruns
	e := a.entity()
	e.ETag = row.ETag
	ops = append(ops, Op{Kind: Replace, Entity: e})
	if err := l.sound(product, []Entity{row, before}, ops, max(0, c.spent)); err != nil {
		return err
	}
	_, err = l.store.Apply(ctx, product, ops)
	return err
}

// tryLateVoid gives back what a reclaim charged for a request that was never
// forwarded. It reads the write-off row before the record: money moves from the
// one to the other.
func (b *book) tryLateVoid(id, leaseID string) (done bool, err error) {
	ctx, cancel := b.ledger.timeout()
	defer cancel()
	var r lateRows
	if b.ledger.mutated(VoidUsageFirst) {
		if err := b.lateUsage(ctx, id, &r); err != nil {
			return false, err
		}
	}
	if err := b.lateListed(ctx, id, leaseID, &r); err != nil {
		return false, err
	}
	if r.listed {
		head, err := b.ledger.withoutIntents(b.window.Name, &r.list, cut(r.list.list, r.at))
		if err != nil {
			return false, final(err)
		}
		c := correction{spent: -r.list.list[r.at].Hold, records: -1}
		err = b.ledger.correct(ctx, b.product, b.window.Name, c, r.writeOff, []Op{head})
		b.ledger.counters.add("late void listed")
		return err == nil, err
	}
	if b.ledger.mutated(VoidUsageFirst) && !r.found {
		return true, nil
	}
	if err := b.lateUsage(ctx, id, &r); err != nil {
		return false, err
	}
	if !r.found || r.usage.Texts["Source"] != string(usage.SourceSwept) {
		return true, nil
	}
	record, err := recordOf(r.usage)
	if err != nil {
		return false, final(err)
	}
	record.Rev++
	record.Charge, record.CostNanoUSD, record.ListCostNanoUSD = usage.Of(0), usage.Of(0), usage.Of(0)
	record.UsageSource = usage.Text(usage.SourceNone)
	row, outbox, err := recordEntities(&record)
	if err != nil {
		return false, final(err)
	}
	row.ETag = r.usage.ETag
	c := correction{spent: -r.usage.Ints["Charge"]}
	if err := b.ledger.correct(ctx, b.product, b.window.Name, c, r.usage, []Op{{Kind: Replace, Entity: row}, {Kind: Insert, Entity: outbox}}); err != nil {
		return false, err
	}
	b.ledger.counters.add("late void orphan")
	b.ledger.options.OnRecord(b.product, outboxRow(record.ID, record.Rev), record)
	return true, nil
}

// Amendment is what an operator found that a swept request really cost.
type Amendment struct {
	Charge      int64 // in the product's unit
	CostNanoUSD int64
	By          string // who says so
}

// Amend sets the charge of a swept record to what it really was: a new revision
// in the books, and a config record that says who did it. It fails with
// ErrUnknownRecord, and with ErrNotSwept for a record that is not one.
func (l *Ledger) Amend(ctx context.Context, productID, recordID string, amend Amendment) (usage.Record, error) {
	name, err := usageRow(recordID)
	if err != nil {
		return usage.Record{}, ErrUnknownRecord
	}
	audit := usage.Record{Schema: usage.RecordSchema, ID: l.options.NewID(l.options.Now()), Rev: 1, Kind: usage.KindConfig}
	for try := 0; ; try++ {
		row, err := l.store.Get(ctx, productID, name)
		if errors.Is(err, ErrMissing) {
			return usage.Record{}, ErrUnknownRecord
		} else if err != nil {
			return usage.Record{}, err
		}
		record, err := recordOf(row)
		if err != nil {
			return record, err
		}
		if try > 0 {
			if _, err := l.Record(ctx, productID, audit.ID); err == nil {
				return record, nil // an earlier try happened all the same
			} else if !errors.Is(err, ErrUnknownRecord) {
				return record, err
			}
		}
		if record.UsageSource != usage.Text(usage.SourceSwept) {
			return record, ErrNotSwept
		}
		if err = l.amend(ctx, &record, row, audit, amend); err == nil {
			return record, nil
		}
		if ctx.Err() != nil || try == amendTriesMax || errors.Is(err, errFinal) {
			return record, err
		}
		l.pause(try)
	}
}

func (l *Ledger) amend(ctx context.Context, record *usage.Record, row Entity, audit usage.Record, amend Amendment) error {
	record.Rev++
	record.Charge, record.CostNanoUSD, record.ListCostNanoUSD = usage.Of(amend.Charge), usage.Of(amend.CostNanoUSD), usage.Of(amend.CostNanoUSD)
	record.UsageSource = usage.Text(usage.SourceEstimate)
	audit.Time, audit.RequestID, audit.User = timeOf(audit.ID), usage.Text(record.ID), usage.Text(amend.By)
	audit.Period, audit.ProductID, audit.Product, audit.Unit = record.Period, record.ProductID, record.Product, record.Unit
	var ops []Op
	for _, r := range []*usage.Record{record, &audit} {
		fresh, outbox, err := recordEntities(r)
		if err != nil {
			return final(err)
		}
		kind := Insert
		if r == record {
			kind, fresh.ETag = Replace, row.ETag
		}
		ops = append(ops, Op{Kind: kind, Entity: fresh}, Op{Kind: Insert, Entity: outbox})
	}
	c := correction{spent: amend.Charge - row.Ints["Charge"]}
	if c.spent > 0 { // it was charged at its hold
		c.overruns = 1
	}
	return l.correct(ctx, row.Partition, string(record.Period), c, row, ops)
}

// splitBooksRow reads the name of an account, a lease, a total or a write-off: its
// kind ("A", "L", "T", "W"), period and lease id.
func splitBooksRow(row string) (kind, period, id string) {
	rest, ok := strings.CutPrefix(row, prefixAccount)
	if !ok {
		return "", "", ""
	}
	parts := strings.SplitN(rest, ".", 3)
	switch {
	case len(parts) == 2 && (parts[1] == "A" || parts[1] == "T"):
		return parts[1], parts[0], ""
	case len(parts) == 3:
		return parts[1], parts[0], parts[2]
	}
	return "", "", ""
}

func markRow(period, leaseID string, m mark) string {
	return m.in(leaseRow(period, leaseID))
}
