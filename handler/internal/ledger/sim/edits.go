package sim

import (
	"context"
	"errors"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// The kinds of edit.
const (
	editDeposit = iota
	editBudget
	editStop
	editLift
	editAlert  // an alert of Azure's budget: it stops, and comes again and again
	editPeriod // from the next period on
)

var editKinds = []int{editDeposit, editDeposit, editDeposit, editBudget, editBudget, editStop, editAlert, editLift, editLift, editLift}

// edit is a change that somebody asked for, maybe several times.
type edit struct {
	name    string
	once    ledger.Once // no name: the caller asks but once
	kind    int
	amount  int64
	period  quota.PeriodKind // of editPeriod
	applied int
	acked   bool
}

// edit changes the product somehow.
func (r *run) edit(of *product, kind int) {
	e := &edit{name: r.name("edit"), kind: kind, amount: r.random.Int64N(4000) * of.wealth, period: of.next}
	if kind == editBudget {
		e.amount = 1000 + e.amount*8
	}
	if kind == editAlert || r.chance(60) {
		e.once = ledger.Once{Key: e.name, Body: "b"}
	}
	of.oracle.edits[e.name] = e
	r.try(of, e)
	if e.once.Key == "" {
		return
	}
	for range r.random.IntN(3) { // at the same time, or soon after
		r.after(r.between(0, 5*time.Second), func() { r.try(of, e) })
	}
	if kind == editAlert && r.chance(70) { // it comes again when somebody has lifted the stop
		r.after(r.between(5*time.Second, 30*time.Second), func() { r.edit(of, editLift) })
		r.after(r.between(10*time.Second, 60*time.Second), func() { r.try(of, e) })
	}
	if r.chance(20) {
		r.after(r.between(time.Second, 20*time.Second), func() { r.misuseEdit(of, e) })
	}
}

// try lets some process make an edit.
func (r *run) try(of *product, e *edit) {
	p := r.anybody()
	if p == nil || r.calm {
		return
	}
	r.spawn(p, func() {
		if r.tryOn(p, of, e) == nil {
			r.count("edit")
		}
	})
}

func (r *run) tryOn(p *process, of *product, e *edit) error {
	r.current.edits = true
	_, done, err := p.ledger.Edit(context.Background(), of.id, e.once, func(d *ledger.Draft) error {
		e.apply(d, p.Now())
		return nil
	})
	r.current.edits = false
	if err != nil {
		return err
	}
	r.trace("%s edit %s kind %d amount %d done=%v", p.name, e.name, e.kind, e.amount, done)
	e.acked = true
	if e.applied == 0 {
		r.violate("EDIT", "%s was acknowledged (done=%v) but did not happen", e.name, done)
	}
	if !done {
		r.count("edit repeated")
	}
	return nil
}

// apply is what the edit does. Like package admin's and package budget's it says
// so in the history, where the oracle finds its name.
func (e *edit) apply(d *ledger.Draft, now time.Time) {
	kind, charge := usage.KindConfig, usage.Count{}
	p := d.Product
	switch e.kind {
	case editDeposit:
		d.Account.Budget += e.amount
		kind, charge = usage.KindDeposit, usage.Of(-e.amount)
	case editBudget:
		p.Budget, d.Account.Budget = e.amount, e.amount
	case editStop:
		p.Stop = &quota.Stop{Reason: e.name, Since: now}
		kind = usage.KindStop
	case editAlert:
		kind = usage.KindAlert
		until := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
		if stop, stopped := p.Stopped(now); !stopped || (!stop.Until.IsZero() && stop.Until.Before(until)) {
			p.Stop = &quota.Stop{Reason: e.name, Since: now, Until: until}
		}
	case editLift:
		p.Stop = nil
		kind = usage.KindLift
	case editPeriod:
		if !d.Account.End.IsZero() && p.NextPeriod == nil {
			p.NextPeriod = &quota.PeriodChange{From: d.Account.End, Period: e.period, TimeZone: "UTC"}
		}
	}
	d.Records = []usage.Record{{Kind: kind, Charge: charge, RequestID: usage.Text(e.name)}}
}

// misuseEdit repeats the name of an edit for another one.
func (r *run) misuseEdit(of *product, e *edit) {
	p := r.anybody()
	if p == nil || !e.acked || r.calm {
		return
	}
	other := &edit{name: r.name("misuse"), once: ledger.Once{Key: e.once.Key, Body: "another"}, kind: editDeposit, amount: 1_000_000}
	of.oracle.edits[other.name] = other
	r.spawn(p, func() {
		r.current.edits = true
		_, _, err := p.ledger.Edit(context.Background(), of.id, other.once, func(d *ledger.Draft) error {
			other.apply(d, p.Now())
			return nil
		})
		r.current.edits = false
		switch {
		case errors.Is(err, ledger.ErrOtherBody):
			r.count("other body of an edit")
		case err == nil:
			r.violate("BODY", "%s was used for another edit", e.once.Key)
		}
	})
}
