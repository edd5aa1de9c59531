package ehpeer

import (
	"context"
	"errors"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

func isCode(err error, code azeventhubs.ErrorCode) bool {
	var e *azeventhubs.Error
	return errors.As(err, &e) && e.Code == code
}

func isCondition(err error, condition amqp.ErrCond) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Condition == condition
}

// TestFaults holds what azeventhubs v2.0.2 makes of each fault. Always is a fault
// that stays: the SDK tries four times.
func TestFaults(t *testing.T) {
	const always = -1
	f := func(name string, fault Fault, times int, check func(error) bool, transfers int64, stored ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			p := start(t, Options{Partitions: 1})
			c := producer(t, p)
			mustSend(t, c, nil, "before")
			p.Fail(fault, times)
			if err := send(deadline(t), c, nil, "a", "b"); !check(err) {
				t.Errorf("got %v", err)
			}
			want(t, "stored", bodies(p), append([]string{"before"}, stored...))
			if s := p.Stats(); s.Transfers != 1+transfers || s.Faults[fault.String()] == 0 {
				t.Errorf("stats %+v", s)
			}
			p.Clear()
			if err := send(deadline(t), producer(t, p), nil, "after"); err != nil {
				t.Errorf("after it: %v", err)
			}
		})
	}
	success := func(err error) bool { return err == nil }
	condition := func(c amqp.ErrCond) func(error) bool { return func(err error) bool { return isCondition(err, c) } }
	code := func(c azeventhubs.ErrorCode) func(error) bool { return func(err error) bool { return isCode(err, c) } }

	f("throttled once", Throttle, 1, success, 2, "a", "b")
	f("throttled thrice", Throttle, 3, success, 4, "a", "b")
	f("throttled always", Throttle, always, condition("com.microsoft:server-busy"), 4)
	f("too large", TooLarge, 1, condition(amqp.ErrCondMessageSizeExceeded), 1)
	f("released", Release, 1, success, 1) // and lost
	f("modified", Modify, 1, success, 1)  // and lost
	f("detached once", Detach, 1, success, 2, "a", "b")
	f("detached thrice", Detach, 3, success, 4, "a", "b")
	f("stolen", Stolen, 1, code(azeventhubs.ErrorCodeOwnershipLost), 1)
	f("closed by force", ForceClose, 1, success, 2, "a", "b")
	f("dropped before", DropBefore, 1, success, 2, "a", "b")
	f("dropped before, twice", DropBefore, 2, success, 3, "a", "b")
	f("dropped before, always", DropBefore, always, code(azeventhubs.ErrorCodeConnectionLost), 4)
	f("dropped after", DropAfter, 1, success, 2, "a", "b", "a", "b")
	f("dropped after, twice", DropAfter, 2, success, 3, "a", "b", "a", "b", "a", "b")
}

// TestNeverSettled: only the context ends the SDK's waiting.
func TestNeverSettled(t *testing.T) {
	f := func(fault Fault, stored ...string) {
		t.Helper()
		p := start(t, Options{Partitions: 1})
		c := producer(t, p)
		p.Fail(fault, 1)
		ctx, cancel := context.WithCancel(deadline(t))
		go func() {
			until(func() bool { return p.Stats().Faults[fault.String()] > 0 || ctx.Err() != nil })
			cancel()
		}()
		if err := send(ctx, c, nil, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v: got %v", fault, err)
		}
		until(func() bool { return len(bodies(p)) >= len(stored) }) // the fault is counted before the event is stored
		want(t, fault.String(), bodies(p), stored)
		mustSend(t, c, nil, "b") // the link is as good as ever
		want(t, fault.String(), bodies(p), append(stored, "b"))
	}
	f(NeverSettle)
	f(NeverSettleAfter, "a")
}

