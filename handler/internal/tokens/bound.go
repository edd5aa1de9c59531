package tokens

import (
	"bytes"
	"strings"
)

const (
	// boundOverhead covers the tokens of a request that no byte of its body stands
	// for: what begins the answer, and what surrounds tools and schemas.
	boundOverhead = 256
	// The margin of BoundExact: a fiftieth, at least marginMin tokens, and
	// marginItems for the input items of Responses that are no messages.
	marginMin   = 16
	marginItems = 64
	marginPart  = 50
)

// BoundBytes is a number of prompt tokens that a request should not exceed, from
// the size of its body: a token has at least one byte, and JSON takes more
// bytes than the service adds around a text. Each image adds what the model's
// largest image takes, as far as that is known. Hidden input is not covered; see [HidesInput].
func BoundBytes(op Op, model string, body []byte) int64 {
	bound := int64(len(body)) + boundOverhead
	if op == OpChat || op == OpResponses {
		if n := images(body); n > 0 {
			bound += n * familyOf(model).image.most()
		}
	}
	return bound
}

// BoundExact is the count of [Prompt] with a margin of 2 %, at least 16 tokens
// or 64, and with the largest images where their size is unknown. It is never
// above [BoundBytes], and equal to it for models whose encoding is not known. It
// is an upper bound for text and tools as far as is known; hidden input is not covered.
func BoundExact(op Op, model string, body []byte) int64 {
	bound := BoundBytes(op, model, body)
	if op == OpTranscription || familyOf(model).guess {
		return bound
	}
	c, err := count(op, model, body)
	if err != nil {
		return bound
	}
	n, least := c.most(), int64(marginMin)
	if op == OpResponses && c.guessed {
		least = marginItems
	}
	return min(bound, n+max(ceilDiv(n, marginPart), least))
}

// images counts the images of a request: keys image_url, or parts input_image.
func images(body []byte) int64 {
	if escapesNames(body) {
		if crowded(body) {
			return int64(bytes.Count(body, []byte{'{'})) // each may be one
		}
		request, err := decode(body)
		if err != nil {
			return 0 // refused by the service too
		}
		return countImages(request)
	}
	if !bytes.Contains(body, []byte("image")) {
		return 0
	}
	const key = `"image_url"`
	n := 0
	for rest := body; ; {
		i := bytes.Index(rest, []byte(key))
		if i < 0 {
			break
		}
		escaped := i > 0 && rest[i-1] == '\\'
		rest = rest[i+len(key):]
		if !escaped && bytes.HasPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte{':'}) {
			n++
		}
	}
	return int64(max(n, bytes.Count(body, []byte(`"input_image"`))))
}

// escapesNames tells whether letters are written as \u0061, so that names
// cannot be searched for in the raw text. Everyday JSON has no reason to.
func escapesNames(body []byte) bool {
	for {
		i := bytes.Index(body, []byte(`\u00`))
		if i < 0 || i+4 >= len(body) {
			return false
		}
		if digit := body[i+4]; digit >= '4' && digit <= '7' {
			return true
		}
		body = body[i+4:]
	}
}

func countImages(value any) (n int64) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			n += countImages(element)
		}
	case map[string]any:
		if _, ok := value["image_url"]; ok || value["type"] == "input_image" {
			n++
		}
		for _, element := range value {
			n += countImages(element)
		}
	}
	return n
}

// ContainersMax is how many arrays and objects a request may have to be decoded:
// each takes some hundred bytes of memory.
const ContainersMax = 200_000

// crowded tells whether a body may have more containers than are decoded.
func crowded(body []byte) bool {
	return len(body) > ContainersMax && bytes.Count(body, []byte{'['})+bytes.Count(body, []byte{'{'}) > ContainersMax
}

// Words that stand in every body with hidden input.
var hiddenWords = []string{
	"file", "previous_response_id", "conversation", "data_sources", `"prompt"`, "web_search", "code_interpreter",
	"computer", "mcp", "image_generation", "item_reference", "shell", "connector", `"audio"`,
}

// HidesInput tells whether a chat or Responses request makes the service read
// more than its body shows: stored responses and conversations, files, data
// sources, tools that the service runs. Its prompt is bounded only by the
// model's context. What is known of all the same, as the earlier response may
// be, is named in known. A body that is no JSON object hides nothing; one with
// more than ContainersMax arrays and objects, or larger than TextBytesMax, is not
// looked into and may. Cheap for bodies that have none of the words of such
// requests.
func HidesInput(op Op, body []byte, known ...string) bool {
	if op != OpChat && op != OpResponses {
		return false
	}
	suspect := escapesNames(body)
	for i := 0; !suspect && i < len(hiddenWords); i++ {
		suspect = bytes.Contains(body, []byte(hiddenWords[i]))
	}
	if !suspect {
		return false
	}
	if len(body) > TextBytesMax || crowded(body) {
		return true
	}
	request, err := decode(body)
	if err != nil {
		return false
	}
	for _, name := range known {
		delete(request, name)
	}
	for _, name := range []string{"previous_response_id", "conversation", "data_sources", "prompt", "web_search_options"} {
		if request[name] != nil {
			return true
		}
	}
	for _, tool := range list(request["tools"]) {
		if kind := text(object(tool)["type"]); kind != "" && kind != "function" && kind != "custom" {
			return true
		}
	}
	return hidesParts(request["messages"]) || hidesParts(request["input"])
}

// hidesParts looks for parts and items that refer to something stored.
func hidesParts(value any) bool {
	for _, element := range list(value) {
		item := object(element)
		switch kind := text(item["type"]); {
		case kind == "file" || kind == "input_file" || kind == "item_reference" || item["file_id"] != nil:
			return true
		case strings.HasPrefix(text(item["image_url"]), "file"):
			return true
		case object(item["audio"])["id"] != nil: // an earlier answer, spoken
			return true
		}
		if hidesParts(item["content"]) || hidesParts(item["output"]) {
			return true
		}
	}
	return false
}
