package sim

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Result is what a seed showed.
type Result struct {
	Seed       uint64
	Violations []string
	Counters   map[string]int
	Hash       uint64 // of what happened in the store: the same whenever the seed is run
}

// Config is what is not left to the seed.
type Config struct {
	Linear bool          // fewer requests and more reads, whose history is judged
	Mutant ledger.Mutant // a rule of the protocol that is broken on purpose
	Focus  Focus
	Trace  io.Writer // nil: none
	Log    *slog.Logger
}

const (
	mainPhase     = 150 * time.Second
	settlePhase   = 260 * time.Second // at most
	lateMost      = 40 * time.Second  // after its sender has given up a write may still happen
	violationsMax = 20
)

type run struct {
	*world
	draws
	config    Config
	server    *server
	faults    faults
	processes []*process
	all       []*process
	made      int
	products  []*product
	begun     bool
	result    *Result
	calm      bool
	paused    bool
	silent    bool           // the lake acknowledges nothing
	lake      map[string]int // revision by record id
	queues    map[*process]*[]told
	running   int // requests
	reads     []read
	names     int // of edits and updates, so far
}

// read is an answer of Balance.
type read struct {
	period        string
	spent         int64
	call, returns time.Duration
}

// Run runs one seed.
func Run(seed uint64, c Config) *Result {
	w := &world{random: rand.New(rand.NewPCG(seed, 7))}
	r := &run{
		world: w, config: c, result: &Result{Seed: seed, Counters: map[string]int{}}, lake: map[string]int{},
		queues: map[*process]*[]told{},
	}
	w.trace = func(string, ...any) {}
	if w.tracing = c.Trace != nil; w.tracing {
		w.trace = func(format string, args ...any) {
			fmt.Fprintf(c.Trace, "%10.3f  %s\n", w.now.Seconds(), fmt.Sprintf(format, args...))
		}
	}
	r.server = &server{world: w, partitions: map[string]*partition{}}
	r.server.committed = func(partition string, ops []ledger.Op, before []ledger.Entity) {
		if p := r.productOf(partition); p != nil {
			p.oracle.committed(ops, before)
		}
	}
	r.draw()
	if r.begin() {
		w.until(mainPhase)
		r.end()
		r.verdict()
	}
	for _, p := range r.processes {
		p.kill()
	}
	r.result.Counters["transactions"] += r.server.applied
	r.result.Counters["rejected"] += r.server.rejected
	r.result.Hash = w.hash
	return r.result
}

// productOf is the product with a partition. While it is being created that is
// any that has none.
func (r *run) productOf(partition string) *product {
	if !strings.HasPrefix(partition, quota.ProductPrefix) {
		return nil
	}
	for _, p := range r.products {
		if p.id == partition {
			return p
		}
	}
	for _, p := range r.products {
		if p.id == "" {
			p.id = partition
			return p
		}
	}
	return nil
}

// begin makes the products and lets everything start.
func (r *run) begin() bool {
	drawn := r.faults
	r.faults.loseRequest, r.faults.loseAnswer, r.faults.late, r.faults.twice = 0, 0, 0, 0
	for i := range r.instances {
		r.processes = append(r.processes, r.newProcess(i))
	}
	first := r.processes[0]
	r.spawn(first, func() {
		for _, p := range r.products {
			build := func(id string, now time.Time) (*quota.Product, error) { return r.build(p, id, now), nil }
			made, _, err := first.ledger.Create(context.Background(), quota.HashKey(p.key), ledger.Once{}, build)
			if err != nil {
				r.violate("CREATE", "%v", err)
				return
			}
			p.made, p.id = made, made.ID
		}
		r.begun = true
	})
	r.until(5 * time.Second)
	r.faults = drawn
	if !r.begun {
		r.violate("CREATE", "no product")
		return false
	}
	for i := range r.processes {
		r.load(i)
	}
	r.disasters()
	r.offices()
	return true
}

// disasters are what befalls the processes.
func (r *run) disasters() {
	if r.crashes {
		r.every(4*time.Second, 40*time.Second, func() {
			if i := r.random.IntN(len(r.processes)); !r.processes[i].dead {
				r.crash(i)
			}
		})
	}
	if r.freezes {
		r.every(5*time.Second, 60*time.Second, func() {
			p := r.processes[r.random.IntN(len(r.processes))]
			if p.frozen <= r.now {
				r.freeze(p)
			}
		})
	}
	if r.outages {
		r.every(20*time.Second, 90*time.Second, func() { r.down = r.now + r.between(time.Second, 15*time.Second) })
	}
	if r.cuts {
		r.every(10*time.Second, 60*time.Second, func() { r.cutOff(r.processes[r.random.IntN(len(r.processes))]) })
	}
	if r.drains {
		r.every(15*time.Second, 60*time.Second, func() { r.drain(r.random.IntN(len(r.processes))) })
	}
}

