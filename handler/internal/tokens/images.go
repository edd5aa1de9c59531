package tokens

import (
	"encoding/base64"
	"encoding/binary"
	"image"
	_ "image/gif"  // image headers
	_ "image/jpeg" // image headers
	_ "image/png"  // image headers
	"io"
	"strings"
)

const (
	// patchesMax is the largest image of models without a cap of their own, in patches of 32 x 32: 12.5 million pixels.
	patchesMax = 12_500
	tilesMax   = 8
	// An image of 3:2 or 16:9 has 6 tiles. One that is larger than a screen has more patches than most models look at.
	patchesUsual = 1536
	tilesUsual   = 6
	// imageHeaderBytesMax is how much of an image is read to find its size.
	imageHeaderBytesMax = 256 << 10
	// imageSideMax is the longest side of an image that is believed, in pixels.
	imageSideMax = 1 << 20
)

// imageRule is how a family counts images. The zero value counts none.
type imageRule struct {
	base, tile int64 // tokens of an image and of each 512 x 512 tile of it
	per100     int64 // tokens of 100 patches of 32 x 32
	atMost     int64 // the same, if what is known differs
	cap        int64 // patches
}

func tiles(base, tile int64) imageRule { return imageRule{base: base, tile: tile} }

func patches(per100, most int64) imageRule {
	return imageRule{per100: per100, atMost: per100, cap: most}
}

// most is the tokens of the largest image.
func (r imageRule) most() int64 {
	if r.per100 > 0 {
		return ceilDiv(r.cap*r.atMost, 100)
	}
	return r.base + tilesMax*r.tile
}

// usual is the tokens of an image of unknown size: those of a photograph.
func (r imageRule) usual() int64 {
	if r.per100 > 0 {
		return ceilDiv(min(r.cap, patchesUsual)*r.per100, 100)
	}
	return r.base + tilesUsual*r.tile
}

// tokens is the tokens of an image of a known size in pixels, and the most that they can be.
func (r imageRule) tokens(width, height int64, low bool) (n, most int64) {
	if r.per100 > 0 {
		seen := min(ceilDiv(width, 32)*ceilDiv(height, 32), r.cap)
		return ceilDiv(seen*r.per100, 100), ceilDiv(seen*r.atMost, 100)
	}
	if low {
		return r.base, r.base
	}
	if longer := max(width, height); longer > 2048 {
		width, height = ceilDiv(width*2048, longer), ceilDiv(height*2048, longer)
	}
	if shorter := min(width, height); shorter > 768 {
		width, height = ceilDiv(width*768, shorter), ceilDiv(height*768, shorter)
	}
	n = r.base + r.tile*min(ceilDiv(width, 512)*ceilDiv(height, 512), tilesMax)
	return n, n
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// addImage counts an image by its URL. Only data URLs tell its size.
func (c *counter) addImage(url, detail string) {
	c.guessed = true
	n, most := c.image.usual(), c.image.most()
	if width, height, ok := imageSize(url); ok {
		n, most = c.image.tokens(width, height, detail == "low")
	} else if detail == "low" && c.image.per100 == 0 {
		n, most = c.image.base, c.image.base
	}
	c.tokens += n
	c.unseen += most - n
}

// imageSize reads the size of an image from the header in its data URL.
func imageSize(url string) (width, height int64, ok bool) {
	head, data, ok := strings.Cut(url, ",")
	if !ok || !strings.HasPrefix(head, "data:") || !strings.HasSuffix(head, ";base64") {
		return 0, 0, false
	}
	decoded := func() io.Reader {
		return io.LimitReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(data)), imageHeaderBytesMax)
	}
	if config, _, err := image.DecodeConfig(decoded()); err == nil {
		width, height = int64(config.Width), int64(config.Height)
	} else {
		header := make([]byte, 30)
		if _, err := io.ReadFull(decoded(), header); err != nil {
			return 0, 0, false
		}
		width, height = webpSize(header)
	}
	return width, height, width > 0 && height > 0 && width <= imageSideMax && height <= imageSideMax
}

// webpSize reads the size from the first 30 bytes of a WebP image: 0, 0 if it is none.
func webpSize(h []byte) (width, height int64) {
	if string(h[:4]) != "RIFF" || string(h[8:12]) != "WEBP" {
		return 0, 0
	}
	const mask14 = 1<<14 - 1
	switch string(h[12:16]) {
	case "VP8X": // 24-bit sizes less one
		return 1 + int64(h[24]) + int64(h[25])<<8 + int64(h[26])<<16, 1 + int64(h[27]) + int64(h[28])<<8 + int64(h[29])<<16
	case "VP8 ":
		return int64(binary.LittleEndian.Uint16(h[26:]) & mask14), int64(binary.LittleEndian.Uint16(h[28:]) & mask14)
	case "VP8L": // two 14-bit sizes less one
		packed := binary.LittleEndian.Uint32(h[21:])
		return int64(packed&mask14) + 1, int64(packed>>14&mask14) + 1
	}
	return 0, 0
}
