package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Op is an operation of Azure OpenAI whose prompt costs tokens.
type Op string

// The operations.
const (
	OpChat          Op = "chat"
	OpCompletions   Op = "completions"
	OpEmbeddings    Op = "embeddings"
	OpResponses     Op = "responses"
	OpImages        Op = "images"        // generations; not the images that an edit begins with
	OpSpeech        Op = "speech"        // text to sound
	OpTranscription Op = "transcription" // a form: [Prompt] counts nothing of it, [Text] its prompt
)

// ErrBody says that a request body is not a JSON object.
var ErrBody = errors.New("the request body is not a JSON object")

const (
	perMessage   = 3
	perName      = 1
	perParallel  = 15 // an assistant message with several tool calls
	perSchema    = 23
	perFile      = 220 // a one-page document; guessed, see HidesInput
	perAudioByte = 50  // encoded bytes for each token of sound; guessed
	perSuffix    = 3
)

// Prompt estimates the prompt tokens of a request. exact is false if a part of
// it (an image, a tool, hidden input) had to be guessed. A body that is no JSON
// object is [ErrBody]; odd values inside one are counted as text.
func Prompt(op Op, model string, body []byte) (n int64, exact bool, err error) {
	c, err := count(op, model, body)
	if err != nil {
		return 0, false, err
	}
	return c.total(), !c.guessed, nil
}

func count(op Op, model string, body []byte) (*counter, error) {
	c := &counter{family: familyOf(model)}
	c.guessed = c.guess
	if op == OpTranscription {
		c.guessed = true
		return c, nil
	}
	request, err := decode(body)
	if err != nil {
		return nil, err
	}
	switch op {
	case OpChat:
		c.chat(request)
	case OpResponses:
		c.responses(request)
	case OpCompletions:
		c.input(request["prompt"], true)
		if suffix := text(request["suffix"]); suffix != "" {
			c.tokens += perSuffix
			c.add(suffix)
			c.guessed = true
		}
	case OpEmbeddings:
		c.input(request["input"], false)
	case OpImages:
		c.guessed = true
		c.input(request["prompt"], false)
	case OpSpeech:
		c.guessed = true
		c.input(request["input"], false)
		c.input(request["instructions"], false)
	default:
		return nil, fmt.Errorf("tokens: unknown operation %q", op)
	}
	return c, nil
}

