package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// load sends requests to a slot's process.
func (r *run) load(slot int) {
	r.after(r.between(0, 2*r.rate), func() {
		if r.calm {
			return
		}
		if p := r.processes[slot]; !p.dead && p.ready && !r.paused && p.leaves == never {
			burst, of := 1, r.any()
			if r.chance(10) && !r.config.Linear {
				burst = 1 + r.random.IntN(20)
			}
			for range burst {
				r.spawn(p, func() { r.request(p, of) })
			}
		}
		r.load(slot)
	})
}

const productTTL = 5 * time.Second // as in production

// product is what a process knows of a product: it reads it again now and then.
func (r *run) product(p *process, of *product) *quota.Product {
	k := p.known[of]
	if k == nil {
		k = &knowledge{product: of.made, read: -never}
		p.known[of] = k
	}
	if !of.soft && of.next == "" { // nobody looks at what may have changed
		return k.product
	}
	if r.now-k.read > productTTL {
		k.read = r.now // nobody else does it meanwhile
		if fresh, err := p.ledger.Find(context.Background(), of.id); err == nil {
			k.product = fresh
		}
	}
	return k.product
}

// saw notes that a process has read of a stop.
func (r *run) saw(p *process, partition string, e ledger.Entity) {
	if e.Row != "C" || p.world.current.edits {
		return
	}
	of := r.productOf(partition)
	if of == nil || of.oracle.stopped == never || e.Ints["Version"] < of.oracle.stopVersion {
		return
	}
	k := p.known[of]
	if k == nil {
		k = &knowledge{product: of.made, read: -never}
		p.known[of] = k
	}
	if k.stop != of.oracle.stopVersion {
		k.stop, k.since = of.oracle.stopVersion, r.now
	}
}

// reserve asks for a hold, and judges a refusal.
func (r *run) reserve(p *process, of *product, least, most int64) (*ledger.Hold, error) {
	record := usage.Record{Kind: usage.KindRequest, Operation: "chat", Model: "m"}
	known, asked := r.product(p, of), r.now
	hold, err := p.ledger.Reserve(context.Background(), ledger.Reservation{Product: known, Min: least, Max: most, Record: record, HoldNanoUSD: usage.Of})
	if err == nil {
		r.answered(p, of, hold.Account.Period != "")
		return hold, nil
	}
	refusal := (*ledger.Refusal)(nil)
	r.answered(p, of, errors.As(err, &refusal) || errors.Is(err, ledger.ErrBusy))
	switch {
	case errors.As(err, &refusal):
		r.count("refused " + string(refusal.Reason))
		of.oracle.refused(p, refusal, least, asked)
	case errors.Is(err, ledger.ErrBusy):
		r.count("busy")
	default:
		r.count("unavailable")
	}
	return nil, err
}

// stuckBound is how long a process may have no answer for anybody although the
// store can be reached. Where a lost message costs 3 s, its queue may be that long.
func (r *run) stuckBound() time.Duration {
	if r.faults.timeout > time.Second {
		return 100 * time.Second
	}
	return 45 * time.Second
}

// answered notes whether a process's ledger said yes or no to a request. It may
// not be at a loss for long if nothing but chance loses its messages.
func (r *run) answered(p *process, of *product, well bool) {
	k := p.known[of]
	if well {
		k.good, k.bad = r.now, 0
		return
	}
	k.bad++
	since := max(k.good, p.born, p.cut, p.thawed, r.down)
	if r.config.Focus != 0 { // what it makes more of keeps processes from answering
		return
	}
	if k.bad > 5 && r.now-since > r.stuckBound() && !of.soft { // a soft one does not wait for long
		r.violate("STUCK", "%s has answered nothing for %v", p.name, r.now-since)
		k.good, k.bad = r.now, 0
	}
}

// request is what the proxy does.
func (r *run) request(p *process, of *product) {
	most := 1 + r.random.Int64N(600)
	least := most
	if r.chance(30) {
		least = 1 + r.random.Int64N(most)
	}
	asked := r.now
	hold, err := r.reserve(p, of, least, most)
	if err != nil {
		return
	}
	if r.chance(8) {
		of.oracle.unforwarded(hold.Record.ID, p)
		_ = p.ledger.Void(context.Background(), hold)
		r.count("void")
		return
	}
	cost := r.random.Int64N(hold.Amount + 1)
	if of.overruns && r.chance(20) {
		cost = hold.Amount + 1 + r.random.Int64N(2*hold.Amount)
	}
	truth, background := cost, !r.config.Linear && r.config.Focus == 0 && r.chance(6)
	if background {
		cost = hold.Amount
	}
	length := r.between(100*time.Millisecond, 4*time.Second)
	if r.chance(15) {
		length = r.between(4*time.Second, 60*time.Second)
	}
	r.serve(p, of, hold, asked, cost, length, background, truth)
}

// serve forwards a request and settles it.
func (r *run) serve(p *process, of *product, hold *ledger.Hold, asked time.Duration, cost int64, length time.Duration, background bool, truth int64) {
	ctx := context.Background()
	q := of.oracle.forward(p, hold, cost, length)
	q.asked, q.background, q.truth = asked, background, truth
	s := of.oracle.period(q.period)
	r.running++
	s.running += q.hold
	defer func() { // also when it is killed
		r.running--
		s.running -= q.hold
	}()
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
	done.PromptTokens, done.CompletionTokens = usage.Of(cost/2), usage.Of(cost-cost/2)
	end := ledger.Settlement{Record: done}
	if r.chance(5) {
		end.StoredResponse = fmt.Sprintf("resp_%d", r.random.IntN(30))
	}
	if background {
		done.UsageSource, done.PromptTokens, done.CompletionTokens = usage.Text(usage.SourceEstimate), usage.Count{}, usage.Count{}
		end.Record, end.StoredResponse = done, r.name("background")
		for at := r.between(0, 20*time.Second); ; at += r.between(0, 10*time.Second) { // clients poll, from anywhere
			for range 1 + r.random.IntN(3) {
				r.after(at, func() { r.revise(of, q, end.StoredResponse) })
			}
			if r.chance(60) {
				break
			}
		}
	}
	q.settled = r.now
	if _, err := p.ledger.Settle(ctx, hold, end); err == nil {
		q.acked, q.returns, q.stored = true, r.now, end.StoredResponse
		r.count("settled")
	}
}

