package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/sse"
	"github.com/costgate/costgate/handler/internal/usage"
)

// unread is how many bytes of a stream are kept for the case that it ends
// without usage. Beyond it they are read into a count, piece by piece.
const unreadBytesMax = 256 << 10

// flow is a stream on its way to the client. Chunks and keep-alive comments
// come from two goroutines.
type flow struct {
	x       *exchange
	w       http.ResponseWriter
	flusher http.Flusher

	mu      sync.Mutex
	between bool // the last byte sent ended an event
	ended   bool
	timer   *time.Timer

	scanner *sse.Scanner
	reader  usage.Stream // sees every event, parses few
	unread  []byte       // events not yet seen by gather
	gather  *usage.Stream
	out     []byte // of the chunk at hand: what goes to the client, if not the chunk itself
}

// deliverStream passes a stream on, flushed for every chunk of upstream's, and
// settles it before its last event is sent: when the client sees the end, the
// books are closed.
func (x *exchange) deliverStream(ctx context.Context, w http.ResponseWriter) {
	flusher, _ := w.(http.Flusher)
	f := &flow{x: x, w: w, flusher: flusher, between: true, scanner: sse.NewScanner(EventBytesMax)}
	f.reader.Images = x.asked.media.images
	x.announceTrailers(w)
	w.Header().Del("Content-Length")
	w.WriteHeader(x.upstream.StatusCode)
	x.begins()
	f.keepAlive()
	defer f.end()
	buffer := takeBuffer()
	defer giveBuffer(buffer)
	for {
		n, err := x.upstream.Body.Read(*buffer)
		if n > 0 {
			if x.firstByte.IsZero() {
				x.firstByte = x.handler.options.Now()
			}
			f.chunk(ctx, (*buffer)[:n])
		}
		if err != nil {
			f.finish(ctx, err)
			return
		}
	}
}

// chunk meters one chunk and sends it.
func (f *flow) chunk(ctx context.Context, chunk []byte) {
	f.out = f.out[:0]
	f.scanner.Feed(chunk, f.event)
	if f.reader.Finished() && !f.x.settled {
		f.settle(ctx, nil)
	}
	send := chunk
	if f.x.asksUsage {
		send = f.out
	}
	f.send(send)
}

// event sees one whole event. Where the usage chunk must be taken out, whole
// events are sent, else the chunks as they come.
func (f *flow) event(e sse.Event) {
	usageOnly := false
	if e.Oversized {
		f.reader.Oversized(e.Raw)
	} else {
		usageOnly = f.reader.Event(e.Name, e.Data)
	}
	if !f.x.asksUsage || !usageOnly {
		if !f.x.operation.media() { // whose events are no text to be counted
			f.remember(e.Raw)
		}
		if f.x.asksUsage {
			f.out = append(f.out, e.Raw...)
		}
	}
}

// remember keeps what might have to be counted.
func (f *flow) remember(raw []byte) {
	if len(f.unread)+len(raw) > unreadBytesMax {
		f.count()
	}
	f.unread = append(f.unread, raw...)
}

// count reads the text out of what was kept.
func (f *flow) count() {
	if f.gather == nil {
		f.gather = &usage.Stream{GatherText: true}
	}
	sse.NewScanner(EventBytesMax).Feed(f.unread, func(e sse.Event) { f.gather.Event(e.Name, e.Data) })
	f.unread = f.unread[:0]
}

// send writes to the client and flushes.
func (f *flow) send(p []byte) {
	if len(p) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.x.write(f.w, p)
	f.between = endsEvent(p)
	f.flush()
}

func (f *flow) flush() {
	if f.flusher != nil && !f.x.gone.Load() {
		f.flusher.Flush()
	}
	if f.timer != nil {
		f.timer.Reset(f.x.handler.options.KeepAlive)
	}
}

func endsEvent(p []byte) bool {
	n := len(p)
	return n >= 2 && p[n-1] == '\n' && (p[n-2] == '\n' || (n >= 4 && p[n-2] == '\r' && p[n-3] == '\n'))
}

// keepAlive sends a comment whenever the stream is silent between two events
// for too long: the Functions host cuts an answer after 240 s of silence, and the
// platform before it waits 230 s for the first byte. So the time that the head of
// the answer took counts as silence too.
func (f *flow) keepAlive() {
	interval := f.x.handler.options.KeepAlive
	if interval <= 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timer = time.AfterFunc(interval-f.x.handler.options.Now().Sub(f.x.began), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.ended {
			return
		}
		if f.between {
			f.x.write(f.w, []byte(keepAliveComment))
		}
		f.flush()
	})
}

func (f *flow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	if f.timer != nil {
		f.timer.Stop()
	}
}

// pass sends an answer that is not metered: its head, and a body as it comes.
func (h *Handler) pass(w http.ResponseWriter, answer *http.Response, body io.Reader) {
	copyHeader(w.Header(), answer.Header)
	interval := h.options.KeepAlive
	if !isStream(answer.Header) || interval <= 0 {
		w.WriteHeader(answer.StatusCode)
		copyFlushing(w, body)
		return
	}
	w.Header().Del("Content-Length")
	w.WriteHeader(answer.StatusCode)
	p := &pulse{ResponseWriter: w, interval: interval, between: true}
	p.timer = time.AfterFunc(interval, p.beat)
	defer p.stop()
	copyFlushing(p, body)
}

// pulse fills the silence of a stream that is not metered with comments, as flow
// does for those that are.
type pulse struct {
	http.ResponseWriter
	interval time.Duration
	timer    *time.Timer

	mu      sync.Mutex
	between bool
	ended   bool
}

func (p *pulse) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(b) > 0 {
		p.between = endsEvent(b)
	}
	return p.ResponseWriter.Write(b)
}

// Flush follows every write.
func (p *pulse) Flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flush()
}

func (p *pulse) flush() {
	if flusher, ok := p.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
	p.timer.Reset(p.interval)
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	if p.between {
		_, _ = io.WriteString(p.ResponseWriter, keepAliveComment) // a client that is gone is noticed elsewhere
	}
	p.flush()
}

func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.timer.Stop()
}

// finish ends a stream whose upstream has ended.
func (f *flow) finish(ctx context.Context, err error) {
	cut := err
	if errors.Is(err, io.EOF) {
		cut = nil
	}
	if rest := f.scanner.Rest(); len(rest) > 0 {
		if !f.x.operation.media() {
			f.remember(rest)
		}
		if f.x.asksUsage {
			f.send(rest)
		}
	}
	if !f.x.settled {
		f.settle(ctx, cut)
	}
	if cut != nil && !f.x.gone.Load() {
		f.end()
		panic(http.ErrAbortHandler) // cut off here too: the client must not take the part for the whole
	}
	f.x.setTrailers(f.w)
}

// settle charges the stream: by its usage, else by what was seen of it.
func (f *flow) settle(ctx context.Context, cut error) {
	x := f.x
	x.answer = f.reader.Answer()
	if !x.answer.HasUsage && !x.operation.media() {
		f.count()
		gathered := f.gather.Answer()
		x.answer.Text, x.answer.ToolCalls = gathered.Text, gathered.ToolCalls
		x.answer.TextBytes = gathered.TextBytes
	}
	record := x.record()
	switch {
	case x.answer.HasUsage || cut == nil && x.answer.Finished:
		x.complete(&record, nil)
	default:
		x.interrupted(ctx, &record)
	}
	x.settle(ctx, record)
}
