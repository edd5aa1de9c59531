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
	"github.com/costgate/costgate/handler/internal/telemetry"
	"github.com/costgate/costgate/handler/internal/usage"
)

func command(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	code = run(t.Context(), args, func(name string) string { return env[name] }, &out, &problems)
	return code, out.String(), problems.String()
}

// TestPriceFiles: what PRICES_FILE and DEPLOYMENTS cannot mean is no silent "no prices".
func TestPriceFiles(t *testing.T) {
	dir := t.TempDir()
	const good = `{"prices":[{"model":"m","pico_usd":{"in":1,"out":1}}]}`
	for name, text := range map[string]string{
		"good": good, "empty": "", "blank": " \n", "list": "[]", "null": "null", "mark": "\ufeff" + good,
		"utf16": "\xff\xfe{\x00}\x00", "utf16be": "\x00{\x00}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := func(setting, value string, wants ...string) {
		t.Helper()
		value = strings.ReplaceAll(value, "DIR", dir)
		code, _, stderr := command(t, map[string]string{setting: value}, "price", "-model", "gpt-4o")
		if (code == exitSettings) != (len(wants) > 0) {
			t.Errorf("%s=%s: exit %d, %s", setting, value, code, stderr)
		}
		for _, want := range wants {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s=%s: %q does not say %q", setting, value, stderr, want)
			}
		}
	}
	f("PRICES_FILE", "")
	f("PRICES_FILE", "DIR/good")
	f("PRICES_FILE", " DIR/good , DIR/good ")
	f("PRICES_FILE", "DIR/good,", "PRICES_FILE", "element 2 of 2 is empty")
	f("PRICES_FILE", ",DIR/good", "element 1 of 2 is empty")
	f("PRICES_FILE", "DIR/good,,DIR/good", "element 2 of 3 is empty")
	f("PRICES_FILE", " ", "element 1 of 1 is empty")
	f("PRICES_FILE", "DIR/good,"+good, "has JSON among paths")
	f("PRICES_FILE", good+",DIR/good", "cannot be mixed with paths")
	f("PRICES_FILE", "[]", "it would begin with {")
	f("PRICES_FILE", "null", "it would begin with {")
	f("PRICES_FILE", "["+good+","+good+"]", "JSON")
	f("PRICES_FILE", "{}")
	for _, setting := range []string{"PRICES_FILE", "DEPLOYMENTS"} {
		f(setting, "DIR/empty", setting, "/empty is empty")
		f(setting, "DIR/blank", setting, "/blank is empty")
		f(setting, "DIR/list", setting, "/list is not one JSON object")
		f(setting, "DIR/null", setting, "/null is not one JSON object")
		f(setting, "DIR/mark", setting, "/mark begins with a byte order mark")
		f(setting, "DIR/utf16", setting, "/utf16 is UTF-16")
		f(setting, "DIR/utf16be", setting, "/utf16be is UTF-16")
	}
	f("PRICES_FILE", "DIR/good,DIR/empty", "/empty is empty")
	f("DEPLOYMENTS", " ", "DEPLOYMENTS", "neither JSON")
	f("DEPLOYMENTS", `{"a":{"model":"m","sku":"DataZoneBatch"}}`, "DEPLOYMENTS", "a.region", "no data zone")
}

