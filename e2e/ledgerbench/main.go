// Command ledgerbench measures the ledger of leases against its first form, which
// wrote the account's row by compare-and-swap twice per request: requests per
// second of one product on several processes, added latency, and what the table
// is asked for. Both are binaries of the gateway, in one run, on Azurite.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/costgate/costgate/e2e/figures"
	"github.com/costgate/costgate/e2e/fleet"
)

const runMax = 20 * time.Minute // whatever hangs

// plan is how long and how often is measured.
type plan struct {
	rounds    int
	processes []int // of the closed loop
	warmUp    time.Duration
	closed    time.Duration // one measurement of the closed loop
	latency   time.Duration // the same for the added latency
	loads     []load        // under which transactions are counted
}

var (
	full = plan{
		rounds: 3, processes: []int{1, 2, 4}, warmUp: time.Second, closed: 2500 * time.Millisecond, latency: 7 * time.Second,
		loads: []load{{perSecond: 5, span: 30 * time.Second}, {perSecond: 100, span: 8 * time.Second}, {clients: 256, span: 5 * time.Second}},
	}
	quick = plan{
		rounds: 1, processes: []int{1, 2}, warmUp: 200 * time.Millisecond, closed: 500 * time.Millisecond, latency: time.Second,
		loads: []load{{perSecond: 5, span: 2 * time.Second}, {perSecond: 100, span: time.Second}, {clients: 256, span: time.Second}},
	}
)

const (
	clients      = 64 // of the closed loop, over all processes
	perSecond    = 20 // of the added latency
	thinking     = 200 * time.Millisecond
	talking      = 40 * time.Millisecond // from the first chunk of a stream to the last
	latencySlots = 2                     // with one process, then with so many
)

// variant is one form of the ledger, as a product uses it.
type variant struct {
	name, binary, durability string
}

type bench struct {
	plan
	command  string // of this run, for the report
	commit   string // of the first form
	azurite  string
	verbose  bool
	variants []variant

	began         time.Time
	instant, slow *fleet.Upstream

	// What was measured, by variant and number of processes or load.
	throughput map[string][]*tally
	latencies  map[string]*pair
	counted    map[string]*count
}

