package pricing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// reader reads JSON of a fixed shape and nothing else: no unknown fields, no
// repeated fields, no nulls, no numbers that are not whole. Its errors name the
// line and the path of what they complain about. The first error sticks.
type reader struct {
	data []byte
	dec  *json.Decoder
	err  error
}

func newReader(data []byte) *reader {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return &reader{data: data, dec: dec}
}

// line is the number of the line that the reader has come to, from 1.
func (r *reader) line() int {
	offset := min(int(r.dec.InputOffset()), len(r.data))
	return 1 + bytes.Count(r.data[:offset], []byte{'\n'})
}

func (r *reader) fail(path, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("line %d: %s: %s", r.line(), path, fmt.Sprintf(format, args...))
	}
}

// token is the next token, or nil after an error. A JSON null is an error too.
func (r *reader) token(path string) json.Token {
	if r.err != nil {
		return nil
	}
	token, err := r.dec.Token()
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		r.fail(path, "the text ends too early")
		return nil
	case err != nil:
		r.fail(path, "not valid JSON: %v", err)
		return nil
	case token == nil:
		r.fail(path, "is null; give a value or leave the field out")
	}
	return token
}

// object reads an object and calls field for each of its names.
func (r *reader) object(path string, field func(name string)) {
	if token := r.token(path); token != json.Delim('{') {
		r.fail(path, "must be an object {...}")
		return
	}
	seen := map[string]bool{}
	for r.err == nil && r.dec.More() {
		name, _ := r.token(path).(string)
		if seen[name] {
			r.fail(join(path, name), "is given twice; keep one")
		}
		if r.err != nil {
			return
		}
		seen[name] = true
		field(name)
	}
	r.token(path)
}

// array reads an array and calls element for each of its elements, which must read it.
func (r *reader) array(path string, element func(i int)) {
	if token := r.token(path); token != json.Delim('[') {
		r.fail(path, "must be an array [...]")
		return
	}
	for i := 0; r.err == nil && r.dec.More(); i++ {
		element(i)
	}
	r.token(path)
}

func (r *reader) text(path string) string {
	s, ok := r.token(path).(string)
	if !ok {
		r.fail(path, "must be a string")
	}
	return strings.TrimSpace(s)
}

// positive reads a whole number from 1 to most.
func (r *reader) positive(path string, most int64, unit string) int64 {
	number, ok := r.token(path).(json.Number)
	if !ok {
		r.fail(path, "must be a number of %s", unit)
		return 0
	}
	if strings.ContainsAny(number.String(), ".eE") {
		r.fail(path, "is %s; must be a whole number of %s, without point or exponent", number, unit)
		return 0
	}
	n, err := strconv.ParseInt(number.String(), 10, 64)
	if err != nil || n <= 0 || n > most {
		r.fail(path, "is %s; must be from 1 to %d %s; leave the field out if the value is unknown", number, most, unit)
		return 0
	}
	return n
}

// end checks that nothing follows.
func (r *reader) end() error {
	if r.err == nil {
		if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
			r.fail("end", "something follows the closing brace; remove it")
		}
	}
	return r.err
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
