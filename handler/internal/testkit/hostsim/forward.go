package hostsim

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// AnswerBytesMax bounds an answer that is kept in memory, forwarded or in an
// envelope.
const AnswerBytesMax = 256 << 20

// forward rebuilds the request and waits for the whole answer. Nothing tells
// the handler that the client has left. A chunked body and every Content header
// but the length and the type are lost; repeated parameters of the query become
// one.
func (h *Host) forward(c *call) {
	ctx, done := h.limited(context.WithoutCancel(c.r.Context()))
	defer done()
	status, header, body, err := h.forwarded(ctx, c)
	if err != nil {
		bare(c.w, http.StatusInternalServerError)
		return
	}
	for name, values := range header {
		if !isHop(name) && name != "Trailer" {
			c.w.Header()[name] = values
		}
	}
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body)
}

func (h *Host) forwarded(ctx context.Context, c *call) (status int, header http.Header, body []byte, err error) {
	p, err := h.handler(ctx)
	if err != nil {
		return 0, nil, nil, err
	}
	target := "http://127.0.0.1:" + p.port + encodePath(c.path)
	if query := joinedQuery(c.r.URL.RawQuery); query != "" {
		target += "?" + query
	}
	out, err := http.NewRequestWithContext(ctx, c.r.Method, target, bytes.NewReader(c.whole))
	if err != nil {
		return 0, nil, nil, err
	}
	out.Host = c.r.Host
	for name, values := range c.r.Header {
		if !isHop(name) && (!strings.HasPrefix(name, "Content-") || name == "Content-Type") {
			out.Header[name] = []string{merged(name, values)}
		}
	}
	agent := strings.TrimSpace(out.Header.Get("User-Agent") + " Azure-Functions-Host/" + h.options.Version)
	out.Header.Set("User-Agent", agent)
	added := http.Header{}
	h.mark(added)
	for _, name := range []string{"X-Azure-Functions-Hostversion", "X-Azure-Functions-Invocationid"} {
		out.Header.Add(name, added.Get(name)) // beside what the client sent
	}
	answer, err := h.transport.RoundTrip(out)
	if err != nil {
		return 0, nil, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, AnswerBytesMax))
	return answer.StatusCode, answer.Header, body, err
}

// parameter is a name of a query with all its values as one.
type parameter struct{ name, value string }

// parameters reads a query as a dictionary: values of one name, in any letter
// case, are joined.
func parameters(raw string) (all []parameter) {
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, value = unescaped(name), unescaped(value)
		known := false
		for i := range all {
			if strings.EqualFold(all[i].name, name) {
				all[i].value, known = all[i].value+","+value, true
			}
		}
		if !known {
			all = append(all, parameter{name, value})
		}
	}
	return all
}

func unescaped(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

func joinedQuery(raw string) string {
	all := parameters(raw)
	parts := make([]string, len(all))
	for i, p := range all {
		parts[i] = escaped(p.name) + "=" + escaped(p.value)
	}
	return strings.Join(parts, "&")
}

func escaped(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
