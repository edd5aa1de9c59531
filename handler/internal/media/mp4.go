package media

import "encoding/binary"

// mp4Parents are the boxes whose boxes are looked at.
var mp4Parents = map[string]bool{"moov": true, "trak": true, "mdia": true, "minf": true, "stbl": true, "moof": true, "traf": true, "mvex": true}

// aacRates are the rates that a decoder's configuration names by a code.
var aacRates = [13]int64{96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350}

// aacFrame is the samples of an AAC frame at the decoder's own rate. A second,
// doubled rate doubles the samples too.
const aacFrame = 1024

// mp4 walks the boxes of an MP4 file. The length is that of the movie, or of
// the longest track; a file in fragments has it in neither.
func mp4(data []byte) sound {
	var movie, track, frames, rate int64
	others := false // there is sound that is not AAC
	for i := 0; i+8 <= len(data); {
		size, name, head := int64(binary.BigEndian.Uint32(data[i:])), string(data[i+4:i+8]), 8
		if size == 1 && i+16 <= len(data) {
			size, head = int64(binary.BigEndian.Uint64(data[i+8:])&(1<<62-1)), 16
		}
		if size == 0 || size > int64(len(data)-i) {
			size = int64(len(data) - i) // to the end of the file
		}
		if size < int64(head) {
			break
		}
		body := data[i+head : i+int(size)]
		switch name {
		case "mvhd":
			movie = max(movie, mp4Length(body))
		case "mdhd":
			track = max(track, mp4Length(body))
		case "stsd":
			switch r := aacRate(body); {
			case r > 0 && (rate == 0 || r < rate):
				rate = r // the slowest
			case r == 0 && len(body) >= 16 && mp4Sound[string(body[12:16])]:
				others = true
			}
		case "stsz", "stz2":
			if len(body) >= 12 {
				frames = add(frames, int64(binary.BigEndian.Uint32(body[8:])))
			}
		case "trun":
			if len(body) >= 8 {
				frames = add(frames, int64(binary.BigEndian.Uint32(body[4:])))
			}
		}
		if mp4Parents[name] {
			i += head
		} else {
			i += int(size)
		}
	}
	s := sound{ms: movie}
	if rate > 0 {
		s.most, s.sure = atRate(scaled(frames, aacFrame, 1), rate), true
	}
	if others {
		s.most = add(s.most, atRate(int64(len(data)), floorUnknown))
	}
	if s.ms == 0 {
		s.ms = track
	}
	if s.ms == 0 && s.sure {
		s.ms = s.most
	}
	s.known = s.ms > 0
	if s.sure && !others {
		s.ms = min(s.ms, s.most)
	}
	return s
}

// mp4Sound are other codecs of sound that MP4 files have.
var mp4Sound = map[string]bool{"mp4a": true, "alac": true, "Opus": true, "fLaC": true, "ac-3": true, "ec-3": true, ".mp3": true, "samr": true, "sawb": true, "sowt": true, "twos": true, "lpcm": true}

// mp4Length reads the length in an mvhd or mdhd box.
func mp4Length(p []byte) int64 {
	switch {
	case len(p) >= 32 && p[0] == 1:
		if n := int64(binary.BigEndian.Uint64(p[24:])); n >= 0 { // all ones: unknown
			return atRate(n, int64(binary.BigEndian.Uint32(p[20:])))
		}
	case len(p) >= 20 && p[0] == 0:
		if n := binary.BigEndian.Uint32(p[16:]); n != 1<<32-1 {
			return atRate(int64(n), int64(binary.BigEndian.Uint32(p[12:])))
		}
	}
	return 0
}

// aacRate reads the decoder's sample rate of an AAC track in its stsd box; 0 if
// it is none. On the way are descriptors, each with a size in up to four bytes.
func aacRate(p []byte) int64 {
	if len(p) < 56 || p[7] != 1 || string(p[12:16]) != "mp4a" || string(p[48:52]) != "esds" {
		return 0
	}
	p = p[56:]
	enter := func(tag byte) bool {
		if len(p) < 2 || p[0] != tag {
			return false
		}
		p = p[1:]
		for k := 0; len(p) > 0; k++ {
			more := p[0]&0x80 != 0
			p = p[1:]
			if !more || k == 3 {
				break
			}
		}
		return true
	}
	if !enter(3) || len(p) < 3 {
		return 0
	}
	p = p[3:] // the stream's number and flags
	if !enter(4) || len(p) < 13 || p[0] != 0x40 {
		return 0
	}
	p = p[13:] // the kind, MPEG-4 audio, and bit rates
	if !enter(5) || len(p) < 2 {
		return 0
	}
	if kind := p[0] >> 3; kind == 0 || kind > 5 && kind != 29 {
		return 0 // not AAC with frames of 1024 samples
	}
	code := p[0]&7<<1 | p[1]>>7
	switch {
	case int(code) < len(aacRates):
		return aacRates[code]
	case code == 15 && len(p) >= 5: // 24 bits follow
		return int64(p[1]&0x7f)<<17 | int64(p[2])<<9 | int64(p[3])<<1 | int64(p[4]>>7)
	}
	return 0
}