func TestPriceCommand(t *testing.T) {
	env := map[string]string{
		"PRICES_FILE": `{"version":"x","multiplier_ppm":900000,"prices":[
			{"model":"mine","from":"2026-06-01","pico_usd":{"in":2000000,"out":4000000}},
			{"model":"mine","pico_usd":{"in":1000000,"out":4000000}}]}`,
		"DEPLOYMENTS": `{"Zone":{"model":"gpt-4o","version":"2024-11-20","sku":"DataZoneStandard","region":"eastus"},
			"PTU":{"model":"gpt-5","sku":"GlobalProvisionedManaged"},
			"UK":{"model":"gpt-5","sku":"ProvisionedManaged","region":"uksouth"}}`,
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
	f(exitOK, "-model gpt-4o-2024-11-20 -at 2026-11-24", "gpt-4o/2024-11-20/GlobalStandard/*", "2026-08-01.3+x", "version as asked",
		"of another version", "2.5 ", "web_search_call", "x 0.9 ")
	f(exitOK, "-deployment zone", "gpt-4o/2024-11-20/DataZoneStandard/us", "data zone us", "1.375", "~6.875")
	f(exitOK, "-deployment gpt-4o", "gpt-4o/*/GlobalStandard/*")
	f(exitOK, "-deployment ptu", "gpt-5/*/GlobalStandard/*", "spill-over", "costs nothing more")
	f(exitOK, "-model gpt-5.5 -sku DataZoneBatch -region us -prompt 272001 -output 1000", "+batch", "long: prompts above 272000",
		"~24.75", "list 1.5207555 USD, charged 1.36867995 USD")
	f(exitOK, "-model mine -at 2026-05-31 -prompt 1000000", "mine/*/*/*  ", "list 1 USD")
	f(exitOK, "-model mine -at 2026-06-01T00:00:00Z -prompt 1000000 -cached 10 -tier priority", "mine/*/*/*@2026-06-01", "list 4 USD")
	f(exitOK, "-model text-embedding-3-small", "mode embedding", "0.02")
	f(exitOK, "-model dall-e-3 -quality hd -size 1024x1792", "per_image", "0.12")
	f(exitFailed, "-deployment uk", "no price", "costs nothing more", "held by gpt-5/*/GlobalStandard/*", "no price for Standard is known")
	f(exitOK, "-model gpt-5.6-sol -prompt 4020 -output 5 -use in_cache_write=4012", "with in_cache_write=4012: list 0.025265 USD")
	f(exitOK, "-model gpt-audio -prompt 10 -cached 4 -output 10 -use audio_in=4 -use audio_in_cached=4 -use audio_out=10", "list 0.000975 USD") // 6 x 2.5 + 4 x 40 + 10 x 80
	f(exitOK, "-model gpt-image-1 -prompt 10 -output 272 -use image_in=2 -use image_out=272", "list 0.01094 USD")
	f(exitOK, "-model whisper -mode audio_transcription -use sec_in=60", "with sec_in=60: list 0.006 USD")
	f(exitOK, "-model tts-1 -use char_in=1000", "list 0.015 USD")
	f(exitOK, "-model dall-e-3 -sku Standard -use per_image=2", "list 0.08 USD")
	f(exitOK, "-model gpt-5-mini -use web_search_call=1 -use file_search_call=1 -use code_interpreter_session=1", "list 0.0425 USD")
	f(exitFailed, "-model gpt-5-mini -use per_image=1", "no price for the meter")
	f(exitSettings, "-model gpt-5-mini -use per_picture=1", "write meter=n", "per_image", "audio_out")
	f(exitSettings, "-model gpt-5-mini -use per_image", "write meter=n")
	f(exitSettings, "-model gpt-5-mini -use per_image=-1", "write meter=n")
	f(exitOK, "-model gpt-5-mini -prompt 4294967296 -output 4294967296 -use web_search_call=4294967296")
	f(exitSettings, "-model gpt-5-mini -use per_image=4294967297", "write meter=n")
	f(exitSettings, "-model gpt-5-mini -prompt 4294967297", "at most 4294967296")
	f(exitSettings, "-model gpt-5-mini -output 4294967297", "at most 4294967296")
	f(exitSettings, "-model gpt-5-mini -prompt 10 -cached 11", "more than -prompt")
	f(exitSettings, "-model gpt-5-mini -prompt 10 -cached 6 -use in_cache_write=5", "more than -prompt")
	f(exitSettings, "-model gpt-5-mini -prompt 10 -cached 1 -use audio_in=5 -use audio_in_cached=2", "a part of")
	f(exitSettings, "-model gpt-5-mini -output 10 -use image_out=11", "more than -output")
	f(exitSettings, "-model gpt-5-mini -tier Priority", "auto, default, flex, priority, scale")
	f(exitOK, "-model gpt-5-mini -tier flex -prompt 1000000", "list 0.25 USD")
	f(exitSettings, "-model gpt-5-mini -mode chatty", "-mode", "chatty", "embedding")
	f(exitOK, "-model gpt-5-mini -mode responses")
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
	env["PRICES_FILE"] = `{"prices":[{"model":"gpt-4o","pico_usd":{"in":1,"out":1}}]}`
	f(exitOK, "-model gpt-4o", "warning: PRICES_FILE: price gpt-4o/*/*/* does not count", "version")
	env["PRICES_FILE"] = file("list.json") + "," + file("broken.json")
	f(exitSettings, "-model gpt-4o", "PRICES_FILE", "broken.json", "pico_usd.in")
	env["PRICES_FILE"] = strings.Repeat(file("list.json")+",", priceFilesMax) + file("list.json")
	f(exitSettings, "-model gpt-4o", "PRICES_FILE", "17 files")
	env["PRICES_FILE"] = `{"prices":[{"model":"m","pico_usd":{"in":0,"out":1}}]}`
	f(exitSettings, "-model gpt-4o", "PRICES_FILE", "pico_usd.in")
}

// TestAppTellsShadowed: the log says at the start which prices do not count.
func TestAppTellsShadowed(t *testing.T) {
	env := map[string]string{
		"ADMIN_KEY": "0123456789abcdef", "DATA_DIR": t.TempDir(), "PRICES_FILE": `{"prices":[{"model":"gpt-4o","pico_usd":{"in":1,"out":1}}]}`,
	}
	config, err := ParseConfig("127.0.0.1:0", func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	app := NewApp(config, telemetry.NewLogger(&log, config.LogLevel))
	err = app.Open(t.Context())
	if closed := app.Close(); err != nil || closed != nil {
		t.Fatal(err, closed)
	}
	if !strings.Contains(log.String(), "PRICES_FILE: price gpt-4o/*/*/* does not count") {
		t.Error(log.String())
	}
}

// TestRerateProvisioned: of what capacity serves itself only the calls of tools
// cost something; an update does not know whether it was that.
func TestRerateProvisioned(t *testing.T) {
	env := map[string]string{
		"DEPLOYMENTS": `{"ptu":{"model":"azure/gpt-5","version":"2025-08-07","sku":"GlobalProvisionedManaged"},
			"uk":{"model":"gpt-5","sku":"ProvisionedManaged","region":"uksouth"},"paid":{"model":"paid","sku":"ProvisionedManaged"}}`,
		"PRICES_FILE": `{"prices":[{"model":"paid","sku":"ProvisionedManaged","pico_usd":{"in":3000000,"out":1}}]}`,
	}
	book, deployments, err := priceBook(func(name string) string { return env[name] }, "")
	if err != nil {
		t.Fatal(err)
	}
	r := rerating{book: book, deployments: deployments}
	search := []usage.Item{{Meter: usage.ItemWebSearch, Quantity: 2}}
	f := func(kind usage.Kind, deployment, model, sku, key string, items []usage.Item, list money.Nano, newKey string) {
		t.Helper()
		record := usage.Record{
			Kind: kind, Operation: "responses", Deployment: usage.Text(deployment), Model: usage.Text(model), SKU: usage.Text(sku), PriceKey: usage.Text(key), Items: items,
		}
		record.SetUsage(usage.Usage{Prompt: usage.Of(1000), Completion: usage.Of(0)})
		d := rerated{Key: key}
		why := r.rerate(&quota.Product{MultiplierPPM: 2_000_000}, &record, &d)
		if (why == "") != (newKey != "") || (why == "" && d.NewKey != newKey) || d.NewList != list || d.NewCharged != 2*list {
			t.Errorf("%s %s: %q %s, list %d, charged %d; want %s, %d", kind, key, why, d.NewKey, d.NewList, d.NewCharged, newKey, list)
		}
	}
	const ptu, uk, paid = "azure/gpt-5/GlobalProvisionedManaged/hourly", "gpt-5/ProvisionedManaged/hourly", "paid/*/ProvisionedManaged/*"
	f(usage.KindRequest, "ptu", "gpt-5-2025-08-07", "GlobalProvisionedManaged", ptu, nil, 0, ptu)
	f(usage.KindRequest, "ptu", "gpt-5-2025-08-07", "GlobalProvisionedManaged", ptu, search, 20_000_000, ptu)
	f(usage.KindRequest, "ptu", "", "GlobalProvisionedManaged", ptu, search, 20_000_000, ptu)
	f(usage.KindRequest, "ptu", "gpt-5-2025-08-07", "GlobalStandard", "gpt-5/2025-08-07/GlobalStandard/*", nil, 1_250_000, "gpt-5/2025-08-07/GlobalStandard/*") // spilled over
	f(usage.KindUpdate, "ptu", "gpt-5-2025-08-07", "GlobalProvisionedManaged", "gpt-5/2025-08-07/GlobalStandard/*", nil, 1_250_000, "gpt-5/2025-08-07/GlobalStandard/*")
	f(usage.KindRequest, "uk", "gpt-5", "ProvisionedManaged", uk, nil, 0, uk)
	f(usage.KindRequest, "uk", "gpt-5", "ProvisionedManaged", uk, search, 20_000_000, uk)   // by the price that it was held by
	f(usage.KindRequest, "uk", "gpt-5", "Standard", "gpt-5/*/GlobalStandard/*", nil, 0, "") // nobody knows what that costs
	f(usage.KindRequest, "paid", "paid", "ProvisionedManaged", paid, nil, 3_000_000, paid)
	f(usage.KindRequest, "paid", "paid", "ProvisionedManaged", "paid/ProvisionedManaged/hourly", nil, 3_000_000, paid) // charged back since
	f(usage.KindRequest, "uk", "gpt-5", "ProvisionedManaged", "gpt-5/*/ProvisionedManaged/*", nil, 0, uk)              // no more
	f(usage.KindRequest, "uk", "gone", "ProvisionedManaged", "gone/ProvisionedManaged/hourly", search, 0, "")
}

// TestCommandsCreateNothing: commands that read the books make no empty ones.
func TestCommandsCreateNothing(t *testing.T) {
	empty := t.TempDir()
	none := filepath.Join(empty, "none")
	for _, dir := range []string{none, empty} {
		for _, args := range [][]string{
			{"rerate", "-day", "2026-11-24"}, {"verify"}, {"correct", "-product", "p", "-record", "r", "-cost", "1"},
		} {
			code, _, stderr := command(t, map[string]string{"DATA_DIR": dir}, args...)
			if code != exitUnknown || !strings.Contains(stderr, "DATA_DIR") || !strings.Contains(stderr, dir) {
				t.Errorf("%v in %s: exit %d, %s", args, dir, code, stderr)
			}
		}
	}
	if files, err := os.ReadDir(empty); err != nil || len(files) != 0 {
		t.Errorf("%v, %v", files, err)
	}
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
