package jsonscan

import "strings"

// keyBytesMax bounds a key, with its quotes and escapes. A longer one is no key
// that anybody asks for.
const keyBytesMax = 256

// Walker takes an object piece by piece and keeps the values of some of its
// members. A key "a" is a member of the object, "a.b" a member of its member a.
// It is tolerant: it follows strings and nesting and does not check the rest.
// Its memory is bounded whatever comes, and whatever the pieces it says the
// same.
type Walker struct {
	wanted []wanted
	most   int // bytes of one value

	depth  int
	parent string // at depth 2: the member whose members are looked at
	state  walkState
	inner  stringState // of a string that is not a key
	key    []byte      // the key at hand, from its quote on
	long   bool        // it is longer than keyBytesMax

	target     int // index in wanted of the value that is being kept; -1: none
	tooLong    bool
	done, lost bool
}

type wanted struct {
	parent, name string
	raw          []byte
	ok           bool
}

// walkState is what the walker waits for. Keys and colons are told apart only
// where members are looked at; deeper down everything is part of a value.
type walkState uint8

const (
	atStart   walkState = iota // for the object's brace
	atKey                      // for a key's quote, or the end of the object
	inKey                      // for the end of the key
	inKeyEsc                   // behind a backslash in the key
	atColon                    // for the colon
	atValue                    // for the first byte of the value
	inValue                    // for the comma or bracket that ends it
	walkEnded                  // for nothing
)

type stringState uint8

const (
	noString stringState = iota
	inString
	inStringEsc // behind a backslash
)

// NewWalker keeps the values of keys, each if it has at most captureBytesMax
// bytes. A key must not be below another one.
func NewWalker(captureBytesMax int, keys ...string) *Walker {
	w := &Walker{most: captureBytesMax, target: -1, wanted: make([]wanted, len(keys))}
	for i, key := range keys {
		w.wanted[i].name = key
		if parent, name, ok := strings.Cut(key, "."); ok {
			w.wanted[i].parent, w.wanted[i].name = parent, name
		}
	}
	return w
}

// Done tells whether the object has ended.
func (w *Walker) Done() bool { return w.done }

// Broken tells whether what came is no object. What was kept before stays.
func (w *Walker) Broken() bool { return w.lost }

// Value is the value of a member, its last if it is there twice. ok is false if
// it was not there, is not complete, or was too long.
func (w *Walker) Value(key string) (raw []byte, ok bool) {
	parent, name, below := strings.Cut(key, ".")
	if !below {
		parent, name = "", key
	}
	for i := range w.wanted {
		if m := &w.wanted[i]; m.name == name && m.parent == parent {
			if !m.ok {
				return nil, false
			}
			return m.raw, true
		}
	}
	return nil, false
}

// Write takes the next piece. It never fails.
func (w *Walker) Write(p []byte) (int, error) {
	w.Take(p)
	return len(p), nil
}

// Take takes the next piece and returns how many of its bytes belong to the
// object: all, unless it ends in this piece or the walker is broken.
func (w *Walker) Take(p []byte) int {
	i, kept := 0, 0 // p[kept:i] is to be kept, if a value is
	for i < len(p) && w.state != walkEnded {
		if w.state == inValue {
			i += w.value(p[i:])
			if i < len(p) { // p[i] ends the value
				w.keep(p[kept:i])
				w.endValue(p[i])
				i++
			}
			continue
		}
		c := p[i]
		if c == ' ' || c == '\n' || c == '\r' || c == '\t' {
			if w.state != inKey && w.state != inKeyEsc {
				i++
				continue
			}
		}
		if w.state == atValue {
			kept = i
			w.beginValue(c)
			if w.state != inValue {
				i++
			}
			continue
		}
		w.structure(c)
		i++
	}
	if w.state == inValue {
		w.keep(p[kept:])
	}
	return i
}

