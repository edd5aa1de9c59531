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

// outage takes the hub away for a minute under a steady load, and compares that
// minute with the same one of a run in which the hub stays: no request fails,
// none is slower, memory is bounded, and everything arrives afterwards.
func (t *trial) outage(ctx context.Context) error {
	with, err := t.steadyRun(ctx, false)
	if err != nil {
		return err
	}
	without, err := t.steadyRun(ctx, true)
	if err != nil {
		return err
	}
	if at(without, 50) > at(with, 50)*11/10 {
		t.fail("p50 %v while the hub is away, %v while it is there", at(without, 50), at(with, 50))
	}
	return nil
}

// steadyRun returns how long the requests of its second minute took, sorted. In
// that minute the hub may be away.
func (t *trial) steadyRun(ctx context.Context, away bool) ([]time.Duration, error) {
	scratch, err := os.MkdirTemp("", "costgate-outage-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	hub, err := fleet.StartHub(scratch)
	if err != nil {
		return nil, err
	}
	defer hub.Stop()
	t.env = []string{"UsageEventHub=" + hub.Connection}
	faults := t.faults
	t.faults = true // through the proxy, which counts the calls of the table
	defer func() { t.env, t.faults = nil, faults }()
	w, err := t.open(1, fleet.Prices{In: 1_234_567, Out: 4_567_891}, func(most int64) (int64, int64, time.Duration) {
		return 1 + rand.Int64N(15), 1 + rand.Int64N(most), 5 * time.Millisecond
	})
	if err != nil {
		return nil, err
	}
	defer w.close()
	var products []*product
	for i := range 4 {
		p, err := w.load.newProduct(ctx, w.fleet.In(0), fmt.Sprintf("product-%d", i), 1_000_000_000_000, nil)
		if err != nil {
			return nil, err
		}
		products = append(products, p)
	}
	w.steady(ctx, products, outageLength/6) // warm
	counts := w.proxy.Counts()
	first := w.steady(ctx, products, outageLength)
	w.calls("first minute", first, &counts)
	name := "second minute"
	if away {
		name = "second minute, the hub away"
		if err := hub.Control(ctx, "down", url.Values{"ms": {strconv.Itoa(int(outageLength.Milliseconds()))}}); err != nil {
			return nil, err
		}
	}
	second := w.steady(ctx, products, outageLength)
	w.calls(name, second, &counts)
	if rss := w.fleet.In(0).RSS(); rss > outageRSSMax {
		w.fail("%d MB resident", rss>>20)
	} else {
		fmt.Printf("%d MB resident\n", rss>>20)
	}
	if _, err := w.rest(ctx, products); err != nil {
		return nil, err
	}
	return second, w.arrived(ctx, hub, products, scratch, 0, 1)
}

// calls tells how a minute was, and what the table was asked for in it.
func (w *world) calls(when string, took []time.Duration, since *map[string]int) {
	now := w.proxy.Counts()
	per := func(name string) int { return (now[name] - (*since)[name]) * 1000 / max(1, len(took)) }
	fmt.Printf("%s: %d requests, p50 %v, p99 %v; for 1,000 of them %d transactions and %d reads of the table\n",
		when, len(took), at(took, 50), at(took, 99), per("transactions"), per("reads"))
	*since = now
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
