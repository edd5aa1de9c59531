package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/costgate/costgate/handler/internal/usage"
)

// Difference is something that Verify found.
type Difference struct {
	Product string `json:"product_id"`
	Period  string `json:"period"`
	What    string `json:"what"`
}

// recorded sums the records of one period that carry cost. Overruns are not
// among it: a record does not say what its hold was in the product's unit.
type recorded struct{ spent, records, tokens int64 }

func (s *recorded) add(e Entity) {
	if usage.Kind(e.Texts["Kind"]).Spends() {
		s.spent += e.Ints["Charge"]
		s.records++
		s.tokens += e.Ints["Tokens"]
	}
}

// claims are what other rows say of records, by the record's row. They are few:
// what waits for the lake, and what runs.
type claims struct {
	made  map[string]claim // there is a record
	open  map[string]claim // there is none yet: the request is charged at its hold meanwhile
	found []Difference
}

type claim struct{ product, period, by string }

func (c claim) difference(format string, args ...any) Difference {
	return Difference{c.product, c.period, c.by + " " + fmt.Sprintf(format, args...)}
}

func newClaims() *claims { return &claims{made: map[string]claim{}, open: map[string]claim{}} }

// books collects what the rows of a period claim.
func (c *claims) books(product string, p *readPeriod) {
	for i := range p.leases {
		lease := &p.leases[i]
		by := claim{product, p.name, "lease " + lease.ID}
		for _, m := range lease.Unsent {
			c.isMade(m.ID, by)
		}
		if lease.Closed || lease.whole() != nil { // the latter is a difference already
			continue
		}
		for j := range lease.Intents {
			c.isOpen(lease.Intents[j].ID, by)
		}
	}
	for i := range p.writeOffs {
		w := &p.writeOffs[i]
		for j := range w.list {
			c.isOpen(w.list[j].ID, claim{product, p.name, "write-off " + w.leaseID})
		}
	}
}

func (c *claims) isMade(id string, by claim) {
	row, err := usageRow(id)
	if err != nil {
		c.found = append(c.found, by.difference("names a record: %v", err))
		return
	}
	c.made[row] = by
}

func (c *claims) isOpen(id string, by claim) {
	row, err := usageRow(id)
	if err != nil {
		c.found = append(c.found, by.difference("lists a request: %v", err))
		return
	}
	if other, twice := c.open[row]; twice {
		c.found = append(c.found, by.difference("lists request %s, and so does %s", id, other.by))
	}
	c.open[row] = by
}

// record holds one row against the claims.
func (c *claims) record(row string) {
	delete(c.made, row)
	if by, listed := c.open[row]; listed {
		c.found = append(c.found, by.difference("lists %s, which is a record too", row))
	}
}

// differences are what the claims say that is not so, when every record was seen.
func (c *claims) differences() []Difference {
	for _, row := range slices.Sorted(maps.Keys(c.made)) {
		c.found = append(c.found, c.made[row].difference("waits to send %s, which does not exist", row))
	}
	return c.found
}

