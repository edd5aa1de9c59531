package quota

import (
	"fmt"
	"time"
)

// PeriodKind is how long a budget lasts.
type PeriodKind string

// The kinds of period. A week begins on Monday (ISO 8601); total never ends.
const (
	PeriodMonth PeriodKind = "month"
	PeriodDay   PeriodKind = "day"
	PeriodWeek  PeriodKind = "week"
	PeriodTotal PeriodKind = "total"
)

// Window is one period of a product: its name, which is part of the account's
// key, and its ends. A total has no ends (both zero).
type Window struct {
	Name       string // "2026-11", "2026-11-23", "2026-W48", "total"
	Start, End time.Time
}

// WindowAt is the period that a moment belongs to, in the product's time zone.
// A change of period that waits takes effect at the moment it names.
func (p *Product) WindowAt(now time.Time) (Window, error) {
	kind, zone := p.Period, p.TimeZone
	if p.NextPeriod != nil && !now.Before(p.NextPeriod.From) {
		kind, zone = p.NextPeriod.Period, p.NextPeriod.TimeZone
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return Window{}, fmt.Errorf("time zone of product %s: %w", p.ID, err)
	}
	return windowAt(now, kind, location)
}

func windowAt(now time.Time, kind PeriodKind, zone *time.Location) (Window, error) {
	local := now.In(zone)
	year, month, day := local.Date()
	midnight := func(year int, month time.Month, day int) time.Time {
		return time.Date(year, month, day, 0, 0, 0, 0, zone)
	}
	switch kind {
	case PeriodTotal:
		return Window{Name: "total"}, nil
	case PeriodDay:
		return Window{local.Format("2006-01-02"), midnight(year, month, day), midnight(year, month, day+1)}, nil
	case PeriodWeek:
		monday := day - (int(local.Weekday())+6)%7
		isoYear, isoWeek := local.ISOWeek()
		return Window{fmt.Sprintf("%04d-W%02d", isoYear, isoWeek), midnight(year, month, monday), midnight(year, month, monday+7)}, nil
	case PeriodMonth:
		return Window{local.Format("2006-01"), midnight(year, month, 1), midnight(year, month+1, 1)}, nil
	}
	return Window{}, fmt.Errorf("unknown period %q", kind)
}
