package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/audit"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/usage"
)

type books struct {
	records []usage.Record
	waiting []string
	totals  []ledger.Total
}

func (b *books) EachRecord(_ context.Context, product string, visit func(usage.Record) error) error {
	for _, r := range b.records {
		if string(r.ProductID) == product {
			if err := visit(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *books) Waiting(context.Context, string) (map[string]bool, []ledger.Total, error) {
	ids := map[string]bool{}
	for _, id := range b.waiting {
		ids[id] = true
	}
	return ids, b.totals, nil
}

func record(id string, rev int, cost int64) usage.Record {
	return usage.Record{
		Schema: 1, ID: id, Rev: rev, Kind: usage.KindRequest, ProductID: "p_1", Period: "2026-11", Charge: usage.Of(cost), CostNanoUSD: usage.Of(cost),
	}
}

func lakeOf(records ...usage.Record) []string {
	lines := make([]string, len(records))
	for i := range records {
		data, _ := json.Marshal(records[i])
		lines[i] = string(data)
	}
	return lines
}

func TestCompare(t *testing.T) {
	a, b, a2 := record("a", 1, 5), record("b", 1, 7), record("a", 2, 4)
	altered := b
	altered.CostNanoUSD = usage.Of(8)
	other := record("x", 1, 1)
	other.ProductID = "p_2"
	f := func(name string, have books, lake []string, want audit.Report) {
		t.Helper()
		got, err := audit.Compare(t.Context(), &have, []string{"p_1"}, true, func(visit func([]byte) error) error {
			for _, line := range lake {
				if err := visit([]byte(line)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want.Products = 1
		if want.Findings == nil {
			want.Findings = []audit.Finding{}
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	finding := func(id, what string) []audit.Finding {
		return []audit.Finding{{Product: "p_1", Period: "2026-11", ID: id, What: what}}
	}
	f("equal", books{records: []usage.Record{a, b}}, lakeOf(b, a), audit.Report{Records: 2, Lines: 2, Distinct: 2, CostNanoUSD: 12})
	f("doubled", books{records: []usage.Record{a2, b}}, lakeOf(a, b, a2, a2, a, b),
		audit.Report{Records: 2, Lines: 6, Distinct: 2, Doubled: 2, CostNanoUSD: 11})
	f("missing", books{records: []usage.Record{a, b}}, lakeOf(b),
		audit.Report{Records: 2, Lines: 1, Distinct: 1, CostNanoUSD: 7, Findings: finding("a", "is missing in the lake")})
	f("on its way", books{records: []usage.Record{a, b}, waiting: []string{"a"}}, lakeOf(b),
		audit.Report{Records: 2, Lines: 1, Distinct: 1, Waiting: 1, CostNanoUSD: 7})
	f("old", books{records: []usage.Record{a2}}, lakeOf(a),
		audit.Report{Records: 1, Lines: 1, Distinct: 1, CostNanoUSD: 5, Findings: finding("a", "the lake has revision 1 of 2")})
	f("too new", books{records: []usage.Record{a}}, lakeOf(a2),
		audit.Report{Records: 1, Lines: 1, Distinct: 1, CostNanoUSD: 4, Findings: finding("a", "the lake has revision 2, the ledger 1")})
	f("altered", books{records: []usage.Record{b}}, lakeOf(altered),
		audit.Report{Records: 1, Lines: 1, Distinct: 1, CostNanoUSD: 8, Findings: finding("b", "is altered in the lake")})
	f("two versions", books{records: []usage.Record{b}}, lakeOf(b, altered),
		audit.Report{Records: 1, Lines: 2, Distinct: 1, CostNanoUSD: 7, Findings: finding("b", "the lake has revision 1 in two versions")})
	f("unknown", books{}, lakeOf(a), audit.Report{Lines: 1, Distinct: 1, CostNanoUSD: 5, Findings: finding("a", "is in the lake, and not in the ledger")})
	f("unknown product", books{}, lakeOf(other), audit.Report{Findings: []audit.Finding{{Product: "p_2", Period: "2026-11", ID: "x", What: "the ledger has no such product"}}})
	f("no record", books{}, []string{"{}"}, audit.Report{Lines: 1, Findings: []audit.Finding{{What: `a line of the lake is no record: "{}"`}}})
	kept := []ledger.Total{{Period: "2026-11", Charge: 12, CostNanoUSD: 12, Records: 2}}
	f("deleted", books{totals: kept}, lakeOf(a, b), audit.Report{Lines: 2, Distinct: 2, CostNanoUSD: 12})
	f("deleted and missing", books{totals: kept}, lakeOf(a), audit.Report{Lines: 1, Distinct: 1, CostNanoUSD: 5, Findings: finding("",
		"deleted records cost 12 (nano-USD 12), those of the lake that the ledger does not keep 5 (5)")})
}

func TestFindingsMax(t *testing.T) {
	have := &books{}
	for i := range audit.FindingsMax + 1 {
		have.records = append(have.records, record(fmt.Sprint(i), 1, 1))
	}
	r, err := audit.Compare(t.Context(), have, []string{"p_1"}, false, func(func([]byte) error) error { return nil })
	if err != nil || len(r.Findings) != audit.FindingsMax || r.More != 1 {
		t.Errorf("%d findings, %d more, %v", len(r.Findings), r.More, err)
	}
}
