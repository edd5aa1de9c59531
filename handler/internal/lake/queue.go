package lake

import "slices"

// overflows tells whether there are too many bytes for one more entry, with so
// many there already. mu is held.
func (r *Relay) overflows(waiting int, e Entry) bool {
	return waiting > 0 && r.bytes+len(e.Record) > QueueBytesMax
}

// foundBefore is where the next page of the outbox belongs in the queue: behind
// the pages before it, ahead of what was offered. mu is held.
func (r *Relay) foundBefore() int {
	at := slices.IndexFunc(r.queue, func(e Entry) bool { return !r.held[e.name()].found })
	if at < 0 {
		at = len(r.queue)
	}
	return at
}

// take copies the next batch: the oldest entries, but for products that the last
// try failed with as long as there are others. One partition of a hub that does
// not answer keeps nothing else back, and each product keeps its order. A batch
// stays in the queue until the sink has it.
func (r *Relay) take() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	batch := r.oldest()
	if len(batch) == 0 {
		r.around = nil
		batch = r.oldest()
	}
	r.stats.Sends++
	for _, e := range batch {
		h := r.held[e.name()]
		if h.tried {
			r.stats.Resent++
		}
		h.tried = true
	}
	return batch
}

// oldest are the first entries of the queue outside the products of r.around. mu
// is held.
func (r *Relay) oldest() (batch []Entry) {
	bytes := 0
	for _, e := range r.queue {
		if r.around[e.Product] {
			continue
		}
		if bytes += len(e.Record) + 1; len(batch) == r.options.BatchMax || len(batch) > 0 && bytes > BatchBytesMax {
			break
		}
		batch = append(batch, e)
	}
	return batch
}

// goAround leaves out the products that were not stored, once: the next batch
// without one that could be sent begins with the oldest again.
func (r *Relay) goAround(batch []Entry, stored []bool) {
	before := r.around
	r.around = map[string]bool{}
	for i, e := range batch {
		if !stored[i] {
			r.around[e.Product] = true
		}
	}
	if len(before) > 0 && !slices.Contains(stored, true) {
		r.around = nil // nothing else can be sent either
	}
}

// remove takes out of the queue what is stored (nil: all of the batch) and what was
// refused. The rest keeps its place and order.
func (r *Relay) remove(batch []Entry, isStored []bool, bad *RecordError) (stored []Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := make(map[name]bool, len(batch))
	for i, e := range batch {
		switch {
		case isStored == nil || isStored[i]:
			stored = append(stored, e)
		case bad != nil && bad.Index == i:
			r.refuse(e, bad)
		default:
			continue
		}
		gone[e.name()] = true
		r.bytes -= len(e.Record)
	}
	left := r.queue[:0]
	for i, e := range r.queue {
		if len(gone) == 0 { // the rest stays as it is
			left = append(left, r.queue[i:]...)
			break
		}
		if gone[e.name()] {
			delete(gone, e.name())
		} else {
			left = append(left, e)
		}
	}
	clear(r.queue[len(left):])
	if r.queue = left; len(left) == 0 {
		r.queue = nil
	}
	r.stats.Sent += int64(len(stored))
	return stored
}

// refuse lets go of an entry. It stays in the outbox, and is tried again by the
// next process. mu is held.
func (r *Relay) refuse(e Entry, bad *RecordError) {
	delete(r.held, e.name())
	if len(r.refused) < RefusedMax {
		r.refused[e.name()] = struct{}{}
	}
	r.stats.Refused++
	r.options.Log.Error("a record stays in the outbox", "product_id", e.Product, "row", e.Row, "error", bad)
}
