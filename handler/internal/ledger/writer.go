package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
)

// writer is the one place where a process changes an account. Operations queue
// up; whoever finds no goroutine at work starts one, which commits all that
// waits in as few transactions as fit, and ends when nothing waits.
//
// Every transaction replaces the account row under its ETag. So of two
// transactions made from one state of the account at most one happens, and a
// transaction that was thought lost but arrives late is dead as soon as another
// one has happened. After an error of any kind the operations that were in the
// transaction first look for their own rows (look), since neither an error nor
// a conflict says that the transaction did not happen.
type writer struct {
	ledger  *Ledger
	product string
	window  quota.Window

	mu      sync.Mutex
	queue   []*job
	running bool
	known   Account // the last account seen, for headroom
	seen    bool

	// The rest belongs to the running goroutine.
	jobs      []*job // taken from the queue, not finished
	sure      bool   // all of jobs have looked for their rows in this attempt
	uncertain int    // so many of jobs, from the first, were in a transaction of unknown outcome
	tries     int
	single    bool // make transactions of one job: something is wrong with one of them
	state     state
}

// state is what the writer believes the store holds.
type state struct {
	loaded      bool
	fresh       bool // read since the last commit attempt
	account     Account
	accountETag string // empty: the account does not exist yet
	config      *quota.Product
	configRow   Entity
}

// job is an operation that waits, and who waits for it.
type job struct {
	op   op
	ctx  context.Context //nolint:containedctx // ends a job that may be given up
	done chan error
}

// op is a change of an account. The writer's goroutine calls its methods.
type op interface {
	// look reads the op's own rows after a transaction that may have happened.
	// done means that the effect is in the store. An error that wraps
	// errFinal ends the op.
	look(ctx context.Context, s Store, product string) (done bool, err error)
	// compose adds the op to a transaction, or returns a *Refusal.
	compose(t *transaction) error
	// committed is called once, when the effect is in the store. The account
	// is nil if it could not be read afterwards.
	committed(l *Ledger, account *Account)
	// traits tells whether the op goes on when nobody waits for it any more,
	// and whether it must look before it is composed for the first time.
	traits() (patient, looksFirst bool)
}

// transaction is one under construction: a copy of the account and the rows
// that go with it.
type transaction struct {
	now     time.Time
	config  *quota.Product
	window  quota.Window
	account Account
	ops     []Op
	touched bool // the account must be written even if no row goes with it
}

func (t *transaction) add(kind OpKind, e Entity) { t.ops = append(t.ops, Op{Kind: kind, Entity: e}) }

const (
	rowsPerTxnMax = OpsMax - 2 // besides the account and the configuration
	txnTimeout    = 10 * time.Second
)

// do queues an operation and waits for it. If ctx ends first, a patient
// operation goes on all the same.
func (w *writer) do(ctx context.Context, o op) error {
	j := w.enqueue(ctx, o)
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *writer) enqueue(ctx context.Context, o op) *job {
	j := &job{op: o, ctx: ctx, done: make(chan error, 1)}
	patient, _ := o.traits()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) >= QueueMax && !patient {
		j.done <- ErrBusy
		return j
	}
	w.queue = append(w.queue, j)
	if !w.running {
		w.running = true
		w.ledger.pending.Add(1)
		go w.run()
	}
	return j
}

func (w *writer) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.running
}

func (w *writer) headroom() (int64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known.available(), w.seen
}

func (w *writer) run() {
	defer w.ledger.pending.Done()
	for {
		w.mu.Lock()
		w.jobs = append(w.jobs, w.queue...)
		w.queue = nil
		if len(w.jobs) == 0 {
			w.jobs, w.running = nil, false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		w.step()
	}
}

// step tries to finish some of the jobs, and waits a while if it cannot.
func (w *writer) step() {
	w.dropGivenUp()
	if len(w.jobs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), txnTimeout)
	err := w.attempt(ctx)
	cancel()
	if err == nil {
		w.tries = 0
		return
	}
	if errors.Is(err, errFinal) { // nothing can be done for any of them
		for _, j := range w.jobs {
			j.done <- err
		}
		w.jobs, w.uncertain, w.tries = nil, 0, 0
		return
	}
	w.state.loaded = false
	w.tries++
	if errors.Is(err, ErrInvalid) { // a defect of ours, never the store's state
		w.ledger.log.Error("BUG: the store does not accept a transaction", "product_id", w.product, "jobs", w.uncertain, "error", err)
		if w.uncertain == 1 {
			w.jobs[0].done <- final(err)
			w.jobs = w.jobs[1:]
		}
		w.uncertain, w.single = 0, true // it was not sent
		return
	}
	if errors.Is(err, ErrUnavailable) || w.tries%10 == 0 {
		w.ledger.log.Warn("ledger transaction not confirmed, trying again",
			"product_id", w.product, "period", w.window.Name, "tries", w.tries, "waiting", len(w.jobs), "error", err)
	}
	time.Sleep(backoff(w.tries))
}

