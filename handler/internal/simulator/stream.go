package simulator

import (
	"math/rand/v2"
	"net/http"
	"time"
)

// stream writes the events of an answer at a pace that does not drift.
type stream struct {
	c       *call
	flusher http.Flusher
	start   time.Time
	paced   int64 // deltas sent
	random  *rand.Rand
	pending []byte // of a stream that is written in random pieces
	gone    bool
}

func (c *call) stream() *stream {
	h := c.head()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("X-Accel-Buffering", "no")
	s := &stream{c: c, start: time.Now()}
	s.flusher, _ = c.w.(http.Flusher)
	if c.settings.Split != 0 {
		s.random = rand.New(rand.NewPCG(c.settings.Split, 1))
	}
	c.w.WriteHeader(http.StatusOK)
	if c.settings.Fault == "hang" {
		s.flusher.Flush()
		<-c.r.Context().Done()
		s.gone = true
	}
	return s
}

// delta sends an event with content, when its time has come. It is false when
// the client has left, or a fault cuts the connection here.
func (s *stream) delta(event []byte) bool {
	if s.c.settings.Fault == "cut" && s.paced >= s.c.settings.CutAfter {
		s.drain()
		s.gone = true
		return false
	}
	if delay := time.Duration(s.c.settings.ChunkDelayUS) * time.Microsecond; delay > 0 {
		if !wait(s.c.r.Context().Done(), time.Until(s.start.Add(time.Duration(s.paced)*delay))) {
			s.gone = true
			return false
		}
	}
	s.paced++
	return s.send(event)
}

// send sends an event.
func (s *stream) send(event []byte) bool {
	if s.gone {
		return false
	}
	if s.random != nil {
		s.pending = append(s.pending, event...)
		for len(s.pending) > 200 {
			s.piece()
		}
		return !s.gone
	}
	s.write(event)
	return !s.gone
}

func (s *stream) write(p []byte) {
	if _, err := s.c.w.Write(p); err != nil {
		s.gone = true
	} else if s.c.settings.Flush == "" && s.flusher != nil {
		s.flusher.Flush()
	}
}

func (s *stream) piece() {
	n := 1 + s.random.IntN(min(len(s.pending), 150))
	s.write(s.pending[:n])
	s.pending = append(s.pending[:0], s.pending[n:]...)
}

func (s *stream) drain() {
	for len(s.pending) > 0 && !s.gone {
		s.piece()
	}
}

// end ends the stream, by cutting the connection if a fault says so.
func (s *stream) end() {
	s.drain()
	if s.c.settings.Fault == "cut" {
		panic(http.ErrAbortHandler)
	}
}
