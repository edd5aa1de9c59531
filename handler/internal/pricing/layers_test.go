package pricing_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
)

// overlaid is the program's book with others laid over it, the last on top.
func overlaid(t *testing.T, texts ...string) *pricing.Book {
	t.Helper()
	book := pricing.Builtin()
	var files *pricing.Book
	for _, text := range texts {
		if file := parse(t, text); files == nil {
			files = file
		} else {
			files = files.With(file)
		}
	}
	if files != nil {
		book = book.With(files)
	}
	return book
}

// TestLayers: a contract goes before refreshed list prices, whatever their days.
func TestLayers(t *testing.T) {
	file := func(from string, in int) string {
		return fmt.Sprintf(`{"prices":[{"model":"gpt-4.1","version":"2025-04-14","sku":"GlobalStandard","from":%q,"pico_usd":{"in":%d,"out":9000000}}]}`, from, in)
	}
	refreshed := file("2026-03-01", 3)
	f := func(at string, want money.Pico, files ...string) {
		t.Helper()
		when, err := time.Parse(time.DateOnly, at)
		if err != nil {
			t.Fatal(err)
		}
		e, _ := overlaid(t, files...).Lookup(pricing.Query{Model: "gpt-4.1-2025-04-14", At: when})
		if in, _ := e.Price("in"); in != want {
			t.Errorf("%s: in = %d, want %d", at, in, want)
		}
	}
	f("2026-02-28", 2_000_000, refreshed)
	f("2026-03-01", 3, refreshed)
	f("2026-02-28", 7, refreshed, file("", 7)) // a contract without a day
	f("2026-11-24", 7, refreshed, file("", 7))
	f("2025-12-31", 2_000_000, refreshed, file("2026-01-01", 7)) // since an earlier day than the list price
	f("2026-01-01", 7, refreshed, file("2026-01-01", 7))
	f("2026-11-24", 7, refreshed, file("2026-01-01", 7))
	f("2026-11-30", 3, refreshed, file("2026-12-01", 7)) // from a day to come: until then it does not count
	f("2026-12-01", 7, refreshed, file("2026-12-01", 7))
	f("2026-11-24", 3, file("", 7), refreshed) // the order of the files decides
	f("2026-11-24", 8, refreshed, file("", 7), file("2026-11-24", 8))
	// But version, region and SKU come first.
	f("2026-11-24", 3, refreshed, `{"prices":[{"model":"gpt-4.1","sku":"GlobalStandard","pico_usd":{"in":7,"out":7}}]}`)
	f("2026-11-24", 3, refreshed, `{"prices":[{"model":"gpt-4.1","version":"2025-04-14","pico_usd":{"in":7,"out":7}}]}`)
}

