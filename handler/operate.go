package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/costgate/costgate/handler/internal/audit"
	"github.com/costgate/costgate/handler/internal/export"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/telemetry"
)

// exitUnknown: a command for operators could not find out what it was asked.
const exitUnknown = 2

// databaseFile is the embedded store, in DATA_DIR.
const databaseFile = "costgate.db"

// openBooks opens the ledger for a command that serves nothing. An embedded
// store must be there: these commands make none. An error is printed.
func openBooks(ctx context.Context, command string, getenv func(string) string, stderr io.Writer) (books *ledger.Ledger, closeBooks func(), ok bool) {
	config, err := ParseConfig(defaultListen, func(name string) string {
		if v := getenv(name); v != "" || name != "ADMIN_KEY" {
			return v
		}
		return "unused-by-commands" // only serving needs it
	})
	if err != nil {
		fmt.Fprintf(stderr, "gateway: bad settings:\n%v\n", err)
		return nil, nil, false
	}
	if config.Storage == "" && config.StorageURI == "" {
		if _, err := os.Stat(filepath.Join(config.DataDir, databaseFile)); err != nil {
			fmt.Fprintf(stderr, "gateway %s: DATA_DIR: no books are here: %v\n", command, err)
			return nil, nil, false
		}
	}
	app := NewApp(config, telemetry.NewLogger(stderr, config.LogLevel))
	if err := app.openStore(ctx); err != nil {
		fmt.Fprintf(stderr, "gateway %s: %v\n", command, err)
		return nil, nil, false
	}
	return ledger.New(app.store, ledger.Options{}), func() { _ = app.Close() }, true
}

// verifyCommand compares the books of all products, or of one, with their rows,
// and a lake with them. It ends with 0 if all agree, with 1 if something differs,
// and with 2 if it could not find out.
func verifyCommand(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var only, folder string
	var asJSON bool
	err := parseFlags("gateway verify", args, stderr, func(set *flag.FlagSet) {
		set.StringVar(&only, "product", "", "")
		set.StringVar(&folder, "lake", "", "")
		set.BoolVar(&asJSON, "json", false, "")
	})
	if err != nil {
		return exitSettings
	}
	books, closeBooks, ok := openBooks(ctx, "verify", getenv, stderr)
	if !ok {
		return exitUnknown
	}
	defer closeBooks()
	products, err := books.Products(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "gateway verify: %v\n", err)
		return exitUnknown
	}
	differences := []ledger.Difference{}
	var checked []string
	for _, p := range products {
		if only != "" && p.ID != only {
			continue
		}
		found, err := books.Verify(ctx, p.ID)
		if err != nil {
			fmt.Fprintf(stderr, "gateway verify: %s: %v\n", p.ID, err)
			return exitUnknown
		}
		checked = append(checked, p.ID)
		differences = append(differences, found...)
	}
	if only != "" && len(checked) == 0 {
		fmt.Fprintf(stderr, "gateway verify: no product %q\n", only)
		return exitUnknown
	}
	var arrived *lakeReport
	if folder != "" {
		if arrived, err = compareLake(ctx, books, checked, only == "", folder); err != nil {
			fmt.Fprintf(stderr, "gateway verify: lake: %v\n", err)
			return exitUnknown
		}
	}
	if asJSON {
		report := map[string]any{"products": len(checked), "differences": differences}
		if arrived != nil {
			report["lake"] = arrived
		}
		_ = json.NewEncoder(stdout).Encode(report)
	} else {
		for _, d := range differences {
			fmt.Fprintf(stdout, "%s %s %s\n", d.Product, d.Period, d.What)
		}
		fmt.Fprintf(stdout, "%d products checked, %d differences\n", len(checked), len(differences))
		printLake(stdout, arrived)
	}
	if len(differences) > 0 || arrived != nil && len(arrived.Findings) > 0 {
		return exitFailed
	}
	return exitOK
}

// lakeReport is what was read of a lake, and how it compares.
type lakeReport struct {
	Files      int   `json:"files"`
	Unfinished int64 `json:"unfinished"` // last lines without their end, passed over: they were not acknowledged
	*audit.Report
}

