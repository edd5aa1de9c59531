package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"math"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// reserveOp takes a hold.
type reserveOp struct {
	reservation Reservation
	hold        *Hold
}

func (o *reserveOp) traits() (patient, looksFirst bool) { return false, false }

func (o *reserveOp) look(ctx context.Context, s Store, product string) (bool, error) {
	intent, err := s.Get(ctx, product, prefixIntent+o.hold.Record.ID)
	if errors.Is(err, ErrMissing) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	o.hold.Amount = intent.Ints["Amount"]
	return true, nil
}

func (o *reserveOp) compose(t *transaction) error {
	if stop, stopped := t.config.Stopped(t.now); stopped {
		return &Refusal{Reason: ReasonStopped, Stop: stop, Window: t.period()}
	}
	amount := o.reservation.Max
	if available := t.account.available(); amount > available && t.config.Enforcement == quota.EnforceHard {
		switch least := o.reservation.Min; {
		case least <= available:
			amount = available
		case least > t.account.Budget-t.account.Spent:
			return &Refusal{Reason: ReasonExhausted, Window: t.period()}
		default:
			return &Refusal{Reason: ReasonHeld, Window: t.period()}
		}
	}
	if amount > math.MaxInt64-t.account.Held {
		return &Refusal{Reason: ReasonHeld, Window: t.period()}
	}
	hold := o.hold
	hold.Amount = amount
	if o.reservation.HoldNanoUSD != nil {
		hold.Record.HoldNanoUSD = o.reservation.HoldNanoUSD(amount)
	}
	doc, err := json.Marshal(&hold.Record)
	if err != nil {
		return err
	}
	t.account.Held += amount
	t.add(Insert, Entity{
		Row:  prefixIntent + hold.Record.ID,
		Ints: map[string]int64{"Amount": amount}, Texts: map[string]string{"Doc": string(doc), "Instance": o.reservation.instance, "Period": t.window.Name},
	})
	return nil
}

// period is the account's period; the window of the writer may lack its ends.
func (t *transaction) period() quota.Window {
	return quota.Window{Name: t.account.Period, Start: t.account.Start, End: t.account.End}
}

func (o *reserveOp) committed(_ *Ledger, account *Account) {
	if account != nil {
		o.hold.Account = *account
	}
}

// ending says how an operation that ends a hold finds it.
type ending int

const (
	endListed   ending = iota // the intent is there
	endSwept                  // another process has charged it at its hold
	endUnlisted               // there is no trace of it
)

// findEnding looks for the record first and for the intent second: a sweep
// moves the money from the intent to the record.
func findEnding(ctx context.Context, s Store, product, recordID string) (how ending, row Entity, err error) {
	name, err := usageRow(recordID)
	if err != nil {
		return 0, row, final(err)
	}
	if row, err = s.Get(ctx, product, name); err == nil {
		return endSwept, row, nil
	} else if !errors.Is(err, ErrMissing) {
		return 0, row, err
	}
	if row, err = s.Get(ctx, product, prefixIntent+recordID); err == nil {
		return endListed, row, nil
	} else if errors.Is(err, ErrMissing) {
		return endUnlisted, row, nil
	}
	return 0, row, err
}

// settleOp turns a hold into a record.
type settleOp struct {
	hold       *Hold
	settlement Settlement
	how        ending
	swept      Entity   // of endSwept: the record to correct
	account    *Account // after the charge; nil: not known
	stored     usage.Record
	listed     bool // the stored response is known already
	again      bool // found in place by look: it was handed to the lake already, or the outbox has it
}

func (o *settleOp) traits() (patient, looksFirst bool) { return true, false }

func (o *settleOp) look(ctx context.Context, s Store, product string) (bool, error) {
	how, row, err := findEnding(ctx, s, product, o.hold.Record.ID)
	if err != nil {
		return false, err
	}
	if how == endSwept && row.Texts["Source"] != string(usage.SourceSwept) {
		o.again = true
		return true, nil
	}
	o.how, o.swept = how, row
	if id := o.settlement.StoredResponse; id != "" {
		if _, err := s.Get(ctx, product, responseRow(id)); err == nil {
			o.listed = true
		} else if !errors.Is(err, ErrMissing) {
			return false, err
		}
	}
	return false, nil
}

func (o *settleOp) compose(t *transaction) error {
	record := o.settlement.Record
	charge := spentBy(&record)
	how := o.how
	if o.hold.unlisted && how == endListed {
		how = endUnlisted
	}
	switch how {
	case endListed:
		t.account.Held -= o.hold.Amount
		t.add(Delete, Entity{Row: prefixIntent + record.ID, ETag: AnyETag})
	case endSwept:
		record.Rev = int(o.swept.Ints["Rev"]) + 1
	case endUnlisted:
	}
	row, outbox, err := recordEntities(&record)
	if err != nil {
		return err
	}
	kind := Insert
	if how == endSwept {
		kind, row.ETag = Replace, o.swept.ETag
		t.account.Spent += charge - o.swept.Ints["Charge"]
		t.account.Tokens += row.Ints["Tokens"] - o.swept.Ints["Tokens"]
	} else {
		t.account.Spent += charge
		t.account.Tokens += row.Ints["Tokens"]
		t.account.Records++
	}
	if charge > o.hold.Amount {
		t.account.Overruns++
	}
	t.add(kind, row)
	t.add(Insert, outbox)
	if id := o.settlement.StoredResponse; id != "" && !o.listed {
		t.add(Insert, Entity{
			Row:  responseRow(id),
			Ints: map[string]int64{"Tokens": o.settlement.StoredTokens}, Texts: map[string]string{"Record": record.ID},
		})
	}
	o.stored = record
	return nil
}

