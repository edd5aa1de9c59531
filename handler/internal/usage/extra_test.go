package usage_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/usage"
)

func extraOf(usageObject string) string {
	return string(usage.FromBody([]byte(`{"usage":`+usageObject+`}`), false).Extra)
}

func TestExtra(t *testing.T) {
	f := func(usageObject, want string) {
		t.Helper()
		if got := extraOf(usageObject); got != want {
			t.Errorf("%s: %s; want %s", usageObject, got, want)
		}
	}
	f(`{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0,"text_tokens":3},
		"completion_tokens_details":{"accepted_prediction_tokens":1,"rejected_prediction_tokens":2,"reasoning_tokens":0,"text_tokens":1,"image_tokens":0}}`, "")
	f(`{"type":"duration","seconds":3}`, "")
	f(`{"prompt_tokens":3,"prompt_tokens_details":null,"completion_tokens_details":[1]}`, "")
	f(`{"prompt_tokens":3, "prompt_tokens_details":{ "foo_tokens" : 7 }, "bar":1 }`, `{"prompt_tokens_details":{"foo_tokens":7},"bar":1}`)
	f(`{"bar":1,"prompt_tokens_details":{"a":1,"cached_tokens":1,"b":2},"completion_tokens_details":{"c":true},"d":null}`,
		`{"bar":1,"prompt_tokens_details":{"a":1,"b":2},"completion_tokens_details":{"c":true},"d":null}`)
	f(`{"input_token_details":{"cached_tokens_details":{"video_tokens":2},"video_tokens":5}}`,
		`{"input_token_details":{"cached_tokens_details":{"video_tokens":2},"video_tokens":5}}`)
	f(`{"cost":{"in":-1.5e3,"out":{}}}`, `{"cost":{"in":-1.5e3}}`)
	f(`{"cost":{"a":{"b":{"c":1}}}}`, `{"cost":{"a":{"b":{"c":1}}}}`)
	f(`{"cost":{"a":{"b":{"c":{"d":1}}}}}`, "")
	f(`{"list":[1,2],"empty":{},"tier":"gpt-5.4/priority"}`, `{"tier":"gpt-5.4/priority"}`)
	// No text: a word is short and has no spaces, quotes or escapes; so has a key.
	f(`{"a":"two words","b":"","c":"<b>","d":"é","e":"a\u0062","the prompt":1,"":1,"f":{"no no":1}}`, "")
	word, long := strings.Repeat("w", 64), strings.Repeat("w", 65)
	f(`{"a":"`+word+`","b":"`+long+`","`+word+`":1,"`+long+`":1}`, `{"a":"`+word+`","`+word+`":1}`)
	f(`{"a":1`+strings.Repeat("0", 63)+`,"b":1`+strings.Repeat("0", 64)+`}`, `{"a":1`+strings.Repeat("0", 63)+`}`)
}

func TestUsageExtraBytesMax(t *testing.T) {
	f := func(last string, kept bool) {
		t.Helper()
		var members []string
		for i := range 100 {
			members = append(members, fmt.Sprintf(`"member_%03d":123456`, i)) // 19 bytes and a comma
		}
		all := "{" + strings.Join(members, ",") + `,"d":{"a":` + last + "}}"
		got := extraOf(all)
		if !json.Valid([]byte(got)) || len(got) > usage.UsageExtraBytesMax || (got == all) != kept || !strings.HasPrefix(got, "{"+strings.Join(members, ",")) {
			t.Errorf("%d of %d bytes kept: %s", len(got), len(all), got)
		}
	}
	room := usage.UsageExtraBytesMax - len("{") - 100*20 - len(`"d":{"a":}}`)
	f(`"`+strings.Repeat("w", room-2)+`"`, true)
	f(`"`+strings.Repeat("w", room-1)+`"`, false)
	// What does not fit is left out, at whatever depth; what comes behind it is
	// not, if it fits.
	var large strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&large, `"m%d":%d,`, i, i)
	}
	for _, object := range []string{
		`{"x":{"y":{` + strings.TrimSuffix(large.String(), ",") + `}},"z":1}`,
		`{` + large.String() + `"prompt_tokens_details":{"x":1}}`,
		`{"prompt_tokens_details":{` + strings.TrimSuffix(large.String(), ",") + `}}`,
	} {
		got := extraOf(object)
		if !json.Valid([]byte(got)) || len(got) > usage.UsageExtraBytesMax || len(got) < usage.UsageExtraBytesMax-12 {
			t.Errorf("%d bytes: %s", len(got), got)
		}
	}
}

// TestOrdinaryUsageCostsNothing: there is an allocation only for what is kept.
func TestOrdinaryUsageCostsNothing(t *testing.T) {
	object := []byte(`{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":1,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":1}}`)
	if n := testing.AllocsPerRun(100, func() { usage.FromJSON(object) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
