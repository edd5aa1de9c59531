package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/costgate/costgate/e2e/figures"
)

// name finds what was measured of a variant.
func name(v variant, what any) string { return fmt.Sprint(v.name, ", ", what) }

func (b *bench) report() string {
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	commit := ""
	if b.commit != "" {
		commit = " (commit " + b.commit + ")"
	}
	line("%s, %s. Command: `%s` (rounds: %d, the variants in another order in each). The first form%s wrote the account's row by compare-and-swap twice per request; strict and overlap are this gateway's leases, by the product's `durability`.",
		time.Now().UTC().Format("2006-01-02"), figures.Machine(), b.command, b.rounds, commit)
	line("")
	line("Gateways, Azurite, clients and an upstream that answers in 1 ms share the cores. Azurite is one Node thread that keeps everything in memory, and it serves all processes: it bounds what more processes can add, and its latency is not Azure's. Compare the forms with each other, not the figures with a cloud's.")
	line("")
	b.reportThroughput(line)
	b.reportLatency(line)
	b.reportTransactions(line)
	return out.String()
}

type printer func(format string, args ...any)

func (b *bench) reportThroughput(line printer) {
	line("One product, %d clients in a closed loop over all processes, %v on a fresh Azurite each; medians of the rounds, in brackets the lowest and the highest:", clients, b.closed)
	line("")
	line("| processes | | requests/s | ratio to first | p50 ms | p99 ms | not served |")
	line("|--:|---|--:|--:|--:|--:|--:|")
	for _, n := range b.processes {
		base := float64(0)
		for i, v := range b.variants {
			rounds := b.throughput[name(v, n)]
			rate, low, high := figures.Median(rounds, (*tally).rate)
			p50, _, _ := figures.Median(rounds, func(t *tally) time.Duration { return figures.Percentile(t.whole, 50) })
			p99, _, _ := figures.Median(rounds, func(t *tally) time.Duration { return figures.Percentile(t.whole, 99) })
			all := &tally{}
			for _, t := range rounds {
				all.join(t)
			}
			if i == 0 {
				base = rate
			}
			line("| %d | %s | %.0f (%.0f-%.0f) | %s | %s | %s | %s |", n, v.name, rate, low, high, ratio(rate, base), figures.Milliseconds(p50), figures.Milliseconds(p99), all.losses())
		}
	}
	line("")
}

func ratio(a, b float64) string {
	if b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", a/b)
}

func (b *bench) reportLatency(line printer) {
	line("Added latency, ms: %d streams/s in an open loop over all processes, the first byte after %v and the last %v later; the same load past the gateway at the same time is subtracted, percentile by percentile, over all rounds:", perSecond, thinking, talking)
	line("")
	line("| processes | | first byte p50 | first byte p99 | whole p50 | whole p99 | requests | not served |")
	line("|--:|---|--:|--:|--:|--:|--:|--:|")
	for n := 1; n <= latencySlots; n++ {
		for _, v := range b.variants {
			p := b.latencies[name(v, n)]
			added := func(of func(*tally) []time.Duration, percent int) string {
				through, direct := of(&p.through), of(&p.direct)
				if len(through) == 0 || len(direct) == 0 {
					return ""
				}
				return figures.Milliseconds(figures.Percentile(through, percent) - figures.Percentile(direct, percent))
			}
			first, whole := func(t *tally) []time.Duration { return t.first }, func(t *tally) []time.Duration { return t.whole }
			line("| %d | %s | %s | %s | %s | %s | %d | %s |", n, v.name, added(first, 50), added(first, 99), added(whole, 50), added(whole, 99), len(p.through.whole), p.through.losses())
		}
	}
	line("")
}

func (b *bench) reportTransactions(line printer) {
	line("Calls of the table per 1,000 served requests: one process, counted by a proxy before Azurite from the first request until the lake has every record, heartbeats and polls included:")
	line("")
	line("| load | | transactions | reads | requests | requests/s | not served |")
	line("|--:|---|--:|--:|--:|--:|--:|")
	for _, l := range b.loads {
		for _, v := range b.variants {
			c := b.counted[name(v, l)]
			lost := c.losses()
			if c.behind > 0 {
				lost += fmt.Sprintf("; %d not in the lake", c.behind)
			}
			line("| %s | %s | %s | %s | %d | %.0f | %s |", l, v.name, perThousand(c.transactions, len(c.whole)), perThousand(c.reads, len(c.whole)), len(c.whole), c.rate(), lost)
		}
	}
}

func perThousand(n, of int) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", float64(n)*1000/float64(of))
}
