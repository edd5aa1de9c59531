package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/costgate/costgate/handler/internal/boltstore"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/predecessor"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/tablestore"
)

// importStorage is where a connection string of the predecessor's table comes
// from: a flag would show it to every process of the machine.
const importStorage = "IMPORT_STORAGE"

// importFlags are what `gateway import` can be told.
type importFlags struct {
	from, table, uri string // one of: a file; a table
	balances         string
	period, zone     string
	product          string
	apply, asJSON    bool
}

// What becomes of a key.
const (
	importNew     = "new"        // would be made
	importCreated = "created"    // was made now
	importThere   = "there"      // was made before, by an import or by hand: not touched
	importRevoked = "revoked"    // was made before, and the key was taken away since: not touched
	importIdle    = "not needed" // was charged, but never made: it is refused there and here
	importLeft    = "left out"
)

// importedKey is a line of the report. Amounts are decimal texts in Unit.
type importedKey struct {
	Key     string     `json:"key"` // its label
	Product string     `json:"product"`
	Unit    quota.Unit `json:"unit"`
	Granted string     `json:"granted"`
	Left    string     `json:"left"` // there
	By      string     `json:"by"`
	Rows    int        `json:"rows"`
	Result  string     `json:"result"`
	Why     string     `json:"why,omitempty"`
	ID      string     `json:"product_id,omitempty"`
	Here    string     `json:"here,omitempty"` // what is left here, of one that is there
}

type importReport struct {
	Applied      bool                  `json:"applied"`
	Rows         int                   `json:"rows"`
	Keys         []importedKey         `json:"keys"`
	Problems     []predecessor.Problem `json:"problems"`
	MoreProblems int                   `json:"more_problems"`
}

// importCommand makes products of what the predecessor's table says of its keys.
// It ends with 0 if all of it is, or would be, taken over, with 1 if a row or a
// key cannot be, and with 2 if it could not find out or was told nonsense.
func importCommand(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	f := importFlags{period: string(quota.PeriodTotal), zone: "UTC"}
	err := parseFlags("gateway import", args, stderr, func(set *flag.FlagSet) {
		set.StringVar(&f.from, "from", "", "")
		set.StringVar(&f.table, "table", "", "")
		set.StringVar(&f.uri, "uri", "", "")
		set.StringVar(&f.balances, "balances", "", "")
		set.StringVar(&f.period, "period", f.period, "")
		set.StringVar(&f.zone, "time-zone", f.zone, "")
		set.StringVar(&f.product, "product", "", "")
		set.BoolVar(&f.apply, "apply", false, "")
		set.BoolVar(&f.asJSON, "json", false, "")
	})
	if err != nil {
		return exitSettings
	}
	fail := func(code int, err error) int {
		fmt.Fprintf(stderr, "gateway import: %v\n", err)
		return code
	}
	if err := f.check(getenv); err != nil {
		return fail(exitSettings, err)
	}
	rows, quotas, err := f.read(ctx, getenv)
	if err != nil {
		return fail(exitUnknown, err)
	}
	books, closeBooks, ok := f.openBooks(ctx, getenv, stderr)
	if !ok {
		return exitUnknown
	}
	defer closeBooks()
	report := importReport{Applied: f.apply, Rows: rows.Rows(), Keys: []importedKey{}, Problems: []predecessor.Problem{}}
	problems, more := rows.Problems()
	report.Problems, report.MoreProblems = append(report.Problems, problems...), more
	var failed error
	for i := range quotas {
		if f.product != "" && quotas[i].Name != f.product {
			continue
		}
		var line importedKey
		if line, failed = f.take(ctx, books, &quotas[i]); failed != nil {
			break
		}
		report.Keys = append(report.Keys, line)
	}
	if f.asJSON {
		_ = json.NewEncoder(stdout).Encode(report)
	} else {
		report.print(stdout)
	}
	switch {
	case failed != nil:
		return fail(exitUnknown, fmt.Errorf("after %d keys: %w; run it again, it goes on where it stopped", len(report.Keys), failed))
	case f.product != "" && len(report.Keys) == 0:
		return fail(exitUnknown, fmt.Errorf("-product %q: no key of the table has this product", f.product))
	case !report.clean():
		return exitFailed
	}
	return exitOK
}

func (f *importFlags) check(getenv func(string) string) error {
	switch {
	case (f.from == "") == (f.table == ""):
		return errors.New("say where the predecessor's rows are: -table NAME, or -from FILE with an export of it")
	case f.from != "" && f.uri != "":
		return errors.New("-uri goes with -table, not with -from")
	case f.table != "" && (f.uri == "") == (getenv(importStorage) == ""):
		return fmt.Errorf("-table needs -uri https://ACCOUNT.table.core.windows.net, or a connection string in the environment variable %s; not both", importStorage)
	}
	switch quota.PeriodKind(f.period) {
	case quota.PeriodTotal, quota.PeriodMonth, quota.PeriodWeek, quota.PeriodDay:
	default:
		return fmt.Errorf("-period %q: use total, month, week or day", f.period)
	}
	if _, err := time.LoadLocation(f.zone); err != nil || f.zone == "" || f.zone == "Local" {
		return fmt.Errorf("-time-zone %q: use an IANA name such as Europe/Berlin", f.zone)
	}
	return nil
}

