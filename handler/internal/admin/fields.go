package admin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/costgate/costgate/handler/internal/jsonscan"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
)

// Limits of a product's settings.
const (
	NameRunesMax     = 128
	BudgetRunesMax   = 512 // of budgetName: it may be the id of a resource
	TagsMax          = 50
	TagKeyRunesMax   = 64
	TagValueRunesMax = 256
	TagsBytesMax     = 16 << 10 // of all of them as JSON: every record carries them
	ModelsMax        = 100
	ModelRunesMax    = 128
	StepsMax         = 20
	OutputTokensMax  = 1_000_000
	RateMax          = 1_000_000_000
	MultiplierMax    = 100 * money.PPM
	keyBytesMin      = 16
	keyBytesMax      = 256
)

// change is what a Create or a Configure names. A nil field is not named.
type change struct {
	subscriptionKey   *string
	name              *string
	amount            *string // decimal text; its unit is known later
	limitOnCost       *bool
	period            *quota.PeriodKind
	timeZone          *string
	enforcement       *quota.Enforcement
	durability        *quota.Durability
	models            *[]string
	maxOutputTokens   *int64
	disconnect        *quota.Disconnect
	unknownPrice      *quota.UnknownPrice
	multiplierPPM     *int64
	budgetName        *string
	tags              *map[string]string
	requestsPerMinute *int64
	tokensPerMinute   *int64
	maxParallel       *int64
	budgetAlerts      *[]quota.AlertStep
	notifyAt          *[]int64

	// Of Configure only.
	state     *string
	deposit   *string
	addKey    *string // empty: make one
	revokeKey *string

	named []string // the fields that say something, in the body's order
	by    caller
}

var commonFields = []string{
	"productName", "amount", "rateLimitOnCost", "period", "timeZone", "enforcement", "durability", "models", "maxOutputTokens",
	"disconnect", "unknownPrice", "multiplierPpm", "budgetName", "tags", "requestsPerMinute", "tokensPerMinute", "maxParallel", "budgetAlerts", "notifyAt",
}

var (
	createFields    = append([]string{"subscriptionKey"}, commonFields...)
	configureFields = append([]string{"state", "deposit", "addKey", "revokeKey"}, commonFields...)
)

// readFields reads a body whose members must be known ones, in any letter case,
// each once.
func readFields(body []byte, known []string, take func(field string, raw []byte) *problem) error {
	var unknown []string
	seen := map[string]bool{}
	var first *problem
	err := jsonscan.Object(body, func(key []byte, v jsonscan.Value) error {
		i := slices.IndexFunc(known, func(f string) bool { return strings.EqualFold(f, string(key)) })
		if i < 0 {
			unknown = append(unknown, string(key))
			return nil
		}
		field := known[i]
		if seen[field] {
			return invalid(field, "The field %q is there twice. Send it once.", field)
		}
		seen[field] = true
		if p := take(field, v.Raw); p != nil && first == nil {
			first = p
		}
		return nil
	})
	switch {
	case err != nil:
		if p, ok := err.(*problem); ok { //nolint:errorlint // it is returned as it is
			return p
		}
		return invalid("", "The body is not a JSON object: %v.", err)
	case len(unknown) > 0:
		p := invalid(unknown[0], "Unknown fields: %s. Known are: %s.", strings.Join(unknown, ", "), strings.Join(known, ", "))
		p.Fields = unknown
		return p
	case first != nil:
		return first
	}
	return nil
}

func readChange(body []byte, known []string) (*change, error) {
	c := new(change)
	return c, readFields(body, known, func(field string, raw []byte) *problem {
		if jsonscan.IsNull(raw) && !c.takeNull(field) {
			return nil
		}
		c.named = append(c.named, field)
		if jsonscan.IsNull(raw) {
			return nil
		}
		return c.take(field, raw)
	})
}

