package ledger

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// plan is one transaction: what it writes, and what it means.
type plan struct {
	limits   *Limits
	mutant   Mutant
	ops      []Op
	account  account
	lease    lease
	touchesA bool
	opening  bool
	closing  bool
	accountI int // index of the operation that writes the account
	leaseI   int
	configI  int    // -1: the configuration is not in it
	chores   chores // that it does
	forced   int64  // of the grant: money already spent, or held
	full     bool   // something did not fit
	bytes    int
	rows     map[string]bool

	admitted []*want
	added    []*held // of admitted, and of requests that were forwarded before they were listed
	ended    []*ending
	charged  []*charge
	records  []usage.Record // that it stores: for the lake
	pages    []*page        // of records that the lease does not list any more
	denied   []denial
	acked    []mark
	found    map[string]bool // rows that were there already when its fate was looked for
	doubt    bool            // somebody would be refused by what is only remembered
	err      error
}

type denial struct {
	want *want
	err  error
}

// held: running requests and other processes hold the money.
func (d denial) held() bool {
	r := (*Refusal)(nil)
	return errors.As(d.err, &r) && r.Reason == ReasonHeld
}

// compose makes a transaction of what waits. It reads nothing and waits for
// nothing: between what it counts and what it announces (slackNext, the wants it
// takes) nobody may come. fresh: the books were just read.
func (b *book) compose(fresh bool) *plan {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := &plan{limits: &b.ledger.options.Limits, mutant: b.ledger.options.Mutant, account: b.account, configI: -1, rows: map[string]bool{}, found: map[string]bool{}}
	if !b.known || !b.busy() {
		return p
	}
	if b.lease == nil {
		if len(b.wants) == 0 && len(b.charges) == 0 && len(b.endings) == 0 {
			b.chores = chores{}
			return p
		}
		p.opening = true
		p.lease = lease{ID: b.ledger.options.NewID(b.ledger.rt.Now()), Instance: b.ledger.options.Instance}
	} else {
		p.lease = *b.lease
		p.lease.Unsent = nil
		for _, m := range b.lease.Unsent {
			if b.acked[m] || b.ledger.mutated(OutboxClearedEarly) {
				p.acked = append(p.acked, m)
			} else {
				p.lease.Unsent = append(p.lease.Unsent, m)
			}
		}
	}
	b.composeEndings(p)
	b.composeCharges(p)
	ended := map[*held]bool{}
	for _, e := range p.ended {
		ended[e.held] = true
	}
	p.lease.Intents = nil
	for _, h := range b.ordered() {
		if !h.lost && !ended[h] {
			p.lease.Intents = append(p.lease.Intents, h.intent)
			if !h.listed {
				h.pending = true
				p.added = append(p.added, h)
			}
		}
	}
	free := p.lease.Granted - p.lease.Settled - p.lease.held()
	granted := int64(0)
	if free < 0 { // money already spent, or held: the grant is forced
		granted, p.forced = -free, -free
		free = 0
	}
	if b.overcommitted() { // a budget was lowered: what is free goes back before anybody uses it
		b.chores.shrink = true
		free = 0
	}
	granted = b.composeWants(p, free, granted, fresh)
	if p.doubt || p.err != nil {
		return p
	}
	b.composeShare(p, granted)
	if p.opening && len(p.admitted) == 0 && len(p.charged) == 0 {
		p.ops = nil
		b.chores = chores{}
		return p
	}
	b.finishPlan(p, fresh)
	if p.doubt {
		return p
	}
	if p.err == nil && len(p.ops) > 0 {
		p.chores, b.chores = b.chores, chores{}
		if !b.ledger.mutated(SlackUnpublished) {
			b.slackNext = p.lease.Slack
		}
		b.take(p)
	}
	return p
}

// ordered are the live requests in the order of their ids: what is composed must
// not depend on a map's order.
func (b *book) ordered() []*held {
	all := slices.Collect(maps.Values(b.live))
	slices.SortFunc(all, func(x, y *held) int { return strings.Compare(x.intent.ID, y.intent.ID) })
	return all
}

func (b *book) overcommitted() bool {
	return b.account.Committed > b.account.Budget && b.product0.Enforcement == quota.EnforceHard
}

// slackTarget is how much may be forwarded before it is listed: nothing unless
// the product chose so, has requests running, and is far from its limit.
func (b *book) slackTarget(left int64) int64 {
	if b.product0.Durability != quota.DurabilityOverlap || b.underPressure() || b.chores.idle || b.chores.shut {
		return 0
	}
	return max(0, min(b.rate.per(slackSeconds), left/(8*max(1, b.holders))))
}

