package admin

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/costgate/costgate/handler/internal/jsonscan"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/sse"
	"github.com/costgate/costgate/handler/internal/tokens"
	"github.com/costgate/costgate/handler/internal/usage"
)

const (
	eventBytesMax = 4 << 20
	globalSKU     = "GlobalStandard"
)

// Update is POST api/Quota/Update: what API Management posts after an answer
// that it forwarded itself. The money is spent, so it is charged whatever is
// left.
func (h *Handler) Update(w http.ResponseWriter, r *http.Request) {
	if err := h.update(w, r); err != nil {
		h.fail(w, err)
		return
	}
	writeJSON(w, []byte("true"))
}

// report is the body of an Update.
type report struct {
	key              string
	prompt, response []byte // JSON or text
}

func (h *Handler) update(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r, UpdateBytesMax)
	if err != nil {
		return err
	}
	var in report
	err = readFields(body, []string{"subscriptionKey", "prompt", "responseBody"}, func(field string, raw []byte) *problem {
		text, isText := jsonscan.String(raw)
		if field == "subscriptionKey" {
			if !isText || text == "" || len(text) > keyBytesMax {
				return invalid(field, "%q must be a product key or id.", field)
			}
			in.key = text
			return nil
		}
		value := []byte(text)
		if !isText {
			value = append([]byte(nil), raw...)
		}
		if field == "prompt" {
			in.prompt = value
		} else {
			in.response = value
		}
		return nil
	})
	if err != nil {
		return err
	}
	if in.key == "" {
		return invalid("subscriptionKey", "\"subscriptionKey\" is missing.")
	}
	byKey, err := onceOf(r, "update", body)
	if err != nil {
		return err
	}
	p, err := h.options.Ledger.Find(r.Context(), in.key)
	if err != nil {
		return err
	}
	record, err := h.measure(p, &in)
	if err != nil {
		return err
	}
	var once []ledger.Once
	if byKey.Key != "" {
		once = append(once, byKey)
	}
	if record.ResponseID != "" {
		once = append(once, ledger.Once{Key: "response:" + string(record.ResponseID)})
	}
	_, err = h.options.Ledger.Charge(r.Context(), p, *record, once...)
	return err
}

// measure reads what the answer used, or counts it, and prices it.
func (h *Handler) measure(p *quota.Product, in *report) (*usage.Record, error) {
	response := bytes.TrimSpace(in.response)
	stream := len(response) > 0 && response[0] != '{'
	answer := readAnswer(response, stream)
	if !answer.HasUsage && answer.TextBytes == 0 && len(answer.ToolCalls) == 0 {
		return nil, invalid("responseBody", "\"responseBody\" is neither a JSON answer nor an SSE text of Azure OpenAI: it has no usage and no text.")
	}
	if answer.Model == "" {
		return nil, invalid("responseBody", "\"responseBody\" names no model, so it cannot be priced.")
	}
	entry, deployment, err := h.dearest(p, answer.Model)
	if err != nil {
		return nil, err
	}
	one := int64(http.StatusOK)
	record := &usage.Record{
		Kind: usage.KindUpdate, Operation: operationOf(&answer), Model: usage.Text(clip(answer.Model)), ResponseID: usage.Text(clip(answer.ResponseID)),
		ServiceTier: usage.Text(clip(answer.ServiceTier)), Deployment: usage.Text(deployment.name), SKU: usage.Text(deployment.SKU),
		Region: usage.Text(deployment.Region), Stream: &stream, Status: usage.Of(one), Outcome: usage.Text(usage.OutcomeCompleted),
		UsageSource: usage.Text(usage.SourceProvider), PriceKey: usage.Text(entry.Key), PriceBook: usage.Text(h.options.Book.Version()),
	}
	if answer.Filtered {
		record.Outcome = usage.Text(usage.OutcomeFiltered)
	}
	used := answer.Usage
	if !answer.HasUsage {
		used = count(&answer, in.prompt)
		record.UsageSource = usage.Text(usage.SourceTokenizer)
	}
	record.SetAnswer(&answer)
	record.SetUsage(used)
	if p.MultiplierPPM > 0 {
		entry = entry.WithMarkup(p.MultiplierPPM)
	}
	cost, err := entry.Charge(used, answer.Items, answer.ServiceTier)
	if err != nil {
		return nil, invalid("responseBody", "The usage in \"responseBody\" cannot be priced: %v.", err)
	}
	record.CostNanoUSD, record.ListCostNanoUSD, record.Charge = usage.Of(int64(cost.Charged)), usage.Of(int64(cost.List)), usage.Of(int64(cost.Charged))
	if p.Unit == quota.UnitTokens {
		record.Charge = usage.Of(used.Total())
	}
	return record, nil
}

