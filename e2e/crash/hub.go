package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/costgate/costgate/e2e/fleet"
)

const (
	hubClients  = 32
	hubRequests = 10_000
	hubKills    = 10 // of each process
	hubProducts = 8
)

// hub is the way of the records: processes are killed while the hub is throttled,
// cut off and restarted. In the end the lake has exactly the ledger's records.
func (t *trial) hub(ctx context.Context) error { return t.toTheLake(ctx, 2) }

// hubEmbedded is the same with one process on its embedded store.
func (t *trial) hubEmbedded(ctx context.Context) error { return t.toTheLake(ctx, 1) }

func (t *trial) toTheLake(ctx context.Context, slots int) error {
	scratch, err := os.MkdirTemp("", "costgate-hub-")
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
	t.embedded = slots == 1
	defer func() { t.env, t.embedded = nil, false }()
	prices := fleet.Prices{In: 1_234_567, Out: 4_567_891}
	w, err := t.open(slots, prices, func(most int64) (int64, int64, time.Duration) {
		return 1 + rand.Int64N(15), 1 + rand.Int64N(most), between(5*time.Millisecond, 60*time.Millisecond)
	})
	if err != nil {
		return err
	}
	defer w.close()
	var products []*product
	for i := range hubProducts {
		p, err := w.load.newProduct(ctx, w.fleet.In(0), fmt.Sprintf("product-%d", i), 1_000_000_000_000, nil)
		if err != nil {
			return err
		}
		products = append(products, p)
	}
	requests := int64(t.requests)
	running, stop := context.WithCancel(ctx)
	defer stop()
	var clients, parts sync.WaitGroup
	left := new(atomic.Int64)
	left.Store(requests)
	for range hubClients {
		clients.Go(func() {
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				g := w.load.usable(slots)
				if g == nil {
					left.Add(1)
					pause(ctx, 20*time.Millisecond)
					continue
				}
				if a := w.load.send(ctx, g, products[rand.IntN(len(products))], 10+rand.Int64N(40), rand.IntN(2) > 0); a.status != http.StatusOK {
					left.Add(1) // another one in its place
					pause(ctx, between(50*time.Millisecond, 250*time.Millisecond))
				}
			}
		})
	}
	faults, kills := new(atomic.Int64), new(atomic.Int64)
	parts.Go(func() { w.disturb(running, hub, faults) })
	for slot := range slots {
		parts.Go(func() { w.killEvenly(running, slot, slots, requests, left, kills) })
	}
	clients.Wait()
	stop()
	parts.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := hub.Control(ctx, "clear", nil); err != nil {
		return err
	}
	if _, err := w.rest(ctx, products); err != nil {
		return err
	}
	return w.arrived(ctx, hub, products, scratch, kills.Load(), faults.Load())
}

// disturb makes trouble for the hub every second or so.
func (w *world) disturb(ctx context.Context, hub *fleet.Hub, faults *atomic.Int64) {
	for {
		pause(ctx, between(300*time.Millisecond, 2*time.Second))
		if ctx.Err() != nil {
			return
		}
		path, query := "fail", url.Values{}
		switch names := []string{"throttle", "detach", "drop-before", "drop-after", "release", "modify", "restart", "down"}; rand.IntN(len(names)) {
		case 6:
			path = "restart"
		case 7:
			path = "down"
			query.Set("ms", strconv.Itoa(500+rand.IntN(4000)))
		default:
			query.Set("fault", names[rand.IntN(6)])
			query.Set("times", strconv.Itoa(1+rand.IntN(4)))
		}
		if err := hub.Control(context.WithoutCancel(ctx), path, query); err != nil {
			w.fail("hub: %v", err)
			return
		}
		faults.Add(1)
	}
}

// killEvenly kills a slot's process ten times in the course of the requests.
func (w *world) killEvenly(ctx context.Context, slot, slots int, requests int64, left, kills *atomic.Int64) {
	for n := int64(1); n <= hubKills; n++ {
		at := requests - requests*(n*int64(slots)+int64(slot))/((hubKills+1)*int64(slots)) // of the slots in turn
		for left.Load() > at {
			pause(ctx, 10*time.Millisecond)
			if ctx.Err() != nil {
				w.fail("slot %d was killed %d times only", slot, n-1)
				return
			}
		}
		w.fleet.In(slot).Kill()
		kills.Add(1)
		if _, err := w.fleet.Start(slot); err != nil {
			w.fail("restart: %v", err)
			return
		}
	}
}

// arrived waits until the hub has every record, and compares both sides.
func (w *world) arrived(ctx context.Context, hub *fleet.Hub, products []*product, scratch string, kills, faults int64) error {
	began := time.Now()
	folder := filepath.Join(scratch, "arrived")
	for {
		ledger, sum := map[string]int{}, int64(0)
		for _, p := range products {
			records, err := w.fleet.In(0).History(ctx, p.id)
			if err != nil {
				return err
			}
			for _, r := range records {
				ledger[r.ID] = r.Rev
				if r.Kind == "request" || r.Kind == "write_off" {
					sum += r.Charge
				}
			}
		}
		have, events, err := hub.Export(folder)
		if err != nil {
			return err
		}
		missing := 0
		for id, rev := range ledger {
			if have[id] != rev {
				missing++
			}
		}
		if missing > 0 && time.Since(began) < restMax {
			pause(ctx, time.Second)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		fmt.Printf("%d requests forwarded, %d records, %d events, %d SIGKILL, %d faults of the hub; all there %v after the last request\n",
			w.upstream.Count(), len(ledger), events, kills, faults, time.Since(began).Round(time.Second))
		if missing > 0 {
			w.fail("%d of %d records are not in the lake after %v", missing, len(ledger), restMax)
		}
		if len(have) != len(ledger) {
			w.fail("the lake has %d records, the ledger %d", len(have), len(ledger))
		}
		if n := w.upstream.Count(); len(ledger) < n {
			w.fail("%d requests were forwarded, there are %d records", n, len(ledger))
		}
		out, err := w.fleet.Verify(ctx, "-lake", folder)
		if err != nil {
			w.fail("gateway verify -lake: %v: %s", err, out)
		}
		fmt.Printf("charged %s; verify: %s\n", fleet.Dollars(sum), out)
		return nil
	}
}
