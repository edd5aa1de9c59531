package proxy

import (
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

func metered() []*operation {
	var all []*operation
	for i := range operations {
		if operations[i].kind == kindMetered {
			all = append(all, &operations[i])
		}
	}
	return all
}

var skus = []string{
	"GlobalStandard", "DataZoneStandard", "Standard", "GlobalBatch", "DataZoneBatch",
	"GlobalProvisionedManaged", "DataZoneProvisionedManaged", "ProvisionedManaged",
}

// FuzzNoPriceIsZero: whatever is named as the deployment, the model that
// answered, the tier, the quality and the size, a request that used something is
// refused or costs something, and no less than nothing is held for it. Only what
// provisioned capacity serves is free.
func FuzzNoPriceIsZero(f *testing.F) {
	for _, model := range []string{"gpt-4o", "gpt-5", "dall-e-3", "gpt-image-1", "whisper-1", "tts-1", "gpt-4o-mini-tts", "text-embedding-3-small", "nothing", ""} {
		f.Add(model, "", "default", "", "", uint8(0), uint8(0), int64(10), int64(5), false)
		f.Add(model, "gpt-4o-2024-11-20", "priority", "hd", "1024x1792", uint8(1), uint8(5), int64(300_000), int64(0), true)
	}
	book := pricing.Builtin()
	f.Fuzz(func(t *testing.T, model, served, tier, quality, size string, op, sku uint8, prompt, completion int64, anyPrice bool) {
		if prompt, completion = prompt&0xffffff, completion&0xffffff; prompt+completion == 0 {
			return
		}
		all := metered()
		h := New(Options{
			Book: book, Log: slog.New(slog.DiscardHandler),
			Deployments: map[string]pricing.Deployment{"d": {Model: model, SKU: skus[int(sku)%len(skus)], Region: "eastus"}},
		})
		product := &quota.Product{ID: "p_1", Unit: quota.UnitUSD, UnknownPrice: quota.UnknownReject}
		if anyPrice {
			product.UnknownPrice = quota.UnknownMax
		}
		for _, deployment := range []string{"d", model} {
			x := &exchange{
				handler: h, operation: all[int(op)%len(all)], product: product, deployment: deployment, priced: time.Unix(1_790_000_000, 0),
				asked: &asked{choices: 1, prompts: 1, tier: tier, model: deployment, media: mediaAsked{images: 1, quality: quality, size: size, spoken: "x", sound: []byte("RIFF")}},
			}
			if x.price() != nil {
				continue
			}
			if x.operation.media() {
				x.promptTokens, x.output, x.items = x.mediaDemand(false)
			}
			atMost := prompt
			if x.operation.media() {
				atMost = x.promptTokens
			}
			hold, err := x.worth(atMost, completion)
			if err != nil || hold <= 0 {
				t.Fatalf("%s of %q: hold %d, %v", x.operation.name, deployment, hold, err)
			}
			x.upstream = &http.Response{StatusCode: 200, Header: http.Header{}}
			x.hold = &ledger.Hold{Amount: hold, Record: usage.Record{HoldNanoUSD: usage.Of(hold)}}
			x.answer = usage.Answer{
				Model: served, ServiceTier: tier, HasUsage: true, Finished: true, Images: 1, Quality: quality, Size: size,
				Usage: usage.Usage{Prompt: usage.Of(prompt), Completion: usage.Of(completion)},
			}
			if x.operation.media() && !x.entry.SellsTokens() {
				x.answer.HasUsage = false
			}
			r := x.record()
			x.complete(&r, nil)
			if r.CostNanoUSD.N <= 0 && !pricing.Provisioned(string(r.SKU)) {
				t.Fatalf("%s of %q, served %q, tier %q: cost %+v", x.operation.name, deployment, served, tier, r)
			}
		}
	})
}

// FuzzUnderstand: no body and no form makes the gateway panic, and none that it
// understands has a demand below zero.
func FuzzUnderstand(f *testing.F) {
	f.Add(uint8(0), "application/json", []byte(`{"model":"gpt-4o","messages":[],"tools":[{"type":"web_search"}],"n":2,"max_tool_calls":3}`))
	f.Add(uint8(9), "application/json", []byte(`{"model":"dall-e-3","prompt":"a","n":2,"size":"1024x1024","quality":"hd","partial_images":1,"images":["x"]}`))
	f.Add(uint8(13), "multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--x--\r\n"))
	f.Fuzz(func(t *testing.T, op uint8, contentType string, body []byte) {
		all := metered()
		o := all[int(op)%len(all)]
		a, failed := understand(o, contentType, body)
		if failed != nil {
			return
		}
		if a.choices < 1 || a.prompts < 1 || a.limit < 0 || a.toolCallsMax < 0 || a.media.images < 0 || a.media.partial < 0 || a.media.files < 0 {
			t.Fatalf("%+v", a)
		}
		if o.media() && a.media.images < 1 {
			t.Fatalf("no images are asked for: %+v", a.media)
		}
		if slices.ContainsFunc(a.calls(o), func(i usage.Item) bool { return i.Quantity < 1 }) {
			t.Fatalf("%+v", a.calls(o))
		}
	})
}
