// Package budget turns Azure Monitor's budget alerts into brakes of products. It
// parses what action groups send, in the legacy and in the common schema, and
// decides which products an alert concerns and what it does to them; the ledger
// does it, once.
//
// Invariant: nothing is stopped or throttled by an alert that does not name its
// budget, and none depends on the order in which alerts come.
package budget

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
)

// Kind is what an alert is about: money that was spent, or that is forecast. One
// that Azure may add is kept as it is, and does nothing.
type Kind string

// The kinds of alert. A missing kind is actual.
const (
	Actual     Kind = quota.OnActual
	Forecasted Kind = quota.OnForecasted
)

// Alert is a budget alert.
type Alert struct {
	Kind       Kind
	BudgetName string
	BudgetID   string // empty: not said
	Scope      string // of the budget; of an alert that does not say it, from the BudgetID or the legacy schema's own members
	Unit       string // currency
	Budget     Amount
	Spent      Amount
	Forecast   Amount
	Threshold  Amount    // that the alert has passed
	FiredAt    time.Time // zero: not said

	threshold string // as sent
	body      [sha256.Size]byte
}

// Limits of an alert.
const (
	BodyBytesMax = 256 << 10
	TextBytesMax = 2048 // of a name, a scope or an id
	quotedMax    = 64   // of what an answer or a record repeats
)

