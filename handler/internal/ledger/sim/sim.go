package sim

import (
	"context"
	"encoding/json"
	"errors"
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
}

// Config is what is not left to the seed.
type Config struct {
	Linear bool          // fewer requests and more reads, whose history is judged
	Mutant ledger.Mutant // a rule of the protocol that is broken on purpose
	Trace  io.Writer     // nil: none
	Log    *slog.Logger
}

const (
	mainPhase     = 150 * time.Second
	settlePhase   = 260 * time.Second
	violationsMax = 20
)

type run struct {
	*world
	config    Config
	server    *server
	faults    faults
	processes []*process
	all       []*process
	made      int
	product   *quota.Product
	oracle    *oracle
	result    *Result
	calm      bool
	lake      map[string]int // revision by record id
	queues    map[*process]*[]ledger.OutboxEntry
	overlap   bool
	limits    ledger.Limits
	crashes   bool
	freezes   bool
	outages   bool
	edits     bool
	updates   bool
	skew      bool
	embedded  bool
	wealth    int64 // how much larger than usual the budgets are
	pauses    bool  // of the load
	paused    bool
	sweeps    bool                       // more than the clock asks for
	perMille  struct{ kill, freeze int } // of the writes, when they have just been sent
	rate      time.Duration
	keyed     map[string]*keyedCharge
	reads     []read
}

// read is an answer of Balance.
type read struct {
	period        string
	spent         int64
	call, returns time.Duration
}

type keyedCharge struct {
	acked         bool
	cost          int64
	call, returns time.Duration
}

// Run runs one seed.
func Run(seed uint64, c Config) *Result {
	w := &world{random: rand.New(rand.NewPCG(seed, 7))}
	r := &run{
		world: w, config: c, result: &Result{Seed: seed, Counters: map[string]int{}}, lake: map[string]int{},
		queues: map[*process]*[]ledger.OutboxEntry{}, keyed: map[string]*keyedCharge{},
	}
	w.trace = func(string, ...any) {}
	if c.Trace != nil {
		w.trace = func(format string, args ...any) {
			fmt.Fprintf(c.Trace, "%10.3f  %s\n", w.now.Seconds(), fmt.Sprintf(format, args...))
		}
	}
	r.server = &server{world: w, partitions: map[string]*partition{}}
	r.oracle = newOracle(r)
	r.server.committed = r.oracle.committed
	r.draw()
	r.begin()
	w.until(mainPhase)
	r.end()
	r.verdict()
	for _, p := range r.processes {
		p.kill()
	}
	r.result.Counters["transactions"] += r.server.applied
	r.result.Counters["rejected"] += r.server.rejected
	return r.result
}

// draw decides what this seed is like: about a third of the faults is off.
func (r *run) draw() {
	w := r.world
	some := func(most int) int {
		if w.chance(35) {
			return 0
		}
		return 1 + w.random.IntN(most)
	}
	r.faults = faults{loseRequest: some(6), loseAnswer: some(6), late: some(6), twice: some(6)}
	r.faults.latency = []time.Duration{10, 40, 150}[w.random.IntN(3)] * time.Millisecond
	r.faults.timeout = []time.Duration{400, 1000, 3000}[w.random.IntN(3)] * time.Millisecond
	r.overlap = w.chance(40)
	r.limits = ledger.Limits{
		Intents: ledger.IntentsMax, IntentBytes: ledger.IntentBytesMax, Unsent: ledger.UnsentMax,
		TxnRows: ledger.TxnRowsMax, TxnRowBytes: ledger.TxnRowBytesMax, Orphans: ledger.OrphansMax, Listed: ledger.ListedMax,
	}
	if w.chance(40) {
		r.limits.Orphans = 1
	}
	r.crashes, r.freezes, r.outages = !w.chance(25), !w.chance(35), !w.chance(50)
	r.edits, r.updates, r.skew = !w.chance(35), !w.chance(35), !w.chance(35)
	r.rate = []time.Duration{200, 700, 2000}[w.random.IntN(3)] * time.Millisecond
	if r.skew {
		r.server.offset = w.between(-2*time.Second, 2*time.Second)
	}
	r.wealth = []int64{1, 1, 10, 50}[w.random.IntN(4)]
	r.pauses, r.sweeps = w.chance(35), w.chance(50)
	if r.crashes && w.chance(50) {
		r.perMille.kill = 2 + w.random.IntN(12)
	}
	if r.freezes && w.chance(50) {
		r.perMille.freeze = 2 + w.random.IntN(12)
	}
	if r.embedded = w.chance(12); r.embedded {
		r.faults = faults{latency: 4 * time.Millisecond, timeout: 3 * time.Second}
		r.outages = false
	}
	if r.config.Linear { // few requests at a time: all their orders are tried
		r.overlap, r.pauses, r.rate = false, false, 2*time.Second
	}
}

