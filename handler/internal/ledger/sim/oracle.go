package sim

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// oracle knows what really happened, and looks at the rows after every commit.
type oracle struct {
	run      *run
	periods  map[string]*sums
	requests map[string]*request
	skipped  map[string]*process // never forwarded
	swept    map[string]int64    // what a reclaim charged for a request, by its id
	holders  map[string]string   // process by lease
	stopped  time.Duration       // since when the product is; never: it is not
	budgets  map[string][]budgetAt
}

type budgetAt struct {
	at     time.Duration
	budget int64
}

// sums are of one period's rows.
type sums struct {
	committed, closed, budget int64
	granted, settled          int64
	listed, recorded, forced  int64
	exposure                  int64 // billed so far, and the holds of what runs
	leases, writeOffs         int
}

type request struct {
	process                 *process
	hold                    int64
	cost                    int64
	period                  string
	acked                   bool
	billed                  bool
	asked, settled, returns time.Duration
}

func newOracle(r *run) *oracle {
	return &oracle{run: r, periods: map[string]*sums{}, requests: map[string]*request{}, skipped: map[string]*process{}, swept: map[string]int64{}, holders: map[string]string{}, stopped: never, budgets: map[string][]budgetAt{}}
}

func (o *oracle) period(name string) *sums {
	s := o.periods[name]
	if s == nil {
		s = new(sums)
		o.periods[name] = s
	}
	return s
}

// forward notes a request that goes upstream. Upstream bills it whatever becomes
// of the process.
func (o *oracle) forward(p *process, hold *ledger.Hold, cost int64, length time.Duration) *request {
	r := o.run
	q := &request{process: p, hold: hold.Amount, cost: cost, period: string(hold.Record.Period)}
	if o.requests[hold.Record.ID] != nil {
		r.violate("ID", "%s was forwarded twice", hold.Record.ID)
	}
	o.requests[hold.Record.ID] = q
	s := o.period(q.period)
	s.exposure += q.hold
	r.count("forwarded")
	r.trace("forward %s %s hold %d", p.name, hold.Record.ID, q.hold)
	o.cover(q.period)
	most := int64(0)
	for i, b := range o.budgets[q.period] { // the highest in force in the last seconds
		if i == len(o.budgets[q.period])-1 || o.budgets[q.period][i+1].at > r.now-stopBound || p.thawed > r.now-2*stopBound {
			most = max(most, b.budget)
		}
	}
	if s.exposure > most+s.forced {
		r.violate("OVERSPEND", "%s: %d of a budget of %d, %d forced", q.period, s.exposure, most, s.forced)
	}
	if r.now > o.stopped+stopBound {
		if p.thawed > o.stopped {
			r.count("forwarded in a frozen step")
		} else {
			r.violate("STOP", "forwarded %v after the stop", r.now-o.stopped)
		}
	}
	r.after(length, func() {
		q.billed = true
		s.exposure += q.cost - q.hold
	})
	return q
}

// stopBound is the validity of what a process knows, with clocks that are off
// and the time of a step.
const stopBound = 5500 * time.Millisecond

func (o *oracle) unforwarded(id string, p *process) { o.skipped[id] = p }

