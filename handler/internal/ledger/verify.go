package ledger

import (
	"context"
	"errors"
	"fmt"
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

// recorded sums the records of one period that carry cost.
type recorded struct{ spent, records int64 }

func (s *recorded) add(e Entity) {
	if usage.Kind(e.Texts["Kind"]).Spends() {
		s.spent += e.Ints["Charge"]
		s.records++
	}
}

// Verify compares every account of a product with its leases, write-offs and
// records. It needs a quiet product: what changes while it reads shows as a
// difference.
func (l *Ledger) Verify(ctx context.Context, productID string) ([]Difference, error) {
	found := map[string]*recorded{}
	err := l.scan(ctx, productID, prefixUsage, func(e Entity, _ time.Time) error {
		period := e.Texts["Period"]
		if found[period] == nil {
			found[period] = new(recorded)
		}
		found[period].add(e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	all, order, err := l.allBooks(ctx, productID)
	if err != nil {
		return nil, err
	}
	var differences []Difference
	for _, period := range order {
		books, s := all[period], found[period]
		delete(found, period)
		if s == nil {
			s = new(recorded)
		}
		for _, what := range append(books.differences(), books.against(*s)...) {
			differences = append(differences, Difference{productID, period, what})
		}
	}
	for period, s := range found {
		if *s != (recorded{}) {
			differences = append(differences, Difference{productID, period, fmt.Sprintf("no account, but records: spent %d", s.spent)})
		}
	}
	return differences, nil
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
	view := b.view()
	if view.Spent != s.spent {
		found = append(found, fmt.Sprintf("spent: the books say %d, the records sum to %d", view.Spent, s.spent))
	}
	if view.Records != s.records {
		found = append(found, fmt.Sprintf("records: the books say %d, there are %d", view.Records, s.records))
	}
	return found
}

// audit proves a slice of the books: one period of one product, drawn by chance,
// so that all are seen in the course of many sweeps. Its rows are compared with
// its records only if nothing moved meanwhile and they are not too many.
func (l *Ledger) audit(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	product := ids[l.rt.Random(int64(len(ids)))]
	all, order, err := l.allBooks(ctx, product)
	if err != nil || len(order) == 0 {
		return err
	}
	period := order[l.rt.Random(int64(len(order)))]
	start, end := all[period].account.Window.Start, all[period].account.Window.End
	before, err := l.readBooks(ctx, product, period)
	if err != nil {
		return err
	}
	found := before.differences()
	var sums recorded
	rows := 0
	from, to := prefixUsage, after(prefixUsage)
	if !end.IsZero() { // ids are a little younger than the period of a request that had to be listed again
		from = usageRowAt(end.Add(clocksOff).UnixMilli())
	}
	if !start.IsZero() {
		to = usageRowAt(start.Add(-clocksOff).UnixMilli())
	}
	for from != "" {
		page, err := l.store.Range(ctx, product, from, to, PageMax)
		if err != nil {
			return err
		}
		for _, e := range page.Entities {
			if e.Texts["Period"] == period {
				sums.add(e)
			}
		}
		if rows += len(page.Entities); rows > AuditRowsMax {
			l.counters.add("audit too large")
			return l.report(product, period, found)
		}
		from = page.Next
	}
	now, err := l.readBooks(ctx, product, period)
	if err != nil {
		return err
	}
	if slices.Equal(before.etags(), now.etags()) {
		l.counters.add("audited")
		found = append(found, before.against(sums)...)
	}
	return l.report(product, period, found)
}

func (l *Ledger) report(product, period string, found []string) error {
	var failed error
	for _, what := range found {
		l.counters.add("audit failed")
		failed = errors.Join(failed, fmt.Errorf("AUDIT: product %s, period %s: %s", product, period, what))
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
