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

// endgame spends a $1.00 product to its end with requests of $0.001, from
// clients of four processes who try again when money is held.
func (t *trial) endgame(ctx context.Context) error {
	const slots, clients = 4, 32
	// 100 tokens of output are $0.001; the prompt is a nano-dollar a token.
	w, err := t.open(slots, fleet.Prices{In: 1000, Out: 10_000_000}, func(most int64) (int64, int64, time.Duration) {
		return 10, most, between(50*time.Millisecond, 300*time.Millisecond)
	})
	if err != nil {
		return err
	}
	defer w.close()
	p, err := w.load.newProduct(ctx, w.fleet.In(0), "endgame", 1_000_000_000, nil)
	if err != nil {
		return err
	}
	began := time.Now()
	var parts sync.WaitGroup
	for i := range clients {
		parts.Go(func() {
			for ctx.Err() == nil {
				a := w.load.send(ctx, w.fleet.In(i%slots), p, 100, rand.IntN(2) == 0)
				switch {
				case a.status == http.StatusTooManyRequests && a.code == "insufficient_quota":
					return
				case a.status == http.StatusTooManyRequests:
					pause(ctx, between(500*time.Millisecond, 1500*time.Millisecond)) // retry-after is 1 s
				case a.status != http.StatusOK:
					w.fail("endgame: %d %s", a.status, a.code)
					return
				}
			}
		})
	}
	parts.Wait()
	took := time.Since(began)
	if _, err := w.rest(ctx, []*product{p}); err != nil {
		return err
	}
	spent := int64(0)
	for _, b := range w.upstream.Bills() {
		spent += b.Cost
	}
	counts := map[string]int{}
	for _, a := range w.load.all() {
		counts[fmt.Sprintf("%d %s", a.status, a.code)]++
	}
	all := len(w.load.all())
	fmt.Printf("spent %.3f %% of $1.00 in %v; %d requests: %d served, %d budget_held (%.1f %%), %d insufficient_quota\n",
		float64(spent)/1e7, took.Round(100*time.Millisecond), all, counts["200 "], counts["429 budget_held"],
		100*float64(counts["429 budget_held"])/float64(all), counts["429 insufficient_quota"])
	if spent > 1_000_000_000 {
		w.fail("endgame: spent %d of $1.00", spent)
	}
	if spent < 990_000_000 {
		w.fail("endgame: only %d of $1.00 was spent", spent)
	}
	if out, err := w.fleet.Verify(ctx); err != nil {
		w.fail("gateway verify: %v: %s", err, out)
	}
	return nil
}
