package tokens_test

import (
	"math"
	"testing"

	"github.com/costgate/costgate/handler/internal/tokens"
)

func TestImageOutput(t *testing.T) {
	f := func(model, quality, size string, previews, want int64) {
		t.Helper()
		if got := tokens.ImageOutput(model, quality, size, previews); got != want {
			t.Errorf("%s %s %s, %d previews: %d, want %d", model, quality, size, previews, got, want)
		}
	}
	// OpenAI's table.
	for i, quality := range []string{"low", "medium", "high"} {
		f("gpt-image-1", quality, "1024x1024", 0, []int64{272, 1056, 4160}[i])
		f("gpt-image-1", quality, "1024x1536", 0, []int64{408, 1584, 6240}[i])
		f("gpt-image-1-mini", quality, "1536x1024", 0, []int64{400, 1568, 6208}[i])
		f("gpt-image-1", quality, "auto", 0, []int64{408, 1584, 6240}[i])
	}
	f("azure/GPT-image-1", "", "", 3, 6540)
	f("gpt-image-1", "auto", "1024X1024", -1, 4160)
	f("gpt-image-1", "low", "1024x1025", 0, 273)
	f("gpt-image-1", "high", "2048x2048", 0, 4*4160)
	f("gpt-image-1", "max", "big", 0, 6240)
	f("gpt-image-1.5-2025-12-16", "low", "1024x1024", 0, 272+1024)
	f("chatgpt-image-latest", "low", "1024x1024", 0, 272+1024)

	// OpenAI's calculator.
	f("gpt-image-2", "high", "1024x1024", 0, 7024)
	f("gpt-image-2", "high", "1536x1024", 0, 5488)
	f("gpt-image-2", "high", "1792x1024", 0, 5063)
	f("gpt-image-2", "high", "3584x2048", 0, 12_329)
	f("gpt-image-2-2026-04-21", "low", "1024x1024", 1, 196+100)
	f("gpt-image-2", "", "", 0, 23_719)
	f("gpt-image-2", "auto", "2880x2880", 0, 23_719)
	f("gpt-image-2", "high", "3840x3840", 0, 23_719)
	f("gpt-image-2", "newer", "auto", 0, 23_719)

	// Unknown models.
	f("gpt-image-2.5-flare", "high", "1024x1024", 0, 7024)
	f("gpt-image-2.5-flare", "max", "1024x1024", 0, 28_096)
	f("gpt-image-2.5-flare", "", "", 0, 94_874)
	f("gpt-image-10", "low", "", 0, 659)
	f("", "", "", math.MaxInt64, 94_874+100<<20)
}

// TestImageOutputIsAnUpperBound: no size and no quality takes more than auto.
func TestImageOutputIsAnUpperBound(t *testing.T) {
	for _, model := range []string{"gpt-image-1", "gpt-image-1.5", "gpt-image-2", "x"} {
		for _, quality := range []string{"low", "medium", "high", "auto", ""} {
			auto := tokens.ImageOutput(model, quality, "auto", 0)
			for _, size := range []string{"1024x1024", "1024x1536", "1536x1024"} {
				if n := tokens.ImageOutput(model, quality, size, 0); n <= 0 || n > auto || auto > tokens.ImageOutput(model, "", "", 0) {
					t.Errorf("%s %s %s: %d, auto %d", model, quality, size, n, auto)
				}
			}
		}
	}
}

func TestImageInput(t *testing.T) {
	f := func(model string, want int64) {
		t.Helper()
		if got := tokens.ImageInput(model); got != want {
			t.Errorf("%s: %d, want %d", model, got, want)
		}
	}
	f("gpt-image-1", 6885)
	f("gpt-image-2", 3136)
	f("gpt-image-3", 6885)
}

func FuzzImageOutput(f *testing.F) {
	f.Add("gpt-image-1", "low", "1024x1024", int64(1))
	f.Add("gpt-image-2", "high", "1048575x1048575", int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, model, quality, size string, previews int64) {
		if n := tokens.ImageOutput(model, quality, size, previews); n <= 0 {
			t.Errorf("%d", n)
		}
	})
}
