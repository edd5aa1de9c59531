package ehpeer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// This file is the type system of AMQP 1.0 (part 1 of the standard): values to
// bytes and back.
//
// A value is a constructor byte and its bytes. The upper four bits of the
// constructor say how long the value is, so that one can step over what one does
// not know.

const depthMax = 32 // of values within values

var (
	errShort = errors.New("ehpeer: value ends too soon")
	errDepth = fmt.Errorf("ehpeer: values nested deeper than %d", depthMax)
)

type (
	// symbol is a string of the protocol's own vocabulary.
	symbol string
	// raw is a value that is encoded already; none is null.
	raw []byte
	// list is encoded as an AMQP list.
	list []any
	// pairs is encoded as an AMQP map: key, value, key, value and so on.
	pairs []any
	// described is a value with a descriptor, most often a number of the standard.
	described struct{ descriptor, value any }
)

// composite is a described list, which is what frames and states are made of.
// Fields at the end that are nil are left out, as the standard allows.
func composite(code uint64, fields ...any) described {
	for len(fields) > 0 && fields[len(fields)-1] == nil {
		fields = fields[:len(fields)-1]
	}
	return described{code, list(fields)}
}

// appendValue encodes a value. It knows the types that the peer itself sends and
// panics at others.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 0x40)
	case raw:
		if len(v) == 0 {
			return append(b, 0x40)
		}
		return append(b, v...)
	case bool:
		if v {
			return append(b, 0x41)
		}
		return append(b, 0x42)
	case uint8:
		return append(b, 0x50, v)
	case uint16:
		return binary.BigEndian.AppendUint16(append(b, 0x60), v)
	case uint32:
		return binary.BigEndian.AppendUint32(append(b, 0x70), v)
	case uint64:
		if v <= math.MaxUint8 {
			return append(b, 0x53, byte(v))
		}
		return binary.BigEndian.AppendUint64(append(b, 0x80), v)
	case int32:
		return binary.BigEndian.AppendUint32(append(b, 0x71), uint32(v))
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 0x81), uint64(v))
	case time.Time:
		return binary.BigEndian.AppendUint64(append(b, 0x83), uint64(v.UnixMilli()))
	case []byte:
		return append(appendSize(b, 0xa0, len(v)), v...)
	case string:
		return append(appendSize(b, 0xa1, len(v)), v...)
	case symbol:
		return append(appendSize(b, 0xa3, len(v)), v...)
	case described:
		return appendValue(appendValue(append(b, 0x00), v.descriptor), v.value)
	case list:
		return appendCompound(b, 0xd0, v)
	case pairs:
		return appendCompound(b, 0xd1, v)
	case []string:
		return appendArray(b, v)
	}
	panic(fmt.Sprintf("ehpeer: no encoding for %T", v))
}

// appendSize appends the constructor and size of a value of variable length. The
// constructor for sizes above 255 is 0x10 higher.
func appendSize(b []byte, code byte, n int) []byte {
	if n <= math.MaxUint8 {
		return append(b, code, byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, code+0x10), uint32(n))
}

func appendCompound(b []byte, code byte, items []any) []byte {
	b = append(b, code, 0, 0, 0, 0)
	start := len(b) // the size counts from here
	b = binary.BigEndian.AppendUint32(b, uint32(len(items)))
	for _, item := range items {
		b = appendValue(b, item)
	}
	binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
	return b
}

// appendArray encodes an array of strings: the constructor stands once, before
// all elements.
func appendArray(b []byte, items []string) []byte {
	b = append(b, 0xf0, 0, 0, 0, 0)
	start := len(b)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(items))), 0xb1)
	for _, item := range items {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(item))), item...)
	}
	binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
	return b
}