func (c *change) take(field string, raw []byte) *problem {
	switch field {
	case "subscriptionKey":
		return takeKey(field, raw, &c.subscriptionKey)
	case "productName":
		return takeName(field, raw, NameRunesMax, &c.name)
	case "budgetName":
		return takeName(field, raw, BudgetRunesMax, &c.budgetName)
	case "amount":
		return takeDecimal(field, raw, &c.amount)
	case "deposit":
		return takeDecimal(field, raw, &c.deposit)
	case "rateLimitOnCost":
		b, ok := jsonscan.Bool(raw)
		if !ok {
			return invalid(field, "%q must be true or false.", field)
		}
		c.limitOnCost = &b
	case "period":
		return takeOne(field, raw, &c.period, quota.PeriodMonth, quota.PeriodDay, quota.PeriodWeek, quota.PeriodTotal)
	case "timeZone":
		return c.takeZone(raw)
	case "enforcement":
		return takeOne(field, raw, &c.enforcement, quota.EnforceHard, quota.EnforceSoft)
	case "durability":
		return takeOne(field, raw, &c.durability, quota.DurabilityStrict, quota.DurabilityOverlap)
	case "disconnect":
		return takeOne(field, raw, &c.disconnect, quota.DisconnectDrain, quota.DisconnectCancel)
	case "unknownPrice":
		return takeOne(field, raw, &c.unknownPrice, quota.UnknownReject, quota.UnknownMax)
	case "state":
		return takeOne(field, raw, &c.state, "open", "stopped")
	case "maxOutputTokens":
		return takeCount(field, raw, OutputTokensMax, &c.maxOutputTokens)
	case "multiplierPpm":
		return takeCount(field, raw, MultiplierMax, &c.multiplierPPM)
	case "requestsPerMinute":
		return takeCount(field, raw, RateMax, &c.requestsPerMinute)
	case "tokensPerMinute":
		return takeCount(field, raw, RateMax, &c.tokensPerMinute)
	case "maxParallel":
		return takeCount(field, raw, RateMax, &c.maxParallel)
	case "models":
		return c.takeModels(raw)
	case "tags":
		return c.takeTags(raw)
	case "budgetAlerts":
		return c.takeAlerts(raw)
	case "notifyAt":
		return c.takeNotify(raw)
	case "addKey":
		return c.takeAddKey(raw)
	case "revokeKey":
		s, ok := jsonscan.String(raw)
		if !ok || s == "" || len(s) > keyBytesMax {
			return invalid(field, "%q must be one of the product's keys, or the id of one.", field)
		}
		c.revokeKey = &s
	}
	return nil
}

// takeNull: null takes a limit away; elsewhere it is as good as not there, and
// false.
func (c *change) takeNull(field string) bool {
	zero := func() *int64 { return new(int64) }
	switch field {
	case "maxOutputTokens":
		c.maxOutputTokens = zero()
	case "multiplierPpm":
		c.multiplierPPM = zero()
	case "requestsPerMinute":
		c.requestsPerMinute = zero()
	case "tokensPerMinute":
		c.tokensPerMinute = zero()
	case "maxParallel":
		c.maxParallel = zero()
	case "models":
		c.models = new([]string)
	case "tags":
		c.tags = &map[string]string{}
	default:
		return false
	}
	return true
}

func validKey(field, key string) *problem {
	if len(key) < keyBytesMin || len(key) > keyBytesMax {
		return invalid(field, "%q has %d characters; a key has %d to %d.", field, len(key), keyBytesMin, keyBytesMax)
	}
	if strings.HasPrefix(key, quota.ProductPrefix) {
		return invalid(field, "%q begins with %q, as product ids do; choose another key.", field, quota.ProductPrefix)
	}
	for i := range len(key) {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '~', c == '-':
		default:
			return invalid(field, "%q may have letters, digits and . _ ~ - only.", field)
		}
	}
	return nil
}

func takeKey(field string, raw []byte, into **string) *problem {
	s, ok := jsonscan.String(raw)
	if !ok {
		return invalid(field, "%q must be a string.", field)
	}
	if p := validKey(field, s); p != nil {
		return p
	}
	*into = &s
	return nil
}

func (c *change) takeAddKey(raw []byte) *problem {
	if b, ok := jsonscan.Bool(raw); ok {
		if !b {
			return nil
		}
		c.addKey = new(string)
		return nil
	}
	return takeKey("addKey", raw, &c.addKey)
}

