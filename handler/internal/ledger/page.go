package ledger

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PagedMax is how many records on pages of own leases are remembered. Those of
// further pages are found by a look at the outbox, as if they were another's.
const PagedMax = 20_000

// page is a list of records that the lake has not acknowledged, for which a
// lease has no room: while the hub is away each transaction would carry the whole
// list, and a row for each record costs a write each. A page is written once, and
// deleted when the lake has all of it.
type page struct {
	row     string
	marks   []mark
	acked   map[mark]bool
	offered time.Duration // when the first of them was
}

func newPage(marks []mark) *page {
	return &page{row: outboxRow(marks[0].ID, marks[0].Rev) + suffixPage, marks: marks, acked: map[mark]bool{}}
}

func (g *page) entity(lease string) (Entity, error) {
	e := Entity{Row: g.row, Texts: map[string]string{"Lease": lease}}
	return e, putMarks(e.Texts, g.marks)
}

// firstOf is the mark that a page's name has.
func firstOf(row string) (m mark) {
	id, rev, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(row, prefixOutbox), suffixPage), ".")
	m.ID = id
	m.Rev, _ = strconv.Atoi(rev) // no page has the mark of another name
	return m
}

func isPage(row string) bool {
	return strings.HasPrefix(row, prefixOutbox) && strings.HasSuffix(row, suffixPage)
}

// pointedBy are the usage rows that an outbox row points to.
func pointedBy(e Entity) ([]string, error) {
	if !isPage(e.Row) {
		return []string{e.Texts["Usage"]}, nil
	}
	marks, err := marksOf(e.Texts)
	rows := make([]string, 0, len(marks))
	for _, m := range marks {
		row, badID := usageRow(m.ID)
		if badID != nil {
			err = badID
			continue
		}
		rows = append(rows, row)
	}
	return rows, err
}

// turn takes over a page that is written: the lease does not list its records any
// more. b.mu is held.
func (b *book) turn(g *page) {
	g.offered = b.ledger.rt.Elapsed()
	known := b.ledger.outbox.paged.Add(int64(len(g.marks))) <= PagedMax
	if !known {
		b.ledger.outbox.paged.Add(-int64(len(g.marks)))
	}
	for _, m := range g.marks {
		if at, ok := b.offered[m]; ok {
			g.offered = min(g.offered, at)
		}
		if b.acked[m] {
			g.acked[m] = true
		}
		delete(b.offered, m)
		delete(b.acked, m)
		if known {
			b.paged[m] = g
		}
	}
}

// untaken notes that a record was offered in vain: the next look has to find it.
// b.mu is held.
func (b *book) untaken(m mark, long time.Duration) {
	if g := b.paged[m]; g != nil {
		g.offered = long
	} else if _, listed := b.offered[m]; listed {
		b.offered[m] = long
	}
}

// leave forgets a page. b.mu is held.
func (b *book) leave(g *page) {
	if b.paged[g.marks[0]] != g {
		return
	}
	for _, m := range g.marks {
		delete(b.paged, m)
	}
	b.ledger.outbox.paged.Add(-int64(len(g.marks)))
}

// forgetPages is for a lease that is gone. b.mu is held.
func (b *book) forgetPages() {
	b.ledger.outbox.paged.Add(-int64(len(b.paged)))
	b.paged = map[mark]*page{}
}

// waits tells whether a look at the outbox has to pass over a page: the process
// that has its lease sends what is on it. open has what is known of leases.
func (k *look) waits(ctx context.Context, product string, e Entity, open map[string]bool) bool {
	lease := e.Texts["Lease"]
	if b := k.ledger.bookOf(product, lease); b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		g := b.paged[firstOf(e.Row)]
		return g != nil && g.row == e.Row
	}
	is, known := open[lease]
	if !known {
		row, err := k.ledger.store.Get(ctx, product, lease)
		if err != nil && !errors.Is(err, ErrMissing) {
			k.failed = noted(k.failed, err)
			return true
		}
		is = err == nil && row.Ints["Closed"] == 0
		open[lease] = is
	}
	return is
}

// overdue are the records of the lease and its pages that were offered so long
// ago that they are offered once more. b.mu is held.
func (b *book) overdue() (marks []mark) {
	if b.lease == nil {
		return nil
	}
	now := b.ledger.rt.Elapsed()
	for _, g := range b.pages() {
		for _, m := range g.marks {
			if now-g.offered > resendAfter && !g.acked[m] {
				marks = append(marks, m)
			}
		}
	}
	for _, m := range b.lease.Unsent {
		if at, offered := b.offered[m]; offered && now-at > resendAfter {
			marks = append(marks, m)
		}
	}
	return marks
}

// pages are those that are remembered, the oldest first. b.mu is held.
func (b *book) pages() (all []*page) {
	for m, g := range b.paged {
		if m == g.marks[0] {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(x, y *page) int { return strings.Compare(x.row, y.row) })
	return all
}

// donePages are pages that the lake has all of: its acknowledgement came before
// the page, or its deletion failed. b.mu is held.
func (b *book) donePages() (done []*page) {
	for _, g := range b.pages() {
		if len(g.acked) == len(g.marks) {
			done = append(done, g)
		}
	}
	return done
}

func (b *book) deletePages(ctx context.Context, pages []*page) error {
	ops := make([]Op, 0, len(pages))
	for _, g := range pages {
		ops = append(ops, Op{Kind: Delete, Entity: Entity{Row: g.row, ETag: AnyETag}})
	}
	for some := range slices.Chunk(ops, OpsMax) {
		if err := b.ledger.deleteAll(ctx, b.product, some); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range pages {
		b.leave(g)
	}
	return nil
}

func (b *book) compare(other *book) int {
	return cmp.Or(strings.Compare(b.product, other.product), strings.Compare(b.window.Name, other.window.Name))
}