// read reads all rows, and what they say of each key.
func (f *importFlags) read(ctx context.Context, getenv func(string) string) (*predecessor.Reader, []predecessor.Quota, error) {
	rows := new(predecessor.Reader)
	if f.from != "" {
		data, err := importFile(f.from)
		if err == nil {
			err = rows.AddFile(data)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("-from %s: %w", f.from, err)
		}
	} else if err := f.readTable(ctx, rows, getenv(importStorage)); err != nil {
		return nil, nil, fmt.Errorf("-table %s: %w", f.table, err)
	}
	var balances map[string]string
	if f.balances != "" {
		data, err := importFile(f.balances)
		if err == nil {
			balances, err = rows.Balances(data)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("-balances %s: %w", f.balances, err)
		}
	}
	return rows, rows.Quotas(balances), nil
}

func (f *importFlags) readTable(ctx context.Context, rows *predecessor.Reader, connection string) error {
	options := tablestore.Options{ConnectionString: connection, Table: f.table, ServiceURI: f.uri, TryTimeout: time.Minute}
	if f.uri != "" {
		credential, err := identity("", "")
		if err != nil {
			return err
		}
		options.Credential = credential
	}
	return tablestore.Foreign(ctx, options, predecessor.Columns, func(object []byte) error { return rows.Add("", object) })
}

func importFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case info.Size() > predecessor.FileBytesMax:
		return nil, fmt.Errorf("it has more than %d bytes; read the table itself with -table", predecessor.FileBytesMax)
	}
	return os.ReadFile(name)
}

// openBooks opens the ledger, as the other commands do. If there is none yet in
// DATA_DIR, it is made to write to, and a dry run goes on without: nil.
func (f *importFlags) openBooks(ctx context.Context, getenv func(string) string, stderr io.Writer) (*ledger.Ledger, func(), bool) {
	if getenv("QuotaStorage") == "" && getenv("QuotaStorage__tableServiceUri") == "" {
		folder := getenv("DATA_DIR")
		if folder == "" {
			folder = "./.data"
		}
		file := filepath.Join(folder, databaseFile)
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			if !f.apply {
				return nil, func() {}, true
			}
			if err := makeStore(file); err != nil {
				fmt.Fprintf(stderr, "gateway import: DATA_DIR: %v\n", err)
				return nil, nil, false
			}
		}
	}
	return openBooks(ctx, "import", getenv, stderr)
}

func makeStore(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	store, err := boltstore.Open(file)
	if err != nil {
		return err
	}
	return store.Close()
}

// take looks at one key, and makes its product if it is told to. An error is one
// of the store.
func (f *importFlags) take(ctx context.Context, books *ledger.Ledger, q *predecessor.Quota) (importedKey, error) {
	line := importedKey{
		Key: predecessor.Label(q.Key), Product: printable(q.Name), Unit: q.Unit, Granted: amountOf(q.Granted, q.Unit),
		Left: amountOf(q.Left, q.Unit), By: q.By, Rows: q.Rows, Result: importNew,
	}
	if !q.At.IsZero() {
		line.By += " " + q.At.UTC().Format(time.RFC3339)
	}
	switch {
	case errors.Is(q.Err, predecessor.ErrNeverCreated):
		line.Result, line.Why = importIdle, q.Err.Error()
		return line, nil
	case q.Err != nil:
		line.Result, line.Why = importLeft, q.Err.Error()
		return line, nil
	case books == nil:
		return line, nil
	}
	p, err := books.Find(ctx, q.Key)
	switch {
	case err == nil:
		line.Result = importThere
	case !errors.Is(err, ledger.ErrUnknownProduct):
		return line, err
	default:
		revoked, err := wasRevoked(ctx, books, quota.HashKey(q.Key))
		if err != nil {
			return line, err
		}
		if revoked {
			line.Result, line.Why = importRevoked, "a product was made of it, and this key taken away from it"
			return line, nil
		}
		if !f.apply {
			return line, nil
		}
		var created bool
		p, created, err = books.Create(ctx, quota.HashKey(q.Key), ledger.Once{}, func(id string, now time.Time) (*quota.Product, error) {
			return f.newProduct(q, id, now), nil
		})
		if err != nil {
			return line, err
		}
		if line.Result = importThere; created {
			line.Result = importCreated
		}
	}
	line.ID = p.ID
	if p, err = f.finish(ctx, books, q, p); err != nil {
		return line, err
	}
	account, err := books.Balance(ctx, p)
	line.Here = amountOf(account.Budget-account.Spent, p.Unit)
	return line, err
}

