package lake

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRelayStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{failAcks: 1}, &fakeSink{}
		var up atomic.Bool
		s.before = func(_ context.Context, records [][]byte) error {
			if !up.Load() {
				return errDown
			}
			return checkRecords(records)
		}
		r, stop := run(t, o, s, Options{BackoffMin: time.Minute, BackoffMax: time.Minute, Interval: time.Hour})
		f := func(want Stats) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, r.Stats()); diff != "" {
				t.Error(diff)
			}
		}
		f(Stats{})
		r.Offer(o.add(entry(0)))
		time.Sleep(200 * time.Millisecond) // the linger
		f(Stats{Sends: 1, Waiting: 1, Oldest: 200 * time.Millisecond})
		for i := 1; i < 4; i++ {
			e := entry(i)
			if i == 2 {
				e.Record = []byte("{\n}")
			}
			r.Offer(o.add(e))
		}
		time.Sleep(10 * time.Second)
		f(Stats{Sends: 1, Waiting: 4, Oldest: 10200 * time.Millisecond})
		up.Store(true)
		time.Sleep(time.Minute)
		f(Stats{Sends: 3, Sent: 3, Resent: 4, Refused: 1, Unacknowledged: 3})
		stop()
		f(Stats{Sends: 3, Sent: 3, Resent: 4, Refused: 1})
		if o.left() != 1 {
			t.Errorf("%d left", o.left())
		}
	})
}

// What a sink has stored of a Send that failed is acknowledged and not sent again;
// the rest keeps its order.
func TestRelayPartial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{}, &fakeSink{}
		tries := 0
		s.before = func(_ context.Context, records [][]byte) error {
			if tries++; tries > 2 {
				return nil
			}
			stored := make([]bool, len(records))
			for i := range records {
				if stored[i] = i%2 == 0; stored[i] {
					s.got = append(s.got, string(records[i]))
				}
			}
			err := error(&RecordError{Index: 1, Reason: "test"})
			if tries == 2 {
				err = errDown
			}
			return &PartialError{Stored: stored, Err: errors.Join(err)}
		}
		r, stop := run(t, o, s, Options{Alone: true, Interval: time.Hour})
		defer stop()
		for i := range 10 {
			r.Offer(o.add(entry(i)))
		}
		time.Sleep(10 * time.Second)
		var want []string
		for _, i := range []int{0, 2, 4, 6, 8, 3, 7, 5, 9} { // 1 is refused, then 3 and 7 of 3, 5, 7, 9 are stored
			want = append(want, string(entry(i).Record))
		}
		expect(t, s, want)
		if o.left() != 1 {
			t.Errorf("%d left", o.left())
		}
		if diff := cmp.Diff(Stats{Sends: 3, Sent: 9, Resent: 6, Refused: 1}, r.Stats()); diff != "" {
			t.Error(diff)
		}
	})
}