// TestRefused has clients that do not get as far as sending.
func TestRefused(t *testing.T) {
	f := func(name string, fail func(*Peer), hub string, check func(error) bool) {
		t.Helper()
		p := start(t, Options{Key: "c2VjcmV0"})
		fail(p)
		text := "Endpoint=sb://" + p.Address() + ";SharedAccessKeyName=" + KeyName + ";SharedAccessKey=" + p.options.Key + ";UseDevelopmentEmulator=true"
		c, err := azeventhubs.NewProducerClientFromConnectionString(text, hub, &azeventhubs.ProducerClientOptions{RetryOptions: retries})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if _, err = c.NewEventDataBatch(deadline(t), nil); !check(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	unauthorized := func(err error) bool { return isCode(err, azeventhubs.ErrorCodeUnauthorizedAccess) }
	notFound := func(err error) bool { return isCondition(err, amqp.ErrCondNotFound) }
	success := func(err error) bool { return err == nil }
	f("unauthorized", func(p *Peer) { p.Fail(Unauthorized, 1) }, "usage", unauthorized)
	f("authorized", func(p *Peer) { p.Fail(Unauthorized, 0) }, "USAGE", success)
	f("wrong key", func(p *Peer) { p.options.Key = "b3RoZXI=" }, "usage", success) // the peer's and the client's are the same
	f("not found", func(p *Peer) { p.Fail(NotFound, 1) }, "usage", notFound)
	f("other hub", func(*Peer) {}, "other", notFound)
}

// TestOutage: a producer outlives a peer that restarts, and one that is away.
func TestOutage(t *testing.T) {
	p := start(t, Options{Partitions: 1})
	c := producer(t, p)
	mustSend(t, c, nil, "a")
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	mustSend(t, c, nil, "b")
	if err := p.Down(); err != nil {
		t.Fatal(err)
	}
	if err := send(deadline(t), c, nil, "lost"); err == nil {
		t.Error("sent to a peer that is down")
	}
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	mustSend(t, c, &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("0")}, "c")
	want(t, "stored", bodies(p), []string{"a", "b", "c"})
	want(t, "received", receive(t, consumer(t, p), "0", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 3), []string{"a", "b", "c"})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Restart(); err == nil {
		t.Error("restarted though closed")
	}
	want(t, "stored", bodies(p), []string{"a", "b", "c"})
}

// TestRestartWhileStoring: the sender never hears of the batch, as if the service
// had failed right after storing it.
func TestRestartWhileStoring(t *testing.T) {
	p := start(t, Options{Partitions: 1})
	p.OnEvent(func(Event) {
		if len(p.Events()) == 1 {
			if err := p.Restart(); err != nil {
				t.Error(err)
			}
		}
	})
	mustSend(t, producer(t, p), nil, "a")
	want(t, "stored", bodies(p), []string{"a", "a"})
}

func TestPlan(t *testing.T) {
	var p plan
	p.add(Throttle, 2)
	p.add(Unauthorized, 1)
	p.add(Detach, 0)
	p.add(Release, -1)
	p.add(Modify, 1)
	f := func(o occasion, want Fault) {
		t.Helper()
		if got := p.take(o); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	f(onTransfer, Throttle)
	f(onPutToken, Unauthorized)
	f(onPutToken, none)
	f(onTransfer, Throttle)
	f(onTransfer, Release)
	f(onTransfer, Release)
	f(onAttach, none)
	p.clear()
	f(onTransfer, none)
	want(t, "counts", p.counts(), map[string]int64{"throttle": 2, "release": 2, "unauthorized": 1})
}

func TestFaultNames(t *testing.T) {
	for f := none + 1; f < faultsEnd; f++ {
		if got, err := ParseFault(f.String()); err != nil || got != f {
			t.Errorf("%v: got %v, %v", f, got, err)
		}
	}
	for _, name := range []string{"", "Fault(0)", "nothing"} {
		if _, err := ParseFault(name); err == nil {
			t.Errorf("%q is a fault", name)
		}
	}
	if s := faultsEnd.String(); s != "Fault(14)" {
		t.Error(s)
	}
}
