// Package audit compares the lake with the ledger: whether every record arrived,
// as it is in the books, and whether their sums agree to the nano-dollar.
//
// It reads both sides whole, in memory proportional to the number of records
// (about 200 bytes each). It changes nothing.
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

// Lake calls visit for every record of the lake, as JSON. Records may come more
// than once, and in any order.
type Lake func(visit func(record []byte) error) error

// Finding is a difference.
type Finding struct {
	Product string `json:"product_id"`
	Period  string `json:"period,omitempty"`
	ID      string `json:"id,omitempty"`
	What    string `json:"what"`
}

// Report is what a comparison found.
type Report struct {
	Products int   `json:"products"`
	Records  int64 `json:"records"`  // of the ledger
	Lines    int64 `json:"lines"`    // of the lake
	Distinct int64 `json:"distinct"` // records of the lake
	// Doubled are lines that repeat one, which at-least-once allows.
	Doubled int64 `json:"doubled"`
	// Waiting are records of the ledger that are on their way.
	Waiting     int64 `json:"waiting"`
	CostNanoUSD int64 `json:"cost_nano_usd"` // of the lake's records
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
	charge  int64
	cost    int64
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
	if err := lake(func(record []byte) error {
		r.line(record, wanted, all, lines)
		return nil
	}); err != nil {
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
func (r *Report) line(record []byte, wanted map[string]bool, all bool, lines map[string]*arrived) {
	var u usage.Record
	if err := json.Unmarshal(record, &u); err != nil || u.ID == "" {
		r.Lines++
		r.find(Finding{What: fmt.Sprintf("a line of the lake is no record: %.80q", record)})
		return
	}
	if !wanted[string(u.ProductID)] {
		if all {
			r.find(Finding{Product: string(u.ProductID), Period: string(u.Period), ID: u.ID, What: "the ledger has no such product"})
		}
		return
	}
	r.Lines++
	next := &arrived{product: string(u.ProductID), period: string(u.Period), rev: u.Rev, hash: hashOf(&u)}
	if u.Kind.Spends() {
		next.charge, next.cost = u.Charge.N, u.CostNanoUSD.N
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

// hashOf tells records apart by everything in them.
func hashOf(u *usage.Record) (h [16]byte) {
	data, err := json.Marshal(u)
	if err != nil {
		return h // what was decoded encodes
	}
	sum := sha256.Sum256(data)
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
		in := lines[u.ID]
		f := Finding{Product: id, Period: string(u.Period), ID: u.ID}
		late := waiting[u.ID]
		switch {
		case in != nil && in.rev == u.Rev && in.hash == hashOf(&u) && !in.clash:
		case late:
			r.Waiting++
		case in == nil:
			f.What = "is missing in the lake"
		case in.rev < u.Rev:
			f.What = fmt.Sprintf("the lake has revision %d of %d", in.rev, u.Rev)
		case in.clash:
			f.What = fmt.Sprintf("the lake has revision %d in two versions", in.rev)
		case in.rev > u.Rev:
			f.What = fmt.Sprintf("the lake has revision %d, the ledger %d", in.rev, u.Rev)
		default:
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
// that were deleted.
func (r *Report) gone(id string, totals []ledger.Total, lines map[string]*arrived) {
	only := map[string]*ledger.Total{}
	for recordID, in := range lines {
		if in.product != id {
			continue
		}
		r.Distinct++
		r.CostNanoUSD += in.cost
		if in.kept {
			continue
		}
		if !slices.ContainsFunc(totals, func(t ledger.Total) bool { return t.Period == in.period }) {
			r.find(Finding{Product: id, Period: in.period, ID: recordID, What: "is in the lake, and not in the ledger"})
			continue
		}
		if only[in.period] == nil {
			only[in.period] = new(ledger.Total)
		}
		only[in.period].Charge += in.charge
		only[in.period].CostNanoUSD += in.cost
	}
	for _, t := range totals {
		sum := only[t.Period]
		if sum == nil {
			sum = new(ledger.Total)
		}
		if sum.Charge != t.Charge || sum.CostNanoUSD != t.CostNanoUSD {
			r.find(Finding{Product: id, Period: t.Period, What: fmt.Sprintf(
				"deleted records cost %d (nano-USD %d), those of the lake that the ledger does not keep %d (%d)", t.Charge, t.CostNanoUSD, sum.Charge, sum.CostNanoUSD)})
		}
	}
}
