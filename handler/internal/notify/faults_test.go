package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// TestThroughFaults: two processes whose messages to the table get lost, come late
// and twice, and a receiver that fails half of the time. Now and then a process is
// cut off from its claims: what it claimed is told by others. In the end every
// share was told, under one id.
func TestThroughFaults(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { throughFaults(t, seed) })
		})
	}
}

func throughFaults(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 8))
	var mu sync.Mutex
	taken := map[string]int{}
	w := newWorld(t, nil)
	w.store = memstore.New(seed, time.Now)
	w.l = ledger.New(w.store, ledger.Options{Instance: "a", OnCrossing: func() {}})
	w.receiver.answer = func(_ int, r *http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		switch random.IntN(4) {
		case 0:
			return status(500)
		case 1:
			return nil, errors.New("connection reset")
		}
		taken[r.Header.Get(HeaderID)]++
		return status(200)
	}
	p, _, err := w.l.Create(t.Context(), quota.HashKey("k"), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
		p := &quota.Product{ID: id, Unit: quota.UnitUSD, Budget: 100, Period: quota.PeriodTotal, Enforcement: quota.EnforceHard}
		for i := range int64(16) {
			p.NotifyAtPPM = append(p.NotifyAtPPM, (i+1)*50_000)
		}
		return p, nil
	})
	if err == nil {
		_, err = w.l.Charge(t.Context(), p, usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(90)})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.store.SetFaults(memstore.Faults{LoseRequest: 10, LoseAnswer: 10, Late: 5, Twice: 10})
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for range 2 {
		n := w.notifier()
		done.Go(func() { n.Run(ctx) })
	}
	for range 10 {
		time.Sleep(time.Minute)
		_, _ = w.l.Sweep(ctx)
		if waiting, err := w.l.WaitingCrossings(ctx); err == nil && len(waiting) > 0 { // and dies
			_, _ = w.l.ClaimCrossing(ctx, waiting[0], ClaimFor)
		}
	}
	w.store.SetFaults(memstore.Faults{})
	_, _ = w.l.Sweep(ctx)
	time.Sleep(2 * BackoffLongest)
	cancel()
	done.Wait()
	if len(taken) != 16 || w.waits() != 0 {
		t.Errorf("%d shares were told, %d wait", len(taken), w.waits())
	}
	ids, shares := map[string]string{}, map[string]bool{}
	for _, d := range w.receiver.got {
		var e event
		if err := json.Unmarshal(d.body, &e); err != nil {
			t.Fatal(err)
		}
		if other := ids[e.ID]; other != "" && other != e.Share.String() || e.ID != d.header.Get(HeaderID) {
			t.Errorf("id %s is of %s and %s", e.ID, other, e.Share)
		}
		ids[e.ID], shares[e.Share.String()] = e.Share.String(), true
	}
	if len(ids) != len(shares) {
		t.Errorf("%d ids of %d shares", len(ids), len(shares))
	}
}
