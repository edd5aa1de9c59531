// Package jsonscan reads the top level of JSON objects without decoding the
// rest: strictly, for requests that decide money, and piece by piece, for
// answers that may be large.
//
// Both take time in proportion to the bytes they get and recurse at most
// DepthMax deep. What a key that is there twice means is left to the caller.
package jsonscan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// DepthMax is how deep objects and arrays may be nested.
const DepthMax = 512

// Kind is the type of a value.
type Kind uint8

// The kinds of value; the zero Kind is none of them.
const (
	KindNull Kind = iota + 1
	KindBool
	KindNumber
	KindString
	KindArray
	KindObject
)

// KindOf is the kind of a well-formed value, told by its first byte.
func KindOf(raw []byte) Kind {
	if len(raw) == 0 {
		return 0
	}
	switch raw[0] {
	case 'n':
		return KindNull
	case 't', 'f':
		return KindBool
	case '"':
		return KindString
	case '[':
		return KindArray
	case '{':
		return KindObject
	}
	return KindNumber
}

// Value is a value in a document: its bytes, and where they are.
type Value struct {
	Kind       Kind
	Raw        []byte
	Start, End int // offsets in the document
	KeyStart   int // offset of the key's quote; of an element, Start
}

// SyntaxError says where a document is not what every parser reads alike.
type SyntaxError struct {
	Offset int
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at offset %d", e.Reason, e.Offset) }

// Object scans a document that must be one JSON object (RFC 8259, valid UTF-8,
// nothing behind it) and calls each for every top-level member, in order, with
// the key's escapes resolved. The whole document is checked, but members are
// reported as they are met, before the rest is. An error from each ends the
// scan and is returned. The slices are parts of the document or valid only
// during the call.
func Object(document []byte, each func(key []byte, value Value) error) error {
	s := scanner{data: document}
	s.space()
	if s.at() != '{' {
		return s.fail("an object must begin here")
	}
	if err := s.object(1, each); err != nil {
		return err
	}
	s.space()
	if s.i != len(s.data) {
		return s.fail("there is something behind the object")
	}
	return nil
}

type scanner struct {
	data []byte
	i    int
}

func (s *scanner) fail(reason string) error { return &SyntaxError{s.i, reason} }

// at is the byte at hand; 0 at the end, which is no JSON either.
func (s *scanner) at() byte {
	if s.i < len(s.data) {
		return s.data[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.data) {
		switch s.data[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) object(depth int, each func(key []byte, value Value) error) error {
	s.i++ // the brace
	s.space()
	if s.at() == '}' {
		s.i++
		return nil
	}
	for {
		s.space()
		keyStart := s.i
		if err := s.text(); err != nil {
			return err
		}
		raw := s.data[keyStart:s.i]
		s.space()
		if s.at() != ':' {
			return s.fail("a colon is missing")
		}
		s.i++
		s.space()
		start := s.i
		if err := s.value(depth); err != nil {
			return err
		}
		if each != nil {
			if err := each(unquoted(raw), Value{KindOf(s.data[start:s.i]), s.data[start:s.i], start, s.i, keyStart}); err != nil {
				return err
			}
		}
		s.space()
		switch s.at() {
		case ',':
			s.i++
		case '}':
			s.i++
			return nil
		default:
			return s.fail("a comma or a closing brace is missing")
		}
	}
}

func (s *scanner) array(depth int, each func(element Value) error) error {
	s.i++ // the bracket
	s.space()
	if s.at() == ']' {
		s.i++
		return nil
	}
	for {
		s.space()
		start := s.i
		if err := s.value(depth); err != nil {
			return err
		}
		if each != nil {
			if err := each(Value{KindOf(s.data[start:s.i]), s.data[start:s.i], start, s.i, start}); err != nil {
				return err
			}
		}
		s.space()
		switch s.at() {
		case ',':
			s.i++
		case ']':
			s.i++
			return nil
		default:
			return s.fail("a comma or a closing bracket is missing")
		}
	}
}

func (s *scanner) value(depth int) error {
	switch c := s.at(); {
	case c == '"':
		return s.text()
	case c == '{' || c == '[':
		if depth >= DepthMax {
			return s.fail("nested too deep")
		}
		if c == '{' {
			return s.object(depth+1, nil)
		}
		return s.array(depth+1, nil)
	case c == '-' || (c >= '0' && c <= '9'):
		return s.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if len(s.data)-s.i >= len(word) && string(s.data[s.i:s.i+len(word)]) == word {
			s.i += len(word)
			return nil
		}
	}
	return s.fail("a value is missing")
}

// text scans a string with its quotes.
func (s *scanner) text() error {
	if s.at() != '"' {
		return s.fail("a string is missing")
	}
	s.i++
	start, ascii := s.i, true
	for {
		n, plain := plainText(s.data[s.i:])
		s.i += n
		ascii = ascii && plain
		switch {
		case s.i == len(s.data):
			return s.fail("a string has no end")
		case s.data[s.i] == '"':
			if !ascii && !utf8.Valid(s.data[start:s.i]) {
				return s.fail("a string is not valid UTF-8")
			}
			s.i++
			return nil
		case s.data[s.i] == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		default:
			return s.fail("a control character in a string")
		}
	}
}

func (s *scanner) escape() error {
	s.i++ // the backslash
	switch s.at() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i++
		return nil
	case 'u':
		for n := 1; n <= 4; n++ {
			if s.i+n >= len(s.data) || !isHex(s.data[s.i+n]) {
				return s.fail("four hexadecimal digits must follow \\u")
			}
		}
		s.i += 5
		return nil
	}
	return s.fail("an unknown escape in a string")
}

func isHex(c byte) bool {
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')
}

func (s *scanner) number() error {
	if s.at() == '-' {
		s.i++
	}
	switch c := s.at(); {
	case c == '0':
		s.i++
	case c >= '1' && c <= '9':
		s.digits()
	default:
		return s.fail("a number has no digits")
	}
	if s.at() == '.' {
		s.i++
		if !s.digits() {
			return s.fail("a number has no digits behind its point")
		}
	}
	if c := s.at(); c == 'e' || c == 'E' {
		s.i++
		if c := s.at(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return s.fail("a number has no digits in its exponent")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.data) && s.data[s.i] >= '0' && s.data[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

// unquoted is a string without its quotes and escapes.
func unquoted(raw []byte) []byte {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var text string
	_ = json.Unmarshal(raw, &text) // the scanner has checked it
	return []byte(text)
}

// IsNull tells whether a value is null.
func IsNull(raw []byte) bool { return string(raw) == "null" }

// Bool reads true or false.
func Bool(raw []byte) (value, ok bool) {
	switch string(raw) {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

// Array calls each for every element of an array that Object reported. What is
// no array has no elements. An error from each ends the walk and is returned.
func Array(raw []byte, each func(element Value) error) error {
	s := scanner{data: raw}
	if s.at() != '[' {
		return nil
	}
	return s.array(1, each)
}

// String reads a string; a lone surrogate becomes U+FFFD.
func String(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return "", false
	}
	return text, true
}

// Int reads an integer. A fraction of zeros is allowed, as in 100.0, an
// exponent is not.
func Int(raw []byte) (int64, bool) {
	whole, fraction, point := bytes.Cut(raw, []byte("."))
	if point && len(bytes.Trim(fraction, "0")) > 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(whole), 10, 64)
	return n, err == nil && len(whole) > 0 && whole[0] != '+'
}