// body splits off the bytes that belong to a constructor, without their size.
func body(code byte, b []byte) (value, rest []byte, err error) {
	size := 0
	switch code >> 4 {
	case 0x4:
	case 0x5, 0x6, 0x7, 0x8, 0x9:
		size = 1 << (code>>4 - 5)
	case 0xa, 0xc, 0xe:
		if len(b) < 1 {
			return nil, nil, errShort
		}
		size, b = int(b[0]), b[1:]
	case 0xb, 0xd, 0xf:
		if len(b) < 4 {
			return nil, nil, errShort
		}
		size, b = int(binary.BigEndian.Uint32(b)), b[4:]
	default:
		return nil, nil, fmt.Errorf("ehpeer: no type has the constructor %#02x", code)
	}
	if size > len(b) {
		return nil, nil, errShort
	}
	return b[:size:size], b[size:], nil
}

// split takes the first value off b, undecoded.
func split(b []byte) (value raw, rest []byte, err error) {
	rest, err = skip(b, 0)
	if err != nil {
		return nil, nil, err
	}
	n := len(b) - len(rest)
	return b[:n:n], rest, nil
}

func skip(b []byte, depth int) (rest []byte, err error) {
	if len(b) == 0 {
		return nil, errShort
	}
	if depth > depthMax {
		return nil, errDepth
	}
	code, b := b[0], b[1:]
	if code == 0x00 {
		if b, err = skip(b, depth+1); err != nil {
			return nil, err
		}
		return skip(b, depth+1)
	}
	_, rest, err = body(code, b)
	return rest, err
}

// splitDescribed takes a value that is described by a number off b.
func splitDescribed(b []byte) (code uint64, value raw, rest []byte, err error) {
	if len(b) == 0 || b[0] != 0x00 {
		return 0, nil, nil, errors.New("ehpeer: value has no descriptor")
	}
	descriptor, b, err := decode(b[1:])
	if err != nil {
		return 0, nil, nil, err
	}
	code, ok := descriptor.(uint64)
	if !ok {
		return 0, nil, nil, fmt.Errorf("ehpeer: descriptor is a %T", descriptor)
	}
	value, rest, err = split(b)
	return code, value, rest, err
}

