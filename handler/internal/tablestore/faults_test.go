package tablestore

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/testkit/azurite"
	"github.com/costgate/costgate/handler/internal/testkit/faultproxy"
)

const product = "p_1"

// bench is a store behind a proxy, and another one that sees what is true.
type bench struct {
	*testing.T
	store, truth *Store
	proxy        *faultproxy.Proxy
}

func newBench(t *testing.T, timeout time.Duration) *bench {
	t.Helper()
	direct := azurite.Start(t)
	account, err := parseConnectionString(direct)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(account.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := faultproxy.Start(t, target.Scheme+"://"+target.Host)
	table := azurite.Table()
	b := &bench{
		T: t, proxy: proxy,
		store: mustOpen(t, Options{ConnectionString: azurite.ConnectionString(proxy.URL + target.Path), Table: table, TryTimeout: timeout}),
		truth: mustOpen(t, Options{ConnectionString: direct, Table: table, TryTimeout: 30 * time.Second}),
	}
	if err := b.truth.EnsureTable(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func count(row string, kind ledger.OpKind, etag string, n int64) ledger.Op {
	return ledger.Op{Kind: kind, Entity: ledger.Entity{Row: row, ETag: etag, Ints: map[string]int64{"N": n}}}
}

// prepare inserts the row "counter" with 1 and returns its ETag.
func (b *bench) prepare() string {
	b.Helper()
	etags, err := b.truth.Apply(b.Context(), product, []ledger.Op{count("counter", ledger.Insert, "", 1)})
	if err != nil {
		b.Fatal(err)
	}
	return etags[0]
}

// charge is a transaction as the ledger makes them: a counter and a new row.
func charge(etag string) []ledger.Op {
	return []ledger.Op{count("counter", ledger.Replace, etag, 2), count("record", ledger.Insert, "", 2)}
}

// happened demands that the charge is there, whole, or not at all.
func (b *bench) happened(want bool) {
	b.Helper()
	counter, err := b.truth.Get(b.Context(), product, "counter")
	if err != nil {
		b.Fatal(err)
	}
	_, err = b.truth.Get(b.Context(), product, "record")
	if got := counter.Ints["N"] == 2; got != want || (err == nil) != want {
		b.Errorf("counter changed: %v, record: %v; want %v", got, err, want)
	}
}

func unknown(t testing.TB, err error) {
	t.Helper()
	bad := !errors.Is(err, ledger.ErrUnavailable) || errors.As(err, new(*ledger.OpError))
	for _, definite := range []error{ledger.ErrConflict, ledger.ErrExists, ledger.ErrMissing, ledger.ErrInvalid} {
		bad = bad || errors.Is(err, definite)
	}
	if bad {
		t.Errorf("got %v, want only ErrUnavailable", err)
	}
}

// TestWriteUnknown lets one transaction go wrong on its way. Whatever goes
// wrong, the error says that nobody knows, and nothing is sent again.
func TestWriteUnknown(t *testing.T) {
	cut := func(n int) func([]byte) []byte {
		return func(answer []byte) []byte { return answer[:len(answer)-n] }
	}
	replace := func(old, fresh string) func([]byte) []byte {
		return func(answer []byte) []byte { return bytes.ReplaceAll(answer, []byte(old), []byte(fresh)) }
	}
	f := func(name string, fault faultproxy.Fault, happens bool) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 30*time.Second)
			ops := charge(b.prepare())
			b.proxy.Next(nil, fault)
			etags, err := b.store.Apply(t.Context(), product, ops)
			unknown(t, err)
			if etags != nil {
				t.Errorf("ETags %q", etags)
			}
			if got := b.proxy.Got(http.MethodPost); got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
			b.happened(happens)
		})
	}
	f("request lost", faultproxy.Fault{Drop: true}, false)
	f("answer lost", faultproxy.Fault{LoseReply: true}, true)
	f("sent twice, answers lost", faultproxy.Fault{Forward: 2, LoseReply: true}, true)
	f("500 before", faultproxy.Fault{Status: 500, Code: "InternalError"}, false)
	f("500 after", faultproxy.Fault{Forward: 1, Status: 500, Code: "OperationTimedOut"}, true)
	f("503 before", faultproxy.Fault{Status: 503, Code: "ServerBusy", Header: http.Header{"Retry-After": {"1"}}}, false)
	f("503 after", faultproxy.Fault{Forward: 1, Status: 503, Code: "ServerBusy"}, true)
	f("429", faultproxy.Fault{Status: 429, Code: "TooManyRequests"}, false)
	f("403", faultproxy.Fault{Status: 403, Code: "AuthenticationFailed"}, false)
	f("413", faultproxy.Fault{Status: 413, Code: "RequestBodyTooLarge"}, false)
	f("outer 409 is not the inner one", faultproxy.Fault{Forward: 1, Status: 409, Code: "EntityAlreadyExists"}, true)
	f("outer 412 is not the inner one", faultproxy.Fault{Forward: 1, Status: 412, Code: "UpdateConditionNotSatisfied"}, true)
	f("redirect", faultproxy.Fault{Forward: 1, Status: 307, Header: http.Header{"Location": {"/elsewhere"}}}, true)
	f("202 without a body", faultproxy.Fault{Mangle: func([]byte) []byte { return nil }}, true)
	f("202 with rubbish", faultproxy.Fault{Mangle: func([]byte) []byte { return []byte("x") }}, true)
	f("202 with an empty line", faultproxy.Fault{Mangle: func([]byte) []byte { return []byte("\n--\n\n") }}, true)
	f("202 with JSON", faultproxy.Fault{Mangle: func([]byte) []byte { return []byte("{}") }}, true)
	f("answer cut by half", faultproxy.Fault{Mangle: func(a []byte) []byte { return a[:len(a)/2] }}, true)
	f("answer cut at its end", faultproxy.Fault{Mangle: cut(3)}, true)
	f("ETags missing", faultproxy.Fault{Mangle: replace("ETag:", "ETug:")}, true)
	f("status of an operation changed", faultproxy.Fault{Mangle: replace("204 No Content", "200 OK")}, true)
}

