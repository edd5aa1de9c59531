package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/costgate/costgate/e2e/fleet"
)

// product is one that the load uses.
type product struct {
	key, id string
	overlap bool

	mu       sync.Mutex
	budgeted []budgeted
}

// budgeted is money that a product was given: at is when that was asked for.
type budgeted struct {
	at     time.Time
	amount int64
}

func (p *product) give(at time.Time, amount int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budgeted = append(p.budgeted, budgeted{at, amount})
}

func (p *product) budget() (sum int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.budgeted {
		sum += b.amount
	}
	return sum
}

// attempt is one request of a client.
type attempt struct {
	user       string
	product    *product
	gateway    *fleet.Gateway
	start, end time.Time
	status     int // 0: no answer
	code       string
	whole      bool // the answer was complete
}

// load sends requests and remembers each.
type load struct {
	fleet  *fleet.Fleet
	client *http.Client

	mu       sync.Mutex
	attempts map[string]*attempt
}

func newLoad(f *fleet.Fleet) *load {
	return &load{fleet: f, attempts: map[string]*attempt{}, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}}
}

// usable picks a gateway that runs, or nil.
func (l *load) usable(n int) *fleet.Gateway {
	for _, i := range rand.Perm(n) {
		if g := l.fleet.In(i); g != nil && g.Usable() {
			return g
		}
	}
	return nil
}

// send makes one request and waits for the end of its answer.
func (l *load) send(ctx context.Context, g *fleet.Gateway, p *product, maxTokens int64, stream bool) *attempt {
	l.mu.Lock()
	a := &attempt{user: fmt.Sprintf("a%d", len(l.attempts)), product: p, gateway: g, start: time.Now()}
	l.attempts[a.user] = a
	l.mu.Unlock()
	body := fmt.Sprintf(`{"model":"trial","user":%q,"max_tokens":%d,"stream":%v,"messages":[{"role":"user","content":"Say something about the weather in the city of Lisbon."}]}`, a.user, maxTokens, stream)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+"/openai/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Api-Key", p.key)
	r.Header.Set("Content-Type", "application/json")
	status, code, whole := 0, "", false
	if answer, err := l.client.Do(r); err == nil {
		status = answer.StatusCode
		code, whole = read(answer, stream)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a.end, a.status, a.code, a.whole = time.Now(), status, code, whole
	return a
}

func read(answer *http.Response, stream bool) (code string, whole bool) {
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK && stream {
		for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
			whole = whole || lines.Text() == "data: [DONE]"
		}
		return "", whole
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", false
	}
	var envelope struct{ Error struct{ Code string } }
	_ = json.Unmarshal(text, &envelope) // an answer without an error has no code
	return envelope.Error.Code, true
}

// all are the attempts so far; none of them may run any more.
func (l *load) all() map[string]*attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attempts
}

// newProduct makes a hard product through any gateway.
func (l *load) newProduct(ctx context.Context, g *fleet.Gateway, name string, budget int64, more map[string]any) (*product, error) {
	p := &product{key: fmt.Sprintf("trial-%s-%d-0123456789", name, rand.Int64())}
	body := map[string]any{"subscriptionKey": p.key, "productName": name, "amount": fleet.Dollars(budget)}
	for k, v := range more {
		body[k] = v
	}
	var view fleet.View
	p.give(time.Now(), budget)
	for try := 0; ; try++ {
		_, err := g.API(ctx, http.MethodPost, "/api/Quota", "create-"+p.key, body, &view)
		if err == nil {
			p.id = view.ProductID
			return p, nil
		}
		if try == 20 || ctx.Err() != nil {
			return nil, err
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// anywhere calls an api route on one gateway after the other until one answers
// 200: the Idempotency-Key makes it happen once.
func (l *load) anywhere(ctx context.Context, n int, method, path, name string, body, into any) error {
	var last error
	for ctx.Err() == nil {
		if g := l.usable(n); g != nil {
			status, err := g.API(ctx, method, path, name, body, into)
			if err == nil {
				return nil
			}
			if last = err; status >= 400 && status < 500 {
				return err
			}
		}
		pause(ctx, 100*time.Millisecond)
	}
	return errors.Join(ctx.Err(), last)
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

func between(low, high time.Duration) time.Duration {
	return low + time.Duration(rand.Int64N(int64(high-low)))
}
