package sim

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// sorted are the keys of a map in an order that does not change.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// verdict is what must hold when everything is at rest.
func (r *run) verdict() {
	for _, p := range r.products {
		p.oracle.verdict()
	}
	for _, p := range r.all {
		for what, n := range p.ledger.Counters() {
			r.result.Counters[what] += n
		}
		for _, what := range []string{"assertion failed", "audit failed"} {
			if p.ledger.Counters()[what] > 0 {
				r.violate("ASSERT", "%s: %s", p.name, what)
			}
		}
	}
	r.last()
	for _, p := range r.products { // Verify and Unsent have changed nothing
		p.oracle.clean()
	}
	r.forget()
}

// clean: no lease, no list and no outbox is left, and nothing is committed that
// is not spent.
func (o *oracle) clean() {
	r := o.run
	for _, name := range sorted(o.periods) {
		s := o.periods[name]
		if s.leases != 0 || s.writeOffs != 0 {
			r.violate("REST", "%s: %d leases and %d write-offs are left", name, s.leases, s.writeOffs)
		}
		if s.committed != s.closed {
			r.violate("REST", "%s: committed %d, closed %d", name, s.committed, s.closed)
		}
	}
	rows := r.server.part(o.product.id).rows
	for _, name := range r.server.part(o.product.id).names {
		if unsettled(name) {
			r.trace("left: %s %v %v updated %v", name, rows[name].Ints, rows[name].Texts, rows[name].Updated.Sub(begin))
		}
		if strings.HasPrefix(name, "O.") {
			r.violate("REST", "the lake was not told of %s", name)
		}
	}
}

func (o *oracle) verdict() {
	r := o.run
	o.clean()
	rows, keyed := o.records()
	unrecorded := map[string]int64{}
	for _, id := range sorted(o.requests) {
		o.judge(id, o.requests[id], rows, unrecorded)
	}
	for _, id := range sorted(rows) {
		record := rows[id]
		switch {
		case record.Kind == usage.KindWriteOff:
			unrecorded[o.holders[id]] -= record.Charge.N
			r.count("write-off")
		case record.Kind == usage.KindRequest && o.requests[id] == nil && o.skipped[id] == nil && !o.amended[id] &&
			record.UsageSource != usage.Text(usage.SourceSwept) && record.Charge.N != 0:
			r.violate("RECORD", "%s costs %d, but was never forwarded", id, record.Charge.N)
		}
	}
	for _, name := range sorted(unrecorded) { // what a dead process had not listed
		if unrecorded[name] > 0 && !o.product.overruns {
			r.violate("SLACK", "%s: requests without a record cost %d more than was written off", name, unrecorded[name])
		}
	}
	for _, id := range sorted(o.skipped) {
		s := o.skipped[id]
		if record, ok := rows[id]; ok && !s.process.lost(s.at) && record.Charge.N != 0 {
			r.violate("VOID", "%s was never forwarded, and costs %d", id, record.Charge.N)
		}
	}
	for _, k := range o.keyed {
		if n := keyed[k.name]; n > 1 || (n == 0 && k.acked) {
			r.violate("UPDATE", "%s has %d records, acknowledged: %v", k.name, n, k.acked)
		}
		if keyed["misuse of "+k.name] > 0 && k.acked {
			r.violate("BODY", "%s was charged with another body", k.name)
		}
	}
	o.edited()
	o.counted()
	if r.config.Linear {
		o.linearizable(rows)
	}
}