var (
	// ErrMalformed says that a body is no alert, or a budget alert that cannot be
	// understood; its text says why.
	ErrMalformed = errors.New("not a budget alert")
	// ErrOtherAlert says that a body is an alert of Azure Monitor, but not of a
	// budget.
	ErrOtherAlert = errors.New("an alert of Azure Monitor that is not about a budget")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// The schemas that budget alerts have, and the service that sends the common one.
const (
	schemaCommon  = "azureMonitorCommonAlertSchema"
	schemaLegacy  = "AIP Budget Notification"
	serviceCost   = "CostAlerts"
	categoryThese = "budgets"
	budgetsPath   = "/providers/microsoft.consumption/budgets/"
)

// Parse reads an alert. Members that it does not know are Microsoft's affair and
// are ignored, and null is as good as not there. It fails with ErrOtherAlert or
// ErrMalformed.
func Parse(data []byte) (Alert, error) {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	top, err := membersOf("", data, "schemaId", "data")
	if err != nil {
		return Alert{}, err
	}
	schema, err := top.text("schemaId")
	schema = strings.TrimSpace(schema)
	if err != nil {
		return Alert{}, err
	}
	if !top.has("data") {
		return Alert{}, malformed("the member data is missing")
	}
	inner, err := membersOf("data", top.raw["data"],
		"essentials", "alertContext", "BudgetName", "Budget", "SpendingAmount", "NotificationThresholdAmount", "Unit", "SubscriptionId", "ResourceGroup")
	if err != nil {
		return Alert{}, err
	}
	common, legacy := inner.has("essentials") || inner.has("alertContext"), inner.has("BudgetName")
	var a Alert
	switch {
	case strings.EqualFold(schema, schemaCommon):
		if !common {
			return a, malformed("schemaId is %s, but data has neither essentials nor alertContext", schemaCommon)
		}
		a, err = parseCommon(inner)
	case strings.EqualFold(schema, schemaLegacy):
		if common {
			return a, malformed("schemaId is %q, but data has members of the common schema", schemaLegacy)
		}
		a, err = parseLegacy(inner)
	case schema == "" && common:
		a, err = parseCommon(inner)
	case schema == "":
		a, err = parseLegacy(inner)
	default:
		if _, failed := parseCommon(inner); legacy || failed == nil {
			return a, malformed("data names a budget, but schemaId is %q; it must be %q or %q", clip(schema), schemaLegacy, schemaCommon)
		}
		return a, fmt.Errorf("%w: schemaId is %q", ErrOtherAlert, clip(schema))
	}
	a.body = sha256.Sum256(data)
	return a, err
}

// parseLegacy reads the members under data of the schema of 2018. Its amounts
// are numbers without a currency, and its threshold may be a share of the budget.
func parseLegacy(in members) (Alert, error) {
	a := Alert{Kind: Actual}
	in.plain = true
	var subscription, group string
	err := errors.Join(
		in.into(&a.BudgetName, "BudgetName"), in.into(&a.Unit, "Unit"), in.into(&subscription, "SubscriptionId"), in.into(&group, "ResourceGroup"),
		in.amount(&a.Budget, nil, "Budget"), in.amount(&a.Spent, nil, "SpendingAmount"), in.amount(&a.Threshold, &a.threshold, "NotificationThresholdAmount"))
	if err != nil {
		return a, err
	}
	if strings.TrimSpace(a.BudgetName) == "" {
		return a, malformed("data.BudgetName is missing or empty")
	}
	if subscription = strings.TrimSpace(subscription); subscription != "" {
		a.Scope = "/subscriptions/" + subscription
		if group = strings.TrimSpace(group); group != "" {
			a.Scope += "/resourceGroups/" + group
		}
	}
	a.Threshold = a.thresholdAmount()
	return a, nil
}

// thresholdAmount makes an amount of a legacy threshold. Microsoft's samples have
// an amount in one ("8000.0") and a share of the budget in the other ("0.8").
// Azure's largest share is 1000 %; what is at most that is a share if the
// spending has passed it then. It is for the record only, nothing follows from it.
func (a *Alert) thresholdAmount() Amount {
	t := a.Threshold
	if !t.Known || t.Nano > 10*money.NanoPerUSD {
		return t
	}
	if !a.Budget.Known || !a.Spent.Known {
		return Amount{}
	}
	share := new(big.Int).Mul(big.NewInt(int64(a.Budget.Nano)), big.NewInt(int64(t.Nano)))
	share.Quo(share, big.NewInt(money.NanoPerUSD))
	switch {
	case share.IsInt64() && share.Int64() <= int64(a.Spent.Nano):
		return Amount{money.Nano(share.Int64()), true}
	case t.Nano <= a.Spent.Nano:
		return t
	}
	return Amount{}
}

// parseCommon reads data of the common schema. If it names no budget, service
// and category tell whether it is about something else.
func parseCommon(in members) (Alert, error) {
	essentials, err := in.object("essentials", "firedDateTime", "monitoringService")
	if err != nil {
		return Alert{}, err
	}
	service, err := essentials.text("monitoringService")
	if err != nil {
		return Alert{}, err
	}
	a, category, err := parseContext(in, essentials)
	switch {
	case err == nil:
		return a, nil
	case service != "" && !strings.EqualFold(service, serviceCost):
		return a, fmt.Errorf("%w: data.essentials.monitoringService is %q", ErrOtherAlert, clip(service))
	case category != "" && !strings.EqualFold(category, categoryThese):
		return a, fmt.Errorf("%w: data.alertContext.AlertCategory is %q", ErrOtherAlert, clip(category))
	}
	return a, err
}

func parseContext(in, essentials members) (a Alert, category string, err error) {
	a.Kind = Actual
	outer, err := in.object("alertContext", "AlertCategory", "AlertData")
	if err != nil {
		return a, "", err
	}
	if category, err = outer.text("AlertCategory"); err != nil {
		return a, "", err
	}
	d, err := outer.object("AlertData", "Scope", "ThresholdType", "BudgetThreshold", "NotificationThresholdAmount", "BudgetName", "BudgetId",
		"Unit", "SpentAmount", "ForecastedTotalForPeriod")
	if err != nil {
		return a, category, err
	}
	var kind, fired string
	err = errors.Join(
		d.into(&a.BudgetName, "BudgetName"), d.into(&a.BudgetID, "BudgetId"), d.into(&a.Scope, "Scope"), d.into(&a.Unit, "Unit"),
		d.into(&kind, "ThresholdType"), essentials.into(&fired, "firedDateTime"),
		d.amount(&a.Budget, nil, "BudgetThreshold"), d.amount(&a.Spent, nil, "SpentAmount"),
		d.amount(&a.Forecast, nil, "ForecastedTotalForPeriod"), d.amount(&a.Threshold, &a.threshold, "NotificationThresholdAmount"))
	if err != nil {
		return a, category, err
	}
	a.fromID()
	if strings.TrimSpace(a.BudgetName) == "" {
		return a, category, malformed("data.alertContext.AlertData.BudgetName is missing or empty")
	}
	if kind = strings.ToLower(strings.TrimSpace(kind)); kind != "" {
		a.Kind = Kind(clip(kind))
	}
	a.FiredAt = parseTime(fired)
	return a, category, nil
}

// fromID fills in what an alert does not say but its budget's id does.
func (a *Alert) fromID() {
	i := strings.LastIndex(strings.ToLower(a.BudgetID), budgetsPath)
	if i < 0 || len(strings.ToLower(a.BudgetID)) != len(a.BudgetID) { // lower case of some other script may be longer
		return
	}
	if strings.TrimSpace(a.Scope) == "" {
		a.Scope = a.BudgetID[:i]
	}
	if strings.TrimSpace(a.BudgetName) == "" {
		a.BudgetName = strings.TrimSuffix(a.BudgetID[i+len(budgetsPath):], "/")
	}
}

// times are the forms of firedDateTime; a time without a zone is UTC.
var times = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "1/2/2006 3:04:05 PM -07:00", "1/2/2006 3:04:05 PM"}

// parseTime reads a time; zero if it cannot be read: then the alert does not say
// when it fired.
func parseTime(text string) time.Time {
	for _, form := range times {
		if t, err := time.Parse(form, strings.TrimSpace(text)); err == nil && t.Year() > 0 {
			return t.UTC()
		}
	}
	return time.Time{}
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), quotedMax)], "") }

// Identity names the alert, however often and late it comes: budget, kind,
// threshold and the time it fired; without a time, the body and the UTC month in
// which it came.
func (a *Alert) Identity(now time.Time) string {
	budget := a.BudgetID
	if budget == "" {
		budget = a.Scope + "|" + a.BudgetName
	}
	when := a.FiredAt.UTC().Format(time.RFC3339Nano)
	if a.FiredAt.IsZero() {
		when = now.UTC().Format("2006-01") + ":" + hex.EncodeToString(a.body[:])
	}
	return fmt.Sprintf("%q|%s|%q|%s", strings.ToLower(strings.TrimSpace(budget)), a.Kind, a.threshold, when)
}

// ID is the identity as records and stops show it: 16 hexadecimal digits.
func (a *Alert) ID(now time.Time) string {
	sum := sha256.Sum256([]byte(a.Identity(now)))
	return hex.EncodeToString(sum[:8])
}
