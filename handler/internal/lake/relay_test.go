package lake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var errDown = errors.New("down")

// fakeOutbox keeps entries in order and fails on demand.
type fakeOutbox struct {
	mu                  sync.Mutex
	entries             []Entry
	scans               int
	failScans, failAcks int // how many of the next calls fail
}

func (o *fakeOutbox) add(e Entry) Entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries = append(o.entries, e)
	return e
}

func (o *fakeOutbox) Unsent(ctx context.Context, limit int) ([]Entry, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.scans++
	if o.failScans > 0 {
		o.failScans--
		return nil, errDown
	}
	return slices.Clone(o.entries[:min(limit, len(o.entries))]), ctx.Err()
}

func (o *fakeOutbox) Acknowledge(ctx context.Context, entries []Entry) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failAcks > 0 {
		o.failAcks--
		return errDown
	}
	gone := map[name]bool{}
	for _, e := range entries {
		gone[e.name()] = true
	}
	o.entries = slices.DeleteFunc(o.entries, func(e Entry) bool { return gone[e.name()] })
	return ctx.Err()
}

func (o *fakeOutbox) looks() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.scans
}

func (o *fakeOutbox) left() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.entries)
}

// fakeSink keeps what came, in order. before decides how a call ends; a call
// that fails may have stored its records.
type fakeSink struct {
	mu      sync.Mutex
	got     []string
	batches []int
	before  func(ctx context.Context, records [][]byte) error
}

// downSink takes nothing before it is told that it is up.
func downSink() (*fakeSink, *atomic.Bool) {
	up := new(atomic.Bool)
	return &fakeSink{before: func(context.Context, [][]byte) error {
		if !up.Load() {
			return errDown
		}
		return nil
	}}, up
}

func (s *fakeSink) Send(ctx context.Context, records [][]byte) error {
	if s.before != nil {
		if err := s.before(ctx, records); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		s.got = append(s.got, string(r))
	}
	s.batches = append(s.batches, len(records))
	return nil
}

func (s *fakeSink) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func entry(i int) Entry {
	return Entry{Product: fmt.Sprintf("p_%d", i%3), Row: fmt.Sprintf("O.%06d.1", i), Record: fmt.Appendf(nil, `{"id":"%06d"}`, i)}
}

func texts(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, string(entry(i).Record))
	}
	return out
}

// run starts a relay in the current bubble; stop ends it and waits.
func run(t *testing.T, o *fakeOutbox, s *fakeSink, options Options) (r *Relay, stop func()) {
	t.Helper()
	r = NewRelay(o, s, options)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	synctest.Wait()
	return r, func() {
		cancel()
		<-done
	}
}

func expect(t *testing.T, s *fakeSink, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, s.all()); diff != "" {
		t.Errorf("in the sink (-want +got):\n%s", diff)
	}
}

func TestRelayOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{}, &fakeSink{}
		r, stop := run(t, o, s, Options{})
		start := time.Now()
		for i := range 1200 {
			if !r.Offer(o.add(entry(i))) {
				t.Fatal("not taken")
			}
		}
		time.Sleep(time.Second)
		expect(t, s, texts(0, 1200))
		if o.left() != 0 || time.Since(start) > time.Second {
			t.Errorf("%d are not acknowledged after a second", o.left())
		}
		if diff := cmp.Diff([]int{500, 500, 200}, s.batches); diff != "" {
			t.Error(diff)
		}
		stop()
		if len(r.held) != 0 {
			t.Errorf("%d entries are still held", len(r.held))
		}
	})
}

// What nobody offered is found: at once if this process is alone or there is a
// backlog, else when it is still there a scan later; in any case within 10 s.
func TestRelayScans(t *testing.T) {
	f := func(n int, options Options, within time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			o, s := &fakeOutbox{}, &fakeSink{}
			for i := range n {
				o.add(entry(i))
			}
			_, stop := run(t, o, s, options)
			defer stop()
			time.Sleep(within)
			synctest.Wait()
			expect(t, s, texts(0, n))
			o.add(entry(n))
			time.Sleep(9 * time.Second)
			expect(t, s, texts(0, n+1))
			if o.left() != 0 {
				t.Errorf("%d are not acknowledged", o.left())
			}
		})
	}
	f(10, Options{Alone: true}, 0)
	f(2500, Options{Alone: true}, 0)
	f(10, Options{}, 3*time.Second)
	f(3000, Options{}, 0)
}

