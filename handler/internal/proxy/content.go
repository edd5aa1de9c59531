package proxy

import (
	"net/http"
	"strings"
	"unicode/utf8"
)

// ContentBytesMax is how much of a request and of its answer is logged, each.
const ContentBytesMax = 32 << 10

// contentWriter keeps the beginning of what a client gets, for the log.
type contentWriter struct {
	http.ResponseWriter
	kept []byte
}

func (w *contentWriter) Write(p []byte) (int, error) {
	if room := ContentBytesMax - len(w.kept); room > 0 {
		w.kept = append(w.kept, p[:min(room, len(p))]...)
	}
	return w.ResponseWriter.Write(p)
}

func (w *contentWriter) Flush() {
	if flusher, ok := w.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
}

// logContent writes the prompt and the answer of a request into the log. Only
// LOG_CONTENT asks for that; records never have them.
func (x *exchange) logContent(w *contentWriter) {
	x.handler.options.Log.Info("content", "product_id", x.product.ID, "record", x.hold.Record.ID, "operation", x.operation.name,
		"deployment", x.deployment, "request", readable(x.asked.body), "answer", readable(w.kept))
}

// readable is the beginning of a text; of what is none, nothing.
func readable(data []byte) string {
	cut := strings.ToValidUTF8(string(data[:min(len(data), ContentBytesMax)]), "")
	if len(cut) < min(len(data), ContentBytesMax)-utf8.UTFMax { // images, sound
		return ""
	}
	return cut
}
