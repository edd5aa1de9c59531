package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/costgate/costgate/handler/internal/admin"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
	"github.com/costgate/costgate/handler/internal/usage"
)

// cutStore is cut off after a number of operations.
type cutStore struct {
	ledger.Store
	left    atomic.Int64 // operations until then
	answers bool         // it is the answer of the last one that is lost
	writes  atomic.Bool  // only writes fail, all of them
}

var errCut = fmt.Errorf("cut off: %w", ledger.ErrUnavailable)

func (s *cutStore) cut() (before, after error) {
	switch left := s.left.Add(-1); {
	case left == 0 && s.answers:
		return nil, errCut
	case left <= 0:
		return errCut, errCut
	}
	return nil, nil
}

func (s *cutStore) Get(ctx context.Context, partition, row string) (e ledger.Entity, err error) {
	before, after := s.cut()
	if before != nil {
		return e, before
	}
	if e, err = s.Store.Get(ctx, partition, row); after != nil {
		return ledger.Entity{}, after
	}
	return e, err
}

func (s *cutStore) Range(ctx context.Context, partition, from, to string, limit int) (p ledger.Page, err error) {
	before, after := s.cut()
	if before != nil {
		return p, before
	}
	if p, err = s.Store.Range(ctx, partition, from, to, limit); after != nil {
		return ledger.Page{}, after
	}
	return p, err
}

func (s *cutStore) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	if s.writes.Load() {
		return nil, errCut
	}
	before, after := s.cut()
	if before != nil {
		return nil, before
	}
	etags, err := s.Store.Apply(ctx, partition, ops)
	if after != nil {
		return nil, after
	}
	return etags, err
}

func (s *cutStore) mend() { s.left.Store(1 << 40) }