// offices are what comes besides requests.
func (r *run) offices() {
	if r.edits {
		r.every(3*time.Second, 20*time.Second, func() { r.edit(r.any(), editKinds[r.random.IntN(len(editKinds))]) })
		for range r.random.IntN(6) { // about when a period begins
			r.after(midnight+r.between(-2*time.Second, 3*time.Second)-r.now, func() { r.edit(r.any(), editBudget) })
		}
	}
	for _, p := range r.products {
		if p.next != "" {
			r.after(r.between(time.Second, 60*time.Second), func() { r.edit(p, editPeriod) })
		}
	}
	if r.pauses {
		r.every(10*time.Second, 40*time.Second, func() {
			r.paused = true
			r.after(r.between(15*time.Second, 50*time.Second), func() { r.paused = false })
		})
	}
	if r.sweeps {
		r.every(time.Second, 20*time.Second, func() { r.sweep() })
	}
	if r.config.Linear {
		r.every(50*time.Millisecond, time.Second, func() { r.balance() })
	}
	if r.updates {
		r.every(time.Second, 10*time.Second, func() { r.updateSome() })
	}
	if r.amends {
		r.every(5*time.Second, 25*time.Second, func() { r.amend(r.any()) })
	}
}

// any is one of the products, the first one more often.
func (r *run) any() *product {
	if len(r.products) > 1 && r.chance(25) {
		return r.products[1]
	}
	return r.products[0]
}

// every does something at random times until the calm.
func (r *run) every(low, high time.Duration, do func()) {
	r.after(r.between(low, high), func() {
		if !r.calm {
			do()
			r.every(low, high, do)
		}
	})
}

// end stops the faults, plays the end game, and waits until everything is at
// rest.
func (r *run) end() {
	r.calm = true
	r.faults = faults{latency: 10 * time.Millisecond, timeout: 3 * time.Second}
	r.down = 0
	for _, p := range r.processes {
		p.cut = 0
	}
	r.endGame()
	r.silent = false
	last := r.now + settlePhase
	for r.now < last && (r.now < mainPhase+lateMost || !r.atRest()) {
		r.until(r.now + 2*time.Second)
	}
	r.until(r.now + 2*time.Second)
}

// atRest tells whether nothing is left to do.
func (r *run) atRest() bool {
	if r.running > 0 {
		return false
	}
	for _, p := range r.processes {
		if p.dead || !p.ready || p.frozen > r.now || len(*r.queues[p]) > 0 {
			return false
		}
	}
	for _, p := range r.products {
		for _, name := range r.server.part(p.id).names {
			if unsettled(name) {
				return false
			}
		}
	}
	return true
}

// unsettled tells whether a row is one that must not be there at rest: a lease, a
// list of intents, or a record that the lake has not acknowledged.
func unsettled(row string) bool {
	return strings.HasPrefix(row, "O.") || strings.Contains(row, ".L.") || strings.Contains(row, ".W.")
}

func (r *run) count(what string) { r.result.Counters[what]++ }

func (r *run) violate(what, format string, args ...any) {
	text := fmt.Sprintf("%8.3fs %s: %s", r.now.Seconds(), what, fmt.Sprintf(format, args...))
	r.trace("VIOLATION %s", text)
	if len(r.result.Violations) < violationsMax {
		r.result.Violations = append(r.result.Violations, text)
	}
}

func isUsage(row string) bool   { return strings.HasPrefix(row, "U.") }
func isAccount(row string) bool { return strings.HasPrefix(row, "S.") && strings.HasSuffix(row, ".A") }
func isTotal(row string) bool   { return strings.HasPrefix(row, "S.") && strings.HasSuffix(row, ".T") }
func isLease(row string) bool   { return strings.HasPrefix(row, "S.") && strings.Contains(row, ".L.") }

// idOf is the record, or the lease, that a row is of.
func idOf(row string) string { return row[strings.LastIndexByte(row, '.')+1:] }

func isSwept(e ledger.Entity) bool { return e.Texts["Source"] == string(usage.SourceSwept) }
