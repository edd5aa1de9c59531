package sim

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

var (
	seeds   = flag.Int("seeds", 200, "how many schedules to run")
	from    = flag.Uint64("from", 1, "the first seed")
	trace   = flag.Bool("trace", false, "print what happens (with -seeds 1)")
	linears = flag.Int("linears", 40, "how many schedules of reads porcupine judges")
	mutant  = flag.String("mutant", "", "break this rule of the protocol")
)

// TestSchedules runs many schedules; none may break an invariant.
func TestSchedules(t *testing.T) {
	total, failed := many(t, *seeds, *from, ledger.Mutant(*mutant), 0, false)
	names := make([]string, 0, len(total))
	for name := range total {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		t.Logf("%10d  %s", total[name], name)
	}
	if failed > 0 {
		t.Errorf("%d of %d schedules broke an invariant", failed, *seeds)
	}
}

// TestLinearizable lets porcupine judge the histories of reads.
func TestLinearizable(t *testing.T) {
	total, failed := many(t, *linears, *from, ledger.Mutant(*mutant), 0, true)
	if failed > 0 {
		t.Errorf("%d of %d schedules broke an invariant", failed, *linears)
	}
	t.Logf("%d histories with %d reads and %d requests; %d were not decided", total["histories"], total["read"], total["forwarded"], total["histories not decided"])
	if total["histories"] < *linears/2 || total["histories not decided"] > total["histories"]/10 {
		t.Errorf("too few histories were judged")
	}
}

// budgets are how many schedules each mutant gets before it counts as survived.
var budgets = []struct {
	mutant ledger.Mutant
	most   int
}{
	{ledger.UnknownIsFailed, 500}, {ledger.LeaseBeforeAccount, 4000}, {ledger.RequeueSameID, 4000}, {ledger.StopUnseen, 500},
	{ledger.StopNotRechecked, 6000}, {ledger.OutboxClearedEarly, 200}, {ledger.SlackUnpublished, 12000}, {ledger.UpdateWithoutName, 500},
	{ledger.CloseWhileRunning, 500}, {ledger.OpenWithoutConfig, 12000}, {ledger.CloseAnyETag, 6000}, {ledger.EditAnyETag, 500},
	{ledger.NobodyReclaims, 100}, {ledger.ReclaimFreesAll, 200}, {ledger.ReclaimIgnoresSlack, 2000}, {ledger.SlackWithoutRow, 500},
	{ledger.WriteOffNotReduced, 6000}, {ledger.LateDropped, 500}, {ledger.LateBlind, 500}, {ledger.NoSecondLook, 6000},
	{ledger.VoidUsageFirst, 12000}, {ledger.ListAnyETag, 12000}, {ledger.SweepDeletesUnsent, 200}, {ledger.SweepDeletesList, 1000},
}

// TestMain: the collector has better things to do than to keep the heap small.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}

var mutants = flag.Bool("mutants", false, "prove that every mutant is caught")

// TestMutants breaks each rule of the protocol: the simulator must notice.
func TestMutants(t *testing.T) {
	if !*mutants {
		t.Skip("make mutants runs it: it takes long")
	}
	for _, b := range budgets {
		t.Run(string(b.mutant), func(t *testing.T) {
			if _, failed := many(t, b.most, *from, b.mutant, 1, false); failed == 0 {
				t.Errorf("survived %d schedules", b.most)
			}
		})
	}
}

// many runs schedules on all cores until stopAfter of them have failed (0: all).
func many(t *testing.T, n int, first uint64, mutant ledger.Mutant, stopAfter int, linear bool) (map[string]int, int) {
	t.Helper()
	total, failed := map[string]int{}, 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := first
	began := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				over := seed >= first+uint64(n) || (stopAfter > 0 && failed >= stopAfter)
				mu.Unlock()
				if over {
					return
				}
				c := Config{Mutant: mutant, Linear: linear}
				if *trace {
					c.Trace = os.Stderr
					c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
				}
				r := Run(seed, c)
				mu.Lock()
				for name, count := range r.Counters {
					total[name] += count
				}
				total["schedules"]++
				if len(r.Violations) > 0 {
					failed++
					if stopAfter == 0 && failed <= 10 {
						t.Errorf("seed %d: %s", seed, fmt.Sprint(r.Violations[:min(3, len(r.Violations))]))
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d schedules in %v", total["schedules"], time.Since(began).Round(time.Millisecond))
	return total, failed
}
