package sim

import (
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
)

// product is one of the products of a run, what is special about it, and who
// judges it.
type product struct {
	number   int
	id       string
	key      string
	made     *quota.Product // as it was created
	oracle   *oracle
	overlap  bool
	soft     bool
	tokens   bool
	overruns bool             // some requests cost more than their hold
	period   quota.PeriodKind // at first
	next     quota.PeriodKind // from midnight on; empty: the same
	wealth   int64            // how much larger than usual the budget is
}

// knowledge is what a process, outside of its ledger, knows of a product.
type knowledge struct {
	product *quota.Product
	read    time.Duration
	stop    int64         // the version of the configuration in whose stop it could read
	since   time.Duration // when it read of it
	good    time.Duration // when its ledger last answered
	bad     int           // how often it did not, since
}

// draws are what a seed is like.
type draws struct {
	limits    ledger.Limits
	small     bool // the limits are
	crashes   bool
	freezes   bool
	outages   bool
	cuts      bool // of single processes
	edits     bool
	updates   bool
	amends    bool
	drains    bool
	skew      bool
	hours     bool // of the skew
	embedded  bool
	pauses    bool                       // of the load
	sweeps    bool                       // more than the clock asks for
	perMille  struct{ kill, freeze int } // of the writes, when they have just been sent
	rate      time.Duration
	ending    ending
	instances int
}

// draw decides what this seed is like: about a third of the faults is off.
func (r *run) draw() {
	w := r.world
	some := func(most int) int {
		if w.chance(35) {
			return 0
		}
		return 1 + w.random.IntN(most)
	}
	r.faults = faults{loseRequest: some(6), loseAnswer: some(6), late: some(6), twice: some(6)}
	r.faults.latency = []time.Duration{10, 40, 150}[w.random.IntN(3)] * time.Millisecond
	r.faults.timeout = []time.Duration{400, 1000, 3000}[w.random.IntN(3)] * time.Millisecond
	r.drawLimits()
	r.crashes, r.freezes, r.outages, r.cuts = !w.chance(25), !w.chance(35), !w.chance(50), w.chance(30)
	r.edits, r.updates, r.skew = !w.chance(35), !w.chance(35), !w.chance(35)
	r.amends, r.drains = w.chance(40), w.chance(30)
	r.hours = r.skew && w.chance(15)
	r.rate = []time.Duration{200, 700, 2000}[w.random.IntN(3)] * time.Millisecond
	if r.skew {
		r.server.offset = w.between(-2*time.Second, 2*time.Second)
	}
	r.pauses, r.sweeps = w.chance(35), w.chance(50)
	if r.crashes && w.chance(50) {
		r.perMille.kill = 2 + w.random.IntN(12)
	}
	if r.freezes && w.chance(50) {
		r.perMille.freeze = 2 + w.random.IntN(12)
	}
	r.instances = 2 + w.random.IntN(3)
	if r.embedded = w.chance(12); r.embedded {
		r.faults = faults{latency: 4 * time.Millisecond, timeout: 3 * time.Second}
		r.outages, r.cuts, r.instances = false, false, 1
	}
	r.products = append(r.products, r.drawProduct(0))
	if w.chance(20) && !r.config.Linear {
		r.products = append(r.products, r.drawProduct(1))
	}
	r.drawEnding()
	r.focus(r.config.Focus)
	if r.config.Linear { // few requests at a time: all their orders are tried
		p := r.products[0]
		p.overlap, p.soft, p.overruns, r.pauses, r.rate, r.ending = false, false, false, false, 3*time.Second, endPlain
	}
}

// Focus makes more of what one rule of the protocol is for, so that a schedule in
// which it matters comes soon.
type Focus int

// The things to make more of; any of them may be added up.
const (
	FocusLoss    Focus = 1 << iota // answers are lost, and so are leases: processes freeze just after they have sent a write
	FocusOverlap                   // products with slack
	FocusLists                     // reclaims that leave lists
	FocusEdits                     // of budgets, most of them when a period begins
	FocusCrash                     // processes die just after they have sent a write
)

// focus changes what was drawn.
func (r *run) focus(on Focus) {
	if on == 0 {
		return
	}
	if r.embedded {
		r.embedded, r.instances = false, 3
		r.faults = faults{latency: 40 * time.Millisecond, timeout: time.Second}
	}
	if on&FocusLoss != 0 {
		r.freezes, r.sweeps, r.perMille.freeze = true, true, 30
		r.faults.loseAnswer, r.faults.late = 15, 6
	}
	if on&FocusCrash != 0 {
		r.crashes, r.sweeps, r.perMille.kill = true, true, 30
	}
	if on&FocusLists != 0 {
		r.limits.Orphans, r.limits.Listed = 1, 1
	}
	r.edits = r.edits || on&FocusEdits != 0
	for _, p := range r.products {
		p.soft = false
		p.overlap = p.overlap || on&FocusOverlap != 0
	}
}

func (r *run) drawLimits() {
	w := r.world
	r.limits = ledger.Limits{
		Intents: ledger.IntentsMax, IntentBytes: ledger.IntentBytesMax, Unsent: ledger.UnsentMax,
		TxnRows: ledger.TxnRowsMax, TxnRowBytes: ledger.TxnRowBytesMax, Orphans: ledger.OrphansMax, Listed: ledger.ListedMax,
	}
	if w.chance(30) {
		r.limits.Orphans = 1
	}
	if r.small = w.chance(35); !r.small {
		return
	}
	r.limits = ledger.Limits{
		Intents: 3 + w.random.IntN(20), IntentBytes: 1500 + w.random.IntN(6000), Unsent: 1 + w.random.IntN(8),
		TxnRows: 5 + w.random.IntN(10), TxnRowBytes: 6000 + w.random.IntN(20_000), Orphans: 1 + w.random.IntN(3), Listed: 1 + w.random.IntN(3),
	}
}

func (r *run) drawProduct(number int) *product {
	w := r.world
	p := &product{number: number, key: []string{"simulated-key-0123456789", "another-simulated-key-01"}[number]}
	p.overlap, p.soft, p.tokens, p.overruns = w.chance(40), w.chance(12), w.chance(20), w.chance(20)
	p.wealth = []int64{1, 1, 10, 50}[w.random.IntN(4)]
	p.period = quota.PeriodDay
	switch {
	case w.chance(15):
		p.period = []quota.PeriodKind{quota.PeriodMonth, quota.PeriodWeek, quota.PeriodTotal}[w.random.IntN(3)]
	case w.chance(20):
		p.next = []quota.PeriodKind{quota.PeriodMonth, quota.PeriodWeek, quota.PeriodTotal}[w.random.IntN(3)]
	}
	p.oracle = newOracle(r, p)
	return p
}

// build makes a product as it is created.
func (r *run) build(p *product, id string, now time.Time) *quota.Product {
	made := &quota.Product{
		ID: id, Name: "Simulated", Keys: []quota.Key{{ID: "k_1", Hash: quota.HashKey(p.key), Created: now}},
		Unit: quota.UnitUSD, Budget: (2000 + r.random.Int64N(30_000)) * p.wealth, Period: p.period, TimeZone: "UTC",
		Enforcement: quota.EnforceHard, CreatedAt: now,
	}
	if p.overlap {
		made.Durability = quota.DurabilityOverlap
	}
	if p.soft {
		made.Enforcement = quota.EnforceSoft
	}
	if p.tokens {
		made.Unit = quota.UnitTokens
	}
	return made
}
