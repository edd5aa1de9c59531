package fleet

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Prices of the model "trial", in pico-dollars per token.
type Prices struct{ In, Out int64 }

// File is the gateway's PRICES_FILE for them.
func (p Prices) File() string {
	return fmt.Sprintf(`{"version":"trial","prices":[{"model":"trial","mode":"chat","pico_usd":{"in":%d,"out":%d}}]}`, p.In, p.Out)
}

// Bill is what upstream charges for one request.
type Bill struct {
	User               string // names the attempt: the gateway passes it on
	At                 time.Time
	Finished           time.Time // when the last byte was sent; zero: it never was
	Prompt, Completion int64
	Cost               int64 // nano-dollars
}

// Upstream answers chat requests like Azure OpenAI and keeps the bill. A request
// is billed in full when it comes, whatever becomes of its client.
type Upstream struct {
	URL    string
	prices Prices
	// Shape decides how many tokens an answer has and how long it takes.
	shape func(maxTokens int64) (prompt, completion int64, length time.Duration)

	mu    sync.Mutex
	bills []*Bill
	think time.Duration
}

// StartUpstream listens. It lives as long as the process.
func StartUpstream(p Prices, shape func(maxTokens int64) (prompt, completion int64, length time.Duration)) (*Upstream, error) {
	listener, err := Listen()
	if err != nil {
		return nil, err
	}
	u := &Upstream{URL: "http://" + listener.Addr().String(), prices: p, shape: shape}
	go func() { _ = http.Serve(listener, u) }() //nolint:gosec // on loopback, for the length of a trial
	return u, nil
}

// Think lets streams begin only after d from now on, as a model that reads its
// prompt does.
func (u *Upstream) Think(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.think = d
}

// Bills is the bill so far, in the order of arrival.
func (u *Upstream) Bills() []Bill {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make([]Bill, len(u.bills))
	for i, b := range u.bills {
		all[i] = *b
	}
	return all
}

// Count is how many requests were billed.
func (u *Upstream) Count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.bills)
}

type chatRequest struct {
	User      string `json:"user"`
	MaxTokens int64  `json:"max_tokens"`
	Stream    bool   `json:"stream"`
	Options   struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in chatRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b := &Bill{User: in.User, At: time.Now()}
	var length time.Duration
	b.Prompt, b.Completion, length = u.shape(in.MaxTokens)
	b.Cost = (b.Prompt*u.prices.In + b.Completion*u.prices.Out + 999) / 1000
	u.mu.Lock()
	u.bills = append(u.bills, b)
	think := u.think
	u.mu.Unlock()
	if u.answer(w, r, &in, b, think, length) == nil {
		u.mu.Lock()
		b.Finished = time.Now()
		u.mu.Unlock()
	}
}

const chunks = 8

func (u *Upstream) answer(w http.ResponseWriter, r *http.Request, in *chatRequest, b *Bill, think, length time.Duration) error {
	id := "chatcmpl-" + strconv.FormatUint(rand.Uint64(), 36)
	usage := fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, b.Prompt, b.Completion, b.Prompt+b.Completion)
	wait := func(d time.Duration) error {
		timer := time.NewTimer(d) // the model thinks
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	if !in.Stream {
		if err := wait(length); err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		_, err := fmt.Fprintf(w, `{"id":%q,"object":"chat.completion","created":1,"model":"trial","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"ok"}}],"usage":%s}`, id, usage)
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	if err := wait(think); err != nil {
		return err
	}
	send := func(format string, args ...any) error {
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return err
		}
		return out.Flush()
	}
	for range chunks {
		if err := send("data: {\"id\":%q,\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"trial\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"}}]}\n\n", id); err != nil {
			return err
		}
		if err := wait(length / chunks); err != nil {
			return err
		}
	}
	if in.Options.IncludeUsage {
		if err := send("data: {\"id\":%q,\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"trial\",\"choices\":[],\"usage\":%s}\n\n", id, usage); err != nil {
			return err
		}
	}
	return send("data: [DONE]\n\n")
}
