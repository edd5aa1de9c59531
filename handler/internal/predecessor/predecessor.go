// Package predecessor reads the table of the C# app that this gateway succeeds,
// and finds out what each key had left there.
//
// Its rows are a log: the partition is the raw key, the row key a GUID, and
// nothing is ever changed. Create and Deposit name an Amount that replaced what
// was left; Update has what was left after an answer in Balance (an early form
// had it in Amount); BudgetStop set it to 0. The live number was in Redis, so the
// newest of these rows, by the service's Timestamp, says what it was.
package predecessor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/costgate/costgate/handler/internal/quota"
)

// Limits of what is read.
const (
	KeysMax      = 100_000
	ProblemsMax  = 1000 // rows that are told about; the others are counted
	NameRunesMax = 128
	KeyBytesMin  = 16
	KeyBytesMax  = 256
)

// Columns are those that Add reads.
const Columns = "PartitionKey,RowKey,Timestamp,Operation,ProductName,Amount,Balance,RateLimitOnCost"

// Quota is what the table says of one key.
type Quota struct {
	Key     string // as it is: print its Label
	Name    string
	Unit    quota.Unit
	Granted int64     // what the newest Create or Deposit set; in Unit
	Left    int64     // what was left; in Unit
	By      string    // where Left is from: the operation, or "balances"
	At      time.Time // of that row; zero if it is from the balances
	Rows    int
	Err     error // why it cannot be taken over; nil if it can
}

// ErrNeverCreated is the Err of a key that was charged but never made.
var ErrNeverCreated = errors.New("it was never created, so nothing was left of it")

// Problem is a row that cannot be read, or a balance that belongs to nothing.
type Problem struct {
	Where string `json:"where"` // the row, by its label and row key, or a line of a file
	What  string `json:"what"`
}

// Label names a key without showing it: the id that the gateway gives it, and its
// last four characters.
func Label(key string) string {
	hash := quota.HashKey(key)
	if len(key) < KeyBytesMin {
		return "k_" + hash[:12]
	}
	return "k_" + hash[:12] + " (..." + strings.ToValidUTF8(key[len(key)-4:], "?") + ")"
}

// CheckKey tells why a key cannot be one of a product, by the API's rule.
func CheckKey(key string) error {
	if len(key) < KeyBytesMin || len(key) > KeyBytesMax {
		return fmt.Errorf("the key has %d characters; a key has %d to %d", len(key), KeyBytesMin, KeyBytesMax)
	}
	if strings.HasPrefix(key, quota.ProductPrefix) {
		return fmt.Errorf("the key begins with %q, as product ids do", quota.ProductPrefix)
	}
	for i := range len(key) {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '~', c == '-':
		default:
			return errors.New("the key may have letters, digits and . _ ~ - only")
		}
	}
	return nil
}

func checkName(name string) error {
	if utf8.RuneCountInString(name) > NameRunesMax {
		return fmt.Errorf("the product's name has more than %d characters", NameRunesMax)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }) {
		return errors.New("the product's name has a control character")
	}
	return nil
}

// Reader gathers rows. The zero value is ready.
type Reader struct {
	keys     map[string]*log
	rows     int
	problems []Problem
	more     int
}

// log is what is known of one key: the newest rows of each sort.
type log struct {
	rows  int
	grant point // a Create or a Deposit
	left  point // whatever set what was left
	name  point
	unit  point

	badGrant, badLeft damage
}

// damage is rows that cannot be read: when the newest of them was written, and
// whether that is not known of one.
type damage struct {
	at      time.Time
	undated bool
}

func (d *damage) take(at time.Time) {
	d.undated = d.undated || at.IsZero()
	if at.After(d.at) {
		d.at = at
	}
}

// spoils tells whether such a row may be newer than one that was read.
func (d *damage) spoils(at time.Time) bool { return d.undated || !d.at.Before(at) && !d.at.IsZero() }

// point is a value and when it was written. Of two at one moment that with the
// higher row key counts, so that the order of reading does not matter.
type point struct {
	at    time.Time
	row   string
	value string
	by    string
}

func (p *point) newer(q point) {
	if q.at.After(p.at) || q.at.Equal(p.at) && q.row > p.row {
		*p = q
	}
}

// row is an entity with what is of interest. Its values are what encoding/json
// makes of them with UseNumber, or texts of a CSV file.
type row map[string]any

func (r row) text(name string) string {
	s, _ := r[name].(string)
	return s
}

// Add reads a row, a JSON object. where names it in a file, or is empty. It fails
// only if there are too many keys; a row that cannot be read is a Problem.
func (r *Reader) Add(where string, object []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	properties := row{}
	if err := decoder.Decode(&properties); err != nil {
		r.rows++
		r.problem(where, "it is not a JSON object")
		return nil
	}
	return r.add(where, properties)
}

