// Package audit compares the lake with the ledger: whether every record arrived,
// as it is in the books, and whether their sums agree to the nano-dollar.
//
// It reads both sides whole, in memory proportional to the number of records
// (about 250 bytes each). It changes nothing.
package audit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/usage"
)

// FindingsMax is how many findings a report tells one by one.
const FindingsMax = 1000

// Books is what is read of the ledger.
type Books interface {
	EachRecord(ctx context.Context, productID string, visit func(usage.Record) error) error
	// Waiting are records that the lake has not acknowledged yet, and the sums of
	// records that are not kept any more.
	Waiting(ctx context.Context, productID string) (ids map[string]bool, totals []ledger.Total, err error)
}

// Line is a line of the lake, or an event of a Capture file.
type Line struct {
	File   string
	Number int64  // from 1; 0: the file as a whole
	Record []byte // JSON, valid during the call
	Broken string // why there is no record; empty if there is one
}

func (l *Line) place() string { return fmt.Sprintf("%s:%d", l.File, l.Number) }

// Lake calls visit for every line of the lake. Records may come more than once,
// and in any order.
type Lake func(visit func(Line)) error

// Finding is a difference.
type Finding struct {
	Product string `json:"product_id"`
	Period  string `json:"period,omitempty"`
	ID      string `json:"id,omitempty"`
	What    string `json:"what"`
}

// Report is what a comparison found. The sums are of the records that carry
// cost: if nothing is found, what the lake's records cost and what waits are
// what the ledger's cost.
type Report struct {
	Products int   `json:"products"`
	Records  int64 `json:"records"`  // that the ledger keeps
	Deleted  int64 `json:"deleted"`  // records with cost of which it keeps only the sum
	Lines    int64 `json:"lines"`    // of the lake, with records of these products
	Distinct int64 `json:"distinct"` // records of the lake
	// Doubled are lines that repeat one, which at-least-once allows.
	Doubled int64 `json:"doubled"`
	// Broken are lines and events that are no records, and files whose rest cannot
	// be read.
	Broken int64 `json:"broken"`
	// Waiting are records of the ledger that the lake lacks, or has in an earlier
	// revision only, and that are still to be sent: no differences.
	Waiting int64 `json:"waiting"`

	CostNanoUSD        int64 `json:"cost_nano_usd"`         // of the lake's records
	LedgerCostNanoUSD  int64 `json:"ledger_cost_nano_usd"`  // of the ledger's, the deleted ones included
	WaitingCostNanoUSD int64 `json:"waiting_cost_nano_usd"` // that the lake lacks by what is waiting

	// Findings are differences, FindingsMax at most; More is how many more there are.
	Findings []Finding `json:"findings"`
	More     int64     `json:"more"`
}

// arrived is a record of the lake.
type arrived struct {
	product string
	period  string
	rev     int
	hash    [16]byte
	spends  bool
	charge  int64
	cost    int64
	tokens  int64
	kept    bool // the ledger has it too
	clash   bool // the lake has another one of the same id and revision
}

// Compare compares the records of some products with the lake. Records of other
// products are passed over, unless products are all that there are.
func Compare(ctx context.Context, books Books, products []string, all bool, lake Lake) (*Report, error) {
	r := &Report{Products: len(products), Findings: []Finding{}}
	wanted := map[string]bool{}
	for _, id := range products {
		wanted[id] = true
	}
	lines := map[string]*arrived{}
	if err := lake(func(l Line) { r.line(&l, wanted, all, lines) }); err != nil {
		return nil, err
	}
	for _, id := range products {
		if err := r.product(ctx, books, id, lines); err != nil {
			return nil, fmt.Errorf("product %s: %w", id, err)
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.Period, b.Period), cmp.Compare(a.ID, b.ID))
	})
	return r, nil
}

func (r *Report) find(f Finding) {
	if len(r.Findings) < FindingsMax {
		r.Findings = append(r.Findings, f)
	} else {
		r.More++
	}
}

