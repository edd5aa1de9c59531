package sim

import (
	"context"
	"slices"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// ending is what the end game is like.
type ending int

// The end games. In each but the first all that is left of a budget is asked for
// by a process that has no lease, while others hold some of it without need.
const (
	endPlain  ending = iota // none
	endIdle                 // their leases are idle
	endStream               // one long request runs under one of them
	endSilent               // the lake acknowledges nothing: they cannot be closed
)

func (e ending) String() string {
	return [...]string{"plain", "idle leases", "a long stream", "a silent lake"}[e]
}

const (
	liveBound = 12 * time.Second // of being refused without a reason
	deadBound = 45 * time.Second // of a lease without a process
	closeWait = 50 * time.Second // for the leases of the main phase
	endReach  = 75 * time.Second // of the end game, from the first request on
)

func (r *run) drawEnding() {
	if r.embedded || !r.chance(50) {
		return
	}
	r.ending = []ending{endIdle, endStream, endSilent}[r.random.IntN(3)]
}

// endGame: there are no faults any more, so nobody is refused for long.
func (r *run) endGame() {
	of := r.products[0]
	if r.ending == endPlain || of.soft {
		return
	}
	for last := r.now + closeWait; r.now < last && (r.running > 0 || len(of.oracle.open) > 0 || !r.allWell()); {
		r.until(r.now + time.Second)
	}
	if !r.allWell() {
		return
	}
	at := r.random.IntN(len(r.processes))
	client := r.processes[at]
	others := slices.Delete(slices.Clone(r.processes), at, at+1)
	if !r.provide(of, others[0]) {
		return
	}
	r.count("end game with " + r.ending.String())
	r.trace("end game with %v: %s asks", r.ending, client.name)
	r.silent = r.ending == endSilent
	for i, p := range others {
		if i > 0 && r.chance(50) {
			continue
		}
		for range 8 {
			r.spawn(p, func() { r.brief(p, of, r.between(300*time.Millisecond, time.Second)) })
		}
	}
	if r.ending == endStream {
		r.spawn(others[0], func() { r.brief(others[0], of, 80*time.Second) })
	}
	r.until(r.now + r.between(2*time.Second, 30*time.Second))
	over := false
	r.spawn(client, func() {
		r.insist(client, of)
		over = true
	})
	for last := r.now + endReach; !over && r.now < last; {
		r.until(r.now + time.Second)
	}
}

// allWell tells whether every process runs.
func (r *run) allWell() bool {
	for _, p := range r.processes {
		if p.dead || !p.ready || p.frozen > r.now || p.leaves < never {
			return false
		}
	}
	return true
}

// provide lifts a stop and sees to it that there is something to ask for.
func (r *run) provide(of *product, p *process) bool {
	done := 0
	r.spawn(p, func() {
		window, err := r.product(p, of).WindowAt(p.Now())
		if err != nil {
			r.violate("PERIOD", "%v", err)
			return
		}
		amount := of.oracle.period(window.Name).committed + 20_000
		for _, e := range []*edit{{kind: editLift}, {kind: editBudget, amount: amount}} {
			e.name = r.name("last")
			of.oracle.edits[e.name] = e
			if err := r.tryOn(p, of, e); err != nil {
				r.violate("LIVE", "an edit in the calm: %v", err)
				return
			}
			done++
		}
	})
	r.until(r.now + 6*time.Second) // by then all processes know
	return done == 2
}

// brief is a request whose money nobody needs afterwards: the lease that is had
// for it is larger than it.
func (r *run) brief(p *process, of *product, length time.Duration) {
	asked := r.now
	if hold, err := r.reserve(p, of, 300, 300); err == nil {
		cost := r.random.Int64N(300)
		r.serve(p, of, hold, asked, cost, length, false, cost)
	}
}

// insist asks for all that is left, once a second. It is let in before long.
func (r *run) insist(p *process, of *product) {
	o := of.oracle
	began, since := r.now, r.now
	for r.now < began+endReach-5*time.Second {
		window, err := r.product(p, of).WindowAt(p.Now())
		if err != nil {
			return
		}
		free := o.free(window)
		if free <= 0 || len(o.orphaned()) > 0 {
			since = r.now
		}
		if leases := o.orphaned(); len(leases) > 0 && r.now > began+deadBound {
			r.violate("LIVE", "%s: leases of processes that are gone for long: %v", r.ending, leases)
			return
		}
		asked := r.now
		hold, err := r.reserve(p, of, max(1, free), max(1, free))
		if err == nil {
			r.count("end game won")
			r.trace("%s was let in after %v", p.name, r.now-began)
			r.serve(p, of, hold, asked, 1, 100*time.Millisecond, false, 1)
			return
		}
		if o.free(window) < free || o.stopped < never { // an alert may have come late
			since = r.now
		}
		if r.now-since > liveBound {
			r.violate("LIVE", "%s: %s asks for %d for %v, and that is free: %v", r.ending, p.name, free, r.now-began, err)
			return
		}
		p.Sleep(time.Second)
	}
}

// free is what nobody has spent and nobody needs, of a period's budget.
func (o *oracle) free(window quota.Window) int64 {
	s := o.periods[window.Name]
	if s == nil || len(s.budgets) == 0 {
		return o.config[len(o.config)-1].budget
	}
	return s.budget - s.closed - s.settled - s.running
}

// orphaned are the open leases of processes that are gone.
func (o *oracle) orphaned() (leases []string) {
	for id, instance := range o.open {
		if !slices.ContainsFunc(o.run.processes, func(p *process) bool { return p.name == instance && !p.dead }) {
			leases = append(leases, id)
		}
	}
	slices.Sort(leases)
	return leases
}

// last asks every process what there is left to tell, and verifies the books.
func (r *run) last() {
	live := r.processes[0]
	for _, p := range r.processes {
		r.spawn(p, func() {
			if left, err := p.ledger.Unsent(context.Background(), 100); err != nil || len(left) > 0 {
				r.violate("REST", "%s has %d records unsent: %v", p.name, len(left), err)
			}
		})
	}
	for _, of := range r.products {
		r.spawn(live, func() {
			differences, err := live.ledger.Verify(context.Background(), of.id)
			if err != nil || len(differences) > 0 {
				r.violate("VERIFY", "%v %v", differences, err)
			}
			for _, response := range of.oracle.responses() {
				if _, owned, err := live.ledger.StoredResponse(context.Background(), of.id, response); err != nil || !owned {
					r.violate("STORED", "%s was acknowledged, and is nobody's: %v", response, err)
				}
			}
		})
	}
	r.until(r.now + 20*time.Second)
}

// forget lets every process delete the records of every period at the same time,
// though messages are lost: their totals prove what was spent all the same.
func (r *run) forget() {
	spent := map[string]int64{}
	for _, of := range r.products {
		for _, name := range sorted(of.oracle.periods) {
			spent[of.id+name] = of.oracle.periods[name].recorded
		}
		for _, p := range r.processes {
			r.spawn(p, func() {
				for range 40 {
					if _, more, err := p.ledger.Retain(context.Background(), of.id, r.server.clock().AddDate(1, 0, 0)); err == nil && !more {
						return
					}
					p.Sleep(100 * time.Millisecond)
				}
			})
		}
	}
	r.until(r.now + 60*time.Second)
	for _, of := range r.products {
		part := r.server.part(of.id)
		for _, name := range part.names {
			if isUsage(name) && part.rows[name].Texts["Period"] != "total" {
				r.violate("RETAIN", "%s is still there", name)
			}
			if isTotal(name) {
				r.count("total kept")
			}
		}
		for _, name := range sorted(of.oracle.periods) {
			if s := of.oracle.periods[name]; s.recorded != spent[of.id+name] {
				r.violate("RETAIN", "%s: the records were %d, the total says %d", name, spent[of.id+name], s.recorded)
			}
		}
		r.spawn(r.processes[0], func() {
			if differences, err := r.processes[0].ledger.Verify(context.Background(), of.id); err != nil || len(differences) > 0 {
				r.violate("RETAIN", "%v %v", differences, err)
			}
		})
	}
	r.until(r.now + 20*time.Second)
}

// responses are those that Azure keeps, by what was acknowledged.
func (o *oracle) responses() (ids []string) {
	for _, q := range o.requests {
		if q.acked && q.stored != "" && !slices.Contains(ids, q.stored) {
			ids = append(ids, q.stored)
		}
	}
	slices.Sort(ids)
	return ids
}

// amendable is a swept record that nobody will settle: of a process that is gone,
// for a request that is over.
func (o *oracle) amendable() string {
	found := ""
	for _, name := range o.run.server.part(o.product.id).names {
		e := o.run.server.part(o.product.id).rows[name]
		id := idOf(name)
		if !isUsage(name) || !isSwept(e) || e.Texts["Kind"] != string(usage.KindRequest) || o.amended[id] {
			continue
		}
		q, s := o.requests[id], o.skipped[id]
		if q != nil && q.process.dead && q.billed || s != nil && s.process.dead {
			found = id
			if o.run.chance(30) {
				break
			}
		}
	}
	return found
}