func (o *settleOp) committed(l *Ledger, account *Account) {
	if account != nil {
		copied := *account
		o.account = &copied
	}
	if !o.again {
		l.options.OnRecord(string(o.stored.ProductID), outboxRow(o.stored.ID, o.stored.Rev), o.stored)
	}
}

// voidOp gives a hold back. unknown: its reserve may or may not have happened,
// or may still happen; writing the account ends that.
type voidOp struct {
	hold    *Hold
	unknown bool
	how     ending
	row     Entity
}

func (o *voidOp) traits() (patient, looksFirst bool) { return true, o.unknown }

func (o *voidOp) look(ctx context.Context, s Store, product string) (done bool, err error) {
	o.how, o.row, err = findEnding(ctx, s, product, o.hold.Record.ID)
	if err != nil {
		return false, err
	}
	if o.how == endSwept && o.row.Texts["Source"] != string(usage.SourceSwept) {
		return true, nil // voided before
	}
	return o.how == endUnlisted && !o.unknown, nil
}

func (o *voidOp) compose(t *transaction) error {
	id := o.hold.Record.ID
	switch o.how {
	case endListed:
		amount := o.hold.Amount
		if o.row.Row != "" {
			amount = o.row.Ints["Amount"]
		}
		t.account.Held -= amount
		t.add(Delete, Entity{Row: prefixIntent + id, ETag: AnyETag})
	case endSwept:
		record, err := recordOf(o.row)
		if err != nil {
			return err
		}
		t.account.Spent -= o.row.Ints["Charge"]
		record.Rev++
		record.Charge, record.CostNanoUSD, record.ListCostNanoUSD = usage.Of(0), usage.Of(0), usage.Of(0)
		record.UsageSource = usage.Text(usage.SourceNone)
		row, outbox, err := recordEntities(&record)
		if err != nil {
			return err
		}
		row.ETag = o.row.ETag
		t.add(Replace, row)
		t.add(Insert, outbox)
	case endUnlisted:
		t.touched = true
	}
	return nil
}

func (o *voidOp) committed(*Ledger, *Account) {}

// sweepOp charges an intent whose process is gone at its hold.
type sweepOp struct {
	intent Entity
	record usage.Record
	stored bool
}

func (o *sweepOp) traits() (patient, looksFirst bool) { return false, false }

func (o *sweepOp) look(ctx context.Context, s Store, product string) (bool, error) {
	how, row, err := findEnding(ctx, s, product, o.record.ID)
	if err != nil {
		return false, err
	}
	if how == endListed {
		o.intent = row
	}
	return how != endListed, nil
}

func (o *sweepOp) compose(t *transaction) error {
	amount := o.intent.Ints["Amount"]
	row, outbox, err := recordEntities(&o.record)
	if err != nil {
		return err
	}
	t.account.Held -= amount
	t.account.Spent += amount
	t.account.Records++
	t.add(Delete, Entity{Row: o.intent.Row, ETag: o.intent.ETag})
	t.add(Insert, row)
	t.add(Insert, outbox)
	o.stored = true
	return nil
}

func (o *sweepOp) committed(l *Ledger, _ *Account) {
	if o.stored {
		l.options.OnRecord(string(o.record.ProductID), outboxRow(o.record.ID, o.record.Rev), o.record)
	}
}

// chargeOp records money that is already spent.
type chargeOp struct {
	product  *quota.Product
	record   usage.Record
	once     []Once
	repeated bool
}

func (o *chargeOp) traits() (patient, looksFirst bool) { return true, len(o.once) > 0 }

// look decides by the record first: if it is there, this very charge happened.
func (o *chargeOp) look(ctx context.Context, s Store, product string) (bool, error) {
	name, err := usageRow(o.record.ID)
	if err != nil {
		return false, final(err)
	}
	if _, err := s.Get(ctx, product, name); err == nil {
		return true, nil
	} else if !errors.Is(err, ErrMissing) {
		return false, err
	}
	for _, once := range o.once {
		row, err := s.Get(ctx, product, once.row())
		if errors.Is(err, ErrMissing) {
			continue
		} else if err != nil {
			return false, err
		}
		if row.Texts["Body"] != once.Body {
			return false, final(ErrOtherBody)
		}
		o.repeated = true
		return true, nil
	}
	return false, nil
}

func (o *chargeOp) compose(t *transaction) error {
	row, outbox, err := recordEntities(&o.record)
	if err != nil {
		return err
	}
	t.account.Spent += spentBy(&o.record)
	t.account.Tokens += row.Ints["Tokens"]
	t.account.Records++
	t.add(Insert, row)
	t.add(Insert, outbox)
	for _, once := range o.once {
		t.add(Insert, once.entity())
	}
	return nil
}

func (o *chargeOp) committed(l *Ledger, _ *Account) {
	if !o.repeated {
		l.options.OnRecord(string(o.record.ProductID), outboxRow(o.record.ID, o.record.Rev), o.record)
	}
}

func (o Once) entity() Entity { return Entity{Row: o.row(), Texts: map[string]string{"Body": o.Body}} }

func responseRow(responseID string) string { return prefixResponse + digest("response", responseID) }
