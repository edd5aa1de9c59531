package export

import (
	"fmt"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/usage"
)

// FOCUSVersion is the version of the FinOps Open Cost and Usage Specification
// whose dataset Cost and Usage is written.
const FOCUSVersion = "1.2"

// charge is a row of FOCUS.
type charge struct {
	*record
	meter
	writeOff bool      // no usage: money that may have been spent
	account  [2]string // id and name
}

// focusColumns are those of FOCUS, then those of our own, each in the order of
// their names. The columns that are mandatory are all there, and of the
// conditional ones those whose condition a gateway meets: see docs/LAKE.md.
var focusColumns = []column[charge]{
	{field{name: "BilledCost", kind: decimal9, required: true}, func(c *charge) value { return num(int64(c.cost)) }},
	{field{name: "BillingAccountId", required: true}, func(c *charge) value { return str(c.account[0]) }},
	{field{name: "BillingAccountName"}, func(c *charge) value { return str(c.account[1]) }},
	{field{name: "BillingCurrency", required: true}, constant("USD")},
	{field{name: "BillingPeriodEnd", kind: second, required: true}, func(c *charge) value { return at(month(c.Time).AddDate(0, 1, 0)) }},
	{field{name: "BillingPeriodStart", kind: second, required: true}, func(c *charge) value { return at(month(c.Time)) }},
	{field{name: "ChargeCategory", required: true}, func(c *charge) value { return c.or("Usage", "Adjustment") }},
	{field{name: "ChargeClass"}, constant("")},
	{field{name: "ChargeDescription"}, func(c *charge) value { return str(c.description()) }},
	{field{name: "ChargeFrequency", required: true}, func(c *charge) value { return c.or("Usage-Based", "One-Time") }},
	{field{name: "ChargePeriodEnd", kind: second, required: true}, func(c *charge) value { return at(hour(c.Time).Add(time.Hour)) }},
	{field{name: "ChargePeriodStart", kind: second, required: true}, func(c *charge) value { return at(hour(c.Time)) }},
	{field{name: "ConsumedQuantity", kind: decimal3}, func(c *charge) value { return c.used(num(c.n)) }},
	{field{name: "ConsumedUnit"}, func(c *charge) value { return c.used(str(c.unit)) }},
	{field{name: "ContractedCost", kind: decimal9, required: true}, func(c *charge) value { return num(int64(c.cost)) }},
	{field{name: "EffectiveCost", kind: decimal9, required: true}, func(c *charge) value { return num(int64(c.cost)) }},
	{field{name: "InvoiceId"}, constant("")},
	{field{name: "InvoiceIssuerName", required: true}, constant("Microsoft")},
	{field{name: "ListCost", kind: decimal9, required: true}, func(c *charge) value { return num(int64(c.list)) }},
	{field{name: "ListUnitPrice", kind: decimal12}, func(c *charge) value {
		if c.pico == 0 && c.list != 0 {
			return value{}
		}
		return c.used(num(int64(c.pico)))
	}},
	{field{name: "PricingCategory"}, func(c *charge) value { return c.used(str("Standard")) }},
	{field{name: "PricingQuantity", kind: decimal3}, func(c *charge) value { return c.used(num(c.n)) }},
	{field{name: "PricingUnit"}, func(c *charge) value { return c.used(str(c.unit)) }},
	{field{name: "ProviderName", required: true}, constant("Microsoft")},
	{field{name: "PublisherName", required: true}, constant("Microsoft")},
	{field{name: "RegionId"}, func(c *charge) value { return str(c.Region) }},
	{field{name: "RegionName"}, func(c *charge) value { return str(regionName(string(c.Region))) }},
	{field{name: "ResourceId"}, func(c *charge) value { return str(c.Deployment) }},
	{field{name: "ResourceName"}, constant("")},
	{field{name: "ResourceType"}, func(c *charge) value {
		if c.Deployment == "" {
			return value{}
		}
		return str("Model Deployment")
	}},
	{field{name: "ServiceCategory", required: true}, constant("AI and Machine Learning")},
	{field{name: "ServiceName", required: true}, constant("Azure OpenAI")},
	{field{name: "ServiceSubcategory", required: true}, constant("Generative AI")},
	{field{name: "SkuId"}, func(c *charge) value { return c.used(str(c.sku(false))) }},
	{field{name: "SkuMeter"}, func(c *charge) value { return c.used(str(readable(c.meter.name))) }},
	{field{name: "SkuPriceDetails"}, constant("")},
	{field{name: "SkuPriceId"}, func(c *charge) value { return c.used(str(c.sku(true))) }},
	{field{name: "SubAccountId"}, func(c *charge) value { return str(c.ProductID) }},
	{field{name: "SubAccountName"}, func(c *charge) value { return str(c.product()) }},
	{field{name: "Tags"}, func(c *charge) value { return asJSON(c.Tags, c.Tags == nil) }},
	{field{name: "x_BudgetPeriod"}, func(c *charge) value { return str(c.Period) }},
	{field{name: "x_CostNanoUsd", kind: integer, required: true}, func(c *charge) value { return num(int64(c.cost)) }},
	{field{name: "x_KeyId"}, func(c *charge) value { return str(c.KeyID) }},
	{field{name: "x_ListCostNanoUsd", kind: integer, required: true}, func(c *charge) value { return num(int64(c.list)) }},
	{field{name: "x_Meter"}, func(c *charge) value { return str(c.meter.name) }},
	{field{name: "x_Model"}, func(c *charge) value { return str(c.Model) }},
	{field{name: "x_ModelSku"}, func(c *charge) value { return str(c.SKU) }},
	{field{name: "x_Operation"}, func(c *charge) value { return str(c.Operation) }},
	{field{name: "x_Outcome"}, func(c *charge) value { return str(c.Outcome) }},
	{field{name: "x_PriceBook"}, func(c *charge) value { return str(c.PriceBook) }},
	{field{name: "x_PriceKey"}, func(c *charge) value { return str(c.PriceKey) }},
	{field{name: "x_RecordId", required: true, unique: true}, func(c *charge) value { return str(c.ID) }},
	{field{name: "x_RecordKind", required: true}, func(c *charge) value { return str(c.Kind) }},
	{field{name: "x_RecordRevision", kind: integer, required: true}, func(c *charge) value { return num(int64(c.Rev)) }},
	{field{name: "x_RecordTime", kind: instant, required: true}, func(c *charge) value { return num(c.Time.UnixMilli()) }},
	{field{name: "x_ServiceTier"}, func(c *charge) value { return str(c.ServiceTier) }},
	{field{name: "x_UsageSource"}, func(c *charge) value { return str(c.UsageSource) }},
	{field{name: "x_User"}, func(c *charge) value { return str(c.User) }},
}

