package export

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The rules of FOCUS 1.2 for the columns of its dataset Cost and Usage, as the
// specification's normative requirements have them (requirements model 1.2.0.1;
// the numbers are those of its rules). Criteria name the conditions under which
// a column has to be there; see docs/LAKE.md for those that a gateway meets.
type focusRule struct {
	column   string
	criteria string // "" mandatory
	format   string // numeric, datetime, string, keyvalue, or allowed values by |
	nulls    bool
}

const (
	always      = ""
	recommended = "recommended"
)

var focusRules = []focusRule{
	{"BilledCost", always, "numeric", false},
	{"BillingAccountId", always, "string", false},
	{"BillingAccountName", always, "string", false}, // ACCOUNT_NAMING_SUPPORTED
	{"BillingCurrency", always, "currency", false},
	{"BillingPeriodEnd", always, "datetime", false},
	{"BillingPeriodStart", always, "datetime", false},
	{"ChargeCategory", always, "Usage|Purchase|Tax|Credit|Adjustment", false},
	{"ChargeClass", always, "Correction", true},
	{"ChargeDescription", always, "string", true},
	{"ChargePeriodEnd", always, "datetime", false},
	{"ChargePeriodStart", always, "datetime", false},
	{"ContractedCost", always, "numeric", false},
	{"EffectiveCost", always, "numeric", false},
	{"InvoiceIssuerName", always, "string", false},
	{"ListCost", always, "numeric", false},
	{"PricingQuantity", always, "numeric", true},
	{"PricingUnit", always, "string", true},
	{"ProviderName", always, "string", false},
	{"PublisherName", always, "string", false},
	{"ServiceCategory", always, "AI and Machine Learning|Analytics|Business Applications|Compute|Databases|Developer Tools|Multicloud|Identity|" +
		"Integration|Internet of Things|Management and Governance|Media|Migration|Mobile|Networking|Security|Storage|Web|Other", false},
	{"ServiceName", always, "string", false},
	{"ChargeFrequency", recommended, "One-Time|Recurring|Usage-Based", false},
	{"InvoiceId", recommended, "string", true},
	{"ServiceSubcategory", recommended, "AI Platforms|Bots|Generative AI|Machine Learning|Natural Language Processing|Other (AI and Machine Learning)", false},
	{"ConsumedQuantity", "USAGE_MEASUREMENT_SUPPORTED", "numeric", true},
	{"ConsumedUnit", "USAGE_MEASUREMENT_SUPPORTED", "string", true},
	{"ListUnitPrice", "PUBLIC_PRICE_LIST_SUPPORTED", "numeric", true},
	{"PricingCategory", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "Standard|Committed|Dynamic|Other", true},
	{"RegionId", "REGION_SUPPORTED", "string", true},
	{"RegionName", "REGION_SUPPORTED", "string", true},
	{"ResourceId", "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED", "string", true},
	{"ResourceName", "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED", "string", true},
	{"ResourceType", "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED", "string", true},
	{"SkuId", "UNIT_PRICING_SUPPORTED", "string", true},
	{"SkuMeter", "UNIT_PRICING_SUPPORTED", "string", true},
	{"SkuPriceDetails", "UNIT_PRICING_SUPPORTED", "keyvalue", true},
	{"SkuPriceId", "UNIT_PRICING_SUPPORTED", "string", true},
	{"SubAccountId", "SUB_ACCOUNT_SUPPORTED", "string", true},
	{"SubAccountName", "SUB_ACCOUNT_SUPPORTED", "string", true},
	{"Tags", "TAGGING_SUPPORTED", "keyvalue", true},
}

var (
	numericFormat  = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)                                    // NumericFormat-A-002 to 011, without exponents
	datetimeFormat = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`) // DateTimeFormat-A-001 to 006
	unitFormat     = regexp.MustCompile(`^(Tokens|Requests|Seconds|[A-Z][a-z]+s)$`)                 // UnitFormat-A-001: plural, capitalised
	columnName     = regexp.MustCompile(`^(x_)?[A-Z][A-Za-z0-9]{0,49}$`)                            // ColumnHandling-A-001 to 005, 010
	skuPrice       = regexp.MustCompile(`^[^#]+#[a-z_]+$`)
)

