package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

const secret = "a secret of thirty characters.."

// answerFunc is a receiver: it gets the number of the delivery, from 1 on.
type answerFunc func(i int, r *http.Request) (*http.Response, error)

type delivery struct {
	at     time.Time
	header http.Header
	body   []byte
}

// receiver is an http.RoundTripper, so that time may be virtual.
type receiver struct {
	answer answerFunc
	mu     sync.Mutex
	got    []delivery
}

func (r *receiver) RoundTrip(request *http.Request) (*http.Response, error) {
	content, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.got = append(r.got, delivery{time.Now(), request.Header, content})
	i := len(r.got)
	r.mu.Unlock()
	return r.answer(i, request)
}

func status(code int, header ...string) (*http.Response, error) {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader("an answer"))}, nil
}

type world struct {
	t        *testing.T
	l        *ledger.Ledger
	store    *memstore.Store
	wake     chan struct{}
	receiver *receiver
	log      bytes.Buffer
	logger   *slog.Logger
	mu       sync.Mutex
	outcomes []string
}

func newWorld(t *testing.T, answer answerFunc) *world {
	w := &world{t: t, store: memstore.New(1, time.Now), wake: make(chan struct{}, 1), receiver: &receiver{answer: answer}}
	w.logger = slog.New(slog.NewTextHandler(&w.log, nil))
	w.l = ledger.New(w.store, ledger.Options{Instance: "a", OnCrossing: func() {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}})
	return w
}

func (w *world) notifier() *Notifier {
	address, err := ParseURL("https://hooks.example/costgate?token=path-secret")
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := ParseSecret(secret)
	if err != nil {
		w.t.Fatal(err)
	}
	return New(Options{
		Ledger: w.l, URL: address, Key: key, Wake: w.wake, Transport: w.receiver, Log: w.logger,
		Count: func(outcome string) { w.mu.Lock(); w.outcomes = append(w.outcomes, outcome); w.mu.Unlock() },
	})
}

func (w *world) spend(charge int64) {
	w.t.Helper()
	p, _, err := w.l.Create(w.t.Context(), quota.HashKey("a product key"), ledger.Once{}, func(id string, now time.Time) (*quota.Product, error) {
		return &quota.Product{
			ID: id, Name: "Team <A>", Keys: []quota.Key{{ID: "k", Hash: quota.HashKey("a product key"), Created: now}}, Unit: quota.UnitUSD,
			Budget: 12_500_000_000, Period: quota.PeriodMonth, TimeZone: "UTC", Enforcement: quota.EnforceHard, NotifyAtPPM: []int64{500_000, 1_000_000},
		}, nil
	})
	if err == nil {
		_, err = w.l.Charge(w.t.Context(), p, usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(charge), CostNanoUSD: usage.Of(charge)})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// run runs a notifier for a while.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	n := w.notifier()
	var done sync.WaitGroup
	done.Go(func() { n.Run(ctx) })
	time.Sleep(d)
	cancel()
	done.Wait()
}

func (w *world) waits() int {
	w.t.Helper()
	waiting, err := w.l.WaitingCrossings(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return len(waiting)
}

// TestDelivery: body, headers and signature, and what follows.
func TestDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(int, *http.Request) (*http.Response, error) { return status(204) })
		w.spend(6_250_000_001)
		w.run(time.Minute)
		if len(w.receiver.got) != 1 || w.waits() != 0 {
			t.Fatalf("%d deliveries, %d wait", len(w.receiver.got), w.waits())
		}
		d := w.receiver.got[0]
		var got map[string]any
		if err := json.Unmarshal(d.body, &got); err != nil {
			t.Fatal(err)
		}
		id, product := got["id"], got["product_id"]
		want := map[string]any{
			"id": id, "type": "costgate.budget.crossed", "timestamp": "2000-01-01T00:00:00.000Z", "product_id": product, "product": "Team <A>",
			"period": "2000-01", "period_start": "2000-01-01T00:00:00Z", "unit": "usd", "budget": "12.5", "spent": "6.250000001", "share": 0.5,
			"state": "open", "resets_at": "2000-02-01T00:00:00Z",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if d.header.Get(HeaderID) != id || d.header.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", d.header)
		}
		at, err := strconv.ParseInt(d.header.Get(HeaderTimestamp), 10, 64)
		if err != nil || !hmac.Equal([]byte(sign([]byte(secret), id.(string), at, d.body)), []byte(d.header.Get(HeaderSignature))) || at != d.at.Unix() {
			t.Errorf("signature %v", d.header)
		}
	})
}

