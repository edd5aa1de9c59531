package ehpeer

import (
	"sort"
	"strconv"
	"sync"
	"time"
)

// The store forgets its oldest events beyond these.
const (
	EventsMax = 1 << 18
	BytesMax  = 1 << 30 // of encoded events
)

// Event is an event that the peer has stored. What it points to must not be
// changed: consumers get the same memory.
type Event struct {
	Partition    int
	Sequence     int64     // in its partition, from 0 without gaps
	Offset       string    // a number that grows within the partition
	Enqueued     time.Time // UTC, whole milliseconds, never before the event ahead of it
	MessageID    string
	PartitionKey string
	ContentType  string
	Properties   map[string]any
	Body         []byte // its data sections; nil if it has a body of another kind
}

type entry struct {
	Event
	offset int64
	bare   raw
}

func (e *entry) size() int { return len(e.bare) + 1 }

// position is where a consumer begins.
type position struct {
	by        string // annotation: offset, sequence number or time of enqueuing
	after     int64
	inclusive bool
	latest    bool
}

type partition struct {
	events   []*entry // those kept, in sequence
	sequence int64    // of the next event
	offset   int64    // of the next event
	last     time.Time
}

// store keeps the events of a hub's partitions.
type store struct {
	eventsMax, bytesMax int
	now                 func() time.Time

	mu         sync.Mutex
	partitions []partition
	events     []*entry // of all partitions, in the order of storing
	bytes      int
	dropped    int64 // events forgotten
	turn       int   // of the partitions, for events that name none
	watchers   map[chan struct{}]struct{}
}

func newStore(partitions int) *store {
	return &store{
		eventsMax: EventsMax, bytesMax: BytesMax, now: time.Now,
		partitions: make([]partition, partitions), watchers: map[chan struct{}]struct{}{},
	}
}

// add stores all of a batch, in one partition. Wanted is the partition that the
// sender named, or below 0: the key decides, and without a key they take turns.
func (s *store) add(wanted int, key string, batch []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case wanted >= 0:
	case key != "":
		wanted = partitionOf(key, len(s.partitions))
	default:
		wanted = s.turn
		s.turn = (s.turn + 1) % len(s.partitions)
	}
	p := &s.partitions[wanted]
	if now := s.now().UTC().Truncate(time.Millisecond); now.After(p.last) {
		p.last = now
	}
	for _, e := range batch {
		e.Partition, e.Sequence, e.Enqueued = wanted, p.sequence, p.last
		e.offset, e.Offset = p.offset, strconv.FormatInt(p.offset, 10)
		p.sequence++
		p.offset += int64(e.size())
		s.bytes += e.size()
		p.events = append(p.events, e)
		s.events = append(s.events, e)
	}
	for len(s.events) > s.eventsMax || s.bytes > s.bytesMax {
		s.drop()
	}
	for w := range s.watchers {
		wake(w)
	}
}

// drop forgets the oldest event, which is also the first of its partition.
func (s *store) drop() {
	e := s.events[0]
	p := &s.partitions[e.Partition]
	s.events[0], p.events[0] = nil, nil
	s.events, p.events = s.events[1:], p.events[1:]
	s.bytes -= e.size()
	s.dropped++
}

// read gives up to n events of a partition from a sequence number on, or from the
// first that is kept.
func (s *store) read(partition int, sequence int64, n int) []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.partitions[partition]
	i := max(sequence-p.first(), 0)
	if i >= int64(len(p.events)) {
		return nil
	}
	found := p.events[i:]
	return append([]*entry(nil), found[:min(n, len(found))]...)
}

// first is the sequence number of the first event that is kept.
func (p *partition) first() int64 { return p.sequence - int64(len(p.events)) }

// find is the sequence number of the first event at a position.
func (s *store) find(partition int, at position) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.partitions[partition]
	if at.latest {
		return p.sequence
	}
	i := sort.Search(len(p.events), func(i int) bool {
		got := p.events[i].value(at.by)
		return got > at.after || at.inclusive && got == at.after
	})
	return p.first() + int64(i)
}

// value is the number by which an annotation orders events.
func (e *entry) value(annotation string) int64 {
	switch annotation {
	case annotationOffset:
		return e.offset
	case annotationEnqueued:
		return e.Enqueued.UnixMilli()
	}
	return e.Sequence
}

// state is what $management tells of a partition. Without events the last number
// is -1, as the service has it.
type state struct {
	first, last int64
	offset      string
	enqueued    time.Time
	empty       bool
}

func (s *store) state(partition int) state {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.partitions[partition]
	st := state{first: p.first(), last: p.sequence - 1, offset: "-1", enqueued: p.last, empty: len(p.events) == 0}
	if !st.empty {
		st.offset = p.events[len(p.events)-1].Offset
	}
	return st
}

func (s *store) all() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := make([]Event, len(s.events))
	for i, e := range s.events {
		events[i] = e.Event
	}
	return events
}

func (s *store) counts() (kept int, dropped int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events), s.dropped
}

// watch wakes by a channel whenever something is stored.
func (s *store) watch(w chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
}

func (s *store) unwatch(w chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, w)
}

// wake fills a channel of one place, if it is empty.
func wake(w chan struct{}) {
	select {
	case w <- struct{}{}:
	default:
	}
}
