package usage

import (
	"bytes"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// arrays follows an object that comes in pieces into two of its arrays and
// looks at their elements one at a time, in bounded memory. Like
// jsonscan.Walker it is tolerant, and says the same whatever the pieces.
type arrays struct {
	output calls // of the array "output", or of that in the member "response"
	data   int64 // elements of the array "data"

	depth   int              // of braces and brackets that are open
	base    int              // where members are looked at: 1, or 2 in "response"
	in      arrayName        // the array whose elements are at depth base+1
	fresh   bool             // an element may begin here
	value   bool             // a member's key and colon were seen
	key     arrayKey         // the key at hand
	text    textState        // in a string
	element *jsonscan.Walker // the element at hand, if it is an object
	lost    bool             // an element was no JSON
}

type arrayName uint8

const (
	noArray arrayName = iota
	inOutput
	inData
)

type textState uint8

const (
	noText textState = iota
	inKey
	inKeyEscape // behind a backslash
	inText
	inTextEscape
)

// arrayKey is a key as it is written, without its quotes. It is an array so
// that a copy of arrays is one of all its state.
type arrayKey struct {
	text   [6 * len("response")]byte // which may be all escapes
	length int                       // beyond the text, it is too long
}

func (k *arrayKey) add(p []byte) {
	if k.length <= len(k.text) {
		copy(k.text[k.length:], p)
		k.length += len(p)
	}
}

// take takes a piece up to the end of the first element that is an object, or
// all of it. Its first outside bytes are around the elements, the next inside
// bytes are the element, or what there is of it.
func (a *arrays) take(p []byte) (outside, inside int) {
	i := 0
	for i < len(p) && a.element == nil {
		switch {
		case a.text != noText:
			i += a.string(p[i:])
			continue
		case a.in != noArray && a.depth == a.base+1:
			if p[i] == '{' {
				a.begin()
				a.element = newItemWalker()
				continue
			}
			a.elements(p[i])
		case a.depth == a.base:
			a.members(p[i])
		default:
			a.nested(p[i])
		}
		i++
	}
	if a.element != nil {
		inside = a.element.Take(p[i:])
		a.endElement()
	}
	return i, inside
}

// members takes a byte between the members that are looked at, or before the
// object.
func (a *arrays) members(c byte) {
	switch c {
	case '"':
		a.text = inText
		if !a.value {
			a.text, a.key.length = inKey, 0
		}
	case ':':
		a.value = true
	case ',':
		a.value = false
	case '{':
		a.depth++
		if a.depth == 1 || a.base == 1 && a.name() == "response" {
			a.base, a.value = a.depth, false
		}
	case '[':
		a.depth++
		switch name := a.name(); {
		case name == "output":
			a.in, a.fresh, a.output = inOutput, true, calls{}
		case name == "data" && a.base == 1:
			a.in, a.fresh, a.data = inData, true, 0
		}
	case '}':
		a.depth--
		if a.base == 2 { // the outer object goes on behind its member
			a.base = 1
		}
	}
}

// elements takes a byte between the elements of an array, or of one that is no
// object.
func (a *arrays) elements(c byte) {
	switch c {
	case ' ', '\t', '\r', '\n':
	case ',':
		a.fresh = true
	case ']':
		a.depth--
		a.in = noArray
	default:
		a.begin()
		a.nested(c)
	}
}

// nested takes a byte that matters only for where things end.
func (a *arrays) nested(c byte) {
	switch c {
	case '"':
		a.text = inText
	case '{', '[':
		a.depth++
	case '}', ']':
		a.depth--
	}
}

// begin counts an element at its first byte.
func (a *arrays) begin() {
	if !a.fresh {
		return
	}
	a.fresh = false
	if a.in == inData {
		a.data++
	} else {
		a.output.items++
	}
}

func newItemWalker() *jsonscan.Walker {
	return jsonscan.NewWalker(NameBytesMax+2, "type", "action.type", "container_id")
}

// endElement counts the element at hand if it has ended.
func (a *arrays) endElement() {
	switch w := a.element; {
	case w.Done():
		if a.element = nil; a.in == inOutput {
			a.output.add(kept(w, "type"), kept(w, "action.type"), kept(w, "container_id"))
		}
	case w.Broken():
		a.lost = true
	}
}

// kept is a short text that a walker kept.
func kept(w *jsonscan.Walker, key string) (text string) {
	if raw, ok := w.Value(key); ok {
		name(valueOf(raw), &text)
	}
	return text
}

// string passes over a string, or what there is of it, and keeps it if it is a
// key. It returns how long that is.
func (a *arrays) string(p []byte) int {
	quote := -1 // the first one from i on; len(p): none
	i := 0
	for i < len(p) {
		if a.text == inTextEscape || a.text == inKeyEscape {
			a.text--
			i++
			continue
		}
		if quote < i {
			if quote = bytes.IndexByte(p[i:], '"'); quote < 0 {
				quote = len(p)
			} else {
				quote += i
			}
		}
		if at := bytes.IndexByte(p[i:quote], '\\'); at >= 0 {
			i += at + 1
			a.text++
			continue
		}
		i = quote
		break
	}
	if a.text == inKey || a.text == inKeyEscape {
		a.key.add(p[:i])
	}
	if i < len(p) { // its last quote
		a.text = noText
		i++
	}
	return i
}

// name is the key of the value at hand, "" if it is none that matters.
func (a *arrays) name() string {
	if !a.value || a.key.length > len(a.key.text) {
		return ""
	}
	text := a.key.text[:a.key.length]
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text)
	}
	name, _ := jsonscan.String([]byte(`"` + string(text) + `"`))
	return name
}