// disturb kills or freezes a process that has just sent a write.
func (r *run) disturb(p *process) {
	w := r.world
	if r.calm || p.dead || r.product == nil {
		return
	}
	switch n := w.random.IntN(1000); {
	case n < r.perMille.kill:
		w.after(0, func() {
			for i, q := range r.processes {
				if q == p && !p.dead {
					r.count("crash at a write")
					r.crash(i)
				}
			}
		})
	case n < r.perMille.kill+r.perMille.freeze && p.frozen <= w.now:
		r.count("freeze at a write")
		r.freeze(p)
	}
}

func (r *run) crash(i int) {
	r.trace("kill %s", r.processes[i].name)
	r.count("crash")
	r.processes[i].kill()
	r.after(r.between(0, 3*time.Second), func() { r.processes[i] = r.newProcess(i) })
}

func (r *run) freeze(p *process) {
	length := r.between(time.Second, 50*time.Second)
	if r.chance(50) { // about as long as it takes to be given up
		length = r.between(28*time.Second, 40*time.Second)
	}
	p.frozen = r.now + length
	p.thawed = p.frozen
	r.trace("freeze %s until %v", p.name, p.frozen)
	r.count("freeze")
}

func (r *run) newProcess(slot int) *process {
	w := r.world
	r.made++
	p := &process{world: w, name: fmt.Sprintf("p%d.%d", slot, r.made), tasks: map[*task]bool{}, drift: 1, born: w.now}
	if r.skew {
		p.offset = w.between(-25*time.Second, 25*time.Second)
		p.drift = 1 + (w.random.Float64()-0.5)*0.03
	}
	queue := new([]ledger.OutboxEntry)
	r.queues[p] = queue
	log := r.config.Log
	if log != nil {
		log = log.With("process", p.name)
	}
	p.ledger = ledger.New(&client{r.server, p, &r.faults, r.disturb, r.embedded}, ledger.Options{
		Instance: p.name, Embedded: r.embedded, Runtime: p, Log: log, Mutant: r.config.Mutant, Limits: r.limits,
		OnRecord: func(product, row string, record usage.Record) {
			if w.chance(90) { // else the relay's queue was full
				doc, _ := json.Marshal(record)
				*queue = append(*queue, ledger.OutboxEntry{Product: product, Row: row, Record: doc})
			}
		},
	})
	r.all = append(r.all, p)
	w.trace("start %s", p.name)
	w.spawn(p, func() {
		if r.embedded { // what the dead held, before anything else
			for {
				if _, err := p.ledger.Sweep(context.Background()); err == nil {
					break
				}
				p.Sleep(time.Second)
			}
		}
		p.ready = true
		w.spawn(p, func() { r.relay(p) })
		p.ledger.Run(context.Background(), true)
	})
	return p
}

