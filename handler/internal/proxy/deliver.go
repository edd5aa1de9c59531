package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"sync"

	"github.com/costgate/costgate/handler/internal/usage"
)

// buffers carry bytes from upstream to the client.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

func takeBuffer() *[]byte  { return buffers.Get().(*[]byte) } //nolint:forcetypeassert // the pool holds nothing else
func giveBuffer(b *[]byte) { buffers.Put(b) }
func isStream(h http.Header) bool {
	mediaType, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return mediaType == "text/event-stream"
}

// deliver passes the answer on and settles it.
func (x *exchange) deliver(ctx context.Context, w http.ResponseWriter) {
	copyHeader(w.Header(), x.upstream.Header)
	if x.upstream.Header.Get("Content-Type") == "" {
		w.Header()["Content-Type"] = nil // Azure's 404 has none; do not guess one
	}
	switch {
	case x.upstream.StatusCode < http.StatusOK || x.upstream.StatusCode >= http.StatusMultipleChoices:
		x.deliverError(ctx, w)
	case isStream(x.upstream.Header):
		x.deliverStream(ctx, w)
	default:
		x.deliverBody(ctx, w)
	}
}

// deliverError passes on an answer that says no, and charges what Azure
// charges for it.
func (x *exchange) deliverError(ctx context.Context, w http.ResponseWriter) {
	body, err := io.ReadAll(io.LimitReader(x.upstream.Body, errorBytesMax))
	x.firstByte = x.handler.options.Now()
	x.answer = usage.FromBody(body, false)
	record := x.record()
	switch x.upstream.StatusCode {
	case http.StatusBadRequest:
		switch {
		case x.answer.Filtered || bytes.Contains(body, []byte("content_filter")):
			x.promptOnly(&record, usage.OutcomeFiltered)
		case bytes.Contains(body, []byte("context_length_exceeded")):
			x.promptOnly(&record, usage.OutcomeUpstreamError)
		default:
			x.notBilled(&record, usage.OutcomeUpstreamError)
		}
	case http.StatusRequestTimeout:
		x.promptOnly(&record, usage.OutcomeTimeout)
		if record.UsageSource != usage.Text(usage.SourceNone) {
			record.UsageSource = usage.Text(usage.SourceEstimate)
		}
	default:
		x.notBilled(&record, usage.OutcomeUpstreamError)
	}
	x.settle(ctx, record)
	x.costHeaders(w)
	w.WriteHeader(x.upstream.StatusCode)
	_, _ = w.Write(body)
	if err == nil && !x.gone.Load() {
		copyFlushing(w, x.upstream.Body) // what is behind errorBytesMax
	}
}

// deliverBody passes on an answer that comes as one JSON body. Up to
// AnswerBufferMax it is settled first, so that its headers tell the cost; a
// larger one is metered as it goes by.
func (x *exchange) deliverBody(ctx context.Context, w http.ResponseWriter) {
	if x.operation.name == opSpeech { // it is played while it comes
		x.deliverLarge(ctx, w, nil)
		return
	}
	body, err := readUpTo(x.upstream.Body, AnswerBufferMax, x.upstream.ContentLength)
	x.firstByte = x.handler.options.Now()
	if err == nil {
		x.begins()
		x.deliverLarge(ctx, w, body)
		return
	}
	if !errors.Is(err, io.EOF) { // the answer was made, but did not arrive whole
		record := x.record()
		x.broken(ctx, &record)
		x.settle(ctx, record)
		w.Header().Del("Content-Length")
		lost := upstreamLost("The connection to Azure OpenAI broke in the middle of the answer.")
		if record.Outcome == usage.Text(usage.OutcomeTimeout) {
			lost = upstreamLate()
		}
		x.handler.fail(w, lost)
		return
	}
	x.begins()
	x.answer = usage.FromBody(body, false)
	if !x.answer.HasUsage {
		x.answer = usage.FromBody(body, true)
	}
	record := x.record()
	x.complete(&record, body)
	x.settle(ctx, record)
	x.costHeaders(w)
	w.WriteHeader(x.upstream.StatusCode)
	_, _ = w.Write(body)
}

