// Package sse splits a byte stream into server-sent events while the bytes are
// passed on unchanged. Its memory is bounded.
package sse

import "bytes"

// Event is one event of a stream. Its slices are valid only during the call.
type Event struct {
	Raw  []byte // all its bytes, with the blank line that ends it
	Name []byte // of its event field
	Data []byte // its data lines, joined by \n; nil if it has none
	// Oversized: Raw is a piece of an event that is larger than the limit. It is
	// to be passed on and cannot be looked into.
	Oversized bool
}

// Scanner finds events in chunks. The bytes of all Raw and then Rest are the
// bytes fed, whatever the chunks; so are Name and Data. Lines end with \n, \r\n
// or \r.
type Scanner struct {
	most    int
	pending []byte // the beginning of an event that is not complete
	joined  []byte // data of several lines
	large   bool   // in an event larger than the limit
	begun   bool   // an event was parsed; a byte order mark can only come first

	inLine  bool // the line at hand has a character
	afterCR bool // the last byte was \r: a \n would belong to it
	blank   bool // that \r ended a blank line, so the event ends here or behind a \n
}

// NewScanner makes a scanner that looks into events of up to eventBytesMax bytes.
func NewScanner(eventBytesMax int) *Scanner { return &Scanner{most: eventBytesMax} }

// Feed takes the next chunk and calls each for every event that it completes.
// An event that lies in one chunk is not copied.
func (s *Scanner) Feed(chunk []byte, each func(Event)) {
	start, breaks := 0, lineBreaks{}
	for i := 0; i < len(chunk); {
		if s.afterCR {
			s.afterCR = false
			newline := chunk[i] == '\n'
			if newline {
				i++
			}
			if s.blank {
				s.blank = false
				s.end(chunk[start:i], each)
				start = i
			}
			if newline {
				continue
			}
		}
		at := breaks.next(chunk, i)
		if at != i {
			s.inLine = true
		}
		if at < 0 {
			break
		}
		i = at + 1
		cr := chunk[i-1] == '\r'
		switch {
		case s.inLine:
			s.inLine, s.afterCR = false, cr
		case cr:
			s.afterCR, s.blank = true, true
		default:
			s.end(chunk[start:i], each)
			start = i
		}
	}
	s.keep(chunk[start:], each)
}

// lineBreaks finds line ends in one chunk. It remembers the next \n, so that
// a chunk full of \r is not searched to its end for each of them.
type lineBreaks struct {
	lf    int // offset of a \n with none between the last search and it; len(p): none
	known bool
}

// next is the offset of the first \n or \r from i on; -1 if there is none.
func (b *lineBreaks) next(p []byte, i int) int {
	if !b.known || b.lf < i {
		b.lf, b.known = len(p), true
		if at := bytes.IndexByte(p[i:], '\n'); at >= 0 {
			b.lf = i + at
		}
	}
	if cr := bytes.IndexByte(p[i:b.lf], '\r'); cr >= 0 {
		return i + cr
	}
	if b.lf == len(p) {
		return -1
	}
	return b.lf
}

// keep holds back the beginning of an event, or passes it on as a piece if it
// is larger than the limit.
func (s *Scanner) keep(part []byte, each func(Event)) {
	if len(part) == 0 {
		return
	}
	if s.large || len(s.pending)+len(part) > s.most {
		s.large = true
		s.piece(each)
		each(Event{Raw: part, Oversized: true})
		return
	}
	s.pending = append(s.pending, part...)
}

func (s *Scanner) piece(each func(Event)) {
	if len(s.pending) > 0 {
		each(Event{Raw: s.pending, Oversized: true})
		s.pending = s.pending[:0]
	}
}

// end completes an event with its last part.
func (s *Scanner) end(part []byte, each func(Event)) {
	if s.large || len(s.pending)+len(part) > s.most {
		s.large, s.begun = false, true
		s.piece(each)
		if len(part) > 0 {
			each(Event{Raw: part, Oversized: true})
		}
		return
	}
	raw := part
	if len(s.pending) > 0 {
		s.pending = append(s.pending, part...)
		raw = s.pending
	}
	each(s.parse(raw))
	s.pending = s.pending[:0]
}

// Rest is what was fed behind the last event.
func (s *Scanner) Rest() []byte { return s.pending }

var byteOrderMark = []byte("\xef\xbb\xbf")

// parse reads the fields of an event.
func (s *Scanner) parse(raw []byte) Event {
	e := Event{Raw: raw}
	lines := raw
	if !s.begun {
		s.begun = true
		lines = bytes.TrimPrefix(lines, byteOrderMark)
	}
	several, breaks := false, lineBreaks{}
	for i := 0; i < len(lines); {
		line := lines[i:]
		if at := breaks.next(lines, i); at >= 0 {
			line, i = lines[i:at], at+1 // the \n of \r\n makes an empty line, which says nothing
		} else {
			i = len(lines)
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		if len(value) > 0 && value[0] == ' ' {
			value = value[1:]
		}
		switch string(name) {
		case "event":
			e.Name = value
		case "data":
			switch {
			case e.Data == nil:
				e.Data = value
				if value == nil {
					e.Data = raw[:0]
				}
			case !several:
				several = true
				s.joined = append(append(append(s.joined[:0], e.Data...), '\n'), value...)
				e.Data = s.joined
			default:
				s.joined = append(append(s.joined, '\n'), value...)
				e.Data = s.joined
			}
		}
	}
	return e
}
