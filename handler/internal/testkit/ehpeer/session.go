package ehpeer

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	windowMax = 5000 // transfers of a session that the client may send ahead
	creditMax = 300  // deliveries of a link that the client may send ahead
)

// session is one session. Its number of the channel and those of its links are
// the client's in both directions.
type session struct {
	c       *conn
	channel uint16

	nextIncoming uint32 // id of the client's next transfer
	window       uint32 // transfers it may still send
	nextOutgoing uint32 // id of our next transfer
	theirWindow  uint32 // transfers we may still send
	deliveries   uint32 // id of our next delivery

	inlets  map[uint32]*inlet
	outlets map[uint32]*outlet
	gone    map[uint32]bool // links that we have detached and the client has not yet
}

func (c *conn) begin(f *frame) error {
	if c.sessions[f.channel] != nil || f.channel > channelMax {
		return &amqpError{"amqp:not-allowed", fmt.Sprintf("no session can begin on channel %d", f.channel)}
	}
	s := &session{
		c: c, channel: f.channel, window: windowMax,
		nextIncoming: f.fields.uint(1, 0), theirWindow: f.fields.uint(2, 0),
		inlets: map[uint32]*inlet{}, outlets: map[uint32]*outlet{}, gone: map[uint32]bool{},
	}
	c.sessions[f.channel] = s
	s.send(composite(codeBegin, f.channel, s.nextOutgoing, uint32(windowMax), uint32(windowMax), uint32(handleMax)))
	return nil
}

func (s *session) send(performative any) { s.c.send(s.channel, performative, nil) }

// leave ends the session's receivers.
func (s *session) leave() {
	for _, o := range s.outlets {
		s.c.peer.seats.leave(o)
	}
}

// node is what a link leads to.
type node struct {
	kind      nodeKind
	path      string // as the client says it
	group     string // of a consumer
	partition int    // -1: none
}

type nodeKind int

const (
	nodeHub nodeKind = iota // or one of its partitions
	nodeTokens
	nodeManagement
)

// find is the node of an address. Receivers read from a partition in a consumer
// group; any group exists.
func (p *Peer) find(address string, receiver bool) (node, *amqpError) {
	n := node{path: address, partition: -1}
	missing := &amqpError{"amqp:not-found", fmt.Sprintf("the messaging entity %q could not be found", address)}
	switch address {
	case "$cbs":
		n.kind = nodeTokens
		return n, nil
	case "$management":
		n.kind, n.path = nodeManagement, p.options.Hub+"/$management" // for which the token is
		return n, nil
	}
	parts := strings.Split(address, "/")
	if !strings.EqualFold(parts[0], p.options.Hub) {
		return n, missing
	}
	parts = parts[1:]
	if receiver {
		if len(parts) < 2 || !strings.EqualFold(parts[0], "ConsumerGroups") {
			return n, missing
		}
		n.group, parts = strings.ToLower(parts[1]), parts[2:]
	}
	if len(parts) == 0 && !receiver {
		return n, nil
	}
	if len(parts) != 2 || !strings.EqualFold(parts[0], "Partitions") || !p.partition(parts[1], &n.partition) {
		return n, missing
	}
	return n, nil
}

// partition reads the id of a partition.
func (p *Peer) partition(id string, to *int) bool {
	i, err := strconv.Atoi(id)
	if err != nil || i < 0 || i >= p.options.Partitions || strconv.Itoa(i) != id {
		return false
	}
	*to = i
	return true
}

