package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// server is the table: atomic and linearizable, like Azure's.
type server struct {
	world      *world
	partitions map[string]*partition
	etag       int64
	offset     time.Duration // of the Date of its answers
	down       time.Duration // until then it answers nothing
	committed  func(partition string, ops []ledger.Op, before []ledger.Entity)
	applied    int
	rejected   int
}

type partition struct {
	rows  map[string]ledger.Entity
	names []string
}

func (s *server) part(name string) *partition {
	p := s.partitions[name]
	if p == nil {
		p = &partition{rows: map[string]ledger.Entity{}}
		s.partitions[name] = p
	}
	return p
}

func (s *server) clock() time.Time { return begin.Add(s.world.now) }

func (s *server) get(partition, row string) (ledger.Entity, error) {
	e, ok := s.part(partition).rows[row]
	if !ok {
		return e, ledger.ErrMissing
	}
	return e, nil
}

func (s *server) scan(partition, from, to string, limit int) ledger.Page {
	p := s.part(partition)
	page := ledger.Page{Date: s.clock().Add(s.offset)}
	for i := sort.SearchStrings(p.names, from); i < len(p.names) && p.names[i] < to; i++ {
		if len(page.Entities) == limit {
			page.Next = p.names[i]
			break
		}
		page.Entities = append(page.Entities, p.rows[p.names[i]])
	}
	return page
}

func (s *server) apply(partition string, ops []ledger.Op) ([]string, error) {
	p := s.part(partition)
	for i, op := range ops {
		have, ok := p.rows[op.Entity.Row]
		var err error
		switch {
		case op.Kind == ledger.Insert && ok:
			err = ledger.ErrExists
		case op.Kind != ledger.Insert && !ok:
			err = ledger.ErrMissing
		case op.Kind != ledger.Insert && op.Entity.ETag != ledger.AnyETag && op.Entity.ETag != have.ETag:
			err = ledger.ErrConflict
		}
		if err != nil {
			s.rejected++
			return nil, &ledger.OpError{Index: i, Err: err}
		}
	}
	s.applied++
	etags, before := make([]string, len(ops)), make([]ledger.Entity, len(ops))
	for i, op := range ops {
		name := op.Entity.Row
		before[i] = p.rows[name]
		at, found := slices.BinarySearch(p.names, name)
		if op.Kind == ledger.Delete {
			delete(p.rows, name)
			p.names = slices.Delete(p.names, at, at+1)
			continue
		}
		s.etag++
		e := op.Entity
		e.Partition, e.ETag, e.Updated = partition, strconv.FormatInt(s.etag, 10), s.clock()
		e.Ints, e.Texts = maps.Clone(e.Ints), maps.Clone(e.Texts)
		p.rows[name], etags[i] = e, e.ETag
		if !found {
			p.names = slices.Insert(p.names, at, name)
		}
	}
	s.committed(partition, ops, before)
	return etags, nil
}

// client is the store as one process reaches it.
type client struct {
	server  *server
	process *process
	faults  *faults
	disturb func(p *process) // may kill or freeze it, when it has just sent a write
	local   bool             // the store is the process's own disk: nothing happens after its death
}

// faults are what goes wrong on the way, in percent.
type faults struct {
	loseRequest, loseAnswer, late, twice int
	latency                              time.Duration
	timeout                              time.Duration // after which a client gives up, if not before
}

var errLost = fmt.Errorf("no answer: %w", ledger.ErrUnavailable)

// call sends do to the server and waits for its answer. write: it may also
// happen late, or twice.
func (c *client) call(ctx context.Context, write bool, do func()) error {
	w, f := c.process.world, c.faults
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
	t := w.current
	t.parks++
	parks := t.parks
	answered := false
	way := func() time.Duration { return w.between(f.latency/4, f.latency) }
	answer := func() {
		if !w.chance(f.loseAnswer) {
			w.after(way(), func() {
				if !t.ended && t.parks == parks {
					answered = true
					w.run(t, parks)
				}
			})
		}
	}
	arrive := func(then func()) func() {
		return func() {
			if c.server.down > w.now || (c.local && c.process.dead) {
				return
			}
			then()
		}
	}
	switch {
	case w.chance(f.loseRequest):
	case write && w.chance(f.late):
		longest := 12 * f.timeout
		if w.chance(50) { // while its sender looks for what became of it
			longest = f.timeout + 4*f.latency
		}
		w.after(w.between(f.timeout, longest), arrive(do))
	case write && w.chance(f.twice):
		w.after(way(), arrive(do))
		w.after(f.latency+way(), arrive(func() { do(); answer() }))
	default:
		w.after(way(), arrive(func() { do(); answer() }))
	}
	if write {
		c.disturb(c.process)
	}
	limit := min(deadlineOf(ctx), w.now+f.timeout)
	w.resume(t, parks, limit-w.now)
	w.park()
	t.parks++ // an answer that comes now is too late
	if !answered {
		return errLost
	}
	return nil
}

// Get implements ledger.Store.
func (c *client) Get(ctx context.Context, partition, row string) (e ledger.Entity, err error) {
	var got ledger.Entity
	var gotErr error
	if err := c.call(ctx, false, func() { got, gotErr = c.server.get(partition, row) }); err != nil {
		return e, err
	}
	return got, gotErr
}

// Range implements ledger.Store.
func (c *client) Range(ctx context.Context, partition, from, to string, limit int) (ledger.Page, error) {
	if err := ledger.ValidateRange(partition, from, to, limit); err != nil {
		return ledger.Page{}, err
	}
	var got ledger.Page
	err := c.call(ctx, false, func() { got = c.server.scan(partition, from, to, limit) })
	return got, err
}

// Apply implements ledger.Store.
func (c *client) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	if err := ledger.ValidateOps(partition, ops); err != nil {
		return nil, err
	}
	var etags []string
	var gotErr error
	if err := c.call(ctx, true, func() { etags, gotErr = c.server.apply(partition, ops) }); err != nil {
		return nil, err
	}
	return etags, gotErr
}
