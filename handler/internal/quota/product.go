// Package quota holds the rules of budgets: what a product is, which period a
// moment belongs to, and what may be admitted. It is pure: no clock, no I/O.
package quota

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"time"
)

// Unit is what a product's budget counts.
type Unit string

// The two units of a budget. Amounts of UnitUSD are nano-USD.
const (
	UnitUSD    Unit = "usd"
	UnitTokens Unit = "tokens"
)

// Enforcement says what happens at the limit.
type Enforcement string

// Hard refuses what does not fit; soft never refuses for money.
const (
	EnforceHard Enforcement = "hard"
	EnforceSoft Enforcement = "soft"
)

// Durability says when a hold must be durable.
type Durability string

// Strict makes the hold durable before the request is forwarded.
const (
	DurabilityStrict  Durability = "strict"
	DurabilityOverlap Durability = "overlap"
)

// Disconnect says what happens to the upstream request when its client leaves.
type Disconnect string

// Drain reads the answer to its end, for its usage; cancel stops it.
const (
	DisconnectDrain  Disconnect = "drain"
	DisconnectCancel Disconnect = "cancel"
)

// UnknownPrice says what happens to a model that the price book does not know.
type UnknownPrice string

// Reject refuses it before upstream; max charges the dearest price of its mode.
const (
	UnknownReject UnknownPrice = "reject"
	UnknownMax    UnknownPrice = "max"
)

// Key is one of a product's keys, known by its hash only.
type Key struct {
	ID      string    `json:"id"`   // shown in records; says nothing about the key
	Hash    string    `json:"hash"` // hex SHA-256 of the key
	Created time.Time `json:"created"`
}

// HashKey is the form in which a product key is stored: hex SHA-256.
func HashKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// PeriodChange is a change of period or time zone that waits for the running
// period to end.
type PeriodChange struct {
	From     time.Time  `json:"from"`
	Period   PeriodKind `json:"period"`
	TimeZone string     `json:"timeZone"`
}

// Product is the configuration of one product. It says nothing about what was
// spent: that is the account of a period, in package ledger.
type Product struct {
	ID                string            `json:"id"` // "p_..."
	Name              string            `json:"name"`
	Keys              []Key             `json:"keys"`
	Unit              Unit              `json:"unit"`
	Budget            int64             `json:"budget"`  // of each period, in Unit
	Created           int64             `json:"created"` // the amount it was created with, in Unit
	CreatedAt         time.Time         `json:"createdAt"`
	Period            PeriodKind        `json:"period"`
	TimeZone          string            `json:"timeZone"`
	NextPeriod        *PeriodChange     `json:"nextPeriod,omitempty"`
	Enforcement       Enforcement       `json:"enforcement"`
	Durability        Durability        `json:"durability"`
	Models            []string          `json:"models,omitempty"` // allowed model names; empty: all
	MaxOutputTokens   int64             `json:"maxOutputTokens,omitempty"`
	Disconnect        Disconnect        `json:"disconnect"`
	UnknownPrice      UnknownPrice      `json:"unknownPrice"`
	MultiplierPPM     int64             `json:"multiplierPpm,omitempty"` // of what the product is charged; 0: as listed
	BudgetName        string            `json:"budgetName"`              // of the Azure budget whose alerts concern it, or its scope
	Tags              map[string]string `json:"tags,omitempty"`
	RequestsPerMinute int64             `json:"requestsPerMinute,omitempty"`
	TokensPerMinute   int64             `json:"tokensPerMinute,omitempty"`
	MaxParallel       int64             `json:"maxParallel,omitempty"`
	BudgetAlerts      []AlertStep       `json:"budgetAlerts"`
	NotifyAtPPM       []int64           `json:"notifyAtPpm"`
	Stop              *Stop             `json:"stop,omitempty"`
	Throttle          *Throttle         `json:"throttle,omitempty"`
	Alerts            []AlertMark       `json:"alerts,omitempty"` // that braked it, and whose brake is not over
	Version           int64             `json:"version"`          // counts the changes
}

// KeyByHash finds the key with this hash. All keys are compared, each in
// constant time.
func (p *Product) KeyByHash(hash string) (Key, bool) {
	var found Key
	ok := false
	for _, key := range p.Keys {
		if subtle.ConstantTimeCompare([]byte(key.Hash), []byte(hash)) == 1 {
			found, ok = key, true
		}
	}
	return found, ok
}

// ProductPrefix begins every product id, and no product key.
const ProductPrefix = "p_"
