package lake

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// load offers entries at a rate, in bunches as they come, until stopped.
func load(ctx context.Context, r *Relay, o *fakeOutbox, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := 1000; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.Offer(o.add(entry(i)))
		}
	}
}

// TestRelayLastingLoad: under a load that never lets the queue run empty, what a
// dead process left is found all the same, a look that is asked for is made, and
// what is fresh waits for company.
func TestRelayLastingLoad(t *testing.T) {
	f := func(every, send time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			o, s := &fakeOutbox{}, &fakeSink{}
			s.before = func(context.Context, [][]byte) error { time.Sleep(send); return nil }
			r, stop := run(t, o, s, Options{})
			defer stop()
			ctx, end := context.WithCancel(t.Context())
			defer end()
			go load(ctx, r, o, every)
			time.Sleep(10 * time.Second)
			o.add(entry(1)) // by a process that died
			before := o.looks()
			time.Sleep(time.Minute)
			if n := o.looks() - before; n < 15 {
				t.Errorf("every %v, Send takes %v: %d looks in a minute", every, send, n)
			}
			found := false
			for _, record := range s.all() {
				found = found || record == texts(1, 2)[0]
			}
			if !found {
				t.Errorf("every %v, Send takes %v: the record of the dead was not sent", every, send)
			}
			began := time.Now()
			o.add(entry(2))
			for range 2 {
				if err := r.Look(ctx); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("every %v, Send takes %v: two looks took %v", every, send, took)
			}
			if sends, sent := r.Stats().Sends, r.Stats().Sent; time.Duration(sent)*every < time.Duration(sends)*150*time.Millisecond {
				t.Errorf("every %v, Send takes %v: %d records in %d sends", every, send, sent, sends)
			}
		})
	}
	f(5*time.Millisecond, 60*time.Millisecond)
	f(5*time.Millisecond, 100*time.Millisecond)
	f(2*time.Millisecond, 20*time.Millisecond)
	f(time.Millisecond, 10*time.Millisecond)
	f(20*time.Millisecond, 250*time.Millisecond)
}

// TestRelayTakesAgain as soon as a backlog that was too large has gone, not with
// the next look.
func TestRelayTakesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &fakeOutbox{}
		s, up := downSink()
		r, stop := run(t, o, s, Options{Interval: time.Hour, BackoffMax: time.Second})
		defer stop()
		for i := range QueueMax + 1 {
			r.Offer(o.add(entry(i)))
		}
		time.Sleep(time.Second)
		up.Store(true)
		time.Sleep(3 * time.Second)
		if !r.Offer(o.add(entry(QueueMax + 1))) {
			t.Error("turned away although the queue is empty")
		}
		time.Sleep(time.Second)
		if n := len(s.all()); n != QueueMax+2 {
			t.Errorf("%d of %d arrived", n, QueueMax+2)
		}
	})
}