// checkFocus holds rows against the rules. header is the order of the columns.
func checkFocus(t *testing.T, header []string, rows []map[string]string) {
	t.Helper()
	custom := false
	for _, name := range header {
		own := strings.HasPrefix(name, "x_")
		if custom && !own || !columnName.MatchString(name) { // ColumnHandling-A-012 to 014
			t.Errorf("column %s", name)
		}
		custom = custom || own
		if !own && !slices.ContainsFunc(focusRules, func(r focusRule) bool { return r.column == name }) {
			t.Errorf("FOCUS 1.2 has no column %s, or no rule here", name)
		}
	}
	for _, rule := range focusRules {
		if !slices.Contains(header, rule.column) {
			t.Errorf("%s is missing", rule.column)
		}
		for _, row := range rows {
			if why := rule.violated(row[rule.column]); why != "" {
				t.Fatalf("%s of %s is %q: %s", rule.column, row["x_RecordId"], row[rule.column], why)
			}
		}
	}
	parents := map[string]string{}
	for _, row := range rows {
		for name, holds := range rowRules(row) {
			if !holds {
				t.Fatalf("%s does not hold in %v", name, row)
			}
		}
		if old, ok := parents[row["SkuPriceId"]]; ok && old != row["SkuId"] { // SkuPriceId-C-008
			t.Fatalf("SkuPriceId %s has two parents", row["SkuPriceId"])
		}
		parents[row["SkuPriceId"]] = row["SkuId"]
	}
}

func (r *focusRule) violated(cell string) string {
	if cell == "" {
		if !r.nulls {
			return "null"
		}
		return ""
	}
	var ok bool
	switch r.format {
	case "numeric":
		ok = numericFormat.MatchString(cell)
	case "datetime":
		_, err := time.Parse(time.RFC3339, cell)
		ok = err == nil && datetimeFormat.MatchString(cell)
	case "currency":
		ok = regexp.MustCompile(`^[A-Z]{3}$`).MatchString(cell)
	case "string": // StringHandling-A-007, NullHandling-A-002
		ok = strings.TrimSpace(cell) != "" && cell != "Not Applicable"
	case "keyvalue": // KeyValueFormat-A-001 to 004
		object := map[string]any{}
		ok = json.Unmarshal([]byte(cell), &object) == nil
		for _, v := range object {
			switch v.(type) {
			case map[string]any, []any:
				ok = false
			}
		}
	default:
		ok = slices.Contains(strings.Split(r.format, "|"), cell)
	}
	if !ok {
		return "not " + r.format
	}
	return ""
}

