package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/costgate/costgate/e2e/fleet"
)

const (
	outageRate   = 200 // requests a second
	outageLength = time.Minute
	outageRSSMax = 256 << 20 // bytes
)

// outage takes the hub away for a minute under a steady load: no request fails,
// none is slower, memory is bounded, and everything arrives afterwards.
func (t *trial) outage(ctx context.Context) error {
	scratch, err := os.MkdirTemp("", "costgate-outage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	hub, err := fleet.StartHub(scratch)
	if err != nil {
		return err
	}
	defer hub.Stop()
	t.env = []string{"UsageEventHub=" + hub.Connection}
	defer func() { t.env = nil }()
	w, err := t.open(1, fleet.Prices{In: 1_234_567, Out: 4_567_891}, func(most int64) (int64, int64, time.Duration) {
		return 1 + rand.Int64N(15), 1 + rand.Int64N(most), 5 * time.Millisecond
	})
	if err != nil {
		return err
	}
	defer w.close()
	var products []*product
	for i := range 4 {
		p, err := w.load.newProduct(ctx, w.fleet.In(0), fmt.Sprintf("product-%d", i), 1_000_000_000_000, nil)
		if err != nil {
			return err
		}
		products = append(products, p)
	}
	w.steady(ctx, products, outageLength/6) // warm
	up := w.steady(ctx, products, outageLength)
	if err := hub.Control(ctx, "down", url.Values{"ms": {strconv.Itoa(int(outageLength.Milliseconds()))}}); err != nil {
		return err
	}
	down := w.steady(ctx, products, outageLength)
	rss := w.fleet.In(0).RSS()
	again := w.steady(ctx, products, outageLength)
	fmt.Printf("hub up: p50 %v p99 %v; down for %v: p50 %v p99 %v; up again: p50 %v; resident %d MB at the end of the outage\n",
		at(up, 50), at(up, 99), outageLength, at(down, 50), at(down, 99), at(again, 50), rss>>20)
	// The machine may be slower in one minute than in another: what is held
	// against the outage is the slower of the two minutes beside it.
	if base := max(at(up, 50), at(again, 50)); at(down, 50) > base*11/10 {
		w.fail("p50 %v without the hub, %v with it", at(down, 50), base)
	}
	if rss > outageRSSMax {
		w.fail("%d MB resident", rss>>20)
	}
	if _, err := w.rest(ctx, products); err != nil {
		return err
	}
	return w.arrived(ctx, hub, products, scratch, 0, 1)
}

func at(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)].Round(10 * time.Microsecond)
}

// steady sends requests at the rate, whatever becomes of them, and returns how
// long they took, sorted.
func (w *world) steady(ctx context.Context, products []*product, length time.Duration) []time.Duration {
	var all sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	ticker := time.NewTicker(time.Second / outageRate)
	defer ticker.Stop()
	for end := time.Now().Add(length); time.Now().Before(end) && ctx.Err() == nil; <-ticker.C {
		all.Go(func() {
			began := time.Now()
			a := w.load.send(ctx, w.fleet.In(0), products[rand.IntN(len(products))], 50, false)
			mu.Lock()
			defer mu.Unlock()
			if a.status != http.StatusOK {
				w.fail("a request failed: %d %s", a.status, a.code)
			}
			took = append(took, time.Since(began))
		})
	}
	all.Wait()
	slices.Sort(took)
	return took
}