// TestWriteTimeout ends the wait for a service that hangs, which then executes.
func TestWriteTimeout(t *testing.T) {
	f := func(name string, timeout time.Duration, leaves bool, cause error) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			b := newBench(t, timeout)
			ops := charge(b.prepare())
			release, forwarded := make(chan struct{}), make(chan struct{})
			b.proxy.Next(nil, faultproxy.Fault{Release: release, Forwarded: forwarded})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if leaves {
				go func() {
					for b.proxy.Got(http.MethodPost) == 0 {
						runtime.Gosched()
					}
					cancel()
				}()
			}
			_, err := b.store.Apply(ctx, product, ops)
			unknown(t, err)
			if !errors.Is(err, cause) {
				t.Errorf("got %v, want %v", err, cause)
			}
			b.happened(false)
			close(release)
			if b.proxy.Got(http.MethodPost) == 0 {
				t.Log("the time was over before the request was sent")
				return
			}
			<-forwarded
			b.happened(true) // late, but whole
		})
	}
	f("our time limit", 500*time.Millisecond, false, context.DeadlineExceeded)
	f("the caller leaves", time.Minute, true, context.Canceled)
}

// TestWriteTwice answers with the second copy's answer: the contract says that
// it is one of the three, and that the write is there.
func TestWriteTwice(t *testing.T) {
	f := func(name string, want error, index int, ops func(etag string) []ledger.Op) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 30*time.Second)
			etag := b.prepare()
			b.proxy.Next(nil, faultproxy.Fault{Forward: 2})
			_, err := b.store.Apply(t.Context(), product, ops(etag))
			var op *ledger.OpError
			if !errors.Is(err, want) || !errors.As(err, &op) || op.Index != index {
				t.Errorf("got %v, want %v of operation %d", err, want, index)
			}
			if b.proxy.Forwarded() != 2 {
				t.Errorf("the service got %d", b.proxy.Forwarded())
			}
		})
	}
	f("replace", ledger.ErrConflict, 0, charge)
	f("insert", ledger.ErrExists, 0, func(string) []ledger.Op { return []ledger.Op{count("record", ledger.Insert, "", 2)} })
	f("delete", ledger.ErrMissing, 0, func(etag string) []ledger.Op { return []ledger.Op{count("counter", ledger.Delete, etag, 0)} })
	f("insert after AnyETag", ledger.ErrExists, 1, func(string) []ledger.Op { return charge(ledger.AnyETag) })
}

