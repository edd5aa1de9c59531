package media

var adtsRates = [13]int64{96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350}

// adtsFrame reads the header of an AAC frame in an ADTS stream (ISO/IEC 14496-3,
// 1.A.2.2): its bytes, its samples and their rate.
func adtsFrame(p []byte) (size, samples, rate int64, ok bool) {
	if len(p) < 7 || p[0] != 0xff || p[1]&0xf6 != 0xf0 || int(p[2]>>2&15) >= len(adtsRates) {
		return 0, 0, 0, false
	}
	size = int64(p[3]&3)<<11 | int64(p[4])<<3 | int64(p[5]>>5)
	return size, 1024 * (int64(p[6]&3) + 1), adtsRates[p[2]>>2&15], size >= 7
}

// adts walks the frames of an ADTS stream, which is nothing but frames. What
// follows the last one is no sound of it.
func adts(data []byte) sound {
	var found clock
	rest := data
	for len(rest) > 0 {
		size, samples, rate, ok := adtsFrame(rest)
		if !ok {
			break
		}
		found.add(samples, rate)
		rest = rest[min(size, int64(len(rest))):]
	}
	ms := found.ms()
	return sound{ms: ms, known: len(rest) == 0, most: ms + atRate(int64(len(rest)), floorUnknown), sure: true}
}
