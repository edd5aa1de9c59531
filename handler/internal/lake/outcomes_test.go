package lake

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// frame is an AMQP frame of a type with a body, its header extended by so many
// words of four bytes.
func frame(kind byte, extra int, body ...byte) []byte {
	size := 8 + 4*extra + len(body)
	out := binary.BigEndian.AppendUint32(nil, uint32(size))
	out = append(out, byte(2+extra), kind, 0, 1)
	out = append(out, make([]byte, 4*extra)...)
	return append(out, body...)
}

// disposition is its body: the fields, as they are encoded, in a list.
func disposition(fields ...byte) []byte {
	return append([]byte{0, 0x53, 0x15, 0xc0, byte(len(fields) + 1), 5}, fields...)
}

func count(pieces ...[]byte) int {
	n := 0
	o := outcomes{count: func() { n++ }}
	for _, p := range pieces {
		o.read(p)
	}
	return n
}

var (
	accepted = disposition(0x41, 0x43, 0x43, 0x41, 0, 0x53, 0x24, 0x45)
	released = disposition(0x41, 0x43, 0x43, 0x41, 0, 0x53, 0x26, 0x45)
)

func TestOutcomes(t *testing.T) {
	f := func(body []byte, want int) {
		t.Helper()
		for _, extra := range []int{0, 1, 100} {
			stream := slices.Concat([]byte("AMQP\x03\x01\x00\x00"), frame(1, 0, 0, 0x53, 0x40), []byte("AMQP\x00\x01\x00\x00"), frame(0, 0),
				frame(0, 0, accepted...), frame(0, extra, body...), frame(0, 0, accepted...), frame(1, 0, released...))
			if got := count(stream); got != want {
				t.Errorf("%x, header extended by %d: %d found, want %d", body, extra, got, want)
			}
			for _, size := range []int{1, 3, 7, 64} {
				if got := count(slices.Collect(slices.Chunk(stream, size))...); got != want {
					t.Errorf("%x in pieces of %d: %d found, want %d", body, size, got, want)
				}
			}
		}
	}
	f(nil, 0)
	f(accepted, 0)
	f(released, 1)
	f(disposition(0x41, 0x43, 0x40, 0x41, 0, 0x53, 0x27, 0xc0, 2, 1, 0x41), 1)                               // modified, last is null
	f(disposition(0x41, 0x43, 0x43, 0x41, 0, 0x53, 0x25, 0xc0, 1, 0), 0)                                     // rejected
	f(disposition(0x41, 0x43, 0x43, 0x42, 0, 0x53, 0x23, 0xc0, 3, 2, 0x43, 0x44), 1)                         // received: the SDK settles upon it
	f(disposition(0x41, 0x43, 0x43, 0x41), 1)                                                                // settled without a state
	f(disposition(0x41, 0x43, 0x43, 0x41, 0x40), 1)                                                          // its state is null
	f(disposition(0x42, 0x43, 0x43, 0x41, 0, 0x53, 0x26, 0x45), 0)                                           // of theirs
	f(disposition(0x56, 0, 0x43, 0x43, 0x41, 0, 0x53, 0x26, 0x45), 0)                                        // the same, encoded otherwise
	f(disposition(0x56, 1, 0x52, 7, 0x70, 0, 0, 1, 0, 0x56, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x26, 0x45), 1) // everything at its longest
	f(disposition(0x56, 1, 0x52, 7, 0x70, 0, 0, 1, 0, 0x56, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x24, 0x45), 0)
	long := append([]byte{0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x15, 0xd0, 0, 0, 4, 0, 0, 0, 0, 5}, released[6:]...)
	f(append(long, make([]byte, 1000)...), 1)
	f([]byte{0, 0x53, 0x15, 0x45}, 1)                                              // an empty disposition
	f([]byte{0, 0x53, 0x15}, 1)                                                    // a cut one
	f(disposition(0xa1, 1, 'x'), 1)                                                // one of wrong types
	f([]byte{0, 0x53, 0x14, 0xc0, 8, 5, 0x41, 0x43, 0x43, 0x41, 0, 0x53, 0x26}, 0) // a transfer
	f(append([]byte{0, 0x53, 0x14, 0xc0, 1, 0}, released...), 0)                   // whose payload looks like one
	f([]byte{0, 0xa3, 1, 'x'}, 0)
}

// A frame whose size is below its header's does not stop the walk.
func TestOutcomesShortFrame(t *testing.T) {
	if got := count(make([]byte, 100), make([]byte, 4), frame(0, 0, released...)); got != 1 {
		t.Errorf("%d found", got)
	}
}

func FuzzOutcomes(f *testing.F) {
	f.Add(slices.Concat([]byte("AMQP\x00\x01\x00\x00"), frame(0, 0, accepted...), frame(0, 3, released...)), 5)
	f.Add(frame(0, 0, disposition(0x41, 0x43)...), 1)
	f.Add(bytes.Repeat([]byte{0}, 30), 2)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		size = max(1, min(size, 1000))
		if whole, pieces := count(stream), count(slices.Collect(slices.Chunk(stream, size))...); whole != pieces {
			t.Errorf("%d found in the whole, %d in pieces of %d", whole, pieces, size)
		}
	})
}
