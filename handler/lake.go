package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/costgate/costgate/handler/internal/export"
)

// lakeCommand has one verb.
func lakeCommand(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "export" {
		fmt.Fprintf(stderr, "gateway lake: say what to do: gateway lake export\n\n%s", usageText)
		return exitSettings
	}
	return exportCommand(ctx, args[1:], getenv, stdout, stderr)
}

// exportFlags are what `gateway lake export` can be told.
type exportFlags struct {
	options                   export.Options
	day, month, since, until  string
	format, prices            string
	billingAccount, billingAs string
	asJSON                    bool
}

// exportCommand writes a lake as files for analysts. It ends with 0 if the whole
// lake could be read, with 1 if a part of it could not or the files could not be
// written, and with 2 if it was told nonsense.
func exportCommand(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	f := exportFlags{billingAccount: "costgate", billingAs: "Costgate"}
	o := &f.options
	err := parseFlags("gateway lake export", args, stderr, func(set *flag.FlagSet) {
		set.StringVar(&o.From, "from", "", "")
		set.StringVar(&o.To, "to", export.Stdout, "")
		set.StringVar(&f.format, "format", "", "")
		set.StringVar(&o.Partition, "partition", "", "")
		set.StringVar(&f.day, "day", "", "")
		set.StringVar(&f.month, "month", "", "")
		set.StringVar(&f.since, "since", "", "")
		set.StringVar(&f.until, "until", "", "")
		set.StringVar(&o.Product, "product", "", "")
		set.BoolVar(&o.Strict, "strict", false, "")
		set.StringVar(&f.prices, "prices", "", "")
		set.StringVar(&f.billingAccount, "billing-account", f.billingAccount, "")
		set.StringVar(&f.billingAs, "billing-account-name", f.billingAs, "")
		set.BoolVar(&f.asJSON, "json", false, "")
	})
	if err != nil {
		return exitSettings
	}
	fail := func(code int, err error) int {
		fmt.Fprintf(stderr, "gateway lake export: %v\n", err)
		return code
	}
	if err := f.read(getenv); err != nil {
		return fail(exitSettings, err)
	}
	report, err := export.Run(ctx, *o, stdout)
	if report != nil && f.asJSON {
		_ = json.NewEncoder(stdout).Encode(report)
	} else if report != nil {
		printReport(stderr, report)
	}
	switch {
	case errors.Is(err, export.ErrOptions):
		return fail(exitSettings, err)
	case err != nil:
		return fail(exitFailed, err)
	case !report.Clean():
		return exitFailed
	}
	return exitOK
}

// read turns the flags into options.
func (f *exportFlags) read(getenv func(string) string) (err error) {
	o := &f.options
	o.Format = export.Format(f.format)
	if f.asJSON && o.To == export.Stdout {
		return errors.New("-json needs the standard output: say with -to where the data goes")
	}
	given := 0
	for _, text := range []string{f.day, f.month, f.since + f.until} {
		if text != "" {
			given++
		}
	}
	if given > 1 {
		return errors.New("-day, -month and -since with -until exclude each other")
	}
	switch {
	case f.day != "":
		if o.Since, err = time.Parse(time.DateOnly, f.day); err != nil {
			return fmt.Errorf("-day %q: write a day like 2026-11-24 (UTC)", f.day)
		}
		o.Until = o.Since.AddDate(0, 0, 1)
	case f.month != "":
		if o.Since, err = time.Parse("2006-01", f.month); err != nil {
			return fmt.Errorf("-month %q: write a month like 2026-11 (UTC)", f.month)
		}
		o.Until = o.Since.AddDate(0, 1, 0)
	}
	if f.since != "" {
		if o.Since, err = parseTime("-since", f.since); err != nil {
			return err
		}
	}
	if f.until != "" {
		if o.Until, err = parseTime("-until", f.until); err != nil {
			return err
		}
	}
	if o.Format != export.FOCUS {
		return nil
	}
	o.BillingAccount, o.BillingName = f.billingAccount, f.billingAs
	o.Prices, _, err = priceBook(getenv, f.prices)
	return err
}

func parseTime(name, text string) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s %q: write a day like 2026-11-24 (UTC) or an RFC 3339 time", name, text)
}

// printReport tells people what was exported.
func printReport(w io.Writer, r *export.Report) {
	fmt.Fprintf(w, "%d files, %d records read: %d exported in %d rows, %s USD\n", r.Files, r.Read, r.Records, r.Rows, r.Cost)
	for _, line := range []struct {
		n    int64
		what string
	}{
		{r.Doubles, "doubles left out"},
		{r.Superseded, "earlier revisions left out"},
		{r.Excluded, "of another time or product"},
		{r.Unfinished, "last lines without their end passed over"},
		{r.NoMoney, "records without a cost, which FOCUS has no row for"},
		{r.Unsplit, "records in one row: the price book does not say what their meters cost"},
		{r.Altered, "DOUBLES THAT DIFFER from the first one that was read"},
		{r.Bad, "LINES THAT WERE NOT EXPORTED"},
	} {
		if line.n > 0 {
			fmt.Fprintf(w, "  %d %s\n", line.n, line.what)
		}
	}
	for _, bad := range r.BadLines {
		fmt.Fprintf(w, "    %v\n", bad)
	}
	if more := r.Bad - int64(len(r.BadLines)); more > 0 {
		fmt.Fprintf(w, "    and %d more\n", more)
	}
	for _, name := range r.Outputs {
		fmt.Fprintln(w, name)
	}
}
