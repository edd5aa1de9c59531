package simulator

import (
	"fmt"
	"strings"
)

// toolPrompt is how much prompt each call of a tool adds: the model reads what
// it found.
const toolPrompt = 300

// ranTool is a call of a tool that the service ran itself.
type ranTool struct{ kind, id, members string }

// item is the call as an item of the output. Until it is done nothing but its
// kind is known.
func (t ranTool) item(status string) string {
	members := ""
	if status == "completed" {
		members = t.members
	}
	return fmt.Sprintf(`{"id":%q,"type":%q,"status":%q%s}`, t.id, t.kind, status, members)
}

// runTools calls each tool of a request that the service itself runs, and bills
// it: searches by the call, the code interpreter by its container.
func (c *call) runTools() (ran []ranTool) {
	left := int64(callsMax)
	if c.in.MaxToolCalls != nil {
		left = max(0, *c.in.MaxToolCalls)
	}
	for n, t := range c.in.Tools {
		for k := range max(0, orOne(c.settings.ToolCalls)) {
			id := fmt.Sprintf("%s%d_%d", c.id[:20], n, k)
			call := ranTool{}
			switch {
			case left == 0:
			case strings.HasPrefix(t.Type, "web_search"):
				call = ranTool{"web_search_call", "ws_" + id, `,"action":{"type":"search","query":"the weather"}`}
				c.use(itemWebSearch, 1)
			case t.Type == "file_search":
				call = ranTool{"file_search_call", "fs_" + id, `,"queries":["the weather"],"results":null`}
				c.use(itemFileSearch, 1)
			case t.Type == "code_interpreter":
				call = ranTool{"code_interpreter_call", "ci_" + id, `,"code":"print(1)","container_id":"cntr_` + c.id + `","outputs":null`}
				if c.items[itemCodeInterpreter] == 0 { // all in one container
					c.use(itemCodeInterpreter, 1)
				}
			}
			if call.kind == "" {
				break
			}
			left--
			ran = append(ran, call)
		}
		if strings.HasPrefix(t.Type, "web_search") && c.settings.ToolCalls > 1 && left > 0 { // it also reads a page, which is no search
			left--
			ran = append(ran, ranTool{"web_search_call", fmt.Sprintf("ws_%s%d_page", c.id[:20], n), `,"action":{"type":"open_page","url":"https://example.com/"}`})
		}
	}
	c.prompt += toolPrompt * int64(len(ran))
	return ran
}

// citations are what the answer of a search model has.
const citations = `[{"type":"url_citation","url_citation":{"start_index":0,"end_index":1,"title":"Example","url":"https://example.com/"}}]`

// searches tells whether the model of a chat searches the web, once.
func (c *call) searches() bool {
	return strings.Contains(c.model, "-search") || len(c.in.WebSearchOptions) > 0 && string(c.in.WebSearchOptions) != "null"
}
