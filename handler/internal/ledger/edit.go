package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Draft is a product and its account of the running period, to be changed.
type Draft struct {
	Product *quota.Product
	Account Account // only its Budget may be changed
	// PeriodUntil is until when the kind of period must not be changed again: a
	// change has just come, and slow clocks are still before it. Zero: it may.
	PeriodUntil time.Time
	// Records are history: Kind, Charge and CostNanoUSD are the caller's, the
	// rest is filled in.
	Records []usage.Record
	// AddKey and RevokeKey are hashes of keys whose index rows follow the
	// change of Product.Keys.
	AddKey, RevokeKey string
}

// Edit changes a product, its running account and its history in one
// transaction. edit may be called several times, each time on a fresh draft; an
// error from it ends the edit. With a name in once the edit happens once, and
// done is false if it had happened before. A name used with another body is
// ErrOtherBody.
func (l *Ledger) Edit(ctx context.Context, productID string, once Once, edit func(d *Draft) error) (p *quota.Product, done bool, err error) {
	ctx, cancel := l.rt.Deadline(context.WithoutCancel(ctx), reserveWaitMax)
	defer cancel()
	now := l.options.Now()
	recordID := l.options.NewID(now) // one for all tries: its row tells whether one of them happened
	tried := false
	for try := 0; ; try++ {
		if try > 0 {
			l.pause(try)
			if ctx.Err() != nil {
				return nil, false, fmt.Errorf("edit: %w", errors.Join(ErrUnavailable, err))
			}
		}
		var repeated bool
		if p, repeated, err = l.edited(ctx, productID, once, recordID, tried); p != nil || errors.Is(err, ErrUnknownProduct) || errors.Is(err, ErrOtherBody) {
			return p, !repeated, err
		} else if err != nil {
			continue
		}
		tried = true
		var draft *Draft
		var records []usage.Record
		if draft, records, err = l.tryEdit(ctx, productID, once, recordID, now, edit); err == nil {
			l.edits(draft, records)
			l.learn(draft.Product)
			return draft.Product, true, nil
		}
		if errors.Is(err, errFinal) || errors.Is(err, ErrKeyTaken) || errors.Is(err, ErrUnknownProduct) || errors.Is(err, ErrInvalid) {
			return nil, false, err
		}
	}
}

// edited finds out whether the edit has happened: by its name, or by the record
// of an earlier try.
func (l *Ledger) edited(
	ctx context.Context, id string, once Once, recordID string, tried bool,
) (p *quota.Product, repeated bool, err error) {
	if tried {
		row, err := usageRow(recordID)
		if err != nil {
			return nil, false, err
		}
		if _, err := l.store.Get(ctx, id, row); err == nil {
			p, _, err := l.readProduct(ctx, id)
			return p, false, err
		} else if !errors.Is(err, ErrMissing) {
			return nil, false, err
		}
	}
	if once.Key == "" {
		return nil, false, nil
	}
	row, err := l.store.Get(ctx, id, once.row())
	switch {
	case errors.Is(err, ErrMissing):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	case row.Texts["Body"] != once.Body:
		return nil, false, ErrOtherBody
	}
	p, _, err = l.readProduct(ctx, id)
	return p, true, err
}

