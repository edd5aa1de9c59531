package ehpeer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/go-amqp"
)

// client speaks AMQP frame by frame.
type client struct {
	t    *testing.T
	conn net.Conn
}

func dial(t *testing.T, p *Peer) *client {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &client{t, conn}
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) send(channel uint16, performative any, payload []byte) {
	c.t.Helper()
	c.write(appendFrame(nil, kindAMQP, channel, performative, payload))
}

// read is the next frame with a performative, which must be of a code.
func (c *client) read(code uint64) frame {
	c.t.Helper()
	for {
		f, err := readFrame(c.conn)
		if err != nil {
			c.t.Fatalf("instead of %#x: %v", code, err)
		}
		if f.code == code {
			return f
		}
		if f.code != 0 {
			c.t.Fatalf("got %#x %x, want %#x", f.code, f.fields.raw, code)
		}
	}
}

// ends is true once the peer has hung up.
func (c *client) ends() bool {
	n, err := io.Copy(io.Discard, c.conn)
	return n == 0 && err == nil
}

// open does the handshake up to open, without SASL, and puts a token for the hub.
func open(t *testing.T, p *Peer, frameMax uint32) *client {
	t.Helper()
	c := dial(t, p)
	c.write(headerAMQP)
	c.send(0, composite(codeOpen, "client", nil, frameMax), nil)
	if header := make([]byte, 8); c.get(header) != nil || !bytes.Equal(header, headerAMQP) {
		t.Fatalf("got header %q", header)
	}
	c.read(codeOpen)
	c.begin(100, 100)
	if got := c.request(100, "$cbs", "put-token", "amqp://host/usage"); got != 202 {
		t.Fatalf("put-token: %d", got)
	}
	return c
}

func (c *client) get(b []byte) error {
	_, err := io.ReadFull(c.conn, b)
	return err
}

func (c *client) begin(channel uint16, window uint32) {
	c.t.Helper()
	c.send(channel, composite(codeBegin, nil, uint32(0), window, uint32(100)), nil)
	f := c.read(codeBegin)
	if got := f.fields.uint(0, 0); got != uint32(channel) {
		c.t.Fatalf("begun on channel %d, want %d", got, channel)
	}
}

// attach attaches a sender, or a receiver with a filter.
func attach(handle uint32, receiver bool, source, target string, filter any) any {
	filters := pairs{}
	if filter != nil {
		filters = pairs{symbol("apache.org:selector-filter:string"), filter}
	}
	return composite(codeAttach, fmt.Sprint("link ", handle), handle, receiver, nil, nil,
		composite(codeSource, source, nil, nil, nil, nil, nil, nil, filters), composite(codeTarget, target), nil, nil, uint32(0))
}

// request asks a node, by new links on handles 10 and 11, and gives the status.
func (c *client) request(channel uint16, node, operation, name string) int32 {
	c.t.Helper()
	c.send(channel, attach(10, false, "", node, nil), nil)
	c.read(codeAttach)
	c.read(codeFlow)
	c.send(channel, attach(11, true, node, "me", nil), nil)
	c.read(codeAttach)
	m := &amqp.Message{
		Value: "token", Properties: &amqp.MessageProperties{MessageID: "1", ReplyTo: to.Ptr("me")},
		ApplicationProperties: map[string]any{"operation": operation, "name": name, "type": "com.microsoft:eventhub"},
	}
	c.send(channel, composite(codeTransfer, uint32(10), uint32(0), []byte("t"), uint32(0)), encoded(c.t, m))
	c.read(codeDisposition)
	c.send(channel, composite(codeFlow, uint32(0), uint32(100), uint32(0), uint32(100), uint32(11), uint32(0), uint32(1)), nil)
	reply, err := parseMessage(c.read(codeTransfer).payload)
	if err != nil {
		c.t.Fatal(err)
	}
	status, _ := reply.application["status-code"].(int32)
	for _, handle := range []uint32{10, 11} {
		c.send(channel, composite(codeDetach, handle, true), nil)
		c.read(codeDetach)
	}
	return status
}