// revise is what a fetch of a background response does.
func (r *run) revise(of *product, q *request, response string) {
	p := r.anybody()
	if p == nil {
		return
	}
	r.spawn(p, func() {
		_, done, err := p.ledger.Revise(context.Background(), of.id, response, q.truth, func(record *usage.Record) error {
			record.Charge, record.CostNanoUSD = usage.Of(q.truth), usage.Of(q.truth)
			record.UsageSource = usage.Text(usage.SourceProvider)
			record.PromptTokens, record.CompletionTokens = usage.Of(q.truth/2), usage.Of(q.truth-q.truth/2)
			return nil
		})
		switch {
		case err != nil:
			r.count("not revised")
		case done:
			r.count("revised")
			q.revisedSurely = true
		default:
			r.count("revised before")
			q.revisedSurely = true
		}
	})
}

func (r *run) balance() {
	p, of := r.anybody(), r.products[0]
	if p == nil {
		return
	}
	r.spawn(p, func() {
		call := r.now
		if a, err := p.ledger.Balance(context.Background(), r.product(p, of)); err == nil {
			r.count("read")
			r.reads = append(r.reads, read{a.Period, a.Spent, call, r.now})
		}
	})
}

func (r *run) name(of string) string {
	r.names++
	return fmt.Sprintf("%s-%d", of, r.names)
}

// keyedCharge is an update that has a name.
type keyedCharge struct {
	name          string
	cost          int64
	acked         bool
	call, returns time.Duration
}

func (r *run) updateSome() {
	n := 1
	if r.chance(20) && !r.config.Linear { // more than go into one transaction
		most := 2 * min(r.limits.TxnRows, 30)
		if r.faults.latency > 100*time.Millisecond { // each name is looked up
			most = min(most, 12)
		}
		n += r.random.IntN(most)
	}
	of := r.any()
	for range n {
		r.update(of, n > 1)
	}
}

// update charges money that is spent already, once, wherever it is tried: at the
// same time, or, one of many, later.
func (r *run) update(of *product, many bool) {
	k := &keyedCharge{name: r.name("update"), cost: r.random.Int64N(200), call: r.now, returns: never}
	of.oracle.keyed = append(of.oracle.keyed, k)
	r.charging(of, k)
	for range r.random.IntN(3) {
		if many {
			r.after(r.between(time.Second, 20*time.Second), func() { r.charging(of, k) })
		} else {
			r.charging(of, k)
		}
	}
	if r.chance(10) {
		r.after(r.between(time.Second, 20*time.Second), func() { r.misuse(of, k) })
	}
}

// charging lets some process make an update.
func (r *run) charging(of *product, k *keyedCharge) {
	p := r.anybody()
	if p == nil {
		return
	}
	r.spawn(p, func() {
		if _, err := r.charge(p, of, k.name, k.cost, ledger.Once{Key: k.name}); err == nil {
			k.acked, k.returns = true, min(k.returns, r.now)
			r.count("update")
		}
	})
}

func (r *run) charge(p *process, of *product, name string, cost int64, once ledger.Once) (bool, error) {
	record := usage.Record{
		Kind: usage.KindUpdate, Charge: usage.Of(cost), CostNanoUSD: usage.Of(cost), UpstreamRequestID: usage.Text(name),
		PromptTokens: usage.Of(5), CompletionTokens: usage.Of(cost),
	}
	return p.ledger.Charge(context.Background(), r.product(p, of), record, once)
}

// misuse repeats the name of an update for another one.
func (r *run) misuse(of *product, k *keyedCharge) {
	p := r.anybody()
	if p == nil || !k.acked || r.calm {
		return
	}
	r.spawn(p, func() {
		_, err := r.charge(p, of, "misuse of "+k.name, 1_000_000, ledger.Once{Key: k.name, Body: "another"})
		if errors.Is(err, ledger.ErrOtherBody) {
			r.count("other body")
		} else if !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			r.violate("BODY", "%s was used for another charge: %v", k.name, err)
		}
	})
}

// amend lets an operator correct what was swept of a process that is gone.
func (r *run) amend(of *product) {
	p, id := r.anybody(), of.oracle.amendable()
	if p == nil || id == "" {
		return
	}
	truth := int64(0)
	if q := of.oracle.requests[id]; q != nil {
		truth = q.cost
	}
	of.oracle.amended[id] = true
	if other := r.anybody(); other != nil && r.chance(40) { // two operators
		r.after(r.between(0, time.Second), func() { r.amendOn(other, of, id, truth) })
	}
	r.amendOn(p, of, id, truth)
}

func (r *run) amendOn(p *process, of *product, id string, truth int64) {
	if p.dead {
		return
	}
	r.spawn(p, func() {
		amendment := ledger.Amendment{Charge: truth, CostNanoUSD: truth, By: "operator"}
		switch _, err := p.ledger.Amend(context.Background(), of.id, id, amendment); {
		case err == nil:
			r.count("amended")
			of.oracle.amendedSurely[id] = true
		case errors.Is(err, ledger.ErrNotSwept):
			r.count("amended too late")
		}
	})
}