// errFinal marks errors that end an operation instead of having it tried again.
var errFinal = errors.New("not to be tried again")

func final(err error) error { return fmt.Errorf("%w (%w)", err, errFinal) }

// dropGivenUp forgets impatient jobs that nobody waits for. If one was in a
// transaction of unknown outcome, its caller undoes it by an operation of its
// own.
func (w *writer) dropGivenUp() {
	kept := w.jobs[:0]
	uncertain := 0
	for i, j := range w.jobs {
		if patient, _ := j.op.traits(); !patient && j.ctx.Err() != nil {
			j.done <- j.ctx.Err()
			continue
		}
		if i < w.uncertain {
			uncertain++
		}
		kept = append(kept, j)
	}
	clear(w.jobs[len(kept):])
	w.jobs, w.uncertain = kept, uncertain
}

// attempt makes one transaction of the jobs that fit.
func (w *writer) attempt(ctx context.Context) error {
	w.sure = false
	if w.doubtful() {
		// Read the account before the rows: what happens to them in between
		// moves the account, and a transaction made from this state fails.
		w.state.loaded = false
	}
	if err := w.load(ctx); err != nil {
		return err
	}
	if err := w.resolve(ctx); err != nil {
		return err
	}
	t, batch, refused, rest := w.compose()
	if len(refused) > 0 && !w.state.fresh {
		// What this process remembers says no: ask the store before saying so.
		w.state.loaded = false
		if err := w.load(ctx); err != nil {
			return err
		}
		t, batch, refused, rest = w.compose()
	}
	for _, r := range refused {
		r.job.done <- r.err
	}
	w.jobs = append(batch, rest...)
	if len(t.ops) > 0 || t.touched {
		w.uncertain = len(batch)
		if err := w.commit(ctx, t); err != nil {
			return err
		}
		w.uncertain = 0
	}
	w.publish()
	for _, j := range batch {
		w.finish(j)
	}
	w.jobs, w.single = rest, false
	return nil
}

// doubtful tells whether a job has to look for its own rows.
func (w *writer) doubtful() bool {
	if w.uncertain > 0 {
		return true
	}
	for _, j := range w.jobs {
		if _, looksFirst := j.op.traits(); looksFirst {
			return true
		}
	}
	return false
}

// resolve lets the jobs that may have happened, and those that always do, look
// for their own rows, and finishes those that find them.
func (w *writer) resolve(ctx context.Context) error {
	var kept, found []*job
	var failed error
	uncertain := 0
	w.sure = true
	for i, j := range w.jobs {
		_, looksFirst := j.op.traits()
		inDoubt := i < w.uncertain
		if failed != nil || (!inDoubt && !looksFirst) {
			w.sure = false
			kept = append(kept, j)
			if inDoubt {
				uncertain = len(kept)
			}
			continue
		}
		done, err := j.op.look(ctx, w.ledger.store, w.product)
		switch {
		case errors.Is(err, errFinal):
			j.done <- err
		case err != nil:
			failed = err
			kept = append(kept, j)
			if inDoubt {
				uncertain = len(kept)
			}
		case done:
			found = append(found, j)
		default:
			kept = append(kept, j)
		}
	}
	w.jobs, w.uncertain = kept, uncertain
	if len(found) > 0 {
		w.tries = 0
	}
	for _, j := range found {
		w.finish(j)
	}
	return failed
}

// finish reports an effect that is in the store.
func (w *writer) finish(j *job) {
	var account *Account
	if w.state.loaded {
		account = &w.state.account
	}
	j.op.committed(w.ledger, account)
	j.done <- nil
}