// line takes in one record of the lake: of several revisions the highest counts.
func (r *Report) line(l *Line, wanted map[string]bool, all bool, lines map[string]*arrived) {
	var u usage.Record
	if l.Broken == "" {
		if err := json.Unmarshal(l.Record, &u); err != nil || u.ID == "" {
			l.Broken = fmt.Sprintf("no record: %.80q", l.Record)
		}
	}
	if l.Broken != "" {
		r.Broken++
		r.find(Finding{What: l.place() + ": " + l.Broken})
		return
	}
	f := Finding{Product: string(u.ProductID), Period: string(u.Period), ID: u.ID}
	if !wanted[f.Product] {
		if all {
			f.What = "the ledger has no such product"
			r.find(f)
		}
		return
	}
	r.Lines++
	encoded := encode(&u)
	if more := beyond(l.Record, encoded); more != "" {
		f.What = fmt.Sprintf("is altered in the lake, %s: %s", l.place(), more)
		r.find(f)
	}
	next := &arrived{product: f.Product, period: f.Period, rev: u.Rev, hash: hashOf(encoded), spends: u.Kind.Spends()}
	if next.spends {
		next.charge, next.cost, next.tokens = u.Charge.N, u.CostNanoUSD.N, u.PromptTokens.N+u.CompletionTokens.N
	}
	have := lines[u.ID]
	switch {
	case have == nil:
		lines[u.ID] = next
	case next.rev > have.rev:
		lines[u.ID] = next
	case next.rev == have.rev && next.hash == have.hash:
		r.Doubled++
	case next.rev == have.rev:
		have.clash = true
	}
}

func encode(u *usage.Record) []byte {
	data, err := json.Marshal(u)
	if err != nil {
		return nil // what was decoded encodes
	}
	return data
}

// hashOf tells records apart by everything in them.
func hashOf(encoded []byte) (h [16]byte) {
	sum := sha256.Sum256(encoded)
	copy(h[:], sum[:])
	return h
}

func (r *Report) product(ctx context.Context, books Books, id string, lines map[string]*arrived) error {
	waiting, totals, err := books.Waiting(ctx, id)
	if err != nil {
		return err
	}
	err = books.EachRecord(ctx, id, func(u usage.Record) error {
		r.Records++
		in, cost := lines[u.ID], int64(0)
		if u.Kind.Spends() {
			cost = u.CostNanoUSD.N
		}
		r.LedgerCostNanoUSD += cost
		f := Finding{Product: id, Period: string(u.Period), ID: u.ID}
		late := waiting[u.ID] // which excuses that it lacks, or is old, and nothing else
		switch {
		case in == nil && late:
			r.Waiting++
			r.WaitingCostNanoUSD += cost
		case in == nil:
			f.What = "is missing in the lake"
		case in.rev < u.Rev && late:
			r.Waiting++
			r.WaitingCostNanoUSD += cost - in.cost
		case in.rev < u.Rev:
			f.What = fmt.Sprintf("the lake has revision %d of %d", in.rev, u.Rev)
		case in.rev > u.Rev:
			f.What = fmt.Sprintf("the lake has revision %d, the ledger %d", in.rev, u.Rev)
		case in.clash:
			f.What = fmt.Sprintf("the lake has revision %d in two versions", in.rev)
		case in.hash != hashOf(encode(&u)):
			f.What = "is altered in the lake"
		}
		if f.What != "" {
			r.find(f)
		}
		if in != nil {
			in.kept = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.gone(id, totals, lines)
	return nil
}

// gone holds what only the lake has against the totals that are kept of records
// that were deleted. Those count the records that carry cost; of others nothing
// is kept, and the lake may have any.
func (r *Report) gone(id string, totals []ledger.Total, lines map[string]*arrived) {
	only := map[string]*ledger.Total{}
	for i := range totals {
		only[totals[i].Period] = &ledger.Total{}
	}
	for recordID, in := range lines {
		if in.product != id {
			continue
		}
		r.Distinct++
		r.CostNanoUSD += in.cost
		if in.kept {
			continue
		}
		sum := only[in.period]
		if sum == nil {
			r.find(Finding{Product: id, Period: in.period, ID: recordID, What: "is in the lake, and not in the ledger"})
			continue
		}
		if in.spends {
			sum.Records++
		}
		sum.Charge += in.charge
		sum.CostNanoUSD += in.cost
		sum.Tokens += in.tokens
	}
	for i := range totals {
		t := &totals[i]
		r.Deleted += t.Records
		r.LedgerCostNanoUSD += t.CostNanoUSD
		if kept, found := sums(t), sums(only[t.Period]); kept != found {
			r.find(Finding{Product: id, Period: t.Period, What: fmt.Sprintf(
				"the ledger deleted %s; the lake has beyond what the ledger keeps %s", kept, found)})
		}
	}
}

func sums(t *ledger.Total) string {
	return fmt.Sprintf("%d records with cost, of %d tokens, charge %d, nano-USD %d", t.Records, t.Tokens, t.Charge, t.CostNanoUSD)
}
