package ledger

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Rows of a product's partition (its key is the product id):
//
//	C                    configuration: a quota.Product
//	S.<period>.A         account of a period
//	S.<period>.L.<id>    lease: the share of the account that one process may spend
//	S.<period>.W.<id>    write-off: intents of a reclaimed lease that are not records yet
//	U.<inverted ms>.<id> usage: one record, newest first
//	X.<hash>             an effect that must not happen twice
//	O.<record id>.<rev>  outbox: a record that the lake has not acknowledged and no lease lists
//	O.<record id>.<rev>.page   as many as a lease had no room to list, of which this is the first
//	V.<hash>             a stored response that this product made
//
// Rows of the index partition:
//
//	p.<product id>       every product
//	k.<key hash>         the product that a key belongs to; C has the last word
//	x.<hash>             an idempotent Create and the product id it chose
//
// Rows of the partition of crossings: see crossings.go.
const (
	indexPartition = "idx"
	rowConfig      = "C"
	prefixAccount  = "S."
	suffixAccount  = ".A"
	suffixTotal    = ".T"
	suffixPage     = ".page"
	prefixUsage    = "U."
	prefixOnce     = "X."
	prefixOutbox   = "O."
	prefixResponse = "V."
	prefixProduct  = "p."
	prefixKey      = "k."
	prefixCreate   = "x."

	invertedMS = 9_999_999_999_999
)

// after is the end of the range of rows with a one-letter prefix: no other row
// begins with its letter.
func after(prefix string) string { return string(prefix[0] + 1) }

// digest names something by its hash, in characters that a row key may have.
func digest(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)))[:32]
}

func accountRow(period string) string { return prefixAccount + period + suffixAccount }

// usageRow is the row of a record's id, which carries the time of admission:
// whoever knows the id knows the row.
func usageRow(recordID string) (string, error) {
	ms, err := idMillis(recordID)
	if err != nil {
		return "", err
	}
	return usageRowAt(ms) + "." + recordID, nil
}

func usageRowAt(ms int64) string { return fmt.Sprintf("%s%013d", prefixUsage, invertedMS-ms) }

func idMillis(recordID string) (int64, error) {
	id, err := uuid.Parse(recordID)
	if err != nil || id.Version() != 7 || id.String() != recordID {
		return 0, fmt.Errorf("%q is not a record id", recordID)
	}
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return ms, nil
}

func outboxRow(recordID string, rev int) string {
	return fmt.Sprintf("%s%s.%d", prefixOutbox, recordID, rev)
}

// Account is what happened to a product's budget in one period. Amounts are in
// the product's unit.
type Account struct {
	Period     string
	Start, End time.Time
	Budget     int64
	Spent      int64 // the sum of the period's records, and of write-offs that are not records yet
	Held       int64 // the holds of requests that run
	Records    int64
	Tokens     int64 // of the period's records
	Overruns   int64 // records that cost more than their hold
	Version    int64 // of the account; counts every change
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func parseTime(s string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, s)
	return t
}

func configEntity(p *quota.Product) (Entity, error) {
	doc, err := json.Marshal(p)
	if err != nil {
		return Entity{}, err
	}
	return Entity{Row: rowConfig, Ints: map[string]int64{"Version": p.Version}, Texts: map[string]string{"Doc": string(doc)}}, nil
}

func productOf(e Entity) (*quota.Product, error) {
	p := new(quota.Product)
	if err := json.Unmarshal([]byte(e.Texts["Doc"]), p); err != nil {
		return nil, fmt.Errorf("configuration of product %s: %w", e.Partition, err)
	}
	return p, nil
}

// recordEntities are the usage row of a record and the outbox row that points
// to it. A record that is too long for a row loses what is by the way, here and
// wherever the caller takes it next.
func recordEntities(r *usage.Record) (row, outbox Entity, err error) {
	name, err := usageRow(r.ID)
	if err != nil {
		return row, outbox, err
	}
	doc, err := json.Marshal(r)
	if err == nil && len(doc) > TextUnitsMax && utf16Units(string(doc)) > TextUnitsMax { // the money counts; the rest is by the way
		r.Tags, r.User, r.RequestID = nil, "", ""
		doc, err = json.Marshal(r)
	}
	if err != nil {
		return row, outbox, err
	}
	row = Entity{
		Row: name,
		Ints: map[string]int64{
			"Rev": int64(r.Rev), "Charge": spentBy(r), "CostNanoUSD": r.CostNanoUSD.N, "Tokens": r.PromptTokens.N + r.CompletionTokens.N,
		},
		Texts: map[string]string{"Doc": string(doc), "Kind": string(r.Kind), "Period": string(r.Period), "Source": string(r.UsageSource)},
	}
	outbox = Entity{Row: outboxRow(r.ID, r.Rev), Texts: map[string]string{"Usage": name}}
	return row, outbox, nil
}

// spentBy is what a record adds to its account's Spent.
func spentBy(r *usage.Record) int64 {
	if !r.Kind.Spends() {
		return 0
	}
	return r.Charge.N
}

func recordOf(e Entity) (usage.Record, error) {
	var r usage.Record
	if err := json.Unmarshal([]byte(e.Texts["Doc"]), &r); err != nil {
		return r, fmt.Errorf("record in %s/%s: %w", e.Partition, e.Row, err)
	}
	return r, nil
}
