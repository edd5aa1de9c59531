package ehpeer

import (
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/go-amqp"
)

// TestWindows: a consumer gets what its credit and the session's window allow.
func TestWindows(t *testing.T) {
	p := start(t, Options{Partitions: 1})
	large := strings.Repeat("x", 1000) // with its id three frames of 1024 bytes
	mustSend(t, producer(t, p), nil, "a", "b", "c", large)
	c := open(t, p, 1024)
	c.begin(1, 2)
	c.send(1, attach(3, true, "usage/ConsumerGroups/g/Partitions/0", "", nil), nil)
	c.read(codeAttach)
	flow := func(next, window, delivered, credit uint32, drain, echo bool) {
		c.send(1, composite(codeFlow, next, window, uint32(0), uint32(100), uint32(3), delivered, credit, nil, drain, echo), nil)
	}
	get := func(id uint32, more bool) (payload []byte) {
		t.Helper()
		f := c.read(codeTransfer)
		if f.fields.uint(1, 99) != id || !f.fields.bool(4) || f.fields.bool(5) != more {
			t.Errorf("got %x, want delivery %d, settled", f.fields.raw, id)
		}
		return f.payload
	}
	nothing := func(delivered, credit uint32) {
		t.Helper()
		f := c.read(codeFlow)
		if f.fields.uint(5, 99) != delivered || f.fields.uint(6, 99) != credit {
			t.Errorf("link is at %x, want %d delivered, %d credit", f.fields.raw, delivered, credit)
		}
	}
	flow(0, 2, 0, 3, false, false) // the window ends before the credit
	get(0, false)
	get(1, false)
	flow(0, 2, 0, 3, false, true) // the same again gives nothing
	nothing(2, 1)
	flow(2, 2, 2, 1, false, false) // now the credit ends first
	get(2, false)
	flow(3, 1, 3, 0, false, true)
	nothing(3, 0)
	flow(3, 2, 3, 5, false, false) // the window ends in the middle of a message
	body := get(3, true)
	body = append(body, get(3, true)...)
	flow(5, 9, 3, 5, false, false)
	body = append(body, get(3, false)...)
	if m, err := parseMessage(body); err != nil || string(m.data[0]) != large {
		t.Errorf("got %q, %v", body, err)
	}
	flow(6, 9, 4, 4, true, false) // nothing is left: the credit comes back
	nothing(8, 0)
}

// TestDeliveries sends in pieces, settled, aborted, too large and senseless.
func TestDeliveries(t *testing.T) {
	const messageMax = 4096
	p := start(t, Options{MaxMessageBytes: messageMax})
	c := open(t, p, 512)
	c.begin(1, 100)
	c.send(1, attach(3, false, "", "usage/Partitions/1", nil), nil)
	answer := c.read(codeAttach)
	if got := answer.fields.value(10); got != uint64(messageMax) {
		t.Errorf("max-message-size %v", got)
	}
	c.read(codeFlow)
	id := uint32(0)
	transfer := func(settled, more, aborted bool, payload []byte) {
		c.send(1, composite(codeTransfer, uint32(3), id, []byte("t"), uint32(0), settled, more, nil, nil, nil, aborted), payload)
	}
	outcome := func(code uint64, condition string) {
		t.Helper()
		f := c.read(codeDisposition)
		state := f.fields.composite(4, code)
		reason := state.composite(0, codeError)
		if f.fields.err != nil || f.fields.uint(1, 99) != id || reason.text(0) != condition {
			t.Errorf("delivery %d: got %x, want %#x %s: %v", id, f.fields.raw, code, condition, f.fields.err)
		}
		id++
	}
	message := func(size int) []byte { // of an encoded size
		body := strings.Repeat("x", size-8)
		b := encoded(t, amqp.NewMessage([]byte(body)))
		if len(b) != size {
			t.Fatalf("%d bytes, want %d", len(b), size)
		}
		return b
	}
	b := message(messageMax)
	transfer(false, true, false, b[:1000])
	transfer(false, true, false, nil)
	transfer(false, false, false, b[1000:])
	outcome(codeAccepted, "")
	transfer(false, true, false, message(messageMax + 1)[:1000])
	transfer(false, true, false, message(messageMax + 1)[1000:])
	transfer(false, false, false, b)
	outcome(codeRejected, "amqp:link:message-size-exceeded")
	transfer(false, true, false, b)
	transfer(false, false, true, nil) // aborted: no outcome
	id++
	transfer(true, false, false, encoded(t, &amqp.Message{Value: int64(7)})) // settled: no outcome
	id++
	transfer(false, false, false, []byte("senseless"))
	outcome(codeRejected, "amqp:decode-error")
	transfer(false, false, false, encoded(t, amqp.NewMessage([]byte("last"))))
	outcome(codeAccepted, "")
	want(t, "stored", bodies(p), []string{strings.Repeat("x", messageMax-8), "", "last"})

	p.Fail(Detach, 1)
	transfer(false, false, false, b)
	c.read(codeDetach)
	transfer(false, false, false, b) // was under way: nothing comes of it
	c.send(1, composite(codeDetach, uint32(3), true), nil)
	c.send(1, composite(codeEnd), nil)
	c.read(codeEnd)
	if n := len(p.Events()); n != 3 {
		t.Errorf("%d events", n)
	}
}

