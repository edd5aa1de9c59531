package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/usage"
)

// priceBook is the book that the settings make, and what the deployments are.
// file takes the place of PRICES_FILE if it is not empty.
func priceBook(getenv func(string) string, file string) (book *pricing.Book, deployments map[string]pricing.Deployment, err error) {
	config := Config{}
	config.readPrices(func(name string) string {
		if name == "PRICES_FILE" && file != "" {
			return file
		}
		return getenv(name)
	}, func(name, format string, args ...any) {
		err = errors.Join(err, &settingError{name, fmt.Sprintf(format, args...)})
	})
	if err != nil {
		return nil, nil, err
	}
	book = pricing.Builtin()
	if config.Prices != nil {
		book = book.With(config.Prices)
	}
	return book, config.Deployments, nil
}

// priceQuery is what `gateway price` is asked.
type priceQuery struct {
	pricing.Query
	deployment             string
	tier                   string
	prompt, cached, output int64
}

// priceAnswer is what it answers, with -json as it is.
type priceAnswer struct {
	Book          string              `json:"price_book"`
	Source        string              `json:"source"`
	Key           string              `json:"price_key"`
	Mode          pricing.Mode        `json:"mode"`
	LongThreshold int64               `json:"long_threshold"`
	CtxIn         int64               `json:"ctx_in"`
	MaxOut        int64               `json:"max_out"`
	Spillover     bool                `json:"spillover"`
	AgreementPPM  int64               `json:"agreement_ppm"`
	EntryPPM      int64               `json:"entry_ppm"`
	Bands         []pricing.Band      `json:"bands"`
	Items         []pricing.Figure    `json:"items"`
	How           pricing.Explanation `json:"how"`
	Cost          *priceCost          `json:"cost"`
}

type priceCost struct {
	Prompt  int64      `json:"prompt_tokens"`
	Cached  int64      `json:"cached_tokens"`
	Output  int64      `json:"completion_tokens"`
	Tier    string     `json:"service_tier"`
	List    money.Nano `json:"list_cost_nano_usd"`
	Charged money.Nano `json:"cost_nano_usd"`
}

// priceCommand prints a price and the rule that chose it.
func priceCommand(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	q, at, mode, asJSON := priceQuery{}, "", "", false
	err := parseFlags("gateway price", args, stderr, func(set *flag.FlagSet) {
		set.StringVar(&q.Model, "model", "", "")
		set.StringVar(&q.Version, "version", "", "")
		set.StringVar(&q.SKU, "sku", "", "")
		set.StringVar(&q.Region, "region", "", "")
		set.StringVar(&mode, "mode", "", "")
		set.StringVar(&q.Quality, "quality", "", "")
		set.StringVar(&q.Size, "size", "", "")
		set.StringVar(&q.tier, "tier", "", "")
		set.StringVar(&q.deployment, "deployment", "", "")
		set.StringVar(&at, "at", "", "")
		set.Int64Var(&q.prompt, "prompt", 0, "")
		set.Int64Var(&q.cached, "cached", 0, "")
		set.Int64Var(&q.output, "output", 0, "")
		set.BoolVar(&asJSON, "json", false, "")
	})
	if err != nil {
		return exitSettings
	}
	fail := func(code int, format string, args ...any) int {
		fmt.Fprintf(stderr, "gateway price: "+format+"\n", args...)
		return code
	}
	if q.Mode = pricing.Mode(mode); q.Model == "" && q.deployment == "" {
		return fail(exitSettings, "-model or -deployment is required")
	}
	if q.At, err = parseMoment(at); err != nil {
		return fail(exitSettings, "-at %q: %v", at, err)
	}
	if q.prompt < 0 || q.cached < 0 || q.output < 0 {
		return fail(exitSettings, "numbers of tokens are not negative")
	}
	book, deployments, err := priceBook(getenv, "")
	if err != nil {
		return fail(exitSettings, "bad settings:\n%v", err)
	}
	q.ofDeployment(deployments)
	entry, how, found := q.find(book)
	if !found {
		for _, step := range how.Steps {
			fmt.Fprintln(stderr, "  "+step)
		}
		return fail(exitFailed, "no price for model %q, version %q, SKU %q, region %q, mode %q: name the deployment's model in DEPLOYMENTS, "+
			"or add an entry to PRICES_FILE (docs/PRICING.md)", q.Model, q.Version, q.SKU, q.Region, q.Mode)
	}
	answer := priceAnswer{
		Book: book.Version(), Source: book.Source(), Key: entry.Key, Mode: entry.Mode, LongThreshold: entry.LongThreshold,
		CtxIn: entry.CtxIn, MaxOut: entry.MaxOut, Spillover: entry.Spillover, Bands: entry.Bands(), Items: entry.Items(), How: how,
	}
	answer.AgreementPPM, answer.EntryPPM, _ = entry.Multipliers()
	if q.prompt > 0 || q.output > 0 {
		cost, err := entry.Charge(q.usage(), nil, q.tier)
		if err != nil {
			return fail(exitFailed, "%s: %v", entry.Key, err)
		}
		answer.Cost = &priceCost{q.prompt, q.cached, q.output, q.tier, cost.List, cost.Charged}
	}
	if asJSON {
		_ = json.NewEncoder(stdout).Encode(&answer)
	} else {
		answer.print(stdout)
	}
	return exitOK
}

