package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
)

// TypeBudgetCrossed is the type of an event that says that a product's spending
// has reached a share of its budget.
const TypeBudgetCrossed = "costgate.budget.crossed"

// TypeBudgetAlert is the type of an event that says that an Azure budget alert has
// reached a step of a product's.
const TypeBudgetAlert = "costgate.budget.alert"

// The headers of a delivery, as Standard Webhooks 1.0 names them.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// event is the body of a delivery. docs/NOTIFICATIONS.md describes its members.
type event struct {
	ID          string      `json:"id"`
	Type        string      `json:"type"`
	Timestamp   string      `json:"timestamp"`
	ProductID   string      `json:"product_id"`
	Product     string      `json:"product"`
	Period      string      `json:"period"`
	PeriodStart *string     `json:"period_start"`
	Unit        quota.Unit  `json:"unit"`
	Budget      string      `json:"budget"`
	Spent       string      `json:"spent"`
	Share       json.Number `json:"share"`
	State       string      `json:"state"`
	ResetsAt    *string     `json:"resets_at"`
}

// alertEvent is the body of a delivery about an Azure budget alert.
type alertEvent struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Timestamp string          `json:"timestamp"`
	ProductID string          `json:"product_id"`
	Product   string          `json:"product"`
	State     string          `json:"state"`
	EndsAt    *string         `json:"ends_at"`
	Alert     json.RawMessage `json:"alert"`
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// body writes a crossing as JSON. The same crossing always gives the same bytes.
func body(c *ledger.Crossing) ([]byte, error) {
	if c.Alert != "" {
		return json.Marshal(alertEvent{
			ID: c.ID, Type: TypeBudgetAlert, Timestamp: c.Time.UTC().Format(timeFormat), ProductID: c.ProductID, Product: c.Product,
			State: c.State, EndsAt: timeOrNull(c.End), Alert: json.RawMessage(c.Alert),
		})
	}
	return json.Marshal(event{
		ID: c.ID, Type: TypeBudgetCrossed, Timestamp: c.Time.UTC().Format(timeFormat), ProductID: c.ProductID, Product: c.Product,
		Period: c.Period, PeriodStart: timeOrNull(c.Start), Unit: c.Unit, Budget: amount(c.Budget, c.Unit), Spent: amount(c.Spent, c.Unit),
		Share: json.Number(money.Nano(c.AtPPM * (money.NanoPerUSD / money.PPM)).String()), State: c.State, ResetsAt: timeOrNull(c.End),
	})
}

func amount(n int64, unit quota.Unit) string {
	if unit == quota.UnitTokens {
		return strconv.FormatInt(n, 10)
	}
	return money.Nano(n).String()
}

func timeOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	text := t.UTC().Format(time.RFC3339)
	return &text
}

// sign is the signature of a delivery: scheme v1 of Standard Webhooks 1.0,
// HMAC-SHA256 over "<id>.<timestamp>.<body>".
func sign(key []byte, id string, timestamp int64, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.", id, timestamp)
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Limits of a secret. A key of Standard Webhooks has at least 192 bits, and at
// most 512.
const (
	secretPrefix  = "whsec_"
	KeyBytesLeast = 24 // that a key should have; a plain text may be shorter
	keyBytesMax   = 64
	textBytesMax  = 256
	urlBytesMax   = 2048
	keyWanted     = "use whsec_ and the base64 of 24 to 64 random bytes (echo whsec_$(openssl rand -base64 32)), or any text of at most 256 characters"
	addressWanted = "use http(s)://host[:port][/path][?query], without user or fragment"
)

// ParseSecret reads a secret: whsec_ and base64, as Standard Webhooks writes it;
// or any other text, whose bytes are the key. Its errors never have the secret.
func ParseSecret(secret string) (key []byte, err error) {
	encoded, standard := strings.CutPrefix(secret, secretPrefix)
	if !standard {
		if n := len(secret); n < 1 || n > textBytesMax {
			return nil, fmt.Errorf("has %d characters; %s", n, keyWanted)
		}
		return []byte(secret), nil
	}
	if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
		return nil, errors.New("begins with whsec_, and what follows is not base64; " + keyWanted)
	}
	if n := len(key); n < KeyBytesLeast || n > keyBytesMax {
		return nil, fmt.Errorf("has a key of %d bytes; %s", n, keyWanted)
	}
	return key, nil
}

// ParseURL reads the address of the receiver. Its errors never have the address:
// its path or query may be a secret.
func ParseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, errors.New("is no URL; " + addressWanted)
	case u.User != nil, u.Fragment != "", strings.Contains(address, "#"):
		return nil, errors.New("has a user or a fragment; " + addressWanted)
	case len(address) > urlBytesMax:
		return nil, fmt.Errorf("has %d characters; at most %d are allowed", len(address), urlBytesMax)
	}
	return u, nil
}
