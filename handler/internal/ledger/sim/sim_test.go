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
	focus   = flag.Int("focus", 0, "what to make more of: the sum of 1 losses, 2 overlap, 4 lists, 8 edits, 16 crashes")
)

// TestSchedules runs many schedules; none may break an invariant.
func TestSchedules(t *testing.T) {
	total, failed := many(t, *seeds, *from, Config{Mutant: ledger.Mutant(*mutant), Focus: Focus(*focus)}, 0)
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
	"soft unlisted", "unlisted and lost", "drained", "amended", "amended too late", "revised", "revised before", "revised record", "not revised", "total kept", "edit repeated", "other body", "other body of an edit",
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
	total, failed := many(t, *linears, *from, Config{Mutant: ledger.Mutant(*mutant), Linear: true}, 0)
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
	focus  Focus
}{
	{ledger.UnknownIsFailed, 500, 0}, {ledger.FreshKey, 500, 0}, {ledger.UnmovedIsDead, 4000, FocusLoss}, {ledger.LostIsFailed, 500, 0},
	{ledger.LeaseBeforeAccount, 4000, 0}, {ledger.RequeueSameID, 4000, FocusLoss}, {ledger.BlockedIgnored, 1000, 0},
	{ledger.SameNameTwice, 500, 0}, {ledger.RowsUncounted, 1000, 0}, {ledger.CloseUnsent, 1000, 0},
	{ledger.OpenWithoutAccount, 4000, FocusLoss}, {ledger.OpenWithoutConfig, 4000, FocusEdits}, {ledger.EditWithoutName, 500, 0},
	{ledger.EditAnyETag, 500, 0}, {ledger.StopUnseen, 500, 0}, {ledger.StopNotRechecked, 6000, FocusLoss}, {ledger.OutboxClearedEarly, 200, 0},
	{ledger.SlackUnpublished, 6000, FocusOverlap | FocusLoss}, {ledger.UpdateWithoutName, 500, 0}, {ledger.CloseWhileRunning, 500, 0},
	{ledger.CloseAnyETag, 4000, FocusLoss}, {ledger.NobodyReclaims, 100, 0}, {ledger.ReclaimFreesAll, 200, 0},
	{ledger.ReclaimIgnoresSlack, 2000, FocusOverlap | FocusCrash}, {ledger.SlackWithoutRow, 500, FocusOverlap | FocusCrash},
	{ledger.WriteOffNotReduced, 4000, FocusOverlap | FocusLoss}, {ledger.LateDropped, 500, 0}, {ledger.LateBlind, 500, 0},
	{ledger.VoidUsageFirst, 6000, FocusLists | FocusLoss},
	{ledger.ListAnyETag, 6000, FocusLists | FocusLoss}, {ledger.SweepDeletesUnsent, 200, 0}, {ledger.SweepDeletesList, 1000, FocusLists},
	{ledger.PageUnwritten, 500, 0}, {ledger.PageDeletedEarly, 500, 0}, {ledger.ReviseTwice, 100, 0}, {ledger.ReviseAnyETag, 1000, 0},
}

// TestMain: the collector has better things to do than to keep the heap small.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}

var mutants = flag.Bool("mutants", false, "also those mutants that take long to catch")

const quickMutant = 500 // schedules that a mutant may need to be caught in every run of the tests

// TestMutants breaks each rule of the protocol: the simulator must notice.
func TestMutants(t *testing.T) {
	for _, b := range budgets {
		if b.most > quickMutant && !*mutants {
			continue // make mutants runs it
		}
		t.Run(string(b.mutant), func(t *testing.T) {
			if _, failed := many(t, b.most, *from, Config{Mutant: b.mutant, Focus: b.focus}, 1); failed == 0 {
				t.Errorf("survived %d schedules", b.most)
			}
		})
	}
}

// many runs schedules on all cores until stopAfter of them have failed (0: all).
func many(t *testing.T, n int, first uint64, config Config, stopAfter int) (map[string]int, int) {
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
				c := config
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
