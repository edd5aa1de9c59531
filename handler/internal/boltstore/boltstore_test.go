package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/ledger/storetest"
)

func mustOpen(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func fresh(t testing.TB) *Store { return mustOpen(t, filepath.Join(t.TempDir(), "store.db")) }

func insert(row, text string) []ledger.Op {
	return []ledger.Op{{Kind: ledger.Insert, Entity: ledger.Entity{Row: row, Texts: map[string]string{"T": text}}}}
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) ledger.Store { return fresh(t) })
}

// block holds the file's only write transaction until the caller lets it go, so
// that the combiner cannot commit.
func block(t *testing.T, s *Store) (release func()) {
	t.Helper()
	tx, err := s.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// commits is the number of commits of the file so far.
func commits(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.db.View(func(tx *bbolt.Tx) error { n = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// until waits for a condition that other goroutines bring about. If they never
// do, the time limit of the test run ends it.
func until(condition func() bool) {
	for !condition() {
		runtime.Gosched()
	}
}

func TestOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	first := mustOpen(t, path)
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v, want ErrLocked", err)
	} else if !strings.Contains(err.Error(), path) {
		t.Errorf("%q does not name the file", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path)
}

func TestOpenErrors(t *testing.T) {
	directory := t.TempDir()
	if _, err := Open(filepath.Join(directory, "none", "store.db")); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("missing directory: %v", err)
	}
	other := filepath.Join(directory, "other.txt")
	if err := os.WriteFile(other, []byte(strings.Repeat("not a store\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("another file: %v", err)
	}
}

// TestAnsweredIsDurable copies the file of a running store, as it would be found
// after a kill: what Apply has answered is in it, and ETags go on from there.
func TestAnsweredIsDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := mustOpen(t, path)
	etags, err := s.Apply(t.Context(), "p", insert("a", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), "p", []ledger.Op{{Kind: ledger.Delete, Entity: ledger.Entity{Row: "a", ETag: etags[0]}}}); err != nil {
		t.Fatal(err)
	}
	etags, err = s.Apply(t.Context(), "p", insert("b", "y"))
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(copied, image, 0o600); err != nil {
		t.Fatal(err)
	}
	after := mustOpen(t, copied)
	e, err := after.Get(t.Context(), "p", "b")
	if err != nil || e.ETag != etags[0] || e.Texts["T"] != "y" {
		t.Errorf("got %+v, %v", e, err)
	}
	next, err := after.Apply(t.Context(), "p", insert("a", "z"))
	if err != nil || next[0] != "3" {
		t.Errorf("next ETag is %q, want 3; %v", next, err)
	}
}

func TestWaitingTransactionsShareACommit(t *testing.T) {
	const n = 50
	s := fresh(t)
	release := block(t, s)
	var wait sync.WaitGroup
	failed := make([]error, n)
	for i := range n {
		wait.Go(func() { _, failed[i] = s.Apply(t.Context(), "p", insert(fmt.Sprintf("r%d", i/2), "x")) })
	}
	until(func() bool { return len(s.queue) >= n-n/5 }) // the combiner has taken the rest
	before := commits(t, s)
	release()
	wait.Wait()
	if got := commits(t, s) - before; got > 2 {
		t.Errorf("%d commits for %d transactions", got, n)
	}
	for i := 0; i < n; i += 2 { // of each two equal inserts one happens, whatever its neighbours do
		one, two := failed[i], failed[i+1]
		if one != nil {
			one, two = two, one
		}
		if one != nil || !errors.Is(two, ledger.ErrExists) {
			t.Errorf("row %d: %v and %v", i/2, failed[i], failed[i+1])
		}
	}
}

func TestRefusedAloneCostsNoCommit(t *testing.T) {
	s := fresh(t)
	if _, err := s.Apply(t.Context(), "p", insert("a", "x")); err != nil {
		t.Fatal(err)
	}
	before := commits(t, s)
	if _, err := s.Apply(t.Context(), "p", insert("a", "y")); !errors.Is(err, ledger.ErrExists) {
		t.Fatal(err)
	}
	if got := commits(t, s); got != before {
		t.Errorf("%d commits", got-before)
	}
}

// TestFailedBatch lets the file refuse one write: all transactions of the commit
// must say that nobody knows, also the one whose condition failed.
func TestFailedBatch(t *testing.T) {
	s := fresh(t)
	if _, err := s.Apply(t.Context(), "p", insert("a", "x")); err != nil {
		t.Fatal(err)
	}
	impossible := waiting(insert("b", "y"))
	impossible.writes[0].key = make([]byte, bbolt.MaxKeySize+1)
	batch := []*transaction{waiting(insert("a", "y")), waiting(insert("c", "z")), impossible, waiting(insert("d", "z"))}
	s.commit(batch)
	allUnknown(t, batch)
	if _, err := s.Apply(t.Context(), "p", insert("c", "again")); err != nil {
		t.Errorf("after the failure: %v", err)
	}
}

// TestFailedCommit takes the file away: the commit itself fails.
func TestFailedCommit(t *testing.T) {
	var file *os.File
	keep := func(name string, flag int, mode os.FileMode) (opened *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	s, err := open(filepath.Join(t.TempDir(), "store.db"), &bbolt.Options{OpenFile: keep})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	batch := []*transaction{waiting(insert("a", "y")), waiting(insert("c", "z"))}
	s.commit(batch)
	allUnknown(t, batch)
}

func allUnknown(t *testing.T, batch []*transaction) {
	t.Helper()
	for i, tr := range batch {
		<-tr.done
		if !errors.Is(tr.err, ledger.ErrUnavailable) || errors.Is(tr.err, ledger.ErrExists) || tr.etags != nil {
			t.Errorf("transaction %d: %q, %v", i, tr.etags, tr.err)
		}
	}
}

func waiting(ops []ledger.Op) *transaction {
	t := &transaction{ctx: context.Background(), done: make(chan struct{})}
	for _, op := range ops {
		t.writes = append(t.writes, write{kind: op.Kind, key: keyOf("p", op.Entity.Row), value: encode(op.Entity)})
	}
	return t
}

func TestQueueLimit(t *testing.T) {
	s := fresh(t)
	release := block(t, s)
	// The combiner takes a first batch, of one, and waits for the file with it.
	if err := s.enqueue(waiting(insert("first", "x"))); err != nil {
		t.Fatal(err)
	}
	until(func() bool { return len(s.queue) == 0 })
	var last *transaction
	accepted := 0
	for ; accepted <= QueueMax+batchMax; accepted++ {
		next := waiting(insert(fmt.Sprintf("r%d", accepted), "x"))
		if err := s.enqueue(next); errors.Is(err, errQueueFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		last = next
	}
	if accepted < QueueMax || len(s.queue) != QueueMax {
		t.Errorf("%d accepted, %d wait", accepted, len(s.queue))
	}
	if _, err := s.Apply(t.Context(), "p", insert("more", "x")); !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, errQueueFull) {
		t.Errorf("one more: %v", err)
	}
	release()
	if <-last.done; last.err != nil {
		t.Errorf("last of the queue: %v", last.err)
	}
}

func TestEndedContext(t *testing.T) {
	s := fresh(t)
	release := block(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() {
		_, err := s.Apply(ctx, "p", insert("a", "x"))
		answer <- err
	}()
	cancel()
	if err := <-answer; !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	release()
}

func TestClosed(t *testing.T) {
	s := fresh(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, get := s.Get(t.Context(), "p", "a")
	_, list := s.Range(t.Context(), "p", "a", "b", 1)
	_, apply := s.Apply(t.Context(), "p", insert("a", "x"))
	for _, err := range []error{get, list, apply} {
		if !errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, ledger.ErrMissing) {
			t.Errorf("got %v", err)
		}
	}
}

// TestCloseAnswersAll closes the store among writers: each gets an answer, and
// what was answered well is in the file.
func TestCloseAnswersAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := mustOpen(t, path)
	var wait sync.WaitGroup
	failed := make([]error, 64)
	for i := range failed {
		wait.Go(func() { _, failed[i] = s.Apply(t.Context(), "p", insert(fmt.Sprintf("r%d", i), "x")) })
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	after := mustOpen(t, path)
	for i, err := range failed {
		_, getErr := after.Get(t.Context(), "p", fmt.Sprintf("r%d", i))
		if (err == nil) != (getErr == nil) || (err != nil && !errors.Is(err, ledger.ErrUnavailable)) {
			t.Errorf("row %d: apply %v, get %v", i, err, getErr)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	for _, parallel := range []int{1, 32} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			s := fresh(b)
			var wait sync.WaitGroup
			work := make(chan int)
			text := strings.Repeat("x", 300)
			for range parallel {
				wait.Go(func() {
					for i := range work {
						if _, err := s.Apply(b.Context(), "p", insert(fmt.Sprintf("r%09d", i), text)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for i := range b.N {
				work <- i
			}
			close(work)
			wait.Wait()
		})
	}
}
