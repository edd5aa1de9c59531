package service

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/usage"
)

const pieceBytes = 32 << 10 // of an answer on its way

// deliver passes the answer on and settles it: before its head, if it is small
// and its size is known; else before its last piece, or its end, is sent.
func (x *exchange) deliver(ctx context.Context, w http.ResponseWriter) {
	header, size := w.Header(), x.size()
	proxy.CopyHeader(header, x.answer.Header)
	if x.answer.Header.Get("Content-Type") == "" {
		header["Content-Type"] = nil // do not guess one
	}
	switch {
	case x.answerMax >= 0 && size > x.answerMax:
		x.tooLarge(ctx, w, size)
	case size >= 0 && size <= AnswerBufferMax && !proxy.IsStream(x.answer.Header):
		x.deliverSmall(ctx, w, size)
	default:
		x.deliverPieces(ctx, w, size)
	}
}

// size is how many bytes the answer's body has; -1 if it does not say.
func (x *exchange) size() int64 {
	switch status := x.answer.StatusCode; {
	case x.answer.Request.Method == http.MethodHead, status == http.StatusNoContent, status == http.StatusNotModified:
		return 0
	}
	return x.answer.ContentLength
}

// tooLarge refuses an answer that says it is larger than what is held. It is
// not read; the call is charged, and the request's KB.
func (x *exchange) tooLarge(ctx context.Context, w http.ResponseWriter, size int64) {
	x.cut = true
	x.logCut(size)
	x.settle(ctx, x.broken(ctx))
	takeBack(w.Header(), x.answer.Header)
	x.handler.options.Proxy.Fail(w, proxy.NewFailure(http.StatusBadGateway, "server_error", "answer_too_large",
		"The service's answer is larger than what is held for this call. The call is charged, without the answer.", [2]string{"x-should-retry", "false"}))
}

func (x *exchange) logCut(size int64) {
	x.handler.options.Log.Error("an answer is larger than what is held for it; it is cut off: see bodyBytesMax in SERVICES, and the product's budget",
		"service", x.entry.Name, "product_id", x.product.ID, "record", x.hold.Record.ID, "answer_bytes", size, "held_for", x.answerMax)
}

// takeBack takes the headers of an answer back that is not sent.
func takeBack(to, from http.Header) {
	for name := range from {
		if !strings.HasPrefix(name, "X-Costgate-") {
			to.Del(name)
		}
	}
}

// next reads a piece of the answer. The service may be silent for its patience,
// each time; how long the client and the ledger take meanwhile is not its fault.
func (x *exchange) next(p []byte) (int, error) {
	x.silence.Reset(x.patience())
	defer x.silence.Stop()
	return x.answer.Body.Read(p)
}

// deliverSmall sends an answer at once. Until it is whole it has not begun for
// the platform in front of the gateway, so firstByte stays unset.
func (x *exchange) deliverSmall(ctx context.Context, w http.ResponseWriter, size int64) {
	body, err := make([]byte, size), error(nil)
	for x.answered < size && err == nil {
		var n int
		n, err = x.next(body[x.answered:])
		x.answered += int64(n)
	}
	x.firstByte = x.handler.options.Now()
	if x.answered < size {
		record := x.broken(ctx)
		x.settle(ctx, record)
		takeBack(w.Header(), x.answer.Header)
		failed := lost("The connection to the service broke in the middle of its answer.")
		if record.Outcome == usage.Text(usage.OutcomeTimeout) {
			failed = late()
		}
		x.handler.options.Proxy.Fail(w, failed)
		return
	}
	x.settle(ctx, x.whole())
	x.costHeaders(w)
	w.WriteHeader(x.answer.StatusCode)
	x.write(w, body)
}

// deliverPieces passes an answer on as it comes.
func (x *exchange) deliverPieces(ctx context.Context, w http.ResponseWriter, size int64) {
	header, o := w.Header(), &x.handler.options
	stream := proxy.IsStream(x.answer.Header)
	trailers := o.Trailers && size < 0
	if trailers {
		header.Set("Trailer", "x-costgate-cost, x-costgate-usage-source")
	}
	if size >= 0 || x.entry.PerKB == 0 { // then it is known what the whole will cost
		_, _, charge := x.price(int64(len(x.body)) + max(size, 0))
		header.Set("x-costgate-cost", x.amount(charge))
	}
	if stream {
		header.Del("Content-Length") // comments may come in between
	}
	w.WriteHeader(x.answer.StatusCode)
	if !x.gone.Load() {
		_ = http.NewResponseController(w).Flush()
	}
	out, done := w, func() {}
	if coding := x.answer.Header.Get("Content-Encoding"); stream && o.KeepAlive > 0 && (coding == "" || strings.EqualFold(coding, "identity")) {
		out, done = proxy.Pulse(w, o.KeepAlive, o.KeepAlive-o.Now().Sub(x.began))
	}
	defer done()
	err := x.pieces(ctx, out, size, stream)
	done()
	if err != nil && !x.gone.Load() {
		panic(http.ErrAbortHandler) // the client must not take the part for the whole
	}
	if trailers && err == nil {
		x.costHeaders(w)
	}
}

var errCut = errors.New("the answer is larger than the hold")

// pieces copies the body, flushed as it comes, and settles. What the hold does
// not pay for is not served.
func (x *exchange) pieces(ctx context.Context, w http.ResponseWriter, size int64, stream bool) error {
	read := x.next
	if stream {
		read = x.answer.Body.Read // comments fill its silence; StreamMax ends it
	}
	buffer, settled := make([]byte, pieceBytes), false
	for {
		n, err := read(buffer)
		if n > 0 && x.firstByte.IsZero() {
			x.firstByte = x.handler.options.Now()
		}
		if x.answerMax >= 0 && x.answered+int64(n) > x.answerMax {
			n, err, x.cut = int(x.answerMax-x.answered), errCut, true
			x.logCut(-1)
		}
		x.answered += int64(n)
		switch {
		case settled:
		case err != nil && !errors.Is(err, io.EOF):
			x.settle(ctx, x.broken(ctx))
		case err != nil || x.answered == size:
			x.settle(ctx, x.whole())
			settled = true
		}
		x.write(w, buffer[:n])
		if errors.Is(err, io.EOF) || settled && err != nil {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// write sends bytes to the client, if it is still there, and flushes.
func (x *exchange) write(w http.ResponseWriter, p []byte) {
	if len(p) == 0 || x.gone.Load() {
		return
	}
	if _, err := w.Write(p); err != nil {
		x.gone.Store(true)
	} else if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
}

func (x *exchange) costHeaders(w http.ResponseWriter) {
	h := w.Header()
	h.Set("x-costgate-cost", x.amount(x.charged.Charge.N))
	h.Set("x-costgate-usage-source", string(x.charged.UsageSource))
	if x.account != nil {
		h.Set("x-costgate-remaining", x.amount(x.account.Budget-x.account.Spent))
	}
}
