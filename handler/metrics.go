package main

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"time"

	"github.com/costgate/costgate/handler/internal/admin"
)

const metricsInterval = time.Minute // between two lines of metrics in the log

// measure brings the metrics up to date that are not counted as they happen.
func (a *App) measure() {
	s := a.relay.Stats()
	set := func(name, help string, value int64) { a.metrics.Gauge("costgate_lake_"+name, help).Set(value) }
	set("sends", "Batches that the lake's relay has sent.", s.Sends)
	set("records_sent", "Records that the lake has stored.", s.Sent)
	set("records_resent", "Records that were sent once more after a failure: at most so many doubles.", s.Resent)
	set("records_refused", "Records that the lake can never take.", s.Refused)
	set("records_waiting", "Records in memory that the lake lacks.", int64(s.Waiting))
	set("records_unacknowledged", "Records that the lake has and the books still list as unsent.", int64(s.Unacknowledged))
	set("oldest_waiting_seconds", "For how long the oldest of the waiting records is held.", int64(s.Oldest/time.Second))
	if a.unaccepted != nil {
		set("transfers_unaccepted", "Batches that Event Hubs released or modified although its SDK calls them sent; they are sent again.", a.unaccepted())
	}
}

// logMetrics writes what has changed to the log each minute. There is no better
// way out of an instance that nobody can scrape.
func (a *App) logMetrics(ctx context.Context) {
	ticker := time.NewTicker(metricsInterval)
	defer ticker.Stop()
	before := map[string]int64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if changed := a.changed(before); len(changed) > 0 {
			a.log.LogAttrs(ctx, slog.LevelInfo, "metrics", changed...)
		}
	}
}

// changed returns the metrics that differ from those before, which it updates.
func (a *App) changed(before map[string]int64) (attrs []slog.Attr) {
	a.measure()
	now := map[string]int64{}
	a.metrics.Each(func(series string, value int64) {
		if now[series] = value; value != before[series] {
			attrs = append(attrs, slog.Int64(series, value))
		}
	})
	maps.Copy(before, now)
	return attrs
}

// serveMetrics serves them in Prometheus' text format, standalone, to whoever
// has ADMIN_KEY.
func (a *App) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if !a.admitted(r) {
		admin.Problem(w, http.StatusUnauthorized, "unauthorized", "Send ADMIN_KEY in the x-functions-key header, or as ?code=.")
		return
	}
	if !a.started(w, r) {
		return
	}
	a.measure()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = a.metrics.WriteTo(w) // the client may be gone
}
