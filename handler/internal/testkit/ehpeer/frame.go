package ehpeer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// This file is the transport of AMQP 1.0 (part 2 of the standard): frames, and
// the numbers by which they name their performatives.

const (
	frameBytesMax = 64 << 10 // of a frame from the client; told in open
	frameHeader   = 8
)

const (
	kindAMQP = 0x00
	kindSASL = 0x01
)

// Descriptors of performatives, states and sections.
const (
	codeOpen        uint64 = 0x10
	codeBegin       uint64 = 0x11
	codeAttach      uint64 = 0x12
	codeFlow        uint64 = 0x13
	codeTransfer    uint64 = 0x14
	codeDisposition uint64 = 0x15
	codeDetach      uint64 = 0x16
	codeEnd         uint64 = 0x17
	codeClose       uint64 = 0x18

	codeError    uint64 = 0x1d
	codeAccepted uint64 = 0x24
	codeRejected uint64 = 0x25
	codeReleased uint64 = 0x26
	codeModified uint64 = 0x27
	codeSource   uint64 = 0x28
	codeTarget   uint64 = 0x29

	codeMechanisms uint64 = 0x40
	codeInit       uint64 = 0x41
	codeOutcome    uint64 = 0x44

	codeHeader      uint64 = 0x70
	codeAnnotations uint64 = 0x72
	codeProperties  uint64 = 0x73
	codeApplication uint64 = 0x74
	codeData        uint64 = 0x75
	codeValue       uint64 = 0x77
	codeFooter      uint64 = 0x78
)

// The header with which a connection begins, for SASL and for AMQP itself.
var (
	headerSASL = []byte("AMQP\x03\x01\x00\x00")
	headerAMQP = []byte("AMQP\x00\x01\x00\x00")
)

// amqpError is why a link or connection ends, as it is told to the client.
type amqpError struct{ condition, description string }

func (e *amqpError) Error() string { return e.condition + ": " + e.description }

func (e *amqpError) value() any {
	return composite(codeError, symbol(e.condition), e.description)
}

// frame is one frame. Code is 0 if it is empty, which says no more than that the
// client lives.
type frame struct {
	kind    byte
	channel uint16
	code    uint64
	fields  fields
	payload []byte
}

// readFrame reads a frame, which owns its memory.
func readFrame(r io.Reader) (frame, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err
	}
	size, offset := binary.BigEndian.Uint32(header[:]), uint32(header[4])*4
	if size > frameBytesMax || offset < frameHeader || offset > size {
		return frame{}, fmt.Errorf("ehpeer: frame of %d bytes whose body begins at %d", size, offset)
	}
	b := make([]byte, size-frameHeader)
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, fmt.Errorf("ehpeer: frame cut off: %w", err)
	}
	return parseFrame(header[5], binary.BigEndian.Uint16(header[6:]), b[offset-frameHeader:])
}

func parseFrame(kind byte, channel uint16, b []byte) (frame, error) {
	f := frame{kind: kind, channel: channel}
	if len(b) == 0 {
		return f, nil
	}
	code, value, payload, err := splitDescribed(b)
	if err != nil {
		return f, err
	}
	f.code, f.payload = code, payload
	f.fields.raw, err = splitList(value)
	return f, err
}

// appendFrame encodes a frame. A nil performative makes an empty frame.
func appendFrame(b []byte, kind byte, channel uint16, performative any, payload []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, frameHeader/4, kind)
	b = binary.BigEndian.AppendUint16(b, channel)
	if performative != nil {
		b = appendValue(b, performative)
	}
	b = append(b, payload...)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// readHeader reads a protocol header and says which it is.
func readHeader(r io.Reader) (sasl bool, err error) {
	var header [8]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return false, err
	}
	switch {
	case bytes.Equal(header[:], headerSASL):
		return true, nil
	case bytes.Equal(header[:], headerAMQP):
		return false, nil
	}
	return false, fmt.Errorf("ehpeer: client begins with %q", header[:])
}

// fields are the elements of a performative, decoded when asked for. The first
// that is not of the type asked for leaves an error.
type fields struct {
	raw []raw
	err error
}

// at is the undecoded field; nil if it is absent or null.
func (f *fields) at(i int) raw {
	if i >= len(f.raw) || len(f.raw[i]) == 0 || f.raw[i][0] == 0x40 {
		return nil
	}
	return f.raw[i]
}

func (f *fields) value(i int) any {
	b := f.at(i)
	if b == nil {
		return nil
	}
	v, _, err := decode(b)
	if err != nil && f.err == nil {
		f.err = err
	}
	return v
}

func (f *fields) wrong(i int, v any) {
	if f.err == nil {
		f.err = fmt.Errorf("ehpeer: field %d is a %T", i, v)
	}
}

// uint is an unsigned number up to 32 bits; absent if there is none.
func (f *fields) uint(i int, absent uint32) uint32 {
	switch v := f.value(i).(type) {
	case nil:
		return absent
	case uint8:
		return uint32(v)
	case uint16:
		return uint32(v)
	case uint32:
		return v
	default:
		f.wrong(i, v)
		return absent
	}
}

func (f *fields) bool(i int) bool {
	switch v := f.value(i).(type) {
	case nil:
		return false
	case bool:
		return v
	default:
		f.wrong(i, v)
		return false
	}
}

// text is a string or symbol; empty if there is none.
func (f *fields) text(i int) string {
	switch v := f.value(i).(type) {
	case nil:
		return ""
	case string:
		return v
	case symbol:
		return string(v)
	default:
		f.wrong(i, v)
		return ""
	}
}

// dict is a map; nil if there is none.
func (f *fields) dict(i int) map[any]any {
	switch v := f.value(i).(type) {
	case nil:
		return nil
	case map[any]any:
		return v
	default:
		f.wrong(i, v)
		return nil
	}
}

// composite is the fields of a described list; none if it is absent.
func (f *fields) composite(i int, code uint64) fields {
	b := f.at(i)
	if b == nil {
		return fields{}
	}
	got, value, _, err := splitDescribed(b)
	if err == nil && got != code {
		err = fmt.Errorf("ehpeer: field %d is described by %#x, not %#x", i, got, code)
	}
	var inner fields
	if err == nil {
		inner.raw, err = splitList(value)
	}
	if err != nil && f.err == nil {
		f.err = err
	}
	return inner
}
