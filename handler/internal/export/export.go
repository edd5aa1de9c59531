// Package export reads a lake and writes it as files for analysts: Parquet or
// CSV, one row a record, or rows of FOCUS 1.2, one a meter.
//
// A lake is a folder of JSON lines (*.jsonl, one record a line), of files that
// Event Hubs Capture wrote (*.avro, one event a record), or of both, in folders
// of any depth. The same record may come several times and in several revisions:
// of those with one id the highest revision counts, and no other is written.
//
// The lake is read twice. The first pass decodes every record, copies those that
// are asked for into a temporary file, and remembers of each what [IndexBytes]
// says; the second writes them in the order of their time and id. Memory does
// not depend on what a record holds. The same lake gives the same bytes.
//
// There is no floating point here: money is integers of nano-USD, and decimal
// numbers are written from integers.
package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Format is what is written.
type Format string

// The formats. FOCUS is CSV, or Parquet if the file's name ends in .parquet.
const (
	Parquet Format = "parquet"
	CSV     Format = "csv"
	FOCUS   Format = "focus"
)

// Stdout is the name of the standard output, for CSV only.
const Stdout = "-"

// PartitionDay makes a folder day=2026-11-24 (UTC) for each day.
const PartitionDay = "day"

// ErrOptions says that the options do not fit together.
var ErrOptions = errors.New("cannot export so")

// Options say what to read and what to write.
type Options struct {
	From      string // a folder, or one file
	To        string // a file; a folder, if it is one or if Partition is set; or Stdout
	Format    Format
	Partition string // "" or PartitionDay

	// Only records admitted at Since or later and before Until; zero: no bound.
	Since, Until time.Time
	Product      string // only records of this product's id; empty: all

	// Strict: nothing is written if a line cannot be read.
	Strict bool

	// Of FOCUS: the book that says what each meter of a record costs (nil: none
	// does), and the account that the charges are gathered in.
	Prices         *pricing.Book
	BillingAccount string
	BillingName    string
}

// LineError is a line, or an event of a Capture file, that is no record.
type LineError struct {
	File   string `json:"file"`
	Line   int64  `json:"line"` // from 1; of a Capture file the event; 0: the file as a whole
	Reason string `json:"reason"`
}

func (b LineError) Error() string { return fmt.Sprintf("%s:%d: %s", b.File, b.Line, b.Reason) }

// BadLinesMax bounds how many bad lines a report names. It counts all.
const BadLinesMax = 100

// Report is what an export did.
type Report struct {
	Files      int         `json:"files"`           // read
	Read       int64       `json:"read"`            // records, doubles and revisions included
	Doubles    int64       `json:"doubles"`         // of one id and revision, left out
	Superseded int64       `json:"superseded"`      // revisions below the highest, left out
	Excluded   int64       `json:"excluded"`        // not of the time or the product that was asked for
	Unfinished int64       `json:"unfinished"`      // last lines without their end, passed over
	Records    int64       `json:"records"`         // exported
	Rows       int64       `json:"rows"`            // written
	Cost       money.Nano  `json:"cost_nano_usd"`   // of the exported records
	NoMoney    int64       `json:"without_money"`   // FOCUS: records that carry no cost, which have no row
	Unsplit    int64       `json:"unsplit"`         // FOCUS: records that have one row, because nobody knows what its meters cost
	Bad        int64       `json:"bad_lines"`       // lines and events that are no record, or none that the format can hold
	BadLines   []LineError `json:"bad"`             // the first of them
	Altered    int64       `json:"altered_records"` // doubles that are not what they double; the first one that was read counts
	Outputs    []string    `json:"outputs"`
}

// refuse counts a line that is not exported, and names the first of them. With
// Strict it ends the export.
func (r *Report) refuse(line LineError, strict bool) error {
	if r.Bad++; len(r.BadLines) < BadLinesMax {
		r.BadLines = append(r.BadLines, line)
	}
	if strict {
		return line
	}
	return nil
}

// Clean tells whether everything in the lake could be read and agreed.
func (r *Report) Clean() bool { return r.Bad == 0 && r.Altered == 0 }

// Run exports a lake. Files get their names when all of them are on the disk:
// after an error there is none, unless a rename failed. A lake with bad lines is
// exported all the same, unless Strict is set: look at the report.
func Run(ctx context.Context, o Options, stdout io.Writer) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	report := &Report{BadLines: []LineError{}, Outputs: []string{}}
	spoolDir := ""
	if o.To != Stdout {
		spoolDir = o.outputDir()
	}
	index, err := newIndex(spoolDir, &o, report)
	if err != nil {
		return report, err
	}
	defer index.close()
	if err := index.readAll(ctx); err != nil {
		return report, err
	}
	outputs := &outputs{options: &o, stdout: stdout}
	defer outputs.abandon()
	emit := recordRows(outputs, report)
	if o.Format == FOCUS {
		emit = focusRows(&o, outputs, report)
	}
	err = index.each(ctx, func(r *usage.Record) error {
		if err := emit(r); err != nil {
			return err
		}
		report.Records++
		if r.Kind.Spends() {
			report.Cost += money.Nano(r.CostNanoUSD.N)
		}
		return nil
	})
	if err != nil {
		return report, err
	}
	report.Outputs, err = outputs.commit()
	return report, err
}

func (o *Options) check() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrOptions, fmt.Sprintf(format, args...))
	}
	switch {
	case o.From == "":
		return fail("say where the lake is")
	case o.To == "":
		return fail("say where to write")
	case o.Format != Parquet && o.Format != CSV && o.Format != FOCUS:
		return fail("unknown format %q: it is parquet, csv or focus", o.Format)
	case o.Partition != "" && o.Partition != PartitionDay:
		return fail("unknown partition %q: it is day", o.Partition)
	case o.To == Stdout && (o.Format == Parquet || o.Partition != ""):
		return fail("only CSV without partitions goes to the standard output")
	case o.Format == FOCUS && o.BillingAccount == "":
		return fail("FOCUS rows need a billing account")
	case !o.Since.IsZero() && !o.Until.IsZero() && !o.Since.Before(o.Until):
		return fail("nothing is between %s and %s", o.Since.Format(time.RFC3339), o.Until.Format(time.RFC3339))
	}
	return nil
}

// wants tells whether a record is of the time and the product that is asked for.
// Both stay the same in all revisions of a record.
func (o *Options) wants(r *usage.Record) bool {
	return (o.Since.IsZero() || !r.Time.Before(o.Since)) && (o.Until.IsZero() || r.Time.Before(o.Until)) &&
		(o.Product == "" || string(r.ProductID) == o.Product)
}

// asParquet tells whether Parquet is written.
func (o *Options) asParquet() bool {
	return o.Format == Parquet || o.Format == FOCUS && strings.HasSuffix(o.To, ".parquet")
}

// fileName is the name of an output file in a folder.
func (o *Options) fileName() string {
	name, extension := "usage", ".csv"
	if o.Format == FOCUS {
		name = "focus"
	}
	if o.asParquet() {
		extension = ".parquet"
	}
	return name + extension
}

// outputDir is the folder that the first output goes to.
func (o *Options) outputDir() string {
	if o.Partition != "" || isDir(o.To) {
		return o.To
	}
	return filepath.Dir(o.To)
}
