package admin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// product makes a new product of a Create.
func (c *change) product(id string, key quota.Key, now time.Time) (*quota.Product, error) {
	switch {
	case c.name == nil:
		return nil, invalid("productName", "A new product needs \"productName\".")
	case c.amount == nil:
		return nil, invalid("amount", "A new product needs \"amount\", its budget for each period.")
	}
	p := &quota.Product{
		ID: id, Name: *c.name, Keys: []quota.Key{key}, Unit: quota.UnitUSD, CreatedAt: now.UTC(),
		Period: quota.PeriodMonth, TimeZone: "UTC", Enforcement: quota.EnforceHard, Durability: quota.DurabilityStrict,
		Disconnect: quota.DisconnectDrain, UnknownPrice: quota.UnknownReject, BudgetName: *c.name,
		BudgetAlerts: []quota.AlertStep{{AtPPM: money.PPM, Do: "stop"}}, NotifyAtPPM: []int64{500_000, 800_000, 900_000, money.PPM},
	}
	if c.limitOnCost != nil && !*c.limitOnCost {
		p.Unit = quota.UnitTokens
	}
	amount, failed := amountIn("amount", *c.amount, p.Unit)
	if failed != nil {
		return nil, failed
	}
	p.Budget, p.Created = amount, amount
	set(&p.Period, c.period)
	set(&p.TimeZone, c.timeZone)
	c.settings(p)
	return p, nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// settings sets what has no other consequence.
func (c *change) settings(p *quota.Product) {
	set(&p.Enforcement, c.enforcement)
	set(&p.Durability, c.durability)
	set(&p.Models, c.models)
	set(&p.MaxOutputTokens, c.maxOutputTokens)
	set(&p.Disconnect, c.disconnect)
	set(&p.UnknownPrice, c.unknownPrice)
	set(&p.MultiplierPPM, c.multiplierPPM)
	set(&p.BudgetName, c.budgetName)
	set(&p.RequestsPerMinute, c.requestsPerMinute)
	set(&p.TokensPerMinute, c.tokensPerMinute)
	set(&p.MaxParallel, c.maxParallel)
	set(&p.BudgetAlerts, c.budgetAlerts)
	set(&p.NotifyAtPPM, c.notifyAt)
	if c.tags != nil {
		p.Tags = maps.Clone(*c.tags)
	}
}

// apply changes a product that exists.
func (c *change) apply(d *ledger.Draft, now time.Time) error {
	p := d.Product
	if c.limitOnCost != nil && *c.limitOnCost != (p.Unit == quota.UnitUSD) {
		return conflict("rateLimitOnCost", "A product counts in dollars or in tokens for good. Create another product.")
	}
	if c.amount != nil {
		amount, failed := amountIn("amount", *c.amount, p.Unit)
		if failed != nil {
			return failed
		}
		p.Budget, d.Account.Budget = amount, amount
	}
	set(&p.Name, c.name)
	c.settings(p)
	if failed := c.applyPeriod(d); failed != nil {
		return failed
	}
	changed, failed := c.applyKeys(d, now)
	if failed != nil {
		return failed
	}
	c.applyState(d, now)
	if failed := c.applyDeposit(d); failed != nil {
		return failed
	}
	c.noteConfig(d, changed)
	return nil
}

// noteConfig adds a record of the fields that were named, unless others tell of
// all of them. changed has what there is to say of some.
func (c *change) noteConfig(d *ledger.Draft, changed map[string]any) {
	for _, field := range c.named {
		switch field {
		case "state", "deposit", "subscriptionKey":
		case "amount":
			changed[field] = amountText(d.Product.Budget, d.Product.Unit)
		default:
			if _, said := changed[field]; !said {
				changed[field] = true
			}
		}
	}
	if len(changed) > 0 {
		c.by.note(d, usage.KindConfig, usage.Count{}, map[string]any{"changed": changed})
	} else if len(d.Records) == 0 { // an edit that changed nothing is in the history all the same
		c.by.note(d, usage.KindConfig, usage.Count{}, nil)
	}
}

// applyPeriod: a change counts from the next period.
func (c *change) applyPeriod(d *ledger.Draft) error {
	p := d.Product
	kind, zone := p.Period, p.TimeZone
	set(&kind, c.period)
	set(&zone, c.timeZone)
	if c.period == nil && c.timeZone == nil {
		return nil
	}
	if kind == p.Period && zone == p.TimeZone {
		p.NextPeriod = nil
		return nil
	}
	if !d.PeriodUntil.IsZero() {
		return conflict("period", "The last change of period has just come. The next one may be asked for from %s on.", d.PeriodUntil.UTC().Format(time.RFC3339))
	}
	if d.Account.End.IsZero() {
		return conflict("period", "The period \"total\" never ends, so no other can follow it. Create another product.")
	}
	p.NextPeriod = &quota.PeriodChange{From: d.Account.End, Period: kind, TimeZone: zone}
	return nil
}

// applyKeys also tells the ids of the keys that it adds and revokes.
func (c *change) applyKeys(d *ledger.Draft, now time.Time) (changed map[string]any, err error) {
	p := d.Product
	changed = map[string]any{}
	if c.revokeKey != nil {
		hash := quota.HashKey(*c.revokeKey)
		i := slices.IndexFunc(p.Keys, func(k quota.Key) bool { return k.Hash == hash || k.ID == *c.revokeKey })
		if i < 0 {
			return nil, invalid("revokeKey", "The product has no such key. Its keys are %s.", strings.Join(keyIDs(p), ", "))
		}
		d.RevokeKey, changed["revokeKey"] = p.Keys[i].Hash, p.Keys[i].ID
		p.Keys = slices.Delete(p.Keys, i, i+1)
	}
	if c.addKey != nil {
		key := keyOf(*c.addKey, now)
		changed["addKey"] = key.ID
		if _, has := p.KeyByHash(key.Hash); has {
			return changed, nil
		}
		if len(p.Keys) >= ledger.KeysPerProductMax {
			return nil, conflict("addKey", "The product has %d keys, the most that it can have. Revoke one first.", ledger.KeysPerProductMax)
		}
		p.Keys = append(p.Keys, key)
		d.AddKey = key.Hash
	}
	return changed, nil
}

func keyIDs(p *quota.Product) []string {
	ids := make([]string, len(p.Keys))
	for i, k := range p.Keys {
		ids[i] = k.ID
	}
	return ids
}

// applyState stops the product until an operator lifts it, which also outlasts
// the stop of a budget alert, or lifts stop and throttle.
func (c *change) applyState(d *ledger.Draft, now time.Time) {
	if c.state == nil {
		return
	}
	p := d.Product
	if *c.state == "open" {
		if stopped, throttled := p.Lift(now); stopped || throttled {
			c.by.note(d, usage.KindLift, usage.Count{}, map[string]any{"stop": stopped, "throttle": throttled})
		}
		return
	}
	if stop, stopped := p.Stopped(now); !stopped || !stop.Until.IsZero() {
		p.Stop = &quota.Stop{Reason: "an operator stopped it", By: c.by.who, Since: now.UTC()}
		c.by.note(d, usage.KindStop, usage.Count{}, nil)
	}
}

// applyDeposit adds to the running period's budget only.
func (c *change) applyDeposit(d *ledger.Draft) error {
	if c.deposit == nil {
		return nil
	}
	amount, failed := amountIn("deposit", *c.deposit, d.Product.Unit)
	if failed != nil {
		return failed
	}
	if amount == 0 {
		return invalid("deposit", "\"deposit\" must be above 0.")
	}
	if d.Account.Budget > (1<<63-1)-amount {
		return invalid("deposit", "%v", fmt.Sprintf("\"deposit\" would take the budget out of range: %v.", money.ErrRange))
	}
	d.Account.Budget += amount
	c.by.note(d, usage.KindDeposit, usage.Of(-amount), nil)
	return nil
}
