package media

// Bit rates in kbit/s by version (MPEG-1, else), layer and code. Code 0, a rate
// of the encoder's own, is not read: files of such frames are unknown.
var mpegKbits = [2][3][15]int64{
	{
		{0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448},
		{0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384},
		{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},
	},
	{
		{0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256},
		{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
		{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
	},
}

var mpegRates = [3]int64{44_100, 48_000, 32_000} // halved by MPEG-2, and again by 2.5

// mpegFrame reads the header of an MPEG audio frame: its bytes, its samples and
// their rate.
func mpegFrame(p []byte) (size, samples, rate int64, ok bool) {
	if len(p) < 4 || p[0] != 0xff || p[1]&0xe0 != 0xe0 {
		return 0, 0, 0, false
	}
	version, layer, kbits, code := p[1]>>3&3, 4-int(p[1]>>1&3), p[2]>>4, p[2]>>2&3
	if version == 1 || layer == 4 || kbits == 0 || kbits == 15 || code == 3 {
		return 0, 0, 0, false
	}
	row, rate, pad := 0, mpegRates[code], int64(p[2]>>1&1)
	if version != 3 {
		row, rate = 1, rate/2
	}
	if version == 0 {
		rate /= 2
	}
	bits := mpegKbits[row][layer-1][kbits] * 1000
	switch {
	case layer == 1:
		return (12*bits/rate + pad) * 4, 384, rate, true
	case layer == 3 && row == 1:
		return 72*bits/rate + pad, 576, rate, true
	}
	return 144*bits/rate + pad, 1152, rate, true
}

// mp3 walks the frames. A frame begins where one ended, or where another follows
// it; all else is passed over. The file is no MPEG audio if that is half of it.
func mp3(data []byte) sound {
	var found clock
	var covered int64
	chained := false
	for i := 0; i+4 <= len(data); {
		size, samples, rate, ok := mpegFrame(data[i:])
		end := i + int(size)
		if ok && !chained && end != len(data) {
			_, _, _, ok = mpegFrame(data[min(end, len(data)):])
		}
		if !ok {
			chained = false
			i++
			continue
		}
		if covered > 0 || !isTable(data[i:min(end, len(data))]) {
			found.add(samples, rate)
		}
		covered += min(size, int64(len(data)-i))
		chained, i = true, end
	}
	rest := int64(len(data)) - covered
	s := sound{ms: found.ms(), known: covered > 0 && covered >= rest, sure: true}
	floor := int64(floorMP3)
	if !s.known {
		floor = floorUnknown
	}
	s.most = add(s.ms, atRate(rest, floor))
	return s
}

// isTable tells whether a frame has a table of contents in it instead of sound.
func isTable(frame []byte) bool {
	for _, at := range []int{13, 21, 36} { // behind the side information
		if len(frame) >= at+4 {
			if name := string(frame[at : at+4]); name == "Xing" || name == "Info" || name == "VBRI" {
				return true
			}
		}
	}
	return false
}