// TestRetries: every answer but 2xx is a failure, the time between two deliveries
// doubles, the id and the body stay, and nothing secret is in the log.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const last = 14
		w := newWorld(t, func(i int, r *http.Request) (*http.Response, error) {
			switch i {
			case 1:
				return status(500)
			case 2:
				return nil, io.ErrUnexpectedEOF
			case 3:
				return status(302, "Location", "https://elsewhere.example/")
			case 4:
				return status(404)
			case 5: // hangs
				<-r.Context().Done()
				return nil, r.Context().Err()
			case last:
				return status(200)
			}
			return status(400)
		})
		w.spend(7_000_000_000)
		w.run(3 * time.Hour)
		got := w.receiver.got
		if len(got) != last || w.waits() != 0 {
			t.Fatalf("%d deliveries, %d wait", len(got), w.waits())
		}
		for i := 1; i < last; i++ {
			most := min(BackoffFirst<<(i-1), BackoffLongest)
			gap := got[i].at.Sub(got[i-1].at)
			if i == 5 {
				gap -= CallMax
			}
			if gap < most/2 || gap > most+sleepLeast {
				t.Errorf("delivery %d comes after %v, want %v to %v", i+1, gap, most/2, most)
			}
			if got[i].header.Get(HeaderID) != got[0].header.Get(HeaderID) || !bytes.Equal(got[i].body, got[0].body) {
				t.Errorf("delivery %d differs", i+1)
			}
			if got[i].header.Get(HeaderTimestamp) != strconv.FormatInt(got[i].at.Unix(), 10) {
				t.Errorf("delivery %d has the time of another one", i+1)
			}
		}
		if want := append(slices.Repeat([]string{Failed}, last-1), Delivered); !slices.Equal(w.outcomes, want) {
			t.Errorf("outcomes %v", w.outcomes)
		}
		for _, never := range []string{"path-secret", secret, "an answer", "v1,"} {
			if strings.Contains(w.log.String(), never) {
				t.Errorf("the log has %q", never)
			}
		}
	})
}

// TestGone: 410 ends it at once, with an error in the log.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(int, *http.Request) (*http.Response, error) { return status(410) })
		w.spend(7_000_000_000)
		w.run(time.Hour)
		if len(w.receiver.got) != 1 || w.waits() != 0 || !slices.Equal(w.outcomes, []string{Gone}) || !strings.Contains(w.log.String(), "level=ERROR") {
			t.Errorf("%d deliveries, %d wait, %v: %s", len(w.receiver.got), w.waits(), w.outcomes, &w.log)
		}
	})
}

// TestGivenUp: after a day of failures, with an error in the log; a notification
// that nobody could try for days is tried once all the same.
func TestGivenUp(t *testing.T) {
	f := func(asleep time.Duration, least, most int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(int, *http.Request) (*http.Response, error) { return status(503) })
			w.spend(7_000_000_000)
			synctest.Wait()
			time.Sleep(asleep)
			w.run(26 * time.Hour)
			if n := len(w.receiver.got); n < least || n > most || w.waits() != 0 || w.outcomes[n-1] != GivenUp || !strings.Contains(w.log.String(), "level=ERROR") {
				t.Errorf("%d deliveries, %d wait, %v", n, w.waits(), w.outcomes)
			}
		})
	}
	f(0, 100, 210)
	f(48*time.Hour, 1, 1)
}

// TestRetryAfter: the receiver may ask for more time, up to an hour.
func TestRetryAfter(t *testing.T) {
	f := func(text string, least, most time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(i int, _ *http.Request) (*http.Response, error) {
				if i > 1 {
					return status(200)
				}
				return status(429, "Retry-After", text)
			})
			w.spend(7_000_000_000)
			w.run(2 * time.Hour)
			if len(w.receiver.got) != 2 {
				t.Fatalf("%s: %d deliveries", text, len(w.receiver.got))
			}
			if gap := w.receiver.got[1].at.Sub(w.receiver.got[0].at); gap < least || gap > most {
				t.Errorf("%s: again after %v", text, gap)
			}
		})
	}
	f("30", 30*time.Second, 31*time.Second)
	f("3600", RetryAfterMax, RetryAfterMax+time.Second)
	f("3601", RetryAfterMax, RetryAfterMax+time.Second)
	f("99999999999999", RetryAfterMax, RetryAfterMax+time.Second)
	f("Sat, 01 Jan 2000 00:10:00 GMT", 10*time.Minute-time.Second, 10*time.Minute+time.Second)
	f("-5", 0, time.Second)
	f("soon", 0, time.Second)
}

