package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Stored is a response that Azure keeps for a product.
type Stored struct {
	Tokens   int64  // as a context; 0: not known yet
	Model    string // that counts so
	RecordID string // of the request that made it
}

// StoredResponse finds a stored response of a product. owned is false if the
// product made no such response.
func (l *Ledger) StoredResponse(ctx context.Context, productID, responseID string) (s Stored, owned bool, err error) {
	row, err := l.store.Get(ctx, productID, responseRow(responseID))
	if errors.Is(err, ErrMissing) {
		return s, false, nil
	} else if err != nil {
		return s, false, err
	}
	return Stored{Tokens: row.Ints["Tokens"], Model: row.Texts["Model"], RecordID: row.Texts["Record"]}, true, nil
}

// reviseTriesMax bounds how often a revision is tried that others get in the way of.
const reviseTriesMax = 8

// Revise replaces what was charged for a stored response without knowing its
// usage by what it really cost: a new revision of its record, once. revise gets
// the record as it is and sets what it learnt, Charge included; several tries
// call it anew, and an error from it leaves the record alone. tokens is what the response is as a context. done is false if
// the record already holds usage that the provider reported, whoever brought it.
// It fails with [ErrUnknownRecord] if the product made no such response.
func (l *Ledger) Revise(
	ctx context.Context, productID, responseID string, tokens int64, revise func(*usage.Record) error,
) (record usage.Record, done bool, err error) {
	ctx, cancel := l.rt.Deadline(context.WithoutCancel(ctx), settleWaitMax)
	defer cancel()
	for try := 0; ; try++ {
		record, done, err = l.tryRevise(ctx, productID, responseID, tokens, revise)
		if err == nil || ctx.Err() != nil || try == reviseTriesMax || errors.Is(err, errFinal) || errors.Is(err, ErrUnknownRecord) {
			return record, done, err
		}
		l.pause(try)
	}
}

func (l *Ledger) tryRevise(
	ctx context.Context, productID, responseID string, tokens int64, revise func(*usage.Record) error,
) (record usage.Record, done bool, err error) {
	response, err := l.store.Get(ctx, productID, responseRow(responseID))
	if errors.Is(err, ErrMissing) {
		return record, false, ErrUnknownRecord
	} else if err != nil {
		return record, false, err
	}
	name, err := usageRow(response.Texts["Record"])
	if err != nil {
		return record, false, final(err)
	}
	row, err := l.store.Get(ctx, productID, name)
	if errors.Is(err, ErrMissing) {
		return record, false, ErrUnknownRecord
	} else if err != nil {
		return record, false, err
	}
	if record, err = recordOf(row); err != nil {
		return record, false, final(err)
	}
	if record.UsageSource == usage.Text(usage.SourceProvider) && !l.mutated(ReviseTwice) {
		return record, false, nil // an earlier fetch brought it, or a try whose answer was lost
	}
	id, period, kind := record.ID, record.Period, record.Kind
	if err := revise(&record); err != nil {
		return record, false, final(err)
	}
	if record.ID != id || record.Period != period || record.Kind != kind || record.UsageSource != usage.Text(usage.SourceProvider) {
		return record, false, final(fmt.Errorf("BUG: record %s is revised into something else", id))
	}
	record.Rev = int(row.Ints["Rev"]) + 1
	fresh, outbox, err := recordEntities(&record)
	if err != nil {
		return record, false, final(err)
	}
	if fresh.ETag = row.ETag; l.mutated(ReviseAnyETag) {
		fresh.ETag = AnyETag
	}
	ops := []Op{{Kind: Replace, Entity: fresh}, {Kind: Insert, Entity: outbox}}
	if tokens > 0 && response.Ints["Tokens"] == 0 {
		response.Ints = map[string]int64{"Tokens": tokens}
		ops = append(ops, Op{Kind: Replace, Entity: response})
	}
	c := correction{
		spent:  fresh.Ints["Charge"] - row.Ints["Charge"],
		tokens: fresh.Ints["Tokens"] - row.Ints["Tokens"],
	}
	hold := row.Ints["Charge"] // unless the record says better
	if record.Unit == usage.Text(quota.UnitUSD) && record.HoldNanoUSD.Known {
		hold = record.HoldNanoUSD.N
	}
	if fresh.Ints["Charge"] > hold && row.Ints["Charge"] <= hold {
		c.overruns = 1
	}
	if err := l.correct(ctx, productID, string(record.Period), c, row, ops); err != nil {
		return record, false, err
	}
	l.counters.add("revised")
	l.options.OnRecord(productID, outbox.Row, record)
	return record, true, nil
}