// quick admits a request of an overlap product at once, if the slack of the row
// that is known, and of the one that is on its way, has room for it.
func (b *book) quick(w *want) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lease == nil || !b.valid() || b.ledger.brokenBy(b.product) != nil || b.overcommitted() || b.product0.Durability != quota.DurabilityOverlap || len(b.wants) > 0 || len(b.live) >= b.ledger.options.Limits.Intents/2 {
		return false
	}
	if _, stopped := b.product0.Stopped(b.ledger.rt.Now()); stopped {
		return false
	}
	unlisted, unseen := int64(0), int64(0)
	for _, h := range b.live {
		if h.lost {
			continue
		}
		if !h.listed {
			unlisted += h.intent.Hold
			if !h.pending {
				unseen += h.intent.Hold
			}
		}
	}
	amount := w.reservation.Max
	if amount <= 0 { // it would fit even while the lease is being closed
		return false
	}
	if unlisted+amount > b.lease.Slack || unseen+amount > b.slackNext {
		return false
	}
	w.hold.grant(amount, &w.reservation)
	in, err := newIntent(&w.hold.Record, amount)
	if err != nil {
		return false
	}
	if b.listBytes += in.bytes() + len(in.template); b.listBytes > b.ledger.options.Limits.IntentBytes {
		return false // the next transaction counts more exactly
	}
	h := &held{intent: in, hold: w.hold, gate: b.ledger.rt.Gate(), leaseID: b.lease.ID}
	w.hold.held, w.hold.book, w.hold.Account = h, b, b.view()
	b.live[in.ID] = h
	b.rate.add(b.ledger.rt.Elapsed(), amount)
	b.usedAt = b.ledger.rt.Elapsed()
	b.chores.beat = true // list it
	b.ledger.counters.add("overlapped")
	b.kick()
	return true
}

// take removes from the queues what the plan carries. b.mu is held.
func (b *book) take(p *plan) {
	b.wants = without(b.wants, p.admitted)
	b.endings = without(b.endings, p.ended)
	b.charges = without(b.charges, p.charged)
	for _, d := range p.denied {
		b.wants = without(b.wants, []*want{d.want})
	}
}

func without[T comparable](all, some []T) []T {
	gone := make(map[T]bool, len(some))
	for _, s := range some {
		gone[s] = true
	}
	kept := make([]T, 0, len(all))
	for _, a := range all {
		if !gone[a] {
			kept = append(kept, a)
		}
	}
	return kept
}

// add puts operations into the plan if they fit: rows, bytes, and no row twice.
func (p *plan) add(ops ...Op) bool {
	bytes := 0
	for _, o := range ops {
		if p.rows[o.Entity.Row] && p.mutant != SameNameTwice {
			return false
		}
		bytes += OpBytes(o)
	}
	if len(p.ops)+len(ops) > p.limits.TxnRows && p.mutant != RowsUncounted || p.bytes+bytes > p.limits.TxnRowBytes {
		p.full = true
		return false
	}
	for _, o := range ops {
		p.rows[o.Entity.Row] = true
	}
	p.ops, p.bytes = append(p.ops, ops...), p.bytes+bytes
	return true
}

// record adds a record's row, listing it as unsent in the lease. A full list
// becomes a page before.
func (p *plan) record(r *usage.Record, more ...Op) (bool, error) {
	row, _, err := recordEntities(r)
	if err != nil {
		return false, err
	}
	ops, full := append([]Op{{Kind: Insert, Entity: row}}, more...), (*page)(nil)
	if len(p.lease.Unsent) >= p.limits.Unsent {
		full = newPage(p.lease.Unsent)
		e, err := full.entity(leaseRow(p.account.Window.Name, p.lease.ID))
		if err != nil {
			return false, err
		}
		if p.mutant != PageUnwritten {
			ops = append(ops, Op{Kind: Insert, Entity: e})
		}
	}
	if !p.add(ops...) {
		return false, nil
	}
	if full != nil {
		p.pages, p.lease.Unsent = append(p.pages, full), nil
	}
	p.lease.Unsent = append(p.lease.Unsent, mark{r.ID, r.Rev})
	p.records = append(p.records, *r)
	p.lease.Settled += spentBy(r)
	p.lease.Records++
	p.lease.Tokens += row.Ints["Tokens"]
	return true, nil
}

// composeEndings turns requests that are over into records. One that does not
// fit stays listed at its hold.
func (b *book) composeEndings(p *plan) {
	for _, e := range b.endings {
		if e.held.lost {
			continue // the late path has it
		}
		if e.void {
			p.ended = append(p.ended, e)
			continue
		}
		var more []Op
		if id := e.s.StoredResponse; id != "" && !e.known && !p.rows[responseRow(id)] {
			more = append(more, responseOp(&e.s))
		}
		fits, err := p.record(&e.s.Record, more...)
		if err != nil {
			b.ledger.log.Error("BUG: a settlement cannot be written", "record", e.s.Record.ID, "error", err)
			continue
		}
		if !fits {
			break
		}
		if spentBy(&e.s.Record) > e.held.intent.Hold {
			p.lease.Overruns++
		}
		p.ended = append(p.ended, e)
	}
}

