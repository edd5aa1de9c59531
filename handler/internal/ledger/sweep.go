package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Beat writes this process's heartbeat. A process without one for 30 s is
// swept; if it lives all the same its settlements correct what the sweep did.
func (l *Ledger) Beat(ctx context.Context) error {
	row := Entity{Row: prefixInstance + l.options.Instance, ETag: AnyETag, Texts: map[string]string{"Beat": formatTime(l.options.Now())}}
	_, err := l.store.Apply(ctx, indexPartition, []Op{{Kind: Replace, Entity: row}})
	if errors.Is(err, ErrMissing) {
		_, err = l.store.Apply(ctx, indexPartition, []Op{{Kind: Insert, Entity: row}})
	}
	return err
}

// Run beats and, if sweeping, sweeps once a minute until ctx ends.
func (l *Ledger) Run(ctx context.Context, sweeping bool) {
	beat, sweep := time.NewTicker(heartbeatInterval), time.NewTicker(time.Minute)
	defer beat.Stop()
	defer sweep.Stop()
	for {
		var what string
		var err error
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			what, err = "heartbeat", l.Beat(ctx)
		case <-sweep.C:
			if sweeping {
				what = "sweep"
				_, err = l.Sweep(ctx)
			}
		}
		if err != nil && ctx.Err() == nil {
			l.log.Warn(what+" failed", "error", err)
		}
	}
}

// Sweep charges what processes that are gone have held: each intent becomes a
// record at its hold. It also deletes names of effects older than 7 days. Any
// process may sweep at any time, several at once too.
func (l *Ledger) Sweep(ctx context.Context) (swept int, err error) {
	alive, err := l.alive(ctx)
	if err != nil {
		return 0, fmt.Errorf("read heartbeats: %w", err)
	}
	ids, err := l.productIDs(ctx)
	if err != nil {
		return 0, fmt.Errorf("read products: %w", err)
	}
	for _, id := range ids {
		n, sweepErr := l.sweepProduct(ctx, id, alive)
		swept += n
		if sweepErr != nil {
			err = errors.Join(err, fmt.Errorf("sweep %s: %w", id, sweepErr))
		}
	}
	return swept, err
}

// alive are the processes whose intents are not to be swept. On an embedded
// store whatever is not this process is dead.
func (l *Ledger) alive(ctx context.Context) (map[string]bool, error) {
	alive := map[string]bool{l.options.Instance: true}
	if l.options.Embedded {
		return alive, nil
	}
	var forgotten []Op
	err := l.scan(ctx, indexPartition, prefixInstance, func(e Entity, date time.Time) error {
		switch age := date.Sub(e.Updated); { // both by the store's clock
		case age <= abandonedAfter:
			alive[e.Row[len(prefixInstance):]] = true
		case age > instanceForgotten && len(forgotten) < OpsMax:
			forgotten = append(forgotten, Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: e.ETag}})
		}
		return nil
	})
	if err == nil && len(forgotten) > 0 {
		_ = l.deleteAll(ctx, indexPartition, forgotten) // the next sweep finds what is left
	}
	return alive, err
}

func (l *Ledger) sweepProduct(ctx context.Context, id string, alive map[string]bool) (swept int, err error) {
	var waiting []*job
	err = l.scan(ctx, id, prefixIntent, func(e Entity, _ time.Time) error {
		if alive[e.Texts["Instance"]] {
			return nil
		}
		op, window, err := sweepOf(e)
		if err != nil {
			return err
		}
		waiting = append(waiting, l.writer(id, window).enqueue(ctx, op))
		return nil
	})
	for _, j := range waiting {
		select {
		case jobErr := <-j.done:
			if jobErr == nil {
				swept++
			}
			err = errors.Join(err, jobErr)
		case <-ctx.Done():
			return swept, ctx.Err()
		}
	}
	if err != nil {
		return swept, err
	}
	return swept, l.forgetOnce(ctx, id)
}

// sweepOf makes the record of an intent whose process is gone.
func sweepOf(intent Entity) (*sweepOp, quota.Window, error) {
	var r usage.Record
	if err := json.Unmarshal([]byte(intent.Texts["Doc"]), &r); err != nil {
		return nil, quota.Window{}, fmt.Errorf("intent %s/%s: %w", intent.Partition, intent.Row, err)
	}
	r.Outcome, r.UsageSource = usage.Text(usage.OutcomeSwept), usage.Text(usage.SourceSwept)
	r.Charge = usage.Of(intent.Ints["Amount"])
	r.CostNanoUSD, r.ListCostNanoUSD = r.HoldNanoUSD, r.HoldNanoUSD
	return &sweepOp{intent: intent, record: r}, quota.Window{Name: intent.Texts["Period"]}, nil
}

// forgetOnce deletes the names of effects that are older than 7 days.
func (l *Ledger) forgetOnce(ctx context.Context, id string) error {
	var old []Op
	err := l.scan(ctx, id, prefixOnce, func(e Entity, date time.Time) error {
		if date.Sub(e.Updated) > onceForgotten && len(old) < OpsMax {
			old = append(old, Op{Kind: Delete, Entity: Entity{Row: e.Row, ETag: e.ETag}})
		}
		return nil
	})
	if err != nil || len(old) == 0 {
		return err
	}
	return l.deleteAll(ctx, id, old)
}