// rowRules are the rules between columns of one row. Those for categories that
// are never written (Tax, Purchase, Credit) are left out.
func rowRules(row map[string]string) map[string]bool {
	null := func(column string) bool { return row[column] == "" }
	number := func(column string) *big.Rat {
		n, ok := new(big.Rat).SetString(row[column])
		if !ok {
			panic(fmt.Sprintf("%s: %q", column, row[column]))
		}
		return n
	}
	if null("PricingQuantity") || null("ListUnitPrice") {
		row = clone(row, "ListUnitPrice", "0", "PricingQuantity", "0", "was", "null")
	}
	used, correction := row["ChargeCategory"] == "Usage", row["ChargeClass"] == "Correction"
	must := used && !correction
	was := row["was"] == "null"
	product := new(big.Rat).Mul(number("ListUnitPrice"), number("PricingQuantity"))
	off := product.Sub(product, number("ListCost"))
	rules := map[string]bool{
		"BillingPeriodEnd-C-004":    row["BillingPeriodStart"] < row["BillingPeriodEnd"],
		"ChargePeriodEnd-C-004":     row["ChargePeriodStart"] < row["ChargePeriodEnd"],
		"charge within its period":  row["BillingPeriodStart"] <= row["ChargePeriodStart"] && row["ChargePeriodEnd"] <= row["BillingPeriodEnd"],
		"ListUnitPrice-C-005":       !must || !was,
		"ListUnitPrice-C-008":       number("ListUnitPrice").Sign() >= 0,
		"ListCost-C-009, to 1e-9":   was || off.Abs(off).Cmp(big.NewRat(1, 1_000_000_000)) < 0,
		"PricingQuantity-C-005":     !must || !was,
		"PricingUnit-C-005, 006":    null("PricingUnit") == was,
		"PricingUnit-C-003":         null("PricingUnit") || unitFormat.MatchString(row["PricingUnit"]),
		"ConsumedUnit-C-005, 006":   null("ConsumedUnit") == null("ConsumedQuantity"),
		"ConsumedQuantity-C-004":    used || null("ConsumedQuantity"),
		"ConsumedQuantity-C-006":    !must || !null("ConsumedQuantity"),
		"PricingCategory-C-004":     !must || !null("PricingCategory"),
		"SkuId-C-005":               !must || !null("SkuId"),
		"SkuPriceId-C-005":          !must || !null("SkuPriceId"),
		"SkuPriceId names a meter":  null("SkuPriceId") || skuPrice.MatchString(row["SkuPriceId"]),
		"SkuMeter-C-004":            !null("SkuId") || null("SkuMeter"),
		"SkuMeter-C-005":            null("SkuId") || !null("SkuMeter"),
		"SkuPriceDetails-C-004":     !null("SkuPriceId") || null("SkuPriceDetails"),
		"RegionName-C-004, 005":     null("RegionName") == null("RegionId"),
		"ResourceName-C-004":        !null("ResourceId") || null("ResourceName"),
		"ResourceName-C-006":        null("ResourceId") || row["ResourceName"] != row["ResourceId"],
		"ResourceType-C-004, 005":   null("ResourceType") == null("ResourceId"),
		"SubAccountName-C-004, 005": null("SubAccountName") == null("SubAccountId"),
		"ChargeFrequency-C-004":     row["ChargeCategory"] != "Purchase" || row["ChargeFrequency"] != "Usage-Based",
	}
	return rules
}

func clone(row map[string]string, pairs ...string) map[string]string {
	out := map[string]string{}
	for k, v := range row {
		out[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}

// The checker itself notices what is wrong.
func TestRulesNotice(t *testing.T) {
	good, _ := run(t, Options{From: lakeOf(t, map[string]string{"a.jsonl": lines(t, sold(1))}), Format: FOCUS})
	f := func(column, cell string) {
		t.Helper()
		row := clone(good[0], column, cell)
		for i := range focusRules {
			if focusRules[i].column == column && focusRules[i].violated(cell) != "" {
				return
			}
		}
		for _, holds := range rowRules(row) {
			if !holds {
				return
			}
		}
		t.Errorf("%s = %q was not noticed", column, cell)
	}
	f("BilledCost", "1e-3")
	f("BilledCost", "$1")
	f("BilledCost", "")
	f("BillingPeriodEnd", "2026-12-01")
	f("BillingPeriodEnd", good[0]["BillingPeriodStart"])
	f("ChargePeriodStart", "2026-11-24T12:00:00.000Z")
	f("ChargePeriodEnd", "2027-01-01T00:00:00Z")
	f("ChargeCategory", "usage")
	f("ChargeClass", "None")
	f("ListCost", "0.004")
	f("PricingUnit", "")
	f("PricingUnit", "tokens")
	f("PricingQuantity", "")
	f("ConsumedQuantity", "")
	f("SkuId", "")
	f("SkuPriceId", "a")
	f("RegionName", "")
	f("ResourceType", "")
	f("SubAccountName", "")
	f("Tags", `{"a":[1]}`)
	f("Tags", `a`)
	f("ServiceCategory", "AI")
	f("BillingCurrency", "usd")
}
