package lake

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestRelayQueueBytes: the queue is bounded in bytes as well. What finds no room
// comes from the outbox later, and nothing is lost of what one record larger than
// the whole limit is.
func TestRelayQueueBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &fakeOutbox{}
		s, up := downSink()
		r, stop := run(t, o, s, Options{BackoffMax: time.Second})
		defer stop()
		sized := func(i, size int) Entry {
			e := entry(i)
			e.Record = []byte(strings.Repeat("x", size))
			return o.add(e)
		}
		const half = QueueBytesMax / 2
		if !r.Offer(sized(0, half)) || !r.Offer(sized(1, half)) {
			t.Error("what fits exactly was turned away")
		}
		if r.Offer(sized(2, 1)) {
			t.Error("one byte past the limit was taken")
		}
		time.Sleep(time.Minute)
		up.Store(true)
		time.Sleep(10 * time.Second)
		if n := len(s.all()); n != 3 || o.left() != 0 {
			t.Errorf("%d arrived, %d left", n, o.left())
		}
		if !r.Offer(sized(3, QueueBytesMax+1)) {
			t.Error("a large record finds no room in an empty queue")
		}
		time.Sleep(time.Second)
		r.mu.Lock()
		bytes := r.bytes
		r.mu.Unlock()
		if n := len(s.all()); n != 4 || bytes != 0 {
			t.Errorf("%d arrived, %d bytes are counted", n, bytes)
		}
	})
}

// TestRelayPartlyDown: what a part of the sink does not take keeps nothing else
// back, and keeps its own order.
func TestRelayPartlyDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{}, &fakeSink{}
		var up atomic.Bool
		s.before = func(_ context.Context, records [][]byte) error {
			if up.Load() {
				return nil
			}
			var stored []string
			partial := &PartialError{Stored: make([]bool, len(records)), Err: errDown}
			for i, r := range records {
				if partial.Stored[i] = strings.Contains(string(r), "whole"); partial.Stored[i] {
					stored = append(stored, string(r))
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.got = append(s.got, stored...)
			return partial
		}
		r, stop := run(t, o, s, Options{BatchMax: 10})
		defer stop()
		made := func(i int, product, text string) Entry {
			return Entry{Product: product, Row: entry(i).Row, Record: []byte(text)}
		}
		var want []string
		for i := range 30 { // three batches of what cannot be sent, but for one record
			text := texts(i, i+1)[0]
			want = append(want, text)
			r.Offer(o.add(made(i, "p_down", text)))
		}
		r.Offer(o.add(made(30, "p_first", "whole 0")))
		for i := 31; i < 60; i++ {
			r.Offer(o.add(made(i, "p_up", "whole")))
		}
		r.Offer(o.add(made(60, "p_down", "last")))
		time.Sleep(time.Minute)
		if n := len(s.all()); n != 30 {
			t.Errorf("%d of the 30 others arrived", n)
		}
		up.Store(true)
		time.Sleep(10 * time.Second)
		got := s.all()[30:]
		if want = append(want, "last"); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
