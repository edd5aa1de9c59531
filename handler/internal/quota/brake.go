package quota

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
)

// What a step of a product's budget alerts does.
const (
	DoNotify   = "notify"
	DoStop     = "stop"
	DoThrottle = "throttle"
)

// What a step looks at: money that Azure says is spent, or that it forecasts.
const (
	OnActual     = "actual"
	OnForecasted = "forecasted"
)

// ThrottleSharePPM is the share of a throttle step that names none: half.
const ThrottleSharePPM = money.PPM / 2

// AlertStep is what a budget alert does to the product when it tells of a share
// of the Azure budget: notify, throttle or stop. A forecast reaches only the
// steps that say so.
type AlertStep struct {
	AtPPM    int64  `json:"atPpm"` // of the Azure budget, in parts per million
	Do       string `json:"do"`
	SharePPM int64  `json:"sharePpm,omitempty"` // of the request limits, for DoThrottle; 0: ThrottleSharePPM
	On       string `json:"on,omitempty"`       // empty: OnActual
}

// Share is what the step leaves of the request limits, in parts per million.
func (s AlertStep) Share() int64 {
	if s.SharePPM == 0 {
		return ThrottleSharePPM
	}
	return s.SharePPM
}

// Basis is what the step looks at.
func (s AlertStep) Basis() string {
	if s.On == "" {
		return OnActual
	}
	return s.On
}

// Stop is why a product is refused, and until when.
type Stop struct {
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until an operator lifts it
}

// Throttle is why a product has only a share of its request limits, and until
// when.
type Throttle struct {
	SharePPM int64     `json:"sharePpm"` // above 0, at most money.PPM
	Reason   string    `json:"reason"`
	By       string    `json:"by"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"` // zero: until an operator lifts it
}

// Of is what is left of a request limit (at most 1,000,000,000): its share,
// rounded down, but at least 1. A limit of 0 is none, and stays none.
func (t Throttle) Of(limit int64) int64 {
	if limit <= 0 {
		return limit
	}
	return max(limit*t.SharePPM/money.PPM, 1)
}

// AlertMark remembers an alert that braked the product, for as long as its
// brake lasts.
type AlertMark struct {
	ID    string    `json:"id"`
	Until time.Time `json:"until"`
}

// AlertMarksMax bounds the alerts that a product remembers: four budgets of five
// thresholds, the most that Azure allows one. The ledger remembers the names of
// all alerts for 7 days besides.
const AlertMarksMax = 20

// over tells whether a time that a brake ends has come; zero never does.
func over(until, now time.Time) bool { return !until.IsZero() && !now.Before(until) }

// Stopped tells whether the product is stopped at a moment, and by what.
func (p *Product) Stopped(now time.Time) (Stop, bool) {
	if p.Stop == nil || over(p.Stop.Until, now) {
		return Stop{}, false
	}
	return *p.Stop, true
}

// Throttled tells whether the product is throttled at a moment, and by what.
func (p *Product) Throttled(now time.Time) (Throttle, bool) {
	if p.Throttle == nil || over(p.Throttle.Until, now) {
		return Throttle{}, false
	}
	return *p.Throttle, true
}

// JoinStop stops the product. Of the stop that it has and the new one the one
// that ends later stands; of two that end together, the one whose By comes first.
// So any order of the same stops, repeated or not, ends in the same one.
func (p *Product) JoinStop(s Stop) {
	if p.Stop == nil || cmp.Or(laterFirst(s.Until, p.Stop.Until), strings.Compare(s.By, p.Stop.By)) < 0 {
		p.Stop = &s
	}
}

// JoinThrottle throttles the product. As JoinStop; of two that end together the
// one that leaves less stands.
func (p *Product) JoinThrottle(t Throttle) {
	has := p.Throttle
	if has == nil || cmp.Or(laterFirst(t.Until, has.Until), cmp.Compare(t.SharePPM, has.SharePPM), strings.Compare(t.By, has.By)) < 0 {
		p.Throttle = &t
	}
}

// laterFirst compares two ends; zero is after all others.
func laterFirst(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return -1
	case b.IsZero():
		return 1
	}
	return b.Compare(a)
}

// Lift takes the stop and the throttle away, and tells which of them held.
func (p *Product) Lift(now time.Time) (stopped, throttled bool) {
	_, stopped = p.Stopped(now)
	_, throttled = p.Throttled(now)
	p.Stop, p.Throttle = nil, nil
	return stopped, throttled
}

// MarkAlert remembers an alert whose brake lasts until a time, and forgets those
// whose time is over. It is false if the alert was remembered already: what it
// did may have been lifted since. Beyond AlertMarksMax those that end first go.
func (p *Product) MarkAlert(id string, until, now time.Time) bool {
	if slices.ContainsFunc(p.Alerts, func(m AlertMark) bool { return m.ID == id }) {
		return false
	}
	kept := []AlertMark{{ID: id, Until: until}}
	for _, m := range p.Alerts {
		if !over(m.Until, now) {
			kept = append(kept, m)
		}
	}
	slices.SortFunc(kept, func(a, b AlertMark) int {
		return cmp.Or(laterFirst(a.Until, b.Until), strings.Compare(a.ID, b.ID))
	})
	p.Alerts = kept[:min(len(kept), AlertMarksMax)]
	return true
}
