package proxy

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/tokens"
	"github.com/costgate/costgate/handler/internal/usage"
)

const (
	// nearShare: a prompt is counted exactly, not bounded by its bytes, when
	// its hold would take more than this share of what is available.
	nearShare = 20
	// outputMin is the shortest answer worth starting, in tokens. (16 is the
	// least that the Responses API accepts as a limit.)
	outputMin = 16
	// legacyOutput is the output limit of legacy completions without one.
	legacyOutput = 16
)

// outputBound is how much the model may answer: the client's limit, lowered to
// the product's, else the product's, else the model's. natural is what the model
// does without being told.
func (x *exchange) outputBound() (limit, natural int64) {
	natural = x.entry.MaxOut
	if natural <= 0 {
		natural = x.entry.CtxIn
	}
	if natural <= 0 { // what nobody knows is believed, or put in
		natural = math.MaxInt64
	}
	switch {
	case x.fixed():
		return 0, 0
	case x.asked.limit > 0:
		limit = min(x.asked.limit, natural)
	case x.operation.name == "completions":
		limit, natural = min(natural, legacyOutput), legacyOutput
	case natural == math.MaxInt64:
		limit = outputWhenUnknown
	default:
		limit = natural
	}
	if most := x.product.MaxOutputTokens; most > 0 {
		limit = min(limit, most)
	}
	return limit, natural
}

// fixed tells that the length of the answer is not for the client to limit.
func (x *exchange) fixed() bool {
	return x.operation.mode == pricing.ModeEmbedding || x.operation.media()
}

// reserve takes the hold. First the prompt is bounded by its bytes, which is
// cheap; only where that matters it is counted.
func (x *exchange) reserve(ctx context.Context) *failure {
	x.limit, x.natural = x.outputBound()
	x.items = x.asked.calls(x.operation)
	prompt, failed := x.promptBound(ctx)
	if failed == nil {
		failed = x.admit(prompt)
	}
	if failed != nil {
		return failed
	}
	if x.product.Enforcement == quota.EnforceSoft {
		x.usual = x.handler.learned.usual(x.learnedKey(), x.limit)
	} else if x.nearLimit(ctx, prompt) {
		prompt = min(prompt, x.promptCounted())
	}
	err := x.tryReserve(ctx, prompt)
	if refusal := (*ledger.Refusal)(nil); errors.As(err, &refusal) && refusal.Reason != ledger.ReasonStopped && !x.counted {
		if exact := x.promptCounted(); exact < prompt {
			err = x.tryReserve(ctx, exact)
		}
	}
	refusal := (*ledger.Refusal)(nil)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return refusedFor(refusal)
	case ctx.Err() != nil:
		return &failure{status: statusClientClosed, kind: "server_error", code: "client_closed_request", message: "The client is gone."}
	case errors.Is(err, money.ErrRange):
		return badRequest("invalid_value", "", "The request could cost more than any budget.")
	}
	x.handler.options.Log.Error("hold could not be taken", "product_id", x.product.ID, "error", err)
	return unavailable()
}

// statusClientClosed is what nginx logs for a client that left; nobody reads it.
const statusClientClosed = 499

// promptBound is the most tokens that the prompt can have. Parts that are not
// in the body can fill the model's context.
func (x *exchange) promptBound(ctx context.Context) (int64, *failure) {
	if x.operation.media() {
		var prompt int64
		prompt, x.output, x.items = x.mediaDemand(false)
		return prompt, nil
	}
	bound := x.withinContext(tokens.BoundBytes(x.operation.tokens, x.target.Model, x.asked.body))
	if tokens.HidesInput(x.operation.tokens, x.asked.body, "previous_response_id") {
		x.asked.needsContext = true
	}
	if id := x.asked.previous; id != "" {
		earlier, owned, err := x.handler.storedResponse(ctx, x.product, id)
		switch {
		case err != nil:
			x.handler.options.Log.Error("owner of a stored response could not be looked up", "error", err)
			return 0, unavailable()
		case !owned:
			return 0, noSuchResponse(404, "previous_response_id")
		}
		x.earlier = earlier.Tokens
		bound += x.earlier
		if x.earlier == 0 || earlier.Model != x.model() { // other models count images otherwise
			x.asked.needsContext = true
		}
	}
	if x.asked.needsContext {
		bound = max(bound, x.contextWindow())
		x.counted = true // counting the body would not help
	}
	return bound, nil
}

func (x *exchange) contextWindow() int64 {
	if x.entry.CtxIn > 0 {
		return x.entry.CtxIn
	}
	return contextWhenUnknown
}

// withinContext caps a bound at what the model can read. A version of it may
// read more than the price book knows.
func (x *exchange) withinContext(prompt int64) int64 {
	if x.entry.CtxIn > 0 {
		return min(prompt, max(x.entry.CtxIn, contextLeast))
	}
	return prompt
}

// model is the deployment's model without its version.
func (x *exchange) model() string {
	model, _ := pricing.NormalizeModel(x.target.Model)
	return model
}

func (x *exchange) promptCounted() int64 {
	x.counted = true
	if x.operation.media() {
		prompt, _, _ := x.mediaDemand(true)
		return prompt
	}
	bound := tokens.BoundBytes
	if len(x.asked.body) <= CountBytesMax {
		bound = tokens.BoundExact
	}
	return x.withinContext(bound(x.operation.tokens, x.target.Model, x.asked.body)) + x.earlier
}