func (r *Reader) problem(where, what string) {
	if len(r.problems) == ProblemsMax {
		r.more++
		return
	}
	r.problems = append(r.problems, Problem{where, what})
}

func join(where, row string) string {
	if where == "" {
		return row
	}
	return where + ", " + row
}

// clean is what of a row key can be printed; they are GUIDs.
func clean(text string) string {
	const most = 64
	text = strings.ToValidUTF8(text[:min(len(text), most)], "?")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

func (r *Reader) add(where string, properties row) error {
	r.rows++
	key := properties.text("PartitionKey")
	if key == "" {
		r.problem(join(where, "row "+clean(properties.text("RowKey"))), "it has no PartitionKey")
		return nil
	}
	if r.keys == nil {
		r.keys = map[string]*log{}
	}
	l := r.keys[key]
	if l == nil {
		if len(r.keys) == KeysMax {
			return fmt.Errorf("the table has more than %d keys", KeysMax)
		}
		l = &log{}
		r.keys[key] = l
	}
	l.rows++
	at, err := time.Parse(time.RFC3339, properties.text("Timestamp"))
	if err != nil {
		err = errors.New("its Timestamp is not an RFC 3339 time")
	} else {
		err = l.take(properties, at)
	}
	if err != nil {
		r.problem(join(where, Label(key)+", row "+clean(properties.text("RowKey"))), err.Error())
		l.badLeft.take(at)
		if operation := properties.text("Operation"); operation != "Update" && operation != "BudgetStop" {
			l.badGrant.take(at)
		}
	}
	return nil
}

// take does what a row did to its key. An error changes nothing.
func (l *log) take(r row, at time.Time) error {
	operation := r.text("Operation")
	moment := point{at: at, row: r.text("RowKey"), by: operation}
	with := func(value string) point {
		p := moment
		p.value = value
		return p
	}
	amount, amountErr := floating(r["Amount"])
	switch operation {
	case "Create", "Deposit":
		if amountErr != nil {
			return fmt.Errorf("its Amount %w", amountErr)
		}
		onCost, err := boolean(r["RateLimitOnCost"])
		if err != nil {
			return fmt.Errorf("its RateLimitOnCost %w", err)
		}
		l.unit.newer(with(onCost))
		l.grant.newer(with(amount))
		l.left.newer(with(amount))
	case "BudgetStop":
		l.left.newer(with("0"))
	case "Update":
		left, err := decimal(r["Balance"])
		if errors.Is(err, errAbsent) { // the early form
			left, err = amount, amountErr
		}
		if err != nil {
			return fmt.Errorf("its Balance %w", err)
		}
		l.left.newer(with(left))
	default:
		return fmt.Errorf("its Operation %.20q is not known", operation)
	}
	if name := strings.TrimSpace(r.text("ProductName")); name != "" {
		l.name.newer(with(name))
	}
	return nil
}

// Rows is how many rows were read.
func (r *Reader) Rows() int { return r.rows }

// Problems are the rows that could not be read, and how many more there were.
func (r *Reader) Problems() ([]Problem, int) { return r.problems, r.more }

// Quotas is what the rows say of each key, by name and label. balances, which may
// be nil, has what was left by key, from the cache itself; it has the last word.
func (r *Reader) Quotas(balances map[string]string) []Quota {
	quotas := make([]Quota, 0, len(r.keys))
	for key, l := range r.keys {
		balance, known := balances[key]
		quotas = append(quotas, l.quota(key, balance, known))
	}
	slices.SortFunc(quotas, func(a, b Quota) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(Label(a.Key), Label(b.Key))
	})
	return quotas
}

func (l *log) quota(key, balance string, known bool) Quota {
	q := Quota{Key: key, Name: l.name.value, Unit: quota.UnitUSD, By: l.left.by, At: l.left.at, Rows: l.rows}
	if q.Name == "" {
		q.Name = "k_" + quota.HashKey(key)[:12]
	}
	if l.unit.value == "false" {
		q.Unit = quota.UnitTokens
	}
	left := l.left.value
	if known {
		left, q.By, q.At = balance, "balances", time.Time{}
	}
	q.Err = errors.Join(CheckKey(key), checkName(q.Name))
	switch {
	case q.Err != nil:
	case l.badGrant.spoils(l.grant.at):
		q.Err = errors.New("its newest Create or Deposit cannot be read")
	case l.grant.at.IsZero() && strings.Trim(left, "0.") != "":
		q.Err = errors.New("it has " + left + " left, and no row made it")
	case l.grant.at.IsZero():
		q.Err = ErrNeverCreated
	case !known && l.badLeft.spoils(l.left.at):
		q.Err = errors.New("its newest row cannot be read; give its balance in a file (-balances)")
	default:
		var grantErr, leftErr error
		q.Granted, grantErr = amountIn(l.grant.value, q.Unit)
		q.Left, leftErr = amountIn(left, q.Unit)
		q.Err = errors.Join(grantErr, leftErr)
	}
	return q
}
