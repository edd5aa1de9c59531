package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
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

// warnShadowed tells of entries in PRICES_FILE that do not count as they look.
func warnShadowed(book *pricing.Book, stderr io.Writer) {
	for _, message := range book.Shadowed() {
		fmt.Fprintln(stderr, "warning: PRICES_FILE: "+message)
	}
}

// priceQuery is what `gateway price` is asked.
type priceQuery struct {
	pricing.Query
	deployment             string
	tier                   string
	prompt, cached, output int64
	uses                   uses
}

// tiers are the service tiers that Azure OpenAI names. All but priority cost the same.
var tiers = []string{"", "auto", "default", "flex", "priority", "scale"}

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
	Uses    uses       `json:"uses,omitempty"`
	Tier    string     `json:"service_tier"`
	List    money.Nano `json:"list_cost_nano_usd"`
	Charged money.Nano `json:"cost_nano_usd"`
}

// priceCommand prints a price and the rule that chose it.
func priceCommand(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	q, at, mode, asJSON := priceQuery{uses: uses{}}, "", "", false
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
		set.Var(q.uses, "use", "")
		set.BoolVar(&asJSON, "json", false, "")
	})
	if err != nil {
		return exitSettings
	}
	fail := func(code int, format string, args ...any) int {
		fmt.Fprintf(stderr, "gateway price: "+format+"\n", args...)
		return code
	}
	if err := q.read(mode, at); err != nil {
		return fail(exitSettings, "%v", err)
	}
	book, deployments, err := priceBook(getenv, "")
	if err != nil {
		return fail(exitSettings, "bad settings:\n%v", err)
	}
	warnShadowed(book, stderr)
	q.ofDeployment(deployments)
	entry, how, found := q.find(book)
	if !found {
		for _, step := range how.Steps {
			fmt.Fprintln(stderr, "  "+step)
		}
		q.explainProvisioned(book, stderr)
		return fail(exitFailed, "no price for model %q, version %q, SKU %q, region %q, mode %q: name the deployment's model in DEPLOYMENTS, "+
			"or add an entry to PRICES_FILE (docs/PRICING.md)", q.Model, q.Version, q.SKU, q.Region, q.Mode)
	}
	answer := priceAnswer{
		Book: book.Version(), Source: book.Source(), Key: entry.Key, Mode: entry.Mode, LongThreshold: entry.LongThreshold,
		CtxIn: entry.CtxIn, MaxOut: entry.MaxOut, Spillover: entry.Spillover, Bands: entry.Bands(), Items: entry.Items(), How: how,
	}
	answer.AgreementPPM, answer.EntryPPM, _ = entry.Multipliers()
	if q.prompt > 0 || q.output > 0 || len(q.uses) > 0 {
		cost, err := entry.Charge(q.usage(), q.uses.items(), q.tier)
		if err != nil {
			return fail(exitFailed, "%s: %v", entry.Key, err)
		}
		answer.Cost = &priceCost{q.prompt, q.cached, q.output, q.uses, q.tier, cost.List, cost.Charged}
	}
	if asJSON {
		_ = json.NewEncoder(stdout).Encode(&answer)
	} else {
		answer.print(stdout)
	}
	return exitOK
}

// read completes the query by flags that are texts, and checks it.
func (q *priceQuery) read(mode, at string) (err error) {
	if mode != "" {
		if q.Mode, err = pricing.ParseMode(mode); err != nil {
			return fmt.Errorf("-mode: %w", err)
		}
	}
	if q.At, err = parseMoment(at); err != nil {
		return fmt.Errorf("-at %q: %w", at, err)
	}
	u := q.usage()
	switch {
	case q.Model == "" && q.deployment == "":
		return errors.New("-model or -deployment is required")
	case !slices.Contains(tiers, q.tier):
		return fmt.Errorf("-tier %q is not known; the tiers are %s", q.tier, strings.Join(tiers[1:], ", "))
	case q.prompt < 0 || q.cached < 0 || q.output < 0 || q.prompt > pricing.TokensMax || q.output > pricing.TokensMax:
		return fmt.Errorf("numbers of tokens are not negative and at most %d", int64(pricing.TokensMax))
	case u.Cached.N+u.CacheWrite.N+u.AudioIn.N+u.ImageIn.N-u.AudioInCached.N > q.prompt || q.cached > q.prompt:
		return errors.New("the parts of the prompt (-cached and -use) are more than -prompt")
	case u.AudioInCached.N > min(u.AudioIn.N, q.cached):
		return errors.New("audio_in_cached is a part of audio_in and of -cached")
	case u.AudioOut.N+u.ImageOut.N > q.output:
		return errors.New("the parts of the output (-use) are more than -output")
	}
	return nil
}

