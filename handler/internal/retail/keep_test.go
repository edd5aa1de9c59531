package retail

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/pricing"
)

// What has no meters of its own keeps its ratio to what has.
func TestBuildKeepsBands(t *testing.T) {
	book := `{"version":"old","prices":[{"model":"m-1","sku":"GlobalStandard","long_threshold":200000,"pico_usd":{"in":1000000,"out":3000000,
		"batch_in":400000,"prio_in":2500000,"prio_out":7500001,"long_in":2000000,"long_in_cached":1,"long_out":4500000}}]}`
	in := input(t, book, "m 1 Inp Gl | 0.5", "m 1 Opt Gl | 2", "m 1 LongCo Inp Gl | 1.5")
	r := wantRows(t, in, "m-1/*/GlobalStandard/*@2026-10-01 in=500000 out=2000000 prio_in=1250000 prio_out=5000001 long_in=1500000 long_out=3000000 batch_in=200000")
	for e := range r.Book.All() {
		if e.LongThreshold != 200_000 {
			t.Error(e.LongThreshold)
		}
	}
	want := []string{"m-1 GlobalStandard batch_in", "m-1 GlobalStandard long_out", "m-1 GlobalStandard prio_in", "m-1 GlobalStandard prio_out"}
	if diff := cmp.Diff(want, r.Report.Kept.list()); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}

// Cached input without a meter keeps its share of the price of input, in batches too.
func TestBuildKeepsCache(t *testing.T) {
	book := `{"version":"old","prices":[{"model":"m-1","sku":"GlobalStandard","mode":"realtime","pico_usd":
		{"in":1000000,"in_cached":100000,"in_cache_write":1250000,"out":3000000,"audio_in":8000000,"audio_in_cached":400000,"prio_in":2000000,"prio_in_cached":300000}}]}`
	in := input(t, book, "m 1 Text Inp Gl | 2", "m 1 Text Opt Gl | 3", "m 1 Audio Inp Gl | 4")
	r := wantRows(t, in, "realtime:m-1/*/GlobalStandard/*@2026-10-01 in=2000000 in_cached=200000 in_cache_write=2500000 out=3000000 "+
		"audio_in=4000000 audio_in_cached=200000 prio_in=4000000 prio_in_cached=600000")
	for _, meter := range []string{"in_cached", "in_cache_write", "audio_in_cached"} {
		if !r.Report.Kept["m-1 GlobalStandard "+meter] {
			t.Errorf("%s is not reported: %v", meter, r.Report.Kept.list())
		}
	}
	wantRows(t, input(t, testBook, "m 1 0131 Batch Inp Gl | 0.5", "m 1 0131 Batch Opt Gl | 2"),
		"m-1/2026-01-31/GlobalBatch/*@2026-10-01 in=500000 in_cached=50000 out=2000000 long_in=1000000 long_out=3000000")
}

// What a contract in PRICES_FILE leaves out is not taken from the contract.
func TestBuildIgnoresContracts(t *testing.T) {
	contract, err := pricing.Parse([]byte(`{"version":"contract","multiplier_ppm":900000,"prices":[
		{"model":"gpt-5.5","version":"2026-04-23","sku":"GlobalStandard","ctx_in":7,"pico_usd":{"in":4000000,"in_cached":3900000,"out":20000000,"batch_in":3900000}},
		{"model":"mine","version":"2026-01-01","sku":"GlobalStandard","ctx_in":1000,"max_out":100,"pico_usd":{"in":4000000,"in_cached":1000000,"out":20000000}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	in := input(t, testBook, "5.5 0423 Inp Gl | 6", "5.5 0423 Opt Gl | 36", "mine 0101 Inp Gl | 2", "mine 0101 Opt Gl | 4")
	in.Current = pricing.Builtin().With(contract)
	if in.Catalog, err = NewCatalog(in.Current, nil); err != nil {
		t.Fatal(err)
	}
	const dear = "/GlobalStandard/*@2026-10-01 in=6000000 in_cached=600000 out=36000000 prio_in=12000000 prio_in_cached=1200000 prio_out=72000000 " +
		"long_in=12000000 long_in_cached=1200000 long_out=54000000 long_prio_in=24000000 long_prio_in_cached=2400000 long_prio_out=108000000"
	r := wantRows(t, in, "gpt-5.5/*"+dear, "gpt-5.5/2026-04-23"+dear,
		"mine/*/GlobalStandard/*@2026-10-01 in=2000000 in_cached=500000 out=4000000", // only the contract knows it
		"mine/2026-01-01/GlobalStandard/*@2026-10-01 in=2000000 in_cached=500000 out=4000000")
	for e := range r.Book.All() {
		want := [3]int64{1_050_000, 128_000, 272_000}
		if e.Model == "mine" {
			want = [3]int64{1000, 100, 0}
		}
		if got := [3]int64{e.CtxIn, e.MaxOut, e.LongThreshold}; got != want {
			t.Errorf("%s: ctx_in, max_out, long_threshold %d; want %d", e.Key, got, want)
		}
	}
}

// An entry of any SKU is not gone if the list sells the model somehow.
func TestBuildGone(t *testing.T) {
	book := `{"version":"old","prices":[{"model":"m-embedding","mode":"embedding","pico_usd":{"in":130000}},
		{"model":"m-other","mode":"embedding","pico_usd":{"in":130000}}]}`
	r := wantRows(t, input(t, book, "m-embedding glbl Tokens | 0.00013 | 1K"), "embedding:m-embedding/*/GlobalStandard/*@2026-10-01 in=130000")
	if diff := cmp.Diff([]string{"embedding:m-other/*/*/*"}, r.Report.Gone); diff != "" {
		t.Errorf("gone (-want +got):\n%s", diff)
	}
}
