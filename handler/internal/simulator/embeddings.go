package simulator

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

const (
	dimensionsDefault = 16
	dimensionsMax     = 3072
	inputsMax         = 2048
)

// embeddings answers with unit-like vectors of the prompt's own random numbers.
func (c *call) embeddings() {
	inputs := 1
	var list []json.RawMessage
	if json.Unmarshal(c.in.Input, &list) == nil && len(list) > 0 && (list[0][0] == '"' || list[0][0] == '[') {
		inputs = min(len(list), inputsMax)
	}
	dimensions := c.in.Dimensions
	if dimensions <= 0 || dimensions > dimensionsMax {
		dimensions = dimensionsDefault
	}
	data := make([]string, inputs)
	for i := range data {
		data[i] = fmt.Sprintf(`{"embedding":%s,"index":%d,"object":"embedding"}`, c.vector(dimensions), i)
	}
	body := fmt.Sprintf(`{"data":[%s],"model":%q,"object":"list"`, strings.Join(data, ","), c.model)
	if c.settings.Fault != "no_usage" {
		body += fmt.Sprintf(`,"usage":{"prompt_tokens":%d,"total_tokens":%d}`, c.prompt, c.prompt)
	}
	c.charge("completed", 0)
	c.send(body + "}")
}

func (c *call) vector(dimensions int) string {
	if c.in.EncodingFormat == "base64" {
		raw := make([]byte, 4*dimensions)
		for i := range dimensions {
			raw[4*i+3] = 0x3d // small positive numbers
			raw[4*i+2] = byte(c.random.IntN(256))
		}
		return `"` + base64.StdEncoding.EncodeToString(raw) + `"`
	}
	numbers := make([]string, dimensions)
	for i := range numbers {
		numbers[i] = fmt.Sprintf("0.0%d", 10_000+c.random.IntN(90_000))
	}
	return "[" + strings.Join(numbers, ",") + "]"
}
