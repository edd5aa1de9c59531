// Package boltstore is a ledger.Store in one file of this machine, for a
// gateway without a storage account.
//
// Invariants:
//   - One process has the file. Open fails with ErrLocked while another has it.
//   - An Apply that has answered is on the disk (fsync), and so is everything
//     that any reader has seen.
//   - All transactions that wait are committed together, with one fsync. Each
//     still stands alone: one whose condition fails leaves no trace, and does
//     not stop the others.
//   - ETags come from one counter of the file, which only grows: no ETag ever
//     comes back, also not after a delete or a restart.
//
// It does not replicate, and it does not shrink the file.
package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// lockWait is how long Open waits for the file: enough for a process that is
// about to end, too short to look like a hang.
const lockWait = time.Second

// ErrLocked means that another process has the file.
var ErrLocked = errors.New("another process uses the store")

// bucketName names the only bucket; its sequence is the last ETag.
var bucketName = []byte("entities")

// Store is the store. It is safe for concurrent use.
type Store struct {
	db    *bbolt.DB
	queue chan *transaction
	ended chan struct{} // closed when the combiner has ended

	mu     sync.RWMutex // guards closed, and the queue against being closed under a sender
	closed bool
}

var _ ledger.Store = (*Store)(nil)

// Open opens the file, or makes it. Its directory must exist. The error is
// ErrLocked if another process has the file.
func Open(path string) (*Store, error) {
	return open(path, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
}

func open(path string, options *bbolt.Options) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, options)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	} else if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare store %s: %w", path, err), db.Close())
	}
	syncDirectory(filepath.Dir(path))
	s := &Store{db: db, queue: make(chan *transaction, QueueMax), ended: make(chan struct{})}
	go s.combine()
	return s, nil
}

// syncDirectory makes the name of a new file durable. Not every system can, and
// then nothing is lost but this step.
func syncDirectory(path string) {
	directory, err := os.Open(path)
	if err != nil {
		return
	}
	_ = directory.Sync()
	_ = directory.Close()
}

// Close ends the store after the transactions that wait. Everything after it
// fails with ErrUnavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.queue)
	s.mu.Unlock()
	<-s.ended
	return s.db.Close()
}

// Get implements ledger.Store.
func (s *Store) Get(ctx context.Context, partition, row string) (e ledger.Entity, err error) {
	if err := errors.Join(ledger.ValidateKey(partition), ledger.ValidateKey(row)); err != nil {
		return e, err
	}
	if err := ctx.Err(); err != nil {
		return e, unavailable(err)
	}
	missing := false
	err = s.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bucketName).Get(keyOf(partition, row))
		if value == nil {
			missing = true
			return nil
		}
		e, err = decode(value)
		return err
	})
	switch {
	case err != nil:
		return ledger.Entity{}, unavailable(err)
	case missing:
		return e, ledger.ErrMissing
	}
	e.Partition, e.Row = partition, row
	return e, nil
}

// Range implements ledger.Store. A page is one snapshot of the file.
func (s *Store) Range(ctx context.Context, partition, from, to string, limit int) (page ledger.Page, err error) {
	if err := ledger.ValidateRange(partition, from, to, limit); err != nil {
		return page, err
	}
	if err := ctx.Err(); err != nil {
		return page, unavailable(err)
	}
	first, end, prefix := keyOf(partition, from), keyOf(partition, to), len(partition)+1
	err = s.db.View(func(tx *bbolt.Tx) error {
		page.Date = time.Now()
		cursor := tx.Bucket(bucketName).Cursor()
		for key, value := cursor.Seek(first); key != nil && bytes.Compare(key, end) < 0; key, value = cursor.Next() {
			row := string(key[prefix:])
			if len(page.Entities) == limit {
				page.Next = row
				return nil
			}
			e, err := decode(value)
			if err != nil {
				return err
			}
			e.Partition, e.Row = partition, row
			page.Entities = append(page.Entities, e)
		}
		return nil
	})
	if err != nil {
		return ledger.Page{}, unavailable(err)
	}
	return page, nil
}

// keyOf is the key of an entity in the file. Keys of entities have no byte 0, so
// that a partition's rows stand together, in row order.
func keyOf(partition, row string) []byte {
	key := make([]byte, 0, len(partition)+1+len(row))
	key = append(key, partition...)
	key = append(key, 0)
	return append(key, row...)
}

func unavailable(err error) error {
	return fmt.Errorf("embedded store: %w: %w", ledger.ErrUnavailable, err)
}
