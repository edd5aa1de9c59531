package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/costgate/costgate/handler/internal/quota"
)

// Rows of the partition of crossings. A crossing is told of in both, or in none:
// they are inserted by one transaction, and the second goes when it was told.
//
//	N.<product>.<period>.<share>  a crossing: exists from the first time that it was noticed
//	N.<product>.alert.<id>        an Azure budget alert that is told of in the same way
//	P.<product>.<period>.<share>  it waits to be told: when it is due, and how often it was tried
const (
	crossingPartition = "crossings"
	prefixCrossing    = "N."
	prefixWaiting     = "P."
)

// Limits of crossings.
const (
	crossingsKnownMax  = 50_000              // that a process remembers
	crossingLateMax    = 24 * time.Hour      // behind the end of its period, in which it is still noticed
	crossingsKept      = 60 * 24 * time.Hour // behind the end of their period
	crossingsEvery     = 24 * time.Hour      // between the beginnings of two rounds of a process over old ones
	crossingsPagesMax  = 20                  // of them that one sweep reads
	crossingsSweepMax  = 5 * time.Second     // of one sweep
	crossingsWholeRead = 5 * time.Second     // at least, between two reads of the whole books for what others have spent
)

// crossingSpace is the name space of the ids of crossings.
var crossingSpace = uuid.UUID{0x5c, 0x1e, 0x0f, 0x3a, 0x9a, 0x6d, 0x4c, 0x6e, 0x8d, 0x0b, 0x2f, 0x47, 0xb3, 0x58, 0x71, 0xe9}

// Crossing tells that what a product has spent has reached a share of its budget,
// for the first time in a period. Amounts are in Unit, and as they were when it
// was noticed.
type Crossing struct {
	ID                 string // a UUID that follows from product, period and share: whoever notices it names it so
	ProductID, Product string
	Period             string
	Start, End         time.Time // of the period; zero: it has none
	Unit               quota.Unit
	Budget, Spent      int64
	AtPPM              int64  // the share
	State              string // as GetById says: open, exhausted, stopped
	Alert              string // JSON: what an Azure budget alert said, of which this tells instead; empty: none
	Time               time.Time
	Attempts           int // to tell of it, the running one included

	row, etag string // of the waiting row, as claimed
}

// crossingState is what this process knows of crossings. All of it may be
// forgotten: it is read again then.
type crossingState struct {
	mu    sync.Mutex // never held while waiting
	known map[string]bool

	from string        // of a round over old ones: the row to go on from; sweeps only
	due  time.Duration // when the next round begins
}

func (s *crossingState) isKnown(row string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[row]
}

func (s *crossingState) learn(row string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= crossingsKnownMax {
		s.known = map[string]bool{}
	}
	s.known[row] = true
}

func crossingName(product, period string, ppm int64) string {
	return fmt.Sprintf("%s.%s.%08d", product, period, ppm)
}

// reached tells whether spent is at least a share of a budget. Nothing is a share
// of no budget.
func reached(spent, budget, ppm int64) bool {
	if spent <= 0 || budget <= 0 || ppm <= 0 {
		return false
	}
	spentHigh, spentLow := bits.Mul64(uint64(spent), 1_000_000)
	shareHigh, shareLow := bits.Mul64(uint64(budget), uint64(ppm))
	return spentHigh > shareHigh || spentHigh == shareHigh && spentLow >= shareLow
}

// notices tells whether anybody wants to know of crossings.
func (l *Ledger) notices() bool { return l.options.OnCrossing != nil }

// notice starts a look at the books if this process sees a share reached that it
// does not know as crossed. b.mu is held.
func (b *book) notice() {
	if !b.ledger.notices() || b.noticing || b.product0 == nil || !b.fresh(b.spent(), b.account.Budget) {
		return
	}
	b.noticing = true
	b.ledger.start(b.lookForCrossings)
}

