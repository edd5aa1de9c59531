package ratelimit

// seconds is how far back a window looks: 60 whole seconds and the one that runs,
// so that no 60 s, wherever they begin, hold more than what it allows.
const seconds = 61

// window counts what was in the last seconds, one count each.
type window struct {
	counts [seconds]int64
	newest int64 // second of the newest count
	sum    int64
}

// roll forgets what is too old. A clock that was set back counts as the same
// second.
func (w *window) roll(now int64) int64 {
	if w.newest == 0 || now-w.newest >= seconds {
		*w = window{newest: max(now, w.newest)}
		return w.newest
	}
	for w.newest < now {
		w.newest++
		at := w.newest % seconds
		w.sum -= w.counts[at]
		w.counts[at] = 0
	}
	return w.newest
}

// room tells in how many seconds the sum is most or less; 0: it is now. most is not
// below 0.
func (w *window) room(now, most int64) int64 {
	now = w.roll(now)
	sum := w.sum
	for wait := range int64(seconds) {
		if sum <= most {
			return wait
		}
		sum -= w.counts[(now+wait+1)%seconds] // the oldest goes next
	}
	return seconds
}

func (w *window) add(now, n int64) {
	now = w.roll(now)
	w.counts[now%seconds] += n
	w.sum += n
}

// correct changes a count of the second at, as far as it still counts.
func (w *window) correct(now, at, n int64) {
	now = w.roll(now)
	if at > now || now-at >= seconds {
		return
	}
	n = max(n, -w.counts[at%seconds])
	w.counts[at%seconds] += n
	w.sum += n
}