// An entry that another process is about to acknowledge is left to it.
func TestRelayLeavesOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{}, &fakeSink{}
		_, stop := run(t, o, s, Options{})
		defer stop()
		for i := range 20 {
			e := o.add(entry(i))
			time.Sleep(time.Second)
			_ = o.Acknowledge(t.Context(), []Entry{e})
		}
		expect(t, s, nil)
	})
}

func TestRelayQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &fakeOutbox{}
		s, up := downSink()
		r, stop := run(t, o, s, Options{BackoffMax: time.Second})
		for i := range QueueMax {
			if !r.Offer(o.add(entry(i))) {
				t.Fatalf("entry %d was turned away", i)
			}
		}
		if !r.Offer(entry(0)) {
			t.Error("an entry that is queued was turned away")
		}
		for i := range 50 {
			if r.Offer(o.add(entry(QueueMax + i))) {
				t.Error("one past the limit was taken")
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, s, nil)
		up.Store(true)
		time.Sleep(5 * time.Second)
		expect(t, s, texts(0, QueueMax+50))
		if !r.Offer(o.add(entry(QueueMax + 50))) {
			t.Error("nothing is taken after the queue has emptied")
		}
		stop()
		expect(t, s, texts(0, QueueMax+51))
		if o.left() != 0 {
			t.Errorf("%d left", o.left())
		}
	})
}

// One record that the sink can never take does not stop the others.
func TestRelayRefusedRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{}, &fakeSink{}
		s.before = func(_ context.Context, records [][]byte) error { return checkRecords(records) }
		bad := entry(3)
		bad.Record = []byte("{\n}")
		r, stop := run(t, o, s, Options{Alone: true})
		defer stop()
		for i := range 6 {
			e := entry(i)
			if i == 3 {
				e = bad
			}
			r.Offer(o.add(e))
		}
		time.Sleep(30 * time.Second)
		expect(t, s, append(texts(0, 3), texts(4, 6)...))
		if o.left() != 1 {
			t.Errorf("%d left", o.left())
		}
	})
}

func TestRelayBatchBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{}, &fakeSink{}
		r, stop := run(t, o, s, Options{})
		defer stop()
		for i := range 8 {
			e := entry(i)
			e.Record = make([]byte, BatchBytesMax/4-1) // four and their line feeds fill a batch
			if i == 7 {
				e.Record = make([]byte, 2*BatchBytesMax)
			}
			r.Offer(o.add(e))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]int{4, 3, 1}, s.batches); diff != "" {
			t.Error(diff)
		}
	})
}

// The end: what is queued is sent in the time of grace; a sink that hangs is
// left alone after it; nothing stays behind (synctest fails on a leak).
func TestRelayEnds(t *testing.T) {
	t.Run("drains", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o, s := &fakeOutbox{}, &fakeSink{}
			r, stop := run(t, o, s, Options{})
			for i := range 700 {
				r.Offer(o.add(entry(i)))
			}
			stop()
			expect(t, s, texts(0, 700))
			if o.left() != 0 {
				t.Errorf("%d left", o.left())
			}
		})
	})
	t.Run("sink recovers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o, s := &fakeOutbox{}, &fakeSink{}
			up := time.Now().Add(4 * time.Second)
			s.before = func(context.Context, [][]byte) error {
				if time.Now().Before(up) {
					return errDown
				}
				return nil
			}
			r, stop := run(t, o, s, Options{})
			r.Offer(o.add(entry(0)))
			stop()
			expect(t, s, texts(0, 1))
		})
	})
	t.Run("sink hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o, s := &fakeOutbox{}, &fakeSink{}
			s.before = func(ctx context.Context, _ [][]byte) error {
				<-ctx.Done()
				return ctx.Err()
			}
			r, stop := run(t, o, s, Options{})
			r.Offer(o.add(entry(0)))
			time.Sleep(time.Second)
			start := time.Now()
			stop()
			if took := time.Since(start); took != 5*time.Second {
				t.Errorf("took %v", took)
			}
			if o.left() != 1 {
				t.Errorf("%d left", o.left())
			}
		})
	})
}

// TestLookSendsAtOnce: what a dead process left is sent without waiting for the
// next look.
func TestLookSendsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, s := &fakeOutbox{}, &fakeSink{}
		r, stop := run(t, o, s, Options{Interval: time.Hour})
		o.add(entry(0))
		o.add(entry(1))
		began := time.Now()
		for range 2 {
			if err := r.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > time.Second || o.left() != 0 {
			t.Errorf("%d left after %v", o.left(), took)
		}
		expect(t, s, texts(0, 2))
		stop()
		late, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if r.Look(late) == nil {
			t.Error("nobody looks any more")
		}
	})
}