// readableText checks a text that people read.
func readableText(field, s string, most int) *problem {
	n := 0
	for _, r := range s {
		if n++; n > most {
			return invalid(field, "%q may have %d characters at most.", field, most)
		}
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return invalid(field, "%q has a control character.", field)
		}
	}
	if strings.TrimSpace(s) == "" {
		return invalid(field, "%q must not be empty.", field)
	}
	return nil
}

func takeName(field string, raw []byte, most int, into **string) *problem {
	s, ok := jsonscan.String(raw)
	if !ok {
		return invalid(field, "%q must be a string.", field)
	}
	if p := readableText(field, s, most); p != nil {
		return p
	}
	*into = &s
	return nil
}

// takeDecimal takes the text of a decimal number, sent as a string or a number.
func takeDecimal(field string, raw []byte, into **string) *problem {
	s, ok := jsonscan.String(raw)
	if !ok {
		s = string(raw)
	}
	s = strings.TrimSpace(s)
	n, err := money.ParseNano(s)
	if err != nil && len(s) > 19 {
		return invalid(field, "%q is %v.", field, err)
	}
	if err != nil {
		if _, intErr := strconv.ParseInt(s, 10, 64); intErr != nil {
			return invalid(field, "%q is %v.", field, err)
		}
	}
	if n < 0 || strings.HasPrefix(s, "-") {
		return invalid(field, "%q must not be negative.", field)
	}
	*into = &s
	return nil
}

func takeOne[T ~string](field string, raw []byte, into **T, values ...T) *problem {
	s, ok := jsonscan.String(raw)
	for _, v := range values {
		if ok && strings.EqualFold(s, string(v)) {
			*into = &v
			return nil
		}
	}
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = strconv.Quote(string(v))
	}
	return invalid(field, "%q must be %s.", field, strings.Join(names, " or "))
}

func takeCount(field string, raw []byte, most int64, into **int64) *problem {
	n, ok := jsonscan.Int(raw)
	if !ok || n < 1 || n > most {
		return invalid(field, "%q must be an integer from 1 to %d, or null for none.", field, most)
	}
	*into = &n
	return nil
}

func (c *change) takeZone(raw []byte) *problem {
	s, ok := jsonscan.String(raw)
	if _, err := time.LoadLocation(s); !ok || err != nil || s == "" || s == "Local" {
		return invalid("timeZone", "\"timeZone\" must be an IANA name such as \"Europe/Berlin\" or \"UTC\".")
	}
	c.timeZone = &s
	return nil
}

func (c *change) takeModels(raw []byte) *problem {
	var models []string
	if json.Unmarshal(raw, &models) != nil || len(models) > ModelsMax {
		return invalid("models", "\"models\" must be an array of at most %d model names.", ModelsMax)
	}
	for i, m := range models {
		if p := readableText(fmt.Sprintf("models[%d]", i), m, ModelRunesMax); p != nil {
			return p
		}
	}
	c.models = &models
	return nil
}

func (c *change) takeTags(raw []byte) *problem {
	tags := map[string]string{}
	if json.Unmarshal(raw, &tags) != nil || len(tags) > TagsMax {
		return invalid("tags", "\"tags\" must be an object of at most %d strings.", TagsMax)
	}
	for key, value := range tags {
		if p := readableText("tags."+key, key, TagKeyRunesMax); p != nil {
			return p
		}
		if p := readableText("tags."+key, value+".", TagValueRunesMax+1); p != nil { // an empty value is fine
			return p
		}
	}
	if doc, _ := json.Marshal(tags); len(doc) > TagsBytesMax { // strings only: it cannot fail
		return invalid("tags", "\"tags\" take %d bytes as JSON; at most %d are allowed.", len(doc), TagsBytesMax)
	}
	c.tags = &tags
	return nil
}

// amountIn reads a decimal text in a unit.
func amountIn(field, text string, unit quota.Unit) (int64, *problem) {
	if unit == quota.UnitTokens {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return 0, invalid(field, "%q must be a whole number of tokens: the product's limit is on tokens.", field)
		}
		return n, nil
	}
	n, err := money.ParseNano(text)
	if err != nil {
		return 0, invalid(field, "%q is %v.", field, err)
	}
	return int64(n), nil
}
