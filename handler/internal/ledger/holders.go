package ledger

import (
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
)

// recountAfter is how old the count of processes may be, for a product whose
// request limits they share, when another has changed the account.
const recountAfter = 2 * time.Second

// Holders are the processes that use a product's budget now, this one included,
// as far as is known: the open leases when the books were last read. A process
// that is new to the product is counted by the others some seconds later.
func (l *Ledger) Holders(p *quota.Product) int64 {
	window, err := p.WindowAt(l.options.Now())
	if err != nil {
		return 1
	}
	l.mu.Lock()
	b := l.books[accountKey{p.ID, window.Name}]
	l.mu.Unlock()
	if b == nil {
		return 1
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	holders := b.holders
	if b.lease == nil { // it is about to take one
		holders++
	}
	return max(1, holders)
}

// recount tells whether the leases have to be read again, since their number
// divides request limits: row is the account as it was just read.
func (b *book) recount(row Entity) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	limited := b.product0.RequestsPerMinute > 0 || b.product0.TokensPerMinute > 0 || b.product0.MaxParallel > 0
	return limited && row.ETag != b.etag && b.ledger.rt.Elapsed()-b.wholeAt >= recountAfter
}
