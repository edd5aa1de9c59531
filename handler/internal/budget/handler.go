package budget

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/quota"
)

// Ledger is what alerts need of the books.
type Ledger interface {
	Products(ctx context.Context) ([]*quota.Product, error)
	// AlertNotice stores a notification, once for each product and alert.
	AlertNotice(ctx context.Context, p *quota.Product, alertID string, end time.Time, alert string) error
	Edit(ctx context.Context, productID string, once ledger.Once, edit func(d *ledger.Draft) error) (p *quota.Product, done bool, err error)
}

// Options are the parts of a Handler.
type Options struct {
	Ledger Ledger
	Now    func() time.Time
	Log    *slog.Logger
}

// Handler is the BudgetAlert function.
type Handler struct {
	options Options
	behind  sync.WaitGroup
}

// Limits of one call.
const (
	editsMax     = 16                   // products that an alert changes at a time: each may have to wait for its partition
	answerWithin = 8 * time.Second      // an action group waits 10 s
	aheadMax     = 366 * 24 * time.Hour // that an alert may have fired in the future: clocks differ, but not so
)

// New makes a Handler.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{options: o}
}

// ServeHTTP answers as action groups want it, within 8 s: 200 for whatever was
// understood, an unknown budget, a repetition and another kind of alert too,
// since the portal's Test button sends those; 400 for what is no alert; 503,
// which they try again, when the ledger cannot be reached or does not answer in
// time.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, BodyBytesMax))
	if errors.As(err, new(*http.MaxBytesError)) {
		problem(w, http.StatusRequestEntityTooLarge, "The body is larger than a budget alert.")
		return
	} else if err != nil {
		problem(w, http.StatusBadRequest, "The body could not be read.")
		return
	}
	now := h.options.Now()
	alert, err := Parse(data)
	if err == nil && alert.FiredAt.Sub(now) > aheadMax {
		err = malformed("data.essentials.firedDateTime is %s, which is more than a year from now", alert.FiredAt.Format(time.RFC3339))
	}
	switch {
	case errors.Is(err, ErrOtherAlert):
		h.options.Log.Info("an alert that is not about a budget: nothing to do", "reason", err)
	case err != nil:
		h.options.Log.Warn("budget alert refused", "error", err)
		problem(w, http.StatusBadRequest, err.Error()+". Send what an Azure Monitor action group sends for a budget.")
		return
	default:
		if err := h.act(r.Context(), &alert, now); err != nil {
			h.options.Log.Error("budget alert could not be carried out", "budget", clip(alert.BudgetName), "error", err)
			w.Header().Set("Retry-After", "5")
			problem(w, http.StatusServiceUnavailable, "The ledger cannot be reached. Try again.")
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "true") // the client may be gone; there is nobody else to tell
}

func problem(w http.ResponseWriter, status int, detail string) {
	body, _ := json.Marshal(map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail})
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
}

// act carries an alert out on every product that it concerns, whether its sender
// waits or not. What has begun when the time is up is finished behind the
// answer; the repetition does the rest.
func (h *Handler) act(ctx context.Context, a *Alert, now time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	done := make(chan error, 1)
	h.behind.Go(func() { done <- h.actOnAll(ctx, a, now) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("not done within %s: %w", answerWithin, ctx.Err())
	}
}

// Wait waits for what goes on behind answers: 15 s at most for each product that
// an alert was changing.
func (h *Handler) Wait() { h.behind.Wait() }

// actOnAll: one product that cannot be changed keeps no other from being braked.
func (h *Handler) actOnAll(ctx context.Context, a *Alert, now time.Time) error {
	products, unread := h.options.Ledger.Products(ctx)
	var mine []string
	for _, p := range products {
		if a.concerns(p) {
			mine = append(mine, p.ID)
		}
	}
	if len(mine) == 0 {
		if unread != nil {
			return unread
		}
		h.options.Log.Info("budget alert for a budget of no product", "budget", clip(a.BudgetName))
		return nil
	}
	if a.Kind != Actual && a.Kind != Forecasted {
		h.options.Log.Warn("budget alert of a kind that is not known: it reaches no step", "budget", clip(a.BudgetName), "kind", a.Kind)
	}
	if v := a.judge(nil); !a.Budget.Known || (a.Kind == Actual && !a.Spent.Known) || (v.notify && !a.Forecast.Known) {
		h.options.Log.Warn("budget alert with amounts that cannot be read: it reaches no step", "budget", clip(a.BudgetName))
	}
	failed := make([]error, len(mine))
	var edits sync.WaitGroup
	slots := make(chan struct{}, editsMax)
	for i, id := range mine {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			edits.Wait()
			return errors.Join(append(failed, ctx.Err())...)
		}
		edits.Go(func() {
			failed[i] = h.actOn(ctx, id, a, now)
			<-slots
		})
	}
	edits.Wait()
	return errors.Join(append(failed, unread)...)
}

func (h *Handler) actOn(ctx context.Context, id string, a *Alert, now time.Time) error {
	once := ledger.Once{Key: "alert:" + a.Identity(now)}
	p, done, err := h.options.Ledger.Edit(ctx, id, once, func(d *ledger.Draft) error {
		if a.concerns(d.Product) { // it may have got another budget since it was listed
			a.apply(d, now)
			return nil
		}
		return errConcernsNot
	})
	switch {
	case errors.Is(err, ledger.ErrUnknownProduct), errors.Is(err, errConcernsNot):
		return nil
	case err != nil:
		return fmt.Errorf("product %s: %w", id, err)
	}
	if err := a.tell(ctx, h.options.Ledger, p, now); err != nil {
		return fmt.Errorf("notice for product %s: %w", id, err)
	}
	h.options.Log.Info("budget alert", "product_id", id, "budget", clip(a.BudgetName), "kind", a.Kind, "alert", a.ID(now), "repeated", !done)
	return nil
}

var errConcernsNot = errors.New("the alert does not concern the product any more")
