package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/costgate/costgate/e2e/fleet"
)

const (
	killSlots    = 3
	killClients  = 48
	killProducts = 5
	tokensMax    = 200
	freezeLength = 40 * time.Second
	restMax      = 5 * time.Minute // until nothing may be held any more
	// What a whole run must at least have seen, per 10 minutes.
	admittedLeast, midStreamLeast = 20_000, 200
)

// kill is the main scenario: see docs/ACCOUNTING.md.
func (t *trial) kill(ctx context.Context) error {
	prices := fleet.Prices{In: 1_234_567, Out: 4_567_891}
	w, err := t.open(killSlots, prices, func(most int64) (int64, int64, time.Duration) {
		length := between(40*time.Millisecond, 700*time.Millisecond)
		if rand.IntN(16) == 0 {
			length = between(2*time.Second, 12*time.Second)
		}
		return 1 + rand.Int64N(15), 1 + rand.Int64N(most), length
	})
	if err != nil {
		return err
	}
	defer w.close()
	var products []*product
	for i := range killProducts {
		more := map[string]any{}
		if i == killProducts-1 {
			more["durability"] = "overlap"
		}
		p, err := w.load.newProduct(ctx, w.fleet.In(0), fmt.Sprintf("product-%d", i), 10_000_000, more)
		if err != nil {
			return err
		}
		p.overlap = more["durability"] == "overlap"
		products = append(products, p)
	}
	if t.faults {
		w.proxy.Set(fleet.Faults{DropRequest: 2, DropAnswer: 2, Twice: 2, Late: 3, LateMax: 10 * time.Second})
	}
	running, stop := context.WithTimeout(ctx, t.length)
	defer stop()
	var parts sync.WaitGroup
	kills, freezes := new(atomic.Int64), new(atomic.Int64)
	for range killClients {
		parts.Go(func() { w.client(running, products) })
	}
	for _, p := range products {
		parts.Go(func() { w.deposits(running, p) })
	}
	parts.Go(func() { w.killer(running, kills) })
	parts.Go(func() { w.freezer(running, freezes) })
	parts.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.proxy.Set(fleet.Faults{})
	for i := range killSlots { // the last restart
		w.fleet.In(i).Kill()
		kills.Add(1)
		if _, err := w.fleet.Start(i); err != nil {
			return err
		}
	}
	took, err := w.rest(ctx, products)
	if err != nil {
		return err
	}
	fmt.Printf("%d SIGKILL, %d freezes of %v; nothing held %v after the last restart\n", kills.Load(), freezes.Load(), freezeLength, took.Round(time.Second))
	if t.faults {
		fmt.Printf("faults: %v\n", w.proxy.Counts())
	}
	return w.verdict(ctx, products)
}

