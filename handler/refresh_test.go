package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/pricing"
)

// priceList is a price API with a page of items for each service. It notes what it was asked.
func priceList(t *testing.T, status int, items ...string) (address string, asked *[]string) {
	t.Helper()
	asked = &[]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		filter := r.URL.Query().Get("$filter")
		*asked = append(*asked, filter)
		if status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		body := ""
		if strings.Contains(filter, "Foundry Models") {
			body = strings.Join(items, ",")
		}
		fmt.Fprintf(w, `{"BillingCurrency":"USD","CustomerEntityId":"Default","Items":[%s],"NextPageLink":null,"Count":%d}`, body, len(items))
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

func listed(meter, price, unit, id string) string {
	return fmt.Sprintf(`{"currencyCode":"USD","tierMinimumUnits":0.0,"retailPrice":%s,"unitPrice":%s,"armRegionName":"eastus","location":"US East",
		"effectiveStartDate":"2026-02-01T00:00:00Z","meterId":%q,"meterName":%q,"productName":"Azure OpenAI","skuName":"x",
		"serviceName":"Foundry Models","unitOfMeasure":%q,"type":"Consumption","isPrimaryMeterRegion":true}`, price, price, id, meter, unit)
}

func TestPricesRefresh(t *testing.T) {
	dir := t.TempDir()
	out, report, arm := filepath.Join(dir, "prices.json"), filepath.Join(dir, "report.json"), filepath.Join(dir, "arm.json")
	good := []string{
		listed("gpt 4.1 Inp glbl Tokens", "0.003", "1K", "a"), listed("gpt 4.1 Outp glbl Tokens", "9e-3", "1K", "b"),
		listed("gpt 4.1 Inp regnl Tokens", "0.0033", "1K", "c"), listed("gpt 4.1 Outp regnl Tokens", "0.0099", "1K", "d"),
		listed("Model 9 In", "7", "1M", "e"), listed("Model 9 Opt", "8", "1M", "f"),
	}
	var stdout, stderr bytes.Buffer
	env := map[string]string{}
	f := func(want int, args ...string) {
		t.Helper()
		stdout.Reset()
		stderr.Reset()
		got := run(t.Context(), append([]string{"prices", "refresh"}, args...), func(name string) string { return env[name] }, &stdout, &stderr)
		if got != want {
			t.Fatalf("%v: exit %d, want %d\n%s", args, got, want, stderr.String())
		}
	}
	address, asked := priceList(t, http.StatusOK, good...)

	f(exitOK, "-endpoint", address, "-out", out, "-report", report)
	file, err := os.ReadFile(out)
	if err != nil || stdout.Len() != 0 {
		t.Fatal(err, stdout.String())
	}
	overlay, err := pricing.Parse(file)
	if err != nil || !strings.HasPrefix(overlay.Version(), "retail-20") {
		t.Fatal(err, overlay.Version())
	}
	book := pricing.Builtin().With(overlay)
	for _, q := range []pricing.Query{
		{Model: "gpt-4.1"}, {Model: "gpt-4.1-2025-04-14"}, {Model: "gpt-4.1", Version: "2025-04-14", Region: "westus"},
	} {
		q.At = time.Now()
		if e, ok := book.Lookup(q); !ok || e.From.IsZero() || e.CtxIn == 0 {
			t.Errorf("%+v: %+v", q, e)
		} else if price, _ := e.Price("in"); price != 3_000_000 {
			t.Errorf("%+v: %d", q, price)
		}
	}
	var read struct {
		Items, Entries int
		Unmatched      []struct{ Meter string }
		Changed        []struct{ Permille int64 }
	}
	data, err := os.ReadFile(report)
	if err != nil || json.Unmarshal(data, &read) != nil || read.Items != 6 || len(read.Unmatched) != 2 || len(read.Changed) == 0 || read.Changed[0].Permille != 500 {
		t.Errorf("%v: %s", err, data)
	}
	if !strings.Contains(stderr.String(), "2000000 -> 3000000 pico-USD (+50.0 %)") {
		t.Error(stderr.String())
	}
	if strings.Contains((*asked)[0], "armRegionName") {
		t.Error("regions were asked for", *asked)
	}

	// With the new file as PRICES_FILE nothing has changed, and DEPLOYMENTS says which regions matter.
	env["PRICES_FILE"] = out
	env["DEPLOYMENTS"] = `{"a":{"model":"gpt-4.1","region":"East US"},"b":{"model":"gpt-4.1","region":"westus"}}`
	*asked = nil
	f(exitOK, "-endpoint", address)
	if stdout.String() != string(file) || strings.Contains(stderr.String(), "changed prices") {
		t.Errorf("%s\n%s", stdout.String(), stderr.String())
	}
	if len(*asked) != 2 || !strings.HasSuffix((*asked)[1], " and (armRegionName eq 'eastus' or armRegionName eq 'westus')") {
		t.Errorf("%q", *asked)
	}
	*asked = nil
	f(exitOK, "-endpoint", address, "-region", "North Europe", "-dry-run")
	if stdout.Len() != 0 || !strings.HasSuffix((*asked)[0], " and (armRegionName eq 'northeurope')") {
		t.Errorf("%s\n%q", stdout.String(), *asked)
	}
	env["DEPLOYMENTS"] = `{"a":{"model":"gpt-4.1","region":"eu"},"b":{"model":"gpt-4.1","region":"westus"}}`
	*asked = nil
	if f(exitOK, "-endpoint", address); strings.Contains((*asked)[0], "armRegionName") {
		t.Errorf("%q", *asked)
	}
	clear(env)

	// A meter can be known by id.
	const list = `{"value":[{"model":{"format":"OpenAI","name":"gpt-9","version":"2026-09-09","skus":[
		{"name":"GlobalStandard","cost":[{"name":"ContextToken","meterId":"E"},{"name":"GeneratedToken","meterId":"F"}]}]}}]}`
	if err := os.WriteFile(arm, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	f(exitOK, "-endpoint", address, "-arm", arm, "-arm", arm)
	if !strings.Contains(stdout.String(), `{"model":"gpt-9","version":"2026-09-09","sku":"GlobalStandard","mode":"chat","from":"2026-02-01","pico_usd":{"in":7000000,"out":8000000}}`) {
		t.Error(stdout.String())
	}

	// What is refused, or cannot be fetched, changes no file.
	before, _ := os.Stat(out)
	refused, _ := priceList(t, http.StatusOK, append(good, listed("gpt 4.1 mini Inp glbl Tokens", "1", "1", "g"))...)
	f(exitOK, "-endpoint", refused, "-dry-run", "-strict=false")
	f(exitFailed, "-endpoint", refused, "-out", out, "-strict")
	two, _ := priceList(t, http.StatusOK, append(good, listed("gpt 4.1 Inp Gl Tokens", "0.002", "1K", "h"))...) // another price of the same
	f(exitOK, "-endpoint", two, "-dry-run")
	f(exitFailed, "-endpoint", two, "-out", out, "-strict")
	if !strings.Contains(stderr.String(), "0 meters were refused, 1 are in conflict") {
		t.Error(stderr.String())
	}
	empty, _ := priceList(t, http.StatusOK)
	f(exitFailed, "-endpoint", empty, "-out", out)
	gone, _ := priceList(t, http.StatusNotFound)
	f(exitUnknown, "-endpoint", gone, "-out", out)
	f(exitSettings, "-endpoint", address, "-model", "a b")
	f(exitSettings, "-endpoint", address, "-arm", filepath.Join(dir, "none"))
	f(exitSettings, "-endpoint", address, "-arm", out)
	f(exitSettings, "-endpoint", address, "extra")
	env["PRICES_FILE"] = filepath.Join(dir, "none")
	f(exitSettings, "-endpoint", address)
	env["PRICES_FILE"] = `{"prices":[{"model":"gpt-4.1","pico_usd":{"in":1000000,"out":1000000}}]}`
	if f(exitOK, "-endpoint", address); !strings.Contains(stderr.String(), "warning: PRICES_FILE: price gpt-4.1/*/*/* does not count") {
		t.Error(stderr.String())
	}
	clear(env)
	f(exitFailed, "-endpoint", address, "-out", filepath.Join(dir, "no", "folder"))
	after, _ := os.Stat(out)
	if files, _ := os.ReadDir(dir); !after.ModTime().Equal(before.ModTime()) || len(files) != 3 {
		t.Errorf("files were written: %v", files)
	}
	if got := run(t.Context(), []string{"prices"}, func(string) string { return "" }, &stdout, &stderr); got != exitSettings {
		t.Errorf("exit %d", got)
	}
}

func TestReplaceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(path)
	if info, err := os.Stat(path); err != nil || string(data) != "new" || info.Mode().Perm() != 0o640 {
		t.Errorf("%q, %v, %v", data, info.Mode(), err)
	}
}
