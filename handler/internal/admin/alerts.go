package admin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/costgate/costgate/handler/internal/jsonscan"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
)

// Limits of shares: of a budget, and of request limits.
const (
	BudgetShareMax   = 10 * money.PPM
	ThrottleShareMax = money.PPM

	nanoPerPPM = money.NanoPerUSD / money.PPM
)

// share reads a share as parts per million, exactly.
func share(field string, raw []byte, most int64) (int64, *problem) {
	n, err := money.ParseNano(string(raw))
	ppm := int64(n) / nanoPerPPM
	if err != nil || ppm*nanoPerPPM != int64(n) || ppm <= 0 || ppm > most {
		return 0, invalid(field, "%q must be a number above 0 and up to %s with at most 6 decimals, such as 0.8.", field, shareText(most))
	}
	return ppm, nil
}

func shareText(ppm int64) string { return money.Nano(ppm * nanoPerPPM).String() }

func (c *change) takeAlerts(raw []byte) *problem {
	var elements []json.RawMessage
	if json.Unmarshal(raw, &elements) != nil || len(elements) > StepsMax {
		return invalid("budgetAlerts", "\"budgetAlerts\" must be an array of at most %d steps such as {\"at\":1.0,\"do\":\"stop\"}.", StepsMax)
	}
	steps := make([]quota.AlertStep, len(elements))
	for i, element := range elements {
		if p := takeStep(fmt.Sprintf("budgetAlerts[%d]", i), element, &steps[i]); p != nil {
			return p
		}
	}
	c.budgetAlerts = &steps
	return nil
}

// takeStep reads one step. A share is stored for throttle only, and what a step
// looks at only if that is the forecast.
func takeStep(field string, raw []byte, into *quota.AlertStep) *problem {
	var do, on *string
	err := readFields(raw, []string{"at", "do", "share", "on"}, func(name string, raw []byte) (p *problem) {
		inner := field + "." + name
		switch {
		case (name == "share" || name == "on") && jsonscan.IsNull(raw):
			return nil
		case name == "at":
			into.AtPPM, p = share(inner, raw, BudgetShareMax)
		case name == "do":
			p = takeOne(inner, raw, &do, quota.DoNotify, quota.DoStop, quota.DoThrottle)
		case name == "on":
			p = takeOne(inner, raw, &on, quota.OnActual, quota.OnForecasted)
		case name == "share":
			into.SharePPM, p = share(inner, raw, ThrottleShareMax)
		}
		return p
	})
	if err != nil {
		p := err.(*problem) //nolint:errorlint,forcetypeassert // readFields returns nothing else
		if !strings.HasPrefix(p.Field, field) {
			p.Field = field
			p.Detail = strconv.Quote(field) + ": " + p.Detail
		}
		return p
	}
	switch {
	case into.AtPPM == 0 || do == nil:
		return invalid(field, "%q needs \"at\" and \"do\", as in {\"at\":1.0,\"do\":\"stop\"}.", field)
	case into.SharePPM != 0 && *do != quota.DoThrottle:
		return invalid(field+".share", "%q is for \"do\": \"throttle\" only. Leave it out.", field+".share")
	case into.SharePPM == 0 && *do == quota.DoThrottle:
		into.SharePPM = quota.ThrottleSharePPM
	}
	into.Do = *do
	if on != nil && *on != quota.OnActual {
		into.On = *on
	}
	return nil
}

func (c *change) takeNotify(raw []byte) *problem {
	var elements []json.RawMessage
	if json.Unmarshal(raw, &elements) != nil || len(elements) > StepsMax {
		return invalid("notifyAt", "\"notifyAt\" must be an array of at most %d shares such as 0.8.", StepsMax)
	}
	shares := []int64{}
	for i, element := range elements {
		ppm, p := share(fmt.Sprintf("notifyAt[%d]", i), element, BudgetShareMax)
		if p != nil {
			return p
		}
		shares = append(shares, ppm)
	}
	slices.Sort(shares)
	shares = slices.Compact(shares)
	c.notifyAt = &shares
	return nil
}

// stepsText is what a view shows of budgetAlerts: as they may be sent.
func stepsText(steps []quota.AlertStep) string {
	texts := make([]string, len(steps))
	for i, s := range steps {
		o := new(object)
		o.raw("at", shareText(s.AtPPM))
		o.set("do", s.Do)
		if s.Do == quota.DoThrottle {
			o.raw("share", shareText(s.Share()))
		}
		if s.Basis() != quota.OnActual {
			o.set("on", s.On)
		}
		texts[i] = o.String()
	}
	return "[" + strings.Join(texts, ",") + "]"
}
