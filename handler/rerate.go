package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// rerated is a record, and what it costs by another book. Costs are in nano-USD.
type rerated struct {
	Product    string     `json:"product_id"`
	Record     string     `json:"id"`
	Time       time.Time  `json:"time"`
	Model      string     `json:"model"`
	Key        string     `json:"price_key"`
	NewKey     string     `json:"new_price_key"`
	List       money.Nano `json:"list_cost_nano_usd"`
	NewList    money.Nano `json:"new_list_cost_nano_usd"`
	Charged    money.Nano `json:"cost_nano_usd"`
	NewCharged money.Nano `json:"new_cost_nano_usd"`
	Why        string     `json:"why,omitempty"` // it cannot be rerated
}

// rerating is the outcome for a day.
type rerating struct {
	Day         string     `json:"day"`
	Book        string     `json:"price_book"`
	Records     int        `json:"records"` // rerated
	Differences []rerated  `json:"differences"`
	Left        []rerated  `json:"not_rerateable"`
	List        money.Nano `json:"list_cost_nano_usd"` // of the records rerated
	NewList     money.Nano `json:"new_list_cost_nano_usd"`
	Charged     money.Nano `json:"cost_nano_usd"`
	NewCharged  money.Nano `json:"new_cost_nano_usd"`

	book        *pricing.Book
	deployments map[string]pricing.Deployment
}

// rerateCommand compares what the records of a day cost with what they cost by
// the present book. It writes nothing.
func rerateCommand(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	day, only, file, asJSON := "", "", "", false
	err := parseFlags("gateway rerate", args, stderr, func(set *flag.FlagSet) {
		set.StringVar(&day, "day", "", "")
		set.StringVar(&only, "product", "", "")
		set.StringVar(&file, "prices", "", "")
		set.BoolVar(&asJSON, "json", false, "")
	})
	if err != nil {
		return exitSettings
	}
	fail := func(format string, args ...any) int {
		fmt.Fprintf(stderr, "gateway rerate: "+format+"\n", args...)
		return exitUnknown
	}
	from, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return fail("-day %q: write a day like 2026-11-24 (UTC)", day)
	}
	r := rerating{Day: day, Differences: []rerated{}, Left: []rerated{}}
	if r.book, r.deployments, err = priceBook(getenv, file); err != nil {
		return fail("bad settings:\n%v", err)
	}
	r.Book = r.book.Version()
	books, closeBooks, ok := openBooks(ctx, "rerate", getenv, stderr)
	if !ok {
		return exitUnknown
	}
	defer closeBooks()
	products, err := books.Products(ctx)
	if err != nil {
		return fail("%v", err)
	}
	read := 0
	for _, p := range products {
		if only != "" && p.ID != only {
			continue
		}
		if err := r.product(ctx, books, p, from); err != nil {
			return fail("%s: %v", p.ID, err)
		}
		read++
	}
	if only != "" && read == 0 {
		return fail("no product %q", only)
	}
	if asJSON {
		_ = json.NewEncoder(stdout).Encode(&r)
	} else {
		r.print(stdout)
	}
	if len(r.Differences) > 0 {
		return exitFailed
	}
	return exitOK
}

// product rerates a product's records of one day.
func (r *rerating) product(ctx context.Context, books *ledger.Ledger, p *quota.Product, from time.Time) error {
	q := ledger.HistoryQuery{From: from, To: from.AddDate(0, 0, 1), Limit: ledger.HistoryMax}
	for {
		records, more, err := books.History(ctx, p.ID, q)
		if err != nil {
			return err
		}
		for i := range records {
			r.add(p, &records[i])
		}
		if !more || len(records) == 0 {
			return nil
		}
		q.After = records[len(records)-1].ID
	}
}

// add rerates a record. One that cost nothing because nothing was used has
// nothing to compare; what services cost is in no book.
func (r *rerating) add(p *quota.Product, record *usage.Record) {
	if !record.Kind.Spends() || record.UsageSource == usage.Text(usage.SourceNone) || record.Operation == "service" {
		return
	}
	d := rerated{
		Product: p.ID, Record: record.ID, Time: record.Time, Model: string(record.Model), Key: string(record.PriceKey),
		List: money.Nano(record.ListCostNanoUSD.N), Charged: money.Nano(record.CostNanoUSD.N),
	}
	if source := usage.Source(record.UsageSource); source != usage.SourceProvider && source != usage.SourceTokenizer {
		d.Why = fmt.Sprintf("usage_source is %q: what was used is not known", source)
	} else if why := r.rerate(p, record, &d); why != "" {
		d.Why = why
	}
	if d.Why != "" {
		r.Left = append(r.Left, d)
		return
	}
	r.Records++
	r.List, r.NewList = r.List+d.List, r.NewList+d.NewList
	r.Charged, r.NewCharged = r.Charged+d.Charged, r.NewCharged+d.NewCharged
	if d.List != d.NewList || d.Charged != d.NewCharged {
		r.Differences = append(r.Differences, d)
	}
}

