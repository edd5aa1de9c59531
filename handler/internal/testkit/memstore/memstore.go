// Package memstore is a ledger.Store in memory with faults on demand: answers
// and requests that get lost, transactions that happen long after their caller
// gave up, and transactions that happen twice. It is for tests.
package memstore

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// Faults are probabilities in percent, of a read or a transaction.
type Faults struct {
	LoseRequest int // nothing happens, the caller sees an error
	LoseAnswer  int // it happens, the caller sees an error
	Late        int // the caller sees an error, and it is tried later, after other operations
	Twice       int // it happens twice; the caller sees the second answer
	Down        bool
}

// Store is the store. The zero value is not usable; call New.
type Store struct {
	mu     sync.Mutex
	rows   map[string]map[string]ledger.Entity
	etag   int64
	faults Faults
	random *rand.Rand
	late   []func()
	now    func() time.Time

	// Applied counts transactions that took effect.
	Applied int
}

// New makes an empty store. Faults follow from the seed and the order of calls.
func New(seed uint64, now func() time.Time) *Store {
	return &Store{rows: map[string]map[string]ledger.Entity{}, random: rand.New(rand.NewPCG(seed, 1)), now: now}
}

// SetFaults changes what goes wrong from now on.
func (s *Store) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

func (s *Store) hits(percent int) bool { return percent > 0 && s.random.IntN(100) < percent }

var errLost = fmt.Errorf("no answer: %w", ledger.ErrUnavailable)

// runLate executes a transaction that was thought lost.
func (s *Store) runLate() {
	if len(s.late) > 0 && s.random.IntN(3) == 0 {
		i := s.random.IntN(len(s.late))
		do := s.late[i]
		s.late = slices.Delete(s.late, i, i+1)
		do()
	}
}

// Get implements ledger.Store.
func (s *Store) Get(ctx context.Context, partition, row string) (ledger.Entity, error) {
	for _, key := range []string{partition, row} {
		if err := ledger.ValidateKey(key); err != nil {
			return ledger.Entity{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readable(ctx); err != nil {
		return ledger.Entity{}, err
	}
	e, ok := s.rows[partition][row]
	if !ok {
		return e, ledger.ErrMissing
	}
	return clone(e), nil
}

func (s *Store) readable(ctx context.Context) error {
	s.runLate()
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
	if s.faults.Down || s.hits(s.faults.LoseRequest) {
		return errLost
	}
	return nil
}

// Range implements ledger.Store.
func (s *Store) Range(ctx context.Context, partition, from, to string, limit int) (ledger.Page, error) {
	if err := ledger.ValidateRange(partition, from, to, limit); err != nil {
		return ledger.Page{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readable(ctx); err != nil {
		return ledger.Page{}, err
	}
	page := ledger.Page{Date: s.now()}
	names := slices.Collect(maps.Keys(s.rows[partition]))
	sort.Strings(names)
	for _, name := range names {
		if name < from || name >= to {
			continue
		}
		if len(page.Entities) == limit {
			page.Next = name
			break
		}
		page.Entities = append(page.Entities, clone(s.rows[partition][name]))
	}
	return page, nil
}

// Apply implements ledger.Store.
func (s *Store) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	if err := ledger.ValidateOps(partition, ops); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runLate()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
	switch {
	case s.faults.Down, s.hits(s.faults.LoseRequest):
		return nil, errLost
	case s.hits(s.faults.Late):
		s.late = append(s.late, func() { _, _ = s.apply(partition, ops) })
		return nil, errLost
	case s.hits(s.faults.LoseAnswer):
		_, _ = s.apply(partition, ops)
		return nil, errLost
	case s.hits(s.faults.Twice):
		_, _ = s.apply(partition, ops)
	}
	return s.apply(partition, ops)
}

func (s *Store) apply(partition string, ops []ledger.Op) ([]string, error) {
	rows := s.rows[partition]
	for i, op := range ops {
		have, ok := rows[op.Entity.Row]
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
			return nil, &ledger.OpError{Index: i, Err: err}
		}
	}
	if rows == nil {
		rows = map[string]ledger.Entity{}
		s.rows[partition] = rows
	}
	s.Applied++
	etags := make([]string, len(ops))
	for i, op := range ops {
		if op.Kind == ledger.Delete {
			delete(rows, op.Entity.Row)
			continue
		}
		s.etag++
		e := clone(op.Entity)
		e.Partition, e.ETag, e.Updated = partition, strconv.FormatInt(s.etag, 16), s.now()
		rows[e.Row], etags[i] = e, e.ETag
	}
	return etags, nil
}

func clone(e ledger.Entity) ledger.Entity {
	e.Ints, e.Texts = maps.Clone(e.Ints), maps.Clone(e.Texts)
	return e
}
