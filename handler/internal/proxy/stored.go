package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/sse"
	"github.com/costgate/costgate/handler/internal/usage"
)

// stored forwards a request about a stored response to its owner only. fetched
// tells that the answer is the response itself: if it was charged before anyone
// knew its usage, as those made in the background are, it is corrected now.
func (h *Handler) stored(w http.ResponseWriter, r *http.Request, p *quota.Product, responseID string, fetched bool) {
	kept, owned, err := h.storedResponse(r.Context(), p, responseID)
	switch {
	case err != nil:
		h.options.Log.Error("owner of a stored response could not be looked up", "error", err)
		h.fail(w, unavailable())
	case !owned:
		h.fail(w, noSuchResponse(http.StatusNotFound, ""))
	case fetched && kept.Tokens == 0:
		h.fetch(w, r, p, responseID)
	default:
		h.free(w, r)
	}
}

func (h *Handler) storedResponse(ctx context.Context, p *quota.Product, responseID string) (s ledger.Stored, owned bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupMax)
	defer cancel()
	return h.options.Ledger.StoredResponse(ctx, p.ID, responseID)
}

// fetch forwards a request for a response whose usage is not known yet. The
// books are right before the client sees the end of the answer.
func (h *Handler) fetch(w http.ResponseWriter, r *http.Request, p *quota.Product, responseID string) {
	body, failed := readBody(w, r)
	if failed != nil {
		h.fail(w, failed)
		return
	}
	answer, err := h.options.Upstream.RoundTrip(h.outgoing(r.Context(), r, [][]byte{body}, int64(len(body))))
	if err != nil {
		h.fail(w, h.unanswered(err))
		return
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		h.pass(w, answer, answer.Body)
		return
	}
	h.pass(w, answer, &fetching{
		body: answer.Body, stream: isStream(answer.Header),
		learn: func(a *usage.Answer) { h.correct(r.Context(), p, responseID, a) },
	})
}

// fetching reads a response as it goes by, and tells what it learnt before it
// gives out the piece that completes it.
type fetching struct {
	body   io.Reader
	stream bool
	learn  func(*usage.Answer)

	events  usage.Stream
	scanner *sse.Scanner
	whole   *usage.BodyReader
	kept    []byte // the body, as long as it is small
	told    bool
}

func (f *fetching) Read(p []byte) (int, error) {
	n, err := f.body.Read(p)
	if f.told {
		return n, err
	}
	if f.stream {
		f.event(p[:n])
		if f.events.Finished() {
			f.tell(f.events.Answer())
		}
		return n, err
	}
	if f.whole == nil {
		f.whole = usage.NewBodyReader()
	}
	_, _ = f.whole.Write(p[:n])
	if len(f.kept)+n <= AnswerBufferMax {
		f.kept = append(f.kept, p[:n]...)
	} else {
		f.kept = nil
	}
	if a := f.whole.Answer(); a.Finished {
		if len(f.kept) > 0 && bytes.HasPrefix(f.kept, []byte("{")) {
			a = usage.FromBody(f.kept, false)
		}
		f.tell(a)
	}
	return n, err
}

func (f *fetching) event(p []byte) {
	if f.scanner == nil {
		f.scanner = sse.NewScanner(EventBytesMax)
	}
	f.scanner.Feed(p, func(e sse.Event) {
		if e.Oversized {
			f.events.Oversized(e.Raw)
		} else {
			f.events.Event(e.Name, e.Data)
		}
	})
}

func (f *fetching) tell(a usage.Answer) {
	f.told = true
	if a.HasUsage {
		f.learn(&a)
	}
}

// correct charges a response that was charged without its usage by what it
// reports now.
func (h *Handler) correct(ctx context.Context, p *quota.Product, responseID string, a *usage.Answer) {
	record, done, err := h.options.Ledger.Revise(ctx, p.ID, responseID, a.Usage.Total(), func(r *usage.Record) error {
		return h.reprice(r, p, a)
	})
	switch {
	case errors.Is(err, errUnpriced):
		h.options.Log.Error("a fetched response cannot be priced; it stays charged at its hold", "product_id", p.ID, "record", record.ID, "error", err)
	case err != nil:
		h.options.Log.Error("a fetched response could not be charged at its cost; the next fetch tries again", "product_id", p.ID, "error", err)
	case done:
		h.options.Log.Info("a response was charged at its cost", "product_id", p.ID, "record", record.ID, "rev", record.Rev)
	}
}

var errUnpriced = errors.New("no price")

// reprice sets a record to what an answer reports that came after it.
func (h *Handler) reprice(r *usage.Record, p *quota.Product, a *usage.Answer) error {
	x := &exchange{
		handler: h, product: p, deployment: string(r.Deployment), priced: r.Time, answer: *a, asked: &asked{},
		operation: &operation{name: string(r.Operation), mode: pricing.ModeResponses},
	}
	x.target, x.listed = h.deployment(x.deployment)
	if x.listed && strings.EqualFold(a.Model, x.deployment) { // what answered first counts
		x.answer.Model = string(r.Model)
	}
	if r.SKU != "" {
		x.target.SKU = string(r.SKU) // what served it
	}
	entry, found := x.lookup(x.target)
	if !found {
		if entry, found = h.options.Book.Dearest(x.operation.mode, x.priced); !found {
			return errUnpriced
		}
		x.guessed = true
	}
	x.entry = x.marked(entry)
	x.hold = &ledger.Hold{Record: *r, Amount: r.Charge.N}
	r.SetAnswer(a)
	r.UsageSource = usage.Text(usage.SourceProvider)
	r.ServiceTier = usage.Text(clip(a.ServiceTier, nameBytesMax))
	if served := x.servedModel(); served != "" {
		r.Model = usage.Text(clip(served, nameBytesMax))
	}
	r.Outcome = usage.Text(x.outcome())
	r.PriceBook = usage.Text(h.options.Book.Version())
	if err := x.priceUsage(r, a.Usage, a.Items); err != nil {
		return fmt.Errorf("%w: %w", errUnpriced, err)
	}
	return nil
}
