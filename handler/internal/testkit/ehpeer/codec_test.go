package ehpeer

import (
	"bytes"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"
)

// TestDecode holds the codec against go-amqp's.
func TestDecode(t *testing.T) {
	at := time.UnixMilli(1700000000123).UTC()
	long := strings.Repeat("é", 200)
	values := map[string]any{
		"null": nil, "true": true, "false": false,
		"ubyte": uint8(200), "ushort": uint16(60000), "uint": uint32(1 << 31), "uint 0": uint32(0), "uint 7": uint32(7),
		"ulong": uint64(math.MaxUint64), "ulong 0": uint64(0), "ulong 7": uint64(7),
		"byte": int8(-3), "short": int16(-300), "int": int32(math.MinInt32), "int -7": int32(-7),
		"long": int64(math.MinInt64), "long -7": int64(-7), "timestamp": at, "text": "a", "long text": long,
		"binary": []byte{1, 2}, "double": float64(0.5), "float": float32(0.25),
		"uuid": amqp.UUID{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0},
	}
	m := amqp.NewMessage([]byte("one"))
	m.Data = append(m.Data, []byte("two"))
	m.ApplicationProperties = values
	m.Annotations = amqp.Annotations{annotationKey: "key"}
	m.Properties = &amqp.MessageProperties{MessageID: uint64(5)}
	m.Footer = amqp.Annotations{"x": "y"}
	got, err := parseMessage(encoded(t, m))
	if err != nil {
		t.Fatal(err)
	}
	e, err := got.event("other")
	if err != nil {
		t.Fatal(err)
	}
	values["uuid"] = "12345678-9abc-def0-1234-56789abcdef0"
	want(t, "event", e.Event, Event{MessageID: "5", PartitionKey: "key", Properties: values, Body: []byte("onetwo")})

	e.Enqueued, e.Sequence, e.Offset = at, 3, "77"
	var back amqp.Message
	if err := back.UnmarshalBinary(e.encode()); err != nil {
		t.Fatal(err)
	}
	m.Annotations, m.Footer = amqp.Annotations{annotationKey: "key", annotationSequence: int64(3), annotationOffset: "77", annotationEnqueued: at}, nil
	want(t, "annotations", back.Annotations, m.Annotations)
	want(t, "data", back.Data, m.Data)
	if d := cmp.Diff(m.ApplicationProperties["long"], back.ApplicationProperties["long"]); d != "" {
		t.Error(d)
	}
}

// TestCompounds decodes what go-amqp does not encode, too.
func TestCompounds(t *testing.T) {
	f := func(in string, want any) {
		t.Helper()
		got, rest, err := decode([]byte(in))
		if err != nil || len(rest) != 0 {
			t.Errorf("%x: %v, rest %x", in, err, rest)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(described{})); d != "" {
			t.Errorf("%x (-want +got):\n%s", in, d)
		}
		value, rest, err := split([]byte(in))
		if err != nil || string(value) != in || len(rest) != 0 {
			t.Errorf("%x: split gives %x, %x, %v", in, value, rest, err)
		}
	}
	f("\x45", []any{})
	f("\xc0\x04\x02\x41\x54\xff", []any{true, int32(-1)})
	f("\xd0\x00\x00\x00\x06\x00\x00\x00\x01\xa1\x00", []any{""})
	f("\xc1\x07\x02\xa3\x01k\xa1\x01v", map[any]any{symbol("k"): "v"})
	f("\xe0\x06\x02\xa1\x01a\x01b", []any{"a", "b"})
	f("\xf0\x00\x00\x00\x09\x00\x00\x00\x01\x71\x00\x00\x00\x09", []any{int32(9)})
	f("\xe0\x07\x02\x00\x53\x07\x56\x01\x00", []any{described{uint64(7), true}, described{uint64(7), false}})
}

func TestSenseless(t *testing.T) {
	f := func(name, in string) {
		t.Helper()
		if v, _, err := decode([]byte(in)); err == nil {
			t.Errorf("%s: got %v", name, v)
		}
	}
	f("nothing", "")
	f("unknown width", "\x10")
	f("unknown type", "\x46")
	f("unknown type of a byte", "\x57\x01")
	f("text too short", "\xa1\x05abcd")
	f("text of 4 GB", "\xb1\xff\xff\xff\xff")
	f("list of 4 G elements", "\xd0\x00\x00\x00\x05\xff\xff\xff\xff\x40")
	f("array of 4 G nulls", "\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40")
	f("list without count", "\xc0\x00")
	f("list too short", "\xc0\x02\x01\x70")
	f("map without a value", "\xc1\x02\x01\x41")
	f("list as key", "\xc1\x03\x02\x45\x41")
	f("binary as key", "\xc1\x04\x02\xa0\x00\x41")
	f("array without type", "\xe0\x01\x00")
	f("descriptor without value", "\x00\x53\x01")
	for _, depth := range []int{depthMax, depthMax + 1} {
		deep := []byte{0x40}
		for range depth {
			deep = appendValue(nil, list{raw(deep)})
		}
		if _, _, err := decode(deep); (err == nil) != (depth == depthMax) {
			t.Errorf("depth %d: %v", depth, err)
		}
		described := []byte(strings.Repeat("\x00\x43", depth) + "\x40")
		if _, _, err := split(described); (err == nil) != (depth == depthMax) {
			t.Errorf("descriptors of depth %d: %v", depth, err)
		}
	}
}

