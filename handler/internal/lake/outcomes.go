package lake

import (
	"bytes"
	"encoding/binary"
)

// outcomes reads the AMQP 1.0 frames that come from a service and counts the
// transfers that it neither accepted nor rejected. The SDK takes the outcomes
// released and modified, a state that is not final, and a settlement without any
// for success (go-amqp v1.5.0, Sender.Send), though the service has stored nothing.
//
// It sees the bytes that the SDK reads, in pieces of any length, and keeps no more
// than the first bytes of the current frame. What it cannot read of a disposition
// counts, too: to send once more is harmless, to believe is not.
type outcomes struct {
	count func() // called for each

	at      int64 // bytes of the frame that have passed
	size    int64 // of the frame; 0: its header is not complete
	header  [8]byte
	body    [dispositionBytesMax]byte
	bodyLen int
}

const (
	frameHeaderBytes = 8
	// dispositionBytesMax is enough for a disposition up to its state's
	// descriptor: 9+1 bytes of descriptor, 9 of the list's head, 2+5+5+2 of the
	// fields before the state, 10 of its descriptor.
	dispositionBytesMax = 64

	descriptorDisposition = 0x15
	descriptorAccepted    = 0x24
	descriptorRejected    = 0x25
)

// read looks at the next bytes.
func (o *outcomes) read(p []byte) {
	for len(p) > 0 {
		if o.at < frameHeaderBytes {
			n := copy(o.header[o.at:], p)
			o.at += int64(n)
			p = p[n:]
			if o.at == frameHeaderBytes {
				o.begin()
			}
		} else {
			n := min(int64(len(p)), o.size-o.at)
			o.keep(p[:n])
			o.at += n
			p = p[n:]
		}
		if o.size > 0 && o.at >= o.size {
			o.end()
		}
	}
}

// begin is called with a complete header: of a protocol (AMQP%d1.0.0), or of a frame.
func (o *outcomes) begin() {
	o.size = frameHeaderBytes
	if !bytes.HasPrefix(o.header[:], []byte("AMQP")) {
		// A size below the header's is a fault, upon which the SDK hangs up.
		o.size = max(int64(binary.BigEndian.Uint32(o.header[:4])), frameHeaderBytes)
	}
}

// keep copies what belongs to the first bytes of the body.
func (o *outcomes) keep(p []byte) {
	start := 4 * int64(o.header[4]) // the header may be extended
	if skip := start - o.at; skip > 0 {
		p = p[min(skip, int64(len(p))):]
	}
	o.bodyLen += copy(o.body[o.bodyLen:], p)
}

func (o *outcomes) end() {
	const amqpFrame = 0
	if o.header[5] == amqpFrame && o.bodyLen > 0 && unaccepted(o.body[:o.bodyLen]) {
		o.count()
	}
	o.at, o.size, o.bodyLen = 0, 0, 0
}

// unaccepted tells whether a frame's body, of which the end may be missing, is a
// disposition of a transfer of ours that is neither accepted nor rejected.
func unaccepted(body []byte) bool {
	f := fields(body)
	if f.descriptor() != descriptorDisposition {
		return false
	}
	f.list()
	if role, ok := f.boolean(); ok && !role {
		return false // of a transfer of theirs
	}
	f.uint() // first
	f.uint() // last
	f.boolean()
	state := f.descriptor()
	return state != descriptorAccepted && state != descriptorRejected
}

// fields is a cursor over encoded AMQP values. What is not there, or is not of
// the type asked for, empties it.
type fields []byte

func (f *fields) take(n int) []byte {
	if len(*f) < n {
		*f = nil
		return make([]byte, n)
	}
	head := (*f)[:n]
	*f = (*f)[n:]
	return head
}

// descriptor is the code of a described value; 0 if there is none.
func (f *fields) descriptor() uint64 {
	if f.take(1)[0] != 0 {
		*f = nil
		return 0
	}
	switch f.take(1)[0] {
	case 0x53:
		return uint64(f.take(1)[0])
	case 0x80:
		return binary.BigEndian.Uint64(f.take(8))
	default:
		*f = nil
		return 0
	}
}

// list passes the head of a list.
func (f *fields) list() {
	switch f.take(1)[0] {
	case 0xc0:
		f.take(2)
	case 0xd0:
		f.take(8)
	default: // 0x45 is an empty one
		*f = nil
	}
}

func (f *fields) uint() {
	switch f.take(1)[0] {
	case 0x40, 0x43: // null, 0
	case 0x52:
		f.take(1)
	case 0x70:
		f.take(4)
	default:
		*f = nil
	}
}

func (f *fields) boolean() (value, ok bool) {
	switch f.take(1)[0] {
	case 0x40:
		return false, false
	case 0x41:
		return true, true
	case 0x42:
		return false, len(*f) > 0
	case 0x56:
		return f.take(1)[0] != 0, len(*f) > 0
	default:
		*f = nil
		return false, false
	}
}
