package lake

import "time"

// Stats is what a Relay has done since it was made, and what waits in it.
type Stats struct {
	Sends   int64 // calls of the sink
	Sent    int64 // records that the sink has stored
	Resent  int64 // records in a Send after one that failed; how often doubles may have come
	Refused int64 // records that the sink can never take

	Waiting        int           // records in memory that the sink lacks; those in the outbox alone are not seen
	Unacknowledged int           // records that the sink has and the outbox still lists
	Oldest         time.Duration // how long the oldest of Waiting is held; 0: none
}

// hold is what is known of an entry while it is held.
type hold struct {
	since time.Time
	tried bool // given to the sink before, in a Send that failed
	found bool // in the outbox: it is older than what was offered
}

// Stats may be called at any time. It looks at everything that waits.
func (r *Relay) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Waiting = len(r.queue)
	s.Unacknowledged = len(r.held) - len(r.queue)
	now := time.Now()
	for _, e := range r.queue {
		s.Oldest = max(s.Oldest, now.Sub(r.held[e.name()].since))
	}
	return s
}