// newProduct has the API's defaults, and in this period what was left.
func (f *importFlags) newProduct(q *predecessor.Quota, id string, now time.Time) *quota.Product {
	hash := quota.HashKey(q.Key)
	return &quota.Product{
		ID: id, Name: q.Name, Keys: []quota.Key{{ID: "k_" + hash[:12], Hash: hash, Created: now.UTC()}}, Unit: q.Unit,
		Budget: q.Left, Created: q.Granted, CreatedAt: now.UTC(), Period: quota.PeriodKind(f.period), TimeZone: f.zone,
		Enforcement: quota.EnforceHard, Durability: quota.DurabilityStrict, Disconnect: quota.DisconnectDrain,
		UnknownPrice: quota.UnknownReject, BudgetName: q.Name, BudgetAlerts: []quota.AlertStep{{AtPPM: money.PPM, Do: "stop"}},
		NotifyAtPPM: []int64{500_000, 800_000, 900_000, money.PPM},
	}
}

// finish gives later periods the whole budget. That is a second step, so that at
// no time more can be spent than was left. It is made up for if a run died before
// it: version 1 is a product that nobody has changed since it was made.
func (f *importFlags) finish(ctx context.Context, books *ledger.Ledger, q *predecessor.Quota, p *quota.Product) (*quota.Product, error) {
	undone := func(p *quota.Product) bool {
		return p.Version == 1 && p.Period != quota.PeriodTotal && p.Created == q.Granted && p.Budget != p.Created
	}
	if !f.apply || !undone(p) {
		return p, nil
	}
	p, _, err := books.Edit(ctx, p.ID, ledger.Once{Key: "import"}, func(d *ledger.Draft) error {
		if undone(d.Product) {
			d.Product.Budget = d.Product.Created
		}
		return nil
	})
	return p, err
}

var errOnlyAsked = errors.New("only asked")

// wasRevoked tells whether a key was a product's first one and was taken away. The
// id of a product follows from its first key, so that it is the same whenever the
// ledger is asked; only if it is in use without that key does the ledger make up
// another one.
func wasRevoked(ctx context.Context, books *ledger.Ledger, keyHash string) (bool, error) {
	var ids []string
	for range 2 {
		_, _, err := books.Create(ctx, keyHash, ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
			ids = append(ids, id)
			return nil, errOnlyAsked
		})
		if err != nil && !errors.Is(err, errOnlyAsked) {
			return false, err
		}
	}
	return len(ids) == 2 && ids[0] != ids[1], nil
}

func amountOf(n int64, unit quota.Unit) string {
	if unit == quota.UnitTokens {
		return fmt.Sprint(n)
	}
	return money.Nano(n).String()
}

// printable is a name for a terminal, in one column.
func printable(name string) string {
	const most = 40
	runes := []rune(strings.ToValidUTF8(name, "?"))
	if len(runes) > most {
		runes = append(runes[:most-3], []rune("...")...)
	}
	for i, r := range runes {
		if r < ' ' || r == 0x7f {
			runes[i] = '?'
		}
	}
	return string(runes)
}

func (r *importReport) count(result string) (n int) {
	for _, k := range r.Keys {
		if k.Result == result {
			n++
		}
	}
	return n
}

func (r *importReport) clean() bool { return len(r.Problems) == 0 && r.count(importLeft) == 0 }

// print tells people what was done, or would be.
func (r *importReport) print(w io.Writer) {
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, "KEY\tPRODUCT\tGRANTED\tLEFT\tUNIT\tSAYS\tRESULT\t")
	for _, k := range r.Keys {
		result := k.Result
		if k.ID != "" {
			result += " " + k.ID + ", " + k.Here + " left here"
		}
		if k.Why != "" {
			result += ": " + strings.ReplaceAll(k.Why, "\n", "; ")
		}
		fmt.Fprintf(columns, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", k.Key, k.Product, k.Granted, k.Left, k.Unit, k.By, result)
	}
	_ = columns.Flush() // what cannot be printed cannot be told either
	for _, p := range r.Problems {
		fmt.Fprintf(w, "cannot be read: %s: %s\n", p.Where, p.What)
	}
	if r.MoreProblems > 0 {
		fmt.Fprintf(w, "cannot be read: %d more\n", r.MoreProblems)
	}
	fmt.Fprintf(w, "%d keys, %d rows: %d new, %d created, %d there before, %d revoked, %d not needed, %d left out; %d rows that cannot be read\n",
		len(r.Keys), r.Rows, r.count(importNew), r.count(importCreated), r.count(importThere), r.count(importRevoked), r.count(importIdle),
		r.count(importLeft), len(r.Problems)+r.MoreProblems)
	if !r.Applied {
		fmt.Fprintln(w, "Nothing was written. With -apply it is.")
	}
}
