package quota_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/costgate/costgate/handler/internal/quota"
)

func TestThrottleOf(t *testing.T) {
	f := func(ppm, limit, want int64) {
		t.Helper()
		if got := (quota.Throttle{SharePPM: ppm}).Of(limit); got != want {
			t.Errorf("%d ppm of %d: %d, want %d", ppm, limit, got, want)
		}
	}
	f(500_000, 100, 50)
	f(500_000, 3, 1)
	f(500_000, 1, 1)
	f(1, 1_000_000_000, 1000)
	f(1, 10, 1)
	f(1_000_000, 1_000_000_000, 1_000_000_000)
	f(500_000, 0, 0)
}

func TestStepDefaults(t *testing.T) {
	old := quota.AlertStep{AtPPM: 900_000, Do: quota.DoThrottle} // as stored by a version without shares
	if old.Share() != 500_000 || old.Basis() != quota.OnActual {
		t.Errorf("%d %s", old.Share(), old.Basis())
	}
	own := quota.AlertStep{SharePPM: 1, On: quota.OnForecasted}
	if own.Share() != 1 || own.Basis() != quota.OnForecasted {
		t.Errorf("%d %s", own.Share(), own.Basis())
	}
}

func TestBrakesEnd(t *testing.T) {
	f := func(until, now string, want bool) {
		t.Helper()
		p := &quota.Product{Stop: &quota.Stop{}, Throttle: &quota.Throttle{}}
		if until != "" {
			p.Stop.Until, p.Throttle.Until = at(until), at(until)
		}
		_, stopped := p.Stopped(at(now))
		_, throttled := p.Throttled(at(now))
		if stopped != want || throttled != want {
			t.Errorf("until %q at %s: stopped %v, throttled %v", until, now, stopped, throttled)
		}
		if s, th := p.Lift(at(now)); s != want || th != want || p.Stop != nil || p.Throttle != nil {
			t.Errorf("until %q at %s: lifted %v %v", until, now, s, th)
		}
	}
	f("", "2099-01-01T00:00:00Z", true)
	f("2026-12-01T00:00:00Z", "2026-11-30T23:59:59Z", true)
	f("2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z", false)
	if _, stopped := new(quota.Product).Stopped(at("2026-11-01T00:00:00Z")); stopped {
		t.Error("a product without a stop is stopped")
	}
}

// TestJoinsDoNotDependOnOrder: any order of brakes, with repetitions, ends in
// one state.
func TestJoinsDoNotDependOnOrder(t *testing.T) {
	ends := []time.Time{{}, at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z")}
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(r, "n")
		brakes := make([]quota.Throttle, n)
		order := []int{}
		for i := range brakes {
			until := rapid.SampledFrom(ends).Draw(r, "until")
			brakes[i] = quota.Throttle{SharePPM: rapid.Int64Range(1, 3).Draw(r, "share"), Reason: fmt.Sprint(i), By: fmt.Sprint("alert ", i), Until: until}
			order = append(order, i)
		}
		join := func(order []int) *quota.Product {
			p := new(quota.Product)
			for _, i := range order {
				b := brakes[i]
				p.JoinThrottle(b)
				p.JoinStop(quota.Stop{Reason: b.Reason, By: b.By, Until: b.Until})
			}
			return p
		}
		want := join(order)
		other := append(rapid.Permutation(order).Draw(r, "order"), rapid.SliceOf(rapid.SampledFrom(order)).Draw(r, "again")...)
		if diff := cmp.Diff(want, join(other)); diff != "" {
			r.Fatalf("%v: %s", other, diff)
		}
	})
}

func TestMarksAreBoundedAndForgotten(t *testing.T) {
	p := new(quota.Product)
	november, december := at("2026-12-01T00:00:00Z"), at("2027-01-01T00:00:00Z")
	now := at("2026-11-24T12:00:00Z")
	for i := range quota.AlertMarksMax + 1 {
		if !p.MarkAlert(fmt.Sprintf("a%03d", i), november, now) {
			t.Fatalf("alert %d is known", i)
		}
	}
	if len(p.Alerts) != quota.AlertMarksMax || p.MarkAlert("a000", november, now) {
		t.Errorf("%d marks", len(p.Alerts))
	}
	if !p.MarkAlert("b", december, november) || len(p.Alerts) != 1 {
		t.Errorf("in December: %v", p.Alerts)
	}
}
