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
	orphans   int // of one reclaim
	crashes   bool
	freezes   bool
	outages   bool
	edits     bool
	updates   bool
	skew      bool
	rate      time.Duration
	keyed     map[string]*keyedCharge
}

type keyedCharge struct {
	acked bool
	cost  int64
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
	r.overlap = w.chance(30)
	if r.orphans = 95; w.chance(40) {
		r.orphans = 1
	}
	r.crashes, r.freezes, r.outages = !w.chance(25), !w.chance(35), !w.chance(50)
	r.edits, r.updates, r.skew = !w.chance(35), !w.chance(35), !w.chance(35)
	r.rate = []time.Duration{200, 700, 2000}[w.random.IntN(3)] * time.Millisecond
	if r.skew {
		r.server.offset = w.between(-2*time.Second, 2*time.Second)
	}
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
	p.ledger = ledger.New(&client{r.server, p, &r.faults}, ledger.Options{
		Instance: p.name, Runtime: p, Log: log, Mutant: r.config.Mutant, OrphansMax: r.orphans,
		OnRecord: func(product, row string, record usage.Record) {
			if w.chance(90) { // else the relay's queue was full
				doc, _ := json.Marshal(record)
				*queue = append(*queue, ledger.OutboxEntry{Product: product, Row: row, Record: doc})
			}
		},
	})
	r.all = append(r.all, p)
	w.trace("start %s", p.name)
	w.spawn(p, func() { p.ledger.Run(context.Background(), true) })
	w.spawn(p, func() { r.relay(p) })
	return p
}

// begin makes the product and lets everything start.
func (r *run) begin() {
	w := r.world
	calm := r.faults
	r.faults.loseRequest, r.faults.loseAnswer, r.faults.late, r.faults.twice = 0, 0, 0, 0
	n := 2 + w.random.IntN(3)
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
			i := w.random.IntN(len(r.processes))
			w.trace("kill %s", r.processes[i].name)
			r.count("crash")
			r.processes[i].kill()
			w.after(w.between(0, 3*time.Second), func() { r.processes[i] = r.newProcess(i) })
		})
	}
	if r.freezes {
		r.every(5*time.Second, 60*time.Second, func() {
			p := r.processes[w.random.IntN(len(r.processes))]
			if p.frozen <= w.now {
				p.frozen = w.now + w.between(time.Second, 50*time.Second)
				p.thawed = p.frozen
				w.trace("freeze %s until %v", p.name, p.frozen)
				r.count("freeze")
			}
		})
	}
	if r.outages {
		r.every(20*time.Second, 90*time.Second, func() { r.server.down = w.now + w.between(time.Second, 15*time.Second) })
	}
	if r.edits {
		r.every(3*time.Second, 20*time.Second, func() { r.edit() })
	}
	if r.updates {
		r.every(time.Second, 10*time.Second, func() { r.update() })
	}
}

func (r *run) build(id string, now time.Time) (*quota.Product, error) {
	w := r.world
	p := &quota.Product{
		ID: id, Name: "Simulated", Keys: []quota.Key{{ID: "k_1", Hash: quota.HashKey("simulated-key-0123456789"), Created: now}},
		Unit: quota.UnitUSD, Budget: 2000 + w.random.Int64N(30_000), Period: quota.PeriodDay, TimeZone: "UTC",
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
		if p := r.processes[slot]; !p.dead {
			burst := 1
			if r.chance(10) {
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
	q.settling = true
	if _, err := p.ledger.Settle(ctx, hold, s); err == nil {
		q.acked = true
		r.count("settled")
	}
}

// edit changes the product somehow.
func (r *run) edit() {
	p := r.processes[r.random.IntN(len(r.processes))]
	if p.dead {
		return
	}
	what, amount := r.random.IntN(4), r.random.Int64N(4000)
	name := fmt.Sprintf("edit-%d", r.random.Int64())
	r.spawn(p, func() {
		_, _, err := p.ledger.Edit(context.Background(), r.product.ID, ledger.Once{Key: name, Body: "b"}, func(d *ledger.Draft) error {
			switch what {
			case 0:
				d.Account.Budget += amount
				d.Records = []usage.Record{{Kind: usage.KindDeposit, Charge: usage.Of(-amount)}}
			case 1:
				d.Product.Budget = 1000 + amount*8
				d.Account.Budget = d.Product.Budget
			case 2:
				d.Product.Stop = &quota.Stop{Reason: "test", Since: p.Now()}
			case 3:
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
	k := &keyedCharge{cost: cost}
	r.keyed[name] = k
	tries := 1 + r.random.IntN(3)
	for range tries {
		p := r.processes[r.random.IntN(len(r.processes))]
		if p.dead {
			continue
		}
		r.spawn(p, func() {
			record := usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(cost), CostNanoUSD: usage.Of(cost), UpstreamRequestID: usage.Text(name)}
			if _, err := p.ledger.Charge(context.Background(), r.product, record, ledger.Once{Key: name}); err == nil {
				k.acked = true
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
