package media

import (
	"encoding/binary"
	"math"
)

// The elements that matter (RFC 9559). Of the others only the size is read.
const (
	mkSegment     = 0x18538067
	mkInfo        = 0x1549a966
	mkScale       = 0x2ad7b1 // nanoseconds of a tick
	mkDuration    = 0x4489   // ticks, a float
	mkTracks      = 0x1654ae6b
	mkTrack       = 0xae
	mkCodec       = 0x86
	mkCluster     = 0x1f43b675
	mkTime        = 0xe7
	mkBlockGroup  = 0xa0
	mkBlock       = 0xa1
	mkSimpleBlock = 0xa3
)

// matroska walks the elements of a WebM or Matroska file. Recorders that write
// as they go leave out the duration: then it is the last block's time.
func matroska(data []byte) sound {
	scale, claimed, cluster, last, samples := int64(1_000_000), int64(0), int64(0), int64(0), int64(0)
	blocks, opus, others := false, false, false
	for i := 0; i < len(data); {
		id, n := ebmlNumber(data[i:], 4, true)
		i += n
		if n == 0 || i >= len(data) {
			break
		}
		size, n := ebmlNumber(data[i:], 8, false)
		i += n
		if n == 0 {
			break
		}
		body := data[i:min(int64(len(data)), add(int64(i), size))]
		switch id {
		case mkSegment, mkInfo, mkTracks, mkTrack, mkCluster, mkBlockGroup:
			continue // into it
		case mkScale:
			scale = ebmlUint(body)
		case mkDuration:
			claimed = ebmlTicks(body)
		case mkTime:
			cluster = ebmlUint(body)
		case mkCodec:
			is := string(body) == "A_OPUS"
			opus, others = opus || is, others || !is
		case mkBlock, mkSimpleBlock:
			if at, frames, ok := blockOf(body); ok {
				blocks = true
				n := opusSamples(frames)
				if len(frames) > 0 && body[len(body)-len(frames)-1]&6 != 0 { // several packets
					n = (int64(frames[0]) + 1) * opusRate * 120 / 1000
				}
				samples = add(samples, n)
				last = max(last, add(scaled(max(0, cluster+at), scale, 1_000_000), atRate(n, opusRate)))
			}
		}
		i += len(body)
	}
	s := sound{ms: scaled(claimed, scale, 1_000_000)}
	if s.ms == 0 {
		s.ms = last
	}
	s.known = s.ms > 0 && blocks
	if opus {
		s.most, s.sure = atRate(samples, opusRate), true
	}
	if others {
		s.most = add(s.most, atRate(int64(len(data)), floorUnknown))
	}
	if s.sure && !others {
		s.ms = min(s.ms, s.most)
	}
	return s
}

// blockOf reads the head of a block: its time, relative to the cluster's, and
// what follows.
func blockOf(p []byte) (at int64, frames []byte, ok bool) {
	_, n := ebmlNumber(p, 8, false)
	if n == 0 || len(p) < n+3 {
		return 0, nil, false
	}
	return int64(int16(binary.BigEndian.Uint16(p[n:]))), p[n+3:], true
}

// ebmlNumber reads a number whose first byte tells its length, and how long it
// is: 0 if there is none. An ID keeps the bit that marks the length. A size of
// all ones is unknown: it goes on to the end.
func ebmlNumber(p []byte, most int, isID bool) (v int64, n int) {
	if len(p) == 0 || p[0] == 0 {
		return 0, 0
	}
	n = 1
	for mask := byte(0x80); p[0]&mask == 0; mask >>= 1 {
		n++
	}
	if n > most || n > len(p) {
		return 0, 0
	}
	for _, b := range p[:n] {
		v = v<<8 | int64(b)
	}
	if !isID {
		v &= 1<<(7*n) - 1
		if v == 1<<(7*n)-1 {
			v = math.MaxInt64
		}
	}
	return v, n
}

// ebmlUint reads an integer, at most LengthMax.
func ebmlUint(p []byte) (v int64) {
	for _, b := range p {
		if v > LengthMax>>8 {
			return LengthMax
		}
		v = v<<8 | int64(b)
	}
	return min(v, LengthMax)
}

// ebmlTicks reads a float as a whole number, rounded up. What is no number is 0.
func ebmlTicks(p []byte) int64 {
	var f float64
	switch len(p) {
	case 4:
		f = float64(math.Float32frombits(binary.BigEndian.Uint32(p)))
	case 8:
		f = math.Float64frombits(binary.BigEndian.Uint64(p))
	}
	switch {
	case math.IsNaN(f) || f < 0:
		return 0
	case f >= LengthMax:
		return LengthMax
	}
	return int64(math.Ceil(f))
}
