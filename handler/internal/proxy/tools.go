package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/costgate/costgate/handler/internal/jsonscan"
	"github.com/costgate/costgate/handler/internal/usage"
)

const (
	toolCallsMax = 1_000_000
	// toolCallsHeld is how many calls of the tools that the service runs money is
	// held for where the client sets no max_tool_calls, and what a hard product's
	// request is then limited to.
	toolCallsHeld = 10
)

// hosted are the tools of a request that the service itself runs and that are
// sold by the call. What they find becomes prompt.
type hosted struct{ webSearch, fileSearch, codeInterpreter bool }

// readTools reads which tools a request has. One whose calls nobody can price is
// refused.
func (a *asked) readTools(raw []byte) *failure {
	if len(raw) == 0 || raw[0] != '[' {
		return badRequest("invalid_value", "tools", toolsWanted)
	}
	i := -1
	err := jsonscan.Array(raw, func(tool jsonscan.Value) error {
		if i++; i >= toolsMax {
			return badRequest("invalid_value", "tools", "\"tools\" may have "+strconv.Itoa(toolsMax)+" entries at most.")
		}
		kind, f := toolType(i, tool)
		if f == nil {
			f = a.readTool(i, kind)
		}
		if f != nil {
			return f
		}
		return nil
	})
	if f := (*failure)(nil); errors.As(err, &f) {
		return f
	} else if err != nil {
		return badRequest("invalid_value", "tools", toolsWanted)
	}
	return nil
}

const toolsWanted = "\"tools\" must be an array of objects, each with a \"type\"."

// toolType is the type of a tool, which must be there once: two parsers may
// choose differently.
func toolType(i int, tool jsonscan.Value) (kind string, f *failure) {
	field, seen := fmt.Sprintf("tools[%d].type", i), false
	err := jsonscan.Object(tool.Raw, func(key []byte, v jsonscan.Value) error {
		switch {
		case !strings.EqualFold(string(key), "type"):
			return nil
		case seen:
			return badRequest("duplicate_field", field, fmt.Sprintf("The field %q is there twice. Send it once.", field))
		case string(key) != "type":
			return badRequest("unknown_field", field, fmt.Sprintf("Field names have one spelling: send \"type\", not %q.", key))
		}
		seen = true
		if f := text(field, v, &kind); f != nil {
			return f
		}
		return nil
	})
	if errors.As(err, &f) {
		return "", f
	} else if err != nil {
		return "", badRequest("invalid_value", "tools", toolsWanted)
	}
	return kind, nil
}

func (a *asked) readTool(i int, kind string) *failure {
	switch kind {
	case "", "function", "custom":
		return nil
	case "mcp", "computer_use_preview", "computer", "local_shell", "shell", "apply_patch":
	case "web_search", "web_search_preview", "web_search_preview_2025_03_11", "web_search_2025_08_26":
		a.tools.webSearch = true
	case "file_search":
		a.tools.fileSearch = true
	case "code_interpreter":
		a.tools.codeInterpreter = true
	default:
		return forbidden("operation_not_priced", fmt.Sprintf(
			"tools[%d]: this gateway does not know what a tool of type %q costs. Leave it out.", i, clip(kind, 64)))
	}
	a.needsContext = true
	return nil
}

// calls are the most items that the tools can add to the bill.
func (a *asked) calls(o *operation) []usage.Item {
	most := int64(toolCallsHeld)
	if a.toolCallsMax > 0 {
		most = a.toolCallsMax
	}
	if o.name == "chat" { // a search model searches once
		most = 1
	}
	var items []usage.Item
	for _, tool := range []struct {
		there bool
		meter string
	}{
		{a.tools.webSearch, usage.ItemWebSearch}, {a.tools.fileSearch, usage.ItemFileSearch}, {a.tools.codeInterpreter, usage.ItemCodeInterpreter},
	} {
		if tool.there {
			items = append(items, usage.Item{Meter: tool.meter, Quantity: most})
		}
	}
	return items
}

// callsPriced refuses tools whose calls the price book does not know.
func (x *exchange) callsPriced() *failure {
	for _, item := range x.asked.calls(x.operation) {
		if !x.entry.Sells(item.Meter) {
			return forbidden("operation_not_priced", "The price book has no price for "+item.Meter+
				". An operator can add one in PRICES_FILE; else leave the tool out.")
		}
	}
	return nil
}