func main() {
	b := &bench{plan: full, began: time.Now(), throughput: map[string][]*tally{}, latencies: map[string]*pair{}, counted: map[string]*count{}}
	first := flag.String("first", "", "the first form's binary")
	gateway := flag.String("gateway", "./gateway", "the gateway's binary")
	out := flag.String("out", "", "Markdown file whose tables to replace")
	flag.StringVar(&b.commit, "commit", "", "the first form's commit, for the report")
	flag.StringVar(&b.azurite, "azurite", filepath.FromSlash("e2e/node_modules/azurite/dist/src/table/main.js"), "Azurite's table service; make deps installs it")
	short := flag.Bool("quick", false, "one short round: does it still work?")
	flag.BoolVar(&b.verbose, "v", false, "show the gateways' standard error, and how long they take to be ready")
	rounds := flag.Int("rounds", 0, "rounds; the variants come in another order in each")
	flag.Parse()
	if *first == "" {
		fmt.Fprintln(os.Stderr, "ledgerbench: -first is missing; make bench-ledger builds it")
		os.Exit(2)
	}
	b.command = "make bench-ledger"
	if *short {
		b.plan, b.command = quick, b.command+" ARGS=-quick"
	}
	if *rounds > 0 {
		b.rounds = *rounds
	}
	b.variants = []variant{{"first form", *first, ""}, {"strict", *gateway, "strict"}, {"overlap", *gateway, "overlap"}}
	if whole, err := filepath.Abs(b.azurite); err == nil { // it is started in another folder
		b.azurite = whole
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, runMax)
	defer cancel()
	err := b.run(ctx)
	if err == nil {
		report := b.report()
		fmt.Print(report)
		if *out != "" {
			err = figures.Replace(*out, "ledger", report)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ledgerbench:", err)
		os.Exit(1) //nolint:gocritic // the process ends, and with it what is deferred
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.instant, err = upstream(0, time.Millisecond); err != nil {
		return err
	}
	if b.slow, err = upstream(thinking, talking); err != nil {
		return err
	}
	for round := range b.rounds {
		for _, n := range b.processes {
			for _, i := range rand.Perm(len(b.variants)) {
				if err := b.measureThroughput(ctx, b.variants[i], n); err != nil {
					return err
				}
			}
		}
		for _, i := range rand.Perm(len(b.variants)) {
			if err := b.measureLatency(ctx, b.variants[i]); err != nil {
				return err
			}
		}
		b.say("round %d of %d", round+1, b.rounds)
	}
	return b.countTransactions(ctx)
}

// prices make a request cost $0.001.
var prices = fleet.Prices{In: 1000, Out: 10_000_000}

const promptTokens = 20

func upstream(thinks, talks time.Duration) (*fleet.Upstream, error) {
	u, err := fleet.StartUpstream(prices, func(most int64) (int64, int64, time.Duration) { return promptTokens, most, talks })
	if err == nil {
		u.Think(thinks)
	}
	return u, err
}

// say tells how far the run is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// world is a fresh Azurite and the gateways on it, with one product.
type world struct {
	fleet  *fleet.Fleet
	proxy  *fleet.FaultProxy // before Azurite, if calls are counted
	client *client
	key    string
	close  func()
}

// open starts n gateways of a variant.
func (b *bench) open(ctx context.Context, v variant, u *fleet.Upstream, n int, counted bool) (w *world, err error) {
	scratch, err := os.MkdirTemp("", "costgate-ledgerbench-")
	if err != nil {
		return nil, err
	}
	url, stop, err := fleet.Azurite(b.azurite)
	if err != nil {
		_ = os.RemoveAll(scratch)
		return nil, err
	}
	w = &world{client: newClient(), key: "bench-product-key-0123456789"}
	w.close = func() {
		w.client.http.CloseIdleConnections()
		if w.fleet != nil {
			w.fleet.Stop()
		}
		stop()
		_ = os.RemoveAll(scratch)
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if counted {
		if w.proxy, err = fleet.StartFaultProxy(url); err != nil {
			return nil, err
		}
		url = w.proxy.URL
	}
	w.fleet = fleet.New(fleet.Options{
		Binary: v.binary, Storage: fleet.Connection(url), Scratch: scratch, Verbose: b.verbose,
		Env: []string{"AZURE_OPENAI_ENDPOINT=" + u.URL, "AZURE_OPENAI_API_KEY=upstream", "PRICES_FILE=" + prices.File()},
	})
	for i := range n {
		if _, err = w.fleet.Start(i); err != nil {
			return nil, err
		}
	}
	listening := time.Now()
	if err = w.create(ctx, v); err == nil && b.verbose {
		b.say("%s, processes %d: the product was there %v after they listened", v.name, n, time.Since(listening).Round(time.Millisecond))
	}
	return w, err
}

// create makes the product. A gateway answers 503 until it has found its table.
func (w *world) create(ctx context.Context, v variant) error {
	body := map[string]any{"subscriptionKey": w.key, "productName": "Bench", "amount": "1000000"}
	if v.durability != "" {
		body["durability"] = v.durability
	}
	for try := 0; ; try++ {
		_, err := w.fleet.In(0).API(ctx, "POST", "/api/Quota", "create", body, nil)
		if err == nil || try == 50 || ctx.Err() != nil {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// measureThroughput runs clients that each ask again as soon as they are
// answered. Azurite is a fresh one each time: it gets slower as it fills.
func (b *bench) measureThroughput(ctx context.Context, v variant, n int) error {
	w, err := b.open(ctx, v, b.instant, n, false)
	if err != nil {
		return err
	}
	defer w.close()
	ask := func(i int) answer { return w.ask(ctx, i%n, false, time.Now()) }
	warmUp := closedLoop(ctx, clients, b.warmUp, ask)
	t := closedLoop(ctx, clients, b.closed, ask)
	t.warmedBy(warmUp)
	b.say("throughput, %s, processes %d: %.0f/s, not served: %s", v.name, n, t.rate(), t.losses())
	key := name(v, n)
	b.throughput[key] = append(b.throughput[key], t)
	return ctx.Err()
}

// pair is the same load through the gateway and past it.
type pair struct{ through, direct tally }

// measureLatency sends a gentle load with streams from a model that thinks first,
// and the same load past the gateway at the same time.
func (b *bench) measureLatency(ctx context.Context, v variant) error {
	w, err := b.open(ctx, v, b.slow, 1, false)
	if err != nil {
		return err
	}
	defer w.close()
	for n := 1; n <= latencySlots; n++ {
		if n > 1 {
			if _, err := w.fleet.Start(n - 1); err != nil {
				return err
			}
		}
		through := func(i int, due time.Time) answer { return w.ask(ctx, i%n, true, due) }
		past := func(_ int, due time.Time) answer { return w.client.ask(ctx, b.slow.URL, w.key, true, due) }
		warmUp := openLoop(ctx, perSecond, 2*b.warmUp, 0, through) // the ledger learns how fast money is spent
		direct := make(chan *tally, 1)
		go func() { direct <- openLoop(ctx, perSecond, b.latency, time.Second/perSecond/2, past) }()
		t := openLoop(ctx, perSecond, b.latency, 0, through)
		t.warmedBy(warmUp)
		p := b.latencies[name(v, n)]
		if p == nil {
			p = &pair{}
			b.latencies[name(v, n)] = p
		}
		p.through.join(t)
		p.direct.join(<-direct)
		b.say("latency, %s, processes %d: not served: %s", v.name, n, t.losses())
	}
	return ctx.Err()
}

// ask sends a request to the gateway in a slot.
func (w *world) ask(ctx context.Context, slot int, stream bool, due time.Time) answer {
	return w.client.ask(ctx, w.fleet.In(slot).URL, w.key, stream, due)
}
