package ehpeer

import (
	"errors"
	"fmt"
)

// inlet is a link on which the client sends: to the hub, one of its partitions,
// $cbs or $management.
type inlet struct {
	s         *session
	handle    uint32
	node      node
	delivered uint32 // delivery-count
	credit    uint32

	// The delivery under way.
	open     bool
	id       uint32
	format   uint32
	settled  bool
	tooLarge bool // its bytes are no longer kept
	bytes    []byte
}

// refill gives the client full credit.
func (in *inlet) refill() {
	in.credit = creditMax
	in.s.tell(in.handle, in.delivered, in.credit)
}

// transfer takes a delivery, or one of the pieces of a large one.
func (s *session) transfer(f *frame) error {
	s.nextIncoming++
	if s.window--; s.window <= windowMax/2 { // half of what is given is never used up
		s.window = windowMax
		s.tell()
	}
	handle, more, aborted := f.fields.uint(0, 0), f.fields.bool(5), f.fields.bool(9)
	in := s.inlets[handle]
	if f.fields.err != nil || s.gone[handle] {
		return f.fields.err
	}
	if in == nil {
		return &amqpError{"amqp:session:unattached-handle", fmt.Sprintf("no link has the handle %d", handle)}
	}
	if !in.open {
		in.credit--
		in.delivered++
		in.id, in.format = f.fields.uint(1, 0), f.fields.uint(3, 0)
	}
	in.settled = f.fields.bool(4) || in.open && in.settled
	in.open = more
	if f.fields.err != nil {
		return f.fields.err
	}
	in.take(f.payload)
	if more && !aborted {
		return nil
	}
	payload, tooLarge := in.bytes, in.tooLarge
	in.open, in.bytes, in.tooLarge = false, nil, false
	var err error
	switch {
	case aborted:
	case tooLarge:
		in.settle(rejected("amqp:link:message-size-exceeded", "the delivery is larger than the link allows"))
	default:
		err = in.deliver(payload)
	}
	if s.inlets[handle] == in && in.credit <= creditMax/2 {
		in.refill()
	}
	return err
}

// take keeps a piece, up to the size that the link allows.
func (in *inlet) take(piece []byte) {
	switch {
	case in.tooLarge:
	case uint64(len(in.bytes))+uint64(len(piece)) > in.s.c.peer.options.MaxMessageBytes:
		in.tooLarge, in.bytes = true, nil
	case in.bytes == nil:
		in.bytes = piece // most are of one piece, which is ours already
	default:
		in.bytes = append(in.bytes, piece...)
	}
}

// settle tells the client what became of its delivery.
func (in *inlet) settle(state described) {
	if !in.settled {
		in.s.send(composite(codeDisposition, true, in.id, nil, true, state))
	}
}

func rejected(condition, description string) described {
	return composite(codeRejected, (&amqpError{condition, description}).value())
}

func (in *inlet) deliver(payload []byte) error {
	if in.node.kind == nodeHub {
		return in.publish(payload)
	}
	m, err := parseMessage(payload)
	if err != nil {
		return err
	}
	if err := in.s.c.reply(in.node, &m); err != nil {
		return err
	}
	in.settle(composite(codeAccepted))
	return nil
}

// publish stores what was delivered to the hub, unless something is to go wrong.
func (in *inlet) publish(payload []byte) error {
	p := in.s.c.peer
	p.mu.Lock()
	p.stats.Transfers++
	p.mu.Unlock()
	key, batch, err := events(in.format, payload)
	if err != nil {
		in.settle(rejected("amqp:decode-error", err.Error()))
		return nil
	}
	fault := p.plan.take(onTransfer)
	switch fault {
	case none, DropAfter, NeverSettleAfter:
		p.keep(in.node.partition, key, batch)
	}
	switch fault {
	case Throttle:
		in.settle(rejected("com.microsoft:server-busy", "The request was terminated because the entity is being throttled. Error code : 50002."))
	case TooLarge:
		in.settle(rejected("amqp:link:message-size-exceeded", "the delivery is larger than the link allows"))
	case Release:
		in.settle(composite(codeReleased))
	case Modify:
		in.settle(composite(codeModified, true))
	case Detach:
		in.s.detach(in.handle, &amqpError{"amqp:link:detach-forced", "the link is force detached"})
	case Stolen:
		in.s.detach(in.handle, &amqpError{"amqp:link:stolen", "the link is taken over"})
	case ForceClose:
		return &amqpError{"amqp:connection:forced", "the connection is closed by the service"}
	case DropBefore, DropAfter:
		return errHangUp
	case NeverSettle, NeverSettleAfter:
	default:
		in.settle(composite(codeAccepted))
	}
	return nil
}

// events are the events of a delivery, one or a batch, and its partition key.
func events(format uint32, payload []byte) (key string, batch []*entry, err error) {
	m, err := parseMessage(payload)
	if err != nil {
		return "", nil, err
	}
	key = m.partitionKey()
	if format != formatBatch {
		e, err := m.event(key)
		return key, []*entry{e}, err
	}
	if len(m.data) == 0 {
		return "", nil, errors.New("ehpeer: batch has no events")
	}
	batch = make([]*entry, len(m.data))
	for i, data := range m.data {
		inner, err := parseMessage(data)
		if err != nil {
			return "", nil, fmt.Errorf("ehpeer: event %d of the batch: %w", i, err)
		}
		if batch[i], err = inner.event(key); err != nil {
			return "", nil, err
		}
	}
	return key, batch, nil
}
