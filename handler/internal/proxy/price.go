package proxy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
)

// defaultSKU is what a deployment is taken for that DEPLOYMENTS does not list.
const defaultSKU = "GlobalStandard"

// price finds what the request will be charged by, and refuses a model that the
// product may not use or that has no price.
func (x *exchange) price() *failure {
	name := x.deployment
	if name == "" { // on the v1 routes the model is the deployment's name
		name = x.asked.model
	}
	if name == "" {
		return badRequest("missing_model", "model", "Name the deployment in \"model\".")
	}
	x.deployment = clip(name, segmentBytesMax)
	x.target, x.listed = x.handler.deployment(name)
	if model, _ := pricing.NormalizeModel(x.target.Model); len(x.product.Models) > 0 &&
		!slices.ContainsFunc(x.product.Models, func(allowed string) bool {
			other, _ := pricing.NormalizeModel(allowed)
			return other == model || strings.EqualFold(allowed, x.target.Model)
		}) {
		return forbidden("model_not_allowed", "This product may not use the model "+strconv.Quote(clip(x.target.Model, segmentBytesMax))+".")
	}
	if failed := x.findEntry(); failed != nil {
		return failed
	}
	if x.product.Unit == quota.UnitTokens && x.operation.media() && !x.entry.SellsTokens() {
		return forbidden("operation_not_priced", "The budget of this product counts tokens, and "+
			strconv.Quote(clip(x.target.Model, segmentBytesMax))+" is not sold by tokens.")
	}
	return x.callsPriced()
}

func (x *exchange) findEntry() *failure {
	entry, found := x.lookup(x.target)
	if !found && x.product.UnknownPrice == quota.UnknownMax {
		entry, found = x.handler.options.Book.Dearest(x.operation.mode, x.priced)
		x.guessed = found
	}
	if !found {
		place := ""
		if x.target.Region != "" {
			place = " in " + x.target.Region
		}
		return forbidden("model_not_priced", fmt.Sprintf("The price book has no price for the deployment %q: model %q, version %q, %s%s, %s. "+
			"An operator can say in DEPLOYMENTS what it is, or add a price in PRICES_FILE.",
			x.deployment, clip(x.target.Model, segmentBytesMax), x.target.Version, x.target.SKU, place, x.operation.mode))
	}
	x.entry = x.marked(entry)
	x.tier = x.asked.tier
	if x.chargedBack { // it may spill over to what has another price
		spilled := x.target
		spilled.SKU = pricing.SpilloverSKU(spilled.SKU)
		if entry, found = x.lookup(spilled); found {
			x.also = append(x.also, x.marked(entry))
		}
	}
	x.expect()
	return nil
}

// marked is a price with the product's own multiplier.
func (x *exchange) marked(e pricing.Entry) pricing.Entry {
	if x.product.MultiplierPPM > 0 && x.product.MultiplierPPM != money.PPM {
		return e.WithMarkup(x.product.MultiplierPPM)
	}
	return e
}

// deployment is what is known of a deployment. The name of one that DEPLOYMENTS
// does not list is read as a model's.
func (h *Handler) deployment(name string) (d pricing.Deployment, listed bool) {
	if d, listed = h.options.Deployments[strings.ToLower(name)]; !listed {
		d = pricing.Deployment{Model: name, SKU: defaultSKU}
	}
	return d, listed
}

// lookup finds a price. A deployment that is paid by the hour has the price of
// what serves its overflow, if the operator gave it none of its own.
func (x *exchange) lookup(d pricing.Deployment) (pricing.Entry, bool) {
	book := x.handler.options.Book
	q := pricing.Query{
		Model: d.Model, Version: d.Version, SKU: d.SKU, Region: d.Region, Mode: x.operation.mode, At: x.priced,
		Quality: x.asked.media.quality, Size: x.asked.media.size,
	}
	if x.answer.Quality != "" { // what became of "auto"
		q.Quality = x.answer.Quality
	}
	if x.answer.Size != "" {
		q.Size = x.answer.Size
	}
	if !pricing.Provisioned(d.SKU) {
		return book.Lookup(q)
	}
	if entry, ok := book.LookupProvisioned(q); ok {
		x.chargedBack = true
		return entry, true
	}
	entry, borrowed, ok := book.LookupOverflow(q)
	x.borrowed = borrowed
	return entry, ok
}

// servedSKU is the type of the deployment that answered: provisioned capacity
// that is used up passes requests on to one that is paid by use.
func (x *exchange) servedSKU() string {
	if x.upstream == nil || !pricing.Provisioned(x.target.SKU) {
		return x.target.SKU
	}
	h := x.upstream.Header
	if strings.EqualFold(h.Get("X-Ms-Is-Spilled-Over"), "true") || h.Get("X-Ms-Spillover-From-Deployment") != "" {
		return pricing.SpilloverSKU(x.target.SKU)
	}
	return x.target.SKU
}

// servedModel is the model that answered, as upstream names it; empty if it does
// not. Responses name the deployment, which says nothing.
func (x *exchange) servedModel() string {
	if x.upstream != nil {
		if model := x.upstream.Header.Get("X-Ms-Served-Model"); model != "" {
			return model
		}
	}
	if x.listed && strings.EqualFold(x.answer.Model, x.deployment) {
		return ""
	}
	return x.answer.Model
}

// billing is the price of the answer: that of the deployment, whose version the
// answer tells if DEPLOYMENTS does not; of another model, if one answered that
// has a price (a model router does that). known is false if nobody says what the
// model that answered costs.
func (x *exchange) billing() (entry pricing.Entry, known bool) {
	d := x.target
	d.SKU = x.servedSKU()
	served := x.servedModel()
	mine, _ := pricing.NormalizeModel(d.Model)
	other, version := pricing.NormalizeModel(served)
	switch {
	case served == "" || other == mine:
		if d.Version == "" {
			d.Version = version
		} else if version != "" && !strings.EqualFold(version, d.Version) {
			x.handler.served.mismatch(x, served)
		}
		if entry, known = x.lookup(d); !known && d.Version != x.target.Version {
			d.Version = x.target.Version
			entry, known = x.lookup(d)
		}
		if known {
			break
		}
		if !pricing.Provisioned(d.SKU) && x.borrowed { // the overflow of provisioned capacity, whose price nobody gave
			return x.entry, false
		}
		return x.entry, !x.guessed
	default:
		d.Model, d.Version = served, ""
		if entry, known = x.lookup(d); x.listed && (!known || entry.Key != x.entry.Key) {
			x.handler.served.mismatch(x, served)
		}
		if !known {
			return x.entry, x.listed && !x.guessed // the operator's word
		}
	}
	return x.marked(entry), true
}
