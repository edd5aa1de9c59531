package tokens

import (
	"math/bits"
	"strconv"
	"strings"
)

// What images of the gpt-image models take. The table and the 100 tokens of a
// preview are OpenAI's (image generation guide, read September 2026); the rule
// of gpt-image-2 is that of OpenAI's price calculator, as users took it from
// there (community.openai.com/t/1382699), and gives the four figures that the
// calculator shows in TestImageOutput.
const (
	previewTokens = 100
	previewsMax   = 1 << 20 // that are believed; the service makes up to 3

	// imageTextMax is for the text that gpt-image-1.5 thinks before it draws,
	// billed as output. No limit is documented: 209 were seen, five times that is
	// assumed.
	imageTextMax = 1024

	// The sizes that gpt-image-2 takes: both sides multiples of 16.
	image2SideMax   = 3840
	image2PixelsMax = 8_294_400
	// image2Largest is the side of its largest square, which takes most.
	image2Largest = 2880

	// imageInputTiles is the most of an input image for gpt-image-1: 65 and 4 tiles
	// of 129 (the shorter side is scaled to 512, the longer to 2048), and 6240 with
	// high fidelity.
	imageInputTiles = 65 + 4*129 + 6240
	// imageInputPatches is the most for gpt-image-2: users measured up to 1,536
	// patches of 32 pixels. Nothing is documented, so it is twice that.
	imageInputPatches = 2 * 1536
	// imageInputText is for prompt text that grows with each input image: 16 to 45
	// tokens were seen (community.openai.com/t/1382940).
	imageInputText = 64
)

// imageQualities are the output tokens by quality: of gpt-image-1 for a square
// of 1024, portrait and landscape of 1536, and the factor of gpt-image-2 for
// each axis. Newer qualities (xhigh, max) have no published figures: twice the
// factor, four times the tokens of high, is assumed.
var imageQualities = map[string]struct{ square, portrait, landscape, axis int64 }{
	"low":    {272, 408, 400, 16},
	"medium": {1056, 1584, 1568, 48},
	"high":   {4160, 6240, 6208, 96},
	"newer":  {4160, 6240, 6208, 192},
}

// ImageOutput is the most output tokens of one generated image of a gpt-image
// model by quality ("low", "medium", "high", "auto" or "") and size ("1024x1536",
// "auto" or ""), with some partial previews. "auto" and what is unknown is the
// most that the model makes, sizes outside of the table go by their area. Models
// that are not known here are taken for the dearest.
func ImageOutput(model, quality, size string, partialImages int64) int64 {
	previews := previewTokens * min(max(partialImages, 0), previewsMax)
	quality = strings.ToLower(quality)
	name := imageModel(model)
	if _, known := imageQualities[quality]; !known || quality == "newer" {
		quality = "high"
		if name == "" {
			quality = "newer"
		}
	}
	q := imageQualities[quality]
	width, height, fixed := pixels(size)
	if name == "gpt-image-1" || name == "gpt-image-1.5" {
		n := q.portrait
		switch {
		case !fixed:
		case width == 1024 && height == 1024:
			n = q.square
		case width == 1536 && height == 1024:
			n = q.landscape
		case width != 1024 || height != 1536: // the square and the portrait are equally dense
			n = ceilDiv(width*height*q.square, 1024*1024)
		}
		if name == "gpt-image-1.5" {
			n += imageTextMax
		}
		return n + previews
	}
	if !fixed || max(width, height) > image2SideMax || width*height > image2PixelsMax {
		width, height = image2Largest, image2Largest
	}
	longer, shorter := max(width, height), min(width, height)
	n := q.axis * ((2*q.axis*shorter + longer) / (2 * longer))
	return ceilDiv(n*(2_000_000+width*height), 4_000_000) + previews
}

// ImageInput is the most prompt tokens of one input image in an edit, at high
// fidelity.
func ImageInput(model string) int64 {
	if imageModel(model) == "gpt-image-2" {
		return imageInputPatches + imageInputText
	}
	return imageInputTiles + imageInputText
}

// imageModel is the model whose rule counts: "" if none is known.
func imageModel(model string) string {
	name := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(model)), "azure/")
	if name == "chatgpt-image-latest" {
		return "gpt-image-1.5"
	}
	for _, known := range []string{"gpt-image-1.5", "gpt-image-1", "gpt-image-2"} {
		if rest, ok := strings.CutPrefix(name, known); ok && (rest == "" || rest[0] == '-') {
			return known
		}
	}
	return ""
}

// pixels reads a size as "1024x1536". Sides are believed up to 2^20.
func pixels(size string) (width, height int64, ok bool) {
	w, h, _ := strings.Cut(strings.ToLower(size), "x")
	width, errW := strconv.ParseInt(w, 10, 64)
	height, errH := strconv.ParseInt(h, 10, 64)
	return width, height, errW == nil && errH == nil && width > 0 && height > 0 && bits.Len64(uint64(width|height)) <= 20
}
