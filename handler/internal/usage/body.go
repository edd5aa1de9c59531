package usage

import "github.com/costgate/costgate/handler/internal/jsonscan"

// memberBytesMax bounds each member of an answer that is kept of a large body.
const memberBytesMax = 64 << 10

// outline are the members that say what an answer cost and how it ended.
var outline = []string{"usage", "model", "id", "service_tier", "status", "error", "incomplete_details", "content_filters"}

// BodyReader reads a JSON answer piece by piece while it is passed on, in
// bounded memory. It sees no choices and gathers no text, so a filtered chat
// answer is not told from others.
type BodyReader struct{ walker *jsonscan.Walker }

// NewBodyReader makes a reader for one answer.
func NewBodyReader() *BodyReader {
	return &BodyReader{jsonscan.NewWalker(memberBytesMax, outline...)}
}

// Write takes the next piece. It never fails.
func (b *BodyReader) Write(p []byte) (int, error) { return b.walker.Write(p) }

// Answer is what was learnt up to now. It is Finished if the object has ended.
func (b *BodyReader) Answer() Answer {
	var r reading
	r.outline(b.walker, "")
	r.Finished = b.walker.Done() && r.Status != "queued" && r.Status != "in_progress"
	return r.answer()
}

// outline reads the members that a walker kept below a prefix.
func (r *reading) outline(w *jsonscan.Walker, prefix string) {
	for _, key := range outline {
		if raw, ok := w.Value(prefix + key); ok {
			r.member([]byte(key), jsonscan.Value{Kind: jsonscan.KindOf(raw), Raw: raw})
		}
	}
}
