// Package ratelimit bounds what a product may do in a minute and at a time:
// requests, tokens, and requests that run. Each process counts for itself and
// takes an equal part of the limit: no call to a store is on the way. It knows
// nothing of money.
//
// The bound: in any 60 s one process admits at most its part, max(1, limit /
// instances). As long as all processes know how many they are, all of them
// together admit at most max(limit, instances). A process that is new to a product
// is known to the others some seconds later; until then they may admit what they
// did before. One that does not know the product's books yet takes itself for the
// only one, so processes that all start cold may admit the limit once each.
package ratelimit

import (
	"container/list"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
)

// ProductsMax is how many products are remembered. Beyond it the one that was
// idle for the longest time is forgotten, unless it has requests that run.
const ProductsMax = 10_000

// Limits of a product; 0 is none.
type Limits struct {
	Requests int64 // in a minute
	Tokens   int64 // in a minute
	Parallel int64 // requests that run
}

// Of are the limits of a product, and what a budget alert has left of them.
func Of(p *quota.Product, now time.Time) Limits {
	l := Limits{p.RequestsPerMinute, p.TokensPerMinute, p.MaxParallel}
	if t, throttled := p.Throttled(now); throttled {
		l = Limits{t.Of(l.Requests), t.Of(l.Tokens), t.Of(l.Parallel)}
	}
	return l
}

// None tells whether nothing is limited.
func (l Limits) None() bool { return l.Requests <= 0 && l.Tokens <= 0 && l.Parallel <= 0 }

// part is what one of n processes may use of a limit, at least 1.
func part(limit, n int64) int64 { return max(1, limit/max(1, n)) }

// Which names the limit that refused a request.
type Which string

// The limits.
const (
	Requests Which = "requestsPerMinute"
	Tokens   Which = "tokensPerMinute"
	Parallel Which = "maxParallel"
)

// Denied is a refusal.
type Denied struct {
	Which Which
	Limit int64         // of the product, all processes together
	After time.Duration // when to try again
}

// Limiter counts. It is safe for concurrent use.
type Limiter struct {
	now func() time.Time

	mu       sync.Mutex
	products map[string]*list.Element // of *product
	idle     *list.List               // the longest unused first
}

type product struct {
	id       string
	requests window
	tokens   window
	running  int64
}

// New makes a Limiter. now may be nil.
func New(now func() time.Time) *Limiter {
	if now == nil {
		now = time.Now
	}
	return &Limiter{now: now, products: map[string]*list.Element{}, idle: list.New()}
}

// Ticket is a request that was admitted. A nil Ticket is one that nothing limits.
type Ticket struct {
	limiter *Limiter
	product *product
	at      int64 // second of admission
	tokens  int64 // counted for it
	ended   bool
}

// Admit counts a request that may take so many tokens, if the limits allow it.
// instances are the processes that the product's limits are shared by. A request
// that is larger than all tokens of a minute is admitted when none was used.
func (l *Limiter) Admit(id string, limits Limits, instances, tokens int64) (*Ticket, *Denied) {
	if limits.None() {
		return nil, nil
	}
	now := l.now().Unix()
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.product(id)
	if limits.Parallel > 0 && p.running >= part(limits.Parallel, instances) {
		return nil, &Denied{Parallel, limits.Parallel, time.Second}
	}
	if limits.Requests > 0 {
		if wait := p.requests.room(now, part(limits.Requests, instances)-1); wait > 0 {
			return nil, &Denied{Requests, limits.Requests, time.Duration(wait) * time.Second}
		}
	}
	if limits.Tokens > 0 {
		if wait := p.tokens.room(now, max(0, part(limits.Tokens, instances)-tokens)); wait > 0 {
			return nil, &Denied{Tokens, limits.Tokens, time.Duration(wait) * time.Second}
		}
	}
	p.requests.add(now, 1)
	p.tokens.add(now, tokens)
	p.running++
	return &Ticket{limiter: l, product: p, at: now, tokens: tokens}, nil
}

// Cancel ends a request that was not forwarded: nothing of it counts.
func (t *Ticket) Cancel() {
	if t == nil {
		return
	}
	t.limiter.mu.Lock()
	defer t.limiter.mu.Unlock()
	if t.end() {
		now := t.limiter.now().Unix()
		t.product.requests.correct(now, t.at, -1)
		t.product.tokens.correct(now, t.at, -t.tokens)
	}
}

// End ends a request that took so many tokens; below 0: it is not known. It may be
// called more than once; the first call counts.
func (t *Ticket) End(tokens int64) {
	if t == nil {
		return
	}
	t.limiter.mu.Lock()
	defer t.limiter.mu.Unlock()
	if t.end() && tokens >= 0 {
		t.product.tokens.correct(t.limiter.now().Unix(), t.at, tokens-t.tokens)
	}
}

func (t *Ticket) end() bool {
	if t.ended {
		return false
	}
	t.ended = true
	t.product.running--
	return true
}

// product finds or makes the counts of a product. l.mu is held.
func (l *Limiter) product(id string) *product {
	if e := l.products[id]; e != nil {
		l.idle.MoveToBack(e)
		return e.Value.(*product) //nolint:forcetypeassert // nothing else is in it
	}
	if l.idle.Len() >= ProductsMax {
		for e := l.idle.Front(); e != nil; e = e.Next() {
			if old := e.Value.(*product); old.running == 0 { //nolint:forcetypeassert // nothing else is in it
				delete(l.products, old.id)
				l.idle.Remove(e)
				break
			}
		}
	}
	p := &product{id: id}
	l.products[id] = l.idle.PushBack(p)
	return p
}