// TestEcho: a client may ask for the state of a session or link.
func TestEcho(t *testing.T) {
	c := open(t, start(t, Options{}), 512)
	f := func(handle any, credit uint32) {
		t.Helper()
		c.send(100, composite(codeFlow, uint32(0), uint32(100), uint32(0), uint32(100), handle, nil, nil, nil, nil, true), nil)
		f := c.read(codeFlow)
		if got := f.fields.uint(6, 0); f.fields.uint(1, 0) != windowMax-1 || got != credit { // less the put-token
			t.Errorf("got %x, want credit %d", f.fields.raw, credit)
		}
	}
	f(nil, 0)
	c.send(100, attach(3, false, "", "usage", nil), nil)
	c.read(codeAttach)
	c.read(codeFlow)
	f(uint32(3), creditMax)
}

// TestRefill: the client always has at least half of its credit and window.
func TestRefill(t *testing.T) {
	c := open(t, start(t, Options{}), 512)
	c.begin(1, 100)
	c.send(1, attach(3, false, "", "usage", nil), nil)
	c.read(codeAttach)
	c.read(codeFlow)
	event := encoded(t, amqp.NewMessage([]byte("x")))
	links, sessions := 0, 0
	for i := range uint32(windowMax) {
		c.send(1, composite(codeTransfer, uint32(3), i, []byte("t"), uint32(0), true), event)
		if (i+1)%(windowMax/2) == 0 {
			f := c.read(codeFlow)
			if f.fields.at(4) != nil || f.fields.uint(0, 0) != i+1 || f.fields.uint(1, 0) != windowMax {
				t.Errorf("after %d transfers the session is at %x", i+1, f.fields.raw)
			}
			sessions++
		}
		if (i+1)%(creditMax/2) == 0 {
			f := c.read(codeFlow)
			if f.fields.uint(4, 0) != 3 || f.fields.uint(5, 0) != i+1 || f.fields.uint(6, 0) != creditMax {
				t.Errorf("after %d deliveries the link is at %x", i+1, f.fields.raw)
			}
			links++
		}
	}
	if links != 33 || sessions != 2 {
		t.Errorf("refilled %d and %d times", links, sessions)
	}
}

// TestRepliesMax asks without taking answers.
func TestRepliesMax(t *testing.T) {
	p := start(t, Options{})
	request := encoded(t, &amqp.Message{Properties: &amqp.MessageProperties{MessageID: "1", ReplyTo: to.Ptr("me")}})
	ask := func(n int) *client {
		t.Helper()
		c := open(t, p, 512)
		c.send(100, attach(3, false, "", "$management", nil), nil)
		c.read(codeAttach)
		c.read(codeFlow)
		c.send(100, attach(4, true, "$management", "me", nil), nil)
		c.read(codeAttach)
		for i := range uint32(n) {
			c.send(100, composite(codeTransfer, uint32(3), i, []byte("t"), uint32(0)), request)
			if i < repliesMax {
				c.read(codeDisposition)
			}
		}
		return c
	}
	closed := func(c *client, condition string) {
		t.Helper()
		f := c.read(codeClose)
		reason := f.fields.composite(0, codeError)
		if got := reason.text(0); got != condition {
			t.Errorf("closed with %q", got)
		}
	}
	c := ask(repliesMax)
	c.send(0, composite(codeClose), nil)
	closed(c, "")
	closed(ask(repliesMax+1), "amqp:resource-limit-exceeded")

	c = ask(0)
	c.send(100, composite(codeDetach, uint32(4), true), nil)
	c.read(codeDetach)
	c.send(100, composite(codeTransfer, uint32(3), uint32(0), []byte("t"), uint32(0)), request)
	closed(c, "amqp:not-allowed") // nowhere to reply to
}
