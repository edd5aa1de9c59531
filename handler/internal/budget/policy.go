package budget

import (
	"context"
	"encoding/json"
	"math/bits"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// user is who did it, in the records of an alert.
const user = "budget alert"

// verdict is what the steps of a product say to an alert.
type verdict struct {
	stop, throttle *quota.AlertStep
	notify         bool
}

// judge finds the steps that an alert reaches: of those that stop the highest,
// of those that throttle the one that leaves least. An amount that cannot be
// read reaches nothing.
func (a *Alert) judge(steps []quota.AlertStep) (v verdict) {
	amount := a.Spent
	if a.Kind == Forecasted {
		amount = a.Forecast
		v.notify = true
	}
	if !amount.Known || !a.Budget.Known || a.Budget.Nano <= 0 || amount.Nano < 0 {
		return v
	}
	for _, step := range steps {
		if step.Basis() != string(a.Kind) || !reaches(amount.Nano, a.Budget.Nano, step.AtPPM) {
			continue
		}
		v.notify = true
		switch step.Do {
		case quota.DoStop:
			if v.stop == nil || step.AtPPM > v.stop.AtPPM {
				v.stop = &step
			}
		case quota.DoThrottle:
			if v.throttle == nil || step.Share() < v.throttle.Share() || (step.Share() == v.throttle.Share() && step.AtPPM > v.throttle.AtPPM) {
				v.throttle = &step
			}
		}
	}
	return v
}

// reaches compares an amount with a share of a budget, without rounding.
func reaches(amount, budget money.Nano, ppm int64) bool {
	hiAmount, loAmount := bits.Mul64(uint64(amount), money.PPM)
	hiShare, loShare := bits.Mul64(uint64(budget), uint64(ppm))
	return hiAmount > hiShare || (hiAmount == hiShare && loAmount >= loShare)
}

// monthEnd is the end of the UTC month of a moment.
func monthEnd(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, time.UTC)
}

// apply notes the alert in the history of a product and does what the product's
// steps say, until the end of the UTC month in which it fired. If that is over,
// or if the product was braked by the same alert before, it is noted only.
//
// What it writes depends on the alert, the steps and the month alone, and the
// brakes join without regard to order: however a set of alerts comes, it ends in
// one state and one set of records.
func (a *Alert) apply(d *ledger.Draft, now time.Time) {
	id, fired := a.ID(now), a.FiredAt
	if fired.IsZero() {
		fired = now.UTC()
	}
	until := monthEnd(fired)
	v := a.judge(d.Product.BudgetAlerts)
	fact := a.fact(fired)
	switch brakes := v.stop != nil || v.throttle != nil; {
	case !now.Before(until):
		v, fact.Late = verdict{}, true
	case brakes && !d.Product.MarkAlert(id, until, now):
		v, fact.Repeated = verdict{}, true
	}
	fact.Notify, fact.Stop = v.notify, v.stop != nil
	if v.throttle != nil {
		fact.Throttle = shareOf(v.throttle.Share())
	}
	note := func(kind usage.Kind, what any) {
		extra, _ := json.Marshal(what) // plain values: it cannot fail
		d.Records = append(d.Records, usage.Record{Kind: kind, User: user, RequestID: usage.Text(id), UsageExtra: extra})
	}
	note(usage.KindAlert, map[string]any{"azure_budget": fact})
	by := user + " " + id
	if v.stop != nil {
		d.Product.JoinStop(quota.Stop{Reason: a.reason(v.stop), By: by, Since: fired, Until: until})
		note(usage.KindStop, map[string]any{"until": until.Format(time.RFC3339)})
	}
	if v.throttle != nil {
		d.Product.JoinThrottle(quota.Throttle{SharePPM: v.throttle.Share(), Reason: a.reason(v.throttle), By: by, Since: fired, Until: until})
		note(usage.KindConfig, map[string]any{"throttle": fact.Throttle, "until": until.Format(time.RFC3339)})
	}
}

// tell stores a notification of an alert that reaches a step of the product's. A
// repetition finds it stored, or stores what an earlier try did not.
func (a *Alert) tell(ctx context.Context, l Ledger, p *quota.Product, now time.Time) error {
	fired := a.FiredAt
	if fired.IsZero() {
		fired = now.UTC()
	}
	v, until := a.judge(p.BudgetAlerts), monthEnd(fired)
	if !v.notify || !now.Before(until) {
		return nil
	}
	fact := a.fact(fired)
	fact.Notify, fact.Stop = true, v.stop != nil
	if v.throttle != nil {
		fact.Throttle = shareOf(v.throttle.Share())
	}
	text, _ := json.Marshal(fact) // plain values: it cannot fail
	return l.AlertNotice(ctx, p, a.ID(now), until, string(text))
}

// reason tells the product's users why; it is part of an OpenAI error.
func (a *Alert) reason(step *quota.AlertStep) string {
	verb := " has reached "
	if a.Kind == Forecasted {
		verb = " is forecast to reach "
	}
	percent := money.Nano(step.AtPPM * (money.NanoPerUSD / money.PPM) * 100) // at most 1000 %
	return "the Azure budget " + clip(a.BudgetName) + verb + percent.String() + " %"
}

// shareOf is a share as a JSON number.
func shareOf(ppm int64) json.Number {
	return json.Number(money.Nano(ppm * (money.NanoPerUSD / money.PPM)).String())
}

// fact is what the record of an alert says of it, as azure_budget in
// usage_extra. Amounts are decimal strings in unit, null if unknown.
type fact struct {
	Name      string      `json:"name"`
	Kind      Kind        `json:"kind"`
	Unit      string      `json:"unit,omitempty"`
	Budget    *string     `json:"budget"`
	Spent     *string     `json:"spent"`
	Forecast  *string     `json:"forecast"`
	Threshold *string     `json:"threshold"`
	Fired     string      `json:"fired,omitempty"`
	Notify    bool        `json:"notify"`
	Throttle  json.Number `json:"throttle,omitempty"`
	Stop      bool        `json:"stop"`
	Late      bool        `json:"late,omitempty"`
	Repeated  bool        `json:"repeated,omitempty"`
}

func (a *Alert) fact(fired time.Time) fact {
	text := func(amount Amount) *string {
		if !amount.Known {
			return nil
		}
		s := amount.Nano.String()
		return &s
	}
	f := fact{
		Name: clip(a.BudgetName), Kind: a.Kind, Unit: clip(a.Unit), Budget: text(a.Budget), Spent: text(a.Spent), Forecast: text(a.Forecast),
		Threshold: text(a.Threshold),
	}
	if !a.FiredAt.IsZero() {
		f.Fired = fired.Format(time.RFC3339Nano)
	}
	return f
}
