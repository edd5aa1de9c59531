package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	askMax    = 30 * time.Second      // longer than the gateway waits for its books
	afterLoss = 20 * time.Millisecond // a refused client does not ask again at once
)

var chatBody, streamBody = body(false), body(true)

func body(stream bool) string {
	doc, err := json.Marshal(map[string]any{
		"model": "trial", "max_tokens": 100, "stream": stream,
		"messages": []map[string]string{{"role": "user", "content": "Say something about the weather in the city of Lisbon."}},
	})
	if err != nil {
		panic(err)
	}
	return string(doc)
}

// answer is what became of a request.
type answer struct {
	first, whole time.Duration // until the first byte, and until the end
	loss         string        // why it was not served; empty: it was
}

type client struct{ http *http.Client }

func newClient() *client {
	return &client{&http.Client{Timeout: askMax, Transport: &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}}}
}

// ask sends a request and reads the whole answer. Time counts from when the
// request was due, so that one that had to wait for its turn shows it.
func (c *client) ask(ctx context.Context, url, key string, stream bool, due time.Time) (a answer) {
	content := chatBody
	if stream {
		content = streamBody
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/openai/v1/chat/completions", strings.NewReader(content))
	if err != nil {
		return answer{loss: err.Error()}
	}
	r.Header.Set("Api-Key", key)
	r.Header.Set("Content-Type", "application/json")
	got, err := c.http.Do(r)
	if err != nil {
		return answer{loss: "no answer"}
	}
	defer got.Body.Close()
	head := make([]byte, 1)
	_, err = io.ReadFull(got.Body, head)
	a.first = time.Since(due)
	if err != nil {
		return answer{loss: "empty answer"}
	}
	rest, err := io.ReadAll(got.Body)
	a.whole = time.Since(due)
	switch {
	case got.StatusCode != http.StatusOK:
		var envelope struct{ Error struct{ Code string } }
		_ = json.Unmarshal(append(head, rest...), &envelope) // without a code the status must do
		a.loss = strings.TrimSpace(fmt.Sprint(got.StatusCode, " ", envelope.Error.Code))
	case err != nil || (stream && !bytes.HasSuffix(rest, []byte("data: [DONE]\n\n"))):
		a.loss = "cut"
	}
	return a
}

// tally is what became of the requests of a measurement.
type tally struct {
	mu           sync.Mutex
	first, whole []time.Duration // of what was served, sorted when the loop has ended
	lost         map[string]int
	took         time.Duration
}

func (t *tally) add(a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.loss != "" {
		t.lose(a.loss, 1)
		return
	}
	t.first, t.whole = append(t.first, a.first), append(t.whole, a.whole)
}

// join adds another measurement's requests.
func (t *tally) join(more *tally) {
	t.first, t.whole, t.took = append(t.first, more.first...), append(t.whole, more.whole...), t.took+more.took
	for why, n := range more.lost {
		t.lose(why, n)
	}
	t.sort()
}

// warmedBy adds what was not served before counting began: it shall not be hidden.
func (t *tally) warmedBy(warmUp *tally) {
	for why, n := range warmUp.lost {
		t.lose("warm-up: "+why, n)
	}
}

func (t *tally) lose(why string, n int) {
	if t.lost == nil {
		t.lost = map[string]int{}
	}
	t.lost[why] += n
}

func (t *tally) sort() {
	slices.Sort(t.first)
	slices.Sort(t.whole)
}

// rate is how many were served per second.
func (t *tally) rate() float64 {
	if t.took == 0 {
		return 0
	}
	return float64(len(t.whole)) / t.took.Seconds()
}

// losses lists what was not served.
func (t *tally) losses() string {
	if len(t.lost) == 0 {
		return "0"
	}
	var all []string
	for _, why := range slices.Sorted(maps.Keys(t.lost)) {
		all = append(all, fmt.Sprintf("%d (%s)", t.lost[why], why))
	}
	return strings.Join(all, ", ")
}

// closedLoop runs n clients that each ask again as soon as they are answered.
func closedLoop(ctx context.Context, n int, span time.Duration, ask func(client int) answer) *tally {
	t := &tally{}
	began := time.Now()
	var parts sync.WaitGroup
	for i := range n {
		parts.Go(func() {
			for time.Since(began) < span && ctx.Err() == nil {
				a := ask(i)
				if t.add(a); a.loss != "" {
					pause(ctx, afterLoss)
				}
			}
		})
	}
	parts.Wait()
	t.took = time.Since(began)
	t.sort()
	return t
}

// openLoop asks at a fixed rate, whether or not there were answers, offset after
// now. What runs at a time is bounded by how long a request may take.
func openLoop(ctx context.Context, perSecond int, span, offset time.Duration, ask func(n int, due time.Time) answer) *tally {
	t := &tally{}
	began := time.Now().Add(offset)
	var parts sync.WaitGroup
	for i := 0; ; i++ {
		after := time.Duration(i) * time.Second / time.Duration(perSecond)
		due := began.Add(after)
		if after >= span || ctx.Err() != nil {
			break
		}
		pause(ctx, time.Until(due))
		parts.Go(func() { t.add(ask(i, due)) })
	}
	pause(ctx, time.Until(began.Add(span))) // the last one has its interval too
	parts.Wait()
	t.took = time.Since(began)
	t.sort()
	return t
}

// pause spaces requests: load, not waiting for something.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