// structure takes a byte outside of values.
func (w *Walker) structure(c byte) {
	switch w.state {
	case atStart:
		if c != '{' {
			w.fail()
			return
		}
		w.depth, w.state = 1, atKey
	case atKey:
		switch c {
		case '"':
			w.key, w.long, w.state = append(w.key[:0], c), false, inKey
		case '}':
			w.endObject()
		case ',': // one too many
		default:
			w.fail()
		}
	case inKey, inKeyEsc:
		if w.long = w.long || len(w.key) == keyBytesMax; !w.long {
			w.key = append(w.key, c)
		}
		switch {
		case w.state == inKeyEsc:
			w.state = inKey
		case c == '\\':
			w.state = inKeyEsc
		case c == '"':
			w.state = atColon
		}
	case atColon:
		if c != ':' {
			w.fail()
			return
		}
		w.state = atValue
	case atValue, inValue, walkEnded: // not here
	}
}

func (w *Walker) fail() { w.state, w.lost = walkEnded, true }

// beginValue decides from the key and the first byte what becomes of a value.
func (w *Walker) beginValue(c byte) {
	w.state, w.target, w.tooLong = inValue, -1, false
	if w.long {
		return
	}
	name := unquoted(w.key)
	for i := range w.wanted {
		m := &w.wanted[i]
		if m.parent == w.parent && m.name == string(name) {
			w.target, m.raw, m.ok = i, m.raw[:0], false
			return
		}
	}
	if c == '{' && w.parent == "" {
		for i := range w.wanted {
			if w.wanted[i].parent == string(name) && len(name) > 0 {
				w.parent, w.depth, w.state = w.wanted[i].parent, 2, atKey
				return
			}
		}
	}
}

// base is the depth at which members are looked at.
func (w *Walker) base() int {
	if w.parent != "" {
		return 2
	}
	return 1
}

// structural are the bytes that matter outside of strings.
var structural = [256]bool{'"': true, '{': true, '}': true, '[': true, ']': true, ',': true}

// value passes over a value and is the offset of the byte that ends it, or the
// length of p if that is still to come.
func (w *Walker) value(p []byte) int {
	base := w.base()
	for i := 0; i < len(p); {
		switch w.inner {
		case inString:
			n, _ := plainText(p[i:])
			if i += n; i == len(p) {
				return i
			}
			switch p[i] {
			case '"':
				w.inner = noString
			case '\\':
				w.inner = inStringEsc
			}
			i++
			continue
		case inStringEsc:
			w.inner = inString
			i++
			continue
		case noString:
			for i < len(p) && !structural[p[i]] {
				i++
			}
			if i == len(p) {
				return i
			}
		}
		switch c := p[i]; {
		case c == '"':
			w.inner = inString
		case c|0x20 == '{': // and [
			w.depth++
		case c|0x20 == '}': // and ]
			if w.depth == base {
				return i
			}
			w.depth--
		case c == ',' && w.depth == base:
			return i
		}
		i++
	}
	return len(p)
}

// endValue ends a value by the byte behind it.
func (w *Walker) endValue(c byte) {
	if w.target >= 0 && !w.tooLong {
		m := &w.wanted[w.target]
		for len(m.raw) > 0 && strings.IndexByte(" \t\r\n", m.raw[len(m.raw)-1]) >= 0 {
			m.raw = m.raw[:len(m.raw)-1]
		}
		m.ok = len(m.raw) <= w.most
	}
	w.target, w.state = -1, atKey
	if c != ',' {
		w.endObject()
	}
}

// endObject ends the object whose members were looked at.
func (w *Walker) endObject() {
	if w.parent == "" {
		w.state, w.done, w.depth = walkEnded, true, 0
		return
	}
	// The outer object goes on as if a value had ended that nobody wants.
	w.parent, w.depth, w.state = "", 1, inValue
}

// keep adds to the value that is being kept.
func (w *Walker) keep(p []byte) {
	if w.target < 0 || w.tooLong {
		return
	}
	m := &w.wanted[w.target]
	// White space behind the value is cut off later: leave it some room.
	if len(m.raw)+len(p) > w.most+keyBytesMax {
		w.tooLong, m.raw = true, nil
		return
	}
	m.raw = append(m.raw, p...)
}
