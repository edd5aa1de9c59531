package admin

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
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
		var exact bool
		used, exact = count(&answer, in.prompt)
		record.UsageSource = usage.Text(usage.SourceTokenizer)
		if model, _ := pricing.NormalizeModel(answer.Model); !exact || tokens.Reasons(model) {
			record.UsageSource = usage.Text(usage.SourceEstimate)
		}
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

// count counts the prompt, a request body or plain text, and the answer. exact
// tells that nothing of the prompt had to be guessed.
func count(a *usage.Answer, prompt []byte) (u usage.Usage, exact bool) {
	var in int64
	op := tokens.Op(operationOf(a))
	if trimmed := bytes.TrimSpace(prompt); len(trimmed) > 0 && trimmed[0] == '{' {
		var err error
		if in, exact, err = tokens.Prompt(op, a.Model, trimmed); err != nil {
			in, exact = tokens.Text(a.Model, string(prompt)), false
		}
	} else {
		in, exact = tokens.Text(a.Model, string(prompt)), true
	}
	seen := tokens.Output{Op: op, Text: string(a.Text)}
	for _, call := range a.ToolCalls {
		seen.Calls = append(seen.Calls, tokens.ToolCall{Name: call.Name, Arguments: call.Arguments})
	}
	return usage.Usage{Prompt: usage.Of(in), Completion: usage.Of(tokens.Completion(a.Model, seen))}, exact
}

type namedDeployment struct {
	name string
	pricing.Deployment
}

// dearest is the dearest price of those deployments that run the model, or have
// its name, for Responses name the deployment; else that of a global deployment.
// The answer tells the version where DEPLOYMENTS does not. A model without a
// price cannot be refused any more: it costs the dearest of its mode.
func (h *Handler) dearest(p *quota.Product, model string) (pricing.Entry, namedDeployment, error) {
	global := pricing.Deployment{Model: model, SKU: globalSKU}
	best, found := h.lookup(global)
	from := namedDeployment{Deployment: global}
	wanted, version := pricing.NormalizeModel(model)
	if found {
		wanted = best.Model // whatever it is called
	}
	running := false
	for _, name := range slices.Sorted(maps.Keys(h.options.Deployments)) {
		d := h.options.Deployments[name]
		named := strings.EqualFold(name, model)
		if d.Version == "" && !named {
			d.Version = version
		}
		entry, ok := h.lookup(d)
		if !ok || entry.Model != wanted && !named {
			continue
		}
		if !running || cost(&entry) > cost(&best) {
			best, from, running = entry, namedDeployment{name, d}, true
		}
	}
	if found || running {
		return best, from, nil
	}
	dearest, ok := h.options.Book.Dearest(pricing.ModeChat, h.options.Now())
	if !ok {
		return best, from, invalid("responseBody", "The price book has no price for the model %q.", clip(model))
	}
	h.options.Log.Warn("an update names a model without a price; the dearest is charged", "product_id", p.ID, "model", clip(model))
	return dearest, namedDeployment{Deployment: pricing.Deployment{SKU: globalSKU}}, nil
}

// lookup finds the price of a deployment, whatever it is for.
func (h *Handler) lookup(d pricing.Deployment) (entry pricing.Entry, ok bool) {
	for _, mode := range []pricing.Mode{pricing.ModeChat, pricing.ModeEmbedding} {
		entry, ok = h.options.Book.Lookup(pricing.Query{Model: d.Model, Version: d.Version, SKU: d.SKU, Region: d.Region, Mode: mode, At: h.options.Now()})
		if ok {
			break
		}
	}
	return entry, ok
}

// cost compares prices, by a request of a usual shape. Embeddings have no output.
func cost(e *pricing.Entry) money.Nano {
	n, err := e.Bound(1000, 1000, nil, "")
	if err != nil {
		n, _ = e.Bound(1000, 0, nil, "")
	}
	return n
}

const nameBytesMax = 128

func clip(s string) string {
	if len(s) <= nameBytesMax {
		return s
	}
	return strings.ToValidUTF8(s[:nameBytesMax], "")
}