// nearLimit tells whether the hold by bytes is a noticeable part of what is
// available.
func (x *exchange) nearLimit(ctx context.Context, prompt int64) bool {
	if x.counted {
		return false
	}
	available, known := x.handler.options.Ledger.Headroom(x.product)
	if !known {
		ctx, cancel := context.WithTimeout(ctx, lookupMax)
		defer cancel()
		account, err := x.handler.options.Ledger.Balance(ctx, x.product)
		if err != nil {
			return false // the reserve will tell
		}
		available = account.Budget - account.Spent - account.Held
	}
	most, err := x.worth(prompt, x.limit)
	return err == nil && most > available/nearShare
}

// worth is the hold for a prompt and an answer of so many tokens for each
// choice, in the product's unit.
func (x *exchange) worth(prompt, output int64) (int64, error) {
	if output *= x.asked.choices * x.asked.prompts; x.operation.media() {
		output = x.output
	}
	if x.product.Unit == quota.UnitTokens {
		return prompt + output, nil
	}
	bound, err := x.entry.Bound(prompt, output, x.items, x.tier)
	for i := range x.also {
		if err != nil {
			break
		}
		var other money.Nano
		other, err = x.also[i].Bound(prompt, output, x.items, x.tier)
		bound = max(bound, other)
	}
	return int64(bound), err
}

func (x *exchange) tryReserve(ctx context.Context, prompt int64) error {
	limit := x.limit
	if x.usual > 0 {
		limit = x.usual
	}
	most, err := x.worth(prompt, limit)
	if err != nil {
		return err
	}
	least := most
	if x.clampable() {
		if least, err = x.worth(prompt, min(outputMin, limit)); err != nil {
			return err
		}
	}
	x.promptTokens = prompt
	x.hold, err = x.handler.options.Ledger.Reserve(ctx, ledger.Reservation{
		Product: x.product, Min: least, Max: most, Record: x.intent(), HoldNanoUSD: x.holdNanoUSD,
	})
	return err
}

// clampable: the client leaves the length of the answer to us.
func (x *exchange) clampable() bool {
	return x.asked.limit == 0 && !x.fixed() && x.operation.name != "completions" && !x.asked.empty
}

func (x *exchange) holdNanoUSD(granted int64) usage.Count {
	if x.product.Unit == quota.UnitUSD {
		return usage.Of(granted)
	}
	bound, err := x.entry.Bound(x.promptTokens, max(0, granted-x.promptTokens), x.items, x.tier)
	if err != nil {
		return usage.Count{}
	}
	return usage.Of(int64(bound))
}

// limitEdits write the output limit into the body: the product's cap on a
// larger one of the client's, or, where the client names none, what the hold
// pays for.
func (x *exchange) limitEdits() []edit {
	return append(x.outputEdits(), x.callEdits()...)
}

// callEdits limit the calls of tools to what is held for, on the routes that know
// how.
func (x *exchange) callEdits() []edit {
	if x.operation.name != "responses" || len(x.items) == 0 || x.asked.toolCallsMax > 0 || x.apiVersion != "" || x.product.Enforcement == quota.EnforceSoft {
		return nil
	}
	return []edit{x.asked.member("max_tool_calls", strconv.Itoa(toolCallsHeld))}
}

func (x *exchange) outputEdits() []edit {
	if x.asked.limit > 0 {
		if x.limit < x.asked.limit && x.product.MaxOutputTokens > 0 {
			return []edit{{x.asked.limitValue.Start, x.asked.limitValue.End, strconv.FormatInt(x.limit, 10)}}
		}
		return nil
	}
	if x.asked.empty || x.fixed() {
		return nil
	}
	limit := x.limit
	if x.clampable() && x.product.Enforcement != quota.EnforceSoft {
		each := x.asked.choices * x.asked.prompts
		if x.product.Unit == quota.UnitTokens {
			limit = min(limit, (x.hold.Amount-x.promptTokens)/each)
		} else {
			limit = min(limit, x.entry.OutputWithin(money.Nano(x.hold.Amount), x.promptTokens, x.items, x.tier)/each)
			for i := range x.also {
				limit = min(limit, x.also[i].OutputWithin(money.Nano(x.hold.Amount), x.promptTokens, x.items, x.tier)/each)
			}
		}
		limit = max(limit, 1)
	}
	if limit >= x.natural {
		return nil
	}
	return []edit{x.asked.member(x.limitField(), strconv.FormatInt(limit, 10))}
}

// limitField is the name of the output limit that the model and the API version
// understand: reasoning models refuse max_tokens, older models and versions
// know nothing else.
func (x *exchange) limitField() string {
	switch {
	case x.operation.name == "responses":
		return "max_output_tokens"
	case x.operation.name == "completions", x.asked.dataSources: // requests with data sources know nothing newer
		return "max_tokens"
	}
	model, _ := pricing.NormalizeModel(x.target.Model)
	for _, older := range []string{"gpt-3.5", "gpt-35", "gpt-4-", "gpt-4o-audio"} {
		if strings.HasPrefix(model, older) || model == "gpt-4" {
			return "max_tokens"
		}
	}
	if x.apiVersion != "" && x.apiVersion < "2024-09-01" && !strings.HasPrefix(model, "o") && !strings.HasPrefix(model, "gpt-5") {
		return "max_tokens"
	}
	return "max_completion_tokens"
}
