package proxy

import (
	"context"
	"net/http"
	"strings"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/tokens"
	"github.com/costgate/costgate/handler/internal/usage"
)

const nameBytesMax = 128 // of a name that upstream sent

// intent is what is known of a request before it is sent: the record, if this
// process dies.
func (x *exchange) intent() usage.Record {
	stream := x.asked.stream
	return usage.Record{
		KeyID: usage.Text(x.key.ID), RequestID: usage.Text(x.requestID), Operation: usage.Text(x.operation.name),
		Deployment: usage.Text(x.deployment), Model: usage.Text(clip(x.target.Model, nameBytesMax)),
		SKU: usage.Text(x.target.SKU), Region: usage.Text(x.target.Region), ServiceTier: usage.Text(clip(x.asked.tier, nameBytesMax)),
		Stream: &stream, PriceKey: usage.Text(x.entry.Key), PriceBook: usage.Text(x.handler.options.Book.Version()),
		User: usage.Text(x.asked.user), Attempts: usage.Of(1),
	}
}

// record is the hold's record with what is known of the answer.
func (x *exchange) record() usage.Record {
	r := x.hold.Record
	now := x.handler.options.Now()
	r.LatencyMS = usage.Of(now.Sub(x.began).Milliseconds())
	if !x.firstByte.IsZero() {
		r.FirstByteMS = usage.Of(x.firstByte.Sub(x.began).Milliseconds())
	}
	r.Attempts = usage.Of(x.attempts)
	if x.upstream == nil {
		return r
	}
	h := x.upstream.Header
	r.Status = usage.Of(int64(x.upstream.StatusCode))
	for _, name := range []string{"Apim-Request-Id", "X-Request-Id"} {
		if id := h.Get(name); id != "" {
			r.UpstreamRequestID = usage.Text(clip(id, nameBytesMax))
			break
		}
	}
	if region := h.Get("X-Ms-Region"); region != "" {
		r.Region = usage.Text(clip(region, nameBytesMax))
	}
	r.ResponseID = usage.Text(clip(x.answer.ResponseID, nameBytesMax))
	r.SKU = usage.Text(x.servedSKU())
	if x.answer.ServiceTier != "" || x.answer.Finished { // the answer's tier counts; none is the standard one
		r.ServiceTier = usage.Text(clip(x.answer.ServiceTier, nameBytesMax))
	}
	if model := x.servedModel(); model != "" {
		r.Model = usage.Text(clip(model, nameBytesMax))
	}
	return r
}

// complete charges an answer that arrived whole: by the usage it reports, else
// by what can be counted.
func (x *exchange) complete(r *usage.Record, answered []byte) {
	outcome := x.outcome()
	switch {
	case x.answer.HasUsage:
		x.reported(r, outcome)
	case x.answer.ErrorCode != "" && x.answer.Deltas == 0 && !x.answer.Filtered: // in place of an answer
		x.notBilled(r, outcome)
	case x.operation.media():
		x.mediaSeen(r, outcome, answered)
	case x.hidden():
		x.estimateHold(r, outcome)
	default:
		x.tokenized(r, outcome)
	}
}

// outcome is how a whole answer says that it ended.
func (x *exchange) outcome() usage.Outcome {
	switch {
	case x.answer.Filtered:
		return usage.OutcomeFiltered
	case x.answer.Status == "failed" || x.answer.ErrorCode != "":
		return usage.OutcomeUpstreamError
	}
	return usage.OutcomeCompleted
}

// reported charges what upstream says was used.
func (x *exchange) reported(r *usage.Record, outcome usage.Outcome) {
	used := x.ofSound(x.answer.Usage)
	r.SetAnswer(&x.answer)
	r.SetUsage(used)
	r.Outcome, r.UsageSource = usage.Text(outcome), usage.Text(usage.SourceProvider)
	if x.priceOrHold(r, used, x.pieces()) == nil {
		x.handler.learned.note(x.learnedKey(), x.answer.Usage.Completion.N/x.asked.choices)
	}
}

// pieces are what is sold by the call in an answer. Of a search model's answer
// nothing tells that it searched.
func (x *exchange) pieces() []usage.Item {
	items := x.answer.Items
	if x.operation.name == "chat" && x.asked.tools.webSearch && len(items) == 0 {
		items = x.asked.calls(x.operation)
	}
	return items
}

// mediaSeen charges an answer about images or sound that reports no usage.
func (x *exchange) mediaSeen(r *usage.Record, outcome usage.Outcome, answered []byte) {
	u, items, source := x.heard(answered)
	if source == "" {
		x.estimateHold(r, outcome)
		return
	}
	r.SetAnswer(&x.answer)
	r.SetUsage(u)
	r.Outcome, r.UsageSource = usage.Text(outcome), usage.Text(source)
	_ = x.priceOrHold(r, u, items)
}

