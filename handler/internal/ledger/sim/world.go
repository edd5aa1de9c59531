// Package sim runs the ledger in a world that a seed decides: virtual time,
// several processes that crash, freeze and have wrong clocks, and a store whose
// messages are lost, late and repeated. What runs is the code of production; a
// seed that fails can be run again, with a trace.
package sim

import (
	"container/heap"
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// world is virtual time and what is to happen in it. Everything runs on one
// goroutine at a time: a task runs until it waits.
type world struct {
	now     time.Duration
	events  eventHeap
	seq     int64
	random  *rand.Rand
	current *task
	trace   func(format string, args ...any)
	tracing bool
	steps   int
	down    time.Duration // until then the store answers nothing
	hash    uint64        // of what happened in the store
}

type event struct {
	at  time.Duration
	seq int64
	do  func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || (h[i].at == h[j].at && h[i].seq < h[j].seq)
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{w.now + max(0, d), w.seq, do})
}

// digest takes note of something in the digest of all that happened.
func (w *world) digest(texts ...string) {
	const prime = 1099511628211 // FNV-1a
	for _, text := range texts {
		for i := range len(text) {
			w.hash = (w.hash ^ uint64(text[i])) * prime
		}
		w.hash *= prime
	}
	w.hash = (w.hash ^ uint64(w.now)) * prime
}

// until runs what happens before a moment.
func (w *world) until(end time.Duration) {
	for len(w.events) > 0 && w.events[0].at <= end {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		w.steps++
		e.do()
	}
	w.now = end
}

func (w *world) chance(percent int) bool { return percent > 0 && w.random.IntN(100) < percent }

// between is a time in [low, high).
func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.random.Int64N(int64(max(1, high-low))))
}

// task is a coroutine of a process.
type task struct {
	process *process
	next    func() (struct{}, bool)
	stop    func()
	yield   func(struct{}) bool
	parks   int // counts its waits: an event for an earlier one is void
	ended   bool
	edits   bool // what it reads, it reads for an edit: no request is refused for it
}

type killed struct{}

func (w *world) spawn(p *process, do func()) {
	t := &task{process: p}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() {
			t.ended = true
			delete(p.tasks, t)
			if r := recover(); r != nil {
				if _, ok := r.(killed); !ok {
					panic(r)
				}
			}
		}()
		do()
	})
	p.tasks[t] = true
	w.resume(t, t.parks, 0)
}

// resume lets a task go on after d, unless it has done so for another reason.
func (w *world) resume(t *task, parks int, d time.Duration) {
	w.after(d, func() { w.run(t, parks) })
}

func (w *world) run(t *task, parks int) {
	if t.ended || t.parks != parks || t.process.dead {
		return
	}
	if t.process.frozen > w.now {
		w.resume(t, parks, t.process.frozen-w.now)
		return
	}
	before := w.current
	w.current = t
	t.next()
	w.current = before
}

// park waits for a resume that was, or will be, asked for with parks+1.
func (w *world) park() {
	t := w.current
	if !t.yield(struct{}{}) {
		panic(killed{})
	}
}

// process is one instance of the gateway.
type process struct {
	world  *world
	name   string
	tasks  map[*task]bool
	dead   bool
	ready  bool
	frozen time.Duration // until then it does nothing
	thawed time.Duration // when it last went on
	cut    time.Duration // until then the store cannot be reached from it
	offset time.Duration // of its wall clock
	drift  float64       // of its clocks, to 1
	ledger *ledger.Ledger
	born   time.Duration
	died   time.Duration
	leaves time.Duration // when it was told to drain; never
	left   bool          // it did so to the end
	known  map[*product]*knowledge
}

// kill ends a process like SIGKILL: what it has sent is still on its way.
func (p *process) kill() {
	p.dead, p.died = true, p.world.now
	for t := range p.tasks {
		t.stop()
	}
}

// begin is the wall clock's time when the simulation begins.
var begin = time.Date(2026, 11, 24, 23, 58, 0, 0, time.UTC)

// midnight is when the next period begins.
const midnight = 2 * time.Minute

func (p *process) Now() time.Time {
	return begin.Add(p.offset + time.Duration(float64(p.world.now)*p.drift))
}

func (p *process) Elapsed() time.Duration {
	return time.Duration(float64(p.world.now-p.born) * p.drift)
}

func (p *process) Go(do func()) { p.world.spawn(p, do) }

func (p *process) Sleep(d time.Duration) {
	t := p.world.current
	t.parks++
	p.world.resume(t, t.parks, time.Duration(float64(d)/p.drift))
	p.world.park()
}

func (p *process) Random(n int64) int64 { return p.world.random.Int64N(n) }

func (p *process) Gate() ledger.Gate { return &gate{world: p.world} }

func (p *process) Deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return &deadline{ctx, p.world, p.world.now + time.Duration(float64(d)/p.drift)}, func() {}
}

type deadline struct {
	context.Context
	world *world
	at    time.Duration
}

type deadlineKey struct{}

func (d *deadline) Err() error {
	if d.world.now >= d.at {
		return context.DeadlineExceeded
	}
	return nil
}

func (d *deadline) Value(key any) any {
	if key == (deadlineKey{}) {
		return d.at
	}
	return d.Context.Value(key)
}

const never = time.Duration(1 << 62)

func deadlineOf(ctx context.Context) time.Duration {
	if d, ok := ctx.(*deadline); ok {
		return d.at
	}
	return never
}

type gate struct {
	world   *world
	open    bool
	waiters []waiter
}

type waiter struct {
	task  *task
	parks int
}

func (g *gate) Open() {
	if g.open {
		panic("a gate was opened twice")
	}
	g.open = true
	for _, w := range g.waiters {
		g.world.resume(w.task, w.parks, 0)
	}
}

func (g *gate) Wait(ctx context.Context) error {
	if g.open {
		return nil
	}
	t := g.world.current
	t.parks++
	g.waiters = append(g.waiters, waiter{t, t.parks})
	if at := deadlineOf(ctx); at < never {
		g.world.resume(t, t.parks, at-g.world.now)
	}
	g.world.park()
	if g.open {
		return nil
	}
	return context.DeadlineExceeded
}
