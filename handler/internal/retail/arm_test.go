package retail

import (
	"fmt"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/pricing"
)

func TestBuildJoins(t *testing.T) {
	arm := func(text string) *ARM {
		a, err := ParseARM([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	const model = `{"kind":"OpenAI","model":{"format":"OpenAI","name":%q,"version":%q,"skus":[{"name":%q,"cost":[
		{"name":"NoCachedContextToken","meterId":"ID-IN","unit":"1K"},{"name":"GeneratedToken","meterId":"id-out"},{"name":"CachedContextToken","meterId":"id-cached"},{"name":"Other","meterId":"id-x"}]}]}}`
	lines := []string{"Model 7 Inp glbl | 2 | | | | id-in", "Model 7 Outp glbl | 9 | | | | ID-OUT", "Model 7 cd | 0.2 | | | | id-cached"}
	f := func(name, version, sku string, lines []string, want ...string) *Result {
		t.Helper()
		in := input(t, testBook, lines...)
		in.ARM = arm(`{"value":[` + fmt.Sprintf(model, name, version, sku) + `]}`)
		return wantRows(t, in, want...)
	}
	// Names that cannot be read, of a model that no book knows.
	r := f("m-7", "2026-09-09", "GlobalStandard", lines, "m-7/2026-09-09/GlobalStandard/*@2026-10-01 in=2000000 in_cached=200000 out=9000000")
	if r.Report.Joined != 3 || len(r.Report.Added) != 1 {
		t.Errorf("%+v", r.Report)
	}
	f("m-7", "2026-09-09", "DataZoneBatch", lines, "m-7/2026-09-09/DataZoneBatch/us@2026-10-01 in=2000000 in_cached=200000 out=9000000")
	for _, sku := range []string{"ProvisionedManaged", "DeveloperTier"} {
		if r := f("m-7", "2026-09-09", sku, lines); len(r.Report.Unmatched) != 3 {
			t.Error(sku, r.Report.Unmatched.List())
		}
	}
	// Name and id agree: the name's missing date is that of all versions.
	named := []string{"m 2 Inp Gl | 2 | | | | id-in", "m 2 Opt Gl | 9 | | | | id-out", "m 2 LongCo Inp Gl | 4 | | | | id-long"}
	f("m-2", "2026-02-28", "GlobalStandard", named,
		"m-2/*/GlobalStandard/*@2026-10-01 in=2000000 out=9000000 long_in=4000000",
		"m-2/2026-02-28/GlobalStandard/*@2026-10-01 in=2000000 out=9000000 long_in=4000000")
	// They do not: the id counts.
	r = f("m-2", "2026-02-28", "GlobalStandard", []string{"m 1 Inp Gl | 2 | | | | id-in", "m 2 Inp Gl | 9 | | | | id-out"},
		"m-2/*/GlobalStandard/*@2026-10-01 in=2000000 out=9000000", "m-2/2026-02-28/GlobalStandard/*@2026-10-01 in=2000000 out=9000000")
	if len(r.Report.Conflicts) != 2 {
		t.Error(r.Report.Conflicts.List())
	}
	// What prices several kinds of token is told by names alone, and a unit is a unit.
	for _, name := range []string{"m-realtime", "m-image"} {
		if r := f(name, "1", "GlobalStandard", lines); len(r.Report.Unmatched) != 3 {
			t.Error(name, r.Report.Unmatched.List())
		}
	}
	if r := f("m-7", "1", "GlobalStandard", []string{"Model 7 | 2 | 1 | | | id-in"}); len(r.Report.Refused) != 1 {
		t.Error(r.Report.Refused)
	}
}

func TestParseARM(t *testing.T) {
	f := func(text string, want int) {
		t.Helper()
		a, err := ParseARM([]byte(text))
		got := 0
		if err == nil {
			got = len(a.uses)
		}
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %d meters, %v", text, got, err)
		}
	}
	const one = `{"model":{"format":"OpenAI","name":"gpt-4","version":"turbo-2024-04-09","skus":[{"name":"GlobalStandard","costs":[
		{"name":"ContextToken","meterId":"a"},{"name":"TotalToken","meterId":"b"},{"name":"ContextToken","meterId":""}]}]}}`
	f("["+one+"]", 2)
	f(`{"value":[`+one+`,`+one+`]}`, 2)
	f(`{"value":[`+one+`],"nextLink":"https://management.azure.com/x"}`, 0)
	f(`{"value":[{"model":{"format":"Cohere","name":"c"}}]}`, 0)
	f(`{"value":[]}`, 0)
	f(`{}`, 0)
	f(`[`, 0)
	f(``, 0)
	f(`[`+one+`]`+strings.Repeat(" ", ARMBytesMax), 0)
	a, err := ParseARM([]byte("[" + one + "]"))
	if err != nil || a.uses["a"][0].model != "gpt-4-turbo" || a.uses["a"][0].version != "2024-04-09" || a.uses["b"][0].mode != pricing.ModeEmbedding {
		t.Errorf("%+v, %v", a, err)
	}
	b, err := ParseARM([]byte("[" + strings.ReplaceAll(one, `"a"`, `"c"`) + "]"))
	if a.Add(b); err != nil || len(a.uses) != 3 || len(a.uses["b"]) != 1 || a.Models != 2 {
		t.Errorf("%+v, %v", a, err)
	}
}