// begin makes the product and lets everything start.
func (r *run) begin() {
	w := r.world
	calm := r.faults
	r.faults.loseRequest, r.faults.loseAnswer, r.faults.late, r.faults.twice = 0, 0, 0, 0
	n := 2 + w.random.IntN(3)
	if r.embedded {
		n = 1
	}
	for i := range n {
		r.processes = append(r.processes, r.newProcess(i))
	}
	first := r.processes[0]
	w.spawn(first, func() {
		p, _, err := first.ledger.Create(context.Background(), quota.HashKey("simulated-key-0123456789"), ledger.Once{}, r.build)
		if err != nil {
			r.violate("CREATE", "%v", err)
			return
		}
		r.product = p
	})
	w.until(5 * time.Second)
	r.faults = calm
	if r.product == nil {
		r.violate("CREATE", "no product")
		return
	}
	for i := range r.processes {
		r.load(i)
	}
	if r.crashes {
		r.every(4*time.Second, 40*time.Second, func() {
			if i := w.random.IntN(len(r.processes)); !r.processes[i].dead {
				r.crash(i)
			}
		})
	}
	if r.freezes {
		r.every(5*time.Second, 60*time.Second, func() {
			p := r.processes[w.random.IntN(len(r.processes))]
			if p.frozen <= w.now {
				r.freeze(p)
			}
		})
	}
	if r.outages {
		r.every(20*time.Second, 90*time.Second, func() { r.server.down = w.now + w.between(time.Second, 15*time.Second) })
	}
	if r.edits {
		kinds := []int{editDeposit, editDeposit, editBudget, editBudget, editStop, editLift, editLift}
		r.every(3*time.Second, 20*time.Second, func() { r.edit(kinds[w.random.IntN(len(kinds))]) })
		for range w.random.IntN(6) { // about when a period begins
			w.after(midnight+w.between(-2*time.Second, 3*time.Second)-w.now, func() { r.edit(editBudget) })
		}
	}
	if r.pauses {
		r.every(10*time.Second, 40*time.Second, func() {
			r.paused = true
			w.after(w.between(15*time.Second, 50*time.Second), func() { r.paused = false })
		})
	}
	if r.sweeps {
		r.every(time.Second, 20*time.Second, func() { r.sweep() })
	}
	if r.config.Linear {
		r.every(50*time.Millisecond, time.Second, func() { r.balance() })
	}
	if r.updates {
		r.every(time.Second, 10*time.Second, func() { r.update() })
	}
}

func (r *run) build(id string, now time.Time) (*quota.Product, error) {
	w := r.world
	p := &quota.Product{
		ID: id, Name: "Simulated", Keys: []quota.Key{{ID: "k_1", Hash: quota.HashKey("simulated-key-0123456789"), Created: now}},
		Unit: quota.UnitUSD, Budget: (2000 + w.random.Int64N(30_000)) * r.wealth, Period: quota.PeriodDay, TimeZone: "UTC",
		Enforcement: quota.EnforceHard, CreatedAt: now,
	}
	if r.overlap {
		p.Durability = quota.DurabilityOverlap
	}
	return p, nil
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

// load sends requests to a slot's process.
func (r *run) load(slot int) {
	r.after(r.between(0, 2*r.rate), func() {
		if r.calm {
			return
		}
		if p := r.processes[slot]; !p.dead && p.ready && !r.paused {
			burst := 1
			if r.chance(10) && !r.config.Linear {
				burst = 1 + r.random.IntN(20)
			}
			for range burst {
				r.spawn(p, func() { r.request(p) })
			}
		}
		r.load(slot)
	})
}

// request is what the proxy does.
func (r *run) request(p *process) {
	ctx := context.Background()
	most := 1 + r.random.Int64N(600)
	least := most
	if r.chance(30) {
		least = 1 + r.random.Int64N(most)
	}
	record := usage.Record{Kind: usage.KindRequest, Operation: "chat", Model: "m"}
	asked := r.now
	hold, err := p.ledger.Reserve(ctx, ledger.Reservation{Product: r.product, Min: least, Max: most, Record: record, HoldNanoUSD: usage.Of})
	if err != nil {
		refusal := (*ledger.Refusal)(nil)
		if errors.As(err, &refusal) {
			r.count("refused " + string(refusal.Reason))
		} else {
			r.count("unavailable")
		}
		return
	}
	if r.chance(8) {
		r.oracle.unforwarded(hold.Record.ID, p)
		_ = p.ledger.Void(ctx, hold)
		r.count("void")
		return
	}
	cost := r.random.Int64N(hold.Amount + 1)
	length := r.between(100*time.Millisecond, 4*time.Second)
	if r.chance(15) {
		length = r.between(4*time.Second, 60*time.Second)
	}
	q := r.oracle.forward(p, hold, cost, length)
	q.asked, q.returns = asked, never
	wait := p.Elapsed() + time.Duration(float64(length)*p.drift)
	if err := hold.Durable(ctx); err != nil {
		r.count("not durable")
	}
	if left := wait - p.Elapsed(); left > 0 {
		p.Sleep(left)
	}
	done := hold.Record
	done.Charge, done.CostNanoUSD = usage.Of(cost), usage.Of(cost)
	done.UsageSource, done.Outcome = usage.Text(usage.SourceProvider), usage.Text(usage.OutcomeCompleted)
	s := ledger.Settlement{Record: done}
	if r.chance(5) {
		s.StoredResponse = fmt.Sprintf("resp_%d", r.random.IntN(30))
	}
	q.settled = r.now
	if _, err := p.ledger.Settle(ctx, hold, s); err == nil {
		q.acked, q.returns = true, r.now
		r.count("settled")
	}
}

// anybody is a process that runs, or nil.
func (r *run) anybody() *process {
	p := r.processes[r.random.IntN(len(r.processes))]
	if p.dead || !p.ready {
		return nil
	}
	return p
}

func (r *run) sweep() {
	if p := r.anybody(); p != nil {
		r.spawn(p, func() { _, _ = p.ledger.Sweep(context.Background()) }) // the next one sees it
	}
}

func (r *run) balance() {
	p := r.anybody()
	if p == nil {
		return
	}
	r.spawn(p, func() {
		call := r.now
		if a, err := p.ledger.Balance(context.Background(), r.product); err == nil {
			r.count("read")
			r.reads = append(r.reads, read{a.Period, a.Spent, call, r.now})
		}
	})
}

// The kinds of edit.
const (
	editDeposit = iota
	editBudget
	editStop
	editLift
)

// edit changes the product somehow.
func (r *run) edit(what int) {
	p := r.anybody()
	if p == nil {
		return
	}
	amount := r.random.Int64N(4000) * r.wealth
	name := fmt.Sprintf("edit-%d", r.random.Int64())
	r.spawn(p, func() {
		_, _, err := p.ledger.Edit(context.Background(), r.product.ID, ledger.Once{Key: name, Body: "b"}, func(d *ledger.Draft) error {
			switch what {
			case editDeposit:
				d.Account.Budget += amount
				d.Records = []usage.Record{{Kind: usage.KindDeposit, Charge: usage.Of(-amount)}}
			case editBudget:
				d.Product.Budget = 1000 + amount*8
				d.Account.Budget = d.Product.Budget
			case editStop:
				d.Product.Stop = &quota.Stop{Reason: "test", Since: p.Now()}
			case editLift:
				d.Product.Stop = nil
			}
			return nil
		})
		if err == nil {
			r.count("edit")
		}
	})
}

// update charges money that is spent already, once, wherever it is tried.
func (r *run) update() {
	name, cost := fmt.Sprintf("update-%d", r.random.Int64()), r.random.Int64N(200)
	k := &keyedCharge{cost: cost, call: r.now, returns: never}
	r.keyed[name] = k
	tries := 1 + r.random.IntN(3)
	for range tries {
		p := r.anybody()
		if p == nil {
			continue
		}
		r.spawn(p, func() {
			record := usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(cost), CostNanoUSD: usage.Of(cost), UpstreamRequestID: usage.Text(name)}
			if _, err := p.ledger.Charge(context.Background(), r.product, record, ledger.Once{Key: name}); err == nil {
				k.acked, k.returns = true, min(k.returns, r.now)
				r.count("update")
			}
		})
	}
}

