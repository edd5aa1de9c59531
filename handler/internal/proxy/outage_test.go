package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// pipes is a network without sockets, so that a gateway fits into a bubble whose
// time is not the machine's.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p <- server
	return client, nil
}

// scripted is an upstream whose answers a test writes while they are read.
type scripted struct {
	status int
	header http.Header
	body   func(w *io.PipeWriter)
	calls  int
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	s.calls++
	reader, writer := io.Pipe()
	stop := context.AfterFunc(r.Context(), func() { _ = reader.CloseWithError(r.Context().Err()) })
	body := s.body
	go func() {
		defer stop()
		body(writer)
		_ = writer.Close()
	}()
	return &http.Response{StatusCode: s.status, Header: s.header, Body: cancelled{r.Context(), reader}, ContentLength: -1}, nil
}

// cancelled is a body that ends with its request's context, whatever has
// arrived, like that of net/http.
type cancelled struct {
	ctx context.Context
	*io.PipeReader
}

func (c cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.PipeReader.Read(p)
}

// answers makes upstream give an answer at once.
func (s *scripted) answers(status int, mediaType, body string) {
	s.status, s.header = status, http.Header{"Content-Type": {mediaType}}
	s.body = func(w *io.PipeWriter) { _, _ = io.WriteString(w, body) }
}

// blackHole is a store that can stop answering.
type blackHole struct {
	ledger.Store
	silent atomic.Bool
}

func (b *blackHole) lost(ctx context.Context) error {
	if !b.silent.Load() {
		return nil
	}
	<-ctx.Done()
	return fmt.Errorf("no answer: %w: %w", ledger.ErrUnavailable, ctx.Err())
}

func (b *blackHole) Get(ctx context.Context, partition, row string) (ledger.Entity, error) {
	if err := b.lost(ctx); err != nil {
		return ledger.Entity{}, err
	}
	return b.Store.Get(ctx, partition, row)
}

func (b *blackHole) Range(ctx context.Context, partition, from, to string, limit int) (ledger.Page, error) {
	if err := b.lost(ctx); err != nil {
		return ledger.Page{}, err
	}
	return b.Store.Range(ctx, partition, from, to, limit)
}

func (b *blackHole) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	if err := b.lost(ctx); err != nil {
		return nil, err
	}
	return b.Store.Apply(ctx, partition, ops)
}

// outage is a gateway whose store can fail.
type outage struct {
	t        *testing.T
	store    *memstore.Store
	hole     *blackHole
	ledger   *ledger.Ledger
	product  *quota.Product
	upstream *scripted
	network  pipes
	client   *http.Client
	server   *http.Server
}

// inOutage runs a test in a bubble.
func inOutage(t *testing.T, change func(p *quota.Product), test func(o *outage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := &outage{t: t, store: memstore.New(1, time.Now), upstream: &scripted{}, network: make(pipes)}
		o.hole = &blackHole{Store: o.store}
		o.ledger = ledger.New(o.hole, ledger.Options{Instance: "test"})
		var err error
		o.product, _, err = o.ledger.Create(t.Context(), quota.HashKey(productKey), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
			p := &quota.Product{
				ID: id, Name: "Test", Keys: []quota.Key{{ID: "k", Hash: quota.HashKey(productKey)}}, Unit: quota.UnitUSD, Budget: 1e12,
				Period: "month", TimeZone: "UTC", Enforcement: quota.EnforceHard, Disconnect: quota.DisconnectDrain, UnknownPrice: quota.UnknownReject,
			}
			change(p)
			return p, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		o.server = &http.Server{Handler: proxy.New(proxy.Options{Ledger: o.ledger, Upstream: o.upstream, Book: pricing.Builtin(), Trailers: true})}
		go func() { _ = o.server.Serve(o.network) }()
		transport := &http.Transport{DialContext: o.network.dial}
		o.client = &http.Client{Transport: transport}
		defer func() {
			o.down(false)
			o.hole.silent.Store(false)
			_ = o.ledger.Drain(context.Background()) // no task outlives the bubble
			transport.CloseIdleConnections()
			close(o.network)
			_ = o.server.Shutdown(context.Background())
		}()
		test(o)
	})
}

func (o *outage) down(down bool) { o.store.SetFaults(memstore.Faults{Down: down}) }

func (o *outage) chat(ctx context.Context, body string) (*http.Response, string, error) {
	return o.do(ctx, http.MethodPost, "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", body)
}

func (o *outage) do(ctx context.Context, method, path, body string) (*http.Response, string, error) {
	r, _ := http.NewRequestWithContext(ctx, method, "http://gateway"+path, strings.NewReader(body))
	r.Header.Set("Api-Key", productKey)
	answer, err := o.client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	return answer, string(got), err
}

