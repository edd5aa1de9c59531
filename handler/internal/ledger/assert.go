package ledger

import (
	"fmt"
	"strings"

	"github.com/costgate/costgate/handler/internal/usage"
)

// moved is what a transaction does to the money of one period.
type moved struct{ committed, closed, granted, settled, recorded, listed int64 }

// checkMoney holds a transaction against the invariants of docs/ACCOUNTING.md,
// as its rows tell it: before are the rows that it replaces or deletes, forced
// is money already spent, which may take Committed above Budget, and a soft
// product has no limit. It trusts nothing that the composer remembers.
func checkMoney(before []Entity, ops []Op, forced int64, soft bool) error {
	periods := map[string]*moved{}
	in := func(period string) *moved {
		if periods[period] == nil {
			periods[period] = new(moved)
		}
		return periods[period]
	}
	for i := range ops {
		after := &ops[i].Entity
		if !movesMoney(after.Row) {
			continue
		}
		was := Entity{}
		if ops[i].Kind != Insert {
			at := 0
			for at < len(before) && before[at].Row != after.Row {
				at++
			}
			if at == len(before) {
				return fmt.Errorf("BUG: %s is changed without having been read", after.Row)
			}
			was = before[at]
			in(periodOf(&was)).add(&was, -1)
		}
		if ops[i].Kind == Delete {
			continue
		}
		in(periodOf(after)).add(after, 1)
		if err := checkRow(&was, after, forced, soft); err != nil {
			return err
		}
	}
	for period, m := range periods {
		if m.committed != m.closed+m.granted {
			return fmt.Errorf("BUG: %s: committed changes by %d, closed by %d and granted by %d", period, m.committed, m.closed, m.granted)
		}
		if m.recorded+m.listed != m.closed+m.settled {
			return fmt.Errorf("BUG: %s: records change by %d and lists by %d, closed by %d and settled by %d", period, m.recorded, m.listed, m.closed, m.settled)
		}
	}
	return nil
}

// checkRow holds one row against what must be true of it alone.
func checkRow(was, is *Entity, forced int64, soft bool) error {
	n := is.Ints
	switch kind, _, _ := splitBooksRow(is.Row); kind {
	case "A":
		// Closed is below zero after a revision that took back more than what is
		// closed: the lease that the record was charged to is still open.
		if n["Committed"] < n["Closed"] || n["Committed"] < 0 {
			return fmt.Errorf("BUG: %s: committed %d, closed %d", is.Row, n["Committed"], n["Closed"])
		}
		if over := n["Committed"] - max(was.Ints["Committed"], n["Budget"]); over > forced && !soft {
			return fmt.Errorf("BUG: %s: committed goes from %d to %d of %d, %d of it spent already", is.Row, was.Ints["Committed"], n["Committed"], n["Budget"], forced)
		}
	case "L":
		if n["Closed"] == 0 && (n["Settled"] < 0 || n["Slack"] < 0 || n["Granted"] < n["Settled"]+n["Held"]+n["Slack"]) {
			return fmt.Errorf("BUG: %s: granted %d < settled %d + held %d + slack %d", is.Row, n["Granted"], n["Settled"], n["Held"], n["Slack"])
		}
	case "T":
		if n["Charge"] < was.Ints["Charge"] || n["Records"] < was.Ints["Records"] {
			return fmt.Errorf("BUG: %s: a total shrinks", is.Row)
		}
	case "":
		if r := was.Ints["Rev"]; n["Rev"] != r+1 {
			return fmt.Errorf("BUG: %s: revision %d follows %d", is.Row, n["Rev"], r)
		}
	}
	return nil
}

func movesMoney(row string) bool {
	return strings.HasPrefix(row, prefixAccount) || strings.HasPrefix(row, prefixUsage)
}

func periodOf(e *Entity) string {
	if _, period, _ := splitBooksRow(e.Row); period != "" {
		return period
	}
	return e.Texts["Period"]
}

func (m *moved) add(e *Entity, sign int64) {
	n := e.Ints
	switch kind, _, _ := splitBooksRow(e.Row); {
	case kind == "A":
		m.committed += sign * n["Committed"]
		m.closed += sign * n["Closed"]
	case kind == "L" && n["Closed"] == 0:
		m.granted += sign * n["Granted"]
		m.settled += sign * n["Settled"]
	case kind == "W":
		m.listed += sign * n["Rest"]
	case kind == "T":
		m.recorded += sign * n["Charge"]
	case kind == "" && usage.Kind(e.Texts["Kind"]).Spends():
		m.recorded += sign * n["Charge"]
	}
}

// sound checks a transaction before it is sent. A product whose books it would
// break is refused from then on, until the process is restarted.
func (l *Ledger) sound(product string, before []Entity, ops []Op, forced int64) error {
	err := checkMoney(before, ops, forced, false)
	if err != nil && l.options.Mutant == "" { // a mutant's mistakes shall reach the store
		l.breakProduct(product, err)
		return final(err)
	}
	return nil
}

func (l *Ledger) breakProduct(product string, err error) {
	l.counters.add("assertion failed")
	if _, known := l.broken.LoadOrStore(product, err); !known {
		l.log.Error("an assertion of the ledger failed; this product is refused until the process is restarted", "product_id", product, "error", err)
	}
}

// brokenBy is the assertion that failed for a product, or nil.
func (l *Ledger) brokenBy(product string) error {
	if err, ok := l.broken.Load(product); ok {
		return err.(error) //nolint:forcetypeassert // nothing else is stored
	}
	return nil
}
