package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// watched is a store that takes its time, and says what was read.
type watched struct {
	*memstore.Store

	mu      sync.Mutex
	latency time.Duration // of a read
	down    string        // a partition that cannot be read
	ranges  []string      // partition and first row
	gets    []string      // partition and row
	deletes int
	applies int
}

func newWatched() *watched { return &watched{Store: memstore.New(1, time.Now)} }

func (w *watched) read(ctx context.Context, partition string) error {
	w.mu.Lock()
	latency, down := w.latency, w.down == partition
	w.mu.Unlock()
	if down {
		return fmt.Errorf("%s: %w", partition, ledger.ErrUnavailable)
	}
	select {
	case <-time.After(latency):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, ctx.Err())
	}
}

func (w *watched) Range(ctx context.Context, partition, from, to string, limit int) (ledger.Page, error) {
	w.mu.Lock()
	w.ranges = append(w.ranges, partition+" "+from)
	w.mu.Unlock()
	if err := w.read(ctx, partition); err != nil {
		return ledger.Page{}, err
	}
	return w.Store.Range(ctx, partition, from, to, limit)
}

func (w *watched) Get(ctx context.Context, partition, row string) (ledger.Entity, error) {
	w.mu.Lock()
	w.gets = append(w.gets, partition+" "+row)
	w.mu.Unlock()
	if err := w.read(ctx, partition); err != nil {
		return ledger.Entity{}, err
	}
	return w.Store.Get(ctx, partition, row)
}

func (w *watched) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	w.mu.Lock()
	w.applies++
	for _, op := range ops {
		if op.Kind == ledger.Delete {
			w.deletes++
		}
	}
	w.mu.Unlock()
	return w.Store.Apply(ctx, partition, ops)
}

func (w *watched) set(change func(w *watched)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// taken are the reads since the last call, of rows that begin with a prefix.
func (w *watched) taken(list *[]string, prefix string) (found []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, read := range *list {
		if _, row, _ := strings.Cut(read, " "); strings.HasPrefix(row, prefix) {
			found = append(found, read)
		}
	}
	*list = nil
	return found
}

// rows are all rows of a partition with a prefix.
func (w *watched) rows(t *testing.T, partition, prefix string) (all []ledger.Entity) {
	t.Helper()
	for from := prefix; from != ""; {
		page, err := w.Store.Range(t.Context(), partition, from, string(prefix[0]+1), ledger.PageMax)
		if err != nil {
			t.Fatal(err)
		}
		all, from = append(all, page.Entities...), page.Next
	}
	return all
}

func apply(t *testing.T, store ledger.Store, partition string, ops ...ledger.Op) {
	t.Helper()
	if _, err := store.Apply(t.Context(), partition, ops); err != nil {
		t.Fatal(err)
	}
}

// spoil overwrites texts of a row.
func spoil(t *testing.T, store ledger.Store, e ledger.Entity, name, text string) {
	t.Helper()
	e.Texts[name] = text
	apply(t, store, e.Partition, ledger.Op{Kind: ledger.Replace, Entity: e})
}

func createMany(t *testing.T, l *ledger.Ledger, n int) []*quota.Product {
	t.Helper()
	products := make([]*quota.Product, n)
	for i := range products {
		var err error
		products[i], _, err = l.Create(t.Context(), quota.HashKey(fmt.Sprintf("many-keys-%08d", i)), ledger.Once{}, newProduct)
		if err != nil {
			t.Fatal(err)
		}
	}
	return products
}

// die leaves one hold of 10 in each product, of a process that is gone.
func die(t *testing.T, store ledger.Store, products ...*quota.Product) {
	t.Helper()
	dead := ledger.New(store, ledger.Options{Instance: "dead"})
	for _, p := range products {
		if _, err := reserve(t.Context(), dead, p, 10, 10); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(31 * time.Second)
}

func wantSwept(t *testing.T, l *ledger.Ledger, products ...*quota.Product) {
	t.Helper()
	for _, p := range products {
		if a := balance(t, l, p); a.Spent != 10 || a.Held != 0 {
			t.Errorf("%s: %+v", p.ID, a)
		}
	}
}

// logs keeps what was logged as an error.
type logs struct {
	slog.Handler
	mu     sync.Mutex
	errors []string
}

func (h *logs) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

func (h *logs) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errors = append(h.errors, r.Message)
	return nil
}

// TestASweepGoesOnWhereTheLastOneStopped: with more products than fit into a
// minute, all are reached.
func TestASweepGoesOnWhereTheLastOneStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := ledger.New(store, ledger.Options{Instance: "live"})
		products := createMany(t, l, 50)
		die(t, store, products...)
		store.set(func(w *watched) { w.latency = 2 * time.Second })
		swept, calls := 0, 0
		for ; calls < 20; calls++ {
			began := time.Now()
			n, err := l.Sweep(t.Context())
			if took := time.Since(began); took > 55*time.Second {
				t.Errorf("a sweep took %v", took)
			}
			swept += n
			if err == nil {
				break
			}
			if !errors.Is(err, ledger.ErrUnfinished) || errors.Is(err, ledger.ErrBroken) {
				t.Fatal(err)
			}
		}
		if swept != len(products) || calls < 2 || calls > 8 {
			t.Errorf("%d holds were charged in %d unfinished sweeps", swept, calls)
		}
		store.set(func(w *watched) { w.latency = 0 })
		wantSwept(t, l, products...)
	})
}

