package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/costgate/costgate/e2e/fleet"
)

// stopBound is how long after a stop, or a lowered budget, a process may still
// forward.
const stopBound = 10 * time.Second

// stop stops products under load, and lowers budgets, on three processes one of
// which is frozen when that happens. What runs then ends, and is charged.
func (t *trial) stop(ctx context.Context) error {
	for _, c := range []struct {
		name   string
		frozen bool
		more   map[string]any
		stop   map[string]any
	}{
		{"stop", false, nil, map[string]any{"state": "stopped"}},
		{"stop, one frozen", true, nil, map[string]any{"state": "stopped"}},
		{"stop, one frozen, overlap", true, map[string]any{"durability": "overlap"}, map[string]any{"state": "stopped"}},
		{"budget lowered", false, nil, map[string]any{"amount": "0.01"}},
		{"budget lowered, one frozen", true, nil, map[string]any{"amount": "0.01"}},
		{"budget alert, one frozen", true, map[string]any{"budgetName": "trial-budget"}, nil},
	} {
		if err := t.stopOnce(ctx, c.name, c.frozen, c.more, c.stop); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) stopOnce(ctx context.Context, name string, frozen bool, more, stop map[string]any) error {
	const slots, clients = 3, 48
	w, err := t.open(slots, fleet.Prices{In: 1000, Out: 10_000_000}, func(most int64) (int64, int64, time.Duration) {
		return 10, 1 + rand.Int64N(most), between(20*time.Millisecond, 400*time.Millisecond)
	})
	if err != nil {
		return err
	}
	defer w.close()
	p, err := w.load.newProduct(ctx, w.fleet.In(0), "stopped", 1_000_000_000_000, more)
	if err != nil {
		return err
	}
	running, end := context.WithCancel(ctx)
	defer end()
	var parts sync.WaitGroup
	for i := range clients {
		parts.Go(func() {
			for running.Err() == nil {
				if a := w.load.send(context.WithoutCancel(running), w.fleet.In(i%slots), p, 100, rand.IntN(2) == 0); a.status != http.StatusOK {
					pause(running, between(20*time.Millisecond, 100*time.Millisecond))
				}
			}
		})
	}
	pause(ctx, 6*time.Second) // under load
	victim := w.fleet.In(2)
	if frozen {
		victim.Freeze()
		pause(ctx, time.Second)
	}
	if stop != nil {
		err = w.load.anywhere(ctx, slots-1, http.MethodPatch, "/api/Quota/"+p.id, "stop", stop, nil)
	} else {
		err = w.load.anywhere(ctx, slots-1, http.MethodPost, "/api/Quota/Budget", "", map[string]any{
			"schemaId": "AIP Budget Notification",
			"data": map[string]any{
				"SubscriptionName": "trial", "SubscriptionId": "00000000-0000-0000-0000-000000000001", "SpendingAmount": "100",
				"BudgetStartDate": "11/1/2026", "Budget": "50", "Unit": "USD", "BudgetCreator": "a@b.c", "BudgetName": "trial-budget",
				"BudgetType": "Cost", "ResourceGroup": "", "NotificationThresholdAmount": "1.0",
			},
		}, nil)
	}
	if err != nil {
		return err
	}
	at := time.Now()
	if frozen {
		pause(ctx, 20*time.Second)
		victim.Thaw()
	}
	_, thawed := victim.Frozen()
	pause(ctx, stopBound+5*time.Second)
	end()
	parts.Wait()
	last, lastAfterThaw, after, step := time.Duration(0), time.Duration(0), 0, 0
	attempts := w.load.all()
	for _, b := range w.upstream.Bills() {
		late := b.At.Sub(at)
		if late <= 0 {
			continue
		}
		after++
		if frozen && attempts[b.User].gateway == victim && b.At.After(thawed.Add(-time.Second)) {
			step++
			lastAfterThaw = max(lastAfterThaw, b.At.Sub(thawed))
			continue
		}
		last = max(last, late)
	}
	fmt.Printf("%-28s %5d forwarded, %3d after it, the last %.2f s after it", name, w.upstream.Count(), after-step, last.Seconds())
	if frozen {
		fmt.Printf("; %d more by the step that was frozen, the last %.2f s after it went on", step, lastAfterThaw.Seconds())
	}
	fmt.Println()
	if last > stopBound {
		w.fail("%s: forwarded %v after it", name, last)
	}
	if lastAfterThaw > time.Second {
		w.fail("%s: the thawed process forwarded for %v", name, lastAfterThaw)
	}
	for _, a := range attempts { // what ran when it was stopped has ended as if nothing had happened
		if a.status == http.StatusOK && !a.whole {
			w.fail("%s: the answer of %s is not whole", name, a.user)
		}
	}
	if _, err := w.rest(ctx, []*product{p}); err != nil {
		return err
	}
	billed := int64(0)
	for _, b := range w.upstream.Bills() {
		billed += b.Cost
	}
	var view fleet.View
	if _, err := w.fleet.In(0).API(ctx, http.MethodGet, "/api/Quota/"+p.id, "", nil, &view); err != nil {
		return err
	}
	if spent := fleet.Nano(view.Spent); spent != billed {
		w.fail("%s: %d was charged and %d was billed", name, spent, billed)
	}
	return nil
}
