package quota_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/costgate/costgate/handler/internal/quota"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestWindowAt(t *testing.T) {
	f := func(kind quota.PeriodKind, zone, moment, name, start, end string) {
		t.Helper()
		p := &quota.Product{Period: kind, TimeZone: zone}
		w, err := p.WindowAt(at(moment))
		if err != nil {
			t.Fatal(err)
		}
		if w.Name != name || !w.Start.Equal(at(start)) || !w.End.Equal(at(end)) {
			t.Errorf("%s %s at %s: %s [%v, %v); want %s [%s, %s)", kind, zone, moment, w.Name, w.Start, w.End, name, start, end)
		}
	}
	f("month", "UTC", "2026-11-30T23:59:59Z", "2026-11", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
	f("month", "UTC", "2026-12-01T00:00:00Z", "2026-12", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
	f("month", "Europe/Berlin", "2026-11-30T23:30:00Z", "2026-12", "2026-11-30T23:00:00Z", "2026-12-31T23:00:00Z")
	f("day", "UTC", "2026-11-23T12:00:00Z", "2026-11-23", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z")
	// The day on which clocks go back has 25 hours, the one on which they go forward 23.
	f("day", "America/New_York", "2026-11-01T12:00:00Z", "2026-11-01", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z")
	f("day", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")
	f("week", "UTC", "2026-11-23T00:00:00Z", "2026-W48", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z")
	f("week", "UTC", "2026-11-22T23:59:59Z", "2026-W47", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z")
	f("week", "UTC", "2027-01-01T00:00:00Z", "2026-W53", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z")

	total, err := (&quota.Product{Period: "total", TimeZone: "UTC"}).WindowAt(at("2026-11-23T00:00:00Z"))
	if err != nil || total.Name != "total" || !total.Start.IsZero() || !total.End.IsZero() {
		t.Errorf("total: %+v, %v", total, err)
	}
	for _, p := range []*quota.Product{{Period: "year", TimeZone: "UTC"}, {Period: "day", TimeZone: "Mars/Olympus"}} {
		if w, err := p.WindowAt(time.Now()); err == nil {
			t.Errorf("%s in %s: %+v", p.Period, p.TimeZone, w)
		}
	}
}

// TestWindowHoldsItsMoment: every moment is in its window, and the window's
// neighbours have other names.
func TestWindowHoldsItsMoment(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe"}
	rapid.Check(t, func(t *rapid.T) {
		p := &quota.Product{
			Period:   rapid.SampledFrom([]quota.PeriodKind{"month", "day", "week"}).Draw(t, "kind"),
			TimeZone: rapid.SampledFrom(zones).Draw(t, "zone"),
		}
		moment := time.Unix(rapid.Int64Range(1.7e9, 2.2e9).Draw(t, "moment"), 0)
		w, err := p.WindowAt(moment)
		if err != nil {
			t.Fatal(err)
		}
		if moment.Before(w.Start) || !moment.Before(w.End) {
			t.Fatalf("%v is not in [%v, %v)", moment, w.Start, w.End)
		}
		for _, edge := range []time.Time{w.Start, w.End.Add(-time.Nanosecond)} {
			if same, _ := p.WindowAt(edge); same.Name != w.Name {
				t.Fatalf("%v is in %s, not %s", edge, same.Name, w.Name)
			}
		}
		for _, edge := range []time.Time{w.Start.Add(-time.Nanosecond), w.End} {
			if other, _ := p.WindowAt(edge); other.Name == w.Name {
				t.Fatalf("%v is still in %s", edge, w.Name)
			}
		}
	})
}

func TestChangeOfPeriodWaits(t *testing.T) {
	p := &quota.Product{Period: "month", TimeZone: "UTC", NextPeriod: &quota.PeriodChange{From: at("2026-12-01T00:00:00Z"), Period: "day", TimeZone: "UTC"}}
	before, _ := p.WindowAt(at("2026-11-30T23:59:59Z"))
	after, _ := p.WindowAt(at("2026-12-01T00:00:00Z"))
	if before.Name != "2026-11" || after.Name != "2026-12-01" {
		t.Errorf("before %s, after %s", before.Name, after.Name)
	}
}

func TestStopped(t *testing.T) {
	now := at("2026-11-23T00:00:00Z")
	f := func(stop *quota.Stop, want bool) {
		t.Helper()
		if _, got := (&quota.Product{Stop: stop}).Stopped(now); got != want {
			t.Errorf("%+v: %v", stop, got)
		}
	}
	f(nil, false)
	f(&quota.Stop{}, true)
	f(&quota.Stop{Until: now.Add(time.Second)}, true)
	f(&quota.Stop{Until: now}, false)
}

func TestKeyByHash(t *testing.T) {
	p := &quota.Product{Keys: []quota.Key{{ID: "a", Hash: quota.HashKey("one")}, {ID: "b", Hash: quota.HashKey("two")}}}
	if key, ok := p.KeyByHash(quota.HashKey("two")); !ok || key.ID != "b" {
		t.Errorf("two: %+v, %v", key, ok)
	}
	if _, ok := p.KeyByHash(quota.HashKey("three")); ok {
		t.Error("three is nobody's key")
	}
	if h := quota.HashKey("one"); len(h) != 64 || strings.Contains(h, "one") {
		t.Errorf("hash %q", h)
	}
}
