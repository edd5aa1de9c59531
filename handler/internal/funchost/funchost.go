// Package funchost is the handler's side of the Azure Functions custom-handler
// protocol: the port to listen on, what the host and the platform add to a
// request and must not travel on, and the envelopes of calls that are not plain
// HTTP.
//
// Invariants:
//   - an answer to an envelope is never empty and always JSON: the host would
//     otherwise wait for it until functionTimeout and then kill the process;
//   - no header or query parameter that authenticates to the Functions host, or
//     that the platform made, is left after [StripInbound] and [StripQuery].
//
// It does not listen, route or authenticate.
package funchost

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// PortVariable is the environment variable by which the host names the port.
const PortVariable = "FUNCTIONS_CUSTOMHANDLER_PORT"

const (
	hostVersionHeader  = "X-Azure-Functions-HostVersion"
	invocationIDHeader = "X-Azure-Functions-InvocationId"
)

// Port returns the port that the Functions host polls and whether there is a
// host at all. A value that is not a TCP port is an error: the host would wait
// for a listener that never comes.
func Port(getenv func(string) string) (port string, hosted bool, err error) {
	port = getenv(PortVariable)
	if port == "" {
		return "", false, nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", true, fmt.Errorf("%s: %q is not a port; it is set by the Functions host, unset it to run standalone", PortVariable, port)
	}
	return port, true, nil
}

// InvocationID is the host's id of this call, empty if there is none. A request
// without a body that ended before its answer began may come again under the
// same id.
func InvocationID(h http.Header) string { return h.Get(invocationIDHeader) }

// dropped are headers, in lower case, that the host, the platform or one
// connection added, and those that could authenticate to them.
var dropped = []string{
	"client-ip", "connection", "cookie", "disguised-host", "expect", "forwarded", "http2-settings", "keep-alive", "max-forwards", "te",
	"trailer", "transfer-encoding", "upgrade", "was-default-hostname", "x-client-ip", "x-client-port", "x-functions-clientid",
	"x-functions-key", "x-ms-invocation-id", "x-ms-site-restricted-token", "x-site-deployment-id", "x-site-token",
}

// droppedPrefixes are the same by the beginning of their names. x-ms-token- are
// the user tokens of the platform's own login.
var droppedPrefixes = []string{
	"proxy-", "x-appservice-", "x-arr-", "x-azure-functions-", "x-forwarded-", "x-ms-client-principal", "x-ms-token-", "x-original-",
	"x-waws-",
}

// StripInbound deletes what the host and the platform add and what belongs to
// the client's connection, so that the rest may go upstream. It deletes nothing
// that authenticates a product; that is for those who know the product keys.
func StripInbound(h http.Header) {
	for _, list := range h["Connection"] {
		for list != "" {
			var name string
			name, list, _ = strings.Cut(list, ",")
			h.Del(strings.TrimSpace(name))
		}
	}
	for name := range h {
		if isDropped(name) {
			delete(h, name)
		}
	}
}

func isDropped(name string) bool {
	for _, d := range dropped {
		if len(d) == len(name) && strings.EqualFold(d, name) {
			return true
		}
	}
	for _, p := range droppedPrefixes {
		if len(name) >= len(p) && strings.EqualFold(name[:len(p)], p) {
			return true
		}
	}
	return false
}

// StripQuery removes every parameter named code, which is how the host takes a
// function key, from a raw query. The rest stays byte for byte. The name is
// compared as the host does: without letter case, after percent-decoding.
func StripQuery(raw string) string {
	at := 0
	for at <= len(raw) {
		end := len(raw)
		if i := strings.IndexByte(raw[at:], '&'); i >= 0 {
			end = at + i
		}
		if isCode(raw[at:end]) {
			return stripFrom(raw, at)
		}
		at = end + 1
	}
	return raw
}

// stripFrom does the work of StripQuery; raw[at:] begins with the first
// parameter to drop.
func stripFrom(raw string, at int) string {
	kept := make([]string, 0, strings.Count(raw, "&")+1)
	if at > 0 {
		kept = append(kept, raw[:at-1])
	}
	for _, parameter := range strings.Split(raw[at:], "&") {
		if !isCode(parameter) {
			kept = append(kept, parameter)
		}
	}
	return strings.Join(kept, "&")
}

func isCode(parameter string) bool {
	name, _, _ := strings.Cut(parameter, "=")
	if strings.Contains(name, "%") {
		decoded, err := url.QueryUnescape(name)
		if err != nil {
			return false
		}
		name = decoded
	}
	return strings.EqualFold(name, "code")
}

// RestorePath undoes what the host does to an encoded slash: it leaves %2F as it
// is when it decodes a path, and so encodes its per cent sign when it passes the
// path on. A %252F that the client wrote looks the same, and becomes %2F too.
func RestorePath(u *url.URL) {
	if !strings.Contains(u.Path, "%2") {
		return
	}
	escaped := u.EscapedPath()
	restored := strings.NewReplacer("%252F", "%2F", "%252f", "%2f").Replace(escaped)
	if restored == escaped {
		return
	}
	if path, err := url.PathUnescape(restored); err == nil {
		u.Path, u.RawPath = path, restored
	}
}

// VersionWatch returns a function that looks at request headers and reports the
// host's version once, the first time that there is one.
func VersionWatch(report func(version string)) func(http.Header) {
	var once sync.Once
	return func(h http.Header) {
		if version := h.Get(hostVersionHeader); version != "" {
			once.Do(func() { report(version) })
		}
	}
}