func responseOp(s *Settlement) Op {
	return Op{Kind: Insert, Entity: Entity{
		Row:  responseRow(s.StoredResponse),
		Ints: map[string]int64{"Tokens": s.StoredTokens}, Texts: map[string]string{"Record": s.Record.ID, "Model": s.StoredModel},
	}}
}

func (b *book) composeCharges(p *plan) {
	for _, c := range b.charges {
		var more []Op
		for _, once := range c.once {
			if b.ledger.mutated(UpdateWithoutName) {
				break
			}
			more = append(more, Op{Kind: Insert, Entity: once.entity()})
		}
		if s := c.settles; s != nil && s.StoredResponse != "" && !c.known && !p.rows[responseRow(s.StoredResponse)] {
			more = append(more, responseOp(s))
		}
		fits, err := p.record(&c.record, more...)
		if err != nil {
			b.ledger.log.Error("BUG: a charge cannot be written", "record", c.record.ID, "error", err)
			continue
		}
		if fits {
			p.charged = append(p.charged, c)
			if c.settles != nil && spentBy(&c.record) > c.hold {
				p.lease.Overruns++
			}
		} else if p.full {
			break
		}
	}
}

// composeWants admits the requests that fit into what the lease has free and
// into what the account has left, in their order. It returns the grant so far.
func (b *book) composeWants(p *plan, free, granted int64, fresh bool) int64 {
	left := max(0, b.account.Budget-b.account.Committed-granted)
	now := b.ledger.rt.Now()
	stop, stopped := b.product0.Stopped(now)
	if stopped && !fresh && !b.valid() && len(b.wants) > 0 { // it may have been lifted
		p.doubt = true
		return granted
	}
	broken := b.ledger.brokenBy(b.product)
	size := newListSize(p.lease.Intents)
	for _, w := range b.wants {
		if w.dropped {
			continue
		}
		if broken != nil {
			p.denied = append(p.denied, denial{w, final(errors.Join(ErrUnavailable, broken))})
			continue
		}
		if stopped {
			p.denied = append(p.denied, denial{w, &Refusal{Reason: ReasonStopped, Stop: stop, Window: b.window}})
			continue
		}
		if len(p.lease.Intents) >= p.limits.Intents || size.bytes >= p.limits.IntentBytes {
			if len(p.admitted) == 0 && len(p.ended) == 0 {
				p.denied = append(p.denied, denial{w, ErrBusy})
			}
			continue
		}
		amount := w.reservation.Max
		soft := b.product0.Enforcement == quota.EnforceSoft
		if amount > free+left && !soft {
			if w.reservation.Min > free+left {
				if !fresh {
					p.doubt = true
					return granted
				}
				if w.asked > b.wholeAt { // it came while the books were read: money may have come with it
					continue
				}
				p.denied = append(p.denied, denial{w, b.whyNot(w.reservation.Min)})
				continue
			}
			amount = free + left
		}
		if amount > math.MaxInt64/4-p.lease.Granted-granted {
			p.denied = append(p.denied, denial{w, &Refusal{Reason: ReasonHeld, Window: b.window}})
			continue
		}
		w.hold.grant(amount, &w.reservation)
		in, err := newIntent(&w.hold.Record, amount)
		if err != nil {
			p.denied = append(p.denied, denial{w, final(err)})
			continue
		}
		size.add(&in)
		short := max(0, amount-free)
		free -= amount - short
		granted += short
		left = max(0, left-short)
		p.lease.Intents = append(p.lease.Intents, in)
		p.admitted = append(p.admitted, w)
		h := &held{intent: in, hold: w.hold, gate: b.ledger.rt.Gate(), leaseID: p.lease.ID}
		w.hold.held, w.hold.book = h, b
		p.added = append(p.added, h)
		b.rate.add(b.ledger.rt.Elapsed(), amount)
	}
	b.listBytes = size.bytes
	return granted
}

// listSize is how many bytes a lease needs for its intents.
type listSize struct {
	bytes     int
	templates map[string]bool
}

func newListSize(list []intent) *listSize {
	s := &listSize{templates: map[string]bool{}}
	for i := range list {
		s.add(&list[i])
	}
	return s
}

func (s *listSize) add(i *intent) {
	s.bytes += i.bytes()
	if !s.templates[i.template] {
		s.templates[i.template] = true
		s.bytes += len(i.template)
	}
}