// fresh tells whether an amount reaches a share that is not known as crossed. b.mu
// is held.
func (b *book) fresh(spent, budget int64) bool {
	for _, ppm := range b.product0.NotifyAtPPM {
		if reached(spent, budget, ppm) && !slices.Contains(b.crossed, ppm) {
			return true
		}
	}
	return false
}

// spent is what was spent as far as this process knows. b.mu is held.
func (b *book) spent() int64 {
	spent := b.account.Closed + b.others
	if b.lease != nil {
		spent += b.lease.Settled
	}
	return spent
}

// hidden tells whether others may have crossed a share unseen: they have money
// enough, and their leases were not read for some seconds. account is the row as it
// was just read.
func (b *book) hidden(account Entity) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ledger.notices() || b.noticing || b.ledger.rt.Elapsed()-b.wholeAt < crossingsWholeRead {
		return false
	}
	most := account.Ints["Committed"] // what is committed is the most that can be spent
	if b.lease != nil {
		most -= b.lease.Granted - b.lease.Settled
	}
	return most > b.spent() && b.fresh(most, account.Ints["Budget"])
}

func (b *book) lookForCrossings() {
	crossed, err := b.ledger.crossNow(b.product, b.window.Name)
	if err != nil || len(crossed) == 0 { // the next transaction or poll looks again, and so does the sweep
		b.ledger.pause(6)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noticing = false
	for _, ppm := range crossed {
		if !slices.Contains(b.crossed, ppm) {
			b.crossed = append(b.crossed, ppm)
		}
	}
}

// crossNow reads the books of a period, and stores what they show crossed. It
// returns the shares whose crossing is stored.
func (l *Ledger) crossNow(product, period string) ([]int64, error) {
	ctx, cancel := l.rt.Deadline(context.Background(), 3*txnTimeout)
	defer cancel()
	books, err := l.readBooks(ctx, product, period)
	if err != nil || !books.exists {
		return nil, err
	}
	p, _, err := l.readProduct(ctx, product)
	if err != nil {
		return nil, err
	}
	return l.cross(ctx, p, books.view())
}

// crossEdited looks at the account of an edit that is in the store: a budget may
// have been lowered, or a share added.
func (l *Ledger) crossEdited(d *Draft) {
	if !l.notices() {
		return
	}
	product, period := d.Product.ID, d.Account.Period
	l.start(func() {
		if _, err := l.crossNow(product, period); err != nil {
			l.log.Info("the next sweep looks for shares of the budget that were reached", "product_id", product, "error", err)
		}
	})
}

// cross stores those crossings that an account shows and that are not stored yet.
// It returns the shares whose crossing is stored. An error is the last one; the
// others were tried all the same.
func (l *Ledger) cross(ctx context.Context, p *quota.Product, a Account) (crossed []int64, err error) {
	for _, ppm := range p.NotifyAtPPM {
		if !reached(a.Spent, a.Budget, ppm) {
			continue
		}
		if storeErr := l.storeCrossing(ctx, p, &a, ppm); storeErr != nil {
			err = fmt.Errorf("crossing of product %s: %w", p.ID, storeErr)
			continue
		}
		crossed = append(crossed, ppm)
	}
	return crossed, err
}

// storeCrossing inserts a crossing unless it is there. An answer that did not
// come says nothing: whoever asks again finds the row.
func (l *Ledger) storeCrossing(ctx context.Context, p *quota.Product, a *Account, ppm int64) error {
	name := crossingName(p.ID, a.Period, ppm)
	if l.crossings.isKnown(name) {
		return nil
	}
	return l.insertCrossing(ctx, name, l.newCrossing(p, a, ppm))
}

func (l *Ledger) insertCrossing(ctx context.Context, name string, c *Crossing) error {
	_, err := l.store.Apply(ctx, crossingPartition, []Op{
		{Kind: Insert, Entity: c.entity(name)}, {Kind: Insert, Entity: waitingEntity(name, 0, 0)},
	})
	if err != nil && !errors.Is(err, ErrExists) {
		return err
	}
	l.crossings.learn(name)
	if err == nil {
		l.counters.add("crossing")
		l.options.OnCrossing()
	}
	return nil
}

func (l *Ledger) newCrossing(p *quota.Product, a *Account, ppm int64) *Crossing {
	now, state := l.rt.Now(), "open"
	if a.Budget-a.Spent <= 0 {
		state = "exhausted"
	}
	if _, stopped := p.Stopped(now); stopped {
		state = "stopped"
	}
	id := uuid.NewHash(sha256.New(), crossingSpace, []byte(crossingName(p.ID, a.Period, ppm)), 8)
	return &Crossing{
		ID: id.String(), ProductID: p.ID, Product: p.Name, Period: a.Period, Start: a.Start, End: a.End, Unit: p.Unit,
		Budget: a.Budget, Spent: a.Spent, AtPPM: ppm, State: state, Time: now,
	}
}

func (c *Crossing) entity(name string) Entity {
	return Entity{
		Row:  prefixCrossing + name,
		Ints: map[string]int64{"Budget": c.Budget, "Spent": c.Spent, "AtPPM": c.AtPPM, "Attempts": int64(c.Attempts)},
		Texts: map[string]string{
			"ID": c.ID, "ProductID": c.ProductID, "Product": c.Product, "Period": c.Period, "Start": formatTime(c.Start), "End": formatTime(c.End),
			"Unit": string(c.Unit), "State": c.State, "Time": formatTime(c.Time), "Alert": c.Alert,
		},
	}
}

func crossingOf(e Entity) *Crossing {
	return &Crossing{
		ID: e.Texts["ID"], ProductID: e.Texts["ProductID"], Product: e.Texts["Product"], Period: e.Texts["Period"],
		Start: parseTime(e.Texts["Start"]), End: parseTime(e.Texts["End"]), Unit: quota.Unit(e.Texts["Unit"]),
		Budget: e.Ints["Budget"], Spent: e.Ints["Spent"], AtPPM: e.Ints["AtPPM"], State: e.Texts["State"], Time: parseTime(e.Texts["Time"]), Alert: e.Texts["Alert"],
	}
}

// AlertNotice stores that a product is to be told of as the subject of an Azure
// budget alert: once, under the alert's id, of letters, digits and hyphens. It is
// kept until some time behind end. If nobody wants to know, nothing happens.
func (l *Ledger) AlertNotice(ctx context.Context, p *quota.Product, alertID string, end time.Time, alert string) error {
	if !l.notices() {
		return nil
	}
	name := p.ID + ".alert." + alertID
	if l.crossings.isKnown(name) {
		return nil
	}
	c := l.newCrossing(p, &Account{End: end}, 0)
	c.ID, c.Alert, c.State = uuid.NewHash(sha256.New(), crossingSpace, []byte(name), 8).String(), alert, "open"
	if _, stopped := p.Stopped(c.Time); stopped {
		c.State = "stopped"
	}
	return l.insertCrossing(ctx, name, c)
}

// crossings stores what the books of a product show crossed, other processes' and
// late spending included.
func (s *productSweep) crossings(ctx context.Context, periods []*readPeriod) {
	l := s.ledger
	if !l.notices() {
		return
	}
	for _, p := range periods {
		end := p.account.Window.End
		if !p.exists || p.account.Budget <= 0 || !end.IsZero() && p.date.Sub(end) > crossingLateMax {
			continue
		}
		product, err := l.atLeast(ctx, s.id, p.account.Config)
		if err == nil {
			_, err = l.cross(ctx, product, p.view())
		}
		if err != nil {
			l.log.Warn("shares of a budget that were reached are looked for again", "product_id", s.id, "period", p.name, "error", err)
			return
		}
	}
}

// atLeast is a product of at least a version, as it was last read or as it is
// read now.
func (l *Ledger) atLeast(ctx context.Context, id string, version int64) (*quota.Product, error) {
	l.mu.Lock()
	have := l.newest[id]
	l.mu.Unlock()
	if have != nil && have.Version >= version {
		return have, nil
	}
	p, _, err := l.readProduct(ctx, id)
	return p, err
}