// client is one of the callers: it asks again as soon as it is answered.
func (w *world) client(ctx context.Context, products []*product) {
	for ctx.Err() == nil {
		g := w.load.usable(killSlots)
		if g == nil {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		// An answer is read to its end also when the time is over.
		a := w.load.send(context.WithoutCancel(ctx), g, products[rand.IntN(len(products))], 10+rand.Int64N(tokensMax-10), rand.IntN(5) > 0)
		if a.status != http.StatusOK {
			pause(ctx, between(50*time.Millisecond, 250*time.Millisecond))
		}
	}
}

// deposits gives a product money, in pieces that it spends in a few seconds.
func (w *world) deposits(ctx context.Context, p *product) {
	for i := 0; ; i++ {
		pause(ctx, between(time.Second, 4500*time.Millisecond))
		if ctx.Err() != nil {
			return
		}
		amount := 2_000_000 + rand.Int64N(10_000_000)
		p.give(time.Now(), amount)
		body := map[string]any{"deposit": fleet.Dollars(amount)}
		if err := w.load.anywhere(context.WithoutCancel(ctx), killSlots, http.MethodPatch, "/api/Quota/"+p.id, fmt.Sprintf("deposit-%s-%d", p.id, i), body, nil); err != nil {
			w.fail("deposit: %v", err)
			return
		}
	}
}

// killer kills a gateway every 0.5 to 3 s and starts another in its place.
func (w *world) killer(ctx context.Context, kills *atomic.Int64) {
	for {
		pause(ctx, between(500*time.Millisecond, 3*time.Second))
		if ctx.Err() != nil {
			return
		}
		slot := rand.IntN(killSlots)
		g := w.fleet.In(slot)
		if frozen, thawed := g.Frozen(); (frozen || time.Since(thawed) < 3*time.Second) && rand.IntN(100) > 0 {
			continue // most of the frozen shall see what became of them
		}
		g.Kill()
		kills.Add(1)
		if _, err := w.fleet.Start(slot); err != nil {
			w.fail("restart: %v", err)
			return
		}
	}
}

// freezer stops a gateway for 40 s, again and again: long enough for its leases
// to be taken from it.
func (w *world) freezer(ctx context.Context, freezes *atomic.Int64) {
	for {
		pause(ctx, between(10*time.Second, 30*time.Second))
		if ctx.Err() != nil {
			return
		}
		g := w.load.usable(killSlots)
		if g == nil {
			continue
		}
		g.Freeze()
		freezes.Add(1)
		pause(ctx, freezeLength)
		g.Thaw()
	}
}

// rest waits until nothing is held and the lake has everything.
func (w *world) rest(ctx context.Context, products []*product) (time.Duration, error) {
	began := time.Now()
	for {
		held := []string{}
		for _, p := range products {
			var view fleet.View
			if _, err := w.fleet.In(0).API(ctx, http.MethodGet, "/api/Quota/"+p.id, "", nil, &view); err != nil {
				held = append(held, err.Error())
			} else if fleet.Nano(view.Held) != 0 {
				held = append(held, p.id+" "+view.Held)
			}
		}
		if len(held) == 0 {
			return time.Since(began), nil
		}
		if time.Since(began) > restMax {
			return 0, fmt.Errorf("still held after %v: %v", restMax, held)
		}
		pause(ctx, time.Second)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

// verdict compares the upstream's bill, what the clients saw, the records, the
// books and the lake.
func (w *world) verdict(ctx context.Context, products []*product) error {
	bills, attempts := w.upstream.Bills(), w.load.all()
	billed := map[string]*fleet.Bill{}
	for i := range bills {
		if billed[bills[i].User] != nil {
			w.fail("%s was forwarded twice", bills[i].User)
		}
		billed[bills[i].User] = &bills[i]
	}
	counts := map[string]int{}
	for _, a := range attempts {
		switch {
		case a.status == 0:
			counts["no answer"]++
		case a.status == http.StatusOK && !a.whole:
			counts["cut"]++
		default:
			counts[fmt.Sprintf("%d %s", a.status, a.code)]++
		}
	}
	ids := map[string]int{}
	for _, p := range products {
		if err := w.judge(ctx, p, billed, attempts, counts, ids); err != nil {
			return err
		}
		w.neverOver(p, bills, attempts)
	}
	for user := range billed {
		w.fail("%s was billed and has no record; gateway %s", user, attempts[user].gateway.Name)
	}
	if out, err := w.fleet.Verify(ctx); err != nil {
		w.fail("gateway verify: %v: %s", err, out)
	}
	if err := w.lake(ctx, ids); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Printf("%8d  %s\n", counts[name], name)
	}
	fmt.Printf("%d requests admitted, %d of them killed in mid-stream\n", len(bills), counts["killed while upstream was sending"])
	share := min(1, float64(w.length)/float64(10*time.Minute))
	if w.length < 10*time.Minute { // a short run is for a machine that does other things too
		share /= 4
	}
	if w.faults { // lost messages cost three seconds each
		share /= 2
	}
	if n := int(admittedLeast * share); len(bills) < n {
		w.fail("only %d requests were admitted, not %d: not a trial", len(bills), n)
	}
	if n := int(midStreamLeast * share); counts["killed while upstream was sending"] < n {
		w.fail("only %d requests were killed in mid-stream, not %d: not a trial", counts["killed while upstream was sending"], n)
	}
	return nil
}

// judge looks at the records and the books of one product. It takes what it has
// found out of billed.
func (w *world) judge(ctx context.Context, p *product, billed map[string]*fleet.Bill, attempts map[string]*attempt, counts, ids map[string]int) error {
	records, err := w.fleet.In(0).History(ctx, p.id)
	if err != nil {
		return err
	}
	spent, writtenOff := int64(0), int64(0)
	for _, r := range records {
		ids[r.ID] = r.Rev
		switch r.Kind {
		case "write_off":
			counts["write-offs"]++
			spent += r.Charge
			writtenOff += r.Charge
		case "request":
			spent += r.Charge
			a := attempts[r.User]
			if a == nil || a.product != p {
				w.fail("record %s of %q is of no request of its product", r.ID, r.User)
				continue
			}
			w.record(a, &r, billed[r.User], counts)
			delete(billed, r.User)
		}
	}
	unlisted := int64(0)
	for user, b := range billed { // overlap: what a killed process had not listed is in a write-off
		a := attempts[user]
		if a.product == p && p.overlap && !a.gateway.Killed().IsZero() && !a.whole {
			counts["in a write-off"]++
			unlisted += b.Cost
			delete(billed, user)
		}
	}
	if unlisted > writtenOff {
		w.fail("%s: requests without a record cost %d, %d was written off", p.id, unlisted, writtenOff)
	}
	var view fleet.View
	if _, err := w.fleet.In(0).API(ctx, http.MethodGet, "/api/Quota/"+p.id, "", nil, &view); err != nil {
		return err
	}
	if got := fleet.Nano(view.Spent); got != spent {
		w.fail("%s: the books say %d was spent, the records sum to %d", p.id, got, spent)
	}
	if got := fleet.Nano(view.Budget); got != p.budget() {
		w.fail("%s: the budget is %d, it was given %d", p.id, got, p.budget())
	}
	if spent > p.budget() {
		w.fail("%s: spent %d of %d", p.id, spent, p.budget())
	}
	return nil
}

// record compares one record with the bill and with the fate of its process.
func (w *world) record(a *attempt, r *fleet.Record, b *fleet.Bill, counts map[string]int) {
	killed := a.gateway.Killed()
	died := !killed.IsZero() && killed.Before(a.end.Add(time.Second))
	swept := r.UsageSource == "swept"
	switch {
	case b == nil && swept && died:
		counts["swept, never forwarded"]++
	case b == nil:
		if r.Charge != 0 {
			w.fail("%s was never billed, its record says %d (%s)", r.User, r.Charge, r.UsageSource)
		}
	case swept:
		counts["swept"]++
		if !died || (a.status == http.StatusOK && a.whole) {
			w.fail("%s is swept, but %s was not killed while it ran", r.User, a.gateway.Name)
		}
		if r.Charge != r.Hold || r.Charge < b.Cost {
			w.fail("%s is swept at %d, its hold was %d, its cost %d", r.User, r.Charge, r.Hold, b.Cost)
		}
	case r.Charge != b.Cost:
		w.fail("%s cost %d, its record says %d (%s, rev %d)", r.User, b.Cost, r.Charge, r.UsageSource, r.Rev)
	case r.Rev > 1:
		counts["corrected after a freeze"]++
	}
	if b != nil && died && (b.Finished.IsZero() || b.Finished.After(killed)) {
		counts["killed while upstream was sending"]++
		if !swept {
			w.fail("%s is not swept (%d), but %s was killed while upstream was sending", r.User, r.Charge, a.gateway.Name)
		}
	}
}

// neverOver replays the bill: at no time was more billed than had been given.
func (w *world) neverOver(p *product, bills []fleet.Bill, attempts map[string]*attempt) {
	given, sum := int64(0), int64(0)
	rest := slices.Clone(p.budgeted)
	for i := range bills {
		if attempts[bills[i].User].product != p {
			continue
		}
		for len(rest) > 0 && rest[0].at.Before(bills[i].At) {
			given += rest[0].amount
			rest = rest[1:]
		}
		if sum += bills[i].Cost; sum > given {
			w.fail("%s: %d was billed when %d had been given", p.id, sum, given)
			return
		}
	}
	fmt.Printf("%s: billed %s, charged at most %s given\n", p.id, fleet.Dollars(sum), fleet.Dollars(p.budget()))
}

// lake waits until every record has come to the lake, at its last revision.
func (w *world) lake(ctx context.Context, ids map[string]int) error {
	began := time.Now()
	for {
		have, err := w.fleet.Lake()
		if err != nil {
			return err
		}
		missing := 0
		for id, rev := range ids {
			if have[id] != rev {
				missing++
			}
		}
		if missing == 0 {
			fmt.Printf("%d records, all in the lake at their last revision\n", len(ids))
			return nil
		}
		if time.Since(began) > restMax {
			return fmt.Errorf("%d of %d records are not in the lake after %v", missing, len(ids), restMax)
		}
		pause(ctx, time.Second)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
