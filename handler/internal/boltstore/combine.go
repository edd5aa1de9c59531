package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/bbolt"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// Limits of what waits and of what is committed together.
const (
	QueueMax      = 4096     // transactions that wait; one more is refused
	batchMax      = 1024     // transactions in a commit
	batchBytesMax = 16 << 20 // in a commit, but for the last transaction of it
)

const etagBase = 16

var (
	errClosed    = errors.New("the store is closed")
	errQueueFull = fmt.Errorf("%d transactions wait", QueueMax)
)

// transaction is one Apply on its way through the combiner.
type transaction struct {
	ctx    context.Context
	writes []write
	size   int // bytes of the values
	etags  []string
	err    error
	done   chan struct{}
}

// write is one operation, encoded but for its stamp.
type write struct {
	kind  ledger.OpKind
	key   []byte
	any   bool   // the condition is AnyETag
	etag  uint64 // the condition of a Replace or Delete; 0 is no row's ETag
	value []byte // nil for a Delete
}

// Apply implements ledger.Store. If ctx ends before the answer, the transaction
// may still happen.
func (s *Store) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	if err := ledger.ValidateOps(partition, ops); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, unavailable(err)
	}
	t := &transaction{ctx: ctx, writes: make([]write, len(ops)), done: make(chan struct{})}
	for i, op := range ops {
		w := write{kind: op.Kind, key: keyOf(partition, op.Entity.Row), any: op.Entity.ETag == ledger.AnyETag}
		if op.Kind != ledger.Insert && !w.any {
			w.etag, _ = strconv.ParseUint(op.Entity.ETag, etagBase, 64) // one that we did not make is 0, and fits no row
		}
		if op.Kind != ledger.Delete {
			w.value = encode(op.Entity)
			t.size += len(w.value)
		}
		t.writes[i] = w
	}
	if err := s.enqueue(t); err != nil {
		return nil, unavailable(err)
	}
	select {
	case <-t.done:
		return t.etags, t.err
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	}
}

func (s *Store) enqueue(t *transaction) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errClosed
	}
	select {
	case s.queue <- t:
		return nil
	default:
		return errQueueFull
	}
}

// combine commits what waits until the queue is closed and empty.
func (s *Store) combine() {
	defer close(s.ended)
	for first := range s.queue {
		batch, size := []*transaction{first}, first.size
	gather:
		for len(batch) < batchMax && size < batchBytesMax {
			select {
			case t, ok := <-s.queue:
				if !ok {
					break gather
				}
				batch, size = append(batch, t), size+t.size
			default:
				break gather
			}
		}
		s.commit(batch)
	}
}

// commit executes a batch in order in one transaction of the file, and answers
// each. If that transaction fails, nobody knows anything: all get the error.
func (s *Store) commit(batch []*transaction) {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketName)
		clock := &stamp{etag: bucket.Sequence(), now: time.Now()}
		for _, t := range batch {
			if err := t.execute(bucket, clock); err != nil {
				return err
			}
		}
		if !anyPassed(batch) {
			return errNothing
		}
		return bucket.SetSequence(clock.etag)
	})
	for _, t := range batch {
		if err != nil && !errors.Is(err, errNothing) {
			t.etags, t.err = nil, unavailable(err)
		}
		close(t.done)
	}
}

// errNothing ends a batch in which no transaction passed: there is nothing to
// wait for the disk for.
var errNothing = errors.New("nothing to commit")

func anyPassed(batch []*transaction) bool {
	for _, t := range batch {
		if t.err == nil {
			return true
		}
	}
	return false
}

// stamp is the store's clock during a commit.
type stamp struct {
	etag uint64 // the last one given
	now  time.Time
}

// execute checks all conditions of a transaction and then writes. Its own
// failure is in t.err; the error it returns is one of the file.
func (t *transaction) execute(bucket *bbolt.Bucket, clock *stamp) error {
	if err := t.ctx.Err(); err != nil {
		t.err = unavailable(err)
		return nil
	}
	for i, w := range t.writes {
		if err := w.check(bucket); err != nil {
			t.err = &ledger.OpError{Index: i, Err: err}
			return nil
		}
	}
	etags := make([]string, len(t.writes))
	for i, w := range t.writes {
		if w.kind == ledger.Delete {
			if err := bucket.Delete(w.key); err != nil {
				return fmt.Errorf("delete: %w", err)
			}
			continue
		}
		clock.etag++
		binary.BigEndian.PutUint64(w.value[etagAt:], clock.etag)
		binary.BigEndian.PutUint64(w.value[updatedAt:], uint64(clock.now.UnixNano()))
		if err := bucket.Put(w.key, w.value); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		etags[i] = strconv.FormatUint(clock.etag, etagBase)
	}
	t.etags = etags
	return nil
}

// check tells whether the condition of an operation holds.
func (w *write) check(bucket *bbolt.Bucket) error {
	value := bucket.Get(w.key)
	switch {
	case w.kind == ledger.Insert && value != nil:
		return ledger.ErrExists
	case w.kind == ledger.Insert:
		return nil
	case value == nil:
		return ledger.ErrMissing
	case w.any:
		return nil
	case len(value) < headBytes || !bytes.Equal(value[etagAt:updatedAt], binary.BigEndian.AppendUint64(nil, w.etag)):
		return ledger.ErrConflict
	}
	return nil
}
