package usage

import "github.com/costgate/costgate/handler/internal/jsonscan"

// memberBytesMax bounds each member of an answer that is kept of a large body.
const memberBytesMax = 64 << 10

// outline are the members that say what an answer cost and how it ended.
var outline = []string{
	"usage", "model", "id", "object", "service_tier", "status", "error", "incomplete_details", "content_filters",
	"quality", "size", "duration",
}

// walk keeps the outline of an answer that comes in pieces. Each byte is looked
// at once: elements of its arrays, which may be all of a large answer, are kept
// from the walker, to which an array without them is as good.
type walk struct {
	walker *jsonscan.Walker
	arrays arrays
}

func newWalk(keys ...string) *walk {
	return &walk{walker: jsonscan.NewWalker(memberBytesMax, keys...)}
}

// Take takes the next piece and returns how many of its bytes belong to the
// object.
func (w *walk) Take(p []byte) (taken int) {
	for taken < len(p) && !w.Done() && !w.Broken() {
		before := w.arrays
		outside, inside := w.arrays.take(p[taken:])
		n := w.walker.Take(p[taken : taken+outside])
		if w.walker.Done() || w.walker.Broken() { // what is behind it does not count
			w.arrays = before
			w.arrays.take(p[taken : taken+n])
			return taken + n
		}
		taken += outside + inside
	}
	return taken
}

// Done tells whether the object has ended.
func (w *walk) Done() bool { return w.walker.Done() }

// Broken tells whether what came is no object.
func (w *walk) Broken() bool { return w.walker.Broken() || w.arrays.lost }

// Value is a member of the outline; ok is false if it was not kept.
func (w *walk) Value(key string) (raw []byte, ok bool) { return w.walker.Value(key) }

// BodyReader reads a JSON answer piece by piece while it is passed on, in
// bounded memory. It sees no choices and gathers no text, so a filtered chat
// answer is not told from others.
type BodyReader struct{ walk *walk }

// NewBodyReader makes a reader for one answer.
func NewBodyReader() *BodyReader { return &BodyReader{newWalk(outline...)} }

// Write takes the next piece. It never fails.
func (b *BodyReader) Write(p []byte) (int, error) {
	b.walk.Take(p)
	return len(p), nil
}

// Answer is what was learnt up to now. It is Finished if the object has ended.
func (b *BodyReader) Answer() Answer {
	r := reading{whole: true}
	r.outline(b.walk)
	return r.body(b.walk.Done())
}

// outline reads what a walk kept of a document.
func (r *reading) outline(w *walk) {
	r.chunk = chunk{}
	r.outlineMembers(w, "")
	r.chunk.listed, r.elements = w.arrays.output, w.arrays.data
}

// outlineMembers reads the members that a walk kept below a prefix.
func (r *reading) outlineMembers(w *walk, prefix string) {
	for _, key := range outline {
		if raw, ok := w.Value(prefix + key); ok {
			r.member([]byte(key), valueOf(raw))
		}
	}
}

func valueOf(raw []byte) jsonscan.Value {
	return jsonscan.Value{Kind: jsonscan.KindOf(raw), Raw: raw, End: len(raw)}
}