// warm makes the ledger trust an overlap product with requests that it has not
// listed, and then takes the store away.
func (o *outage) warm() {
	o.t.Helper()
	o.upstream.answers(200, "application/json", chatAnswer)
	for range 9 {
		if answer, body, err := o.chat(o.t.Context(), hello); err != nil || answer.StatusCode != 200 {
			o.t.Fatal(answer, body, err)
		}
		time.Sleep(time.Millisecond) // records of one millisecond come in any order
	}
	o.upstream.calls = 0
	o.down(true)
}

// newest ends the outage and is the one record that the request left.
func (o *outage) newest() usage.Record {
	o.t.Helper()
	o.down(false)
	o.hole.silent.Store(false)
	time.Sleep(time.Minute)
	unsent, err := o.ledger.Unsent(o.t.Context(), 1000) // a lease stays while the lake does not have its records
	if err = errors.Join(err, o.ledger.Acknowledge(o.t.Context(), unsent), o.ledger.Drain(o.t.Context())); err != nil {
		o.t.Fatal(err)
	}
	records, _, err := o.ledger.History(o.t.Context(), o.product.ID, ledger.HistoryQuery{Limit: 1000})
	if err != nil || len(records) != 11 || records[0].Kind != usage.KindRequest { // 9, that one, and the Create
		o.t.Fatalf("%d records, %v", len(records), err)
	}
	a, err := o.ledger.Balance(o.t.Context(), o.product)
	if want := 9*chatCost + records[0].Charge.N; err != nil || a.Held != 0 || a.Spent != want {
		o.t.Errorf("account %+v, %v; spent %d", a, err, want)
	}
	return records[0]
}

func overlapping(p *quota.Product) { p.Durability = quota.DurabilityOverlap }

// TestDroppedAnswerIsSettledAtItsCost: a hold that was not made durable keeps the
// answer from the client, and nothing else: upstream bills it.
func TestDroppedAnswerIsSettledAtItsCost(t *testing.T) {
	stream := streamHead + streamUsage + streamEnd
	f := func(name, body string, upstream func(u *scripted, more <-chan struct{}), check func(t *testing.T, r usage.Record)) {
		t.Run(name, func(t *testing.T) {
			inOutage(t, overlapping, func(o *outage) {
				o.warm()
				more := make(chan struct{})
				upstream(o.upstream, more)
				began := time.Now()
				answer, got, err := o.chat(o.t.Context(), body)
				if err != nil {
					o.t.Fatal(err)
				}
				if took := time.Since(began); took > 16*time.Second {
					o.t.Errorf("answered after %v", took)
				}
				h := answer.Header
				if answer.StatusCode != 503 || errorCode(o.t, got) != "answer_dropped" || !strings.Contains(got, "charged") || strings.Contains(got, "not sent") ||
					h.Get("x-should-retry") != "false" || !answer.Close {
					o.t.Errorf("%d %v %s", answer.StatusCode, h, got)
				}
				close(more) // the client has its answer; upstream's goes on
				r := o.newest()
				if r.ID != h.Get("x-costgate-request-id") || o.upstream.calls != 1 {
					o.t.Errorf("record %+v after %d calls", r, o.upstream.calls)
				}
				check(o.t, r)
			})
		})
	}
	rest := func(head, tail string) func(u *scripted, more <-chan struct{}) {
		return func(u *scripted, more <-chan struct{}) {
			mediaType := "application/json"
			if strings.HasPrefix(head, "data:") {
				mediaType = "text/event-stream"
			}
			u.answers(200, mediaType, "")
			u.body = func(w *io.PipeWriter) {
				_, _ = io.WriteString(w, head)
				<-more
				_, _ = io.WriteString(w, tail)
				if tail == "" {
					_ = w.CloseWithError(errors.New("reset"))
				}
			}
		}
	}
	whole := func(t *testing.T, r usage.Record) {
		t.Helper()
		if r.UsageSource != "provider" || r.CostNanoUSD != usage.Of(chatCost) || r.Charge != usage.Of(chatCost) || r.Outcome != "client_gone" {
			t.Errorf("record %+v", r)
		}
	}
	broken := func(charge usage.Text) func(t *testing.T, r usage.Record) {
		return func(t *testing.T, r usage.Record) {
			t.Helper()
			if r.UsageSource != "estimate" || r.Outcome != "upstream_error" || r.Charge.N == 0 || (r.Charge == r.HoldNanoUSD) != (charge == "hold") {
				t.Errorf("record %+v", r)
			}
		}
	}
	f("stream", streamed+`}`, rest(streamHead, streamUsage+streamEnd), whole)
	f("stream without a byte yet", streamed+`}`, func(u *scripted, more <-chan struct{}) {
		rest(stream, "")(u, more)
		u.body = func(w *io.PipeWriter) { <-more; _, _ = io.WriteString(w, stream) }
	}, whole)
	f("body", hello, rest(chatAnswer[:20], chatAnswer[20:]), whole)
	f("large body", hello, rest(chatAnswer[:len(chatAnswer)-1], `,"more":"`+strings.Repeat("x", 2<<20)+`"}`), whole)
	f("broken stream", streamed+`}`, rest(streamHead, ""), broken("seen"))
	f("broken body", hello, rest(chatAnswer[:20], ""), broken("hold"))
	f("broken large body", hello, rest(`{"more":"`+strings.Repeat("x", 2<<20), ""), broken("hold"))
	f("error", hello, func(u *scripted, _ <-chan struct{}) {
		u.answers(429, "application/json", `{"error":{"code":"429","message":"`+strings.Repeat("x", 2<<20)+`"}}`)
	}, func(t *testing.T, r usage.Record) {
		t.Helper()
		if r.UsageSource != "none" || r.Charge != usage.Of(0) || r.Status != usage.Of(429) {
			t.Errorf("record %+v", r)
		}
	})
}

