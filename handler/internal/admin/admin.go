// Package admin is the API for operators and finance: Create, Configure, Update,
// GetAll, GetById and History, and what a product may read of itself. It keeps
// the URLs and bodies of the C# app that it succeeds. It decides nothing about
// money; the ledger does. Errors are RFC 9457 problems.
package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Limits of requests.
const (
	BodyBytesMax       = 64 << 10
	UpdateBytesMax     = 16 << 20
	IdempotencyKeyMax  = 255
	balancesAtOnceMax  = 8
	idempotencyKeyName = "Idempotency-Key"
)

// Ledger is what the API needs of the books.
type Ledger interface {
	Find(ctx context.Context, keyOrID string) (*quota.Product, error)
	Products(ctx context.Context) ([]*quota.Product, error)
	Balance(ctx context.Context, p *quota.Product) (ledger.Account, error)
	History(ctx context.Context, productID string, q ledger.HistoryQuery) (records []usage.Record, more bool, err error)
	Record(ctx context.Context, productID, recordID string) (usage.Record, error)
	Create(ctx context.Context, keyHash string, once ledger.Once,
		build func(id string, now time.Time) (*quota.Product, error)) (p *quota.Product, created bool, err error)
	Edit(ctx context.Context, productID string, once ledger.Once, edit func(d *ledger.Draft) error) (p *quota.Product, done bool, err error)
	Charge(ctx context.Context, p *quota.Product, record usage.Record, once ...ledger.Once) (done bool, err error)
}

// Options are the parts of a Handler.
type Options struct {
	Ledger      Ledger
	Book        *pricing.Book
	Deployments map[string]pricing.Deployment
	Now         func() time.Time
	Log         *slog.Logger
}

// Handler has a method for each function. It is safe for concurrent use. Who may
// call it is decided before.
type Handler struct{ options Options }

// New makes a Handler.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{o}
}

func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &problem{Title: "too large", Status: http.StatusRequestEntityTooLarge, Detail: "The body is larger than this route accepts."}
	} else if err != nil {
		return nil, invalid("", "The body could not be read: %v.", err)
	}
	return body, nil
}

// onceOf names the effect of a request by its Idempotency-Key.
func onceOf(r *http.Request, function string, body []byte) (ledger.Once, error) {
	key := r.Header.Get(idempotencyKeyName)
	if key == "" {
		return ledger.Once{}, nil
	}
	if len(key) > IdempotencyKeyMax {
		return ledger.Once{}, invalid(idempotencyKeyName, "%s may have %d characters at most.", idempotencyKeyName, IdempotencyKeyMax)
	}
	for i := range len(key) {
		if key[i] < 0x20 || key[i] > 0x7e {
			return ledger.Once{}, invalid(idempotencyKeyName, "%s may have printable ASCII characters only.", idempotencyKeyName)
		}
	}
	sum := sha256.Sum256(body)
	return ledger.Once{Key: function + ":" + key, Body: hex.EncodeToString(sum[:])}, nil
}

// newKey makes a product key: 26 characters of a base of 32, 130 bits.
func newKey() string { return "cg-" + rand.Text() }

func keyOf(key string, now time.Time) quota.Key {
	hash := quota.HashKey(key)
	return quota.Key{ID: "k_" + hash[:12], Hash: hash, Created: now.UTC()}
}

// Create is POST api/Quota: it makes a product, or sets what it names of the
// one that has the key.
func (h *Handler) Create(w http.ResponseWriter, r *http.Request) {
	view, err := h.create(w, r)
	if err != nil {
		h.fail(w, err)
		return
	}
	writeJSON(w, []byte(view))
}

func (h *Handler) create(w http.ResponseWriter, r *http.Request) (string, error) {
	body, err := readBody(w, r, BodyBytesMax)
	if err != nil {
		return "", err
	}
	c, err := readChange(body, createFields)
	if err != nil {
		return "", err
	}
	once, err := onceOf(r, "create", body)
	if err != nil {
		return "", err
	}
	key, shown := "", ""
	if c.subscriptionKey != nil {
		key = *c.subscriptionKey
	}
	if c.by, err = callerOf(r, key); err != nil {
		return "", err
	}
	if c.subscriptionKey != nil {
		shown = key
		p, err := h.options.Ledger.Find(r.Context(), key)
		if err == nil {
			return h.createAgain(r.Context(), p, c, once, shown)
		} else if !errors.Is(err, ledger.ErrUnknownProduct) {
			return "", err
		}
	} else {
		key = newKey()
	}
	p, created, err := h.options.Ledger.Create(r.Context(), quota.HashKey(key), once, func(id string, now time.Time) (*quota.Product, error) {
		return c.product(id, keyOf(key, now), now)
	})
	if err != nil {
		return "", err
	}
	if !created && c.subscriptionKey != nil && once.Key == "" { // somebody else made it in between
		return h.createAgain(r.Context(), p, c, once, shown)
	}
	if created && c.subscriptionKey == nil {
		shown = key
	}
	return h.view(r.Context(), p, shown)
}

// createAgain sets what a Create names of a product that exists.
func (h *Handler) createAgain(ctx context.Context, p *quota.Product, c *change, once ledger.Once, shown string) (string, error) {
	p, _, err := h.options.Ledger.Edit(ctx, p.ID, once, func(d *ledger.Draft) error { return c.apply(d, h.options.Now()) })
	if err != nil {
		return "", err
	}
	return h.view(ctx, p, shown)
}

// Configure is PATCH api/Quota/{keyId}.
func (h *Handler) Configure(w http.ResponseWriter, r *http.Request, keyID string) {
	view, err := h.configure(w, r, keyID)
	if err != nil {
		h.fail(w, err)
		return
	}
	writeJSON(w, []byte(view))
}

func (h *Handler) configure(w http.ResponseWriter, r *http.Request, keyID string) (string, error) {
	body, err := readBody(w, r, BodyBytesMax)
	if err != nil {
		return "", err
	}
	c, err := readChange(body, configureFields)
	if err != nil {
		return "", err
	}
	once, err := onceOf(r, "configure", body)
	if err != nil {
		return "", err
	}
	if c.by, err = callerOf(r, keyID, deref(c.addKey), deref(c.revokeKey)); err != nil {
		return "", err
	}
	p, err := h.options.Ledger.Find(r.Context(), keyID)
	if err != nil {
		return "", err
	}
	made := c.addKey != nil && *c.addKey == ""
	if made {
		key := newKey()
		c.addKey = &key
	}
	p, done, err := h.options.Ledger.Edit(r.Context(), p.ID, once, func(d *ledger.Draft) error { return c.apply(d, h.options.Now()) })
	if err != nil {
		return "", err
	}
	view, err := h.view(r.Context(), p, keyInPath(keyID))
	if err == nil && made && done {
		added := new(object)
		added.set("AddedKey", *c.addKey)
		view = view[:len(view)-1] + "," + added.String()[1:]
	}
	return view, err
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// keyInPath is what the answer may show of the path's {keyId}: a key that the
// caller sent, never an id.
func keyInPath(keyID string) string {
	if len(keyID) >= len(quota.ProductPrefix) && keyID[:len(quota.ProductPrefix)] == quota.ProductPrefix {
		return ""
	}
	return keyID
}