// parseMoment reads a day (its first moment, UTC) or a time. Nothing is now.
func parseMoment(s string) (time.Time, error) {
	if s == "" {
		return time.Now(), nil
	}
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day, nil
	}
	moment, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return moment, errors.New("write it like 2026-01-31 (UTC) or 2026-01-31T12:00:00Z")
	}
	return moment, nil
}

func (q *priceQuery) usage() usage.Usage {
	return usage.Usage{Prompt: usage.Of(q.prompt), Cached: usage.Of(q.cached), Completion: usage.Of(q.output)}
}

// ofDeployment completes the query by what DEPLOYMENTS says. The name of one
// that it does not list is read as a model's, as everywhere.
func (q *priceQuery) ofDeployment(deployments map[string]pricing.Deployment) {
	if q.deployment == "" {
		return
	}
	d, listed := deployments[strings.ToLower(q.deployment)]
	if !listed {
		d = pricing.Deployment{Model: q.deployment}
	}
	for field, value := range map[*string]string{&q.Model: d.Model, &q.Version: d.Version, &q.SKU: d.SKU, &q.Region: d.Region} {
		if *field == "" {
			*field = value
		}
	}
}

// find looks the price up in the mode asked for, else in the first that has one.
func (q *priceQuery) find(book *pricing.Book) (entry pricing.Entry, how pricing.Explanation, found bool) {
	modes := []pricing.Mode{q.Mode}
	if q.Mode == "" {
		modes = pricing.Modes()
	}
	asked := q.Query
	for _, asked.Mode = range modes {
		if entry, found, how = book.Explain(asked); found {
			break
		}
	}
	return entry, how, found
}

func (a *priceAnswer) print(w io.Writer) {
	fmt.Fprintf(w, "%s   (mode %s, price book %s)\n\nwhy:\n", a.Key, a.Mode, a.Book)
	for _, step := range a.How.Steps {
		fmt.Fprintf(w, "  %s\n", step)
	}
	if a.Spillover {
		fmt.Fprintf(w, "  what the provisioned capacity serves itself costs nothing more; this is what it passes on\n")
	}
	fmt.Fprintf(w, "\ncandidates:\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range a.How.Candidates {
		mark := " "
		if c.Chosen {
			mark = "*"
		}
		fmt.Fprintf(table, "%s %s\t%s\n", mark, c.Key, c.Why)
	}
	_ = table.Flush()
	a.printBands(w)
	if len(a.Items) > 0 {
		fmt.Fprintf(w, "\nUSD per unit:\n")
		for _, f := range a.Items {
			fmt.Fprintf(table, "  %s\t%s\n", f.Meter, decimal(int64(f.Pico), 12))
		}
		_ = table.Flush()
	}
	if a.AgreementPPM != money.PPM || a.EntryPPM != money.PPM {
		fmt.Fprintf(w, "\ncharged at: list x %s (multiplier_ppm of the file) x %s (of the entry)\n", decimal(a.AgreementPPM, 6), decimal(a.EntryPPM, 6))
	}
	if c := a.Cost; c != nil {
		fmt.Fprintf(w, "\n%d prompt tokens, %d of them cached, and %d output tokens: list %s USD, charged %s USD\n",
			c.Prompt, c.Cached, c.Output, c.List, c.Charged)
	}
}

func (a *priceAnswer) printBands(w io.Writer) {
	if len(a.Bands) == 0 {
		return
	}
	fmt.Fprintf(w, "\nUSD per million tokens (~: by a rule, not in a price file)")
	if a.LongThreshold > 0 {
		fmt.Fprintf(w, "; long: prompts above %d tokens", a.LongThreshold)
	}
	fmt.Fprintln(w, ":")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, band := range a.Bands {
		fmt.Fprintf(table, "\t%s", band.Name)
	}
	fmt.Fprintln(table)
	for i, f := range a.Bands[0].Figures {
		fmt.Fprintf(table, "  %s", f.Meter)
		for _, band := range a.Bands {
			mark := "~"
			if band.Figures[i].Given {
				mark = ""
			}
			fmt.Fprintf(table, "\t%s%s", mark, decimal(int64(band.Figures[i].Pico), 6))
		}
		fmt.Fprintln(table)
	}
	_ = table.Flush()
}

// decimal writes n / 10^places without trailing zeros. n is not negative.
func decimal(n int64, places int) string {
	digits := fmt.Sprintf("%0*d", places+1, n)
	whole, fraction := digits[:len(digits)-places], strings.TrimRight(digits[len(digits)-places:], "0")
	if fraction == "" {
		return whole
	}
	return whole + "." + fraction
}