func encoded(t testing.TB, m *amqp.Message) []byte {
	t.Helper()
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHandshake(t *testing.T) {
	p := start(t, Options{})
	mechanism := func(name string) []byte {
		return append(bytes.Clone(headerSASL), appendFrame(nil, kindSASL, 0, composite(codeInit, symbol(name)), nil)...)
	}
	open := appendFrame(nil, kindAMQP, 0, composite(codeOpen, "client"), nil)
	f := func(name string, sent []byte, opened bool) {
		t.Helper()
		c := dial(t, p)
		c.write(sent)
		_ = c.conn.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(c.conn)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(err.Error(), "reset") {
			t.Fatal(err)
		}
		if bytes.Contains(got, []byte("ehpeer")) != opened {
			t.Errorf("%s: got %q", name, got)
		}
	}
	f("with SASL", append(append(mechanism("ANONYMOUS"), headerAMQP...), open...), true)
	f("without SASL", append(bytes.Clone(headerAMQP), open...), true)
	f("with a password", append(append(mechanism("PLAIN"), headerAMQP...), open...), false)
	f("SASL twice", append(mechanism("ANONYMOUS"), mechanism("ANONYMOUS")...), false)
	f("HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), false)
	f("nothing", nil, false)
	f("begin before open", append(bytes.Clone(headerAMQP), appendFrame(nil, kindAMQP, 0, composite(codeBegin), nil)...), false)
	f("open is no list", append(bytes.Clone(headerAMQP), appendFrame(nil, kindAMQP, 0, described{codeOpen, "x"}, nil)...), false)
	f("idle-time-out is a text", append(bytes.Clone(headerAMQP), appendFrame(nil, kindAMQP, 0, composite(codeOpen, "c", nil, nil, nil, "x"), nil)...), false)
}

// TestHeartbeat: the client asks for a sign of life every 4 ms.
func TestHeartbeat(t *testing.T) {
	c := dial(t, start(t, Options{}))
	c.write(headerAMQP)
	c.send(0, composite(codeOpen, "client", nil, nil, nil, uint32(4)), nil)
	if err := c.get(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	f := c.read(codeOpen)
	if got := f.fields.uint(4, 0); got != 60_000 {
		t.Errorf("the peer wants a sign of life every %d ms", got)
	}
	for range 3 {
		if f, err := readFrame(c.conn); err != nil || f.code != 0 {
			t.Errorf("got %#x, %v", f.code, err)
		}
	}
}

// TestSilence: a client of which nothing is heard is hung up on.
func TestSilence(t *testing.T) {
	p, err := newPeer(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.idle = 20 * time.Millisecond
	if err := p.listen(); err != nil {
		t.Fatal(err)
	}
	c := open(t, p, 512)
	if !c.ends() {
		t.Error("goes on")
	}
	until(func() bool { return p.Stats().Open == 0 })
}

// TestViolations: who breaks the protocol is told, and loses the connection.
func TestViolations(t *testing.T) {
	p := start(t, Options{})
	f := func(name, condition string, channel uint16, performative any) {
		t.Helper()
		c := open(t, p, 512)
		c.send(channel, performative, nil)
		f := c.read(codeClose)
		reason := f.fields.composite(0, codeError)
		if got := reason.text(0); got != condition {
			t.Errorf("%s: closed with %s: %s", name, got, reason.text(1))
		}
		c.send(channel, composite(codeDisposition), nil) // is not looked at
		c.send(0, composite(codeClose), nil)
		if !c.ends() {
			t.Errorf("%s: goes on", name)
		}
	}
	f("begin on a used channel", "amqp:not-allowed", 100, composite(codeBegin))
	f("begin beyond channel-max", "amqp:not-allowed", channelMax+1, composite(codeBegin))
	f("no session", "amqp:not-allowed", 101, composite(codeEnd))
	f("attach beyond handle-max", "amqp:session:handle-in-use", 100, attach(handleMax+1, false, "", "usage", nil))
	f("transfer without link", "amqp:session:unattached-handle", 100, composite(codeTransfer, uint32(7)))
	f("detach without link", "amqp:session:unattached-handle", 100, composite(codeDetach, uint32(7)))
	f("handle is a text", "amqp:decode-error", 100, composite(codeTransfer, "7"))
	f("role is a number", "amqp:decode-error", 100, composite(codeAttach, "l", uint32(0), uint32(1)))
	f("target is a source", "amqp:decode-error", 100, composite(codeAttach, "l", uint32(0), false, nil, nil, nil, composite(codeSource)))
	f("unknown performative", "amqp:decode-error", 100, composite(0x19))
	f("open twice", "amqp:decode-error", 100, composite(codeOpen))

	c := open(t, p, 512) // the limits themselves
	c.begin(channelMax, 100)
	c.send(channelMax, attach(handleMax, false, "", "usage", nil), nil)
	c.read(codeAttach)
	c.read(codeFlow)
	c.send(channelMax, composite(codeEnd), nil)
	c.read(codeEnd)
	c.send(0, composite(codeClose), nil)
	c.read(codeClose)
	if !c.ends() {
		t.Error("goes on after close")
	}
}

func TestAttachRefused(t *testing.T) {
	p := start(t, Options{Partitions: 2})
	c := open(t, p, 512)
	f := func(receiver bool, address, filter, condition string) {
		t.Helper()
		var selector any
		if filter != "" {
			selector = described{symbol("apache.org:selector-filter:string"), filter}
		}
		c.send(100, attach(5, receiver, address, address, selector), nil)
		answer := c.read(codeAttach)
		if refused := answer.fields.at(5) == nil && answer.fields.at(6) == nil; refused != (condition != "") {
			t.Errorf("%s: refused: %t, want %q", address, refused, condition)
		}
		if condition == "" {
			if !receiver {
				c.read(codeFlow)
			}
			c.send(100, composite(codeDetach, uint32(5), true), nil)
			c.read(codeDetach)
			return
		}
		f := c.read(codeDetach)
		reason := f.fields.composite(2, codeError)
		if got := reason.text(0); got != condition {
			t.Errorf("%s: got %q, want %q", address, got, condition)
		}
		c.send(100, composite(codeDetach, uint32(5), true), nil)
	}
	const group = "usage/ConsumerGroups/$Default/Partitions/"
	f(false, "usage", "", "")
	f(false, "USAGE/partitions/1", "", "")
	f(true, group+"1", "", "")
	f(true, group+"1", "amqp.annotation.x-opt-offset > '@latest'", "")
	f(true, group+"1", "amqp.annotation.x-opt-sequence-number >= '12'", "")
	const missing = "amqp:not-found"
	f(false, "", "", missing)
	f(false, "other", "", missing)
	f(false, "usage/Partitions/2", "", missing)
	f(false, "usage/Partitions/-1", "", missing)
	f(false, "usage/Partitions/01", "", missing)
	f(false, "usage/Partitions", "", missing)
	f(false, group+"1", "", missing)
	f(true, "usage", "", missing)
	f(true, "usage/Partitions/1", "", missing)
	f(true, group+"2", "", missing)
	const invalid = "amqp:invalid-field"
	f(true, group+"0", "amqp.annotation.x-opt-offset > 5", invalid)
	f(true, group+"0", "amqp.annotation.x-opt-offset > '99999999999999999999'", invalid)
	f(true, group+"0", "amqp.annotation.x-opt-offset < '5'", invalid)
	f(true, group+"0", "1=1", invalid)
	if len(p.seats.taken) > 0 {
		t.Errorf("seats are taken: %v", p.seats.taken)
	}
}

// TestNoToken: without a token there are no links but to $cbs.
func TestNoToken(t *testing.T) {
	p := start(t, Options{})
	f := func(name string, address string, admitted bool) {
		t.Helper()
		c := newConn(p, nil)
		c.granted["usage/partitions/1"] = true
		n, missing := p.find(address, false)
		if missing != nil {
			t.Fatal(missing)
		}
		if got := c.admit(n); (got == nil) != admitted || got != nil && got.condition != "amqp:unauthorized-access" {
			t.Errorf("%s: got %v", name, got)
		}
	}
	f("tokens", "$cbs", true)
	f("the partition", "usage/Partitions/1", true)
	f("another", "usage/Partitions/0", false)
	f("the hub", "usage", false)
	f("management", "$management", false)
}

func TestRequests(t *testing.T) {
	c := open(t, start(t, Options{}), 512)
	f := func(node, operation, name string, status int32) {
		t.Helper()
		if got := c.request(100, node, operation, name); got != status {
			t.Errorf("%s %s %s: got %d, want %d", node, operation, name, got, status)
		}
	}
	f("$cbs", "put-token", "amqp://host/usage/Partitions/0", 202)
	f("$cbs", "put-token", "", 400)
	f("$cbs", "put-token", "amqp://host", 400)
	f("$cbs", "delete-token", "amqp://host/usage", 400)
	f("$management", "READ", "usage", 200)
	f("$management", "READ", "other", 404)
	f("$management", "WRITE", "usage", 400)
}

func TestGrantsMax(t *testing.T) {
	p := start(t, Options{})
	c := newConn(p, nil)
	put := func(i int) int32 {
		return c.putToken(&message{
			value:       appendValue(nil, "token"),
			application: map[any]any{"operation": "put-token", "name": fmt.Sprint("amqp://host/", i)},
		}).code
	}
	for i := range grantsMax {
		if got := put(i); got != 202 {
			t.Fatalf("%d: %d", i, got)
		}
	}
	if got := put(grantsMax); got != 403 {
		t.Errorf("one past the limit: %d", got)
	}
}
