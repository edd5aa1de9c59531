package ledger

// Mutant names a rule of the protocol that is broken on purpose. The simulator
// proves that it notices each.
type Mutant string

// The mutants. Each is a line that was once forgotten, here or by somebody else.
const (
	UnknownIsFailed     Mutant = "unknown-is-failed"     // an error means that nothing happened
	FreshKey            Mutant = "fresh-key"             // the same, and what ended is recorded under another id then
	UnmovedIsDead       Mutant = "unmoved-is-dead"       // so does a read that shows the rows unmoved
	LostIsFailed        Mutant = "lost-is-failed"        // so does a lease that is gone
	BlockedIgnored      Mutant = "blocked-ignored"       // a row in the way is not looked for
	SameNameTwice       Mutant = "same-name-twice"       // one name comes twice in one transaction
	RowsUncounted       Mutant = "rows-uncounted"        // a transaction has as many rows as wait
	CloseUnsent         Mutant = "close-unsent"          // a lease goes with records that the lake lacks
	OpenWithoutAccount  Mutant = "open-without-account"  // a lease is opened without touching the account
	EditWithoutName     Mutant = "edit-without-name"     // no row says that an edit was made
	LeaseBeforeAccount  Mutant = "lease-before-account"  // the fate of a transaction is read in the wrong order
	RequeueSameID       Mutant = "requeue-same-id"       // a request that may be listed is listed again under its id
	StopUnseen          Mutant = "stop-unseen"           // the account is not read again
	StopNotRechecked    Mutant = "stop-not-rechecked"    // nor after a long wait
	OutboxClearedEarly  Mutant = "outbox-cleared-early"  // records are forgotten before the lake has them
	SlackUnpublished    Mutant = "slack-unpublished"     // less slack counts only when it is acknowledged
	UpdateWithoutName   Mutant = "update-without-name"   // no row says that an update was made
	CloseWhileRunning   Mutant = "close-while-running"   // a lease is closed under running requests
	OpenWithoutConfig   Mutant = "open-without-config"   // an account may start with an old budget
	CloseAnyETag        Mutant = "close-any-etag"        // a lease is closed whatever became of it
	EditAnyETag         Mutant = "edit-any-etag"         // an edit overwrites the account
	NobodyReclaims      Mutant = "nobody-reclaims"       // what the dead hold is lost
	ReclaimFreesAll     Mutant = "reclaim-frees-all"     // an expired lease gives all of its rest back
	ReclaimIgnoresSlack Mutant = "reclaim-ignores-slack" // what was not listed was not forwarded
	SlackWithoutRow     Mutant = "slack-without-row"     // a write-off has no record
	WriteOffNotReduced  Mutant = "write-off-not-reduced" // nor does it shrink
	LateDropped         Mutant = "late-dropped"          // what comes after a reclaim is forgotten
	LateBlind           Mutant = "late-blind"            // or added to what was charged
	VoidUsageFirst      Mutant = "void-usage-first"      // the same, for a request that was not forwarded
	ListAnyETag         Mutant = "list-any-etag"         // a list is overwritten whatever it became
	SweepDeletesUnsent  Mutant = "sweep-deletes-unsent"  // closed leases go with what they have to tell
	SweepDeletesList    Mutant = "sweep-deletes-list"    // lists go before they are records
	PageUnwritten       Mutant = "page-unwritten"        // a full list is forgotten
	PageDeletedEarly    Mutant = "page-deleted-early"    // a page goes when the lake has some of it
	ReviseTwice         Mutant = "revise-twice"          // each fetch of a response corrects its record
	ReviseAnyETag       Mutant = "revise-any-etag"       // whatever became of it
)

// mutated tells whether a rule is to be broken.
func (l *Ledger) mutated(rule Mutant) bool { return l.options.Mutant == rule }

// naive takes a transaction of unknown fate for one that did not happen, and goes
// on from what a read shows.
func (b *book) naive(p *plan) error {
	b.unpublish(p, false)
	if b.ledger.mutated(FreshKey) {
		for _, e := range p.ended {
			e.s.Record.ID = b.ledger.options.NewID(b.ledger.rt.Now())
		}
	}
	ctx, cancel := b.ledger.timeout()
	defer cancel()
	row, err := b.ledger.store.Get(ctx, b.product, leaseRow(b.window.Name, p.lease.ID))
	if err != nil {
		return nil //nolint:nilerr // a mutant
	}
	l, err := leaseOf(row)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lease, b.leaseETag = &l, row.ETag
	return err
}