// load reads the account and then the configuration, in this order: every
// change of the configuration changes the account too, so a configuration that
// is older than the account cannot be committed on.
func (w *writer) load(ctx context.Context) error {
	if w.state.loaded {
		return nil
	}
	account, err := w.ledger.store.Get(ctx, w.product, accountRow(w.window.Name))
	missing := errors.Is(err, ErrMissing)
	if err != nil && !missing {
		return err
	}
	config, err := w.ledger.store.Get(ctx, w.product, rowConfig)
	if errors.Is(err, ErrMissing) {
		return final(ErrUnknownProduct)
	} else if err != nil {
		return err
	}
	product, err := productOf(config)
	if err != nil {
		return final(err)
	}
	w.state = state{loaded: true, fresh: true, config: product, configRow: config}
	if missing {
		w.state.account = Account{Period: w.window.Name, Start: w.window.Start, End: w.window.End, Budget: product.Budget}
	} else {
		w.state.account, w.state.accountETag = accountOf(account), account.ETag
	}
	w.publish()
	return nil
}

func (w *writer) publish() {
	w.mu.Lock()
	w.known, w.seen = w.state.account, true
	w.mu.Unlock()
}

type refusedJob struct {
	job *job
	err error
}

// compose makes a transaction of as many jobs as fit: first those that bring
// money back or have spent it, then those that ask for it, each in its order.
func (w *writer) compose() (t *transaction, batch []*job, refused []refusedJob, rest []*job) {
	t = &transaction{now: w.ledger.options.Now(), config: w.state.config, window: w.window, account: w.state.account}
	rows := map[string]bool{}
	for _, asking := range []bool{false, true} {
		for _, j := range w.jobs {
			if _, asks := j.op.(*reserveOp); asks != asking {
				continue
			}
			if w.single && len(batch) > 0 {
				rest = append(rest, j)
				continue
			}
			before, length := t.account, len(t.ops)
			if err := j.op.compose(t); err != nil {
				t.account, t.ops = before, t.ops[:length]
				refused = append(refused, refusedJob{j, err})
				continue
			}
			if len(t.ops) > rowsPerTxnMax || !claim(rows, t.ops[length:]) {
				t.account, t.ops = before, t.ops[:length]
				rest = append(rest, j)
				continue
			}
			batch = append(batch, j)
		}
	}
	return t, batch, refused, rest
}

// claim notes the rows of an operation, or says that one of them is taken: a
// transaction may hold a row once.
func claim(rows map[string]bool, ops []Op) bool {
	for _, o := range ops {
		if rows[o.Entity.Row] {
			return false
		}
	}
	for _, o := range ops {
		rows[o.Entity.Row] = true
	}
	return true
}

// commit sends the transaction: the account under its ETag, and the rows. An
// account that does not exist is opened under the ETag of the configuration,
// so that it cannot start with a budget that was just changed.
func (w *writer) commit(ctx context.Context, t *transaction) error {
	w.state.fresh = false
	t.account.Version++
	if err := t.account.check(); err != nil {
		if !w.sure {
			return err // an intent was swept meanwhile: a look will tell
		}
		return final(err)
	}
	account := t.account.entity()
	ops := make([]Op, 0, len(t.ops)+2)
	if w.state.accountETag == "" {
		ops = append(ops, Op{Kind: Insert, Entity: account}, Op{Kind: Replace, Entity: w.state.configRow})
	} else {
		account.ETag = w.state.accountETag
		ops = append(ops, Op{Kind: Replace, Entity: account})
	}
	etags, err := w.ledger.store.Apply(ctx, w.product, append(ops, t.ops...))
	if err != nil {
		return err
	}
	if w.state.accountETag == "" {
		w.state.configRow.ETag = etags[1]
	}
	w.state.account, w.state.accountETag = t.account, etags[0]
	return nil
}

// check is an assertion on every account that is written.
func (a *Account) check() error {
	if a.Held < 0 || a.Spent < 0 || a.Records < 0 {
		return fmt.Errorf("BUG: account %s would have held=%d spent=%d records=%d", a.Period, a.Held, a.Spent, a.Records)
	}
	return nil
}
