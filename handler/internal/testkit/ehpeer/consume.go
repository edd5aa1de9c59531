package ehpeer

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"sync"
)

const (
	burstMax   = 64 // messages on a link before others have their turn
	repliesMax = 64 // that wait for credit on a link
)

// outlet is a link on which the peer sends: the events of a partition, or the
// answers of $cbs or $management. Everything goes out settled: the SDK accepts
// nothing, and gives new credit only for what needs no acceptance.
type outlet struct {
	s         *session
	handle    uint32
	address   string // of the link's end at the client, by which it is replied to
	delivered uint32 // delivery-count
	credit    uint32
	drain     bool
	queue     [][]byte // messages to send next

	// Of consumers.
	consumer bool
	seat     seat
	epoch    int64  // -1: none
	name     string // of the receiver
	sequence int64  // of the event to read next

	// The message under way.
	started bool
	id      uint32
	rest    []byte
}

// consume makes an outlet read events. It is refused if the filter cannot be read
// or the seat is taken by a higher epoch.
func (o *outlet) consume(n node, properties, filters map[any]any) (refused *amqpError) {
	at, err := startOf(filters)
	if err != nil {
		return &amqpError{"amqp:invalid-field", err.Error()}
	}
	o.consumer, o.seat, o.epoch = true, seat{n.group, n.partition}, -1
	o.name, _ = properties[symbol("com.microsoft:receiver-name")].(string)
	if e, ok := properties[symbol("com.microsoft:epoch")].(int64); ok {
		o.epoch = e
	}
	o.sequence = o.s.c.peer.store.find(n.partition, at)
	return o.s.c.peer.seats.take(o)
}

// selector is the only form of filter that the SDKs send.
var selector = regexp.MustCompile(`^amqp\.annotation\.(x-opt-offset|x-opt-sequence-number|x-opt-enqueued-time) (>=?) '(@latest|-?[0-9]{1,19})'$`)

// startOf reads where a consumer begins; without a filter, at the first event.
func startOf(filters map[any]any) (position, error) {
	const name = symbol("apache.org:selector-filter:string")
	filter, ok := filters[name]
	if !ok {
		return position{by: annotationSequence, after: -1}, nil
	}
	text, _ := plain(filter).(string)
	m := selector.FindStringSubmatch(text)
	if m == nil {
		return position{}, fmt.Errorf("ehpeer: selector %q", text)
	}
	if m[3] == "@latest" {
		return position{latest: true}, nil
	}
	after, err := strconv.ParseInt(m[3], 10, 64)
	return position{by: m[1], after: after, inclusive: m[2] == ">="}, err
}

// flow is the client's credit for a link on which we send.
func (o *outlet) flow(f *frame) error {
	given := f.fields.uint(5, 0) + f.fields.uint(6, 0) // its delivery-count and credit
	o.drain = f.fields.bool(8)
	o.credit = given - o.delivered
	if int32(o.credit) < 0 { // it had not seen all of ours, and now wants fewer
		o.credit = 0
	}
	if f.fields.bool(9) {
		o.s.tell(o.handle, o.delivered, o.credit)
	}
	return f.fields.err
}

// pump sends what waits, as far as credits and windows allow, and says whether
// there is more that may go at once.
func (c *conn) pump() (more bool) {
	if c.closing != nil {
		return false
	}
	for _, s := range c.sessions {
		for _, o := range s.outlets {
			more = o.pump() || more
		}
	}
	return more
}

func (o *outlet) pump() (more bool) {
	for range burstMax {
		if !o.started {
			if o.credit == 0 || o.s.theirWindow == 0 {
				return false
			}
			if !o.next() {
				o.drained()
				return false
			}
		}
		if !o.push() {
			return false
		}
	}
	return true
}

// next takes up the next message, if there is one.
func (o *outlet) next() bool {
	if len(o.queue) == 0 && o.consumer {
		for _, e := range o.s.c.peer.store.read(o.seat.partition, o.sequence, burstMax) {
			o.queue = append(o.queue, e.encode())
			o.sequence = e.Sequence + 1
		}
	}
	if len(o.queue) == 0 {
		return false
	}
	o.started, o.rest, o.queue = true, o.queue[0], o.queue[1:]
	o.id = o.s.deliveries
	o.s.deliveries++
	o.credit--
	o.delivered++
	return true
}

// push sends the message under way, in as many frames as it needs. It is false if
// the window closes before its end.
func (o *outlet) push() bool {
	const overhead = 64 // of a frame with a transfer
	tag := binary.BigEndian.AppendUint32(nil, o.id)
	for o.started {
		if o.s.theirWindow == 0 {
			return false
		}
		piece := o.rest[:min(len(o.rest), o.s.c.frameMax-overhead)]
		o.rest = o.rest[len(piece):]
		o.started = len(o.rest) > 0
		o.s.theirWindow--
		o.s.nextOutgoing++
		o.s.c.send(o.s.channel, composite(codeTransfer, o.handle, o.id, tag, uint32(0), true, o.started), piece)
	}
	return true
}

// drained gives credit back that the client wants used or returned.
func (o *outlet) drained() {
	if o.drain {
		o.delivered += o.credit
		o.credit, o.drain = 0, false
		o.s.tell(o.handle, o.delivered, o.credit, nil, true)
	}
}

// seat is where consumers sit: a partition in a consumer group.
type seat struct {
	group     string
	partition int
}

// seats knows who reads what. Rule: a reader with an epoch (OwnerLevel) ends the
// readers with none or no higher one, and keeps later ones with none or a lower
// one out. Readers without epoch share.
type seats struct {
	mu    sync.Mutex
	taken map[seat][]*outlet
}

// take seats a consumer, or says why not. Those whom it drives away hear of it
// from their own connection.
func (s *seats) take(o *outlet) *amqpError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		s.taken = map[seat][]*outlet{}
	}
	var stay []*outlet
	for _, other := range s.taken[o.seat] {
		if other.epoch > o.epoch {
			return &amqpError{"amqp:link:stolen", fmt.Sprintf("receiver %q has the higher epoch %d", other.name, other.epoch)}
		}
		if o.epoch < 0 {
			stay = append(stay, other)
			continue
		}
		reason := &amqpError{"amqp:link:stolen", fmt.Sprintf("new receiver %q with the epoch %d takes over from %q", o.name, o.epoch, other.name)}
		other.s.c.order(func() {
			if other.s.outlets[other.handle] == other {
				other.s.detach(other.handle, reason)
			}
		})
	}
	s.taken[o.seat] = append(stay, o)
	return nil
}

func (s *seats) leave(o *outlet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stay := s.taken[o.seat][:0:0]
	for _, other := range s.taken[o.seat] {
		if other != o {
			stay = append(stay, other)
		}
	}
	if len(stay) == 0 {
		delete(s.taken, o.seat)
	} else {
		s.taken[o.seat] = stay
	}
}
