package simulator

import (
	"fmt"
	"strings"
)

const (
	imagesMax        = 10
	partialImagesMax = 3
	previewTokens    = 100
	promptExtra      = 6   // tokens around the prompt of an image
	thoughtTokens    = 209 // text that gpt-image-1.5 writes for itself
	imageTokens      = 194 // of an input image: one tile
	fidelityTokens   = 4160
)

// pixel is a PNG of one pixel.
const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="

// imageTable are the tokens of an image by quality: square, portrait, landscape.
var imageTable = map[string][3]int64{"low": {272, 408, 400}, "medium": {1056, 1584, 1568}, "high": {4160, 6240, 6208}}

// images answers generations and edits.
func (c *call) images() {
	n := 1
	if c.in.N != nil {
		n = *c.in.N
	}
	if n < 1 || n > imagesMax || c.in.PartialImages < 0 || c.in.PartialImages > partialImagesMax || len(c.in.Prompt) == 0 {
		badRequest(c.w, "An image needs a prompt; n is 1 to 10, partial_images 0 to 3.", "", "invalid_request")
		return
	}
	if !isGPTImage(c.model) {
		c.pricedImages(n)
		return
	}
	if c.in.Quality == "" || c.in.Quality == "auto" {
		c.in.Quality = "medium"
	}
	if c.in.Size == "" || c.in.Size == "auto" {
		c.in.Size = "1024x1024"
	}
	each, ok := imageOutput(c.model, c.in.Quality, c.in.Size)
	if !ok {
		badRequest(c.w, "Invalid value for quality or size.", "size", "invalid_value")
		return
	}
	if c.in.Stream {
		each += previewTokens * c.in.PartialImages
	}
	thought := int64(0)
	if strings.HasPrefix(c.model, "gpt-image-1.5") {
		thought = thoughtTokens
	}
	words := promptExtra + c.server.options.Counter.Text(c.model, text(c.in.Prompt))
	seen := c.files * imageTokens
	if c.in.InputFidelity == "high" {
		seen += c.files * fidelityTokens
	}
	if c.in.Stream {
		c.imageStream(n, words, seen, each, thought)
		return
	}
	data := make([]string, n)
	for i := range data {
		data[i] = `{"b64_json":"` + pixel + `"}`
	}
	body := fmt.Sprintf(`{"created":%d,"background":%q,"data":[%s],"output_format":%q,"quality":%q,"size":%q%s}`,
		c.created, lowered(c.in.Background, "opaque"), strings.Join(data, ","), c.format(), c.in.Quality, c.in.Size,
		c.imageUsage(words, seen, int64(n)*each, int64(n)*thought))
	c.charge("completed", int64(n)*(each+thought))
	c.send(body)
}

func (c *call) format() string {
	if c.in.OutputFormat == "" {
		return "png"
	}
	return c.in.OutputFormat
}

// pricedImages answers for the models that are billed by the image. Their
// prices are filed as hd/1024-x-1024/dall-e-3.
func (c *call) pricedImages(n int) {
	if c.in.Quality == "" {
		c.in.Quality = "standard"
	}
	if c.in.Size == "" {
		c.in.Size = "1024x1024"
	}
	c.priceName = c.in.Quality + "/" + strings.ReplaceAll(c.in.Size, "x", "-x-") + "/" + c.model
	c.use(itemImage, int64(n))
	data := make([]string, n)
	for i := range data {
		where := `"url":"https://dalleprod.example/private/images/` + c.id + `.png"`
		if lowered(c.in.ResponseFormat, "url") == "b64_json" {
			where = `"b64_json":"` + pixel + `"`
		}
		data[i] = fmt.Sprintf(`{"content_filter_results":%s,"prompt_filter_results":%s,"revised_prompt":"A picture",%s}`, filterResults, filterResults, where)
	}
	c.charge("completed", 0)
	c.send(fmt.Sprintf(`{"created":%d,"data":[%s]}`, c.created, strings.Join(data, ",")))
}

// imageUsage is the member usage, and keeps what it says for the bill.
func (c *call) imageUsage(words, seen, drawn, thought int64) string {
	c.prompt, c.imageIn, c.imageOut = c.prompt+words+seen, c.imageIn+seen, c.imageOut+drawn
	if c.settings.Fault == "no_usage" {
		return ""
	}
	if c.settings.Fault == "zero_usage" {
		words, seen, drawn, thought = 0, 0, 0, 0
	}
	return fmt.Sprintf(`,"usage":{"input_tokens":%d,"input_tokens_details":{"image_tokens":%d,"text_tokens":%d},"output_tokens":%d,"output_tokens_details":{"image_tokens":%d,"text_tokens":%d},"total_tokens":%d}`,
		words+seen, seen, words, drawn+thought, drawn, thought, words+seen+drawn+thought)
}

// imageStream writes previews and images, each image with the usage of its own:
// several are billed as if each had been asked for alone.
func (c *call) imageStream(n int, words, seen, each, thought int64) {
	kind := "image_generation"
	if c.files > 0 {
		kind = "image_edit"
	}
	s := c.stream()
	event := func(name, members string) []byte {
		return fmt.Appendf(nil, "event: %s.%s\ndata: {\"type\":\"%s.%s\",\"b64_json\":\"%s\",\"background\":%q,\"created_at\":%d,\"output_format\":%q,\"quality\":%q,\"size\":%q%s}\n\n",
			kind, name, kind, name, pixel, lowered(c.in.Background, "opaque"), c.created, c.format(), c.in.Quality, c.in.Size, members)
	}
	for range n {
		for k := range c.in.PartialImages {
			s.delta(event("partial_image", fmt.Sprintf(`,"partial_image_index":%d`, k)))
		}
		s.delta(event("completed", c.imageUsage(words, seen, each, thought)))
	}
	outcome := "completed"
	if s.gone { // it is drawn all the same
		outcome = "gone"
		if c.settings.Fault == "cut" {
			outcome = "cut"
		}
	}
	c.charge(outcome, int64(n)*(each+thought))
	s.end()
}

// imageOutput is the tokens of an image.
func imageOutput(model, quality, size string) (n int64, ok bool) {
	row, ok := imageTable[quality]
	if strings.HasPrefix(model, "gpt-image-1") || strings.HasPrefix(model, "chatgpt-image") {
		at, known := map[string]int{"1024x1024": 0, "1024x1536": 1, "1536x1024": 2}[size]
		return row[at], ok && known
	}
	// gpt-image-2 takes any size whose sides are multiples of 16.
	axis := map[string]int64{"low": 16, "medium": 48, "high": 96}[quality]
	var width, height int64
	if _, err := fmt.Sscanf(size, "%dx%d", &width, &height); err != nil || width < 16 || height < 16 || width%16+height%16 != 0 || max(width, height) > 3840 || width*height > 8_294_400 {
		return 0, false
	}
	other := (2*axis*min(width, height) + max(width, height)) / (2 * max(width, height))
	return (axis*other*(2_000_000+width*height) + 3_999_999) / 4_000_000, ok
}