// broken charges the hold for an answer that Azure made but that broke off.
func (x *exchange) broken(ctx context.Context, record *usage.Record) {
	x.estimateHold(record, x.cutBy(ctx))
}

// readUpTo reads a body to its end (the error is io.EOF then), or up to a size.
func readUpTo(body io.Reader, most int, length int64) ([]byte, error) {
	size := int64(4 << 10)
	if length > 0 {
		size = min(length+1, int64(most))
	}
	buffer := make([]byte, 0, size)
	for len(buffer) < most {
		if len(buffer) == cap(buffer) {
			grown := make([]byte, len(buffer), min(2*cap(buffer), most))
			copy(grown, buffer)
			buffer = grown
		}
		n, err := body.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		if err != nil {
			return buffer, err
		}
	}
	return buffer, nil
}

// deliverLarge streams a large JSON body, or sound.
func (x *exchange) deliverLarge(ctx context.Context, w http.ResponseWriter, head []byte) {
	sound := x.operation.name == opSpeech
	reader := usage.NewBodyReader()
	var kept []byte
	x.announceTrailers(w)
	w.WriteHeader(x.upstream.StatusCode)
	flusher, _ := w.(http.Flusher)
	buffer := takeBuffer()
	defer giveBuffer(buffer)
	chunk := head
	var readErr error
	for {
		switch {
		case !sound:
			_, _ = reader.Write(chunk)
		case !x.entry.SellsTokens(): // by what was sent
		case len(kept)+len(chunk) <= soundBytesMax:
			kept = append(kept, chunk...)
		default:
			kept = kept[:0:0] // too long to be measured
			sound = false
		}
		if x.firstByte.IsZero() && len(chunk) > 0 {
			x.firstByte = x.handler.options.Now()
			x.begins()
		}
		if readErr != nil && readErr != io.EOF {
			break
		}
		if readErr != nil {
			x.answer = reader.Answer()
			record := x.record()
			x.complete(&record, kept)
			x.settle(ctx, record)
		}
		x.write(w, chunk)
		if x.operation.name == opSpeech && flusher != nil && !x.gone.Load() {
			flusher.Flush()
		}
		if readErr != nil {
			x.setTrailers(w)
			return
		}
		var n int
		n, readErr = x.upstream.Body.Read(*buffer)
		chunk = (*buffer)[:n]
	}
	record := x.record()
	x.broken(ctx, &record)
	x.settle(ctx, record)
	if !x.gone.Load() {
		panic(http.ErrAbortHandler) // the client must not take the part for the whole
	}
}

// write sends bytes to the client, if it is still there.
func (x *exchange) write(w http.ResponseWriter, p []byte) {
	if len(p) == 0 || x.gone.Load() {
		return
	}
	if _, err := w.Write(p); err != nil {
		x.gone.Store(true)
	}
}

func (x *exchange) costHeaders(w http.ResponseWriter) {
	h := w.Header()
	h.Set("x-costgate-cost", x.charge())
	h.Set("x-costgate-usage-source", string(x.charged.UsageSource))
	if x.account != nil {
		h.Set("x-costgate-remaining", x.amount(x.account.Budget-x.account.Spent))
	}
}

func (x *exchange) charge() string { return x.amount(x.charged.Charge.N) }

func (x *exchange) announceTrailers(w http.ResponseWriter) {
	if x.handler.options.Trailers {
		w.Header().Set("Trailer", "x-costgate-cost, x-costgate-usage-source")
		w.Header().Del("Content-Length")
	}
}

func (x *exchange) setTrailers(w http.ResponseWriter) {
	if x.handler.options.Trailers && x.settled {
		w.Header().Set("x-costgate-cost", x.charge())
		w.Header().Set("x-costgate-usage-source", string(x.charged.UsageSource))
	}
}
