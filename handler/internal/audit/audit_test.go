package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
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

// visitAll is a lake of the lines of one file.
func visitAll(lines []string) audit.Lake {
	return func(visit func(audit.Line)) error {
		for i, line := range lines {
			visit(audit.Line{File: "f", Number: int64(i) + 1, Record: []byte(line)})
		}
		return nil
	}
}

func compare(t *testing.T, have books, lake audit.Lake, want audit.Report) {
	t.Helper()
	got, err := audit.Compare(t.Context(), &have, []string{"p_1"}, true, lake)
	if err != nil {
		t.Fatal(err)
	}
	want.Products = 1
	if want.Findings == nil {
		want.Findings = []audit.Finding{}
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Error(diff)
	}
}

func finding(id, what string) []audit.Finding {
	return []audit.Finding{{Product: "p_1", Period: "2026-11", ID: id, What: what}}
}

func TestCompare(t *testing.T) {
	a, b, a2 := record("a", 1, 5), record("b", 1, 7), record("a", 2, 4)
	altered := b
	altered.CostNanoUSD = usage.Of(8)
	other := record("x", 1, 1)
	other.ProductID = "p_2"
	deposit := record("d", 1, 0)
	deposit.Kind, deposit.Charge = usage.KindDeposit, usage.Of(-100)
	f := func(name string, have books, lake []string, want audit.Report) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			compare(t, have, visitAll(lake), want)
		})
	}
	f("equal", books{records: []usage.Record{a, b, deposit}}, lakeOf(deposit, b, a),
		audit.Report{Records: 3, Lines: 3, Distinct: 3, CostNanoUSD: 12, LedgerCostNanoUSD: 12})
	f("doubled", books{records: []usage.Record{a2, b}}, lakeOf(a, b, a2, a2, a, b),
		audit.Report{Records: 2, Lines: 6, Distinct: 2, Doubled: 2, CostNanoUSD: 11, LedgerCostNanoUSD: 11})
	f("missing", books{records: []usage.Record{a, b}}, lakeOf(b),
		audit.Report{Records: 2, Lines: 1, Distinct: 1, CostNanoUSD: 7, LedgerCostNanoUSD: 12, Findings: finding("a", "is missing in the lake")})
	f("old", books{records: []usage.Record{a2}}, lakeOf(a),
		audit.Report{Records: 1, Lines: 1, Distinct: 1, CostNanoUSD: 5, LedgerCostNanoUSD: 4, Findings: finding("a", "the lake has revision 1 of 2")})
	f("unknown", books{}, lakeOf(a), audit.Report{Lines: 1, Distinct: 1, CostNanoUSD: 5, Findings: finding("a", "is in the lake, and not in the ledger")})
	f("unknown product", books{}, lakeOf(other), audit.Report{Findings: []audit.Finding{{Product: "p_2", Period: "2026-11", ID: "x", What: "the ledger has no such product"}}})
	f("no record", books{}, []string{"{}", "x"}, audit.Report{Broken: 2, Findings: []audit.Finding{{What: `f:1: no record: "{}"`}, {What: `f:2: no record: "x"`}}})

	// What is still to be sent may lack or be old. It may not be anything else.
	onTheWay := func(name string, have usage.Record, lake []string, want audit.Report, what string) {
		t.Helper()
		want.Records, want.Lines, want.LedgerCostNanoUSD, want.Findings = 1, int64(len(lake)), have.CostNanoUSD.N, nil
		if what != "" {
			want.Findings = finding(have.ID, what)
		}
		f(name, books{records: []usage.Record{have}}, lake, want)
		f(name+", unsent", books{records: []usage.Record{have}, waiting: []string{have.ID}}, lake, want)
	}
	f("missing, unsent", books{records: []usage.Record{a, b}, waiting: []string{"a"}}, lakeOf(b),
		audit.Report{Records: 2, Lines: 1, Distinct: 1, Waiting: 1, CostNanoUSD: 7, LedgerCostNanoUSD: 12, WaitingCostNanoUSD: 5})
	f("old, unsent", books{records: []usage.Record{a2}, waiting: []string{"a"}}, lakeOf(a),
		audit.Report{Records: 1, Lines: 1, Distinct: 1, Waiting: 1, CostNanoUSD: 5, LedgerCostNanoUSD: 4, WaitingCostNanoUSD: -1})
	onTheWay("there", b, lakeOf(b), audit.Report{Distinct: 1, CostNanoUSD: 7}, "")
	onTheWay("altered", b, lakeOf(altered), audit.Report{Distinct: 1, CostNanoUSD: 8}, "is altered in the lake")
	onTheWay("two versions", b, lakeOf(b, altered), audit.Report{Distinct: 1, CostNanoUSD: 7}, "the lake has revision 1 in two versions")
	onTheWay("too new", a, lakeOf(a2), audit.Report{Distinct: 1, CostNanoUSD: 4}, "the lake has revision 2, the ledger 1")
}