// committed looks at a transaction that has just happened.
func (o *oracle) committed(partition string, ops []ledger.Op, before []ledger.Entity) {
	r := o.run
	if !strings.HasPrefix(partition, quota.ProductPrefix) {
		return
	}
	touched, forced, risen := map[string]bool{}, map[string]int64{}, map[string]int64{}
	for name, s := range o.periods {
		forced[name] = s.forced
	}
	opened, openedBudget := false, int64(-1)
	for i, op := range ops {
		o.change(before[i], -1, touched)
		if op.Kind != ledger.Delete {
			o.change(op.Entity, 1, touched)
		}
		if op.Entity.Row == "C" && op.Kind == ledger.Replace {
			o.config(op.Entity)
		}
		if strings.HasSuffix(op.Entity.Row, ".A") {
			name := op.Entity.Texts["Period"]
			b := o.budgets[name]
			if len(b) == 0 || b[len(b)-1].budget != op.Entity.Ints["Budget"] {
				o.budgets[name] = append(b, budgetAt{r.now, op.Entity.Ints["Budget"]})
			}
			risen[name] = before[i].Ints["Committed"]
			if op.Kind == ledger.Insert {
				openedBudget = op.Entity.Ints["Budget"]
			}
		}
		if strings.Contains(op.Entity.Row, ".L.") && op.Kind == ledger.Insert {
			opened = true
			o.holders[strings.SplitN(op.Entity.Row, ".L.", 2)[1]] = op.Entity.Texts["Instance"]
		}
		o.sweeps(op.Entity)
	}
	if opened && openedBudget >= 0 {
		var p quota.Product
		if err := json.Unmarshal([]byte(r.server.part(partition).rows["C"].Texts["Doc"]), &p); err != nil || p.Budget != openedBudget {
			r.violate("BUDGET", "a period began with a budget of %d, the product has %d", openedBudget, p.Budget)
		}
	}
	for name, was := range risen { // above the budget by no more than what this transaction found spent
		if s := o.period(name); s.committed > was && s.committed > s.budget && s.committed-max(was, s.budget) > s.forced-forced[name] {
			r.violate("GRANT", "%s: committed rose from %d to %d of %d, %d forced", name, was, s.committed, s.budget, s.forced-forced[name])
		}
	}
	for name := range touched {
		s := o.period(name)
		if s.committed != s.closed+s.granted {
			r.violate("S1", "%s: committed %d, closed %d + granted %d", name, s.committed, s.closed, s.granted)
		}
		if s.recorded+s.listed != s.closed+s.settled {
			r.violate("S2", "%s: records %d + listed %d, closed %d + settled %d", name, s.recorded, s.listed, s.closed, s.settled)
		}
		o.cover(name)
	}
}

// sweeps notes what a reclaim charged.
func (o *oracle) sweeps(e ledger.Entity) {
	switch {
	case isUsage(e.Row) && e.Texts["Source"] == string(usage.SourceSwept) && e.Texts["Kind"] == string(usage.KindRequest):
		var record usage.Record
		if json.Unmarshal([]byte(e.Texts["Doc"]), &record) == nil {
			o.swept[record.ID] = record.Charge.N
		}
	case strings.Contains(e.Row, ".W."):
		var list struct {
			Intents []struct {
				ID   string `json:"d"`
				Hold int64  `json:"h"`
			} `json:"i"`
		}
		if json.Unmarshal([]byte(e.Texts["Intents00"]), &list) == nil {
			for _, in := range list.Intents {
				o.swept[in.ID] = in.Hold
			}
		}
	}
}

// cover: what may have been spent is committed.
func (o *oracle) cover(name string) {
	if s := o.period(name); s.committed < s.exposure {
		o.run.violate("S4", "%s: committed %d < exposure %d", name, s.committed, s.exposure)
	}
}

func (o *oracle) change(e ledger.Entity, sign int64, touched map[string]bool) {
	period := e.Texts["Period"]
	s := o.period(period)
	switch {
	case isUsage(e.Row):
		if usage.Kind(e.Texts["Kind"]).Spends() {
			s.recorded += sign * e.Ints["Charge"]
			if e.Texts["Kind"] == string(usage.KindUpdate) {
				s.forced += sign * e.Ints["Charge"]
			}
			touched[period] = true
		}
	case strings.HasSuffix(e.Row, ".A"):
		s.committed += sign * e.Ints["Committed"]
		s.closed += sign * e.Ints["Closed"]
		s.budget += sign * e.Ints["Budget"]
		touched[period] = true
	case strings.Contains(e.Row, ".L."):
		s.leases += int(sign)
		if e.Ints["Closed"] == 0 {
			s.granted += sign * e.Ints["Granted"]
			s.settled += sign * e.Ints["Settled"]
		}
		touched[period] = true
	case strings.Contains(e.Row, ".W."):
		s.writeOffs += int(sign)
		s.listed += sign * e.Ints["Rest"]
		touched[period] = true
	}
}

func (o *oracle) config(e ledger.Entity) {
	var p quota.Product
	if json.Unmarshal([]byte(e.Texts["Doc"]), &p) != nil {
		return
	}
	switch {
	case p.Stop == nil:
		o.stopped = never
	case o.stopped == never:
		o.stopped = o.run.now
	}
}

