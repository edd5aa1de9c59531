package main

import (
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"
)

// deadlined remembers the deadlines of a connection.
type deadlined struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (d *deadlined) SetReadDeadline(at time.Time) error  { d.read = at; return nil }
func (d *deadlined) SetWriteDeadline(at time.Time) error { d.write = at; return nil }

// A call ends some time after STREAM_MAX whatever it waits for, also for its client.
func TestCallsAreLimited(t *testing.T) {
	f := func(hosted bool) {
		t.Helper()
		d := &deadlined{ResponseRecorder: httptest.NewRecorder()}
		began := time.Now()
		NewApp(&Config{Hosted: hosted, StreamMax: time.Hour}, slog.New(slog.DiscardHandler)).ServeHTTP(d, httptest.NewRequest("GET", "/health", nil))
		least, most := began.Add(time.Hour+hostedMargin), time.Now().Add(time.Hour+hostedMargin)
		for _, at := range []time.Time{d.read, d.write} {
			if at.Before(least) || at.After(most) {
				t.Errorf("hosted %v: ends at %v", hosted, at)
			}
		}
	}
	f(true)
	f(false)
}
