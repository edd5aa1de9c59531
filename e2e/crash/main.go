// Command crash proves the gateway's promises on real processes: several of
// them on one table are killed, frozen and cut off from it, under load, and what
// the books say in the end is compared with the upstream's own bill.
//
// It prints what it saw, and ends with 1 if a promise was broken.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/costgate/costgate/e2e/fleet"
)

// trial is what the scenarios share.
type trial struct {
	binary, azurite string
	length          time.Duration
	faults          bool
	verbose         bool
	broken          []string
	requests        int      // of the scenarios hub
	env             []string // settings of the scenario
	embedded        bool     // each gateway has a store of its own
}

func main() {
	t := &trial{}
	flag.StringVar(&t.binary, "gateway", "./gateway", "the gateway's binary")
	flag.StringVar(&t.azurite, "azurite", filepath.FromSlash("e2e/node_modules/azurite/dist/src/table/main.js"), "Azurite's table service; make deps installs it")
	minutes := flag.Float64("minutes", 10, "length of the scenario kill")
	flag.BoolVar(&t.faults, "faults", false, "scenario kill: Azurite behind a proxy that drops, delays and repeats")
	flag.BoolVar(&t.verbose, "v", false, "show the gateways' standard error")
	flag.IntVar(&t.requests, "requests", hubRequests, "scenarios hub: requests")
	scenarios := flag.String("scenario", "kill", "kill, endgame, stop, linear, hub, hub-embedded, outage; several with commas")
	flag.Parse()
	t.length = time.Duration(*minutes * float64(time.Minute))
	if whole, err := filepath.Abs(t.azurite); err == nil { // it is started in another folder
		t.azurite = whole
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	known := map[string]func(context.Context) error{"kill": t.kill, "endgame": t.endgame, "stop": t.stop, "linear": t.linear,
		"hub": t.hub, "hub-embedded": t.hubEmbedded, "outage": t.outage}
	for name := range strings.SplitSeq(*scenarios, ",") {
		run := known[name]
		if run == nil {
			fmt.Fprintf(os.Stderr, "crash: no scenario %q\n", name)
			os.Exit(2)
		}
		fmt.Printf("== %s (%d cores)\n", name, runtime.NumCPU())
		if err := run(ctx); err != nil {
			t.fail("%s: %v", name, err)
		}
	}
	if len(t.broken) > 0 {
		fmt.Printf("BROKEN: %d\n", len(t.broken))
		for _, what := range t.broken[:min(len(t.broken), 30)] {
			fmt.Println("  " + what)
		}
		os.Exit(1) //nolint:gocritic // nothing is left to clean up
	}
	fmt.Println("all promises held")
}

func (t *trial) fail(format string, args ...any) {
	t.broken = append(t.broken, fmt.Sprintf(format, args...))
}

// world is the parts of one scenario.
type world struct {
	*trial
	fleet    *fleet.Fleet
	upstream *fleet.Upstream
	proxy    *fleet.FaultProxy
	load     *load
	close    func()
}

// open starts Azurite and an upstream, and n gateways.
func (t *trial) open(n int, prices fleet.Prices, shape func(int64) (int64, int64, time.Duration)) (*world, error) {
	scratch, err := os.MkdirTemp("", "costgate-crash-")
	if err != nil {
		return nil, err
	}
	url, stop, err := fleet.Azurite(t.azurite)
	if err != nil {
		return nil, err
	}
	w := &world{trial: t}
	if w.proxy, err = fleet.StartFaultProxy(url); err != nil {
		return nil, err
	}
	if w.upstream, err = fleet.StartUpstream(prices, shape); err != nil {
		return nil, err
	}
	if t.faults {
		url = w.proxy.URL
	}
	storage := fleet.Connection(url)
	if t.embedded {
		storage = ""
	}
	w.fleet = fleet.New(fleet.Options{
		Binary: t.binary, Storage: storage, Scratch: scratch, Verbose: t.verbose,
		Env: append([]string{"AZURE_OPENAI_ENDPOINT=" + w.upstream.URL, "AZURE_OPENAI_API_KEY=upstream", "PRICES_FILE=" + prices.File()}, t.env...),
	})
	w.load = newLoad(w.fleet)
	w.close = func() {
		w.fleet.Stop()
		stop()
		_ = os.RemoveAll(scratch)
	}
	for i := range n {
		if _, err := w.fleet.Start(i); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}