// hidden: most of what such an answer costs cannot be seen in it, so that
// nothing but the hold is sure to cover it.
func (x *exchange) hidden() bool {
	if x.asked.background || x.asked.needsContext || x.operation.media() {
		return true
	}
	served, _ := pricing.NormalizeModel(x.servedModel())
	return tokens.Reasons(x.model()) || tokens.Reasons(served)
}

// interrupted charges a stream that broke off, by what was seen of it.
func (x *exchange) interrupted(ctx context.Context, r *usage.Record) {
	outcome := x.cutBy(ctx)
	if x.answer.ErrorCode != "" && x.answer.Deltas == 0 && !x.answer.Filtered { // in place of an answer
		x.notBilled(r, outcome)
		return
	}
	unheard := ctx.Err() != nil && x.firstByte.IsZero() // we left before we knew what the model did
	if x.hidden() || unheard {
		x.estimateHold(r, outcome)
		return
	}
	x.tokenized(r, outcome)
	r.UsageSource = usage.Text(usage.SourceEstimate) // what Azure generated beyond the break is unseen
}

// tokenized charges what the tokenizer counts in the request and the answer.
func (x *exchange) tokenized(r *usage.Record, outcome usage.Outcome) {
	prompt, exact := x.promptTokens, false
	if len(x.asked.body) <= CountBytesMax {
		if counted, whole, err := tokens.Prompt(x.operation.tokens, x.target.Model, x.asked.body); err == nil {
			prompt, exact = counted+x.earlier, whole
		}
	}
	u := usage.Usage{Prompt: usage.Of(prompt)}
	if x.operation.mode != pricing.ModeEmbedding {
		u.Completion = usage.Of(x.completionSeen())
	}
	r.SetUsage(u)
	r.UsageSource = usage.Text(usage.SourceTokenizer)
	if !exact || x.earlier > 0 {
		r.UsageSource = usage.Text(usage.SourceEstimate)
	}
	r.Outcome = usage.Text(outcome)
	_ = x.priceOrHold(r, u, x.pieces())
}

// completionSeen counts what was seen of the answer. Text beyond what is kept
// is taken for as dense as the text that is.
func (x *exchange) completionSeen() int64 {
	seen := tokens.Output{Op: x.operation.tokens, Text: string(x.answer.Text)}
	for _, call := range x.answer.ToolCalls {
		seen.Calls = append(seen.Calls, tokens.ToolCall{Name: call.Name, Arguments: call.Arguments})
	}
	n := tokens.Completion(x.target.Model, seen)
	if kept := int64(len(x.answer.Text)); kept > 0 && x.answer.TextBytes > kept {
		n = n/kept*x.answer.TextBytes + n%kept*x.answer.TextBytes/kept + 1
	}
	return n
}

// promptOnly charges the prompt: Azure evaluated it and then refused.
func (x *exchange) promptOnly(r *usage.Record, outcome usage.Outcome) {
	switch {
	case x.operation.media() && !(x.operation.name == opImages && x.entry.SellsTokens()):
		x.notBilled(r, outcome) // what is sold is the answer
		return
	case x.operation.media():
		prompt, _, _ := x.mediaDemand(true)
		r.Outcome, r.UsageSource = usage.Text(outcome), usage.Text(usage.SourceEstimate)
		u := usage.Usage{Prompt: usage.Of(prompt), Completion: usage.Of(0)}
		r.SetUsage(u)
		_ = x.priceOrHold(r, u, nil)
		return
	}
	x.tokenized(r, outcome)
	if x.asked.needsContext { // it evaluated what we cannot see
		r.PromptTokens, r.UsageSource = usage.Of(x.promptTokens), usage.Text(usage.SourceEstimate)
	}
	r.PromptTokens.N = x.withinContext(r.PromptTokens.N)
	if r.CompletionTokens.Known {
		u := usage.Usage{Prompt: r.PromptTokens, Completion: usage.Of(0)}
		r.SetUsage(u)
		_ = x.priceOrHold(r, u, nil)
	}
}

// priceOrHold charges usage, or, if that has no price, the hold.
func (x *exchange) priceOrHold(r *usage.Record, u usage.Usage, items []usage.Item) error {
	err := x.priceUsage(r, u, items)
	if err != nil {
		x.handler.options.Log.Error("usage cannot be priced; the hold is charged", "product_id", x.product.ID, "record", r.ID, "price_key", string(r.PriceKey), "error", err)
		x.estimateHold(r, usage.Outcome(r.Outcome))
	}
	return err
}