// TestNothingSent refuses what must not reach the service, above all a
// Replace without a condition.
func TestNothingSent(t *testing.T) {
	b := newBench(t, 30*time.Second)
	b.proxy.Next(nil)
	f := func(name string, ops ...ledger.Op) {
		t.Helper()
		if _, err := b.store.Apply(t.Context(), product, ops); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
		if b.proxy.Got(http.MethodPost) != 0 {
			t.Fatalf("%s: it was sent", name)
		}
	}
	f("none")
	f("replace without ETag", count("counter", ledger.Replace, "", 2))
	f("delete without ETag", count("counter", ledger.Delete, "", 2))
	f("row twice", count("a", ledger.Insert, "", 1), count("a", ledger.Insert, "", 1))
	f("quote in a key", count("a'b", ledger.Insert, "", 1))
	long := count("a", ledger.Insert, "", 1)
	long.Entity.Texts = map[string]string{"T": strings.Repeat("x", ledger.TextUnitsMax+1)}
	f("text too long", long)
	for _, op := range []ledger.Op{count("a", ledger.Replace, "", 1), count("a", ledger.Delete, "", 1), count("a", 0, "x", 1)} {
		if _, err := actionOf(product, op); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("action of kind %d: %v", op.Kind, err)
		}
	}
}

// TestReadAgain repeats reads, and gives up soon.
func TestReadAgain(t *testing.T) {
	busy := faultproxy.Fault{Status: 503, Code: "ServerBusy"}
	f := func(name string, want int, good bool, faults ...faultproxy.Fault) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 30*time.Second)
			b.prepare()
			b.proxy.Next(nil, faults...)
			e, err := b.store.Get(t.Context(), product, "counter")
			if good && (err != nil || e.Ints["N"] != 1) {
				t.Errorf("get: %+v, %v", e, err)
			} else if !good {
				unknown(t, err)
			}
			if got := b.proxy.Got(http.MethodGet); got != want {
				t.Errorf("get: %d requests, want %d", got, want)
			}
			b.proxy.Next(nil, faults...)
			page, err := b.store.Range(t.Context(), product, "c", "d", 10)
			if good && (err != nil || len(page.Entities) != 1) {
				t.Errorf("range: %+v, %v", page, err)
			} else if !good {
				unknown(t, err)
			}
			if got := b.proxy.Got(http.MethodGet); got != want {
				t.Errorf("range: %d requests, want %d", got, want)
			}
		})
	}
	f("busy once", 2, true, busy)
	f("busy twice", 3, true, busy, busy)
	f("answer lost", 2, true, faultproxy.Fault{LoseReply: true})
	f("always busy", 1+readRetriesMax, false, busy, busy, busy, busy)
	f("refused", 1, false, faultproxy.Fault{Status: 403, Code: "AuthenticationFailed"})
	f("a long wait asked for", 1, false, faultproxy.Fault{Status: 503, Code: "ServerBusy", Header: http.Header{"Retry-After": {"60"}}})
	f("not of the service", 1, false, faultproxy.Fault{Status: 404})
	f("table gone", 1, false, faultproxy.Fault{Status: 404, Code: "TableNotFound"})
	f("rubbish", 1, false, faultproxy.Fault{Mangle: func([]byte) []byte { return []byte("{") }})
}

// TestNoTable is another error than a missing row.
func TestNoTable(t *testing.T) {
	s := mustOpen(t, Options{ConnectionString: azurite.Start(t), TryTimeout: 30 * time.Second})
	_, err := s.Get(t.Context(), product, "a")
	unknown(t, err)
	_, err = s.Range(t.Context(), product, "a", "b", 1)
	unknown(t, err)
	for _, op := range []ledger.Op{count("a", ledger.Insert, "", 1), count("a", ledger.Replace, ledger.AnyETag, 1)} {
		_, err = s.Apply(t.Context(), product, []ledger.Op{op})
		unknown(t, err)
	}
	for range 2 {
		if err := s.EnsureTable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(t.Context(), product, "a"); !errors.Is(err, ledger.ErrMissing) {
		t.Errorf("got %v, want ErrMissing", err)
	}
}

func TestEnsureTableFails(t *testing.T) {
	b := newBench(t, 30*time.Second)
	for _, fault := range []faultproxy.Fault{{Status: 409, Code: "TableBeingDeleted"}, {Status: 503, Code: "ServerBusy"}, {LoseReply: true}} {
		b.proxy.Next(nil, fault)
		unknown(t, b.store.EnsureTable(t.Context()))
		if got := b.proxy.Got(http.MethodPost); got != 1 {
			t.Errorf("%d requests", got)
		}
	}
}