// TestAProductOutOfReach keeps no other from being swept, and the caller is told.
func TestAProductOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := ledger.New(store, ledger.Options{Instance: "live"})
		products := createMany(t, l, 8)
		die(t, store, products...)
		store.set(func(w *watched) { w.down = products[3].ID })
		n, err := l.Sweep(t.Context())
		if n != len(products)-1 || !errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, ledger.ErrBroken) {
			t.Errorf("swept %d: %v", n, err)
		}
		store.set(func(w *watched) { w.down = "" })
		if n, err := l.Sweep(t.Context()); n != 1 || err != nil {
			t.Errorf("swept %d: %v", n, err)
		}
		wantSwept(t, l, products...)
		store.SetFaults(memstore.Faults{Down: true})
		if _, err := l.Sweep(t.Context()); !errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, ledger.ErrBroken) {
			t.Errorf("without a store: %v", err)
		}
	})
}

// TestASweepAtATime: a second one in a process does nothing.
func TestASweepAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := ledger.New(store, ledger.Options{Instance: "live"})
		products := createMany(t, l, 3)
		die(t, store, products...)
		store.set(func(w *watched) { w.latency = time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { l.Run(ctx, true) })
		time.Sleep(61 * time.Second) // its first sweep runs
		began := time.Now()
		if n, err := l.Sweep(t.Context()); n != 0 || err != nil || time.Since(began) > 0 {
			t.Errorf("swept %d beside another sweep, in %v: %v", n, time.Since(began), err)
		}
		time.Sleep(50 * time.Second)
		store.set(func(w *watched) { w.latency = 0 })
		wantSwept(t, l, products...)
		store.set(func(w *watched) { w.latency = time.Second })
		time.Sleep(12 * time.Second) // the next one runs
		if l.Counters()["sweep skipped"] != 1 {
			t.Errorf("counters %v", l.Counters())
		}
		cancel()
		wg.Wait() // with the sweep
		store.taken(&store.ranges, "")
		time.Sleep(time.Minute)
		if left := store.taken(&store.ranges, ""); len(left) > 0 {
			t.Errorf("after the end: %v", left)
		}
	})
}

// TestABrokenRowKeepsNothingFromBeingSwept: neither other products, nor other
// periods of its own, nor other leases of its period.
func TestABrokenRowKeepsNothingFromBeingSwept(t *testing.T) {
	f := func(name string, spoilt func(t *testing.T, store *watched, p *quota.Product, lease ledger.Entity)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, said := newWatched(), &logs{Handler: slog.DiscardHandler}
				l := ledger.New(store, ledger.Options{Instance: "live", Log: slog.New(said)})
				products := createMany(t, l, 3)
				p := products[1]
				die(t, store, products...)
				lease := store.rows(t, p.ID, "S.")[1]
				die(t, store, p) // under another lease
				time.Sleep(40 * 24 * time.Hour)
				die(t, store, p) // and in another period
				spoilt(t, store, p, lease)
				time.Sleep(31 * time.Second) // that was a write
				n, err := l.Sweep(t.Context())
				if n != 4 || !errors.Is(err, ledger.ErrBroken) {
					t.Errorf("swept %d: %v; want 4 and ErrBroken", n, err)
				}
				for _, row := range store.rows(t, p.ID, "S.") {
					if row.Row != lease.Row && strings.Contains(row.Row, ".L.") && row.Ints["Closed"] == 0 {
						t.Errorf("%s is open", row.Row)
					}
				}
				if len(said.errors) == 0 || !strings.HasPrefix(said.errors[0], "BROKEN") {
					t.Errorf("logged: %v", said.errors)
				}
				if n, err := l.Sweep(t.Context()); n != 0 || !errors.Is(err, ledger.ErrBroken) {
					t.Errorf("again: swept %d: %v", n, err)
				}
			})
		})
	}
	f("unreadable intents", func(t *testing.T, store *watched, _ *quota.Product, lease ledger.Entity) {
		spoil(t, store, lease, "Intents00", "{")
	})
	f("unreadable marks", func(t *testing.T, store *watched, _ *quota.Product, lease ledger.Entity) {
		spoil(t, store, lease, "Unsent00", "x:y")
	})
	f("no template", func(t *testing.T, store *watched, _ *quota.Product, lease ledger.Entity) {
		spoil(t, store, lease, "Intents00", strings.ReplaceAll(lease.Texts["Intents00"], `"t":0`, `"t":7`))
	})
	f("its record exists", func(t *testing.T, store *watched, p *quota.Product, lease ledger.Entity) {
		_, id, _ := strings.Cut(lease.Texts["Intents00"], `"i":[{"d":"`)
		id, _, _ = strings.Cut(id, `"`)
		all := store.rows(t, p.ID, "U.")
		name := all[0].Row[:len("U.0123456789012.")]
		for _, e := range []ledger.Entity{{Row: name + id}, {Row: "U." + fmt.Sprintf("%013d", 9_999_999_999_999-millis(t, id)) + "." + id}} {
			_, _ = store.Apply(t.Context(), p.ID, []ledger.Op{{Kind: ledger.Insert, Entity: e}})
		}
	})
}