// uses is the flag -use: how much was used of a meter, by the names of price files.
type uses map[string]int64

// useItems are the meters of what is no token, by the names of price files.
var useItems = map[string]string{
	"per_image": usage.ItemImage, "sec_in": usage.ItemAudioIn, "sec_out": usage.ItemAudioOut, "char_in": usage.ItemCharacter, "video_sec": "video_sec",
	"web_search_call": usage.ItemWebSearch, "file_search_call": usage.ItemFileSearch, "code_interpreter_session": usage.ItemCodeInterpreter,
}

// useTokens are the parts of a prompt and of an output; -prompt, -cached and -output say the rest.
var useTokens = []string{"in_cache_write", "audio_in", "audio_in_cached", "image_in", "audio_out", "image_out"}

func (u uses) String() string {
	parts := make([]string, 0, len(u))
	for _, meter := range slices.Sorted(maps.Keys(u)) {
		parts = append(parts, fmt.Sprintf("%s=%d", meter, u[meter]))
	}
	return strings.Join(parts, " ")
}

// Set reads "per_image=2".
func (u uses) Set(text string) error {
	meter, number, _ := strings.Cut(text, "=")
	n, err := strconv.ParseInt(number, 10, 64)
	if _, item := useItems[meter]; err != nil || n < 0 || n > pricing.TokensMax || !item && !slices.Contains(useTokens, meter) {
		return fmt.Errorf("write meter=n, with n from 0 to %d and one of the meters %s, %s", int64(pricing.TokensMax),
			strings.Join(useTokens, ", "), strings.Join(slices.Sorted(maps.Keys(useItems)), ", "))
	}
	u[meter] = n
	return nil
}

// items are the uses that are no tokens.
func (u uses) items() (items []usage.Item) {
	for _, meter := range slices.Sorted(maps.Keys(u)) {
		item, n := useItems[meter], u[meter]
		if item == usage.ItemAudioIn || item == usage.ItemAudioOut {
			n *= 1000 // seconds to milliseconds
		}
		if item != "" {
			items = append(items, usage.Item{Meter: item, Quantity: n})
		}
	}
	return items
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
	of := func(meter string) usage.Count {
		n, known := q.uses[meter]
		return usage.Count{N: n, Known: known}
	}
	return usage.Usage{
		Prompt: usage.Of(q.prompt), Cached: usage.Of(q.cached), CacheWrite: of("in_cache_write"),
		AudioIn: of("audio_in"), AudioInCached: of("audio_in_cached"), ImageIn: of("image_in"),
		Completion: usage.Of(q.output), AudioOut: of("audio_out"), ImageOut: of("image_out"),
	}
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

// explainProvisioned says what a provisioned deployment without a price for its
// spill-over costs all the same.
func (q *priceQuery) explainProvisioned(book *pricing.Book, stderr io.Writer) {
	if !pricing.Provisioned(q.SKU) {
		return
	}
	if holds, _, ok := book.LookupOverflow(q.Query); ok {
		fmt.Fprintf(stderr, "  what the provisioned capacity serves itself costs nothing more; requests are held by %s, and one that spills over "+
			"costs what was held or more, as no price for %s is known\n", holds.Key, pricing.SpilloverSKU(q.SKU))
	}
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
		with := ""
		if len(c.Uses) > 0 {
			with = ", with " + c.Uses.String()
		}
		fmt.Fprintf(w, "\n%d prompt tokens, %d of them cached, and %d output tokens%s: list %s USD, charged %s USD\n",
			c.Prompt, c.Cached, c.Output, with, c.List, c.Charged)
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
