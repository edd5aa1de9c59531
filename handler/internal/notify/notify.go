// Package notify tells a receiver, by webhook, of each share of a budget that a
// product's spending has reached: signed as Standard Webhooks 1.0 says, at least
// once, under one id however often and by whichever process.
//
// What is to be told is in the ledger's tables until it was told, so a process
// may die at any moment. Any process tells what is due; a claim in the row keeps
// two from telling the same at once. A claim runs out by the store's clock.
package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// Limits of deliveries.
const (
	CallMax        = 15 * time.Second // of one delivery, the answer's head included
	ClaimFor       = 20 * time.Second // more than CallMax: nobody else delivers meanwhile
	BackoffFirst   = time.Second      // after the first failure; it doubles
	BackoffLongest = 15 * time.Minute
	RetryAfterMax  = time.Hour      // that a receiver may ask for
	GiveUpAfter    = 24 * time.Hour // since the crossing: the next failure is the last one
	Grace          = 5 * time.Second
	ParallelMax    = 4    // deliveries of one process at a time
	answerBytesMax = 4096 // that are read of an answer; nothing of it is used
	storeMax       = 5 * time.Second
	storeTriesMax  = 3
	sleepLeast     = 100 * time.Millisecond
)

// What becomes of a crossing, in its row and as the outcome that Count counts.
const (
	Delivered = "delivered"
	Gone      = "gone"     // the receiver answered 410
	GivenUp   = "given_up" // it failed for GiveUpAfter
	Failed    = "failed"   // one delivery; there will be another one
)

// Ledger is what a Notifier needs of the books.
type Ledger interface {
	WaitingCrossings(ctx context.Context) ([]ledger.WaitingCrossing, error)
	ClaimCrossing(ctx context.Context, w ledger.WaitingCrossing, d time.Duration) (*ledger.Crossing, error)
	PostponeCrossing(ctx context.Context, c *ledger.Crossing, d time.Duration) error
	EndCrossing(ctx context.Context, c *ledger.Crossing, outcome string) error
}

// Options are the parts of a Notifier.
type Options struct {
	Ledger   Ledger
	URL      *url.URL        // see ParseURL
	Key      []byte          // see ParseSecret
	Interval time.Duration   // between two looks for what others have not told; 10 s
	Wake     <-chan struct{} // there is something new; may be nil
	Now      func() time.Time
	Log      *slog.Logger
	Count    func(outcome string) // may be nil

	Transport http.RoundTripper // default: the system's roots, the environment's proxy
}

// Notifier delivers what waits. Run does it all the time, Look once.
type Notifier struct {
	options Options
	turn    chan struct{} // capacity 1: one look at a time
}

// New makes a Notifier. It sends through the transport itself, so no redirect is
// followed: it delivers to the address that the operator has named, and to no other.
func New(o Options) *Notifier {
	if o.Interval <= 0 {
		o.Interval = 10 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Count == nil {
		o.Count = func(string) {}
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:    5 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    ParallelMax,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	return &Notifier{options: o, turn: make(chan struct{}, 1)}
}

// Run delivers what is due until ctx ends. What is on its way then has the time of
// Grace.
func (n *Notifier) Run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		next, err := n.look(ctx)
		if err != nil && ctx.Err() == nil {
			failures++
			if failures == 1 {
				n.options.Log.Warn("notifications wait: the table cannot be read", "error", err)
			}
		} else {
			failures = 0
		}
		timer := time.NewTimer(max(next, sleepLeast))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-n.options.Wake:
		}
		timer.Stop()
	}
}

// Look delivers what is due now: a process that is woken for a moment only may
// not live until Run's next look.
func (n *Notifier) Look(ctx context.Context) error {
	_, err := n.look(ctx)
	return err
}

// look delivers what is due, and returns when the next look is.
func (n *Notifier) look(ctx context.Context) (next time.Duration, err error) {
	next = n.options.Interval
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return next, ctx.Err()
	}
	waiting, err := n.options.Ledger.WaitingCrossings(ctx)
	if err != nil {
		return next, err
	}
	var (
		tasks sync.WaitGroup
		mu    sync.Mutex
		slots = make(chan struct{}, ParallelMax)
	)
	for _, w := range waiting {
		if w.In > 0 {
			mu.Lock()
			next = min(next, w.In)
			mu.Unlock()
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		tasks.Go(func() {
			defer func() { <-slots }()
			again := n.deliver(ctx, w)
			mu.Lock()
			next = min(next, again)
			mu.Unlock()
		})
	}
	tasks.Wait()
	return next, ctx.Err()
}

