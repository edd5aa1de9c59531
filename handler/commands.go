package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/costgate/costgate/handler/internal/telemetry"
)

// Exit codes. A hosted process never ends with 0: the Functions host does not
// start such a handler again.
const (
	exitOK       = 0
	exitFailed   = 1
	exitSettings = 2
	exitStopped  = 143 // hosted, stopped by a signal
)

const defaultListen = "127.0.0.1:7071"

const usageText = `usage: gateway [command] [flags]

commands:
  (none)      serve: as a custom handler if FUNCTIONS_CUSTOMHANDLER_PORT is set, else standalone
  demo        serve standalone with a demo product; keys are kept in .demo.env
  simulator   serve the Azure OpenAI simulator alone
  verify      compare the books of every product with its records
  correct     set a swept record to what its request really cost
  price       print the price of a model, and the rule that chose it
  rerate      recompute the records of a day by the present price book, and show the differences
  lake export write the records of a lake as Parquet, CSV or FOCUS rows
  prices refresh
              make a price file from the Azure Retail Prices API
  import      make products of the quotas in the predecessor's table, with what they have left
  settings    print the table of settings
  help        print this

flags of serve, demo and simulator:
  -listen host:port   where to listen (default 127.0.0.1:7071; port 0: any)
flags of verify:
  -product id         only this one
  -lake dir           compare a lake with the records too: JSON lines or Capture files, in any depth
  -json               print JSON
flags of correct:
  -product id         the record's product
  -record id          the record; its usage_source is swept
  -cost usd           what the request cost, for example 0.0123
  -tokens n           how many tokens it had; of a product that counts tokens
  -by who             noted in the product's history
flags of price:
  -model name         a model, or -deployment name: one that DEPLOYMENTS lists
  -version, -sku, -region, -mode, -quality, -size
                      what else is known of it (default: of the deployment; -sku GlobalStandard; the first mode that has a price)
  -at date            2026-01-31 or an RFC 3339 time (default now)
  -prompt n, -cached n, -output n, -tier name
                      tokens to compute the cost of; the tier is auto, default, flex, priority or scale
  -use meter=n        what else was used, by the meters of price files, for example audio_in=500,
                      sec_in=60, per_image=2 or web_search_call=1; can be repeated
  -json               print JSON
flags of rerate:
  -day date           the day, UTC; required
  -product id         only this one
  -prices file        in place of PRICES_FILE
  -json               print JSON
flags of lake export:
  -from dir           the lake: JSON lines, files of Event Hubs Capture, or both; required
  -format name        parquet, csv or focus; required
  -to path            a file or a folder (default -: standard output, CSV only); focus in *.parquet is Parquet
  -day date, -month month, -since time, -until time
                      only records admitted then, UTC; -until is exclusive
  -product id         only this one
  -partition day      a folder of its own for each day, for example day=2026-11-24
  -strict             write nothing if a line cannot be read
  -prices file        of focus, in place of PRICES_FILE
  -billing-account id, -billing-account-name name
                      of focus (default costgate, Costgate)
  -json               print the report as JSON
flags of prices refresh:
  -out file           where to write the price file (default -: standard output)
  -report file        write the whole report here, as JSON
  -region name        an Azure region to ask for; can be repeated (default: those of DEPLOYMENTS, else all)
  -model name         a model that the price book does not know, dated or not, with =mode if it is not
                      chat, for example gpt-realtime-2.1=realtime; can be repeated
  -arm file           a list of models from Azure Resource Manager, to find meters by id; can be repeated
  -endpoint url       the price API (default https://prices.azure.com)
  -strict             write nothing if a meter was refused or two are in conflict
  -dry-run            write nothing but the report
flags of import:
  -table name         the predecessor's table, in the storage account of
  -uri url            this table service, by your Azure identity; or of the connection string in IMPORT_STORAGE
  -from file          in place of them, an export of the table: CSV or JSON
  -balances file      lines key,balance out of its Redis cache; they count instead of the table's
  -period name        total (default), month, week or day; the last three give the granted amount to each later period
  -time-zone name     of the periods (default UTC)
  -product name       only this product
  -apply              make the products; without it nothing is written
  -json               print JSON
`

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 && len(args[0]) > 0 && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	switch command {
	case "":
		return serveCommand(ctx, args, getenv, stdout, stderr, nil)
	case "demo":
		return demoCommand(ctx, args, getenv, stdout, stderr)
	case "simulator":
		return simulatorCommand(ctx, args, stdout, stderr)
	case "verify":
		return verifyCommand(ctx, args, getenv, stdout, stderr)
	case "correct":
		return correctCommand(ctx, args, getenv, stdout, stderr)
	case "price":
		return priceCommand(args, getenv, stdout, stderr)
	case "rerate":
		return rerateCommand(ctx, args, getenv, stdout, stderr)
	case "lake":
		return lakeCommand(ctx, args, getenv, stdout, stderr)
	case "prices":
		return pricesCommand(ctx, args, getenv, stdout, stderr)
	case "import":
		return importCommand(ctx, args, getenv, stdout, stderr)
	case "settings":
		_, _ = io.WriteString(stdout, settingsTable())
		return exitOK
	case "help":
		_, _ = io.WriteString(stdout, usageText)
		return exitOK
	}
	fmt.Fprintf(stderr, "gateway: unknown command %q\n\n%s", command, usageText)
	return exitSettings
}

