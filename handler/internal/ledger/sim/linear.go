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

const linearWait = 3 * time.Second // of the machine, for one history

// linearizable looks for an order of all charges and reads that explains what
// was read, by what the callers were told and when.
func (o *oracle) linearizable(rows map[string]usage.Record) {
	r := o.run
	periods := map[string][]porcupine.Operation{}
	add := func(period string, input, output any, call, returns time.Duration) {
		end := int64(math.MaxInt64)
		if returns < never {
			end = int64(returns)
		}
		periods[period] = append(periods[period], porcupine.Operation{ClientId: len(periods[period]), Input: input, Output: output, Call: int64(call), Return: end})
	}
	for _, g := range r.reads {
		add(g.period, nil, g.spent, g.call, g.returns)
	}
	seen := map[string]bool{}
	charge := func(id, period string, final int64) {
		seen[id] = true
		q := o.requests[id]
		from, since, until := time.Duration(0), time.Duration(0), never
		if q != nil {
			from, since, until = q.asked, q.settled, q.returns
		}
		hold, swept := o.swept[id]
		switch {
		case swept && hold != final: // corrected: two charges
			add(period, hold, nil, from, until)
			add(period, final-hold, nil, since, until)
		case swept:
			add(period, hold, nil, from, until)
		case final != 0:
			add(period, final, nil, since, until)
		}
	}
	for id, record := range rows {
		switch record.Kind {
		case usage.KindRequest:
			charge(id, string(record.Period), record.Charge.N)
		case usage.KindUpdate:
			k := r.keyed[string(record.UpstreamRequestID)]
			add(string(record.Period), k.cost, nil, k.call, k.returns)
		}
	}
	for id := range o.swept { // given back before it was a record
		if !seen[id] {
			return // its period is not known: this history is not judged
		}
	}
	for name, history := range periods {
		r.count("histories")
		switch porcupine.CheckOperationsTimeout(spent, history, linearWait) {
		case porcupine.Illegal:
			r.violate("LINEAR", "no order explains the %d operations of %s", len(history), name)
		case porcupine.Unknown:
			r.count("histories not decided")
		case porcupine.Ok:
		}
	}
}
