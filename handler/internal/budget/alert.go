// Package budget turns Azure Monitor's budget alerts into stops of products. It
// parses what action groups send, in the legacy and in the common schema, and
// decides what an alert does; the ledger does it, once.
package budget

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
)

// Kind is what an alert is about: money that was spent, or that is forecast.
type Kind string

// The kinds of alert. A missing kind is actual.
const (
	Actual     Kind = "actual"
	Forecasted Kind = "forecasted"
)

// Amount is a display amount of an alert; it may be unknown, which is not zero.
type Amount struct {
	Nano  money.Nano
	Known bool
}

// Alert is a budget alert.
type Alert struct {
	Kind       Kind
	BudgetName string
	BudgetID   string
	Scope      string
	Budget     Amount
	Spent      Amount
	Threshold  string // as sent: an amount, or a share
	Forecast   Amount
	FiredAt    time.Time // zero: not said
	StartDate  string
}

// BodyBytesMax bounds the body of an alert.
const BodyBytesMax = 256 << 10

// ErrMalformed says that a body is no budget alert.
var ErrMalformed = errors.New("not a budget alert")

// loose is a text, or the text of a number, or nothing.
type loose string

func (l *loose) UnmarshalJSON(raw []byte) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		*l = loose(s)
		return nil
	}
	if c := raw[0]; c == '-' || (c >= '0' && c <= '9') {
		*l = loose(raw)
	}
	return nil
}

type body struct {
	SchemaID string `json:"schemaId"`
	Data     struct {
		// Legacy schema.
		BudgetName loose `json:"BudgetName"`
		Budget     loose `json:"Budget"`
		Spending   loose `json:"SpendingAmount"`
		Threshold  loose `json:"NotificationThresholdAmount"`
		StartDate  loose `json:"BudgetStartDate"`
		// Common schema.
		Essentials *struct {
			FiredAt loose `json:"firedDateTime"`
			AlertID loose `json:"alertId"`
		} `json:"essentials"`
		Context *struct {
			AlertData *struct {
				Scope     loose `json:"Scope"`
				Kind      loose `json:"ThresholdType"`
				Budget    loose `json:"BudgetThreshold"`
				Threshold loose `json:"NotificationThresholdAmount"`
				Name      loose `json:"BudgetName"`
				ID        loose `json:"BudgetId"`
				StartDate loose `json:"BudgetStartDate"`
				Spent     loose `json:"SpentAmount"`
				Forecast  loose `json:"ForecastedTotalForPeriod"`
			} `json:"AlertData"`
		} `json:"alertContext"`
	} `json:"data"`
}