// rerate computes what a record costs by the book, or says why it cannot.
func (r *rerating) rerate(p *quota.Product, record *usage.Record, d *rerated) (why string) {
	q := r.query(record)
	sold := record.Usage()
	entry, ok := r.book.Lookup(q) // of an update too, which does not know what spilled over
	if pricing.Provisioned(q.SKU) && (record.Kind != usage.KindUpdate || pricing.IsHourly(d.Key)) {
		if entry, ok = r.book.LookupProvisioned(q); !ok { // paid by the hour: only the calls of tools cost something more
			if d.NewKey = d.Key; !pricing.IsHourly(d.Key) {
				d.NewKey = pricing.HourlyKey(q.Model, q.SKU)
			}
			if len(record.Items) == 0 {
				return ""
			}
			sold = usage.Usage{}
			entry, _, ok = r.book.LookupOverflow(q)
		}
	}
	if !ok {
		return fmt.Sprintf("the book has no price for model %q, version %q, SKU %q, region %q", q.Model, q.Version, q.SKU, q.Region)
	}
	if d.NewKey == "" {
		d.NewKey = entry.Key
	}
	if p.MultiplierPPM > 0 {
		entry = entry.WithMarkup(p.MultiplierPPM)
	}
	cost, err := entry.Charge(sold, record.Items, string(record.ServiceTier))
	if err != nil {
		return err.Error()
	}
	d.NewList, d.NewCharged = cost.List, cost.Charged
	return ""
}

// query is the question that the record's price answered: the deployment's as
// it is listed now, but for the model and the SKU, which are those that served.
func (r *rerating) query(record *usage.Record) pricing.Query {
	q := pricing.Query{Model: string(record.Model), SKU: string(record.SKU), Mode: modeOf(string(record.Operation)), At: record.Time}
	if parts, ok := pricing.ParseKey(string(record.PriceKey)); ok {
		q.Mode, q.Quality, q.Size = parts.Mode, parts.Quality, parts.Size
		if q.Model == "" {
			q.Model, q.Version = parts.Model, parts.Version
		}
	}
	if d, listed := r.deployments[strings.ToLower(string(record.Deployment))]; listed {
		q.Region = d.Region
		mine, _ := pricing.NormalizeModel(d.Model)
		if served, dated := pricing.NormalizeModel(q.Model); served == mine || served == "" {
			if q.Model, q.Version = d.Model, d.Version; q.Version == "" {
				q.Version = dated
			}
		}
	}
	return q
}

// modeOf is the mode of an operation, as records name it.
func modeOf(operation string) pricing.Mode {
	switch operation {
	case "embeddings":
		return pricing.ModeEmbedding
	case "images":
		return pricing.ModeImage
	case "transcription":
		return pricing.ModeTranscription
	case "speech":
		return pricing.ModeSpeech
	}
	return pricing.ModeChat
}

func (r *rerating) print(w io.Writer) {
	for _, d := range r.Differences {
		fmt.Fprintf(w, "%s %s %s %s: list %s -> %s, charged %s -> %s, price %s -> %s\n",
			d.Product, d.Record, d.Time.UTC().Format(time.RFC3339), d.Model, d.List, d.NewList, d.Charged, d.NewCharged, d.Key, d.NewKey)
	}
	for _, d := range r.Left {
		fmt.Fprintf(w, "%s %s %s %s: charged %s, not rerateable: %s\n",
			d.Product, d.Record, d.Time.UTC().Format(time.RFC3339), d.Model, d.Charged, d.Why)
	}
	fmt.Fprintf(w, "%s by price book %s: %d records rerated, %d differences, %d not rerateable; list %s -> %s USD, charged %s -> %s USD\n",
		r.Day, r.Book, r.Records, len(r.Differences), len(r.Left), r.List, r.NewList, r.Charged, r.NewCharged)
}
