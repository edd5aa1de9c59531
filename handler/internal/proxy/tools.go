package proxy

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/costgate/costgate/handler/internal/usage"
)

const (
	toolCallsMax = 1_000_000
	// toolCallsHeld is for how many calls of the tools that the service runs
	// money is held where the client sets no max_tool_calls.
	toolCallsHeld = 10
)

// served are the tools of a request that the service itself runs and that are
// sold by the call. What they find becomes prompt.
type served struct{ webSearch, fileSearch, codeInterpreter bool }

// readTools reads which tools a request has. One whose calls nobody can price is
// refused.
func (a *asked) readTools(raw []byte) *failure {
	var tools []struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &tools); err != nil {
		return badRequest("invalid_value", "tools", "\"tools\" must be an array of objects, each with a \"type\".")
	}
	if len(tools) > toolsMax {
		return badRequest("invalid_value", "tools", "\"tools\" may have "+strconv.Itoa(toolsMax)+" entries at most.")
	}
	for i, tool := range tools {
		switch tool.Type {
		case "", "function", "custom":
			continue
		case "mcp", "computer_use_preview", "computer", "local_shell", "shell", "apply_patch":
		case "web_search", "web_search_preview", "web_search_preview_2025_03_11", "web_search_2025_08_26":
			a.tools.webSearch = true
		case "file_search":
			a.tools.fileSearch = true
		case "code_interpreter":
			a.tools.codeInterpreter = true
		default:
			return forbidden("operation_not_priced", fmt.Sprintf(
				"tools[%d]: this gateway does not know what a tool of type %q costs. Leave it out.", i, clip(tool.Type, 64)))
		}
		a.needsContext = true
	}
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