// deliver claims a crossing and tells it once. It returns when to look again. If
// ctx ends meanwhile the delivery may go on for a while, and what became of it is
// stored.
func (n *Notifier) deliver(ctx context.Context, w ledger.WaitingCrossing) (again time.Duration) {
	calling, hangUp := context.WithTimeout(context.WithoutCancel(ctx), CallMax)
	defer hangUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(Grace, hangUp) })()
	ctx = context.WithoutCancel(ctx)
	claiming, cancel := context.WithTimeout(ctx, storeMax)
	c, err := n.options.Ledger.ClaimCrossing(claiming, w, ClaimFor)
	cancel()
	if err != nil {
		n.options.Log.Info("a notification waits: it cannot be claimed", "error", err)
		return ClaimFor // the claim may have happened
	}
	if c == nil {
		return ClaimFor
	}
	result := n.post(calling, c)
	log := n.options.Log.With("product_id", c.ProductID, "period", c.Period, "share_ppm", c.AtPPM, "notification", c.ID, "attempts", c.Attempts)
	outcome := n.judge(c, result)
	n.options.Count(outcome)
	switch outcome {
	case Delivered:
		log.Info("a notification was delivered")
	case Gone:
		log.Error("a notification was dropped: the receiver answers 410, it wants no more; unset NOTIFY_WEBHOOK_URL, or correct it")
	case GivenUp:
		log.Error("a notification was given up: it could not be delivered for a day", "error", result.err)
	default:
		wait := result.wait(c.Attempts)
		level := slog.LevelInfo
		if c.Attempts == 1 || c.Attempts%10 == 0 {
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "a notification was not delivered and is tried again", "error", result.err, "seconds", int64(wait/time.Second))
		if err := n.stored(ctx, func(ctx context.Context) error { return n.options.Ledger.PostponeCrossing(ctx, c, wait) }); err != nil {
			return ClaimFor
		}
		return wait
	}
	if err := n.stored(ctx, func(ctx context.Context) error { return n.options.Ledger.EndCrossing(ctx, c, outcome) }); err != nil {
		log.Warn("what became of a notification cannot be stored; it will be sent again", "error", err)
		return ClaimFor
	}
	return n.options.Interval
}

// stored changes a row, with a few tries: the store may be away for a moment.
func (n *Notifier) stored(ctx context.Context, change func(context.Context) error) (err error) {
	for range storeTriesMax {
		try, cancel := context.WithTimeout(ctx, storeMax)
		err = change(try)
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

// result is how a delivery ended.
type result struct {
	status     int // 0: no answer
	retryAfter time.Duration
	err        error // nil: it was taken
}

func (n *Notifier) judge(c *ledger.Crossing, r result) string {
	switch {
	case r.err == nil:
		return Delivered
	case r.status == http.StatusGone:
		return Gone
	case n.options.Now().Sub(c.Time) >= GiveUpAfter:
		return GivenUp
	}
	return Failed
}

// wait is how long after a failure the next delivery is: doubling, with jitter;
// longer if the receiver asks for it.
func (r result) wait(attempts int) time.Duration {
	wait := min(BackoffFirst<<min(attempts-1, 20), BackoffLongest)
	wait = wait/2 + rand.N(wait/2+1)
	return max(wait, min(r.retryAfter, RetryAfterMax))
}

var errRefused = errors.New("the receiver answered")

// post makes one delivery. Nothing of the answer but its status counts. Errors
// name neither the address nor the answer: both may have secrets.
func (n *Notifier) post(ctx context.Context, c *ledger.Crossing) result {
	content, err := body(c)
	if err != nil {
		return result{err: err}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.options.URL.String(), bytes.NewReader(content))
	if err != nil {
		return result{err: errors.New("the address cannot be used")}
	}
	now := n.options.Now().Unix()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "costgate")
	r.Header.Set(HeaderID, c.ID)
	r.Header.Set(HeaderTimestamp, strconv.FormatInt(now, 10))
	r.Header.Set(HeaderSignature, sign(n.options.Key, c.ID, now, content))
	answer, err := n.options.Transport.RoundTrip(r)
	if err != nil {
		return result{err: err}
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, answerBytesMax) // so that the connection can be used again
	if answer.StatusCode/100 == 2 {
		return result{status: answer.StatusCode}
	}
	return result{
		status: answer.StatusCode, retryAfter: n.retryAfter(answer.Header.Get("Retry-After")),
		err: fmt.Errorf("%w %d", errRefused, answer.StatusCode),
	}
}

func (n *Notifier) retryAfter(text string) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(seconds, 0), int(RetryAfterMax/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(n.options.Now()))
	}
	return 0
}
