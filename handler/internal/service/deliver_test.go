package service

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
)

// trickle is a body of x, one after each pause.
type trickle struct {
	left  int
	pause time.Duration
}

func (t *trickle) Close() error { return nil }

func (t *trickle) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, io.EOF
	}
	<-time.After(t.pause)
	t.left--
	p[0] = 'x'
	return 1, nil
}

// cancelled ends a body with the call, as a transport does.
type cancelled struct {
	io.ReadCloser
	r *http.Request
}

func (c cancelled) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if ended := c.r.Context().Err(); ended != nil {
		return 0, ended
	}
	return n, err
}

// reluctant is a client that takes its time for each piece.
type reluctant struct {
	*httptest.ResponseRecorder
	pause time.Duration
}

func (w reluctant) Write(p []byte) (int, error) {
	<-time.After(w.pause)
	return w.ResponseRecorder.Write(p)
}

// Silence is the service's, between two of its pieces: what a slow client takes
// for them does not count, nor what they take together. (The timeout is 100 s.)
func TestSilence(t *testing.T) {
	f := func(stated bool, pieces int, pause, client, wait time.Duration, status int, text string) {
		t.Helper()
		inBubble(t, func(*quota.Product) {}, func(b *bubble) {
			b.gateway.options.AnswerWait = wait
			b.service.answer = func(r *http.Request) *http.Response {
				a := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: -1, Request: r}
				a.Body = cancelled{&trickle{pieces, pause}, r}
				if stated {
					a.ContentLength = int64(pieces)
				}
				return a
			}
			r, w := httptest.NewRequestWithContext(b.t.Context(), http.MethodGet, "/services/w/x", nil), reluctant{httptest.NewRecorder(), client}
			r.Header.Set("Api-Key", outageKey)
			var broken any
			func() {
				defer func() { broken = recover() }()
				b.gateway.ServeHTTP(w, r)
			}()
			if w.Code != status || !strings.Contains(w.Body.String(), text) || (broken != nil) != (text == "") {
				b.t.Errorf("stated %v, %d pieces, each after %v, client %v: %d %q, %v", stated, pieces, pause, client, w.Code, w.Body, broken)
			}
			b.spent()
		})
	}
	f(false, 3, time.Second, 150*time.Second, 0, 200, "xxx")
	f(false, 3, 99*time.Second, 0, 0, 200, "xxx")
	f(false, 3, 101*time.Second, 0, 0, 200, "") // cut off
	f(true, 6, 99*time.Second, 0, 0, 200, "xxxxxx")
	f(true, 6, 101*time.Second, 0, 0, 504, "upstream_timeout")
	f(true, 6, 30*time.Second, 0, 200*time.Second, 200, "xxxxxx")
	f(true, 7, 30*time.Second, 0, 200*time.Second, 504, "upstream_timeout") // the platform has seen nothing of it
}
