package retail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Item is a price of a meter in a region from a date on, as the API gives it.
type Item struct {
	CurrencyCode         string      `json:"currencyCode"`
	TierMinimumUnits     json.Number `json:"tierMinimumUnits"`
	ReservationTerm      string      `json:"reservationTerm"`
	RetailPrice          json.Number `json:"retailPrice"` // per UnitOfMeasure
	ArmRegionName        string      `json:"armRegionName"`
	EffectiveStartDate   string      `json:"effectiveStartDate"`
	MeterID              string      `json:"meterId"`
	MeterName            string      `json:"meterName"`
	ProductName          string      `json:"productName"`
	UnitOfMeasure        string      `json:"unitOfMeasure"`
	Type                 string      `json:"type"`
	IsPrimaryMeterRegion bool        `json:"isPrimaryMeterRegion"`
}

// ErrCurrency says that prices are not in USD. Others are for reference only, by Azure's own documentation.
var ErrCurrency = errors.New("prices are not in USD")

type page struct {
	BillingCurrency string
	Items           []Item
	NextPageLink    string
}

// parsePage reads an answer of the API.
func parsePage(body []byte) (page, error) {
	var p page
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // no part of JSON, but some servers and proxies put it before
	if err := json.Unmarshal(body, &p); err != nil {
		return page{}, fmt.Errorf("not an answer of the price API: %w", err)
	}
	if p.Items == nil {
		return page{}, errors.New("not an answer of the price API: Items is missing")
	}
	if p.BillingCurrency != "USD" {
		return page{}, fmt.Errorf("%w but in %q", ErrCurrency, p.BillingCurrency)
	}
	for i := range p.Items {
		if c := p.Items[i].CurrencyCode; c != "USD" {
			return page{}, fmt.Errorf("%w: meter %q is in %q", ErrCurrency, p.Items[i].MeterName, c)
		}
	}
	return p, nil
}

// sold tells whether an item is a list price of Azure OpenAI, paid by use, from the first unit on.
func (i *Item) sold() bool {
	first := strings.Trim(i.TierMinimumUnits.String(), "0.") == ""
	return strings.HasPrefix(i.ProductName, "Azure OpenAI") && i.Type == "Consumption" && i.ReservationTerm == "" && first
}

// region is the item's Azure region in the form of the price book, empty if the price is everywhere the same.
func (i *Item) region() string {
	region := strings.ToLower(strings.ReplaceAll(i.ArmRegionName, " ", ""))
	if region == "global" {
		return ""
	}
	return region
}

// day is the UTC day of a date like 2026-09-01T00:00:00Z, where Azure's prices
// begin. One that begins later on a day counts from that day's midnight. ok is false if the text is none.
func day(text string) (_ time.Time, ok bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC().Truncate(24 * time.Hour), true
		}
	}
	return time.Time{}, false
}