func TestShadowed(t *testing.T) {
	f := func(entries string, wants ...string) {
		t.Helper()
		got := overlaid(t, `{"prices":[`+entries+`]}`).Shadowed()
		if len(got) != min(len(wants), 1) {
			t.Errorf("%s: %q", entries, got)
			return
		}
		for _, want := range wants {
			if !strings.Contains(got[0], want) {
				t.Errorf("%s: %q does not say %q", entries, got[0], want)
			}
		}
	}
	const price = `"pico_usd":{"in":1,"out":1}}`
	f(`{"model":"gpt-4o",`+price, "gpt-4o/*/*/* ", "gpt-4o/*/GlobalStandard/*, ", "gpt-4o/2024-08-06/DataZoneStandard/eu and others; ", "with their sku and version and region")
	f(`{"model":"gpt-4o","sku":"GlobalStandard",`+price, "gpt-4o/*/GlobalStandard/* ", "gpt-4o/2024-05-13/GlobalStandard/*", "with their version")
	f(`{"model":"gpt-4o","version":"2024-11-20","sku":"DataZoneStandard",`+price, "2024-11-20/DataZoneStandard/eu, gpt-4o/2024-11-20/DataZoneStandard/us;", "with their region")
	f(`{"model":"gpt-4o","version":"2024-11-20","sku":"GlobalStandard",` + price)
	f(`{"model":"gpt-4o","version":"2024-11-20","sku":"GlobalStandard","from":"2030-01-01",` + price)
	f(`{"model":"gpt-4o-mini","version":"2024-07-18","sku":"Standard","region":"northeurope",` + price)
	f(`{"model":"gpt-4o-mini","sku":"Standard","region":"northeurope",`+price, "gpt-4o-mini/2024-07-18/Standard/*", "version")
	f(`{"model":"gpt-5.1","sku":"DataZoneStandard","region":"swedencentral",` + price)
	f(`{"model":"gpt-5-mini","sku":"DataZoneStandard","region":"swedencentral",`+price, "gpt-5-mini/2025-08-07/DataZoneStandard/eu;", "version")
	f(`{"model":"gpt-5-mini","sku":"DataZoneStandard","region":"japaneast",` + price)
	f(`{"model":"gpt-4.1","sku":"Standard",` + price)
	f(`{"model":"mine",` + price + `,{"model":"mine","version":"1",` + price) // of one file: as its writer wants it
	// What is replaced on a later day is not told as well.
	f(`{"model":"gpt-4o","from":"2026-01-01",`+price+`,{"model":"gpt-4o","from":"2026-02-01",`+price, "gpt-4o/*/*/*@2026-02-01 ")
	// All versions are given too.
	f(`{"model":"gpt-5.2","sku":"GlobalStandard",` + price + `,{"model":"gpt-5.2","version":"2025-12-11","sku":"GlobalStandard",` + price)
	f(`{"model":"web_search","mode":"tool","pico_usd":{"web_search_call":1}}`)
	f(`{"model":"text-embedding-3-small","mode":"embedding","pico_usd":{"in":1}}`)
	f(`{"model":"hd/1024x1024/dall-e-3","mode":"image_generation","pico_usd":{"per_image":1}}`)
	if got := pricing.Builtin().Shadowed(); len(got) != 0 {
		t.Error(got)
	}
	// An earlier file counts like the book.
	two := overlaid(t, `{"prices":[{"model":"mine","sku":"Standard","region":"eastus",`+price+`]}`, `{"prices":[{"model":"mine",`+price+`]}`)
	if got := two.Shadowed(); len(got) != 1 || !strings.Contains(got[0], "mine/*/Standard/eastus") {
		t.Error(got)
	}
	zone := overlaid(t, `{"prices":[{"model":"mine","sku":"DataZoneStandard","region":"eastus",`+price+`]}`,
		`{"prices":[{"model":"mine","sku":"DataZoneStandard","region":"us",`+price+`]}`)
	if got := zone.Shadowed(); len(got) != 1 || !strings.Contains(got[0], "one: mine/*/DataZoneStandard/eastus; ") || !strings.HasSuffix(got[0], "with their region") {
		t.Error(got)
	}
	many := func(n int) *pricing.Book {
		var below, above strings.Builder
		for i := range n {
			fmt.Fprintf(&below, `,{"model":"m%d","version":"1",%s`, i, price)
			fmt.Fprintf(&above, `,{"model":"m%d",%s`, i, price)
		}
		return overlaid(t, `{"prices":[`+below.String()[1:]+`]}`, `{"prices":[`+above.String()[1:]+`]}`)
	}
	if got := many(pricing.ShadowedMax).Shadowed(); len(got) != pricing.ShadowedMax {
		t.Errorf("ShadowedMax: %d messages", len(got))
	}
	if got := many(pricing.ShadowedMax + 1).Shadowed(); len(got) != pricing.ShadowedMax+1 || got[pricing.ShadowedMax] != "and there are more entries like these" {
		t.Errorf("ShadowedMax+1: %d messages", len(got))
	}
}

// TestVariantSpelling: the size of an image is the same however it is written.
func TestVariantSpelling(t *testing.T) {
	for _, size := range []string{"1024x1024", "1024-x-1024", "1024X1024"} {
		book := overlaid(t, `{"prices":[{"model":"hd/`+size+`/dall-e-3","mode":"image_generation","pico_usd":{"per_image":1}}]}`)
		e, _ := book.Lookup(pricing.Query{Model: "dall-e-3", Mode: pricing.ModeImage, Quality: "hd", Size: "1024x1024", At: now})
		price, _ := e.Price("per_image")
		if diff := cmp.Diff("image_generation:hd/1024-x-1024/dall-e-3/*/*/*", e.Key); diff != "" || price != 1 {
			t.Errorf("%s: %d, %s", size, price, diff)
		}
	}
	_, err := pricing.Parse([]byte(`{"prices":[
		{"model":"hd/1024x1024/dall-e-3","mode":"image_generation","pico_usd":{"per_image":1}},
		{"model":"hd/1024-x-1024/dall-e-3","mode":"image_generation","pico_usd":{"per_image":2}}]}`))
	if err == nil || !strings.Contains(err.Error(), "already given on line 2") {
		t.Error(err)
	}
}