func TestFrameBytesMax(t *testing.T) {
	f := func(size int, ok bool) {
		t.Helper()
		b := appendFrame(nil, kindAMQP, 1, composite(codeFlow), nil)
		b = appendFrame(nil, kindAMQP, 1, composite(codeFlow), make([]byte, size-len(b)))
		got, err := readFrame(bytes.NewReader(b))
		if (err == nil) != ok || ok && (got.code != codeFlow || got.channel != 1) {
			t.Errorf("%d bytes: got %#x, %v", size, got.code, err)
		}
	}
	f(100, true)
	f(frameBytesMax, true)
	f(frameBytesMax+1, false)

	for _, b := range []string{"", "\x00\x00\x00\x07\x02\x00\x00\x00", "\x00\x00\x00\x08\x01\x00\x00\x00", "\x00\x00\x00\x08\x03\x00\x00\x00", "\x00\x00\x00\x09\x02\x00\x00\x00"} {
		if f, err := readFrame(strings.NewReader(b)); err == nil {
			t.Errorf("%x: %+v", b, f)
		}
	}
}

// FuzzDecode: no panic, and no more values than bytes.
func FuzzDecode(f *testing.F) {
	f.Add(appendValue(nil, composite(codeAttach, "name", uint32(1), true, nil, []string{"a", "b"}, pairs{symbol("k"), int64(1)})))
	f.Add([]byte("\xe0\x05\x02\x00\x53\x07\x41"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, err := decode(b)
		if err != nil {
			return
		}
		if n := count(v); n > len(b)-len(rest) {
			t.Errorf("%d values from %d bytes", n, len(b)-len(rest))
		}
		_, after, err := split(b)
		if err != nil || len(after) != len(rest) {
			t.Errorf("decode leaves %d bytes, split %d, %v", len(rest), len(after), err)
		}
	})
}

func count(v any) (n int) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			n += count(e)
		}
	case map[any]any:
		for _, e := range v {
			n += 1 + count(e)
		}
	case described:
		return 1 + count(v.value)
	}
	return n + 1
}

func FuzzMessage(f *testing.F) {
	m := amqp.NewMessage([]byte("body"))
	m.Properties = &amqp.MessageProperties{MessageID: "id"}
	m.ApplicationProperties = map[string]any{"k": int64(1)}
	f.Add(encoded(f, m))
	m.Data = [][]byte{encoded(f, m), encoded(f, m)}
	f.Add(encoded(f, m))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, format := range []uint32{0, formatBatch} {
			_, batch, err := events(format, b)
			if err != nil {
				continue
			}
			for _, e := range batch {
				if _, err := parseMessage(e.encode()); err != nil {
					t.Errorf("what was stored cannot be read: %v", err)
				}
			}
		}
	})
}

// FuzzFrames has a peer read garbage after the handshake: it must not panic, and
// not keep more than it was sent.
func FuzzFrames(f *testing.F) {
	frames := func(performatives ...any) (b []byte) {
		for _, p := range performatives {
			b = appendFrame(b, kindAMQP, 0, p, nil)
		}
		return b
	}
	const group = "usage/ConsumerGroups/g/Partitions/0"
	begin := composite(codeBegin, nil, uint32(0), uint32(9), uint32(9))
	event := encoded(f, amqp.NewMessage([]byte("event")))
	transfer := composite(codeTransfer, uint32(0), uint32(0), []byte("t"), uint32(0))
	f.Add(appendFrame(frames(begin, attach(0, false, "", "usage", nil)), kindAMQP, 0, transfer, event))
	f.Add(frames(begin, attach(0, true, group, "me", "amqp.annotation.x-opt-offset > '-1'"),
		composite(codeFlow, uint32(0), uint32(9), uint32(0), uint32(9), uint32(0), uint32(0), uint32(9), nil, true, true)))
	put := encoded(f, &amqp.Message{
		Value: "token", Properties: &amqp.MessageProperties{MessageID: "1", ReplyTo: &[]string{"me"}[0]},
		ApplicationProperties: map[string]any{"operation": "put-token", "name": "amqp://h/usage"},
	})
	f.Add(appendFrame(frames(begin, attach(0, false, "", "$cbs", nil), attach(1, true, "$cbs", "me", nil)), kindAMQP, 0, transfer, put))
	f.Add(frames(begin, composite(codeDetach, uint32(0)), composite(codeEnd), composite(codeClose)))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := newPeer(Options{Partitions: 1})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		c := newConn(p, theirs)
		c.granted["usage"] = true
		done := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, ours)
			close(done)
		}()
		go func() {
			_, _ = ours.Write(append(append(bytes.Clone(headerAMQP), frames(composite(codeOpen, "client"))...), b...))
			_ = ours.Close()
		}()
		c.serve()
		<-done
		kept := 0
		for _, e := range p.store.events {
			kept += len(e.bare)
		}
		if kept > len(b) {
			t.Errorf("%d bytes kept of %d", kept, len(b))
		}
	})
}
