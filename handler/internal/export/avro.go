package export

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits of a Capture file. Event Hubs takes no event above 1 MB, and writes
// blocks of about as much as it had at hand.
const (
	BlockBytesMax  = 64 << 20 // of one block, compressed or not
	HeaderBytesMax = 1 << 20  // of the header, which holds the schema
)

const avroMagic = "Obj\x01"

var errAvro = errors.New("not an Avro file, or a broken one")

// capture reads a file of Event Hubs Capture: an Avro object container file with
// the codec null or deflate. Its events' bodies are records. After a block that
// cannot be read the rest of the file is lost: it is told of once.
func (l *lake) capture(name string, in io.Reader) error {
	c := container{in: bufio.NewReaderSize(in, 64<<10)}
	if _, err := c.in.Peek(1); errors.Is(err, io.EOF) {
		return nil // Capture writes a header at least, but nothing is lost here
	}
	number := int64(0)
	err := c.header()
	for err == nil {
		var count int64
		if count, err = c.block(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			break
		}
		for c.events.left = c.data; count > 0; count-- {
			number++
			body, reason := c.events.next()
			if c.events.broken {
				err = fmt.Errorf("%w: an event that is not of its schema", errAvro)
				break
			}
			if reason == nil {
				reason = l.offer(name, number, body)
			}
			if stop := l.refused(name, number, reason); stop != nil {
				return stop
			}
		}
		if err == nil && len(c.events.left) > 0 {
			err = fmt.Errorf("%w: a block with %d bytes behind its events", errAvro, len(c.events.left))
		}
	}
	return l.bad(LineError{File: name, Line: number, Reason: err.Error() + "; the rest of the file is not read"})
}

// container reads the frame of an Avro object container file, as the Avro
// specification has it. The library's own reader allocates whatever length a
// broken file names.
type container struct {
	in      *bufio.Reader
	events  events
	deflate bool
	sync    [16]byte
	data    []byte // of the block at hand, not compressed
}

// header reads magic, metadata and sync marker.
func (c *container) header() error {
	magic := make([]byte, len(avroMagic))
	if _, err := io.ReadFull(c.in, magic); err != nil || string(magic) != avroMagic {
		return errAvro
	}
	meta, err := c.metadata()
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(c.in, c.sync[:]); err != nil {
		return errAvro
	}
	switch codec := meta["avro.codec"]; codec {
	case "", "null":
	case "deflate":
		c.deflate = true
	default:
		return fmt.Errorf("the codec %.20q cannot be read: it is null or deflate", codec)
	}
	c.events.fields, c.events.body, err = bodyOf(meta["avro.schema"])
	return err
}

// metadata reads a map of texts to bytes: blocks of a count, or of a negative
// count and a size, until a count of zero.
func (c *container) metadata() (map[string]string, error) {
	meta, left := map[string]string{}, int64(HeaderBytesMax)
	for {
		count, err := binary.ReadVarint(c.in)
		if err != nil || count == 0 {
			return meta, err
		}
		if count < 0 {
			count = -count
			if _, err := binary.ReadVarint(c.in); err != nil {
				return nil, errAvro
			}
		}
		for ; count > 0; count-- {
			key, err := c.text(&left)
			if err != nil {
				return nil, err
			}
			if meta[string(key)], err = asText(c.text(&left)); err != nil {
				return nil, err
			}
		}
	}
}

func asText(data []byte, err error) (string, error) { return string(data), err }

// text reads bytes with their length before them; left is what may still come.
func (c *container) text(left *int64) ([]byte, error) {
	size, err := binary.ReadVarint(c.in)
	if err != nil || size < 0 || size > *left {
		return nil, errAvro
	}
	*left -= size + 1
	data := make([]byte, size)
	if _, err := io.ReadFull(c.in, data); err != nil {
		return nil, errAvro
	}
	return data, nil
}

// block reads the next block and returns how many events it has, [io.EOF] after
// the last one.
func (c *container) block() (count int64, err error) {
	if _, err := c.in.Peek(1); errors.Is(err, io.EOF) {
		return 0, io.EOF
	}
	count, err = binary.ReadVarint(c.in)
	if err != nil {
		return 0, cutOff(err)
	}
	size, err := binary.ReadVarint(c.in)
	if err != nil {
		return 0, cutOff(err)
	}
	if count < 0 || size < 0 || size > BlockBytesMax {
		return 0, fmt.Errorf("%w: a block of %d events and %d bytes", errAvro, count, size)
	}
	var stored bytes.Buffer // grows by what comes, not by what was announced
	if n, err := io.CopyN(&stored, c.in, size); err != nil || n != size {
		return 0, cutOff(err)
	}
	if c.data = stored.Bytes(); c.deflate {
		if c.data, err = inflate(c.data); err != nil {
			return 0, err
		}
	}
	var sync [16]byte
	if _, err := io.ReadFull(c.in, sync[:]); err != nil {
		return 0, cutOff(err)
	}
	if sync != c.sync {
		return 0, fmt.Errorf("%w: a block does not end in the sync marker", errAvro)
	}
	return count, nil
}

// cutOff keeps an end within a block from being taken for the end of the file.
func cutOff(err error) error {
	return fmt.Errorf("%w: cut off within a block (%s)", errAvro, err.Error())
}

func inflate(data []byte) ([]byte, error) {
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), BlockBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("%w: a block cannot be inflated", errAvro)
	}
	if len(plain) > BlockBytesMax {
		return nil, fmt.Errorf("%w: a block of more than %d bytes", errAvro, BlockBytesMax)
	}
	return plain, nil
}