func (l *Ledger) tryEdit(
	ctx context.Context, id string, once Once, recordID string, now time.Time, edit func(d *Draft) error,
) (*Draft, []usage.Record, error) {
	product, config, err := l.readProduct(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	window, err := product.WindowAt(now)
	if err != nil {
		return nil, nil, final(err)
	}
	accounts, err := l.editable(ctx, product, window, now)
	if err != nil {
		return nil, nil, err
	}
	until, keep := foldPeriod(product, now)
	// The accounts were read after the configuration; if an edit came between
	// them the ETag of the configuration has moved and the transaction fails.
	budget := product.Budget
	var before []Entity
	draft := &Draft{Product: product, Account: Account{Period: window.Name, Start: window.Start, End: window.End, Budget: accounts[0].Budget}}
	draft.PeriodUntil = until
	if err := edit(draft); err != nil {
		return nil, nil, final(err)
	}
	keep()
	if draft.AddKey != "" {
		if err := l.claimKey(ctx, draft.AddKey, id); err != nil {
			return nil, nil, err
		}
	}
	product.Version++
	changed, err := configEntity(product)
	if err != nil {
		return nil, nil, final(err)
	}
	changed.ETag = config.ETag
	ops := []Op{{Kind: Replace, Entity: changed}}
	for i := range accounts {
		a := &accounts[i]
		switch {
		case i == 0:
			a.Budget = draft.Account.Budget
		case product.Budget != budget && a.later:
			a.Budget = product.Budget
		}
		if a.etag != "" {
			before = append(before, a.entity())
		}
		a.Version++
		a.Config = product.Version
		entity := a.entity()
		if entity.ETag = a.etag; a.etag == "" {
			ops = append(ops, Op{Kind: Insert, Entity: entity})
		} else {
			if l.mutated(EditAnyETag) {
				entity.ETag = AnyETag
			}
			ops = append(ops, Op{Kind: Replace, Entity: entity})
		}
	}
	if once.Key != "" && !l.mutated(EditWithoutName) {
		ops = append(ops, Op{Kind: Insert, Entity: once.entity()})
	}
	more, records, err := l.draftOps(draft, recordID, now)
	if err != nil {
		return nil, nil, final(err)
	}
	ops = append(ops, more...)
	if err := l.sound(id, before, ops, 0); err != nil {
		return nil, nil, err
	}
	if _, err = l.store.Apply(ctx, id, ops); err != nil {
		return nil, records, err
	}
	return draft, records, nil
}

// foldPeriod makes a change of period that has come the product's own period.
// keep, called when the product was edited, takes that back as long as a process
// whose clock is slow may still be before the change: it would find the new kind
// of period at a time that belongs to the old one, and a budget with it.
func foldPeriod(p *quota.Product, now time.Time) (until time.Time, keep func()) {
	change := p.NextPeriod
	if change == nil || now.Before(change.From) {
		return until, func() {}
	}
	period, zone := p.Period, p.TimeZone
	p.Period, p.TimeZone, p.NextPeriod = change.Period, change.TimeZone, nil
	if until = change.From.Add(2 * clocksOff); !now.Before(until) {
		return time.Time{}, func() {}
	}
	return until, func() {
		if p.NextPeriod == nil {
			p.Period, p.TimeZone, p.NextPeriod = period, zone, change
		}
	}
}

type editedAccount struct {
	account
	etag  string // empty: there is none
	later bool   // a clock that is ahead has opened it
}

// editable are the accounts that a change must reach: that of the running
// period, which is made if there is none, and those that a process uses whose
// clock is off, or which has not heard of a change of period.
func (l *Ledger) editable(ctx context.Context, p *quota.Product, window quota.Window, now time.Time) ([]editedAccount, error) {
	windows := []quota.Window{window}
	add := func(p *quota.Product, off time.Duration) (string, error) {
		w, err := p.WindowAt(now.Add(off))
		if err != nil {
			return "", final(err)
		}
		if !slices.ContainsFunc(windows, func(have quota.Window) bool { return have.Name == w.Name }) {
			windows = append(windows, w)
		}
		return w.Name, nil
	}
	later, err := add(p, clocksOff)
	if err != nil {
		return nil, err
	}
	kinds := []*quota.Product{p}
	if change := p.NextPeriod; change != nil {
		before, after := *p, *p
		before.NextPeriod = nil
		after.Period, after.TimeZone, after.NextPeriod = change.Period, change.TimeZone, nil
		kinds = append(kinds, &before, &after)
	}
	for _, kind := range kinds {
		for _, off := range []time.Duration{-clocksOff, 0, clocksOff} {
			if _, err := add(kind, off); err != nil {
				return nil, err
			}
		}
	}
	var accounts []editedAccount
	for i, w := range windows {
		row, err := l.store.Get(ctx, p.ID, accountRow(w.Name))
		switch {
		case err == nil:
			accounts = append(accounts, editedAccount{accountOf(row), row.ETag, i > 0 && w.Name == later})
		case !errors.Is(err, ErrMissing):
			return nil, err
		case i == 0:
			accounts = append(accounts, editedAccount{account{Window: w, Budget: p.Budget}, "", false})
		}
	}
	return accounts, nil
}

// edits does what follows a change that is in the store.
func (l *Ledger) edits(d *Draft, records []usage.Record) {
	l.forget(d.Product, d.AddKey, d.RevokeKey)
	l.crossEdited(d)
	for _, r := range records {
		l.options.OnRecord(d.Product.ID, outboxRow(r.ID, r.Rev), r)
	}
	if d.RevokeKey == "" {
		return
	}
	// The index row is only a hint; if this fails it is overruled for ever by
	// the product's own list of keys.
	ctx, cancel := l.timeout()
	defer cancel()
	row, err := l.store.Get(ctx, indexPartition, prefixKey+d.RevokeKey)
	if err == nil && row.Texts["Product"] == d.Product.ID {
		_, err = l.store.Apply(ctx, indexPartition, []Op{{Kind: Delete, Entity: Entity{Row: row.Row, ETag: row.ETag}}})
	}
	if err != nil && !errors.Is(err, ErrMissing) {
		l.log.Warn("index row of a revoked key is left behind", "product_id", d.Product.ID, "error", err)
	}
}

// draftOps are the history rows of a draft, at least one. The first record has
// the given id.
func (l *Ledger) draftOps(d *Draft, firstID string, now time.Time) ([]Op, []usage.Record, error) {
	if len(d.Records) == 0 {
		d.Records = []usage.Record{{Kind: usage.KindConfig}}
	}
	var ops []Op
	records := make([]usage.Record, 0, len(d.Records))
	for i, r := range d.Records {
		r.Schema, r.Rev, r.ID = usage.RecordSchema, 1, firstID
		if i > 0 {
			r.ID = l.options.NewID(now)
		}
		r.Time = timeOf(r.ID)
		r.Period, r.ProductID, r.Product = usage.Text(d.Account.Period), usage.Text(d.Product.ID), usage.Text(d.Product.Name)
		r.Unit, r.Tags = usage.Text(d.Product.Unit), d.Product.Tags
		row, outbox, err := recordEntities(&r)
		if err != nil {
			return nil, nil, err
		}
		ops = append(ops, Op{Kind: Insert, Entity: row}, Op{Kind: Insert, Entity: outbox})
		records = append(records, r)
	}
	return ops, records, nil
}