// whyNot tells a hold that can never fit from one that waits for others to end.
// What this transaction is about to settle counts as held: it is answered first.
func (b *book) whyNot(least int64) error {
	spent := b.account.Closed + b.others
	if b.lease != nil {
		spent += b.lease.Settled
	}
	if least > b.account.Budget-spent {
		return &Refusal{Reason: ReasonExhausted, Window: b.window}
	}
	return &Refusal{Reason: ReasonHeld, Window: b.window}
}

// composeShare decides how much of the account this lease takes or returns, its
// slack, and whether it ends.
func (b *book) composeShare(p *plan, granted int64) {
	l := &p.lease
	pressure := b.underPressure()
	left := b.account.Budget - b.account.Committed - granted
	if granted > 0 && left > 0 && !pressure { // as long as it is asked at all: ask for some seconds
		ahead := min(b.rate.per(grantSeconds), left/(2*max(1, b.holders)))
		granted += max(0, ahead)
	}
	l.Granted += granted
	idle := l.Granted - l.Settled - l.held()
	l.Slack = min(b.slackTarget(left-granted), max(idle, 0)) // whatever was forwarded is in Intents: none of it needs slack
	returned := int64(0)
	if b.chores.shrink && granted == 0 && !p.opening {
		returned = idle - l.Slack
		if pressure || b.overcommitted() {
			returned, l.Slack = idle, 0
		}
	}
	p.closing = b.chores.shut && !p.opening && len(l.Intents) == 0 && (len(l.Unsent)+len(b.paged) == 0 || b.ledger.mutated(CloseUnsent)) && len(p.ended) == 0 && len(p.charged) == 0 && len(b.live) == 0
	if b.ledger.mutated(CloseWhileRunning) && b.chores.shrink && !p.opening && len(p.added) == 0 && len(p.ended) == 0 && len(p.charged) == 0 && granted == 0 {
		p.closing = true
	}
	p.touchesA = p.opening && !b.ledger.mutated(OpenWithoutAccount) || p.closing || granted > 0 || returned > 0
	l.Granted -= returned
	a := &p.account
	a.Committed += granted - returned
	if p.closing {
		l.Slack = 0
		a.Committed -= l.Granted - l.Settled
		a.Closed += l.Settled
		a.Records += l.Records
		a.Tokens += l.Tokens
		a.Overruns += l.Overruns
	}
}

// finishPlan adds the rows of the account and the lease, if there is anything
// to write.
func (b *book) finishPlan(p *plan, fresh bool) {
	l := &p.lease
	nothing := len(p.ops) == 0 && len(p.ended) == 0 && len(p.added) == 0 && !p.touchesA && !b.chores.beat && !(b.chores.idle && l.Slack != b.lease.Slack)
	if nothing {
		b.chores = chores{}
		return
	}
	p.accountI, p.leaseI = -1, -1
	if p.touchesA {
		p.account.Version++
		p.account.Config = b.product0.Version
		e := p.account.entity()
		p.accountI = len(p.ops)
		if b.etag == "" {
			p.ops = append(p.ops, Op{Kind: Insert, Entity: e})
			if !b.ledger.mutated(OpenWithoutConfig) {
				p.ops = append(p.ops, Op{Kind: Replace, Entity: b.config})
				p.configI = p.accountI + 1
			}
		} else {
			e.ETag = b.etag
			p.ops = append(p.ops, Op{Kind: Replace, Entity: e})
		}
	}
	l.Nonce = randomName(b.ledger.rt)
	e, err := l.entity(b.window.Name)
	if err != nil {
		b.ledger.breakProduct(b.product, err)
		p.err = err
		return
	}
	p.leaseI = len(p.ops)
	switch {
	case p.closing:
		etag := b.leaseETag
		if b.ledger.mutated(CloseAnyETag) {
			etag = AnyETag
		}
		p.ops = append(p.ops, Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: etag}})
	case p.opening:
		p.ops = append(p.ops, Op{Kind: Insert, Entity: e})
	default:
		e.ETag = b.leaseETag
		p.ops = append(p.ops, Op{Kind: Replace, Entity: e})
	}
	if err := checkMoney(b.before(e.Row), p.ops, p.forced, b.product0.Enforcement != quota.EnforceHard); err != nil && b.ledger.options.Mutant == "" {
		if !fresh { // the lease may have been reclaimed before the account was read
			p.doubt = true
			return
		}
		b.ledger.breakProduct(b.product, err)
		p.err = err
	}
}

// before are the rows that a transaction replaces, as this process knows them.
func (b *book) before(leaseRow string) []Entity {
	rows := make([]Entity, 0, 2)
	if b.etag != "" {
		rows = append(rows, b.account.entity())
	}
	if b.lease != nil {
		rows = append(rows, Entity{Row: leaseRow, Ints: b.lease.ints()})
	}
	return rows
}
