package media

import "encoding/binary"

// flacRates are the sample rates that a frame header names by a code (RFC 9639,
// section 9.1.2).
var flacRates = [12]int64{0, 88_200, 176_400, 192_000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000}

// flac counts the frames. Silence takes 14 bytes for 65,535 samples, so the
// size tells nothing, and the number of samples at the beginning is only what
// the file says of itself.
func flac(data []byte) sound {
	if len(data) < 8+34 || data[4]&0x7f != 0 { // STREAMINFO is first
		return sound{}
	}
	info := binary.BigEndian.Uint64(data[8+10:])
	rate, total := int64(info>>44), int64(info&(1<<36-1))
	var found clock
	for i := 8 + 34; i+6 <= len(data); i++ {
		if data[i] != 0xff || data[i+1]&0xfe != 0xf8 {
			continue
		}
		if samples, at, ok := flacFrame(data[i:], rate); ok {
			found.add(samples, at)
		}
	}
	if found == 0 {
		return sound{}
	}
	ms := found.ms()
	if total > 0 && rate > 0 {
		ms = min(ms, atRate(total, rate))
	}
	return sound{ms: ms, most: found.ms(), known: true, sure: true}
}

// flacFrame reads a frame header: its samples and their rate. The checksum
// tells headers from sound that looks like one.
func flacFrame(p []byte, rate int64) (samples, at int64, ok bool) {
	sizeCode, rateCode := p[2]>>4, p[2]&15
	if sizeCode == 0 || rateCode == 15 || p[3]>>4 > 10 || p[3]&1 != 0 {
		return 0, 0, false
	}
	// The frame's number is coded like UTF-8.
	length := leadingOnes(p[4])
	if length == 1 || length == 8 {
		return 0, 0, false
	}
	i := 4 + max(length, 1)
	number := func(n int) int64 {
		var v int64
		for range n {
			if i < len(p) {
				v = v<<8 | int64(p[i])
			}
			i++
		}
		return v
	}
	switch {
	case sizeCode == 1:
		samples = 192
	case sizeCode <= 5:
		samples = 576 << (sizeCode - 2)
	case sizeCode == 6:
		samples = number(1) + 1
	case sizeCode == 7:
		samples = number(2) + 1
	default:
		samples = 256 << (sizeCode - 8)
	}
	switch {
	case rateCode == 0:
		at = rate
	case rateCode == 12:
		at = number(1) * 1000
	case rateCode == 13:
		at = number(2)
	case rateCode == 14:
		at = number(2) * 10
	default:
		at = flacRates[rateCode]
	}
	if i >= len(p) || at == 0 || crc8(p[:i]) != p[i] {
		return 0, 0, false
	}
	return samples, at, true
}

func leadingOnes(b byte) int {
	n := 0
	for ; b&0x80 != 0; b <<= 1 {
		n++
	}
	return n
}

// crc8 has the polynomial x^8 + x^2 + x + 1.
func crc8(p []byte) (sum byte) {
	for _, b := range p {
		sum ^= b
		for range 8 {
			if sum&0x80 != 0 {
				sum = sum<<1 ^ 7
			} else {
				sum <<= 1
			}
		}
	}
	return sum
}
