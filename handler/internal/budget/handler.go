package budget

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// Ledger is what alerts need of the books.
type Ledger interface {
	Products(ctx context.Context) ([]*quota.Product, error)
	Edit(ctx context.Context, productID string, once ledger.Once, edit func(d *ledger.Draft) error) (p *quota.Product, done bool, err error)
}

// Options are the parts of a Handler.
type Options struct {
	Ledger Ledger
	Now    func() time.Time
	Log    *slog.Logger
}

// Handler is the BudgetAlert function.
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

// ServeHTTP answers as action groups want it: 200 for whatever was understood,
// an unknown budget and a repetition too; 503, which they try again, when the
// ledger cannot be reached.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, BodyBytesMax))
	if errors.As(err, new(*http.MaxBytesError)) {
		problem(w, http.StatusRequestEntityTooLarge, "The body is larger than a budget alert.")
		return
	} else if err != nil {
		problem(w, http.StatusBadRequest, "The body could not be read.")
		return
	}
	alert, err := Parse(data)
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error()+". Send what an Azure Monitor action group sends for a budget.")
		return
	}
	if err := h.act(r.Context(), alert, data); err != nil {
		h.options.Log.Error("budget alert could not be carried out", "budget", alert.BudgetName, "error", err)
		w.Header().Set("Retry-After", "5")
		problem(w, http.StatusServiceUnavailable, "The ledger cannot be reached. Try again.")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "true")
}

func problem(w http.ResponseWriter, status int, detail string) {
	body, _ := json.Marshal(map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail})
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
}

// act carries an alert out on every product of its budget. One that cannot be
// changed keeps no other from being stopped.
func (h *Handler) act(ctx context.Context, a Alert, data []byte) error {
	products, err := h.options.Ledger.Products(ctx)
	if err != nil {
		return err
	}
	once := ledger.Once{Key: "alert:" + a.Identity(data, h.options.Now())}
	var mine []string
	for _, p := range products {
		if strings.EqualFold(p.BudgetName, strings.TrimSpace(a.BudgetName)) {
			mine = append(mine, p.ID)
		}
	}
	if len(mine) == 0 {
		h.options.Log.Info("budget alert for a budget of no product", "budget", a.BudgetName)
	}
	failed := make([]error, len(mine))
	var edits sync.WaitGroup
	slots := make(chan struct{}, editsMax)
	for i, id := range mine {
		slots <- struct{}{}
		edits.Go(func() {
			failed[i] = h.actOn(ctx, id, once, &a)
			<-slots
		})
	}
	edits.Wait()
	return errors.Join(failed...)
}

const editsMax = 16 // products that an alert changes at a time: each may have to wait for its partition

func (h *Handler) actOn(ctx context.Context, id string, once ledger.Once, a *Alert) error {
	_, done, err := h.options.Ledger.Edit(ctx, id, once, func(d *ledger.Draft) error {
		h.apply(d, a)
		return nil
	})
	switch {
	case errors.Is(err, ledger.ErrUnknownProduct):
		return nil
	case err != nil:
		return fmt.Errorf("product %s: %w", id, err)
	}
	h.options.Log.Info("budget alert", "product_id", id, "budget", a.BudgetName, "kind", a.Kind, "repeated", !done)
	return nil
}

// apply notes the alert and, if it says so, stops the product until the end of
// the UTC month in which it fired.
func (h *Handler) apply(d *ledger.Draft, a *Alert) {
	now := h.options.Now().UTC()
	d.Records = append(d.Records, usage.Record{Kind: usage.KindAlert})
	fired := a.FiredAt.UTC()
	if a.FiredAt.IsZero() {
		fired = now
	}
	until := time.Date(fired.Year(), fired.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	if !a.stops(d.Product.BudgetAlerts) || !now.Before(until) {
		return
	}
	if stop, stopped := d.Product.Stopped(now); stopped && (stop.Until.IsZero() || !stop.Until.Before(until)) {
		return // it is stopped at least that long
	}
	d.Product.Stop = &quota.Stop{Reason: "the Azure budget " + clip(a.BudgetName) + " is spent", By: "budget alert", Since: now, Until: until}
	d.Records = append(d.Records, usage.Record{Kind: usage.KindStop})
}

const nameBytesMax = 128

func clip(s string) string {
	if len(s) > nameBytesMax {
		s = s[:nameBytesMax]
	}
	return strings.ToValidUTF8(s, "")
}

// stops tells whether an actual alert reaches a step that stops. An amount that
// cannot be read reaches nothing.
func (a *Alert) stops(steps []quota.AlertStep) bool {
	if a.Kind != Actual || !a.Spent.Known || !a.Budget.Known || a.Budget.Nano <= 0 || a.Spent.Nano < 0 {
		return false
	}
	for _, step := range steps {
		if step.Do == "stop" && reaches(a.Spent.Nano, a.Budget.Nano, step.AtPPM) {
			return true
		}
	}
	return false
}

// reaches compares spent with a share of a budget, without rounding.
func reaches(spent, budget money.Nano, ppm int64) bool {
	hiSpent, loSpent := bits.Mul64(uint64(spent), money.PPM)
	hiShare, loShare := bits.Mul64(uint64(budget), uint64(ppm))
	return hiSpent > hiShare || (hiSpent == hiShare && loSpent >= loShare)
}
