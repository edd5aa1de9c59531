// Package telemetry is what the gateway tells its operators: a JSON log on
// standard output, and counters in Prometheus' text format.
//
// Invariants: an attribute whose name is that of a secret or of content is
// replaced by a mark, wherever it stands; counting neither allocates nor blocks.
//
// The guard is a net below careful callers, not a licence: it looks at names,
// not at texts.
package telemetry

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
)

// Keys of attributes, so that one thing has one name in every line.
const (
	KeyError      = "error"
	KeyRequestID  = "request_id"
	KeyProductID  = "product_id"
	KeyProduct    = "product"
	KeyPeriod     = "period"
	KeyOperation  = "operation"
	KeyDeployment = "deployment"
	KeyModel      = "model"
	KeyStatus     = "status"
	KeyOutcome    = "outcome"
	KeyLatencyMS  = "latency_ms"
	KeyAttempts   = "attempts"
	KeyHost       = "host_version"
	KeyInstance   = "instance"
)

// LogValueBytesMax bounds one text in the log; the rest is cut.
const LogValueBytesMax = 4096

const redacted = "[redacted]"

// secrets are attribute names, in lower case and without - and _.
var secrets = map[string]bool{
	"accesskey": true, "accesstoken": true, "adminkey": true, "apikey": true, "authorization": true, "body": true, "code": true,
	"completion": true, "completions": true, "connectionstring": true, "content": true, "cookie": true, "credential": true,
	"functionskey": true, "header": true, "headers": true, "input": true, "key": true, "messages": true, "ocpapimsubscriptionkey": true,
	"output": true, "password": true, "productkey": true, "prompt": true, "prompts": true, "query": true, "rawquery": true,
	"responsebody": true, "secret": true, "setcookie": true, "sig": true, "signature": true, "subscriptionkey": true, "token": true,
	"xfunctionskey": true, "xmsclientprincipal": true,
}

var plainName = strings.NewReplacer("-", "", "_", "", ".", "", " ", "")

func isSecret(name string) bool { return secrets[plainName.Replace(strings.ToLower(name))] }

// NewLogger writes one JSON object a line to w. Hosted that is standard output:
// the Functions host takes every line on standard error for an error.
func NewLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: guard}))
}

// guard is the redaction. It sees every attribute but groups; of those it sees
// the members.
func guard(groups []string, a slog.Attr) slog.Attr {
	for _, g := range groups {
		if isSecret(g) {
			return slog.String(a.Key, redacted)
		}
	}
	if isSecret(a.Key) {
		return slog.String(a.Key, redacted)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		if text := a.Value.String(); len(text) > LogValueBytesMax {
			a.Value = slog.StringValue(cut(text))
		}
	case slog.KindAny:
		switch value := a.Value.Any().(type) {
		case http.Header, *http.Request, *http.Response, url.Values, *url.URL, []byte:
			a.Value = slog.StringValue(redacted)
		case error:
			a.Value = slog.StringValue(cut(value.Error()))
		}
	default: // numbers and times
	}
	return a
}

func cut(text string) string {
	if len(text) <= LogValueBytesMax {
		return text
	}
	return strings.ToValidUTF8(text[:LogValueBytesMax], "") + "[cut]"
}