func readAnswer(response []byte, stream bool) usage.Answer {
	if !stream {
		return usage.FromBody(response, true)
	}
	reader := usage.Stream{GatherText: true}
	scanner := sse.NewScanner(eventBytesMax)
	scanner.Feed(append(response, "\n\n"...), func(e sse.Event) { reader.Event(e.Name, e.Data) })
	return reader.Answer()
}

func operationOf(a *usage.Answer) usage.Text {
	switch {
	case strings.HasPrefix(a.ResponseID, "resp_") || a.Status != "":
		return "responses"
	case strings.HasPrefix(a.ResponseID, "cmpl-"):
		return "completions"
	case a.ResponseID == "" && !a.Usage.Completion.Known && a.TextBytes == 0:
		return "embeddings"
	}
	return "chat"
}

// count counts the prompt, a request body or plain text, and the answer.
func count(a *usage.Answer, prompt []byte) usage.Usage {
	var in int64
	op := tokens.Op(operationOf(a))
	if trimmed := bytes.TrimSpace(prompt); len(trimmed) > 0 && trimmed[0] == '{' {
		var err error
		if in, _, err = tokens.Prompt(op, a.Model, trimmed); err != nil {
			in = tokens.Text(a.Model, string(prompt))
		}
	} else {
		in = tokens.Text(a.Model, string(prompt))
	}
	seen := tokens.Output{Op: op, Text: string(a.Text)}
	for _, call := range a.ToolCalls {
		seen.Calls = append(seen.Calls, tokens.ToolCall{Name: call.Name, Arguments: call.Arguments})
	}
	return usage.Usage{Prompt: usage.Of(in), Completion: usage.Of(tokens.Completion(a.Model, seen))}
}

type namedDeployment struct {
	name string
	pricing.Deployment
}

// dearest is the dearest price of those deployments that run the model, else
// that of a global deployment. A model without a price cannot be refused any
// more: it costs the dearest of its mode.
func (h *Handler) dearest(p *quota.Product, model string) (pricing.Entry, namedDeployment, error) {
	now := h.options.Now()
	var best pricing.Entry
	var bestCost money.Nano
	var from namedDeployment
	wanted, _ := pricing.NormalizeModel(model)
	try := func(name string, d pricing.Deployment) {
		entry, ok := h.options.Book.Lookup(pricing.Query{Model: d.Model, Version: d.Version, SKU: d.SKU, Region: d.Region, At: now})
		if !ok {
			entry, ok = h.options.Book.Lookup(pricing.Query{Model: d.Model, Version: d.Version, SKU: d.SKU, Region: d.Region, Mode: pricing.ModeEmbedding, At: now})
		}
		if !ok {
			return
		}
		cost, err := entry.Bound(1000, 1000, nil, "")
		if err != nil { // embeddings have no output
			cost, err = entry.Bound(1000, 0, nil, "")
		}
		if err == nil && (best.Key == "" || cost > bestCost) {
			best, bestCost, from = entry, cost, namedDeployment{name, d}
		}
	}
	for name, d := range h.options.Deployments {
		if other, _ := pricing.NormalizeModel(d.Model); other == wanted {
			try(name, d)
		}
	}
	if best.Key == "" {
		try("", pricing.Deployment{Model: model, SKU: globalSKU})
	}
	if best.Key == "" {
		dearest, ok := h.options.Book.Dearest(pricing.ModeChat, now)
		if !ok {
			return best, from, invalid("responseBody", "The price book has no price for the model %q.", clip(model))
		}
		h.options.Log.Warn("an update names a model without a price; the dearest is charged", "product_id", p.ID, "model", clip(model))
		best, from = dearest, namedDeployment{Deployment: pricing.Deployment{SKU: globalSKU}}
	}
	return best, from, nil
}

const nameBytesMax = 128

func clip(s string) string {
	if len(s) <= nameBytesMax {
		return s
	}
	return strings.ToValidUTF8(s[:nameBytesMax], "")
}