// TestParallel: four deliveries at a time, no more.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		w := newWorld(t, func(int, *http.Request) (*http.Response, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return status(200)
		})
		p, _, err := w.l.Create(t.Context(), quota.HashKey("k"), ledger.Once{}, func(id string, _ time.Time) (*quota.Product, error) {
			p := &quota.Product{ID: id, Unit: quota.UnitTokens, Budget: 100, Period: quota.PeriodTotal, Enforcement: quota.EnforceHard}
			for i := range int64(10) {
				p.NotifyAtPPM = append(p.NotifyAtPPM, (i+1)*100_000)
			}
			return p, nil
		})
		if err == nil {
			_, err = w.l.Charge(t.Context(), p, usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(100)})
		}
		if err != nil {
			t.Fatal(err)
		}
		w.run(time.Minute)
		if most != ParallelMax || len(w.receiver.got) != 10 {
			t.Errorf("%d at a time, %d deliveries", most, len(w.receiver.got))
		}
		if !bytes.Contains(w.receiver.got[0].body, []byte(`"resets_at":null`)) || !bytes.Contains(w.receiver.got[0].body, []byte(`"spent":"100"`)) {
			t.Errorf("body %s", w.receiver.got[0].body)
		}
	})
}

// TestShutdown: what is on its way when Run ends has some seconds, and what became
// of it is stored; Look delivers without Run.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(i int, r *http.Request) (*http.Response, error) {
			if i > 1 {
				return status(200)
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		w.spend(7_000_000_000)
		began := time.Now()
		w.run(3 * time.Second)
		if took := time.Since(began); took != 3*time.Second+Grace {
			t.Errorf("ended after %v", took)
		}
		if w.waits() != 1 {
			t.Fatalf("%d wait", w.waits())
		}
		time.Sleep(time.Second)
		if err := w.notifier().Look(t.Context()); err != nil || w.waits() != 0 {
			t.Errorf("%d wait: %v", w.waits(), err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.notifier().Look(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("Look: %v", err)
		}
	})
}

// TestStoreOutage: what cannot be stored is told again.
func TestStoreOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w *world
		w = newWorld(t, func(i int, _ *http.Request) (*http.Response, error) {
			w.store.SetFaults(memstore.Faults{Down: i == 1})
			return status(200)
		})
		w.spend(7_000_000_000)
		var done sync.WaitGroup
		done.Go(func() { w.run(2 * time.Minute) })
		time.Sleep(time.Minute)
		w.store.SetFaults(memstore.Faults{})
		done.Wait()
		if len(w.receiver.got) != 2 || w.waits() != 0 || w.receiver.got[0].header.Get(HeaderID) != w.receiver.got[1].header.Get(HeaderID) {
			t.Errorf("%d deliveries, %d wait", len(w.receiver.got), w.waits())
		}
	})
}

// TestTransport: the default one verifies TLS and follows no redirect.
func TestTransport(t *testing.T) {
	reached := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer other.Close()
	redirect := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	plain, encrypted := httptest.NewServer(redirect), httptest.NewTLSServer(redirect)
	encrypted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	defer plain.Close()
	defer encrypted.Close()
	post := func(address string) result {
		u, err := ParseURL(address)
		if err != nil {
			t.Fatal(err)
		}
		return New(Options{URL: u}).post(t.Context(), &ledger.Crossing{})
	}
	if r := post(plain.URL); r.status != http.StatusTemporaryRedirect || r.err == nil || reached {
		t.Errorf("redirect: %+v, followed: %v", r, reached)
	}
	if r := post(encrypted.URL); r.status != 0 || r.err == nil || !strings.Contains(r.err.Error(), "certificate") {
		t.Errorf("unknown certificate: %+v", r)
	}
}

func TestWaitDoesNotOverflow(t *testing.T) {
	for _, attempts := range []int{1, 11, 64, math.MaxInt32} {
		if wait := (result{}).wait(attempts); wait < BackoffFirst/2 || wait > BackoffLongest {
			t.Errorf("after %d attempts: %v", attempts, wait)
		}
	}
}
