package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// amountText writes an amount of a unit.
func amountText(n int64, unit quota.Unit) string {
	if unit == quota.UnitTokens {
		return strconv.FormatInt(n, 10)
	}
	return money.Nano(n).String()
}

func timeOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Format(time.RFC3339)
}

func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func countOrNull(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

// view is GetById's object: the predecessor's members first.
func (h *Handler) view(ctx context.Context, p *quota.Product, shownKey string) (string, error) {
	account, err := h.options.Ledger.Balance(ctx, p)
	if err != nil {
		return "", err
	}
	o := new(object)
	o.set("SubscriptionKey", textOrNull(shownKey))
	o.set("ProductName", p.Name)
	o.set("Amount", amountText(account.Budget-account.Spent, p.Unit))
	o.set("RateLimitOnCost", p.Unit == quota.UnitUSD)
	h.more(o, p, account)
	return o.String(), nil
}

// more are the members that the predecessor does not have.
func (h *Handler) more(o *object, p *quota.Product, a ledger.Account) {
	state, unit := "open", "USD"
	if a.Budget-a.Spent <= 0 {
		state = "exhausted"
	}
	stop, stopped := p.Stopped(h.options.Now())
	if stopped {
		state = "stopped"
	}
	if p.Unit == quota.UnitTokens {
		unit = "tokens"
	}
	o.set("ProductId", p.ID)
	o.set("Budget", amountText(a.Budget, p.Unit))
	o.set("Spent", amountText(a.Spent, p.Unit))
	o.set("Held", amountText(a.Held, p.Unit))
	o.set("Overruns", a.Overruns)
	o.set("Unit", unit)
	o.set("Period", a.Period)
	o.set("PeriodStart", timeOrNull(a.Start))
	o.set("PeriodEnd", timeOrNull(a.End))
	o.set("State", state)
	if stopped {
		o.set("StopReason", stop.Reason)
		o.set("StopUntil", timeOrNull(stop.Until))
	}
	if throttle, throttled := p.Throttled(h.options.Now()); throttled {
		o.raw("Throttle", shareText(throttle.SharePPM))
		o.set("ThrottleReason", throttle.Reason)
		o.set("ThrottleUntil", timeOrNull(throttle.Until))
	} else {
		o.set("Throttle", nil)
	}
	o.set("PeriodKind", p.Period)
	o.set("TimeZone", p.TimeZone)
	o.set("Enforcement", p.Enforcement)
	o.set("Durability", p.Durability)
	o.set("Models", append([]string{}, p.Models...))
	o.set("MaxOutputTokens", countOrNull(p.MaxOutputTokens))
	o.set("Disconnect", p.Disconnect)
	o.set("UnknownPrice", p.UnknownPrice)
	o.set("MultiplierPpm", countOrNull(p.MultiplierPPM))
	o.set("BudgetName", p.BudgetName)
	tags := p.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	o.set("Tags", tags)
	o.set("RequestsPerMinute", countOrNull(p.RequestsPerMinute))
	o.set("TokensPerMinute", countOrNull(p.TokensPerMinute))
	o.set("MaxParallel", countOrNull(p.MaxParallel))
	o.raw("BudgetAlerts", stepsText(p.BudgetAlerts))
	shares := make([]string, len(p.NotifyAtPPM))
	for i, ppm := range p.NotifyAtPPM {
		shares[i] = shareText(ppm)
	}
	o.raw("NotifyAt", "["+strings.Join(shares, ",")+"]")
	o.set("Keys", keyIDs(p))
}

// GetByID is GET api/Quota/{keyId}.
func (h *Handler) GetByID(w http.ResponseWriter, r *http.Request, keyID string) {
	p, err := h.options.Ledger.Find(r.Context(), keyID)
	var view string
	if err == nil {
		view, err = h.view(r.Context(), p, keyInPath(keyID))
	}
	if err != nil {
		h.fail(w, err)
		return
	}
	writeJSON(w, []byte(view))
}

// Me is GET me: what a product may know of itself.
func (h *Handler) Me(w http.ResponseWriter, r *http.Request, p *quota.Product) {
	p, err := h.options.Ledger.Find(r.Context(), p.ID) // the caller's may be some seconds old
	var view string
	if err == nil {
		view, err = h.view(r.Context(), p, "")
	}
	if err != nil {
		h.failOpenAI(w, err)
		return
	}
	writeJSON(w, []byte(view))
}

// MyRecord is GET me/requests/{id}.
func (h *Handler) MyRecord(w http.ResponseWriter, r *http.Request, p *quota.Product, recordID string) {
	record, err := h.options.Ledger.Record(r.Context(), p.ID, recordID)
	if err != nil {
		h.failOpenAI(w, err)
		return
	}
	body, _ := json.Marshal(record) // a record can be written: it was stored
	writeJSON(w, body)
}

// failOpenAI answers in the format of the routes that product keys open.
func (h *Handler) failOpenAI(w http.ResponseWriter, err error) {
	status, kind, code, message := http.StatusServiceUnavailable, "server_error", "ledger_unavailable", "The ledger cannot be reached. Try again."
	if errors.Is(err, ledger.ErrUnknownRecord) || errors.Is(err, ledger.ErrUnknownProduct) {
		status, kind, code, message = http.StatusNotFound, "invalid_request_error", "not_found", "This product has no such record, or the request has not ended yet."
	} else {
		h.options.Log.Error("request failed", "error", err)
		w.Header().Set("Retry-After", "2")
	}
	body, _ := json.Marshal(map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": code}})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
}

// GetAll is GET api/Quota: a bare array in the predecessor's shape.
func (h *Handler) GetAll(w http.ResponseWriter, r *http.Request) {
	products, err := h.options.Ledger.Products(r.Context())
	if err != nil {
		h.fail(w, err)
		return
	}
	rows, errs := make([]string, len(products)), make([]error, len(products))
	var wg sync.WaitGroup
	slots := make(chan struct{}, balancesAtOnceMax)
	for i, p := range products {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var account ledger.Account
			if account, errs[i] = h.options.Ledger.Balance(r.Context(), p); errs[i] != nil {
				return
			}
			o := new(object)
			o.set("SubscriptionKey", nil)
			o.set("ProductName", p.Name)
			o.raw("Amount", amountText(p.Created, p.Unit))
			o.raw("Balance", amountText(account.Budget-account.Spent, p.Unit))
			o.set("TotalTokens", account.Tokens)
			o.set("Operation", "Create")
			o.set("RowKey", p.ID)
			o.set("Timestamp", p.CreatedAt.UTC().Format(time.RFC3339Nano))
			o.set("RateLimitOnCost", p.Unit == quota.UnitUSD)
			h.more(o, p, account)
			rows[i] = o.String()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		h.fail(w, err)
		return
	}
	writeJSON(w, []byte("["+strings.Join(rows, ",")+"]"))
}

// History is GET api/Quota/{keyId}/history: a bare array, newest first.
func (h *Handler) History(w http.ResponseWriter, r *http.Request, keyID string) {
	q, err := historyQuery(r.URL.Query())
	var p *quota.Product
	if err == nil {
		p, err = h.options.Ledger.Find(r.Context(), keyID)
	}
	var records []usage.Record
	var more bool
	if err == nil {
		records, more, err = h.options.Ledger.History(r.Context(), p.ID, q)
	}
	if errors.Is(err, ledger.ErrUnknownRecord) {
		err = invalid("after", "\"after\" must be the id of a record.")
	}
	if err != nil {
		h.fail(w, err)
		return
	}
	if more {
		next := r.URL.Query()
		next.Del("code")
		next.Set("after", records[len(records)-1].ID)
		w.Header().Set("Link", "<"+r.URL.EscapedPath()+"?"+next.Encode()+`>; rel="next"`)
	}
	rows := make([]string, len(records))
	for i := range records {
		rows[i] = historyRow(&records[i])
	}
	writeJSON(w, []byte("["+strings.Join(rows, ",")+"]"))
}

func historyQuery(values url.Values) (q ledger.HistoryQuery, err error) {
	q.Limit = ledger.HistoryMax
	if text := values.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > ledger.HistoryMax {
			return q, invalid("limit", "\"limit\" must be an integer from 1 to %d.", ledger.HistoryMax)
		}
	}
	for name, to := range map[string]*time.Time{"from": &q.From, "to": &q.To} {
		if text := values.Get(name); text != "" {
			if *to, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return q, invalid(name, "%q must be a time like 2026-11-01T00:00:00Z.", name)
			}
		}
	}
	q.After = values.Get("after")
	return q, nil
}

// historyRow is a record with the predecessor's members before its own.
func historyRow(r *usage.Record) string {
	o := new(object)
	unit := quota.Unit(r.Unit)
	cost := "null"
	if r.CostNanoUSD.Known {
		cost = money.Nano(r.CostNanoUSD.N).String()
	}
	charge := "null"
	if r.Charge.Known {
		charge = amountText(r.Charge.N, unit)
	}
	o.set("SubscriptionKey", nil)
	o.set("RowKey", r.ID)
	o.set("ProductName", r.Product)
	o.set("Timestamp", r.Time.UTC().Format(time.RFC3339Nano))
	o.set("Model", r.Model)
	o.set("TotalTokens", r.PromptTokens.Add(r.CompletionTokens))
	o.set("PromptTokens", r.PromptTokens)
	o.set("Operation", r.Operation)
	o.raw("Amount", charge)
	o.raw("TransCost", cost)
	o.set("Balance", nil)     // what was left then is not kept: amounts settle out of order
	own, _ := json.Marshal(r) // a record can be written: it was stored
	return o.String()[:len(o.String())-1] + "," + string(own[1:])
}