// relay sends records to the lake.
func (r *run) relay(p *process) {
	scanned := p.Elapsed()
	for {
		p.Sleep(500 * time.Millisecond)
		queue := r.queues[p]
		batch := *queue
		*queue = nil
		if p.Elapsed()-scanned > 15*time.Second {
			scanned = p.Elapsed()
			more, err := p.ledger.Unsent(context.Background(), 100)
			if err == nil {
				batch = append(batch, more...)
			}
		}
		if len(batch) == 0 {
			continue
		}
		if !r.calm && r.chance(5) {
			*queue = append(batch, *queue...)
			continue
		}
		for _, e := range batch {
			var record usage.Record
			if err := json.Unmarshal(e.Record, &record); err != nil {
				r.violate("LAKE", "%v", err)
			}
			r.lake[record.ID] = max(r.lake[record.ID], record.Rev)
		}
		_ = p.ledger.Acknowledge(context.Background(), batch)
	}
}

// end stops the faults and waits until everything is at rest.
func (r *run) end() {
	r.calm = true
	r.faults = faults{latency: 10 * time.Millisecond, timeout: 3 * time.Second}
	r.server.down = 0
	r.until(mainPhase + settlePhase)
}

func (r *run) count(what string) { r.result.Counters[what]++ }

func (r *run) violate(what, format string, args ...any) {
	text := fmt.Sprintf("%8.3fs %s: %s", r.now.Seconds(), what, fmt.Sprintf(format, args...))
	r.trace("VIOLATION %s", text)
	if len(r.result.Violations) < violationsMax {
		r.result.Violations = append(r.result.Violations, text)
	}
}

func isUsage(row string) bool { return strings.HasPrefix(row, "U.") }