// priceUsage turns usage, and what is sold by the piece, into the record's charge.
func (x *exchange) priceUsage(r *usage.Record, u usage.Usage, items []usage.Item) error {
	entry, known := x.billing()
	if known && x.upstream != nil {
		x.handler.served.note(x, &entry)
	}
	r.PriceKey, r.Items = usage.Text(entry.Key), items
	sold := u
	if pricing.Provisioned(x.servedSKU()) && !x.chargedBack { // its tokens are paid by the hour; the calls of tools are not
		r.PriceKey, sold = usage.Text(pricing.HourlyKey(x.target.Model, x.target.SKU)), usage.Usage{}
	}
	cost, err := entry.Charge(sold, items, string(r.ServiceTier))
	if err != nil {
		return err
	}
	if !known && int64(cost.Charged) < r.HoldNanoUSD.N { // nobody says what this model costs: not less than was held
		held := money.Nano(r.HoldNanoUSD.N)
		cost = pricing.Cost{List: max(cost.List, held), Charged: held}
	}
	r.CostNanoUSD, r.ListCostNanoUSD = usage.Of(int64(cost.Charged)), usage.Of(int64(cost.List))
	r.Charge = r.CostNanoUSD
	if x.product.Unit == quota.UnitTokens {
		r.Charge = usage.Of(u.Total())
		if u.Total() == 0 && cost.Charged > 0 { // sold by the piece, which no budget of tokens has a measure for
			r.Charge, r.UsageSource = usage.Of(x.hold.Amount), usage.Text(usage.SourceEstimate)
		}
	}
	return nil
}

// countFrom is how large a body is whose prompt is counted, not bounded by its
// bytes, before its hold is charged.
const countFrom = 64 << 10

// estimateHold charges what was held: nothing better is known but how long a
// large prompt is.
func (x *exchange) estimateHold(r *usage.Record, outcome usage.Outcome) {
	r.Outcome, r.UsageSource = usage.Text(outcome), usage.Text(usage.SourceEstimate)
	if x.upstream != nil && pricing.Provisioned(x.servedSKU()) && !x.chargedBack && x.product.Unit == quota.UnitUSD {
		r.PriceKey = usage.Text(pricing.HourlyKey(x.target.Model, x.target.SKU))
		r.Charge, r.CostNanoUSD, r.ListCostNanoUSD = usage.Of(0), usage.Of(0), usage.Of(0)
		return
	}
	r.Charge, r.CostNanoUSD, r.ListCostNanoUSD = usage.Of(x.hold.Amount), r.HoldNanoUSD, r.HoldNanoUSD
	if x.counted || len(x.asked.body) < countFrom {
		return
	}
	limit := x.limit
	if x.usual > 0 {
		limit = x.usual
	}
	counted := min(x.promptTokens, x.promptCounted())
	if most, err := x.worth(counted, limit); err == nil && most < x.hold.Amount {
		r.Charge = usage.Of(most)
		if cost := x.holdNanoUSD(most); cost.Known {
			r.CostNanoUSD, r.ListCostNanoUSD = cost, cost
		}
	}
}

// notBilled charges nothing: Azure does not bill such an answer.
func (x *exchange) notBilled(r *usage.Record, outcome usage.Outcome) {
	r.Outcome, r.UsageSource = usage.Text(outcome), usage.Text(usage.SourceNone)
	r.Charge, r.CostNanoUSD, r.ListCostNanoUSD = usage.Of(0), usage.Of(0), usage.Of(0)
}

// settle closes the books of the exchange. If the store does not answer in time
// the settlement goes on in the background, and the client is served.
func (x *exchange) settle(ctx context.Context, r usage.Record) {
	if x.gone.Load() && r.Outcome == usage.Text(usage.OutcomeCompleted) {
		r.Outcome = usage.Text(usage.OutcomeClientGone)
	}
	s := ledger.Settlement{Record: r}
	if x.operation.name == "responses" && x.asked.store && x.upstream != nil && x.upstream.StatusCode == http.StatusOK &&
		strings.TrimSpace(x.answer.ResponseID) != "" {
		s.StoredResponse, s.StoredTokens, s.StoredModel = x.answer.ResponseID, x.answer.Usage.Total(), clip(x.model(), nameBytesMax)
	}
	x.settled, x.charged = true, r
	account, err := x.handler.options.Ledger.Settle(ctx, x.hold, s)
	if err != nil {
		x.handler.options.Log.Error("settlement goes on in the background", "product_id", x.product.ID, "record", r.ID, "error", err)
		return
	}
	x.account = account
}