// verdict is what must hold when everything is at rest.
func (r *run) verdict() {
	if r.product == nil {
		return
	}
	o := r.oracle
	for name, s := range o.periods {
		if s.leases != 0 || s.writeOffs != 0 {
			r.violate("REST", "%s: %d leases and %d write-offs are left", name, s.leases, s.writeOffs)
		}
		if s.committed != s.closed {
			r.violate("REST", "%s: committed %d, closed %d", name, s.committed, s.closed)
		}
	}
	for name, e := range r.server.part(r.product.ID).rows {
		if strings.Contains(name, ".L.") {
			r.trace("left: %s %v %v updated %v", name, e.Ints, e.Texts, e.Updated.Sub(begin))
		}
	}
	rows := map[string]usage.Record{}
	keyed := map[string]int{}
	for name, e := range r.server.part(r.product.ID).rows {
		if !isUsage(name) {
			continue
		}
		var record usage.Record
		if err := json.Unmarshal([]byte(e.Texts["Doc"]), &record); err != nil {
			r.violate("RECORD", "%v", err)
			continue
		}
		rows[record.ID] = record
		if record.Kind == usage.KindUpdate {
			keyed[string(record.UpstreamRequestID)]++
		}
		if r.lake[record.ID] != record.Rev {
			r.violate("LAKE", "record %s has revision %d, the lake has %d", record.ID, record.Rev, r.lake[record.ID])
		}
	}
	unrecorded := map[string]int64{}
	for id, q := range o.requests {
		o.judge(id, q, rows, unrecorded)
	}
	for id, record := range rows {
		if record.Kind == usage.KindWriteOff {
			unrecorded[o.holders[id]] -= record.Charge.N
			r.count("write-off")
		}
	}
	for name, missing := range unrecorded { // what a dead process had not listed
		if missing > 0 {
			r.violate("SLACK", "%s: requests without a record cost %d more than was written off", name, missing)
		}
	}
	if r.config.Linear {
		o.linearizable(rows)
	}
	for id, p := range o.skipped {
		if record, ok := rows[id]; ok && !p.dead && record.Charge.N != 0 {
			r.violate("VOID", "%s was never forwarded, and costs %d", id, record.Charge.N)
		}
	}
	for name, k := range r.keyed {
		if n := keyed[name]; n > 1 || (n == 0 && k.acked) {
			r.violate("UPDATE", "%s has %d records, acknowledged: %v", name, n, k.acked)
		}
	}
	for id, record := range rows {
		if record.Kind == usage.KindRequest && o.requests[id] == nil && o.skipped[id] == nil && record.UsageSource != usage.Text(usage.SourceSwept) && record.Charge.N != 0 {
			r.violate("RECORD", "%s costs %d, but was never forwarded", id, record.Charge.N)
		}
	}
	for _, p := range r.all {
		for what, n := range p.ledger.Counters() {
			r.result.Counters[what] += n
			if what == "assertion failed" || what == "audit failed" {
				r.violate("ASSERT", "%s: %s", p.name, what)
			}
		}
	}
	live := r.processes[0]
	r.spawn(live, func() {
		differences, err := live.ledger.Verify(context.Background(), r.product.ID)
		if err != nil || len(differences) > 0 {
			r.violate("VERIFY", "%v %v", differences, err)
		}
	})
	r.until(r.now + 10*time.Second)
}

func (o *oracle) judge(id string, q *request, rows map[string]usage.Record, unrecorded map[string]int64) {
	r := o.run
	record, ok := rows[id]
	switch {
	case !ok && r.overlap && q.process.dead:
		r.count("in a write-off")
		unrecorded[q.process.name] += q.cost
	case !ok:
		r.violate("RECORD", "%s has no record; its process %s dead=%v", id, q.process.name, q.process.dead)
	case record.UsageSource == usage.Text(usage.SourceSwept):
		r.count("swept")
		if !q.process.dead || q.acked {
			r.violate("SWEPT", "%s is swept, but its process %s dead=%v acked=%v", id, q.process.name, q.process.dead, q.acked)
		}
		if record.Charge.N != q.hold {
			r.violate("SWEPT", "%s is swept at %d, its hold was %d", id, record.Charge.N, q.hold)
		}
	case record.Charge.N != q.cost:
		r.violate("RECORD", "%s costs %d, its record says %d", id, q.cost, record.Charge.N)
	}
}
