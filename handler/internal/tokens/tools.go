package tokens

import (
	"maps"
	"slices"
	"strings"
)

const (
	perTools        = 9
	perToolsSystem  = 4   // saved if there is a system message, which then holds the tools
	perHostedTool   = 400 // the instructions of a tool that the service itself runs; guessed
	schemaDepthMax  = 24  // deeper schemas are counted as JSON
	schemaIndentMax = 2
)

// addTools counts the definitions of tools: the service shows functions to the model as TypeScript.
func (c *counter) addTools(tools []any, hasSystem bool) {
	if len(tools) == 0 {
		return
	}
	c.guessed = true
	var b strings.Builder
	functions := 0
	for _, value := range tools {
		tool := object(value)
		function := object(tool["function"]) // chat
		if len(function) == 0 {
			function = tool // Responses, and the functions of older chats
		}
		if kind := text(tool["type"]); kind != "" && kind != "function" {
			c.tokens += perHostedTool
			c.add(c.literal(value))
			continue
		}
		functions++
		c.declare(&b, function)
	}
	if functions == 0 {
		return
	}
	c.tokens += perTools + c.tools
	if hasSystem {
		c.tokens -= perToolsSystem
	}
	c.add("namespace functions {\n\n" + b.String() + "} // namespace functions")
}

// declare writes a function as a TypeScript type.
func (c *counter) declare(b *strings.Builder, function map[string]any) {
	if description := text(function["description"]); description != "" {
		b.WriteString("// " + description + "\n")
	}
	b.WriteString("type " + text(function["name"]) + " = (")
	if parameters := object(function["parameters"]); len(object(parameters["properties"])) > 0 {
		b.WriteString("_: {\n")
		c.properties(b, parameters, 0)
		b.WriteString("}")
		if definitions := object(parameters["$defs"]); len(definitions) > 0 {
			b.WriteString(c.literal(definitions))
		}
	}
	b.WriteString(") => any;\n\n")
}

// properties writes the properties of an object schema, a line each.
func (c *counter) properties(b *strings.Builder, schema map[string]any, depth int) {
	required := map[string]bool{}
	for _, name := range list(schema["required"]) {
		required[text(name)] = true
	}
	properties := object(schema["properties"])
	indent := strings.Repeat(" ", min(depth, schemaIndentMax))
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		property := object(properties[name])
		if description := text(property["description"]); description != "" && depth < schemaIndentMax {
			b.WriteString(indent + "// " + description + "\n")
		}
		b.WriteString(indent + name)
		if !required[name] {
			b.WriteByte('?')
		}
		b.WriteString(": ")
		c.schema(b, property, depth+1)
		b.WriteString(",\n")
	}
}

// schema writes the TypeScript type of a JSON schema.
func (c *counter) schema(b *strings.Builder, schema map[string]any, depth int) {
	if depth > schemaDepthMax {
		b.WriteString(c.literal(schema))
		return
	}
	if choices := list(schema["enum"]); len(choices) > 0 {
		c.union(b, choices, func(choice any) {
			if s, ok := choice.(string); ok {
				b.WriteString(`"` + s + `"`)
			} else {
				b.WriteString(c.literal(choice))
			}
		})
		return
	}
	if choices := list(schema["anyOf"]); len(choices) > 0 {
		c.union(b, choices, func(choice any) { c.schema(b, object(choice), depth+1) })
		return
	}
	switch kind := schema["type"].(type) {
	case string:
		c.simple(b, kind, schema, depth)
	case []any:
		c.union(b, kind, func(one any) { c.simple(b, text(one), schema, depth) })
	default:
		if len(schema) == 0 {
			b.WriteString("any")
		} else {
			b.WriteString(c.literal(schema)) // $ref, allOf and others
		}
	}
}

// simple writes a schema with one type.
func (c *counter) simple(b *strings.Builder, kind string, schema map[string]any, depth int) {
	switch kind {
	case "integer", "number":
		b.WriteString("number")
	case "array":
		if items := object(schema["items"]); len(items) > 0 {
			c.schema(b, items, depth+1)
			b.WriteString("[]")
		} else {
			b.WriteString("any[]")
		}
	case "object":
		b.WriteString("{\n")
		c.properties(b, schema, depth)
		b.WriteString("}")
	default:
		b.WriteString(kind)
	}
}

func (c *counter) union(b *strings.Builder, choices []any, write func(any)) {
	for i, choice := range choices {
		if i > 0 {
			b.WriteString(" | ")
		}
		write(choice)
	}
}
