package service

import (
	"context"
	"errors"
	"net/http"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// The meters of a call.
const (
	MeterCall = "service_call"
	MeterKB   = "service_kb" // 1,024 bytes, begun, of the bodies of request and answer together
)

// intent is what is known of a call before it is sent: the record, if this
// process dies.
func (x *exchange) intent() usage.Record {
	return usage.Record{
		KeyID: usage.Text(x.key.ID), RequestID: usage.Text(x.requestID), Operation: "service", Deployment: usage.Text(x.entry.Name),
		PriceKey: usage.Text("service/" + x.entry.Name), PriceBook: usage.Text(x.handler.options.Services.Version), Attempts: usage.Of(1),
	}
}

// whole is the record of an answer that arrived to its end. Whatever it says, the
// call was made, and costs its price.
func (x *exchange) whole() usage.Record {
	outcome := usage.OutcomeCompleted
	if x.answer.StatusCode >= http.StatusBadRequest {
		outcome = usage.OutcomeUpstreamError
	}
	return x.record(outcome, usage.SourceTokenizer) // all was seen, and counted here
}

// broken is the record of a call whose answer did not come, or not to its end.
func (x *exchange) broken(ctx context.Context) usage.Record {
	outcome := usage.OutcomeUpstreamError
	switch {
	case x.cut:
	case x.overdue.Load() || errors.Is(ctx.Err(), context.DeadlineExceeded):
		outcome = usage.OutcomeTimeout
	case ctx.Err() != nil:
		outcome = usage.OutcomeClientGone
	}
	return x.record(outcome, usage.SourceEstimate)
}

func (x *exchange) record(outcome usage.Outcome, source usage.Source) usage.Record {
	r, now := x.hold.Record, x.handler.options.Now()
	r.Outcome, r.UsageSource = usage.Text(outcome), usage.Text(source)
	r.LatencyMS = usage.Of(now.Sub(x.began).Milliseconds())
	if !x.firstByte.IsZero() {
		r.FirstByteMS = usage.Of(x.firstByte.Sub(x.began).Milliseconds())
	}
	moved := int64(len(x.body)) + x.answered
	r.Items = []usage.Item{{Meter: MeterCall, Quantity: 1}, {Meter: MeterKB, Quantity: kb(moved)}}
	list, cost, charge := x.price(moved)
	r.ListCostNanoUSD, r.CostNanoUSD, r.Charge = usage.Of(int64(list)), usage.Of(int64(cost)), usage.Of(charge)
	if x.answer == nil {
		return r
	}
	stream := proxy.IsStream(x.answer.Header)
	r.Stream, r.Status = &stream, usage.Of(int64(x.answer.StatusCode))
	for _, name := range []string{"Apim-Request-Id", "X-Request-Id", "X-Ms-Request-Id"} {
		if id := x.answer.Header.Get(name); id != "" {
			r.UpstreamRequestID = usage.Text(proxy.Clip(id, nameBytesMax))
			break
		}
	}
	return r
}

// price is what a call costs that moved so many bytes, and what the budget loses:
// one of tokens nothing.
func (x *exchange) price(moved int64) (list, cost money.Nano, charge int64) {
	list, cost, err := x.entry.cost(moved, x.product.MultiplierPPM)
	if err != nil { // the hold, which covers it, could be computed
		list, cost = money.Nano(x.hold.Record.HoldNanoUSD.N), money.Nano(x.hold.Record.HoldNanoUSD.N)
	}
	if x.product.Unit == quota.UnitTokens {
		return list, cost, 0
	}
	return list, cost, int64(cost)
}

// settle closes the books of the call. If the store does not answer in time the
// settlement goes on in the background, and the client is served.
func (x *exchange) settle(ctx context.Context, r usage.Record) {
	if x.gone.Load() && r.Outcome == usage.Text(usage.OutcomeCompleted) {
		r.Outcome = usage.Text(usage.OutcomeClientGone)
	}
	x.charged = r
	account, err := x.handler.options.Ledger.Settle(ctx, x.hold, ledger.Settlement{Record: r})
	if err != nil {
		x.handler.options.Log.Error("settlement goes on in the background", "product_id", x.product.ID, "record", r.ID, "error", err)
	}
	x.account = account
	x.ticket.End(0)
}
