package tokens

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testdata(t *testing.T, into any, path ...string) {
	t.Helper()
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set: the recorded data is not here")
	}
	data, err := os.ReadFile(filepath.Join(append([]string{dir}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenCounts(t *testing.T) {
	var golden struct {
		Cases []struct {
			Name   string `json:"name"`
			Text   string `json:"text"`
			Unit   string `json:"unit"`
			Repeat int    `json:"repeat"`
			Suffix string `json:"suffix"`
			CL100K int64  `json:"cl100k_base"`
			O200K  int64  `json:"o200k_base"`
			// Of the shorter texts.
			CL100KIDs []int `json:"cl100k_base_ids"`
			O200KIDs  []int `json:"o200k_base_ids"`
		} `json:"cases"`
	}
	testdata(t, &golden, "golden-tokens.json")
	for _, c := range golden.Cases {
		s := c.Text
		if c.Unit != "" {
			s = strings.Repeat(c.Unit, c.Repeat) + c.Suffix
		}
		f := func(model string, e *encoding, want int64, ids []int) {
			if got := Text(model, s); got != want {
				t.Errorf("%s, %s: %d tokens; want %d", c.Name, model, got, want)
			}
			if got := e.ids(s); int64(len(got)) != want || ids != nil && !slices.Equal(got, ids) {
				t.Errorf("%s, %s: tokens %v; want %v", c.Name, model, got, ids)
			}
		}
		f("gpt-4", cl100k, c.CL100K, c.CL100KIDs)
		f("gpt-4o", o200k, c.O200K, c.O200KIDs)
	}
	if len(golden.Cases) < 50 {
		t.Errorf("%d cases", len(golden.Cases))
	}
}

type vector struct {
	Model   string          `json:"model"`
	Request json.RawMessage `json:"request"`
	Source  string          `json:"source"`
	Usage   struct {
		Prompt int64 `json:"prompt_tokens"`
	} `json:"usage"`
}

// The bills of text alone that are not what the formula says, and by how much: nothing that was tried explains them.
var unexplained = map[string]int64{
	"dd-trace-py/tests/contrib/openai/cassettes/v1/azure_chat_completion.yaml":        -1, // gpt-35-turbo
	"dd-trace-py/tests/contrib/openai/cassettes/v1/chat_completion_audio_output.yaml": +1,
	"pydantic-ai/tests/models/cassettes/test_openai/test_openai_web_search_tool.yaml": +11,
}

// ofText tells whether a chat request is text alone: no tools, calls, schemas, images or files.
func ofText(t *testing.T, body []byte) bool {
	request, err := decode(body)
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range list(request["messages"]) {
		message := object(value)
		if message["tool_calls"] != nil || message["function_call"] != nil {
			return false
		}
		for _, part := range list(message["content"]) {
			if text(object(part)["type"]) != "text" {
				return false
			}
		}
	}
	return request["tools"] == nil && request["functions"] == nil && text(object(request["response_format"])["type"]) != "json_schema"
}

func TestGoldenPrompts(t *testing.T) {
	var golden struct {
		Vectors []vector `json:"vectors"`
	}
	testdata(t, &golden, "recorded", "golden-chat-usage.json")
	var billed, estimated int64
	found := map[string]int64{}
	for _, v := range golden.Vectors {
		want := v.Usage.Prompt
		n, exact, err := Prompt(OpChat, v.Model, v.Request)
		if err != nil {
			t.Errorf("%s: %v", v.Source, err)
		}
		billed, estimated = billed+want, estimated+n
		if off := n - want; off != 0 && ofText(t, v.Request) {
			found[v.Source] = off
		} else if off != 0 && exact {
			t.Errorf("%s, %s: %d tokens; want exactly %d", v.Source, v.Model, n, want)
		}
		if bound := BoundExact(OpChat, v.Model, v.Request); bound < want {
			t.Errorf("%s, %s: BoundExact = %d, but %d were billed", v.Source, v.Model, bound, want)
		}
		if bound := BoundBytes(OpChat, v.Model, v.Request); bound < want && !HidesInput(OpChat, v.Request) {
			t.Errorf("%s, %s: BoundBytes = %d, but %d were billed", v.Source, v.Model, bound, want)
		}
	}
	if diff := cmp.Diff(unexplained, found); diff != "" {
		t.Errorf("text prompts that are not exact (-want +got):\n%s", diff)
	}
	if off := estimated - billed; off*100 > billed || off*100 < -billed || billed == 0 {
		t.Errorf("estimated %d, billed %d: more than 1 %% off", estimated, billed)
	}
}

// TestGoldenCompletions holds the estimates of answers without usage against what
// was billed for their text and calls: models that do not reason, within 1 % in total.
func TestGoldenCompletions(t *testing.T) {
	var golden struct {
		Vectors []struct {
			Model   string `json:"model"`
			Source  string `json:"source"`
			Request struct {
				N int64 `json:"n"`
			} `json:"request"`
			Content string `json:"content"`
			Calls   []struct {
				Name string `json:"name"`
				Args string `json:"args"`
			} `json:"tool_calls"`
			Finish string `json:"finish_reason"`
			Usage  struct {
				Completion int64 `json:"completion_tokens"`
				Details    struct {
					Reasoning int64 `json:"reasoning_tokens"`
				} `json:"completion_tokens_details"`
			} `json:"usage"`
		} `json:"vectors"`
	}
	testdata(t, &golden, "recorded", "golden-chat-usage.json")
	var billed, estimated int64
	for _, v := range golden.Vectors {
		if v.Content == "" && len(v.Calls) == 0 || v.Request.N > 1 || v.Finish == "function_call" {
			continue // the recording lacks the answer, or has several
		}
		seen := Output{Text: v.Content}
		for _, call := range v.Calls {
			seen.Calls = append(seen.Calls, ToolCall{Name: call.Name, Arguments: call.Args})
		}
		n, want := Completion(v.Model, seen), v.Usage.Completion-v.Usage.Details.Reasoning
		billed, estimated = billed+want, estimated+n
		if n < want-15 || n > want+15 {
			t.Errorf("%s, %s: %d tokens; want about %d", v.Source, v.Model, n, want)
		}
	}
	if off := estimated - billed; off*100 > billed || off*100 < -billed || billed == 0 {
		t.Errorf("estimated %d, billed %d: more than 1 %% off", estimated, billed)
	}
}
