// Package media tells how long a piece of sound is, to price it by the second.
//
// It reads what comes from clients: nothing in a file is believed that the
// bytes do not bear out, broken files cause no panic, and the work is linear in
// the size.
package media

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
)

// LengthMax is the longest length that is told, in milliseconds: 285,000 years.
// What claims to be longer is that long.
const LengthMax = 1 << 53

// The lowest bit rates, in bytes per second, for formats whose bytes do not
// tell their length by themselves.
const (
	// floorMP3 is the lowest bit rate of MPEG audio, 8 kbit/s (layers II and III, MPEG-2).
	floorMP3 = 1000
	// floorUnknown is below what any speech codec in use needs: Opus begins at
	// 6 kbit/s by its specification (RFC 6716, section 2), here less a third.
	floorUnknown = 500
)

// sound is what a reader finds out about a file.
type sound struct {
	ms    int64 // its length
	most  int64 // what it cannot exceed, from the bytes themselves
	known bool  // ms is known
	sure  bool  // most is known
}

// Duration is the length of the sound in a file, in milliseconds rounded up. ok
// is false if the format is unknown or the file is broken. Formats: WAV, FLAC,
// MPEG audio (MP3), AAC (ADTS), Ogg (Opus, Vorbis), MP4/M4A, WebM/Matroska. What encoders
// pad at both ends of an MP3, less than 0.1 s, counts as sound.
func Duration(data []byte) (ms int64, ok bool) {
	s := measure(data)
	if !s.known {
		return 0, false
	}
	return min(s.ms, LengthMax), true
}

// Bound is a length in milliseconds that the sound cannot exceed when it is
// decoded, whatever the file's headers say:
//   - WAV: all bytes behind the head of the data, by the sample format;
//     compressed WAV at 500 B/s, or its byte rate if that is longer.
//   - FLAC: all frame headers with a right checksum, each by its own size.
//   - MP3: all frames, and the bytes between them at 8 kbit/s; AAC: all frames.
//   - Ogg, and Opus in WebM: all packets, by what each says (Opus) or can hold at
//     most (Vorbis). More than 16 streams: no bound.
//   - MP4: all AAC frames of the sample tables, 1024 samples each at the rate
//     of the decoder's configuration.
//   - Everything else, and tracks of other codecs beside those: the size at 500
//     B/s, or the length that the file claims if that is longer. Here alone
//     could a file that is made to deceive be longer than its bound: MP4 without
//     AAC, WebM without Opus.
func Bound(data []byte) int64 {
	s := measure(data)
	if !s.sure {
		s.most = max(s.ms, atRate(int64(len(data)), floorUnknown))
	}
	return min(max(s.most, s.ms), LengthMax)
}

func measure(data []byte) sound {
	data = withoutID3(data)
	switch {
	case len(data) >= 12 && (string(data[:4]) == "RIFF" || string(data[:4]) == "RF64") && string(data[8:12]) == "WAVE":
		return wav(data)
	case bytes.HasPrefix(data, []byte("fLaC")):
		return flac(data)
	case bytes.HasPrefix(data, []byte("OggS")):
		return ogg(data)
	case bytes.HasPrefix(data, []byte{0x1a, 0x45, 0xdf, 0xa3}):
		return matroska(data)
	case len(data) >= 8 && string(data[4:8]) == "ftyp":
		return mp4(data)
	case len(data) >= 2 && data[0] == 0xff && data[1]&0xf6 == 0xf0:
		return adts(data)
	}
	return mp3(data)
}

// withoutID3 is what follows the ID3v2 tags at the beginning, which every
// decoder skips. Their sizes have seven bits in a byte.
func withoutID3(data []byte) []byte {
	for len(data) >= 10 && string(data[:3]) == "ID3" {
		size := 10 + int(data[6]&0x7f)<<21 + int(data[7]&0x7f)<<14 + int(data[8]&0x7f)<<7 + int(data[9]&0x7f)
		if data[5]&0x10 != 0 {
			size += 10 // a footer
		}
		data = data[min(size, len(data)):]
	}
	return data
}

// atRate is how long n units last at so many a second: in milliseconds, rounded
// up, at most LengthMax. No rate is an endless length.
func atRate(n, rate int64) int64 { return scaled(n, 1000, rate) }

// scaled is n * by / of, rounded up, from 0 to LengthMax.
func scaled(n, by, of int64) int64 {
	if n <= 0 || by <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(n), uint64(by))
	if of <= 0 || hi >= uint64(of) {
		return LengthMax
	}
	quotient, rest := bits.Div64(hi, lo, uint64(of))
	if rest > 0 && quotient < math.MaxInt64 {
		quotient++
	}
	return int64(min(quotient, LengthMax))
}

// add is a + b, at most LengthMax. Neither is negative.
func add(a, b int64) int64 { return min(LengthMax, min(a, LengthMax)+min(b, LengthMax)) }

// clock adds up frames, in nanoseconds, so that rounding each up costs nothing.
type clock int64

func (c *clock) add(samples, rate int64) {
	if n := scaled(samples, 1_000_000_000, rate); n <= math.MaxInt64-int64(*c) {
		*c += clock(n)
	}
}

// ms is the time in milliseconds, rounded up.
func (c clock) ms() int64 { return scaled(int64(c), 1, 1_000_000) }

// wav reads RIFF chunks: the format, then the data. Recorders that write to a
// pipe leave the sizes 0 or 0xFFFFFFFF.
func wav(data []byte) sound {
	var code, channels, width, rate, byteRate int64
	for i := 12; i+8 <= len(data); {
		name, size := string(data[i:i+4]), int64(binary.LittleEndian.Uint32(data[i+4:]))
		i += 8
		rest := int64(len(data) - i)
		switch {
		case name == "fmt " && size >= 16 && rest >= 16:
			f := data[i:]
			code, channels = int64(binary.LittleEndian.Uint16(f)), int64(binary.LittleEndian.Uint16(f[2:]))
			rate, byteRate = int64(binary.LittleEndian.Uint32(f[4:])), int64(binary.LittleEndian.Uint32(f[8:]))
			width = (int64(binary.LittleEndian.Uint16(f[14:])) + 7) / 8
			if code == 0xfffe && size >= 26 && rest >= 26 { // the true code is in the extension
				code = int64(binary.LittleEndian.Uint16(f[24:]))
			}
		case name == "data":
			if size == 0 || size > rest {
				size = rest
			}
			switch code {
			case 1, 3, 6, 7: // PCM, float, A-law, mu-law: as many bytes as the samples are wide
				if frame := channels * width; frame > 0 && rate > 0 {
					return sound{ms: atRate(size/frame, rate), most: atRate(rest/frame, rate), known: size >= frame, sure: true}
				}
				return sound{}
			}
			if byteRate == 0 || code == 0 {
				return sound{}
			}
			return sound{ms: atRate(size, byteRate), known: true, most: max(atRate(rest, byteRate), atRate(rest, floorUnknown)), sure: true}
		}
		i += int(min(size+size&1, rest)) // chunks begin at even offsets
	}
	return sound{}
}
