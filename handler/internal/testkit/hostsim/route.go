package hostsim

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// pattern is a route template by segments: literals in lower case, {x}, and {*x}
// at the end.
type pattern []string

func isRest(segment string) bool      { return strings.HasPrefix(segment, "{*") }
func isParameter(segment string) bool { return strings.HasPrefix(segment, "{") }

func parsePattern(route string) (pattern, error) {
	if strings.HasPrefix(route, "/") || strings.HasSuffix(route, "/") {
		return nil, fmt.Errorf("route %q begins or ends with a slash", route)
	}
	var p pattern
	segments := strings.Split(route, "/")
	for i, s := range segments {
		name, opened := strings.CutPrefix(s, "{")
		name, closed := strings.CutSuffix(name, "}")
		name, rest := strings.CutPrefix(name, "*")
		switch {
		case s == "" || opened != closed || strings.ContainsAny(name, "{}*:?=") || opened && name == "":
			return nil, fmt.Errorf("route %q: segment %q is not simulated", route, s)
		case rest && (!opened || i != len(segments)-1):
			return nil, fmt.Errorf("route %q: only the last segment can be {*x}", route)
		case opened:
			p = append(p, s)
		default:
			p = append(p, strings.ToLower(s))
		}
	}
	return p, nil
}

// match ignores letter case and a trailing slash. path begins with a slash and
// is decoded but for encoded slashes.
func (p pattern) match(path string) bool {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if n := len(segments); segments[n-1] == "" {
		segments = segments[:n-1]
	}
	for i, want := range p {
		if isRest(want) {
			return true
		}
		if i >= len(segments) || segments[i] == "" {
			return false
		}
		if !isParameter(want) && want != strings.ToLower(segments[i]) {
			return false
		}
	}
	return len(segments) == len(p)
}

// parameters are the values of the template's parameters in a path that matches.
func (p pattern) parameters(path string) object {
	values := object{}
	segments := strings.Split(strings.Trim(path, "/"), "/")
	for i, want := range p {
		switch name := strings.Trim(want, "{*}"); {
		case isRest(want):
			values[name] = strings.Join(segments[min(i, len(segments)):], "/")
		case isParameter(want):
			values[name] = segments[i]
		}
	}
	return values
}

// find returns the first function, by name, whose route and methods match.
func (a *App) find(method, path string) *Function {
	for i := range a.Functions {
		f := &a.Functions[i]
		if !f.Timer && (len(f.Methods) == 0 || slices.Contains(f.Methods, method)) && f.pattern.match(path) {
			return f
		}
	}
	return nil
}

// decodePath is what the host's server makes of a path: everything is decoded
// but encoded slashes, then dot segments are resolved. ok is false for a path
// that it refuses.
func decodePath(raw string) (path string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] == '%' && i+2 < len(raw) && !strings.EqualFold(raw[i:i+3], "%2F") {
			if c, err := url.PathUnescape(raw[i : i+3]); err == nil {
				if c == "\x00" {
					return "", false
				}
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(raw[i])
	}
	return resolveDots(b.String()), true
}

func resolveDots(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	var kept []string
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
			if last {
				kept = append(kept, "")
			}
		default:
			kept = append(kept, s)
		}
	}
	return "/" + strings.Join(kept, "/")
}

const pathSafe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/"

// encodePath is how the proxy writes a decoded path: the per cent sign of what
// the server left encoded is encoded once more.
func encodePath(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if strings.IndexByte(pathSafe, path[i]) >= 0 {
			b.WriteByte(path[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", path[i])
		}
	}
	return b.String()
}
