package media

import (
	"bytes"
	"encoding/binary"
)

// opusRate is the rate in which Opus counts, whatever it was made from.
const opusRate = 48_000

// oggStream is a logical stream of an Ogg file.
type oggStream struct {
	codec       byte // 'o' Opus, 'v' Vorbis, 0: another one
	rate        int64
	skip        int64 // samples at the beginning that are not heard
	long        int64 // samples of a long Vorbis block
	first, last int64 // granule positions: where the sound begins, and ends
	begun       bool
	headers     int   // packets to come that hold no sound
	samples     int64 // of all packets, at most
	inPacket    bool
}

// oggStreamsMax bounds the streams that are followed. Sound has one. A file with
// more has no known length, and no bound.
const oggStreamsMax = 16

// ogg walks the pages of a file, and the packets in them.
func ogg(data []byte) sound {
	streams := map[uint32]*oggStream{}
	for i := 0; i+27 <= len(data); {
		if string(data[i:i+4]) != "OggS" {
			next := bytes.Index(data[i+1:], []byte("OggS"))
			if next < 0 {
				break
			}
			i += 1 + next
			continue
		}
		serial := binary.LittleEndian.Uint32(data[i+14:])
		granule := int64(binary.LittleEndian.Uint64(data[i+6:]))
		lacing := data[i+27 : min(i+27+int(data[i+26]), len(data))]
		s := streams[serial]
		if s == nil {
			if len(streams) == oggStreamsMax {
				return sound{most: LengthMax, sure: true}
			}
			s = &oggStream{}
			streams[serial] = s
		}
		i = s.page(data, i+27+len(lacing), lacing, data[i+5]&1 != 0, granule)
	}
	found := sound{sure: true}
	others := len(streams) == 0
	for _, s := range streams {
		others = others || s.codec == 0 || s.rate == 0
		if s.begun {
			found.ms = add(found.ms, atRate(s.last-s.first, s.rate)) // one after another
			found.known = true
		}
		if s.rate > 0 {
			found.most = add(found.most, atRate(s.samples, s.rate))
		}
	}
	if others { // packets of other codecs may hold anything
		return sound{most: add(found.most, atRate(int64(len(data)), floorUnknown)), sure: true}
	}
	// A position that lies claims more than the packets hold.
	found.ms = min(found.ms, found.most)
	return found
}

// page takes a page and is the offset behind it.
func (s *oggStream) page(data []byte, i int, lacing []byte, continued bool, granule int64) int {
	s.inPacket = s.inPacket && continued
	var samples int64 // that end in this page
	for start, k := i, 0; k < len(lacing); k++ {
		i = min(i+int(lacing[k]), len(data))
		if !s.inPacket {
			samples += s.packet(data[start:i])
		}
		s.inPacket = lacing[k] == 255
		start = i
	}
	s.samples = add(s.samples, samples)
	if granule >= 0 && samples > 0 && s.codec != 0 {
		if !s.begun {
			// The first page tells where the sound begins: what is in it came before
			// its position. A page that ends the stream may be cut short.
			s.first, s.begun = max(0, granule-samples), true
			if s.codec == 'v' {
				s.first = 0
			}
			s.first = min(granule, s.first+s.skip)
		}
		s.last = max(s.last, granule)
	}
	return i
}

// packet takes the beginning of a packet and tells how many samples it makes at
// most.
func (s *oggStream) packet(p []byte) int64 {
	switch {
	case len(p) >= 19 && string(p[:8]) == "OpusHead" && s.rate == 0:
		s.codec, s.rate, s.headers = 'o', opusRate, 1
		s.skip = int64(binary.LittleEndian.Uint16(p[10:]))
		return 0
	case len(p) >= 29 && string(p[:7]) == "\x01vorbis" && s.rate == 0:
		s.codec, s.rate, s.headers = 'v', int64(binary.LittleEndian.Uint32(p[12:])), 2
		s.long = 1 << (p[28] >> 4)
		return 0
	case s.headers > 0:
		s.headers--
		return 0
	case s.codec == 'o':
		return opusSamples(p)
	case s.codec == 'v':
		return s.long / 2 // two blocks overlap by half
	}
	return 0
}

// opusSamples is how many samples an Opus packet makes, by its first bytes
// (RFC 6716, section 3.1): 120 ms at most.
func opusSamples(p []byte) int64 {
	if len(p) == 0 {
		return 0
	}
	const most = opusRate * 120 / 1000
	config := int(p[0] >> 3)
	var frame int64
	switch {
	case config < 12: // 10, 20, 40, 60 ms
		frame = []int64{480, 960, 1920, 2880}[config&3]
	case config < 16: // 10, 20 ms
		frame = 480 << (config & 1)
	default: // 2.5, 5, 10, 20 ms
		frame = 120 << (config & 3)
	}
	switch p[0] & 3 {
	case 0:
		return frame
	case 1, 2:
		return min(2*frame, most)
	}
	if len(p) < 2 {
		return most
	}
	return min(frame*int64(p[1]&63), most)
}
