package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// The value of an entity, version 1:
//
//	byte 0       version
//	bytes 1-8    ETag, big endian
//	bytes 9-16   time of the write, nanoseconds since 1970, big endian
//	uvarint      number of integers; for each, by name:
//	               uvarint length of the name, name, varint
//	uvarint      number of texts; for each, by name:
//	               uvarint length of the name, name, uvarint length, text
//
// Nothing follows. A file may hold values of several versions: a later program
// reads all earlier ones and writes the newest.
const (
	version   = 1
	etagAt    = 1
	updatedAt = 9
	headBytes = 17
)

// encode makes the value of an entity, its ETag and time left zero.
func encode(e ledger.Entity) []byte {
	size := headBytes + 2*binary.MaxVarintLen16
	for name := range e.Ints {
		size += len(name) + 1 + binary.MaxVarintLen64
	}
	for name, text := range e.Texts {
		size += len(name) + 1 + len(text) + binary.MaxVarintLen32
	}
	b := make([]byte, headBytes, size)
	b[0] = version
	b = binary.AppendUvarint(b, uint64(len(e.Ints)))
	for _, name := range slices.Sorted(maps.Keys(e.Ints)) {
		b = binary.AppendVarint(appendText(b, name), e.Ints[name])
	}
	b = binary.AppendUvarint(b, uint64(len(e.Texts)))
	for _, name := range slices.Sorted(maps.Keys(e.Texts)) {
		b = appendText(appendText(b, name), e.Texts[name])
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

var errDamaged = errors.New("a value of the store cannot be read")

// decode reads a value. The entity shares no memory with it and has no keys.
func decode(value []byte) (e ledger.Entity, err error) {
	if len(value) < headBytes || value[0] != version {
		return e, fmt.Errorf("%w: version or length", errDamaged)
	}
	e.ETag = strconv.FormatUint(binary.BigEndian.Uint64(value[etagAt:]), etagBase)
	e.Updated = time.Unix(0, int64(binary.BigEndian.Uint64(value[updatedAt:])))
	r := reader{rest: value[headBytes:]}
	if n := r.count(); n > 0 {
		e.Ints = make(map[string]int64, n)
		for range n {
			name := r.text()
			e.Ints[name] = r.varint()
		}
	}
	if n := r.count(); n > 0 {
		e.Texts = make(map[string]string, n)
		for range n {
			name := r.text()
			e.Texts[name] = r.text()
		}
	}
	if r.damaged || len(r.rest) > 0 {
		return ledger.Entity{}, errDamaged
	}
	return e, nil
}

// reader takes a value apart. Once damaged, it gives zeros.
type reader struct {
	rest    []byte
	damaged bool
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.rest)
	return skip(r, n, size)
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.rest)
	return skip(r, n, size)
}

func skip[N int64 | uint64](r *reader, n N, size int) N {
	if size <= 0 || r.damaged {
		r.damaged, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// count is a number of properties, never more than an entity may have.
func (r *reader) count() int {
	n := r.uvarint()
	if n > ledger.PropertiesMax {
		r.damaged, r.rest = true, nil
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.damaged, r.rest = true, nil
		return ""
	}
	text := string(r.rest[:n])
	r.rest = r.rest[n:]
	return text
}