// compareLake holds a lake, a folder of JSON lines or of Capture files, against
// the books.
func compareLake(ctx context.Context, books *ledger.Ledger, products []string, all bool, folder string) (*lakeReport, error) {
	var read export.Reading
	report, err := audit.Compare(ctx, books, products, all, func(visit func(audit.Line)) (err error) {
		read, err = export.Read(ctx, folder, func(file string, line int64, record []byte) error {
			visit(audit.Line{File: file, Number: line, Record: record})
			return nil
		}, func(e export.LineError) { visit(audit.Line{File: e.File, Number: e.Line, Broken: e.Reason}) })
		return err
	})
	if err != nil {
		return nil, err
	}
	return &lakeReport{read.Files, read.Unfinished, report}, nil
}

func printLake(stdout io.Writer, r *lakeReport) {
	if r == nil {
		return
	}
	say := func(format string, args ...any) { fmt.Fprintf(stdout, "lake: "+format+"\n", args...) }
	for _, f := range r.Findings {
		var words []string
		for _, word := range []string{f.Product, f.Period, f.ID, f.What} {
			if word != "" {
				words = append(words, word)
			}
		}
		say("%s", strings.Join(words, " "))
	}
	if r.More > 0 {
		say("and %d more", r.More)
	}
	say("%d records in %d lines of %d files, %d lines are doubles", r.Distinct, r.Lines, r.Files, r.Doubled)
	if r.Unfinished > 0 {
		say("%d last lines without their end passed over", r.Unfinished)
	}
	if r.Broken > 0 {
		say("%d LINES OR FILES CANNOT BE READ", r.Broken)
	}
	deleted := ""
	if r.Deleted > 0 {
		deleted = fmt.Sprintf(", and the sum of %d that it deleted", r.Deleted)
	}
	say("the ledger has %d records%s", r.Records, deleted)
	say("cost: %s USD in the lake, %s USD in the ledger", money.Nano(r.CostNanoUSD), money.Nano(r.LedgerCostNanoUSD))
	if r.Waiting > 0 {
		say("%d RECORDS ARE ON THEIR WAY, which is no difference: the lake lacks their %s USD until they are sent", r.Waiting, money.Nano(r.WaitingCostNanoUSD))
	}
	say("%d differences", int64(len(r.Findings))+r.More)
}

// correctCommand sets a swept record to what its request really cost.
func correctCommand(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var product, record, cost, by string
	var tokens int64
	err := parseFlags("gateway correct", args, stderr, func(set *flag.FlagSet) {
		set.StringVar(&product, "product", "", "")
		set.StringVar(&record, "record", "", "")
		set.StringVar(&cost, "cost", "", "")
		set.StringVar(&by, "by", "", "")
		set.Int64Var(&tokens, "tokens", -1, "")
	})
	if err != nil {
		return exitSettings
	}
	fail := func(code int, format string, args ...any) int {
		fmt.Fprintf(stderr, "gateway correct: "+format+"\n", args...)
		return code
	}
	if product == "" || record == "" || cost == "" {
		return fail(exitSettings, "-product, -record and -cost are required")
	}
	nano, err := money.ParseNano(cost)
	if err != nil || nano < 0 {
		return fail(exitSettings, "-cost %q is not an amount in USD with at most 9 decimals, such as 0.0123", cost)
	}
	if by == "" {
		by = "gateway correct"
		if who, err := user.Current(); err == nil {
			by = who.Username
		}
	}
	books, closeBooks, ok := openBooks(ctx, "correct", getenv, stderr)
	if !ok {
		return exitUnknown
	}
	defer closeBooks()
	p, err := books.Find(ctx, product)
	if err != nil {
		return fail(exitUnknown, "product %q: %v", product, err)
	}
	amend := ledger.Amendment{Charge: int64(nano), CostNanoUSD: int64(nano), By: by}
	if p.Unit == quota.UnitTokens {
		if amend.Charge = tokens; tokens < 0 {
			return fail(exitSettings, "the product counts tokens: -tokens is required")
		}
	}
	amended, err := books.Amend(ctx, p.ID, record, amend)
	switch {
	case errors.Is(err, ledger.ErrUnknownRecord), errors.Is(err, ledger.ErrNotSwept):
		return fail(exitFailed, "record %q: %v", record, err)
	case err != nil:
		return fail(exitUnknown, "record %q: %v", record, err)
	}
	_ = json.NewEncoder(stdout).Encode(&amended)
	return exitOK
}