func millis(t *testing.T, id string) (ms int64) {
	t.Helper()
	if _, err := fmt.Sscanf(strings.ReplaceAll(id, "-", "")[:12], "%x", &ms); err != nil {
		t.Fatal(err)
	}
	return ms
}

// TestNamesAreCollectedByParts: a sweep reads a bounded part of the names of
// effects, and deletes all old ones that it meets; the next one goes on.
func TestNamesAreCollectedByParts(t *testing.T) {
	const many, pages = 12_500, 20
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := ledger.New(store, ledger.Options{Instance: "live"})
		products := createMany(t, l, 12)
		insert := func(partition, prefix string, n int) {
			for i := 0; i < n; i += 100 {
				ops := make([]ledger.Op, min(100, n-i))
				for j := range ops {
					ops[j] = ledger.Op{Kind: ledger.Insert, Entity: ledger.Entity{Row: fmt.Sprintf("%s%s%06d", prefix, time.Now().Format("0102"), i+j)}}
				}
				apply(t, store.Store, partition, ops...)
			}
		}
		insert(products[5].ID, "X.", many)
		insert("idx", "x.", 150)
		time.Sleep(8 * 24 * time.Hour)
		insert(products[5].ID, "X.", 120) // young
		insert("idx", "x.", 3)
		for sweeps := 1; ; sweeps++ {
			store.set(func(w *watched) { w.ranges = nil })
			if _, err := l.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			read := 0
			for _, prefix := range []string{"X.", "x."} {
				store.mu.Lock()
				ranges := append([]string{}, store.ranges...)
				store.mu.Unlock()
				read += len(store.taken(&ranges, prefix))
			}
			if read > pages {
				t.Errorf("a sweep read %d pages of names", read)
			}
			if read == 0 { // the round is over
				if sweeps < 2 || sweeps > 4 {
					t.Errorf("a round of %d sweeps", sweeps)
				}
				break
			}
			time.Sleep(time.Minute)
		}
		if left := len(store.rows(t, products[5].ID, "X.")); left != 120 {
			t.Errorf("%d names are left, 120 are young", left)
		}
		if left := len(store.rows(t, "idx", "x.")); left != 3 {
			t.Errorf("%d names of Creates are left, 3 are young", left)
		}
	})
}

// TestNamesGoWhenTheyAreOld, not before: an Update is done once within 7 days.
func TestNamesGoWhenTheyAreOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		l := ledger.New(store, ledger.Options{Instance: "live"})
		p := mustCreate(t, l)
		charge := func() bool {
			record := usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(1), CostNanoUSD: usage.Of(1)}
			done, err := l.Charge(t.Context(), p, record, ledger.Once{Key: "one"})
			if err != nil {
				t.Fatal(err)
			}
			return done
		}
		sweep := func() {
			if _, err := l.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !charge() {
			t.Error("the first one counts")
		}
		time.Sleep(6 * 24 * time.Hour)
		sweep()
		if charge() {
			t.Error("twice within 7 days")
		}
		time.Sleep(2 * 24 * time.Hour)
		sweep()
		if !charge() {
			t.Error("the name is still there")
		}
	})
}