// Verify compares every account of a product with its leases, write-offs and
// records: spent, records and tokens with the sums over the records, committed
// with closed and granted. It also finds outbox entries without a record, requests
// that are listed and recorded, and rows that cannot be read. It needs a quiet
// product: what changes while it reads shows as a difference.
func (l *Ledger) Verify(ctx context.Context, productID string) ([]Difference, error) {
	all, err := l.allBooks(ctx, productID)
	if err != nil {
		return nil, err
	}
	claimed := newClaims()
	for _, p := range all {
		claimed.books(productID, p)
	}
	err = l.scan(ctx, productID, prefixOutbox, func(e Entity, _ time.Time) error {
		by := claim{productID, "", "outbox row " + e.Row}
		rows, err := pointedBy(e)
		if err != nil {
			claimed.found = append(claimed.found, by.difference("names a record: %v", err))
		}
		for _, row := range rows {
			claimed.made[row] = by
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sums := map[string]*recorded{}
	err = l.scan(ctx, productID, prefixUsage, func(e Entity, _ time.Time) error {
		period := e.Texts["Period"]
		if sums[period] == nil {
			sums[period] = new(recorded)
		}
		sums[period].add(e)
		claimed.record(e.Row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var found []Difference
	for _, p := range all {
		s := sums[p.name]
		delete(sums, p.name)
		if s == nil {
			s = new(recorded)
		}
		for _, what := range append(p.differences(), p.against(*s)...) {
			found = append(found, Difference{productID, p.name, what})
		}
	}
	for _, period := range slices.Sorted(maps.Keys(sums)) {
		if s := sums[period]; *s != (recorded{}) {
			found = append(found, Difference{productID, period, fmt.Sprintf("no account, but records: spent %d", s.spent)})
		}
	}
	return append(found, claimed.differences()...), nil
}

// differences are the rows that cannot be read, and what is wrong with the
// others among themselves.
func (p *readPeriod) differences() (found []string) {
	for _, row := range slices.Sorted(maps.Keys(p.unreadable)) {
		found = append(found, fmt.Sprintf("row %s cannot be read: %v", row, p.unreadable[row]))
	}
	return append(found, p.periodBooks.differences()...)
}

// differences are what is wrong with the rows of a period among themselves.
func (b *periodBooks) differences() (found []string) {
	if !b.exists {
		return []string{"there are leases, but no account"}
	}
	granted := int64(0)
	for i := range b.leases {
		lease := &b.leases[i]
		if lease.Closed {
			continue
		}
		granted += lease.Granted
		if err := lease.whole(); err != nil {
			found = append(found, err.Error())
			continue
		}
		if err := lease.check(); err != nil {
			found = append(found, err.Error())
		}
		if sum := lease.held(); sum != lease.holding {
			found = append(found, fmt.Sprintf("lease %s says that it holds %d, its intents sum to %d", lease.ID, lease.holding, sum))
		}
	}
	for i := range b.writeOffs {
		w, sum := &b.writeOffs[i], int64(0)
		for _, in := range w.list {
			sum += in.Hold
		}
		if rest := w.row.Ints["Rest"]; rest != sum || len(w.list) == 0 {
			found = append(found, fmt.Sprintf("write-off %s says %d, its %d requests sum to %d", w.leaseID, rest, len(w.list), sum))
		}
	}
	if want := b.account.Closed + granted; b.account.Committed != want {
		found = append(found, fmt.Sprintf("committed: the account says %d, closed and granted are %d", b.account.Committed, want))
	}
	return found
}

// against compares the books with the sum of their records.
func (b *periodBooks) against(s recorded) (found []string) {
	if !b.exists {
		return nil
	}
	for i := range b.writeOffs {
		for _, in := range b.writeOffs[i].list {
			s.spent += in.Hold
			s.records++
		}
	}
	s.spent += b.total.spent
	s.records += b.total.records
	s.tokens += b.total.tokens
	view := b.view()
	if view.Spent != s.spent {
		found = append(found, fmt.Sprintf("spent: the books say %d, the records sum to %d", view.Spent, s.spent))
	}
	if view.Records != s.records {
		found = append(found, fmt.Sprintf("records: the books say %d, there are %d", view.Records, s.records))
	}
	if view.Tokens != s.tokens {
		found = append(found, fmt.Sprintf("tokens: the books say %d, the records sum to %d", view.Tokens, s.tokens))
	}
	return found
}

// auditMargin is how far from its period a record's id may be: a request is
// listed again under a younger one, and a time zone may change in mid-period.
const auditMargin = 27 * time.Hour

// audit proves a slice of the books: one period of one product, drawn by chance,
// so that all are seen in the course of many sweeps. Its rows are compared with
// its records only if nothing moved meanwhile and they are not too many. What it
// finds is ErrBroken; any other error says that it could not look.
func (l *Ledger) audit(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	product := ids[l.rt.Random(int64(len(ids)))]
	all, err := l.allBooks(ctx, product)
	if err != nil || len(all) == 0 {
		return err
	}
	read := all[l.rt.Random(int64(len(all)))]
	if len(read.unreadable) > 0 {
		return l.report(product, read.name, read.differences())
	}
	before, err := l.readBooks(ctx, product, read.name)
	if err != nil {
		return err
	}
	found := before.differences()
	sums, claimed, err := l.recordsOf(ctx, product, &readPeriod{periodBooks: before, name: read.name})
	if err != nil {
		return err
	}
	if sums == nil {
		l.counters.add("audit too large")
		return l.report(product, read.name, found)
	}
	now, err := l.readBooks(ctx, product, read.name)
	if err != nil {
		return err
	}
	if slices.Equal(before.etags(), now.etags()) {
		l.counters.add("audited")
		found = append(found, before.against(*sums)...)
		for _, d := range claimed.found {
			found = append(found, d.What)
		}
	}
	return l.report(product, read.name, found)
}

// recordsOf sums the records of a period, and holds them against its books. The
// sums are nil if that are too many.
func (l *Ledger) recordsOf(ctx context.Context, product string, p *readPeriod) (sums *recorded, claimed *claims, err error) {
	claimed = newClaims()
	claimed.books(product, p)
	sums = new(recorded)
	start, end := p.account.Window.Start, p.account.Window.End
	from, to := prefixUsage, after(prefixUsage)
	if !end.IsZero() {
		from = usageRowAt(end.Add(auditMargin).UnixMilli())
	}
	if !start.IsZero() {
		to = usageRowAt(start.Add(-auditMargin).UnixMilli())
	}
	for rows := 0; from != ""; {
		page, err := l.store.Range(ctx, product, from, to, PageMax)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range page.Entities {
			if e.Texts["Period"] == p.name {
				sums.add(e)
				claimed.record(e.Row)
			}
		}
		if rows += len(page.Entities); rows > AuditRowsMax {
			return nil, claimed, nil
		}
		from = page.Next
	}
	return sums, claimed, nil
}

func (l *Ledger) report(product, period string, found []string) error {
	var failed error
	for _, what := range found {
		l.counters.add("audit failed")
		l.log.Error("AUDIT: the books are not right", "product_id", product, "period", period, "difference", what)
		failed = errors.Join(failed, fmt.Errorf("%w: AUDIT: product %s, period %s: %s", ErrBroken, product, period, what))
	}
	return failed
}

func (b *periodBooks) etags() []string {
	etags := []string{b.row.ETag}
	for i := range b.leases {
		etags = append(etags, b.leases[i].etag)
	}
	for i := range b.writeOffs {
		etags = append(etags, b.writeOffs[i].row.ETag)
	}
	return etags
}