// splitList is the undecoded elements of a list.
func splitList(b raw) ([]raw, error) {
	if len(b) == 0 {
		return nil, errShort
	}
	code := b[0]
	content, _, err := body(code, b[1:])
	if err != nil {
		return nil, err
	}
	count := 0
	switch code {
	case 0x45:
	case 0xc0, 0xd0:
		if count, content, err = counted(code, content); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("ehpeer: constructor %#02x is no list", code)
	}
	items := make([]raw, count)
	for i := range items {
		if items[i], content, err = split(content); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// counted splits the count off the body of a list, map or array. Elements without
// bytes of their own exist only in arrays; more of them than bytes follow are
// refused: a few bytes could ask for gigabytes.
func counted(code byte, b []byte) (count int, rest []byte, err error) {
	if code>>4 == 0xc || code>>4 == 0xe {
		if len(b) < 1 {
			return 0, nil, errShort
		}
		count, b = int(b[0]), b[1:]
	} else {
		if len(b) < 4 {
			return 0, nil, errShort
		}
		count, b = int(binary.BigEndian.Uint32(b)), b[4:]
	}
	if count > len(b) {
		return 0, nil, errShort
	}
	return count, b, nil
}

// decode reads the first value of b. Integers keep their width, a uuid becomes
// its text, lists and arrays []any, maps map[any]any, decimals their bytes.
func decode(b []byte) (v any, rest []byte, err error) { return decodeAt(b, 0) }

func decodeAt(b []byte, depth int) (v any, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, errShort
	}
	if depth > depthMax {
		return nil, nil, errDepth
	}
	code, b := b[0], b[1:]
	if code == 0x00 {
		descriptor, b, err := decodeAt(b, depth+1)
		if err != nil {
			return nil, nil, err
		}
		v, rest, err = decodeAt(b, depth+1)
		return described{descriptor, v}, rest, err
	}
	content, rest, err := body(code, b)
	if err != nil {
		return nil, nil, err
	}
	v, err = decodeBody(code, content, depth)
	return v, rest, err
}

func decodeBody(code byte, b []byte, depth int) (any, error) {
	switch code {
	case 0x40:
		return nil, nil //nolint:nilnil // null is a value
	case 0x41, 0x42:
		return code == 0x41, nil
	case 0x56:
		return b[0] == 1, nil
	case 0x50:
		return b[0], nil
	case 0x51:
		return int8(b[0]), nil
	case 0x60:
		return binary.BigEndian.Uint16(b), nil
	case 0x61:
		return int16(binary.BigEndian.Uint16(b)), nil
	case 0x43:
		return uint32(0), nil
	case 0x52:
		return uint32(b[0]), nil
	case 0x70:
		return binary.BigEndian.Uint32(b), nil
	case 0x44:
		return uint64(0), nil
	case 0x53:
		return uint64(b[0]), nil
	case 0x80:
		return binary.BigEndian.Uint64(b), nil
	case 0x54:
		return int32(int8(b[0])), nil
	case 0x71, 0x73: // int, char
		return int32(binary.BigEndian.Uint32(b)), nil
	case 0x55:
		return int64(int8(b[0])), nil
	case 0x81:
		return int64(binary.BigEndian.Uint64(b)), nil
	case 0x72:
		return math.Float32frombits(binary.BigEndian.Uint32(b)), nil
	case 0x82:
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	case 0x83:
		return time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC(), nil
	case 0x98:
		return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
	case 0x74, 0x84, 0x94, 0xa0, 0xb0:
		return b, nil
	case 0xa1, 0xb1:
		return string(b), nil
	case 0xa3, 0xb3:
		return symbol(b), nil
	case 0x45:
		return []any{}, nil
	case 0xc0, 0xd0:
		return decodeList(code, b, depth)
	case 0xc1, 0xd1:
		return decodeMap(code, b, depth)
	case 0xe0, 0xf0:
		return decodeArray(code, b, depth)
	}
	return nil, fmt.Errorf("ehpeer: no type has the constructor %#02x", code)
}

func decodeList(code byte, b []byte, depth int) ([]any, error) {
	count, b, err := counted(code, b)
	if err != nil {
		return nil, err
	}
	items := make([]any, count)
	for i := range items {
		if items[i], b, err = decodeAt(b, depth+1); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func decodeMap(code byte, b []byte, depth int) (map[any]any, error) {
	items, err := decodeList(code, b, depth)
	if err != nil {
		return nil, err
	}
	if len(items)%2 != 0 {
		return nil, errors.New("ehpeer: map has a key without value")
	}
	m := make(map[any]any, len(items)/2)
	for i := 0; i < len(items); i += 2 {
		switch key := items[i].(type) {
		case string, symbol, bool, uint8, uint16, uint32, uint64, int8, int16, int32, int64:
			m[key] = items[i+1]
		default: // most others cannot be keys of a Go map
			return nil, fmt.Errorf("ehpeer: map has a %T as key", key)
		}
	}
	return m, nil
}

func decodeArray(code byte, b []byte, depth int) ([]any, error) {
	count, b, err := counted(code, b)
	if err != nil {
		return nil, err
	}
	if depth >= depthMax {
		return nil, errDepth
	}
	var descriptor any
	if len(b) > 0 && b[0] == 0x00 {
		if descriptor, b, err = decodeAt(b[1:], depth+1); err != nil {
			return nil, err
		}
	}
	if len(b) == 0 {
		return nil, errShort
	}
	element, b := b[0], b[1:]
	items := make([]any, count)
	for i := range items {
		var content []byte
		if content, b, err = body(element, b); err != nil {
			return nil, err
		}
		if items[i], err = decodeBody(element, content, depth+1); err != nil {
			return nil, err
		}
		if descriptor != nil {
			items[i] = described{descriptor, items[i]}
		}
	}
	return items, nil
}