// inOutage runs a test in a bubble, whose time is not the machine's.
func inOutage(t *testing.T, test func(f *fixture, s *cutStore)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &cutStore{Store: memstore.New(1, time.Now)}
		s.mend()
		f := &fixture{t: t, ledger: ledger.New(s, ledger.Options{Instance: "t"})}
		f.admin = admin.New(admin.Options{Ledger: f.ledger, Book: pricing.Builtin()})
		test(f, s)
		s.mend()
		s.writes.Store(false)
		if err := f.ledger.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func (a answer) wantOutage(t *testing.T) {
	t.Helper()
	if a.status != 503 || a.header.Get("Retry-After") != "2" || a.header.Get("Content-Type") != "application/problem+json" || a.json["status"] != 503.0 {
		t.Errorf("%d %v %s", a.status, a.header, a.text)
	}
}

func (f *fixture) updates() (n int) {
	f.t.Helper()
	p, err := f.ledger.Find(f.t.Context(), key)
	if err != nil {
		f.t.Fatal(err)
	}
	records, _, err := f.ledger.History(f.t.Context(), p.ID, ledger.HistoryQuery{Limit: 1000})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, r := range records {
		if r.Kind == usage.KindUpdate {
			n++
		}
	}
	return n
}

const (
	named   = `{"subscriptionKey":"` + key + `","prompt":"","responseBody":{"id":"chatcmpl-1","model":"gpt-4o","usage":{"prompt_tokens":1000,"completion_tokens":100}}}`
	unnamed = `{"subscriptionKey":"` + key + `","prompt":"","responseBody":{"model":"gpt-4o","usage":{"prompt_tokens":1000,"completion_tokens":100}}}`
)

// TestUpdateThatIsNotDurableInTime goes on in the background, and however often
// it is repeated it is charged once.
func TestUpdateThatIsNotDurableInTime(t *testing.T) {
	for _, header := range [][]string{nil, {"Idempotency-Key", "once"}} {
		inOutage(t, func(f *fixture, s *cutStore) {
			f.create(simple).want(f.t, 200)
			body := named
			if header != nil {
				body = unnamed
			}
			s.writes.Store(true)
			for range 3 {
				began := time.Now()
				f.update(body, header...).wantOutage(f.t)
				if took := time.Since(began); took > 11*time.Second {
					f.t.Errorf("answered after %v", took)
				}
			}
			s.writes.Store(false)
			time.Sleep(time.Minute)
			if n := f.updates(); n != 1 {
				f.t.Errorf("%v: charged %d times in the background", header, n)
			}
			f.update(body, header...).want(f.t, 200)
			if n := f.updates(); n != 1 {
				f.t.Errorf("%v: charged %d times", header, n)
			}
		})
	}
}

// TestOutageAtEveryStep: whichever operation of the store is the last one that
// succeeds, the answer is either the effect or 503, and a repetition brings the
// effect about once.
func TestOutageAtEveryStep(t *testing.T) {
	id := func(f *fixture) string {
		f.create(simple).want(f.t, 200)
		id, _ := f.get(key).json["ProductId"].(string)
		return id
	}
	type call func() answer
	for name, prepare := range map[string]func(f *fixture) (do call, check func(t *testing.T)){
		"Create": func(f *fixture) (call, func(t *testing.T)) {
			return func() answer { return f.create(simple) }, func(t *testing.T) {
				t.Helper()
				f.get(key).want(t, 200, "Budget", "12.5")
			}
		},
		"Create once": func(f *fixture) (call, func(t *testing.T)) {
			return func() answer { return f.create(`{"productName":"Q","amount":3}`, "Idempotency-Key", "c") }, func(t *testing.T) {
				t.Helper()
				if products, err := f.ledger.Products(t.Context()); err != nil || len(products) != 1 {
					t.Errorf("%d products, %v", len(products), err)
				}
			}
		},
		"Create again": func(f *fixture) (call, func(t *testing.T)) {
			id(f)
			return func() answer { return f.create(`{"subscriptionKey":"` + key + `","amount":"7"}`) }, func(t *testing.T) {
				t.Helper()
				f.get(key).want(t, 200, "Budget", "7")
			}
		},
		"Configure": func(f *fixture) (call, func(t *testing.T)) {
			p := id(f)
			return func() answer { return f.configure(p, `{"deposit":"1","addKey":true}`, "Idempotency-Key", "d") }, func(t *testing.T) {
				t.Helper()
				f.get(p).want(t, 200, "Budget", "13.5")
				if product, err := f.ledger.Find(t.Context(), p); err != nil || len(product.Keys) != 2 {
					t.Errorf("%+v, %v", product, err)
				}
			}
		},
		"Update": func(f *fixture) (call, func(t *testing.T)) {
			id(f)
			return func() answer { return f.update(named) }, func(t *testing.T) {
				t.Helper()
				if n := f.updates(); n != 1 {
					t.Errorf("charged %d times", n)
				}
			}
		},
		"GetById": func(f *fixture) (call, func(t *testing.T)) {
			p := id(f)
			return func() answer { return f.get(p) }, func(*testing.T) {}
		},
		"GetAll": func(f *fixture) (call, func(t *testing.T)) {
			id(f)
			return func() answer { return f.call(f.admin.GetAll, "") }, func(*testing.T) {}
		},
		"History": func(f *fixture) (call, func(t *testing.T)) {
			p := id(f)
			return func() answer {
				return f.call(func(w http.ResponseWriter, r *http.Request) { f.admin.History(w, r, p) }, "")
			}, func(*testing.T) {}
		},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " answer lost ", lost), func(t *testing.T) {
				for n, done := int64(1), false; !done; n++ {
					if n > 50 {
						t.Fatal("it never succeeds")
					}
					inOutage(t, func(f *fixture, s *cutStore) {
						do, check := prepare(f)
						s.answers = lost
						s.left.Store(n)
						began := time.Now()
						first := do()
						if took := time.Since(began); took > 20*time.Second {
							f.t.Errorf("operation %d is cut: answered after %v", n, took)
						}
						if first.status != 200 {
							first.wantOutage(f.t)
						}
						done = first.status == 200 && s.left.Load() > 0
						s.mend()
						time.Sleep(20 * time.Second)
						do().want(f.t, 200)
						check(f.t)
					})
				}
			})
		}
	}
}

// lateLedger does not confirm in time.
type lateLedger struct{ *ledger.Ledger }

func (lateLedger) Charge(context.Context, *quota.Product, usage.Record, ...ledger.Once) (bool, error) {
	return false, fmt.Errorf("charge: %w", context.DeadlineExceeded)
}

func TestDeadlineIsAnOutage(t *testing.T) {
	f := newFixture(t)
	f.create(simple).want(t, 200)
	f.admin = admin.New(admin.Options{Ledger: lateLedger{f.ledger}, Book: pricing.Builtin(), Now: f.now})
	f.update(named).wantOutage(t)
}