func decode(body []byte) (map[string]any, error) {
	if crowded(body) {
		return nil, fmt.Errorf("tokens: more than %d arrays and objects", ContainersMax)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // a number is counted as it is written
	var request map[string]any
	if err := decoder.Decode(&request); err != nil || request == nil {
		return nil, ErrBody
	}
	return request, nil
}

// input counts a string, a list of strings, a list of tokens or a list of such lists.
// An empty prompt of a completion is one token.
func (c *counter) input(value any, atLeastOne bool) {
	before := c.tokens
	switch value := value.(type) {
	case nil:
	case []any:
		for _, element := range value {
			if _, isToken := element.(json.Number); isToken {
				c.tokens++
			} else {
				c.input(element, atLeastOne)
			}
		}
	default:
		c.add(c.literal(value))
	}
	if _, isList := value.([]any); atLeastOne && !isList && c.tokens == before {
		c.tokens++
	}
}

// chat counts a request of chat completions.
func (c *counter) chat(request map[string]any) {
	c.tokens += c.prime + c.extra
	hasSystem := false
	for _, value := range list(request["messages"]) {
		message := object(value)
		role := text(message["role"])
		hasSystem = hasSystem || role == "system" || role == "developer"
		c.message(role, message["content"], text(message["name"]))
		c.history(message)
	}
	c.addTools(list(request["tools"]), hasSystem)
	if functions := list(request["functions"]); len(functions) > 0 {
		c.addTools(functions, hasSystem)
	}
	c.choice(request["tool_choice"])
	c.choice(request["function_call"])
	c.format(object(request["response_format"]))
	for _, hidden := range []string{"data_sources", "audio", "prediction", "web_search_options"} {
		c.guessed = c.guessed || request[hidden] != nil
	}
}

// message counts one message of a chat.
func (c *counter) message(role string, content any, name string) {
	c.tokens += perMessage
	c.add(role)
	c.content(content)
	if name != "" {
		c.tokens += perName
		c.add(name)
	}
}

// content counts a text or a list of parts, of chat or of Responses.
func (c *counter) content(content any) {
	parts, ok := content.([]any)
	if !ok {
		if content != nil {
			c.add(c.literal(content))
		}
		return
	}
	for _, value := range parts {
		part := object(value)
		switch kind := text(part["type"]); kind {
		case "text", "input_text", "output_text":
			c.add(text(part["text"]))
		case "refusal":
			c.add(text(part["refusal"]))
		case "image_url":
			image := object(part["image_url"])
			c.addImage(text(image["url"]), text(image["detail"]))
		case "input_image":
			c.addImage(text(part["image_url"]), text(part["detail"]))
		case "input_audio":
			c.guessed = true
			c.tokens += ceilDiv(int64(len(text(object(part["input_audio"])["data"]))), perAudioByte)
		case "file", "input_file":
			c.guessed = true
			c.tokens += perFile
		default:
			c.guessed = true
			c.add(c.literal(value))
		}
	}
}

// history counts the tool calls of an earlier answer.
func (c *counter) history(message map[string]any) {
	calls := list(message["tool_calls"])
	if call := object(message["function_call"]); len(call) > 0 {
		c.guessed = true
		c.tokens += c.pair
		c.add(text(call["name"]))
		c.add(text(call["arguments"]))
	}
	for _, value := range calls {
		function := object(object(value)["function"])
		if len(function) == 0 {
			function = object(object(value)["custom"])
		}
		c.guessed = true
		c.tokens += c.pair
		c.add(text(function["name"]))
		c.add(text(function["arguments"]))
		c.add(text(function["input"]))
	}
	if len(calls) > 1 {
		c.tokens += perParallel
	}
}

// responses counts a request of the Responses API.
func (c *counter) responses(request map[string]any) {
	c.tokens += c.prime + c.extra
	hasSystem := false
	if instructions := text(request["instructions"]); instructions != "" {
		hasSystem = true
		c.message("system", instructions, "")
	}
	input, isList := request["input"].([]any)
	if !isList && request["input"] != nil {
		c.message("user", request["input"], "")
	}
	for _, value := range input {
		role := c.item(object(value), value)
		hasSystem = hasSystem || role == "system" || role == "developer"
	}
	c.addTools(list(request["tools"]), hasSystem)
	c.choice(request["tool_choice"])
	c.format(object(object(request["text"])["format"]))
	for _, hidden := range []string{"previous_response_id", "conversation", "prompt"} {
		c.guessed = c.guessed || request[hidden] != nil
	}
}

// item counts one input item of the Responses API and returns its role, if it is a message.
func (c *counter) item(item map[string]any, value any) string {
	switch kind := text(item["type"]); {
	case kind == "message" || kind == "" && item["role"] != nil:
		role := text(item["role"])
		c.message(role, item["content"], "")
		return role
	case kind == "function_call" || kind == "custom_tool_call":
		c.tokens += perMessage + 1 + c.pair
		c.add(text(item["name"]))
		c.add(text(item["arguments"]))
		c.add(text(item["input"]))
	case kind == "function_call_output" || kind == "custom_tool_call_output":
		c.tokens += perMessage + 1
		c.content(item["output"])
	default:
		c.tokens += perMessage + 1
		c.add(c.literal(value))
	}
	c.guessed = true
	return ""
}

// choice counts a tool_choice: nothing for "auto", a token for "none", more for a named tool.
func (c *counter) choice(value any) {
	switch value := value.(type) {
	case string:
		if value == "none" {
			c.tokens++
		}
	case map[string]any:
		name := text(value["name"])
		if name == "" {
			name = text(object(value["function"])["name"])
		}
		if name != "" {
			c.tokens += 4
			c.add(name)
		}
	}
}

// format counts the schema of a structured answer, of chat or of Responses.
func (c *counter) format(format map[string]any) {
	if text(format["type"]) != "json_schema" {
		return
	}
	c.guessed = true
	c.tokens += perSchema
	schema := format["schema"]
	if inner := object(format["json_schema"]); len(inner) > 0 {
		schema = inner["schema"]
		c.add(text(inner["description"]))
	}
	if schema != nil {
		c.add(c.literal(bare(schema)))
	}
}

// bare is a schema without what the service does not show to the model.
func bare(value any) any {
	switch value := value.(type) {
	case []any:
		elements := make([]any, len(value))
		for i, element := range value {
			elements[i] = bare(element)
		}
		return elements
	case map[string]any:
		fields := make(map[string]any, len(value))
		for name, field := range value {
			_, isText := field.(string)
			if name == "additionalProperties" || name == "title" && isText {
				continue
			}
			fields[name] = bare(field)
		}
		return fields
	}
	return value
}

// literal is a value as text: a string as it is, anything else as JSON.
func (c *counter) literal(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	c.guessed = true
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(value) != nil {
		return "" // decoded JSON always encodes
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte{'\n'}))
}

// text, list and object read a decoded value. One of another type is empty.
func text(value any) string           { s, _ := value.(string); return s }
func list(value any) []any            { l, _ := value.([]any); return l }
func object(value any) map[string]any { m, _ := value.(map[string]any); return m }
