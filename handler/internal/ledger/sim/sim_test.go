package sim

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

var (
	seeds   = flag.Int("seeds", 200, "how many schedules to run")
	from    = flag.Uint64("from", 1, "the first seed")
	trace   = flag.Bool("show", false, "print what happens (with -seeds 1)")
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
	if *seeds >= coverageSeeds && *mutant == "" {
		for _, name := range sometimes {
			if total[name] == 0 {
				t.Errorf("in %d schedules it never happened: %s", *seeds, name)
			}
		}
	}
}

const coverageSeeds = 2000 // so many schedules, and what is rare has happened

// sometimes are what must happen in so many schedules: a fault that is not met
// proves nothing.
var sometimes = []string{
	"unknown that committed", "late execution that committed", "late execution after a reclaim", "resent", "lost", "reclaimed",
	"opening of unknown fate", "closing of unknown fate", "period-open race", "cut off", "audited",
	"late orphan", "late listed", "late slack", "late void orphan", "late void listed", "materialized",
	"swept", "in a write-off", "write-off", "write-off reduced", "corrected record", "overlapped", "not durable",
	"stop during a wait", "forced above the budget", "overrun", "pressed",
	"refused stopped", "refused exhausted", "refused held", "unavailable", "busy", "unsent spill", "batch full",
	"soft unlisted", "unlisted and lost", "drained", "amended", "amended too late", "edit repeated", "other body", "other body of an edit",
	"end game with idle leases", "end game with a long stream", "end game with a silent lake", "end game won",
}

// TestReplay: a seed runs in the same way whenever it is run. Nothing may be
// decided by the order of a map.
func TestReplay(t *testing.T) {
	for seed := *from; seed < *from+replays; seed++ {
		first, again := Run(seed, Config{}), Run(seed, Config{})
		if first.Hash != again.Hash || !maps.Equal(first.Counters, again.Counters) || !slices.Equal(first.Violations, again.Violations) {
			t.Errorf("seed %d ran in two ways", seed)
		}
	}
}

const replays = 12

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
	{ledger.FreshKey, 500}, {ledger.UnmovedIsDead, 4000}, {ledger.LostIsFailed, 500}, {ledger.BlockedIgnored, 1000},
	{ledger.SameNameTwice, 500}, {ledger.RowsUncounted, 1000}, {ledger.CloseUnsent, 1000}, {ledger.OpenWithoutAccount, 500},
	{ledger.EditWithoutName, 500},
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
