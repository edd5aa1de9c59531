package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/costgate/costgate/e2e/figures"
)

func (b *bench) report(fsync time.Duration) string {
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	line("%s, %s. Command: `make bench` (`%s`). Medians of %d rounds; in brackets the lowest and the highest. Making 4 KiB durable takes this disk %s ms.",
		time.Now().UTC().Format("2006-01-02"), figures.Machine(), strings.Join(append([]string{"bench"}, os.Args[1:]...), " "), b.rounds, figures.Milliseconds(fsync))
	line("")
	line("Closed loop, chat of %d bytes, %v each:", len(chatBody), b.span)
	line("")
	line("| | c | requests/s | p50 ms | p99 ms | added p50 ms | CPU ms per 1,000 requests | ratio to bare | peak RSS MB | errors |")
	line("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	for _, c := range []int{1, 32, 256} {
		var direct50 time.Duration
		var bareCPU float64
		for _, t := range b.targets {
			rounds := b.results[fmt.Sprint(t.name, " ", c)]
			rate, _, _ := figures.Median(rounds, func(r result) float64 { return r.rate })
			p50, _, _ := figures.Median(rounds, func(r result) time.Duration { return r.p50 })
			p99, _, _ := figures.Median(rounds, func(r result) time.Duration { return r.p99 })
			cpu, low, high := figures.Median(rounds, func(r result) float64 { return float64(r.cpu.Milliseconds()) * 1000 / float64(r.requests) })
			rss, _, _ := figures.Median(rounds, func(r result) int64 { return r.rss })
			errors, _, most := figures.Median(rounds, func(r result) int { return r.errors })
			added, ratio := "", ""
			switch t.name {
			case "direct":
				direct50 = p50
			case "bare reverse proxy":
				bareCPU = cpu
				fallthrough
			default:
				added = figures.Milliseconds(p50 - direct50)
				if bareCPU > 0 {
					ratio = fmt.Sprintf("%.2f", cpu/bareCPU)
				}
			}
			line("| %s | %d | %.0f | %s | %s | %s | %.0f (%.0f-%.0f) | %s | %d | %d |",
				t.name, c, rate, figures.Milliseconds(p50), figures.Milliseconds(p99), added, cpu, low, high, ratio, rss>>20, max(errors, most))
		}
	}
	line("")
	line("%d streams of %d chunks %v apart, %d at a time:", b.streams, b.chunks, chunkDelay, streamsAtOnce)
	line("")
	line("| | first byte p50/p99 ms | whole p50/p99 ms | CPU ms per stream | µs per chunk | ratio to bare | peak RSS MB | truncated |")
	line("|---|--:|--:|--:|--:|--:|--:|--:|")
	var bareCPU float64
	for _, t := range b.targets {
		rounds := b.streamed[t.name]
		d := func(of func(streamResult) time.Duration) string {
			m, _, _ := figures.Median(rounds, of)
			return figures.Milliseconds(m)
		}
		cpu, low, high := figures.Median(rounds, func(r streamResult) float64 { return float64(r.cpu.Milliseconds()) / float64(r.streams) })
		rss, _, _ := figures.Median(rounds, func(r streamResult) int64 { return r.rss })
		truncated, all := 0, 0
		for _, r := range rounds {
			truncated, all = truncated+r.truncated, all+r.streams
		}
		ratio := ""
		if t.name == "bare reverse proxy" {
			bareCPU = cpu
		}
		if t.name != "direct" && bareCPU > 0 {
			ratio = fmt.Sprintf("%.2f", cpu/bareCPU)
		}
		line("| %s | %s / %s | %s / %s | %.2f (%.2f-%.2f) | %.1f | %s | %d | %d of %d |", t.name,
			d(func(r streamResult) time.Duration { return r.first50 }), d(func(r streamResult) time.Duration { return r.first99 }),
			d(func(r streamResult) time.Duration { return r.total50 }), d(func(r streamResult) time.Duration { return r.total99 }),
			cpu, low, high, cpu*1000/float64(b.chunks), ratio, rss>>20, truncated, all)
	}
	return out.String()
}
