package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/export"
	"github.com/costgate/costgate/handler/internal/usage"
)

// lakeFolder makes a lake of one file with a record at noon of each day.
func lakeFolder(t *testing.T, more string, days ...string) string {
	t.Helper()
	var out bytes.Buffer
	for i, day := range days {
		at, err := time.Parse(time.DateOnly, day)
		if err != nil {
			t.Fatal(err)
		}
		r := usage.Record{
			Schema: usage.RecordSchema, ID: "019abcde-0000-7000-8000-00000000000" + string(rune('0'+i)), Rev: 1, Kind: usage.KindRequest,
			Time: at.Add(12 * time.Hour), ProductID: usage.Text("p" + string(rune('0'+i))), Model: "gpt-4o", SKU: "GlobalStandard",
			PromptTokens: usage.Of(1000), CompletionTokens: usage.Of(100), CostNanoUSD: usage.Of(3_500_000), ListCostNanoUSD: usage.Of(3_500_000),
			PriceKey: "gpt-4o/2024-11-20/GlobalStandard/*",
		}
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(line, '\n'))
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "usage.jsonl"), append(out.Bytes(), more...), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLakeExport(t *testing.T) {
	dir := lakeFolder(t, "", "2026-10-31", "2026-11-01", "2026-11-02")
	f := func(want string, args ...string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"lake", "export", "-from", dir, "-format", "csv"}, args...), func(string) string { return "" }, &stdout, &stderr)
		if code != exitOK {
			t.Fatalf("%v: %d, %s", args, code, stderr.String())
		}
		var days []string
		for _, line := range strings.Split(strings.TrimSpace(stdout.String()), "\r\n")[1:] {
			days = append(days, strings.Split(line, ",")[4][:10])
		}
		if got := strings.Join(days, " "); got != want {
			t.Errorf("%v: %s", args, got)
		}
	}
	f("2026-10-31 2026-11-01 2026-11-02")
	f("2026-11-01", "-day", "2026-11-01")
	f("2026-11-01 2026-11-02", "-month", "2026-11")
	f("2026-11-01 2026-11-02", "-since", "2026-11-01")
	f("2026-10-31 2026-11-01", "-until", "2026-11-01T12:00:01Z")
	f("2026-11-01", "-since", "2026-11-01T13:00:00+01:00", "-until", "2026-11-02")
	f("2026-11-02", "-product", "p2")
}

func TestLakeExportReports(t *testing.T) {
	dir := lakeFolder(t, "no record\n", "2026-11-01")
	to := filepath.Join(t.TempDir(), "focus.parquet")
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"lake", "export", "-from", dir, "-format", "focus", "-to", to, "-json"}, func(string) string { return "" }, &stdout, &stderr)
	var report export.Report
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil || code != exitFailed {
		t.Fatalf("%d, %v: %s%s", code, err, stdout.String(), stderr.String())
	}
	if report.Bad != 1 || report.BadLines[0].Line != 2 || report.Rows != 2 || report.Cost != 3_500_000 || len(report.Outputs) != 1 || report.Outputs[0] != to {
		t.Errorf("%+v", report)
	}
	stdout.Reset()
	code = run(t.Context(), []string{"lake", "export", "-from", dir, "-format", "csv", "-to", filepath.Join(t.TempDir(), "x.csv")}, func(string) string { return "" }, &stdout, &stderr)
	if text := stderr.String(); code != exitFailed || stdout.Len() > 0 || !strings.Contains(text, "1 exported in 1 rows, 0.0035 USD") || !strings.Contains(text, "usage.jsonl:2: no record") {
		t.Errorf("%d: %s", code, text)
	}
}

func TestLakeExportRefuses(t *testing.T) {
	f := func(want string, code int, args ...string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), args, func(string) string { return "" }, &stdout, &stderr); got != code || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: %d, %s", args, got, stderr.String())
		}
	}
	dir := lakeFolder(t, "", "2026-11-01")
	given := func(args ...string) []string {
		return append([]string{"lake", "export", "-from", dir, "-format", "csv"}, args...)
	}
	f("say what to do", exitSettings, "lake")
	f("say what to do", exitSettings, "lake", "import")
	f("unknown format", exitSettings, "lake", "export", "-from", dir)
	f("where the lake is", exitSettings, "lake", "export", "-format", "csv")
	f("-day", exitSettings, given("-day", "yesterday")...)
	f("-month", exitSettings, given("-month", "2026-13")...)
	f("-since", exitSettings, given("-since", "now")...)
	f("-until", exitSettings, given("-until", "now")...)
	f("exclude each other", exitSettings, given("-day", "2026-11-01", "-until", "2026-11-02")...)
	f("-json needs the standard output", exitSettings, given("-json")...)
	f("only CSV", exitSettings, "lake", "export", "-from", dir, "-format", "parquet")
	f("no such file", exitSettings, "lake", "export", "-from", dir, "-format", "focus", "-prices", filepath.Join(dir, "none"))
	f("no such file", exitFailed, "lake", "export", "-from", filepath.Join(dir, "none"), "-format", "csv")
	f("no lake is here", exitFailed, "lake", "export", "-from", t.TempDir(), "-format", "csv")
}