// TestDroppedAnswerOutlivesItsClient: whoever got the 503 may leave, whatever the
// product wants then; only an answer without end is left.
func TestDroppedAnswerOutlivesItsClient(t *testing.T) {
	cancelling := func(p *quota.Product) { overlapping(p); p.Disconnect = quota.DisconnectCancel }
	inOutage(t, cancelling, func(o *outage) {
		o.warm()
		o.upstream.answers(200, "text/event-stream", "")
		o.upstream.body = func(w *io.PipeWriter) {
			_, _ = io.WriteString(w, streamHead)
			time.Sleep(4 * time.Minute)
			_, _ = io.WriteString(w, streamUsage+streamEnd)
		}
		if answer, got, err := o.chat(o.t.Context(), streamed+`}`); err != nil || answer.StatusCode != 503 {
			o.t.Fatal(answer, got, err)
		}
		time.Sleep(4 * time.Minute)
		if r := o.newest(); r.UsageSource != "provider" || r.Charge != usage.Of(chatCost) {
			o.t.Errorf("record %+v", r)
		}
	})
	inOutage(t, overlapping, func(o *outage) {
		o.warm()
		o.upstream.answers(200, "text/event-stream", "")
		o.upstream.body = func(w *io.PipeWriter) {
			for {
				if _, err := io.WriteString(w, streamHead); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		}
		if answer, got, err := o.chat(o.t.Context(), streamed+`}`); err != nil || answer.StatusCode != 503 {
			o.t.Fatal(answer, got, err)
		}
		time.Sleep(proxy.DrainMax + 20*time.Second)
		if r := o.newest(); r.UsageSource != "estimate" || r.LatencyMS.N > (proxy.DrainMax+20*time.Second).Milliseconds() {
			o.t.Errorf("record %+v", r)
		}
	})
}

// TestCancelledBeforeItIsDurable: the client left before anything was heard.
func TestCancelledBeforeItIsDurable(t *testing.T) {
	cancelling := func(p *quota.Product) { overlapping(p); p.Disconnect = quota.DisconnectCancel }
	for _, mediaType := range []string{"text/event-stream", "application/json"} {
		t.Run(mediaType, func(t *testing.T) {
			inOutage(t, cancelling, func(o *outage) {
				o.warm()
				o.upstream.answers(200, mediaType, "")
				sent := make(chan error, 1)
				o.upstream.body = func(w *io.PipeWriter) {
					_, err := io.WriteString(w, streamHead)
					sent <- err
				}
				ctx, cancel := context.WithCancel(o.t.Context())
				time.AfterFunc(5*time.Second, cancel)
				if _, _, err := o.chat(ctx, streamed+`}`); !errors.Is(err, context.Canceled) {
					o.t.Fatal(err)
				}
				if err := <-sent; !errors.Is(err, context.Canceled) {
					o.t.Errorf("upstream was read: %v", err)
				}
				if r := o.newest(); r.Outcome != "client_gone" || r.UsageSource != "estimate" || r.Charge != r.HoldNanoUSD || r.Charge.N == 0 {
					o.t.Errorf("record %+v", r)
				}
			})
		})
	}
}

// TestSoftProductGetsItsAnswer although its hold is not durable.
func TestSoftProductGetsItsAnswer(t *testing.T) {
	soft := func(p *quota.Product) { overlapping(p); p.Enforcement = quota.EnforceSoft }
	inOutage(t, soft, func(o *outage) {
		o.warm()
		o.upstream.answers(200, "text/event-stream", streamHead+streamUsage+streamEnd)
		began := time.Now()
		answer, got, err := o.chat(o.t.Context(), streamed+`}`)
		if err != nil || answer.StatusCode != 200 || got != streamHead+streamEnd {
			o.t.Fatal(answer, got, err)
		}
		if took := time.Since(began); took > 13*time.Second { // 2 s for the hold, 10 s for the settlement
			o.t.Errorf("took %v", took)
		}
		if r := o.newest(); r.UsageSource != "provider" || r.Charge != usage.Of(chatCost) || r.Outcome != "completed" {
			o.t.Errorf("record %+v", r)
		}
	})
}

// TestSoftProductGoesOn when nothing that is known of it is valid any more.
func TestSoftProductGoesOn(t *testing.T) {
	for _, silent := range []bool{false, true} {
		inOutage(t, func(p *quota.Product) { p.Enforcement = quota.EnforceSoft }, func(o *outage) {
			o.warm()
			o.down(!silent)
			o.hole.silent.Store(silent)
			time.Sleep(6 * time.Second)
			began := time.Now()
			answer, got, err := o.chat(o.t.Context(), hello)
			if err != nil || answer.StatusCode != 200 || got != chatAnswer {
				o.t.Fatal(answer, got, err)
			}
			if took := time.Since(began); took > 15*time.Second { // 2 s for the key, 2 s for the hold, 10 s for the settlement
				o.t.Errorf("took %v", took)
			}
			if r := o.newest(); r.UsageSource != "provider" || r.Charge != usage.Of(chatCost) || r.Outcome != "completed" {
				o.t.Errorf("record %+v", r)
			}
		})
	}
}

// TestHardProductInAnOutage: every route that needs the ledger says so in time,
// in the clients' own format, and nothing reaches upstream.
func TestHardProductInAnOutage(t *testing.T) {
	const continued = `{"model":"gpt-4o","input":"y","max_output_tokens":50,"previous_response_id":"resp_1"}`
	f := func(name string, known bool, fail func(o *outage, failing bool), first, later time.Duration) {
		t.Run(name, func(t *testing.T) {
			inOutage(t, func(*quota.Product) {}, func(o *outage) {
				o.upstream.answers(200, "application/json", chatAnswer)
				if known {
					if answer, body, err := o.chat(o.t.Context(), hello); err != nil || answer.StatusCode != 200 {
						o.t.Fatal(answer, body, err)
					}
				}
				o.upstream.calls = 0
				time.Sleep(6 * time.Second) // what was read is not valid any more
				fail(o, true)
				refused := func(bound time.Duration, method, path, body string) {
					o.t.Helper()
					began := time.Now()
					answer, got, err := o.do(o.t.Context(), method, path, body)
					if err != nil {
						o.t.Fatal(err)
					}
					if took := time.Since(began); took > bound {
						o.t.Errorf("%s %s: answered after %v", method, path, took)
					}
					h := answer.Header
					if answer.StatusCode != 503 || errorCode(o.t, got) != "ledger_unavailable" || !strings.Contains(got, "not sent") || h.Get("Retry-After") != "2" ||
						h.Get("x-should-retry") != "" || h.Get("Content-Type") != "application/json" {
						o.t.Errorf("%s %s: %d %v %s", method, path, answer.StatusCode, h, got)
					}
				}
				const chat = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
				refused(first, "POST", chat, hello)
				for range 3 {
					time.Sleep(2 * time.Second)
					refused(later, "POST", chat, hello)
				}
				refused(4*time.Second, "POST", "/openai/v1/responses", continued)
				refused(4*time.Second, "GET", "/openai/v1/responses/resp_1", "")
				if o.upstream.calls != 0 {
					o.t.Errorf("%d requests reached upstream", o.upstream.calls)
				}
				fail(o, false)
				time.Sleep(10 * time.Second)
				if answer, body, err := o.chat(o.t.Context(), hello); err != nil || answer.StatusCode != 200 {
					o.t.Error(answer, body, err)
				}
			})
		})
	}
	refuses := func(o *outage, failing bool) { o.down(failing) }
	silent := func(o *outage, failing bool) { o.hole.silent.Store(failing) }
	f("known, reads fail", true, refuses, 7*time.Second, 2*time.Second)
	f("unknown, reads fail", false, refuses, 0, 0)
	f("known, no answer", true, silent, 12*time.Second, 5*time.Second)
	f("unknown, no answer", false, silent, 3*time.Second, 3*time.Second)
}
