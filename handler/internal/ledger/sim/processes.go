package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/usage"
)

func (r *run) newProcess(slot int) *process {
	w := r.world
	r.made++
	p := &process{
		world: w, name: fmt.Sprintf("p%d.%d", slot, r.made), tasks: map[*task]bool{}, drift: 1, born: w.now,
		leaves: never, known: map[*product]*knowledge{},
	}
	if r.skew {
		p.offset = w.between(-25*time.Second, 25*time.Second)
		p.drift = 1 + (w.random.Float64()-0.5)*0.03
	}
	if r.hours { // two of them differ by less than an hour
		p.offset = w.between(-29*time.Minute, 29*time.Minute)
	}
	queue := new([]told)
	r.queues[p] = queue
	log := r.config.Log
	if log != nil {
		log = log.With("process", p.name)
	}
	store := &client{server: r.server, process: p, faults: &r.faults, disturb: r.disturb, saw: r.saw, count: r.count, local: r.embedded}
	p.ledger = ledger.New(store, ledger.Options{
		Instance: p.name, Embedded: r.embedded, Runtime: p, Log: log, Mutant: r.config.Mutant, Limits: r.limits,
		OnRecord: func(product, row string, record usage.Record) bool {
			taken := w.chance(90) // else the relay's queue was full
			if taken {
				*queue = append(*queue, told{ledger.OutboxEntry{Product: product, Row: row}, record.ID, record.Rev})
			}
			return taken
		},
	})
	r.all = append(r.all, p)
	w.trace("start %s offset %v drift %v", p.name, p.offset, p.drift)
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

// disturb kills or freezes a process that has just sent a write.
func (r *run) disturb(p *process) {
	w := r.world
	if r.calm || p.dead || !r.begun {
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

// cutOff takes the store away from one process.
func (r *run) cutOff(p *process) {
	p.cut = r.now + r.between(time.Second, 12*time.Second)
	if r.chance(30) { // so long that it is taken for dead
		p.cut = r.now + r.between(25*time.Second, 45*time.Second)
	}
	r.trace("cut off %s until %v", p.name, p.cut)
}

// drain ends a process as its host should: it gets no more requests, writes what
// waits, and gives back what it does not use. Then it is gone, whatever still
// runs.
func (r *run) drain(i int) {
	p := r.processes[i]
	if p.dead || !p.ready || p.leaves < never {
		return
	}
	p.leaves = r.now
	r.trace("drain %s", p.name)
	r.spawn(p, func() {
		ctx, cancel := p.Deadline(context.Background(), 20*time.Second)
		defer cancel()
		if err := p.ledger.Drain(ctx); err == nil {
			p.left = true
			r.count("drained")
		}
		r.after(0, func() {
			if r.processes[i] == p && !p.dead {
				r.crash(i)
			}
		})
	})
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

// told is a record on its way to the lake.
type told struct {
	entry ledger.OutboxEntry
	id    string
	rev   int
}

// relay sends records to the lake.
func (r *run) relay(p *process) {
	scanned, queue := p.Elapsed(), r.queues[p]
	for {
		p.Sleep(500 * time.Millisecond)
		if r.silent {
			continue
		}
		batch := *queue
		*queue = nil
		if p.Elapsed()-scanned > 15*time.Second {
			scanned = p.Elapsed()
			batch = append(batch, r.unsent(p)...)
		}
		if len(batch) == 0 {
			continue
		}
		if !r.calm && r.chance(5) {
			*queue = append(batch, *queue...)
			continue
		}
		entries := make([]ledger.OutboxEntry, len(batch))
		for i, t := range batch {
			r.lake[t.id] = max(r.lake[t.id], t.rev)
			entries[i] = t.entry
		}
		_ = p.ledger.Acknowledge(context.Background(), entries)
	}
}

// unsent are records that somebody has to tell the lake of.
func (r *run) unsent(p *process) (batch []told) {
	entries, err := p.ledger.Unsent(context.Background(), 100)
	if err != nil {
		return nil // the next time
	}
	for _, e := range entries {
		var record usage.Record
		if err := json.Unmarshal(e.Record, &record); err != nil {
			r.violate("LAKE", "%v", err)
		}
		batch = append(batch, told{e, record.ID, record.Rev})
	}
	return batch
}
