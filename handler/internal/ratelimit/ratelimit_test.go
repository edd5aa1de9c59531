package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
)

// clock is a time that tests set.
type clock struct{ now time.Time }

func newLimiter() (*clock, *Limiter) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	return c, New(func() time.Time { return c.now })
}

func TestRequestsPerMinute(t *testing.T) {
	c, l := newLimiter()
	f := func(instances int64, want int) {
		t.Helper()
		n := 0
		for {
			ticket, denied := l.Admit("p", Limits{Requests: 10}, instances, 0)
			if denied != nil {
				if denied.Which != Requests || denied.Limit != 10 || denied.After <= 0 || denied.After > 61*time.Second {
					t.Errorf("%+v", denied)
				}
				break
			}
			ticket.End(0)
			n++
		}
		if n != want {
			t.Errorf("%d were admitted, want %d", n, want)
		}
	}
	f(1, 10)
	c.now = c.now.Add(59 * time.Second)
	f(1, 0)
	_, denied := l.Admit("p", Limits{Requests: 10}, 1, 0)
	c.now = c.now.Add(denied.After)
	f(1, 10)
	c.now = c.now.Add(2 * time.Minute)
	f(3, 3) // 10 by 3 processes
	c.now = c.now.Add(2 * time.Minute)
	f(100, 1) // at least 1
	c.now = c.now.Add(-time.Hour)
	f(1, 9) // a clock that was set back: the same second
}

// TestAnyMinute: whatever the times are, no 60 s hold more than the limit.
func TestAnyMinute(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	c, l := newLimiter()
	const limit = 50
	var admitted []time.Time
	for range 20_000 {
		c.now = c.now.Add(time.Duration(random.Int64N(int64(2 * time.Second))))
		if ticket, _ := l.Admit("p", Limits{Requests: limit}, 1, 0); ticket != nil {
			ticket.End(0)
			admitted = append(admitted, c.now)
		}
	}
	for i := range admitted {
		if i >= limit && admitted[i].Sub(admitted[i-limit]) < time.Minute {
			t.Fatalf("%d requests within %v", limit+1, admitted[i].Sub(admitted[i-limit]))
		}
	}
	if len(admitted) < 14_000 {
		t.Errorf("only %d were admitted", len(admitted))
	}
}

func TestTokensPerMinute(t *testing.T) {
	c, l := newLimiter()
	limits := Limits{Tokens: 1000}
	admit := func(tokens int64, want bool) *Ticket {
		t.Helper()
		ticket, denied := l.Admit("p", limits, 1, tokens)
		if (denied == nil) != want {
			t.Errorf("%d tokens: %+v", tokens, denied)
		}
		return ticket
	}
	large := admit(5000, true) // larger than the limit: nothing was used yet
	admit(1, false)
	large.End(400) // it took less
	second := admit(600, true)
	admit(1, false)
	second.Cancel() // not forwarded
	admit(600, true).End(-1)
	admit(1, false)
	c.now = c.now.Add(61 * time.Second)
	admit(1001, true)
	large.End(0) // a second time
	admit(1, false)
}

func TestMaxParallel(t *testing.T) {
	_, l := newLimiter()
	limits := Limits{Parallel: 4}
	var running []*Ticket
	for range 2 {
		ticket, denied := l.Admit("p", limits, 2, 0)
		if denied != nil {
			t.Fatal(denied)
		}
		running = append(running, ticket)
	}
	if _, denied := l.Admit("p", limits, 2, 0); denied == nil || denied.Which != Parallel || denied.After != time.Second {
		t.Errorf("%+v", denied)
	}
	running[0].End(0)
	running[0].Cancel()
	running[0].End(0)
	if _, denied := l.Admit("p", limits, 2, 0); denied != nil {
		t.Error(denied)
	}
	if _, denied := l.Admit("p", limits, 2, 0); denied == nil {
		t.Error("one that ended counted twice")
	}
	if _, denied := l.Admit("other", limits, 2, 0); denied != nil {
		t.Error(denied)
	}
}

// TestThrottled: a budget alert leaves a share of each limit there is, at least 1.
func TestThrottled(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	f := func(until time.Time, want Limits) {
		t.Helper()
		p := &quota.Product{RequestsPerMinute: 101, MaxParallel: 1, Throttle: &quota.Throttle{SharePPM: money.PPM / 2, Until: until}}
		if got := Of(p, now); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	f(now.Add(time.Second), Limits{Requests: 50, Parallel: 1})
	f(time.Time{}, Limits{Requests: 50, Parallel: 1})
	f(now, Limits{Requests: 101, Parallel: 1})
}

func TestNoLimits(t *testing.T) {
	_, l := newLimiter()
	ticket, denied := l.Admit("p", Limits{}, 1, 1<<40)
	if ticket != nil || denied != nil || len(l.products) != 0 {
		t.Error(ticket, denied)
	}
	ticket.End(5) // nil is a ticket too
	ticket.Cancel()
}

func TestProductsMax(t *testing.T) {
	_, l := newLimiter()
	limits := Limits{Requests: 1}
	for i := range ProductsMax {
		ticket, denied := l.Admit(fmt.Sprint("p", i), limits, 1, 0)
		if denied != nil {
			t.Fatal(denied)
		}
		if i > 0 {
			ticket.End(0)
		}
	}
	l.Admit("one more", limits, 1, 0)
	if len(l.products) != ProductsMax || l.idle.Len() != ProductsMax {
		t.Errorf("%d products are remembered", len(l.products))
	}
	if l.products["p0"] == nil || l.products["p1"] != nil {
		t.Error("the one that was idle for the longest time should have gone, one that runs not")
	}
}

func TestParallelUse(t *testing.T) {
	l := New(nil)
	var all sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for range 16 {
		all.Go(func() {
			for range 1000 {
				if ticket, denied := l.Admit("p", Limits{Requests: 500, Tokens: 1 << 40, Parallel: 16}, 1, 3); denied == nil {
					ticket.End(2)
					mu.Lock()
					admitted++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if admitted != 500 {
		t.Errorf("%d were admitted", admitted)
	}
}