// TestDeleted: what retention left of records is their sum: the records of the
// kinds that carry cost, their tokens, charge and cost.
func TestDeleted(t *testing.T) {
	a, b, free := record("a", 1, 5), record("b", 1, 7), record("c", 1, 0)
	a.PromptTokens, b.CompletionTokens = usage.Of(10), usage.Of(20)
	deposit := record("d", 1, 0)
	deposit.Kind, deposit.Charge, deposit.PromptTokens = usage.KindDeposit, usage.Of(-100), usage.Of(1)
	worded := record("c", 1, 0)
	worded.CompletionTokens = usage.Of(1)
	kept := record("e", 1, 1)
	total := ledger.Total{Period: "2026-11", Charge: 12, CostNanoUSD: 12, Records: 3, Tokens: 30}
	f := func(name string, what string, lake ...usage.Record) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			want := audit.Report{Records: 1, Deleted: 3, Lines: int64(len(lake)) + 1, Distinct: int64(len(lake)) + 1, LedgerCostNanoUSD: 13}
			for i := range lake {
				want.CostNanoUSD += lake[i].CostNanoUSD.N
			}
			want.CostNanoUSD++
			if what != "" {
				want.Findings = finding("", "the ledger deleted 3 records with cost, of 30 tokens, charge 12, nano-USD 12; the lake has beyond what the ledger keeps "+what)
			}
			compare(t, books{records: []usage.Record{kept}, totals: []ledger.Total{total}}, visitAll(lakeOf(append(lake, kept)...)), want)
		})
	}
	f("all there", "", a, b, free)
	f("kinds without cost are not counted", "", a, b, free, deposit)
	f("one is missing", "2 records with cost, of 20 tokens, charge 7, nano-USD 7", b, free)
	f("one without cost is missing", "2 records with cost, of 30 tokens, charge 12, nano-USD 12", a, b)
	f("one without cost is foreign", "4 records with cost, of 30 tokens, charge 12, nano-USD 12", a, b, free, record("x", 1, 0))
	f("tokens differ", "3 records with cost, of 31 tokens, charge 12, nano-USD 12", a, b, worded)
}

// TestMembers: a line with more in it than a record is altered, however it got
// there. How a line is written does not matter.
func TestMembers(t *testing.T) {
	r := record("a", 1, 5)
	r.User, r.Tags, r.Items = "é<", map[string]string{"team": "a<"}, []usage.Item{{Meter: "per_image", Quantity: 2}}
	r.UsageExtra = usage.Extra(`{"x":1}`)
	line := lakeOf(r)[0]
	f := func(what, from, to string) {
		t.Helper()
		changed := strings.Replace(line, from, to, 1)
		if changed == line {
			t.Fatalf("no %s in %s", from, line)
		}
		want := audit.Report{Records: 1, Lines: 1, Distinct: 1, CostNanoUSD: 5, LedgerCostNanoUSD: 5}
		if what != "" {
			want.Findings = finding("a", "is altered in the lake, f:1: "+what)
		}
		compare(t, books{records: []usage.Record{r}}, visitAll([]string{changed}), want)
	}
	f(`no record has a member "prompt"`, `}}`, `},"prompt":"my secret"}`)
	f(`no record has a member "prompt"`, `{"schema"`, `{"prompt":null,"schema"`)
	f(`no record has a member "User"`, `"user"`, `"User":"my secret","user"`)
	f(`no record has a member "`+strings.Repeat("x", 64)+`"`, `{"schema"`, `{"`+strings.Repeat("x", 100)+`":1,"schema"`)
	f(`no record has a member "a"; no record has a member "b"; no record has a member "c"; and 2 more`, `{"schema"`, `{"a":1,"b":1,"c":1,"d":1,"e":1,"schema"`)
	f(`its member "user" is there twice`, `"user"`, `"user":"my secret","user"`)
	f(`its member "tags" holds more than a record`, `{"team"`, `{"team":"my secret","team"`)
	f(`its member "items" holds more than a record`, `"quantity":2`, `"quantity":2,"prompt":"my secret"`)
	f(`its member "items" holds more than a record`, `[{`, `[ {"prompt":"my secret",`)
	f("", `,"user"`, " ,\t\"user\" ")
	f("", `"é\u003c"`, `"\u00e9<"`)
	f("", `{"team":"a\u003c"}`, `{ "team" : "a<" }`)
	f("", `"stream":null,`, "")
	f("", `{"x":1}`, `{ "x": 1}`)

	// A double is looked at as well, and so is a revision that counts no more.
	secret := strings.Replace(line, `}}`, `},"prompt":"my secret"}`, 1)
	r2 := r
	r2.Rev = 2
	lake := []string{line, secret, lakeOf(r2)[0]}
	compare(t, books{records: []usage.Record{r2}}, visitAll(lake), audit.Report{
		Records: 1, Lines: 3, Distinct: 1, Doubled: 1, CostNanoUSD: 5, LedgerCostNanoUSD: 5, Findings: finding("a", `is altered in the lake, f:2: no record has a member "prompt"`),
	})
}

// TestFindingsMax: what is found beyond it is counted, of whatever sort it is.
func TestFindingsMax(t *testing.T) {
	f := func(missing, broken int, more int64) {
		t.Helper()
		have := &books{}
		for i := range missing {
			have.records = append(have.records, record(fmt.Sprint(i), 1, 1))
		}
		r, err := audit.Compare(t.Context(), have, []string{"p_1"}, false, func(visit func(audit.Line)) error {
			for i := range broken {
				visit(audit.Line{File: "f", Number: int64(i), Broken: "too long"})
			}
			return nil
		})
		if err != nil || len(r.Findings) != min(missing+broken, audit.FindingsMax) || r.More != more || r.Broken != int64(broken) {
			t.Errorf("%d and %d: %d findings, %d more, %v", missing, broken, len(r.Findings), r.More, err)
		}
		if broken > 0 && r.Findings[0] != (audit.Finding{What: "f:0: too long"}) {
			t.Errorf("%+v", r.Findings[0])
		}
	}
	f(audit.FindingsMax, 0, 0)
	f(audit.FindingsMax+1, 0, 1)
	f(0, audit.FindingsMax, 0)
	f(0, audit.FindingsMax+1, 1)
	f(audit.FindingsMax, 2, 2)
}
