package ehpeer

import (
	"fmt"
	"testing"
	"time"
)

// put stores a batch of small events.
func put(s *store, partition int, key string, n int) {
	batch := make([]*entry, n)
	for i := range batch {
		batch[i] = &entry{bare: make(raw, 9)}
	}
	s.add(partition, key, batch)
}

func TestEventsMax(t *testing.T) {
	s := newStore(2)
	put(s, 0, "", 1)
	put(s, 1, "", EventsMax-2)
	put(s, 0, "", 1)
	if kept, dropped := s.counts(); kept != EventsMax || dropped != 0 {
		t.Errorf("at the limit %d kept, %d dropped", kept, dropped)
	}
	put(s, 1, "", 1)
	if kept, dropped := s.counts(); kept != EventsMax || dropped != 1 {
		t.Errorf("one past it %d kept, %d dropped", kept, dropped)
	}
	if e := s.read(0, 0, 10); len(e) != 1 || e[0].Sequence != 1 {
		t.Errorf("partition 0 has %v", e)
	}
	if st := s.state(0); st.first != 1 || st.last != 1 || st.offset != "10" || st.empty {
		t.Errorf("partition 0: %+v", st)
	}
}

func TestBytesMax(t *testing.T) {
	s := newStore(1)
	s.bytesMax = 30 // three events, of ten bytes each
	put(s, 0, "", 3)
	if kept, dropped := s.counts(); kept != 3 || dropped != 0 {
		t.Errorf("at the limit %d kept, %d dropped", kept, dropped)
	}
	s.add(0, "", []*entry{{bare: make(raw, 0)}}) // one byte
	if kept, dropped := s.counts(); kept != 3 || dropped != 1 {
		t.Errorf("one past it %d kept, %d dropped", kept, dropped)
	}
	s.add(0, "", []*entry{{bare: make(raw, 30)}}) // alone too large
	if kept, dropped := s.counts(); kept != 0 || dropped != 5 {
		t.Errorf("%d kept, %d dropped", kept, dropped)
	}
	if st := s.state(0); st.first != 5 || st.last != 4 || st.offset != "-1" || !st.empty {
		t.Errorf("%+v", st)
	}
}

func TestFind(t *testing.T) {
	s := newStore(1)
	start := time.UnixMilli(1000)
	s.now = func() time.Time { return start }
	put(s, 0, "", 2)
	start = start.Add(-time.Second) // a clock that is set back does not set the hub's back
	put(s, 0, "", 1)
	start = start.Add(2*time.Second + time.Nanosecond)
	put(s, 0, "", 2)
	s.drop() // offsets are 0, 10, 20, 30 and 40, times 1000, 1000, 1000, 2000 and 2000
	f := func(at position, want int64) {
		t.Helper()
		if got := s.find(0, at); got != want {
			t.Errorf("%+v: got %d, want %d", at, got, want)
		}
	}
	f(position{by: annotationOffset, after: -1}, 1)
	f(position{by: annotationOffset, after: 10}, 2)
	f(position{by: annotationOffset, after: 10, inclusive: true}, 1)
	f(position{by: annotationOffset, after: 15}, 2)
	f(position{by: annotationOffset, after: 40}, 5)
	f(position{by: annotationSequence, after: 0, inclusive: true}, 1)
	f(position{by: annotationSequence, after: 3}, 4)
	f(position{by: annotationSequence, after: 99}, 5)
	f(position{by: annotationEnqueued, after: 999}, 1)
	f(position{by: annotationEnqueued, after: 1000}, 3)
	f(position{by: annotationEnqueued, after: 1000, inclusive: true}, 1)
	f(position{by: annotationEnqueued, after: 2000}, 5)
	f(position{latest: true}, 5)
}

// TestPartitionOf holds the hash against values that Azure's libraries test
// theirs with, too.
func TestPartitionOf(t *testing.T) {
	f := func(key string, want int16) {
		t.Helper()
		b, c := lookup3([]byte(key))
		if got := int16(b ^ c); got != want {
			t.Errorf("%q: got %d, want %d", key, got, want)
		}
	}
	f("7", -15263)
	f("131", 30562)
	f("7149583486996073602", 12977)
	f("FWfAT", -22341)
	f("sOdeEAsyQoEuEFPGerWO", -6503)

	for i := range 1000 {
		key := fmt.Sprint("key ", i)
		for _, n := range []int{1, 4, PartitionsMax} {
			if got := partitionOf(key, n); got < 0 || got >= n {
				t.Errorf("%q: partition %d of %d", key, got, n)
			}
		}
	}
}

func TestPartitionsMax(t *testing.T) {
	f := func(n int, ok bool) {
		t.Helper()
		if _, err := newPeer(Options{Partitions: n}); (err == nil) != ok {
			t.Errorf("%d partitions: %v", n, err)
		}
	}
	f(1, true)
	f(PartitionsMax, true)
	f(PartitionsMax+1, false)
	f(-1, false)
}

func TestTurns(t *testing.T) {
	s := newStore(3)
	for range 4 {
		put(s, -1, "", 2)
	}
	put(s, -1, "key", 1)
	put(s, 2, "key", 1)
	var got []int
	for _, e := range s.all() {
		got = append(got, e.Partition)
	}
	want(t, "partitions", got, []int{0, 0, 1, 1, 2, 2, 0, 0, partitionOf("key", 3), 2})
}