func constant(s string) func(*charge) value { return func(*charge) value { return str(s) } }

func at(t time.Time) value { return num(t.UnixMilli()) }

// month is the billing period: Azure's, a calendar month in UTC.
func month(t time.Time) time.Time {
	return time.Date(t.UTC().Year(), t.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
}

// hour is the charge period: the hour in which the request was admitted.
func hour(t time.Time) time.Time { return t.UTC().Truncate(time.Hour) }

func (c *charge) or(use, writeOff string) value {
	if c.writeOff {
		return str(writeOff)
	}
	return str(use)
}

// used is null in a row that is no usage.
func (c *charge) used(v value) value {
	if c.writeOff {
		return value{}
	}
	return v
}

func (c *charge) product() string {
	if c.Product == "" {
		return string(c.ProductID)
	}
	return string(c.Product)
}

func (c *charge) description() string {
	if c.writeOff {
		return "Write-off of what a lost process may have spent"
	}
	what := string(c.Model)
	for _, other := range []string{string(c.Deployment), string(c.Operation), string(c.Kind)} {
		if what == "" {
			what = other
		}
	}
	return what + " " + readable(c.meter.name)
}

// sku names what was sold: the price key, which an update may not have, and the
// meter. Without the date of the price it is the same at any price.
func (c *charge) sku(price bool) string {
	key := string(c.PriceKey)
	if key == "" {
		parts := []string{string(c.Model), "", string(c.SKU), string(c.Region)}
		for i, part := range parts {
			if part == "" {
				parts[i] = "*"
			}
		}
		key = strings.Join(parts, "/")
	}
	if at := strings.LastIndexByte(key, '@'); !price && at >= 0 && len(key) > at+len(time.DateOnly) {
		if _, err := time.Parse(time.DateOnly, key[at+1:at+1+len(time.DateOnly)]); err == nil {
			key = key[:at] + key[at+1+len(time.DateOnly):]
		}
	}
	if c.meter.name == "" {
		return key + "#request"
	}
	return key + "#" + c.meter.name
}

// focusRows writes the rows of each record that carries a cost in money: all of
// them, or none if one of them does not fit.
func focusRows(o *Options, out *outputs, report *Report) func(*record) error {
	out.name, out.fields = "focus", fields(focusColumns)
	split := meters{book: o.Prices, found: map[string]*sheet{}}
	var rows [][]value // as many as a record ever had
	return func(r *record) error {
		if !r.Kind.Spends() || !r.CostNanoUSD.Known {
			report.NoMoney++
			return nil
		}
		cost := money.Nano(r.CostNanoUSD.N)
		c := charge{record: r, account: [2]string{o.BillingAccount, o.BillingName}, writeOff: r.Kind == usage.KindWriteOff}
		parts, whole := []meter{{list: cost, cost: cost}}, false
		if !c.writeOff {
			list := cost
			if r.ListCostNanoUSD.Known {
				list = money.Nano(r.ListCostNanoUSD.N)
			}
			parts, whole = split.split(r, list, cost)
		}
		for i := range parts {
			if i == len(rows) {
				rows = append(rows, make([]value, len(focusColumns)))
			}
			c.meter = parts[i]
			if err := cells(rows[i], focusColumns, &c); err != nil {
				return blame(r, err)
			}
			if err := out.fits(rows[i]); err != nil {
				return blame(r, err)
			}
		}
		if whole {
			report.Unsplit++
		}
		for _, row := range rows[:len(parts)] {
			report.Rows++
			if err := out.row(r.Time, row); err != nil {
				return err
			}
		}
		return nil
	}
}

func blame(r *record, err error) error { return fmt.Errorf("record %s: %w", r.ID, err) }