func parseFlags(name string, args []string, stderr io.Writer, define func(*flag.FlagSet)) error {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() { _, _ = io.WriteString(stderr, usageText) }
	define(set)
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() > 0 {
		fmt.Fprintf(stderr, "gateway: unexpected argument %q\n", set.Arg(0))
		return errors.New("unexpected argument")
	}
	return nil
}

// serveCommand listens first and opens the parts behind it: the host waits for
// the port, and requests wait for the parts. opened is called when they are there.
func serveCommand(
	ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, opened func(*App, string) error,
) int {
	listen := defaultListen
	if err := parseFlags("gateway", args, stderr, func(set *flag.FlagSet) { set.StringVar(&listen, "listen", listen, "") }); err != nil {
		return exitSettings
	}
	config, err := ParseConfig(listen, getenv)
	if err != nil {
		fmt.Fprintf(stderr, "gateway: bad settings:\n%v\n", err)
		return exitSettings
	}
	app := NewApp(config, telemetry.NewLogger(stdout, config.LogLevel))
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		fmt.Fprintf(stderr, "gateway: cannot listen: %v\n", err)
		return exitFailed
	}
	address := "http://" + listener.Addr().String()
	fmt.Fprintf(stdout, "listening on %s\n", address)
	server := newServer(app)
	ctx = watchParent(ctx, config.Hosted)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = app.Open(ctx)
	if err == nil && opened != nil {
		err = opened(app, address)
	}
	if err == nil {
		select {
		case err = <-served:
		case <-ctx.Done():
		}
	}
	return shutdown(app, server, err, stderr)
}

// newServer has no read or write timeout: streams take as long as they take.
// Idle connections live longer than those of the host's pool, which would
// otherwise meet closed ones.
func newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: time.Minute, IdleTimeout: 6 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // what clients do to connections is no news
	}
}

func shutdown(app *App, server *http.Server, err error, stderr io.Writer) int {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	_ = server.Shutdown(ctx) // streams longer than that are cut; their holds are settled by drain or swept
	if closeErr := app.Close(); closeErr != nil {
		fmt.Fprintf(stderr, "gateway: %v\n", closeErr)
	}
	bad := (*settingError)(nil)
	switch {
	case errors.As(err, &bad):
		fmt.Fprintf(stderr, "gateway: bad settings:\n%v\n", err)
		return exitSettings
	case err != nil && !errors.Is(err, context.Canceled):
		fmt.Fprintf(stderr, "gateway: %v\n", err)
		return exitFailed
	case app.config.Hosted:
		return exitStopped
	}
	return exitOK
}

// settingsTable is the README's table.
func settingsTable() string {
	table := "| setting | meaning | default |\n|---|---|---|\n"
	for _, s := range settings {
		table += fmt.Sprintf("| `%s` | %s | %s |\n", s.name, s.meaning, s.fallback)
	}
	return table
}

// watchParent ends a hosted process whose host is gone: nothing else would.
func watchParent(ctx context.Context, hosted bool) context.Context {
	if !hosted || os.Getppid() == 1 {
		return ctx
	}
	parent := os.Getppid()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for ctx.Err() == nil && os.Getppid() == parent {
			time.Sleep(2 * time.Second)
		}
		cancel()
	}()
	return ctx
}
