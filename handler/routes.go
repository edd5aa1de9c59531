package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/admin"
	"github.com/costgate/costgate/handler/internal/funchost"
)

// ServeHTTP finds the function of a request, as the Functions host would: letter
// case and a trailing slash do not matter, and nothing is ever redirected.
func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.limit(w)
	if a.config.Hosted {
		funchost.RestorePath(r.URL)
		a.watch(r.Header)
		if funchost.IsEnvelope(r) && !strings.EqualFold(strings.Trim(r.URL.Path, "/"), timerFunction) {
			a.log.Error("the Functions host does not proxy HTTP: it is too old for enableProxyingHttpRequest", "path", r.URL.Path)
			funchost.RefuseEnvelope(w)
			return
		}
	}
	path := strings.Trim(r.URL.EscapedPath(), "/")
	first, rest, _ := strings.Cut(path, "/")
	switch strings.ToLower(first) {
	case "", "health": // the host polls the root until the process listens
		_, _ = io.WriteString(w, "ok\n")
	case "openai":
		if a.started(w, r) {
			a.proxy.ServeHTTP(w, r)
		}
	case "services":
		if a.started(w, r) {
			a.services.ServeHTTP(w, r)
		}
	case "me":
		if a.started(w, r) {
			a.me(w, r, rest)
		}
	case "api":
		a.api(w, r, strings.ToLower(first+"/"+rest), rest)
	default:
		a.host(w, r, path)
	}
}

// limit ends a call in any case some time after STREAM_MAX, also one whose client
// has stopped to read or to send: it would keep its place and its hold. Hosted, one
// that reached functionTimeout would be the end of this process, and of all other
// calls.
func (a *App) limit(w http.ResponseWriter) {
	control, end := http.NewResponseController(w), time.Now().Add(a.config.StreamMax+hostedMargin)
	_ = control.SetReadDeadline(end) // a writer without deadlines is not of the host's
	_ = control.SetWriteDeadline(end)
}

// started waits for Open, or answers that it has not happened.
func (a *App) started(w http.ResponseWriter, r *http.Request) bool {
	err := a.await(r.Context())
	if err != nil {
		w.Header().Set("Retry-After", "2")
		admin.Problem(w, http.StatusServiceUnavailable, "starting", err.Error())
	}
	return err == nil
}

// me serves what a product may know of itself, by its own key.
func (a *App) me(w http.ResponseWriter, r *http.Request, rest string) {
	product, ok := a.proxy.Authenticate(w, r)
	if !ok {
		return
	}
	first, id, _ := strings.Cut(rest, "/")
	switch {
	case rest == "" && r.Method == http.MethodGet:
		a.admin.Me(w, r, product)
	case strings.EqualFold(first, "requests") && id != "" && r.Method == http.MethodGet:
		a.admin.MyRecord(w, r, product, strings.ToLower(id))
	default:
		admin.Problem(w, http.StatusNotFound, "not found", "There is me and me/requests/{id}, to GET.")
	}
}

// api serves the quota routes. Hosted, the Functions host has checked the key.
func (a *App) api(w http.ResponseWriter, r *http.Request, lower, rest string) {
	if !a.config.Hosted && !a.admitted(r) {
		admin.Problem(w, http.StatusUnauthorized, "unauthorized", "Send ADMIN_KEY in the x-functions-key header, or as ?code=.")
		return
	}
	quota, sub, _ := strings.Cut(strings.TrimPrefix(lower, "api/"), "/")
	if quota != "quota" {
		notFound(w)
		return
	}
	serve := a.quotaRoute(r.Method, sub, rest)
	if serve == nil {
		notFound(w)
		return
	}
	if a.started(w, r) {
		serve(w, r)
	}
}

// quotaRoute finds the function below api/Quota: sub is the lower-case rest of
// the path, rest the rest as the client wrote it.
func (a *App) quotaRoute(method, sub, rest string) http.HandlerFunc {
	_, raw, _ := strings.Cut(rest, "/")
	rawID, _, _ := strings.Cut(raw, "/")
	keyID, err := url.PathUnescape(rawID)
	if err != nil {
		return nil
	}
	with := func(serve func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { serve(w, r, keyID) }
	}
	_, action, deeper := strings.Cut(sub, "/")
	switch {
	case sub == "" && method == http.MethodPost:
		return func(w http.ResponseWriter, r *http.Request) { a.admin.Create(w, r) }
	case sub == "" && method == http.MethodGet:
		return func(w http.ResponseWriter, r *http.Request) { a.admin.GetAll(w, r) }
	case sub == "update" && method == http.MethodPost:
		return func(w http.ResponseWriter, r *http.Request) { a.admin.Update(w, r) }
	case sub == "budget" && method == http.MethodPost:
		return func(w http.ResponseWriter, r *http.Request) { a.alerts.ServeHTTP(w, r) }
	case sub != "" && !deeper && method == http.MethodGet:
		return with(func(w http.ResponseWriter, r *http.Request, id string) { a.admin.GetByID(w, r, id) })
	case sub != "" && !deeper && method == http.MethodPatch:
		return with(func(w http.ResponseWriter, r *http.Request, id string) { a.admin.Configure(w, r, id) })
	case action == "history" && method == http.MethodGet:
		return with(func(w http.ResponseWriter, r *http.Request, id string) { a.admin.History(w, r, id) })
	}
	return nil
}

// admitted compares digests, so that the time tells nothing about the key.
func (a *App) admitted(r *http.Request) bool {
	key := r.Header.Get("x-functions-key")
	if key == "" {
		key = r.URL.Query().Get("code")
	}
	got, want := sha256.Sum256([]byte(key)), sha256.Sum256([]byte(a.config.AdminKey))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

const timerFunction = "Maintain"

// host serves the timer, which only the Functions host calls.
func (a *App) host(w http.ResponseWriter, r *http.Request, path string) {
	switch {
	case a.config.Hosted && r.Method == http.MethodPost && strings.EqualFold(path, timerFunction):
		funchost.Timer(a.Maintain).ServeHTTP(w, r)
	case !a.config.Hosted && r.Method == http.MethodGet && strings.EqualFold(path, "metrics"):
		a.serveMetrics(w, r)
	default:
		notFound(w)
	}
}

func notFound(w http.ResponseWriter) {
	admin.Problem(w, http.StatusNotFound, "not found", "No function has this route and method. See docs/openapi.yaml.")
}
