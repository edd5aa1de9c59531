package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// WaitingCrossing is a crossing that was not told of yet.
type WaitingCrossing struct {
	In       time.Duration // until it is due; 0: it is
	Attempts int           // that have begun
	row      string        // without its prefix
	etag     string
}

// WaitingCrossings are all crossings that were not told of, by any process.
func (l *Ledger) WaitingCrossings(ctx context.Context) (waiting []WaitingCrossing, err error) {
	err = l.scan(ctx, crossingPartition, prefixWaiting, func(e Entity, date time.Time) error {
		w := WaitingCrossing{Attempts: int(e.Ints["Attempts"]), row: strings.TrimPrefix(e.Row, prefixWaiting), etag: e.ETag}
		if wait := time.Duration(e.Ints["WaitMS"]) * time.Millisecond; wait > 0 {
			w.In = max(0, wait-date.Sub(e.Updated))
		}
		waiting = append(waiting, w)
		return nil
	})
	return waiting, err
}

// ClaimCrossing makes a waiting crossing the caller's for a while, in which it is
// due for nobody else: it is begun to be told. It is nil if somebody else has it,
// or if that cannot be said.
func (l *Ledger) ClaimCrossing(ctx context.Context, w WaitingCrossing, d time.Duration) (*Crossing, error) {
	e := waitingEntity(w.row, w.Attempts+1, d)
	e.ETag = w.etag
	etags, err := l.store.Apply(ctx, crossingPartition, []Op{{Kind: Replace, Entity: e}})
	switch {
	case errors.Is(err, ErrConflict), errors.Is(err, ErrMissing):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("claim a crossing: %w", err)
	}
	row, err := l.store.Get(ctx, crossingPartition, prefixCrossing+w.row)
	if errors.Is(err, ErrMissing) { // somebody has cleared the table by hand
		_, err = l.store.Apply(ctx, crossingPartition, []Op{{Kind: Delete, Entity: Entity{Row: e.Row, ETag: etags[0]}}})
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("read a crossing: %w", err)
	}
	c := crossingOf(row)
	c.Attempts, c.row, c.etag = w.Attempts+1, w.row, etags[0]
	return c, nil
}

// PostponeCrossing makes a claimed crossing due after a while. If its claim has
// run out and somebody else has it, nothing happens.
func (l *Ledger) PostponeCrossing(ctx context.Context, c *Crossing, d time.Duration) error {
	e := waitingEntity(c.row, c.Attempts, d)
	e.ETag = c.etag
	_, err := l.store.Apply(ctx, crossingPartition, []Op{{Kind: Replace, Entity: e}})
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrMissing) {
		return nil
	}
	return err
}

// EndCrossing notes what became of a crossing, such as "delivered": it does not
// wait any more. It may be called again after an error, and for one whose claim
// has run out.
func (l *Ledger) EndCrossing(ctx context.Context, c *Crossing, outcome string) error {
	row := c.entity(c.row)
	row.ETag, row.Texts["Outcome"], row.Texts["Ended"] = AnyETag, outcome, formatTime(l.rt.Now())
	_, err := l.store.Apply(ctx, crossingPartition, []Op{
		{Kind: Replace, Entity: row}, {Kind: Delete, Entity: Entity{Row: prefixWaiting + c.row, ETag: AnyETag}},
	})
	if errors.Is(err, ErrMissing) { // somebody else did
		return nil
	}
	return err
}

// waitingEntity is due when the store's clock has gone on by wait since it was
// written: no two processes need agree about the time.
func waitingEntity(name string, attempts int, wait time.Duration) Entity {
	return Entity{Row: prefixWaiting + name, Ints: map[string]int64{"Attempts": int64(attempts), "WaitMS": int64(wait / time.Millisecond)}}
}

// collectCrossings deletes those of periods that ended long ago, by the store's
// clock. Nothing depends on when one goes.
func (l *Ledger) collectCrossings(ctx context.Context) {
	s := &l.crossings
	if !l.notices() || s.from == "" && l.rt.Elapsed() < s.due {
		return
	}
	ctx, cancel := l.rt.Deadline(ctx, crossingsSweepMax)
	defer cancel()
	if s.from == "" {
		s.from, s.due = prefixCrossing, l.rt.Elapsed()+crossingsEvery
	}
	for range crossingsPagesMax {
		next, err := l.collectCrossingsPage(ctx, s.from)
		if err != nil {
			l.log.Warn("crossings of periods that ended long ago stay for now", "error", err)
			return // the next sweep reads this page
		}
		if s.from = next; next == "" {
			return
		}
	}
}

func (l *Ledger) collectCrossingsPage(ctx context.Context, from string) (next string, err error) {
	page, err := l.store.Range(ctx, crossingPartition, from, after(prefixCrossing), PageMax)
	if err != nil {
		return "", err
	}
	var old []Op
	for _, e := range page.Entities {
		// Who is still to be told has no outcome yet.
		if end := parseTime(e.Texts["End"]); !end.IsZero() && page.Date.Sub(end) > crossingsKept && e.Texts["Outcome"] != "" {
			old = append(old, Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: e.ETag}})
		}
	}
	for some := range slices.Chunk(old, OpsMax) {
		if err := l.deleteAll(ctx, crossingPartition, some); err != nil {
			return "", err
		}
	}
	return page.Next, nil
}