// attach makes a link, or refuses it: then the answer to attach has no source and
// target, and detach with the reason follows.
func (s *session) attach(f *frame) error {
	name, handle, receiver := f.fields.text(0), f.fields.uint(1, 0), f.fields.bool(2)
	source, target := f.fields.composite(5, codeSource), f.fields.composite(6, codeTarget)
	address := target.text(0)
	if receiver {
		address = source.text(0)
	}
	for _, err := range []error{f.fields.err, source.err, target.err} {
		if err != nil {
			return err
		}
	}
	if handle > handleMax || s.inlets[handle] != nil || s.outlets[handle] != nil || s.gone[handle] {
		return &amqpError{"amqp:session:handle-in-use", fmt.Sprintf("no link can have the handle %d", handle)}
	}
	n, refused := s.c.peer.find(address, receiver)
	if refused == nil {
		refused = s.c.admit(n)
	}
	var out *outlet
	if refused == nil && receiver {
		out = &outlet{s: s, handle: handle, address: target.text(0)}
		if n.kind == nodeHub {
			refused = out.consume(n, f.fields.dict(13), source.dict(7))
		}
	}
	answer := []any{name, handle, !receiver, f.fields.at(3), f.fields.at(4), f.fields.at(5), f.fields.at(6), nil, nil, nil, s.c.peer.options.MaxMessageBytes}
	if receiver {
		answer[9] = uint32(0) // initial-delivery-count
	}
	if refused != nil {
		answer[5], answer[6] = nil, nil
	}
	s.send(composite(codeAttach, answer...))
	switch {
	case refused != nil:
		s.detach(handle, refused)
	case receiver:
		s.outlets[handle] = out
	default:
		in := &inlet{s: s, handle: handle, node: n, delivered: f.fields.uint(9, 0)}
		s.inlets[handle] = in
		in.refill()
	}
	return nil
}

// admit says whether a client may have a link. A token for an entity is good for
// what is below it.
func (c *conn) admit(n node) *amqpError {
	if n.kind == nodeTokens {
		return nil
	}
	if n.kind == nodeHub && c.peer.plan.take(onAttach) == NotFound {
		return &amqpError{"amqp:not-found", fmt.Sprintf("the messaging entity %q could not be found", n.path)}
	}
	for path := strings.ToLower(n.path); ; {
		if c.granted[path] {
			return nil
		}
		i := strings.LastIndexByte(path, '/')
		if i < 0 {
			return &amqpError{"amqp:unauthorized-access", fmt.Sprintf("no token has been put for %q", n.path)}
		}
		path = path[:i]
	}
}

// detach ends a link from our side. Its transfers that are under way are ignored.
func (s *session) detach(handle uint32, reason *amqpError) {
	s.drop(handle)
	s.gone[handle] = true
	s.send(composite(codeDetach, handle, true, reason.value()))
}

func (s *session) drop(handle uint32) {
	if o := s.outlets[handle]; o != nil {
		s.c.peer.seats.leave(o)
	}
	delete(s.inlets, handle)
	delete(s.outlets, handle)
}

// detached is the client's detach, be it the first or the answer to ours.
func (s *session) detached(f *frame) error {
	handle := f.fields.uint(0, 0)
	if f.fields.err != nil {
		return f.fields.err
	}
	if s.gone[handle] {
		delete(s.gone, handle)
		return nil
	}
	if s.inlets[handle] == nil && s.outlets[handle] == nil {
		return &amqpError{"amqp:session:unattached-handle", fmt.Sprintf("no link has the handle %d", handle)}
	}
	s.drop(handle)
	s.send(composite(codeDetach, handle, true))
	return nil
}

// flow is what the client says of its window, and of the credit of a link on
// which we send.
func (s *session) flow(f *frame) error {
	window := f.fields.uint(0, 0) + f.fields.uint(1, 0) - s.nextOutgoing // what it has told, less what is under way
	handle, echo := f.fields.at(4), f.fields.bool(9)
	if f.fields.err != nil {
		return f.fields.err
	}
	s.theirWindow = window
	if handle == nil {
		if echo {
			s.tell()
		}
		return nil
	}
	h := f.fields.uint(4, 0)
	if o := s.outlets[h]; o != nil {
		return o.flow(f)
	}
	if in := s.inlets[h]; in != nil && echo {
		in.refill()
	}
	return f.fields.err
}

// tell is a flow of our state, with the state of a link if it is given.
func (s *session) tell(link ...any) {
	s.send(composite(codeFlow, append([]any{s.nextIncoming, s.window, s.nextOutgoing, uint32(windowMax)}, link...)...))
}
