package hostsim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

const (
	adminPath        = "/admin/functions/"
	envelopeBytesMax = 1 << 20 // of an answer to an envelope
)

// Timer invokes a timer function and returns what its answer wants logged. An
// answer that the host would count as a failure, or that would make it hang, is
// an error.
func (h *Host) Timer(ctx context.Context, name string) (logs []string, err error) {
	f := h.timer(name)
	if f == nil {
		return nil, fmt.Errorf("no timer function is named %q", name)
	}
	p := h.current()
	select {
	case <-p.ready:
	case <-p.ended:
		return nil, errors.New("the handler has exited")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	envelope, err := h.timerEnvelope(f)
	if err != nil {
		return nil, err
	}
	// A reader of unknown length is sent in chunks, as the host does.
	body := struct{ io.Reader }{bytes.NewReader(envelope)}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:"+p.port+"/"+f.Name, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set("User-Agent", "Azure-Functions-Host/"+h.options.Version)
	h.mark(r.Header)
	r.Header.Del("X-Ms-Invocation-Id") // of proxied requests only
	answer, err := h.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return readEnvelopeAnswer(answer)
}

func (h *Host) timer(name string) *Function {
	for i, f := range h.app.Functions {
		if f.Timer && strings.EqualFold(f.Name, name) {
			return &h.app.Functions[i]
		}
	}
	return nil
}

// timerEnvelope is an invocation without storage history.
func (h *Host) timerEnvelope(f *Function) ([]byte, error) {
	type object map[string]any
	return json.Marshal(struct{ Data, Metadata object }{
		Data: object{f.Binding: object{"Schedule": object{"AdjustForDST": true}, "ScheduleStatus": nil, "IsPastDue": false}},
		Metadata: object{"sys": object{
			"MethodName": f.Name, "UtcNow": h.options.Now().UTC().Format(time.RFC3339Nano), "RandGuid": newGUID(),
		}},
	})
}

func readEnvelopeAnswer(answer *http.Response) ([]string, error) {
	body, err := io.ReadAll(io.LimitReader(answer.Body, envelopeBytesMax))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return nil, fmt.Errorf("status %d: %s", answer.StatusCode, body)
	}
	if len(body) == 0 {
		return nil, errors.New("an empty answer: the host would wait until functionTimeout and kill the handler")
	}
	kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return nil, fmt.Errorf("content type %q: the host reads application/json only", answer.Header.Get("Content-Type"))
	}
	var result struct {
		Outputs     map[string]any
		Logs        []string
		ReturnValue any
	}
	if err := json.Unmarshal(body, &result); err != nil {
		return nil, fmt.Errorf("answer %q: %w", body, err)
	}
	return result.Logs, nil
}

// invoke is the host's admin API as far as it runs a timer: POST
// /admin/functions/<name> with the master key. Unlike the host it answers 202
// when the function has run, and 500 if it has failed.
func (h *Host) invoke(w http.ResponseWriter, r *http.Request, name string) {
	switch key := requestKey(r); {
	case key == "" || key != h.options.MasterKey:
		bare(w, http.StatusUnauthorized)
	case r.Method != http.MethodPost || h.timer(name) == nil:
		bare(w, http.StatusNotFound)
	default:
		if _, err := h.Timer(r.Context(), name); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		bare(w, http.StatusAccepted)
	}
}

// fireTimers invokes every timer function until Close.
func (h *Host) fireTimers() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ticker := time.NewTicker(h.options.TimerEvery)
	defer ticker.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-ticker.C:
		}
		for _, f := range h.app.Functions {
			if !f.Timer {
				continue
			}
			if _, err := h.Timer(ctx, f.Name); err != nil {
				_, _ = fmt.Fprintf(&h.stderr, "hostsim: timer %s failed: %v\n", f.Name, err)
			}
		}
	}
}
