package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/costgate/costgate/e2e/fleet"
)

// spent is what GetById shows: a number to which charges are added.
var spent = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		was := state.(int64) //nolint:forcetypeassert // the model's own
		if charge, ok := input.(int64); ok {
			return true, was + charge
		}
		return output.(int64) == was, was //nolint:forcetypeassert // as above
	},
	DescribeOperation: func(input, output any) string {
		if charge, ok := input.(int64); ok {
			return fmt.Sprintf("charge %d", charge)
		}
		return fmt.Sprintf("read %d", output)
	},
}

type readSpent struct{}

// linear lets clients charge a product and read it, through processes that are
// killed: some order of all that was acknowledged must explain every answer.
func (t *trial) linear(ctx context.Context) error {
	const slots, writers, readers, histories = 3, 3, 3, 4
	w, err := t.open(slots, fleet.Prices{In: 1_234_567, Out: 4_567_891}, func(most int64) (int64, int64, time.Duration) {
		return 1 + rand.Int64N(15), 1 + rand.Int64N(most), between(5*time.Millisecond, 60*time.Millisecond)
	})
	if err != nil {
		return err
	}
	defer w.close()
	var rounds []*history
	var products []*product
	for round := range histories {
		p, err := w.load.newProduct(ctx, w.load.usable(slots), fmt.Sprintf("linear-%d", round), 100_000_000_000, nil)
		if err != nil {
			return err
		}
		products = append(products, p)
		rounds = append(rounds, w.record1(ctx, p, slots, writers, readers))
	}
	if _, err := w.rest(ctx, products); err != nil {
		return err
	}
	total, reads := 0, 0
	for i, h := range rounds {
		reads += len(h.operations)
		if err := w.addCharges(ctx, h); err != nil {
			return err
		}
		total += len(h.operations)
		switch porcupine.CheckOperationsTimeout(spent, h.operations, 2*time.Minute) {
		case porcupine.Illegal:
			w.fail("linear: no order explains history %d of %d operations", i, len(h.operations))
		case porcupine.Unknown:
			w.fail("linear: history %d of %d operations was not decided in 2 minutes", i, len(h.operations))
		case porcupine.Ok:
		}
	}
	fmt.Printf("%d histories, %d operations, %d of them reads, judged by porcupine\n", histories, total, reads)
	return nil
}

// history is what the clients of one product saw.
type history struct {
	product    *product
	began      time.Time
	operations []porcupine.Operation
}

func (h *history) since(t time.Time) int64 { return t.Sub(h.began).Nanoseconds() }

// record1 loads a product, reads it all along, and kills gateways.
func (w *world) record1(ctx context.Context, p *product, slots, writers, readers int) *history {
	h := &history{product: p, began: time.Now()}
	running, stop := context.WithTimeout(ctx, 8*time.Second)
	defer stop()
	var mu sync.Mutex
	var parts sync.WaitGroup
	for range writers {
		parts.Go(func() {
			for running.Err() == nil {
				if g := w.load.usable(slots); g != nil {
					w.load.send(context.WithoutCancel(running), g, p, 10+rand.Int64N(100), true)
				}
				pause(running, between(0, 30*time.Millisecond))
			}
		})
	}
	for i := range readers {
		parts.Go(func() {
			for running.Err() == nil {
				if g := w.load.usable(slots); g != nil {
					call := time.Now()
					var view fleet.View
					if _, err := g.API(ctx, http.MethodGet, "/api/Quota/"+p.id, "", nil, &view); err == nil {
						mu.Lock()
						h.operations = append(h.operations, porcupine.Operation{ClientId: i, Input: readSpent{}, Output: fleet.Nano(view.Spent), Call: h.since(call), Return: h.since(time.Now())})
						mu.Unlock()
					}
				}
				pause(running, between(0, 50*time.Millisecond))
			}
		})
	}
	parts.Go(func() {
		for running.Err() == nil {
			pause(running, between(2*time.Second, 4*time.Second))
			if running.Err() == nil {
				w.killOne(slots)
			}
		}
	})
	parts.Wait()
	return h
}

// addCharges adds the charges to what was read. A request whose end nobody was
// told of was charged at some time after it began, by a sweep perhaps.
func (w *world) addCharges(ctx context.Context, h *history) error {
	records, err := w.fleet.In(0).History(ctx, h.product.id)
	if err != nil {
		return err
	}
	attempts := w.load.all()
	for i, r := range records {
		if a := attempts[r.User]; a != nil && r.Kind == "request" && r.Charge > 0 {
			end := int64(math.MaxInt64)
			if a.status == http.StatusOK && a.whole {
				end = h.since(a.end)
			}
			call := a.start
			if killed := a.gateway.Killed(); r.UsageSource == "swept" && killed.After(call) {
				call = killed // nobody charges a hold while its process lives
			}
			h.operations = append(h.operations, porcupine.Operation{ClientId: 1000 + i, Input: r.Charge, Call: h.since(call), Return: end})
		}
	}
	return nil
}

func (w *world) killOne(slots int) {
	slot := rand.IntN(slots)
	w.fleet.In(slot).Kill()
	if _, err := w.fleet.Start(slot); err != nil {
		w.fail("restart: %v", err)
	}
}