// Parse reads an alert. Members that it does not know are Microsoft's affair and
// are ignored; a body that names no budget is ErrMalformed.
func Parse(data []byte) (Alert, error) {
	var b body
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &b); err != nil {
		return Alert{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	a := Alert{Kind: Actual}
	if b.Data.Essentials != nil {
		a.FiredAt, _ = time.Parse(time.RFC3339Nano, string(b.Data.Essentials.FiredAt)) // zero if it cannot be read
	}
	if b.Data.Context != nil && b.Data.Context.AlertData != nil {
		d := b.Data.Context.AlertData
		if strings.EqualFold(string(d.Kind), string(Forecasted)) {
			a.Kind = Forecasted
		}
		a.BudgetName, a.BudgetID, a.Scope, a.StartDate = string(d.Name), string(d.ID), string(d.Scope), string(d.StartDate)
		a.Budget, a.Spent, a.Forecast, a.Threshold = ParseAmount(string(d.Budget)), ParseAmount(string(d.Spent)), ParseAmount(string(d.Forecast)), string(d.Threshold)
	} else {
		a.BudgetName, a.StartDate, a.Threshold = string(b.Data.BudgetName), string(b.Data.StartDate), string(b.Data.Threshold)
		a.Budget, a.Spent = ParseAmount(string(b.Data.Budget)), ParseAmount(string(b.Data.Spending))
	}
	if strings.TrimSpace(a.BudgetName) == "" {
		return Alert{}, fmt.Errorf("%w: it names no budget", ErrMalformed)
	}
	return a, nil
}

// ParseAmount reads an amount as people of some country write it: a currency
// sign or code, groups of thousands by comma, point, blank or apostrophe, and a
// decimal point or comma. What can be read in two ways, or not at all, is
// unknown.
func ParseAmount(display string) Amount {
	digits, ok := strip(display)
	if !ok {
		return Amount{}
	}
	negative := strings.HasPrefix(digits, "-")
	digits = strings.TrimPrefix(digits, "-")
	whole, fraction, ok := splitDecimal(digits)
	if !ok {
		return Amount{}
	}
	text := whole
	if fraction != "" {
		text += "." + fraction
	}
	if negative {
		text = "-" + text
	}
	n, err := money.ParseNano(text)
	return Amount{n, err == nil}
}

// strip removes currency signs and codes around a number, and blanks in it.
func strip(display string) (string, bool) {
	first := strings.IndexAny(display, "0123456789")
	last := strings.LastIndexAny(display, "0123456789")
	if first < 0 || len(display) > 64 {
		return "", false
	}
	sign := ""
	if strings.ContainsAny(display[:first], "-−(") {
		sign = "-"
	}
	var out strings.Builder
	out.WriteString(sign)
	for _, r := range display[first : last+1] {
		switch {
		case r >= '0' && r <= '9', r == '.', r == ',':
			out.WriteRune(r)
		case r == ' ', r == '\u00a0', r == '\u202f', r == '\'', r == '\u2019':
			out.WriteByte(' ')
		default:
			return "", false
		}
	}
	return out.String(), true
}

// splitDecimal finds the decimal sign: of two kinds of sign the last one; of one
// kind that is there once, unless three digits follow it and so it could group
// them as well.
func splitDecimal(s string) (whole, fraction string, ok bool) {
	point, comma := strings.LastIndexByte(s, '.'), strings.LastIndexByte(s, ',')
	at := max(point, comma)
	switch {
	case at < 0:
		return grouped(s, " ")
	case point >= 0 && comma >= 0:
		groups := ","
		if at == comma {
			groups = "."
		}
		if strings.Count(s, s[at:at+1]) > 1 {
			return "", "", false
		}
		whole, _, ok = grouped(s[:at], groups)
		return whole, s[at+1:], ok && s[at+1:] != "" && !strings.Contains(s[at+1:], " ")
	case strings.Count(s, s[at:at+1]) > 1:
		return grouped(s, s[at:at+1])
	case len(s)-at-1 == 3 && at <= 3 && !strings.Contains(s, " "):
		if s[at] == ',' && s[0] != '0' { // "1,000": Azure's own amounts are in English
			return grouped(s, ",")
		}
		if s[at] == '.' { // "1.000" is a plain number too, and plain numbers come without a sign
			return "", "", false
		}
		return "", "", false
	}
	whole, _, ok = grouped(s[:at], " ")
	return whole, s[at+1:], ok && s[at+1:] != "" && !strings.Contains(s[at+1:], " ")
}

// grouped joins groups of three digits; the first may be shorter.
func grouped(s, sign string) (string, string, bool) {
	parts := strings.Split(s, sign)
	for i, part := range parts {
		if part == "" || strings.Trim(part, "0123456789") != "" || (i > 0 && len(part) != 3) || (i == 0 && len(parts) > 1 && len(part) > 3) {
			return "", "", false
		}
	}
	return strings.Join(parts, ""), "", true
}

// Identity names the alert, however often and late it comes: budget, kind,
// threshold and the time it fired; without a time, what the body says and the
// month.
func (a *Alert) Identity(data []byte, now time.Time) string {
	budget := a.BudgetID
	if budget == "" {
		budget = a.BudgetName
	}
	when := a.FiredAt.UTC().Format(time.RFC3339Nano)
	if a.FiredAt.IsZero() {
		when = now.UTC().Format("2006-01") + ":" + string(bytes.TrimSpace(data))
	}
	return strings.ToLower(budget) + "|" + string(a.Kind) + "|" + a.Threshold + "|" + when
}
