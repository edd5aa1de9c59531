package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/costgate/costgate/handler/internal/boltstore"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

func command(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	code = run(t.Context(), args, func(name string) string { return env[name] }, &out, &problems)
	return code, out.String(), problems.String()
}

func TestPriceCommand(t *testing.T) {
	env := map[string]string{
		"PRICES_FILE": `{"version":"x","multiplier_ppm":900000,"prices":[
			{"model":"mine","from":"2026-06-01","pico_usd":{"in":2000000,"out":4000000}},
			{"model":"mine","pico_usd":{"in":1000000,"out":4000000}}]}`,
		"DEPLOYMENTS": `{"Zone":{"model":"gpt-4o","version":"2024-11-20","sku":"DataZoneStandard","region":"eastus"},
			"PTU":{"model":"gpt-5","sku":"GlobalProvisionedManaged"}}`,
	}
	f := func(code int, args string, wants ...string) {
		t.Helper()
		got, stdout, stderr := command(t, env, append([]string{"price"}, strings.Fields(args)...)...)
		if got != code {
			t.Errorf("price %s: exit %d, want %d: %s", args, got, code, stderr)
		}
		for _, want := range wants {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("price %s does not say %q:\n%s%s", args, want, stdout, stderr)
			}
		}
	}
	f(exitOK, "-model gpt-4o-2024-11-20 -at 2026-11-24", "gpt-4o/2024-11-20/GlobalStandard/*", "2026-08-01.2+x", "version as asked",
		"of another version", "2.5 ", "web_search_call", "x 0.9 ")
	f(exitOK, "-deployment zone", "gpt-4o/2024-11-20/DataZoneStandard/us", "data zone us", "1.38", "~6.875")
	f(exitOK, "-deployment gpt-4o", "gpt-4o/*/GlobalStandard/*")
	f(exitOK, "-deployment ptu", "gpt-5/*/GlobalStandard/*", "spill-over", "costs nothing more")
	f(exitOK, "-model gpt-5.5 -sku DataZoneBatch -region us -prompt 272001 -output 1000", "+batch", "long: prompts above 272000",
		"~24.75", "list 1.5207555 USD, charged 1.36867995 USD")
	f(exitOK, "-model mine -at 2026-05-31 -prompt 1000000", "mine/*/*/*  ", "list 1 USD")
	f(exitOK, "-model mine -at 2026-06-01T00:00:00Z -prompt 1000000 -cached 10 -tier priority", "mine/*/*/*@2026-06-01", "list 4 USD")
	f(exitOK, "-model text-embedding-3-small", "mode embedding", "0.02")
	f(exitOK, "-model dall-e-3 -quality hd -size 1024x1792", "per_image", "0.12")
	f(exitFailed, "-model gpt-nonsense", "no price", "DEPLOYMENTS", "PRICES_FILE", "gpt-nonsense")
	f(exitFailed, "-model gpt-4o -sku Standard", "no price")
	f(exitFailed, "-model gpt-4o -sku Odd", "no deployment type", "DataZoneStandard")
	f(exitFailed, "-model dall-e-3 -prompt 1", "no price per token")
	f(exitSettings, "", "-model or -deployment")
	f(exitSettings, "-model gpt-4o -at yesterday", "2026-01-31")
	f(exitSettings, "-model gpt-4o -prompt -1", "not negative")
	f(exitSettings, "-model gpt-4o -colour red")
	code, stdout, _ := command(t, env, "price", "-model", "gpt-4o-mini", "-prompt", "14", "-output", "7", "-json")
	var answer priceAnswer
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || code != exitOK {
		t.Fatalf("exit %d: %v: %s", code, err, stdout)
	}
	if c := answer.Cost; c == nil || c.List != 6300 || c.Charged != 5670 || answer.AgreementPPM != 900_000 || len(answer.Bands) != 2 {
		t.Errorf("%s", stdout)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"list.json":     `{"version":"list","prices":[{"model":"gpt-4o","sku":"GlobalStandard","pico_usd":{"in":1000000,"out":2000000}}]}`,
		"contract.json": `{"version":"contract","multiplier_ppm":500000,"prices":[{"model":"gpt-4o","version":"2024-11-20","sku":"GlobalStandard","pico_usd":{"in":3000000,"out":4000000}}]}`,
		"broken.json":   `{"prices":[{"model":"m","pico_usd":{"in":0,"out":1}}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	env["PRICES_FILE"] = file("list.json") + ", " + file("contract.json") // the later one wins
	f(exitOK, "-model gpt-4o -version 2024-11-20 -prompt 1000000", "list+contract", "gpt-4o/2024-11-20/GlobalStandard", "1.5")
	f(exitOK, "-model gpt-4o -prompt 1000000", "gpt-4o/*/GlobalStandard", "0.5")
	env["PRICES_FILE"] = file("list.json") + "," + file("broken.json")
	f(exitSettings, "-model gpt-4o", "PRICES_FILE", "broken.json", "pico_usd.in")
	env["PRICES_FILE"] = strings.Repeat(file("list.json")+",", priceFilesMax) + file("list.json")
	f(exitSettings, "-model gpt-4o", "PRICES_FILE", "17 files")
	env["PRICES_FILE"] = `{"prices":[{"model":"m","pico_usd":{"in":0,"out":1}}]}`
	f(exitSettings, "-model gpt-4o", "PRICES_FILE", "pico_usd.in")
}

// TestRerateCommand writes records into a store and rerates them by a book in
// which a price was corrected.
func TestRerateCommand(t *testing.T) {
	dir := t.TempDir()
	store, err := boltstore.Open(filepath.Join(dir, "costgate.db"))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	l := ledger.New(store, ledger.Options{Instance: "a", Embedded: true, Now: func() time.Time { return at }})
	p, _, err := l.Create(t.Context(), quota.HashKey("sk-test"), ledger.Once{}, func(id string, now time.Time) (*quota.Product, error) {
		return &quota.Product{
			ID: id, Name: "Test", Keys: []quota.Key{{ID: "k_1", Hash: quota.HashKey("sk-test"), Created: now}}, Unit: quota.UnitUSD,
			Budget: money.NanoPerUSD, Created: money.NanoPerUSD, Period: quota.PeriodMonth, TimeZone: "UTC", Enforcement: quota.EnforceHard,
			CreatedAt: now, MultiplierPPM: 2_000_000,
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	charge := func(source usage.Source, deployment, model, sku, key string, prompt, list int64, items ...usage.Item) {
		t.Helper()
		r := usage.Record{
			Kind: usage.KindUpdate, Operation: "chat", Deployment: usage.Text(deployment), Model: usage.Text(model), SKU: usage.Text(sku),
			UsageSource: usage.Text(source), Outcome: usage.Text(usage.OutcomeCompleted), PriceKey: usage.Text(key), Items: items,
			Charge: usage.Of(2 * list), CostNanoUSD: usage.Of(2 * list), ListCostNanoUSD: usage.Of(list),
		}
		if prompt > 0 {
			r.SetUsage(usage.Usage{Prompt: usage.Of(prompt), Completion: usage.Of(0)})
		}
		if done, err := l.Charge(t.Context(), p, r); err != nil || !done {
			t.Fatalf("Charge: %v, %v", done, err)
		}
		at = at.Add(time.Second)
	}
	const global = "GlobalStandard"
	at = at.Add(-time.Second)
	charge(usage.SourceProvider, "", "gpt-4o", global, "gpt-4o/*/GlobalStandard/*", 1, 1) // the day before
	charge(usage.SourceProvider, "", "gpt-4o-2024-11-20", global, "gpt-4o/2024-11-20/GlobalStandard/*", 1000, 2_500_000)
	charge(usage.SourceTokenizer, "dep", "gpt-4.1", "Standard", "gpt-4.1/2025-04-14/Standard/northeurope", 1000, 2_400_000)
	charge(usage.SourceProvider, "", "gpt-4.1-mini", global, "gpt-4.1-mini/*/GlobalStandard/*", 10, 10_004_000, usage.Item{Meter: usage.ItemWebSearch, Quantity: 1})
	charge(usage.SourceProvider, "", "", global, "image_generation:hd/1024-x-1024/dall-e-3/*/GlobalStandard/*", 0, 80_000_000, usage.Item{Meter: usage.ItemImage, Quantity: 1})
	charge(usage.SourceProvider, "ptu", "gpt-5", "GlobalProvisionedManaged", "gpt-5/GlobalProvisionedManaged/hourly", 1000, 0)
	charge(usage.SourceEstimate, "", "gpt-4o", global, "gpt-4o/*/GlobalStandard/*", 1000, 7)
	charge(usage.SourceProvider, "", "gone", global, "gone/*/GlobalStandard/*", 1000, 5)
	charge(usage.SourceNone, "", "gpt-4o", global, "", 0, 0)
	at = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	charge(usage.SourceProvider, "", "gpt-4o", global, "gpt-4o/*/GlobalStandard/*", 1, 1) // the day after
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	const same = `{"version":"same","prices":[
		{"model":"gpt-4.1","version":"2025-04-14","sku":"Standard","region":"northeurope","pico_usd":{"in":2400000,"out":9600000}}]}`
	corrected := filepath.Join(dir, "corrected.json")
	if err := os.WriteFile(corrected, []byte(strings.Replace(same, "2400000", "2200000", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"DATA_DIR": dir, "PRICES_FILE": same,
		"DEPLOYMENTS": `{"dep":{"model":"gpt-4.1","version":"2025-04-14","sku":"Standard","region":"northeurope"}}`,
	}
	code, stdout, stderr := command(t, env, "rerate", "-day", "2026-11-24")
	if code != exitOK || !strings.Contains(stdout, "5 records rerated, 0 differences, 2 not rerateable") ||
		!strings.Contains(stdout, `usage_source is "estimate"`) || !strings.Contains(stdout, `no price for model "gone"`) {
		t.Errorf("the same book: exit %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = command(t, env, "rerate", "-day", "2026-11-24", "-product", p.ID, "-prices", corrected, "-json")
	var got rerating
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitFailed {
		t.Fatalf("exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
	const key = "gpt-4.1/2025-04-14/Standard/northeurope"
	want := []rerated{{
		Product: p.ID, Model: "gpt-4.1", Key: key, NewKey: key, Time: time.Date(2026, 11, 24, 0, 0, 1, 0, time.UTC),
		List: 2_400_000, NewList: 2_200_000, Charged: 4_800_000, NewCharged: 4_400_000,
	}}
	if diff := cmp.Diff(want, got.Differences, cmpopts.IgnoreFields(rerated{}, "Record")); diff != "" {
		t.Error(diff)
	}
	if got.Records != 5 || got.List-got.NewList != 200_000 || got.Charged-got.NewCharged != 400_000 || len(got.Left) != 2 {
		t.Errorf("%s", stdout)
	}
	f := func(wants string, args ...string) {
		t.Helper()
		code, _, stderr := command(t, env, append([]string{"rerate"}, args...)...)
		if code != exitUnknown || !strings.Contains(stderr, wants) {
			t.Errorf("rerate %v: exit %d, %s", args, code, stderr)
		}
	}
	f("-day", "-day", "24.11.2026")
	f("-day")
	f("no product", "-day", "2026-11-24", "-product", "p_none")
	f("neither JSON", "-day", "2026-11-24", "-prices", filepath.Join(dir, "none.json"))
	f("usage:", "-day", "2026-11-24", "-colour", "red")
}
