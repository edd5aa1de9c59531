package export

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hamba/avro/v2"
)

// bodyField is the field that counts of Capture's schema, the record EventData
// of the namespace Microsoft.ServiceBus.Messaging. Capture gives it the type
// ["null","bytes"]; tools that copy its files write plain bytes too, or a longer
// union.
const bodyField = "Body"

// nestedMax is how deep values of an event may be nested.
const nestedMax = 64

// bodyOf says which field of a file's schema is the body.
func bodyOf(schema string) (fields []*avro.Field, body int, err error) {
	parsed, err := avro.ParseBytesWithCache([]byte(schema), "", &avro.SchemaCache{})
	if err != nil {
		return nil, 0, fmt.Errorf("%w: the schema cannot be read", errAvro)
	}
	if record, ok := parsed.(*avro.RecordSchema); ok {
		for i, field := range record.Fields() {
			if field.Name() == bodyField && mayBeBytes(field.Type()) {
				return record.Fields(), i, nil
			}
		}
	}
	return nil, 0, fmt.Errorf("%w: its schema is not that of Event Hubs Capture", errAvro)
}

func mayBeBytes(schema avro.Schema) bool {
	if union, ok := schema.(*avro.UnionSchema); ok {
		for _, branch := range union.Types() {
			if branch.Type() == avro.Bytes {
				return true
			}
		}
	}
	return schema.Type() == avro.Bytes
}

// events reads the events of a block by the file's own schema, as the Avro
// specification encodes them. Everything but the body is passed over. The
// library would copy it, and count through whatever length a broken file names.
type events struct {
	fields []*avro.Field
	body   int // index of the field
	left   []byte
	broken bool // left is not what the schema says
}

// next returns the body of the next event, a part of the block, or why it has
// none. It is meaningless if broken is set.
func (e *events) next() (body []byte, reason error) {
	for i, field := range e.fields {
		if i == e.body {
			body, reason = e.value(field.Type())
		} else {
			e.skip(field.Type(), 0)
		}
	}
	return body, reason
}

func (e *events) value(schema avro.Schema) ([]byte, error) {
	if union, ok := schema.(*avro.UnionSchema); ok {
		if schema = e.branch(union); schema == nil {
			return nil, nil
		}
	}
	switch schema.Type() {
	case avro.Bytes:
		return e.take(e.long()), nil
	case avro.Null:
		return nil, errors.New("an event without a body")
	}
	e.skip(schema, 0)
	return nil, fmt.Errorf("an event whose body is no bytes, but %s", schema.Type())
}

// branch reads which type of a union comes; nil if there is none.
func (e *events) branch(union *avro.UnionSchema) avro.Schema {
	types, n := union.Types(), e.long()
	if n < 0 || n >= int64(len(types)) {
		e.broken = true
	}
	if e.broken {
		return nil
	}
	return types[n]
}

// skip passes over a value.
func (e *events) skip(schema avro.Schema, depth int) {
	if depth++; depth > nestedMax {
		e.broken = true
	}
	if e.broken {
		return
	}
	switch s := schema.(type) {
	case *avro.RefSchema:
		e.skip(s.Schema(), depth)
		return
	case *avro.UnionSchema:
		if branch := e.branch(s); branch != nil {
			e.skip(branch, depth)
		}
		return
	case *avro.RecordSchema:
		for _, field := range s.Fields() {
			e.skip(field.Type(), depth)
		}
		return
	case *avro.ArraySchema:
		e.blocks(func() { e.skip(s.Items(), depth) })
		return
	case *avro.MapSchema:
		e.blocks(func() {
			e.take(e.long()) // the key
			e.skip(s.Values(), depth)
		})
		return
	case *avro.FixedSchema:
		e.take(int64(s.Size()))
		return
	}
	switch schema.Type() {
	case avro.Null:
	case avro.Boolean:
		e.take(1)
	case avro.Float:
		e.take(4)
	case avro.Double:
		e.take(8)
	case avro.Int, avro.Long, avro.Enum:
		e.long()
	case avro.Bytes, avro.String:
		e.take(e.long())
	default:
		e.broken = true
	}
}

// blocks passes over an array or a map: blocks of a count and as many items, or
// of a negative count and a size in bytes, until a count of zero.
func (e *events) blocks(item func()) {
	for count := e.long(); count != 0 && !e.broken; count = e.long() {
		if count < 0 {
			e.take(e.long())
			continue
		}
		for before := -1; count > 0 && !e.broken && before != len(e.left); count-- {
			before = len(e.left)
			item() // if it takes no bytes, neither do the others
		}
	}
}

func (e *events) long() int64 {
	n, size := binary.Varint(e.left)
	if size <= 0 || e.broken {
		e.broken = true
		return 0
	}
	e.left = e.left[size:]
	return n
}

func (e *events) take(n int64) []byte {
	if n < 0 || n > int64(len(e.left)) || e.broken {
		e.broken = true
		return nil
	}
	out := e.left[:n]
	e.left = e.left[n:]
	return out
}
