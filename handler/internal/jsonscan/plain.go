package jsonscan

import (
	"encoding/binary"
	"math/bits"
)

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plainText is how many bytes of p come before the first quote, backslash or
// control character, and whether they are all ASCII. It looks at eight bytes at
// a time: in (x - n*ones) &^ x & highs the lowest bit that is set marks the
// first byte below n; an equal byte is one below 1 once it is xored away.
func plainText(p []byte) (n int, ascii bool) {
	var seen uint64
	for len(p)-n >= 8 {
		x := binary.LittleEndian.Uint64(p[n:])
		quote, backslash := x^('"'*ones), x^('\\'*ones)
		stop := ((x-0x20*ones)&^x | (quote-ones)&^quote | (backslash-ones)&^backslash) & highs
		if stop != 0 {
			at := bits.TrailingZeros64(stop) &^ 7
			seen |= x & (1<<at - 1)
			return n + at/8, seen&highs == 0
		}
		seen |= x
		n += 8
	}
	for ; n < len(p); n++ {
		c := p[n]
		if c < 0x20 || c == '"' || c == '\\' {
			break
		}
		seen |= uint64(c)
	}
	return n, seen&highs == 0
}
