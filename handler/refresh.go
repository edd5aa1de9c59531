package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/retail"
)

// pricesCommand has one verb.
func pricesCommand(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "refresh" {
		fmt.Fprintf(stderr, "gateway prices: say what to do: gateway prices refresh\n\n%s", usageText)
		return exitSettings
	}
	return refreshCommand(ctx, args[1:], getenv, stdout, stderr)
}

// texts is a flag that can be given several times.
type texts []string

func (t *texts) String() string { return strings.Join(*t, ",") }

func (t *texts) Set(text string) error {
	*t = append(*t, text)
	return nil
}

// refreshFlags are what `gateway prices refresh` can be told.
type refreshFlags struct {
	endpoint, out, report string
	regions, models, arm  texts
	strict, dryRun        bool
}

// refreshCommand makes a price file from Azure's price list. It ends with 0 if
// it wrote the file, with 1 if it had reason not to, and with 2 if it could not
// find out.
func refreshCommand(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	f := refreshFlags{endpoint: retail.DefaultEndpoint, out: "-"}
	err := parseFlags("gateway prices refresh", args, stderr, func(set *flag.FlagSet) {
		set.StringVar(&f.endpoint, "endpoint", f.endpoint, "")
		set.StringVar(&f.out, "out", f.out, "")
		set.StringVar(&f.report, "report", "", "")
		set.Var(&f.regions, "region", "")
		set.Var(&f.models, "model", "")
		set.Var(&f.arm, "arm", "")
		set.BoolVar(&f.strict, "strict", false, "")
		set.BoolVar(&f.dryRun, "dry-run", false, "")
	})
	if err != nil {
		return exitSettings
	}
	fail := func(code int, err error) int {
		fmt.Fprintf(stderr, "gateway prices refresh: %v\n", err)
		return code
	}
	in, regions, err := f.input(getenv)
	if err != nil {
		return fail(exitSettings, err)
	}
	warnShadowed(in.Current, stderr)
	client := retail.Client{Endpoint: f.endpoint}
	if in.Items, err = client.Fetch(ctx, regions); err != nil {
		return fail(exitUnknown, fmt.Errorf("nothing is written: %w", err))
	}
	result, err := retail.Build(in)
	if result != nil {
		result.Report.WriteText(stderr)
		if err := f.writeReport(result.Report); err != nil {
			return fail(exitFailed, err)
		}
	}
	switch {
	case err != nil:
		return fail(exitFailed, fmt.Errorf("nothing is written: %w", err))
	case f.strict && len(result.Report.Refused)+len(result.Report.Conflicts) > 0:
		return fail(exitFailed, fmt.Errorf("nothing is written: %d meters were refused, %d are in conflict, and -strict is set",
			len(result.Report.Refused), len(result.Report.Conflicts)))
	case f.dryRun:
		return exitOK
	case f.out == "-":
		_, err = stdout.Write(result.File)
	default:
		err = replaceFile(f.out, result.File)
	}
	if err != nil {
		return fail(exitFailed, err)
	}
	return exitOK
}

// input is what a book is made of but for the prices, and the regions to ask
// for: those of the flags, else those of DEPLOYMENTS, else all.
func (f *refreshFlags) input(getenv func(string) string) (in retail.Input, regions []string, err error) {
	in = retail.Input{Now: time.Now(), Source: f.endpoint}
	current, deployments, err := priceBook(getenv, "")
	if err != nil {
		return in, nil, err
	}
	in.Current = current
	added := slices.Clone([]string(f.models))
	for _, d := range deployments { // their versions are what the dates in meters' names can mean
		name, _ := pricing.NormalizeModel(d.Model)
		if again, version := pricing.NormalizeModel(name + "-" + d.Version); again == name && version != "" {
			added = append(added, name+"-"+d.Version)
		}
	}
	if in.Catalog, err = retail.NewCatalog(in.Current, added); err != nil {
		return in, nil, err
	}
	for _, path := range f.arm {
		data, err := os.ReadFile(path)
		if err != nil {
			return in, nil, err
		}
		list, err := retail.ParseARM(data)
		if err != nil {
			return in, nil, fmt.Errorf("%s: %w", path, err)
		}
		if in.ARM == nil {
			in.ARM = list
		} else {
			in.ARM.Add(list)
		}
	}
	return in, f.askedRegions(deployments), nil
}

func (f *refreshFlags) askedRegions(deployments map[string]pricing.Deployment) []string {
	regions := slices.Clone([]string(f.regions))
	if len(regions) == 0 {
		for _, d := range deployments {
			if d.Region == "us" || d.Region == "eu" {
				return nil // a zone is many regions
			}
			if d.Region != "" {
				regions = append(regions, d.Region)
			}
		}
	}
	for i, region := range regions {
		regions[i] = strings.ToLower(strings.ReplaceAll(region, " ", ""))
	}
	slices.Sort(regions)
	return slices.Compact(regions)
}

func (f *refreshFlags) writeReport(report *retail.Report) error {
	if f.report == "" {
		return nil
	}
	data, err := report.JSON()
	if err != nil {
		return err
	}
	return replaceFile(f.report, data)
}

// replaceFile writes a file as a whole or not at all: a reader sees the old one
// or the new one. The new one has the old one's mode.
func replaceFile(path string, data []byte) (err error) {
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if _, err = file.Write(data); err != nil {
		return err
	}
	if err = file.Chmod(mode); err != nil {
		return err
	}
	if err = file.Sync(); err != nil {
		return err
	}
	if err = file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
