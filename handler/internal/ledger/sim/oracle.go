package sim

import (
	"encoding/json"
	"math"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// oracle knows what really happened to a product, and looks at its rows after
// every commit.
type oracle struct {
	run           *run
	product       *product
	periods       map[string]*sums
	requests      map[string]*request
	skipped       map[string]*skip         // never forwarded
	swept         map[string]*sweeping     // by request
	amended       map[string]bool          // somebody tried to
	amendedSurely map[string]bool          // and was told that it is done
	holders       map[string]string        // process by lease
	open          map[string]string        // the same, of leases that are open
	stopped       time.Duration            // since when the product is; never: it is not
	stopVersion   int64                    // of the configuration that stopped it
	stops         []span                   // when it was
	config        []budgetAt               // the configured budget
	edits         map[string]*edit         // by name
	deposits      map[string]int64         // to an account since its budget was set
	keyed         []*keyedCharge           // what was charged under a name
	settledAt     map[string]time.Duration // when the last word on a request was committed
}

type span struct{ from, to time.Duration }

type budgetAt struct {
	at     time.Duration
	budget int64
}

// skip is a request that got a hold and was never forwarded.
type skip struct {
	process *process
	at      time.Duration
}

// sweeping is what a reclaim charged for a request.
type sweeping struct {
	hold   int64
	period string
	at     time.Duration
}

// sums are of one period's rows.
type sums struct {
	committed, closed, budget int64
	granted, settled          int64
	listed, recorded, forced  int64
	exposure                  int64 // billed so far, and the holds of what runs
	excess                    int64 // of costs above holds
	running                   int64 // holds of what runs
	leases, writeOffs         int
	budgets                   []budgetAt
	left                      []budgetAt // of the budget, after every change
}

type request struct {
	process                 *process
	hold                    int64
	cost                    int64
	period                  string
	unlisted                bool // the store was away and the product is soft
	acked                   bool
	billed                  bool
	recorded                bool   // its true cost is in the books, or was
	stored                  string // a response that Azure keeps
	truth                   int64  // of a background request, charged at its hold first; its stored response tells it
	background, revised     bool
	revisedSurely           bool // somebody was told that it is done
	asked, settled, returns time.Duration
}

func newOracle(r *run, p *product) *oracle {
	return &oracle{
		run: r, product: p, periods: map[string]*sums{}, requests: map[string]*request{}, skipped: map[string]*skip{}, swept: map[string]*sweeping{},
		amended: map[string]bool{}, amendedSurely: map[string]bool{}, holders: map[string]string{}, open: map[string]string{}, stopped: never,
		edits: map[string]*edit{}, deposits: map[string]int64{}, settledAt: map[string]time.Duration{},
	}
}

func (o *oracle) period(name string) *sums {
	s := o.periods[name]
	if s == nil {
		s = new(sums)
		o.periods[name] = s
	}
	return s
}

// stopBound is the validity of what a process knows, with clocks that are off
// and the time of a step.
const stopBound = 5500 * time.Millisecond

// forward notes a request that goes upstream. Upstream bills it whatever becomes
// of the process.
func (o *oracle) forward(p *process, hold *ledger.Hold, cost int64, length time.Duration) *request {
	r := o.run
	id := hold.Record.ID
	q := &request{process: p, hold: hold.Amount, cost: cost, period: string(hold.Record.Period), returns: never, settled: never}
	q.unlisted = hold.Unlisted()
	if o.requests[id] != nil {
		r.violate("ID", "%s was forwarded twice", id)
	}
	o.requests[id] = q
	s := o.period(q.period)
	r.count("forwarded")
	r.trace("forward %s %s hold %d unlisted=%v", p.name, id, q.hold, q.unlisted)
	if q.unlisted {
		o.forwardUnlisted(p, id)
	} else {
		s.exposure += q.hold
		o.cover(q.period)
		o.afford(p, q.period, s)
		o.late(p)
	}
	r.after(length, func() {
		q.billed = true
		if !q.unlisted {
			s.exposure += min(q.cost, q.hold) - q.hold
		}
	})
	return q
}

// afford: no hard product runs more than its budget allows.
func (o *oracle) afford(p *process, name string, s *sums) {
	r, most := o.run, int64(0)
	for i, b := range s.budgets { // the highest in force in the last seconds
		if i == len(s.budgets)-1 || s.budgets[i+1].at > r.now-stopBound || p.thawed > r.now-2*stopBound {
			most = max(most, b.budget)
		}
	}
	if !o.product.soft && s.exposure > most+s.forced+o.allowance(s) {
		r.violate("OVERSPEND", "%s: %d of a budget of %d, %d forced", name, s.exposure, most, s.forced)
	}
}

// allowance is what may be missing because requests cost more than their holds:
// a write-off bounds what was not listed by holds.
func (o *oracle) allowance(s *sums) int64 {
	if o.product.overlap && o.product.overruns {
		return s.excess
	}
	return 0
}

// late: a stop counts within the validity of what was known.
func (o *oracle) late(p *process) {
	r := o.run
	if o.stopped == never || r.now <= o.stopped+stopBound {
		return
	}
	if p.thawed > o.stopped {
		r.count("forwarded in a frozen step")
		return
	}
	r.violate("STOP", "forwarded %v after the stop", r.now-o.stopped)
}

const softWait = 2500 * time.Millisecond // how long a soft product's request waits for the store

// forwardUnlisted: only a soft product does that, and not when its process has
// read that it is stopped.
func (o *oracle) forwardUnlisted(p *process, id string) {
	r := o.run
	r.count("soft unlisted")
	if !o.product.soft {
		r.violate("UNLISTED", "%s of a hard product has no intent", id)
	}
	k := p.known[o.product]
	if o.stopped < never && r.now > o.stopped+stopBound && k.stop == o.stopVersion && r.now > k.since+softWait && p.thawed < k.since {
		r.violate("STOP", "forwarded without the store %v after the stop, of which the process read %v ago", r.now-o.stopped, r.now-k.since)
	}
}

func (o *oracle) unforwarded(id string, p *process) { o.skipped[id] = &skip{p, o.run.now} }

// refused judges a refusal of a request that was made at a moment.
func (o *oracle) refused(p *process, refusal *ledger.Refusal, least int64, asked time.Duration) {
	r := o.run
	switch refusal.Reason {
	case ledger.ReasonStopped:
		if o.stopped < never && o.stopped > asked {
			r.count("stop during a wait")
		}
		// A soft product's stop may be of any age where the store does not answer.
		if !o.product.soft && !o.stoppedSince(asked-stopBound-p.blind(asked)) {
			r.violate("REFUSED", "%s: stopped, but the product was not", p.name)
		}
	case ledger.ReasonExhausted:
		if left := o.leastLeft(refusal.Window.Name, asked); o.product.soft || least <= left {
			r.violate("REFUSED", "%s says %s: exhausted, %d of at least %d were left since %v", p.name, refusal.Window.Name, least, left, asked)
		}
	case ledger.ReasonHeld:
		if o.product.soft {
			r.violate("REFUSED", "held, but the product is soft")
		}
	}
}

// blind is how long a process may have learnt nothing before a moment, because it
// was frozen or the store was away.
func (p *process) blind(at time.Duration) time.Duration {
	for _, until := range []time.Duration{p.thawed, p.cut, p.world.down} {
		if until > at-2*stopBound {
			return time.Minute
		}
	}
	return 0
}

func (o *oracle) stoppedSince(since time.Duration) bool {
	return o.stopped < never || len(o.stops) > 0 && o.stops[len(o.stops)-1].to >= since
}

// leastLeft is how little a budget had left in a period, at some moment since.
func (o *oracle) leastLeft(name string, since time.Duration) int64 {
	least := int64(math.MaxInt64)
	lowest := func(history []budgetAt) (whole bool) {
		for i := len(history) - 1; i >= 0; i-- {
			if least = min(least, history[i].budget); history[i].at <= since {
				return true
			}
		}
		return false
	}
	if s := o.periods[name]; s == nil || !lowest(s.left) {
		lowest(o.config) // there was no account yet
	}
	return least
}

// cover: what may have been spent is committed.
func (o *oracle) cover(name string) {
	if s := o.period(name); s.committed+o.allowance(s) < s.exposure {
		o.run.violate("S4", "%s: committed %d < exposure %d", name, s.committed, s.exposure)
	}
}

// committed looks at a transaction that has just happened.
func (o *oracle) committed(ops []ledger.Op, before []ledger.Entity) {
	r := o.run
	touched := newNames()
	forced := map[string]int64{}
	for name, s := range o.periods {
		forced[name] = s.forced
	}
	for i, op := range ops {
		o.change(before[i], -1, touched)
		if op.Kind != ledger.Delete {
			o.change(op.Entity, 1, touched)
		}
		o.sweeps(op.Entity)
	}
	for i, op := range ops {
		switch row := op.Entity.Row; {
		case op.Kind == ledger.Delete:
		case isAccount(row):
			o.account(op.Entity, before[i], forced, o.lateOverrun(ops))
		case isLease(row) && op.Kind == ledger.Insert:
			o.holders[idOf(row)] = op.Entity.Texts["Instance"]
		case isUsage(row):
			o.record(op.Entity, before[i])
		}
	}
	o.configured(ops, before)
	o.cunning(ops, before)
	for _, name := range touched.order {
		s := o.period(name)
		if s.committed != s.closed+s.granted {
			r.violate("S1", "%s: committed %d, closed %d + granted %d", name, s.committed, s.closed, s.granted)
		}
		if s.recorded+s.listed != s.closed+s.settled {
			r.violate("S2", "%s: records %d + listed %d, closed %d + settled %d", name, s.recorded, s.listed, s.closed, s.settled)
		}
		if left := s.budget - s.closed - s.settled; len(s.budgets) > 0 && (len(s.left) == 0 || s.left[len(s.left)-1].budget != left) {
			s.left = append(s.left, budgetAt{r.now, left})
		}
		o.cover(name)
	}
}

// names is a set in the order in which it grew.
type names struct {
	has   map[string]bool
	order []string
}

func newNames() *names { return &names{has: map[string]bool{}} }

func (n *names) add(name string) {
	if !n.has[name] {
		n.has[name] = true
		n.order = append(n.order, name)
	}
}

// account: it is above its budget by no more than what this transaction found
// spent.
func (o *oracle) account(e, was ledger.Entity, forced map[string]int64, late int64) {
	r, name := o.run, e.Texts["Period"]
	s := o.period(name)
	if n := len(s.budgets); n == 0 || s.budgets[n-1].budget != e.Ints["Budget"] {
		s.budgets = append(s.budgets, budgetAt{r.now, e.Ints["Budget"]})
	}
	if e.Ints["Pressure"] > was.Ints["Pressure"] {
		r.count("pressed")
	}
	if s.committed <= was.Ints["Committed"] || s.committed <= s.budget {
		return
	}
	r.count("forced above the budget")
	if o.product.soft {
		return
	}
	if spent := max(late, s.forced-forced[name]); s.committed-max(was.Ints["Committed"], s.budget) > spent {
		r.violate("GRANT", "%s: committed rose from %d to %d of %d, %d forced", name, was.Ints["Committed"], s.committed, s.budget, spent)
	}
}

// lateOverrun is what a transaction adds for a request of which the books had
// nothing: neither intent nor write-off.
func (o *oracle) lateOverrun(ops []ledger.Op) (charge int64) {
	for _, op := range ops {
		switch row := op.Entity.Row; {
		case isUsage(row) && op.Kind == ledger.Insert && op.Entity.Texts["Kind"] == string(usage.KindRequest):
			charge += op.Entity.Ints["Charge"]
		case isUsage(row) && op.Kind == ledger.Replace, !isUsage(row) && !isAccount(row) && unsettled(row) && row[0] != 'O':
			return 0
		}
	}
	return charge
}

// record notes when the truth of a request is in the books.
func (o *oracle) record(e, was ledger.Entity) {
	if o.revision(e, was) {
		return
	}
	if usage.Kind(e.Texts["Kind"]).Spends() && !isSwept(e) {
		o.settledAt[idOf(e.Row)] = o.run.now
	}
	if e.Texts["Kind"] != string(usage.KindRequest) || isSwept(e) {
		return
	}
	id, r := idOf(e.Row), o.run
	if was.Row != "" {
		r.count("corrected record")
	}
	q := o.requests[id]
	if q == nil || q.recorded {
		return
	}
	q.recorded = true
	s, charge := o.period(q.period), e.Ints["Charge"]
	switch {
	case q.unlisted:
		s.exposure += charge
	case charge > q.hold:
		r.count("overrun")
		s.exposure += charge - q.hold
		s.excess += charge - q.hold
	}
}

// revision notes that the truth about a background request has replaced its hold.
func (o *oracle) revision(e, was ledger.Entity) bool {
	q := o.requests[idOf(e.Row)]
	if q == nil || !q.background || !q.recorded || was.Row == "" || e.Texts["Source"] != string(usage.SourceProvider) {
		return false
	}
	r, s, charge := o.run, o.period(q.period), e.Ints["Charge"]
	if q.revised || charge != q.truth {
		r.violate("REVISE", "%s is revised to %d (again: %v), but cost %d", idOf(e.Row), charge, q.revised, q.truth)
	}
	r.count("revised record")
	s.exposure += charge - was.Ints["Charge"]
	s.excess += max(0, charge-q.hold)
	q.revised, q.cost = true, charge
	return true
}

// sweeps notes what a reclaim charged.
func (o *oracle) sweeps(e ledger.Entity) {
	note := func(id string, hold int64) {
		if o.swept[id] == nil {
			o.swept[id] = &sweeping{hold, e.Texts["Period"], o.run.now}
		}
	}
	switch {
	case isUsage(e.Row) && isSwept(e) && e.Texts["Kind"] == string(usage.KindRequest):
		note(idOf(e.Row), e.Ints["Charge"])
	case unsettled(e.Row) && !isLease(e.Row) && e.Texts["Intents00"] != "":
		var list struct {
			Intents []struct {
				ID   string `json:"d"`
				Hold int64  `json:"h"`
			} `json:"i"`
		}
		if json.Unmarshal([]byte(e.Texts["Intents00"]), &list) == nil {
			for _, in := range list.Intents {
				note(in.ID, in.Hold)
			}
		}
	}
}

func (o *oracle) change(e ledger.Entity, sign int64, touched *names) {
	period := e.Texts["Period"]
	switch {
	case isUsage(e.Row):
		if usage.Kind(e.Texts["Kind"]).Spends() {
			s := o.period(period)
			s.recorded += sign * e.Ints["Charge"]
			s.forced += sign * o.forcedBy(e)
			touched.add(period)
		}
	case isTotal(e.Row):
		o.period(period).recorded += sign * e.Ints["Charge"]
		touched.add(period)
	case isAccount(e.Row):
		s := o.period(period)
		s.committed += sign * e.Ints["Committed"]
		s.closed += sign * e.Ints["Closed"]
		s.budget += sign * e.Ints["Budget"]
		touched.add(period)
	case isLease(e.Row):
		s := o.period(period)
		s.leases += int(sign)
		delete(o.open, idOf(e.Row))
		if e.Ints["Closed"] == 0 {
			s.granted += sign * e.Ints["Granted"]
			s.settled += sign * e.Ints["Settled"]
			if sign > 0 {
				o.open[idOf(e.Row)] = e.Texts["Instance"]
			}
		}
		touched.add(period)
	case unsettled(e.Row) && e.Row[0] == 'S':
		s := o.period(period)
		s.writeOffs += int(sign)
		s.listed += sign * e.Ints["Rest"]
		touched.add(period)
	}
}

// forcedBy is what of a record was spent without having been held.
func (o *oracle) forcedBy(e ledger.Entity) int64 {
	charge := e.Ints["Charge"]
	switch {
	case e.Texts["Kind"] == string(usage.KindUpdate):
		return charge
	case e.Texts["Kind"] != string(usage.KindRequest) || isSwept(e):
		return 0
	}
	q := o.requests[idOf(e.Row)]
	switch {
	case q == nil:
		return 0
	case q.unlisted:
		return charge
	}
	return max(0, charge-q.hold)
}

// configured judges what a transaction does to budgets and to the configuration:
// what an edit asked for, once, and nothing else.
func (o *oracle) configured(ops []ledger.Op, before []ledger.Entity) {
	r := o.run
	e := o.editIn(ops)
	was, is, config := quota.Product{}, quota.Product{}, false
	for i, op := range ops {
		if op.Entity.Row != "C" {
			continue
		}
		config = true
		if err := json.Unmarshal([]byte(op.Entity.Texts["Doc"]), &is); err != nil {
			r.violate("CONFIG", "%v", err)
			return
		}
		if op.Kind == ledger.Insert {
			was = is
			o.config = append(o.config, budgetAt{r.now, is.Budget})
			continue
		}
		if err := json.Unmarshal([]byte(before[i].Texts["Doc"]), &was); err != nil {
			r.violate("CONFIG", "%v", err)
			return
		}
		if e == nil && op.Entity.Texts["Doc"] != before[i].Texts["Doc"] {
			r.violate("CONFIG", "the configuration was changed by no edit")
		}
	}
	if e != nil {
		o.applied(e, &was, &is)
	}
	gained := int64(0)
	for i, op := range ops {
		if !isAccount(op.Entity.Row) {
			continue
		}
		name, budget := op.Entity.Texts["Period"], op.Entity.Ints["Budget"]
		from := before[i].Ints["Budget"]
		if op.Kind == ledger.Insert {
			if from = was.Budget; !config {
				from = o.config[len(o.config)-1].budget
				r.violate("BUDGET", "%s began without a look at the configuration", name)
			}
		}
		switch {
		case e != nil && e.kind == editDeposit:
			gained += budget - from
			o.deposits[name] += budget - from
		case e != nil && e.kind == editBudget && (budget == e.amount || budget == from):
			if budget == e.amount {
				o.deposits[name] = 0
			}
		case budget != from:
			r.violate("BUDGET", "%s: the budget went from %d to %d", name, from, budget)
		}
	}
	if e != nil && e.kind == editDeposit && gained != e.amount {
		r.violate("BUDGET", "a deposit of %d added %d", e.amount, gained)
	}
}

// editIn is the edit that a transaction makes, by its name in the history.
func (o *oracle) editIn(ops []ledger.Op) *edit {
	for _, op := range ops {
		if !isUsage(op.Entity.Row) || op.Kind != ledger.Insert {
			continue
		}
		switch usage.Kind(op.Entity.Texts["Kind"]) {
		case usage.KindDeposit, usage.KindConfig, usage.KindStop, usage.KindLift, usage.KindAlert:
			var record usage.Record
			if json.Unmarshal([]byte(op.Entity.Texts["Doc"]), &record) == nil {
				if e := o.edits[string(record.RequestID)]; e != nil {
					return e
				}
			}
		}
	}
	return nil
}

// applied judges one edit that has just happened.
func (o *oracle) applied(e *edit, was, is *quota.Product) {
	r := o.run
	if e.applied++; e.applied > 1 {
		r.violate("EDIT", "%s happened %d times", e.name, e.applied)
	}
	budget := was.Budget
	if e.kind == editBudget {
		budget = e.amount
	}
	if is.Budget != budget {
		r.violate("EDIT", "%s: the budget went from %d to %d", e.name, was.Budget, is.Budget)
	}
	stopped := was.Stop != nil
	switch e.kind {
	case editStop, editAlert:
		stopped = true
	case editLift:
		stopped = false
	}
	if (is.Stop != nil) != stopped {
		r.violate("EDIT", "%s: stopped is %v", e.name, is.Stop != nil)
	}
	if is.Budget != was.Budget {
		o.config = append(o.config, budgetAt{r.now, is.Budget})
	}
	switch {
	case is.Stop == nil && o.stopped < never:
		o.stops = append(o.stops, span{o.stopped, r.now})
		o.stopped = never
	case is.Stop != nil && o.stopped == never:
		o.stopped, o.stopVersion = r.now, is.Version
	}
}

// cunning counts what is rare in a transaction, and has to happen.
func (o *oracle) cunning(ops []ledger.Op, before []ledger.Entity) {
	r, rows, lease, spilled := o.run, 0, false, false
	for i, op := range ops {
		row := op.Entity.Row
		switch {
		case isLease(row):
			lease = true
		case isUsage(row):
			rows++
			if e := op.Entity; op.Kind == ledger.Replace && e.Texts["Kind"] == string(usage.KindWriteOff) && e.Ints["Charge"] < before[i].Ints["Charge"] {
				r.count("write-off reduced")
			}
		case row[0] == 'O' && op.Kind == ledger.Insert:
			spilled = true
			rows++
		case !isAccount(row) && row != "C":
			rows++
		}
	}
	if lease && spilled {
		r.count("unsent spill")
	}
	if lease && rows > r.limits.TxnRows-2 {
		r.count("batch full")
	}
}
