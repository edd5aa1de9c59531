package lake

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A sink that fails sees the same records in the same order until it takes them.
func TestRelaySinkOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{}, &fakeSink{}
		var tries []time.Time
		s.before = func(_ context.Context, records [][]byte) error {
			if tries = append(tries, time.Now()); len(tries) <= 8 {
				if string(records[0]) != texts(0, 1)[0] {
					t.Errorf("try %d begins with %s", len(tries), records[0])
				}
				return errDown
			}
			return nil
		}
		r, stop := run(t, o, s, Options{})
		defer stop()
		for i := range 10 {
			r.Offer(o.add(entry(i)))
			time.Sleep(time.Second)
		}
		time.Sleep(20 * time.Second)
		expect(t, s, texts(0, 10))
		for i, least := range []time.Duration{125, 250, 500, 1000, 2000, 2500, 2500, 2500} {
			if wait := tries[i+1].Sub(tries[i]); wait < least*time.Millisecond || wait > 2*least*time.Millisecond {
				t.Errorf("wait %d was %v", i, wait)
			}
		}
	})
}

func TestRelayAckFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{failAcks: 2}, &fakeSink{}
		r, stop := run(t, o, s, Options{})
		for i := range 5 {
			r.Offer(o.add(entry(i)))
		}
		time.Sleep(2 * time.Second)
		expect(t, s, texts(0, 5))
		if o.left() != 5 {
			t.Errorf("%d left", o.left())
		}
		time.Sleep(8 * time.Second)
		expect(t, s, texts(0, 5)) // acknowledged at a later try, not sent again
		if o.left() != 0 {
			t.Errorf("%d left", o.left())
		}
		stop()
		if len(r.held) != 0 || len(r.stored) != 0 {
			t.Errorf("%d held, %d stored", len(r.held), len(r.stored))
		}
	})
}

// While too much is not acknowledged nothing more is sent, and nothing twice.
func TestRelayAckFailsForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{failAcks: 1_000_000}, &fakeSink{}
		r, stop := run(t, o, s, Options{})
		const n = StoredMax + 700
		for i := range n {
			r.Offer(o.add(entry(i)))
		}
		time.Sleep(time.Minute)
		expect(t, s, texts(0, StoredMax))
		o.mu.Lock()
		o.failAcks = 0
		o.mu.Unlock()
		time.Sleep(10 * time.Second)
		stop()
		expect(t, s, texts(0, n))
		if o.left() != 0 || len(r.held) != 0 {
			t.Errorf("%d left, %d held", o.left(), len(r.held))
		}
	})
}

// With faults of every kind exactly the set arrives, nothing in flight twice,
// and each product's fresh entries arrive in order.
func TestRelayProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 400).Draw(rt, "entries")
		offered := rapid.SliceOfN(rapid.Bool(), n, n).Draw(rt, "offered")
		sinkFaults := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 30).Draw(rt, "sink")
		scanFaults, ackFaults := rapid.IntRange(0, 5).Draw(rt, "scans"), rapid.IntRange(0, 5).Draw(rt, "acks")
		batch := rapid.IntRange(1, 50).Draw(rt, "batch")
		synctest.Test(t, func(t *testing.T) {
			o, s := &fakeOutbox{failScans: scanFaults, failAcks: ackFaults}, &fakeSink{}
			inFlight := false
			s.before = func(_ context.Context, records [][]byte) error {
				if inFlight {
					rt.Error("two calls at once")
				}
				inFlight = true
				defer func() { inFlight = false }()
				time.Sleep(10 * time.Millisecond)
				if len(sinkFaults) == 0 {
					return nil
				}
				fault := sinkFaults[0]
				sinkFaults = sinkFaults[1:]
				if fault == 1 { // stored, but the answer is lost
					s.got = append(s.got, string(records[0]))
				}
				if fault > 0 {
					return errDown
				}
				return nil
			}
			r, stop := run(t, o, s, Options{BatchMax: batch})
			for i := range n {
				if e := o.add(entry(i)); offered[i] {
					r.Offer(e)
				}
				if i%16 == 0 {
					time.Sleep(50 * time.Millisecond)
				}
			}
			time.Sleep(3 * time.Minute)
			stop()
			got := s.all()
			slices.Sort(got)
			if diff := cmp.Diff(texts(0, n), slices.Compact(got)); diff != "" {
				rt.Error(diff)
			}
			if o.left() != 0 || len(r.held) != 0 {
				rt.Errorf("%d left, %d held", o.left(), len(r.held))
			}
		})
	})
}