// records reads the records, and counts those with a name of their own.
func (o *oracle) records() (rows map[string]usage.Record, keyed map[string]int) {
	r := o.run
	rows, keyed = map[string]usage.Record{}, map[string]int{}
	part := r.server.part(o.product.id)
	for _, name := range part.names {
		if !isUsage(name) {
			continue
		}
		var record usage.Record
		if err := json.Unmarshal([]byte(part.rows[name].Texts["Doc"]), &record); err != nil {
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
	return rows, keyed
}

// lost tells whether what a process had begun to end at a moment may be lost: it
// was killed, and had not drained since.
func (p *process) lost(ended time.Duration) bool { return p.dead && (!p.left || ended > p.leaves) }

func (o *oracle) judge(id string, q *request, rows map[string]usage.Record, unrecorded map[string]int64) {
	r := o.run
	record, ok := rows[id]
	lost := q.process.lost(q.settled)
	switch {
	case !ok && q.unlisted && lost && !q.acked:
		r.count("unlisted and lost")
	case !ok && o.product.overlap && lost && !q.acked:
		r.count("in a write-off")
		unrecorded[q.process.name] += min(q.cost, q.hold)
	case !ok:
		r.violate("RECORD", "%s has no record; its process %s dead=%v unlisted=%v acked=%v", id, q.process.name, q.process.dead, q.unlisted, q.acked)
	case record.UsageSource == usage.Text(usage.SourceSwept):
		r.count("swept")
		if !lost || q.acked {
			r.violate("SWEPT", "%s is swept, but its process %s dead=%v acked=%v", id, q.process.name, q.process.dead, q.acked)
		}
		if record.Charge.N != q.hold {
			r.violate("SWEPT", "%s is swept at %d, its hold was %d", id, record.Charge.N, q.hold)
		}
		if o.amendedSurely[id] {
			r.violate("AMEND", "%s was corrected, but is swept", id)
		}
	case q.revisedSurely && !q.revised:
		r.violate("REVISE", "%s was revised, and costs %d", id, record.Charge.N)
	case record.Charge.N != q.cost:
		r.violate("RECORD", "%s costs %d, its record says %d", id, q.cost, record.Charge.N)
	case q.acked && o.settledAt[id] > q.returns:
		r.violate("ACK", "%s was acknowledged at %v and recorded at %v", id, q.returns, o.settledAt[id])
	}
}

// edited: every edit that was acknowledged happened, one with a name once however
// often and with whatever body the name was used, and the running account has
// the budget that is configured.
func (o *oracle) edited() {
	r := o.run
	applied := map[string]int{}
	for _, name := range sorted(o.edits) {
		e := o.edits[name]
		if e.once.Key != "" {
			applied[e.once.Key] += e.applied
		}
		if e.acked && e.applied != 1 {
			r.violate("EDIT", "%s was acknowledged and happened %d times", name, e.applied)
		}
	}
	for _, key := range sorted(applied) {
		if applied[key] > 1 {
			r.violate("EDIT", "what is named %s happened %d times", key, applied[key])
		}
	}
	var p quota.Product
	if err := json.Unmarshal([]byte(r.server.part(o.product.id).rows["C"].Texts["Doc"]), &p); err != nil {
		r.violate("CONFIG", "%v", err)
		return
	}
	known, err := p.WindowAt(r.server.clock())
	if err != nil {
		r.violate("PERIOD", "%v", err)
		return
	}
	s := o.periods[known.Name]
	if s == nil || len(s.budgets) == 0 {
		return
	}
	if want := o.config[len(o.config)-1].budget + o.deposits[known.Name]; s.budget != want {
		r.violate("BUDGET", "%s has a budget of %d; configured and deposited are %d", known.Name, s.budget, want)
	}
}

// counted compares what the accounts count with the records.
func (o *oracle) counted() {
	type tally struct{ records, tokens, overruns, amended int64 }
	r, found := o.run, map[string]*tally{}
	part := r.server.part(o.product.id)
	for _, name := range part.names {
		e := part.rows[name]
		if !isUsage(name) || !usage.Kind(e.Texts["Kind"]).Spends() {
			continue
		}
		t := found[e.Texts["Period"]]
		if t == nil {
			t = new(tally)
			found[e.Texts["Period"]] = t
		}
		t.records++
		t.tokens += e.Ints["Tokens"]
		if q := o.requests[idOf(name)]; q != nil && !isSwept(e) && e.Ints["Charge"] > q.hold {
			t.overruns++
			if o.amended[idOf(name)] { // an operator's word, which the ledger need not count
				t.amended++
			}
		}
	}
	for _, name := range part.names {
		if !isAccount(name) {
			continue
		}
		n, want := part.rows[name].Ints, found[part.rows[name].Texts["Period"]]
		if want == nil {
			want = new(tally)
		}
		if n["Records"] != want.records || n["Tokens"] != want.tokens {
			r.violate("COUNT", "%s counts %d records and %d tokens, there are %d and %d", name, n["Records"], n["Tokens"], want.records, want.tokens)
		}
		if n["Overruns"] < want.overruns-want.amended || n["Overruns"] > want.overruns {
			r.violate("OVERRUNS", "%s counts %d overruns, there are %d", name, n["Overruns"], want.overruns)
		}
	}
}
