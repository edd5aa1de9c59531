package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// server is the table: atomic and linearizable, like Azure's.
type server struct {
	world      *world
	partitions map[string]*partition
	etag       int64
	offset     time.Duration // of the Date of its answers
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
			s.world.digest("rejected", partition, op.Entity.Row)
			return nil, &ledger.OpError{Index: i, Err: err}
		}
	}
	s.applied++
	etags, before := make([]string, len(ops)), make([]ledger.Entity, len(ops))
	for i, op := range ops {
		name := op.Entity.Row
		before[i] = p.rows[name]
		s.world.digest(partition, name)
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
	disturb func(p *process)                                    // may kill or freeze it, when it has just sent a write
	saw     func(p *process, partition string, e ledger.Entity) // a row that it has just read
	count   func(what string)
	local   bool // the store is the process's own disk: nothing happens after its death
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
				if !t.ended && t.parks == parks && c.process.cut <= w.now {
					answered = true
					w.run(t, parks)
				}
			})
		}
	}
	arrive := func(then func()) func() {
		return func() {
			if w.down > w.now || (c.local && c.process.dead) {
				return
			}
			then()
		}
	}
	switch {
	case c.process.cut > w.now:
		c.count("cut off")
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
	if gotErr == nil {
		c.saw(c.process, partition, got)
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
	m := &message{client: c, partition: partition, ops: ops}
	m.trace("sends", nil)
	if err := c.call(ctx, true, func() {
		etags, gotErr = c.server.apply(partition, ops)
		m.arrived(gotErr)
	}); err != nil {
		m.givenUp()
		return nil, err
	}
	m.trace("is told", gotErr)
	return etags, gotErr
}

// message is a write on its way, of which the coverage takes note.
type message struct {
	client    *client
	partition string
	ops       []ledger.Op
	committed bool
	unknown   bool // its sender has given up
}

func (m *message) trace(what string, err error) {
	w := m.client.process.world
	if !w.tracing {
		return
	}
	var rows []string
	for _, op := range m.ops {
		row := op.Entity.Row
		if i := strings.LastIndexByte(row, '.'); i > 0 && len(row) > 20 {
			row = row[:2] + "~" + row[len(row)-6:]
		}
		rows = append(rows, [...]string{"", "+", "=", "-"}[op.Kind]+row)
	}
	w.trace("%s %s %v %v", m.client.process.name, what, rows, err)
}

func (m *message) arrived(err error) {
	m.trace("is heard", err)
	m.committed = m.committed || err == nil
	if err != nil {
		m.lostRace(err)
	}
	if !m.unknown {
		return
	}
	if err == nil {
		m.client.count("late execution that committed")
		return
	}
	for _, op := range m.ops {
		if op.Kind == ledger.Replace && strings.Contains(op.Entity.Row, ".L.") {
			if have, ok := m.client.server.part(m.partition).rows[op.Entity.Row]; !ok || have.Ints["Closed"] != 0 {
				m.client.count("late execution after a reclaim")
			}
		}
	}
}

// lostRace: somebody else began the period.
func (m *message) lostRace(err error) {
	for i, op := range m.ops {
		at, ok := err.(*ledger.OpError) //nolint:errorlint // it was not wrapped
		if ok && at.Index == i && op.Kind == ledger.Insert && isAccount(op.Entity.Row) {
			m.client.count("period-open race")
		}
	}
}

func (m *message) givenUp() {
	m.trace("gives up", nil)
	m.unknown = true
	if m.committed {
		m.client.count("unknown that committed")
	}
	account := slices.ContainsFunc(m.ops, func(op ledger.Op) bool { return isAccount(op.Entity.Row) })
	for _, op := range m.ops {
		switch {
		case !strings.Contains(op.Entity.Row, ".L."):
		case op.Kind == ledger.Insert:
			m.client.count("opening of unknown fate")
		case op.Kind == ledger.Delete && account:
			m.client.count("closing of unknown fate")
		}
	}
}
