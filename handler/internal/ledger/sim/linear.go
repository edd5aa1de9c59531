package sim

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/costgate/costgate/handler/internal/usage"
)

// spent is what Balance shows: a number to which charges are added.
var spent = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		was := state.(int64) //nolint:forcetypeassert // the model's own
		if charge, ok := input.(int64); ok {
			return true, was + charge
		}
		return output.(int64) == was, was //nolint:forcetypeassert // as above
	},
}

const linearWait = 20 * time.Second // of the machine, for one history; it takes some milliseconds

// history is what callers did to one period, and when.
type history []porcupine.Operation

func (h *history) add(input, output any, call, returns time.Duration) {
	end := int64(math.MaxInt64)
	if returns < never {
		end = int64(returns)
	}
	*h = append(*h, porcupine.Operation{ClientId: len(*h), Input: input, Output: output, Call: int64(call), Return: end})
}

// linearizable looks for an order of all charges and reads that explains what
// was read, by what the callers were told and when. What nobody was told has
// happened by the time that the table had it.
func (o *oracle) linearizable(rows map[string]usage.Record) {
	r := o.run
	periods := map[string]*history{}
	in := func(period string) *history {
		if periods[period] == nil {
			periods[period] = new(history)
		}
		return periods[period]
	}
	for _, g := range r.reads {
		in(g.period).add(nil, g.spent, g.call, g.returns)
	}
	names := sorted(rows)
	for id := range o.swept {
		if _, ok := rows[id]; !ok {
			names = append(names, id) // given back before it was a record
		}
	}
	keyed := map[string]*keyedCharge{}
	for _, k := range o.keyed {
		keyed[k.name] = k
	}
	for _, id := range names {
		switch record, ok := rows[id]; {
		case !ok:
			o.charged(in(o.swept[id].period), id, 0)
		case record.Kind == usage.KindRequest:
			o.charged(in(string(record.Period)), id, record.Charge.N)
		case record.Kind == usage.KindUpdate:
			k := keyed[string(record.UpstreamRequestID)]
			in(string(record.Period)).add(k.cost, nil, max(k.call, o.settledAt[id]-longest), min(k.returns, o.settledAt[id]))
		}
	}
	for _, name := range sorted(periods) {
		r.count("histories")
		switch porcupine.CheckOperationsTimeout(spent, *periods[name], linearWait) {
		case porcupine.Illegal:
			r.violate("LINEAR", "no order explains the %d operations of %s", len(*periods[name]), name)
		case porcupine.Unknown:
			r.count("histories not decided")
		case porcupine.Ok:
		}
	}
}

// longest is for how long before the table had it a charge may have happened: a
// bound that keeps the number of charges at the same time small.
const longest = 2 * time.Second

// charged adds what a request did to its period: at the most a charge of its
// hold, by a reclaim, and a correction.
func (o *oracle) charged(h *history, id string, final int64) {
	since, until := time.Duration(0), never
	if q := o.requests[id]; q != nil && q.settled < never {
		since, until = q.settled, q.returns
	}
	if at, ok := o.settledAt[id]; ok {
		since, until = max(since, at-longest), min(until, at)
	}
	s := o.swept[id]
	switch {
	case s == nil && final != 0:
		h.add(final, nil, since, until)
	case s != nil:
		h.add(s.hold, nil, s.at, s.at)
		if s.hold != final {
			h.add(final-s.hold, nil, max(since, s.at), until)
		}
	}
}
