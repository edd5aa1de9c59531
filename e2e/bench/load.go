package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/costgate/costgate/e2e/figures"
)

// result is one closed-loop measurement.
type result struct {
	requests int
	errors   int
	rate     float64 // per second
	p50, p99 time.Duration
	cpu      time.Duration // of the target's process, for all requests
	rss      int64         // highest, bytes
}

type streamResult struct {
	first50, first99, total50, total99 time.Duration
	cpu                                time.Duration // for all streams
	streams, truncated                 int
	rss                                int64
}

func newClient(connections int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true}}
}

func (t *target) request(ctx context.Context, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+"/openai/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Api-Key", t.key)
	r.Header.Set("Content-Type", "application/json")
	return r, nil
}

// closed runs c clients that each ask again as soon as they are answered.
func (b *bench) closed(ctx context.Context, t *target, c int) error {
	client := newClient(c)
	defer client.CloseIdleConnections()
	once := func() (time.Duration, error) {
		r, err := t.request(ctx, chatBody)
		if err != nil {
			return 0, err
		}
		start := time.Now()
		answer, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		n, err := io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if err == nil && (answer.StatusCode != http.StatusOK || n == 0) {
			err = fmt.Errorf("%s: %s", t.name, answer.Status)
		}
		return time.Since(start), err
	}
	loop := func(span time.Duration) (all []time.Duration, failed int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		stop := time.Now().Add(span)
		for range c {
			wg.Go(func() {
				var own []time.Duration
				bad := 0
				for time.Now().Before(stop) && ctx.Err() == nil {
					if d, err := once(); err != nil {
						bad++
					} else {
						own = append(own, d)
					}
				}
				mu.Lock()
				all, failed = append(all, own...), failed+bad
				mu.Unlock()
			})
		}
		wg.Wait()
		return all, failed
	}
	loop(b.span / 5) // warm-up
	resetPeak(t.process)
	before, start := cpuOf(t.process), time.Now()
	all, failed := loop(b.span)
	took := time.Since(start)
	if len(all) == 0 {
		return errors.Join(fmt.Errorf("%s answered nothing at c=%d", t.name, c), ctx.Err())
	}
	slices.Sort(all)
	key := fmt.Sprint(t.name, " ", c)
	b.results[key] = append(b.results[key], result{
		requests: len(all), errors: failed, rate: float64(len(all)) / took.Seconds(), p50: figures.Percentile(all, 50), p99: figures.Percentile(all, 99),
		cpu: cpuOf(t.process) - before, rss: peakOf(t.process),
	})
	return nil
}

const (
	streamsAtOnce = 64
	chunkDelay    = 5 * time.Millisecond
)

// stream runs paced streams, 64 at a time.
func (b *bench) stream(ctx context.Context, t *target) error {
	client := newClient(streamsAtOnce)
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var first, total []time.Duration
	truncated := 0
	work := make(chan struct{}, b.streams)
	for range b.streams {
		work <- struct{}{}
	}
	close(work)
	resetPeak(t.process)
	before := cpuOf(t.process)
	for range streamsAtOnce {
		wg.Go(func() {
			for range work {
				head, whole, ok := b.oneStream(ctx, client, t)
				mu.Lock()
				if ok {
					first, total = append(first, head), append(total, whole)
				} else {
					truncated++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(total) == 0 {
		return errors.Join(fmt.Errorf("%s finished no stream", t.name), ctx.Err())
	}
	slices.Sort(first)
	slices.Sort(total)
	b.streamed[t.name] = append(b.streamed[t.name], streamResult{
		first50: figures.Percentile(first, 50), first99: figures.Percentile(first, 99), total50: figures.Percentile(total, 50), total99: figures.Percentile(total, 99),
		cpu: cpuOf(t.process) - before, streams: len(total) + truncated, truncated: truncated, rss: peakOf(t.process),
	})
	return nil
}

func (b *bench) oneStream(ctx context.Context, client *http.Client, t *target) (first, total time.Duration, ok bool) {
	r, err := t.request(ctx, streamBody)
	if err != nil {
		return 0, 0, false
	}
	r.Header.Set("X-Simulator-Completion-Tokens", strconv.Itoa(b.chunks))
	r.Header.Set("X-Simulator-Chunk-Delay-Us", strconv.FormatInt(chunkDelay.Microseconds(), 10))
	r.Body = io.NopCloser(bytes.NewReader(bytes.Replace(streamBody, []byte(`"max_tokens":100`), []byte(`"max_tokens":`+strconv.Itoa(b.chunks)), 1)))
	r.ContentLength = -1
	r.GetBody = nil
	start := time.Now()
	answer, err := client.Do(r)
	if err != nil {
		return 0, 0, false
	}
	defer answer.Body.Close()
	buffer := make([]byte, 32<<10)
	var tail []byte
	for {
		n, err := answer.Body.Read(buffer)
		if n > 0 && first == 0 {
			first = time.Since(start)
		}
		tail = append(tail, buffer[:n]...)
		tail = tail[max(0, len(tail)-32):]
		if err != nil {
			return first, time.Since(start), err == io.EOF && bytes.HasSuffix(tail, []byte("data: [DONE]\n\n"))
		}
	}
}

const ticksPerSecond = 100 // Linux says so to every program

// cpuOf is the processor time that a process has used.
func cpuOf(p *os.Process) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
	if err != nil {
		return 0
	}
	return parseCPU(string(stat))
}

func parseCPU(stat string) time.Duration {
	_, rest, _ := strings.Cut(stat, ") ") // the name may have blanks
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticksPerSecond
}

// peakOf is the most memory that a process had since resetPeak.
func peakOf(p *os.Process) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
	if err != nil {
		return 0
	}
	return parsePeak(string(status))
}

func parsePeak(status string) int64 {
	_, rest, ok := strings.Cut(status, "VmHWM:")
	if !ok {
		return 0
	}
	fields := strings.Fields(rest)
	kib, _ := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10
}

func resetPeak(p *os.Process) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.Pid), []byte("5"), 0) // without it the peak is that of the whole run
}
