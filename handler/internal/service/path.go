package service

import (
	"errors"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// decodingsMax is how often a path may be percent-encoded, one over the other.
// Nobody honest needs more than two.
const decodingsMax = 4

// The reasons of a refused path.
var (
	errDots      = errors.New("a segment of it is made of dots only")
	errBackslash = errors.New("it has a backslash")
	errControl   = errors.New("it has a control character")
	errUTF8      = errors.New("it is not UTF-8")
	errLeading   = errors.New("it begins with two slashes")
	errLayers    = errors.New("it is percent-encoded again and again")
	errEncoding  = errors.New("it has a character that must be percent-encoded, or a broken escape")
)

// checkPath tells why a path below a service's base may not travel: if anyone
// who reads it, decoding it never, once or several times, could leave the base.
// The path is escaped, as the client wrote it, and empty or begins with a slash.
// It is refused or passes as it is: what is made normal here would be another path
// to the service.
func checkPath(escaped string) error {
	form := escaped
	for range decodingsMax + 1 {
		if err := checkForm(form); err != nil {
			return err
		}
		decoded := decodeOnce(form)
		if decoded == form {
			return nil
		}
		form = decoded
	}
	return errLayers
}

// checkForm looks at a path as it is after some decodings.
func checkForm(path string) error {
	switch {
	case strings.HasPrefix(path, "//"):
		return errLeading
	case strings.Contains(path, `\`):
		return errBackslash
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errControl
	case !utf8.ValidString(path): // overlong forms of dots and slashes among them
		return errUTF8
	}
	for segment := range strings.SplitSeq(path, "/") {
		if dots(segment) {
			return errDots
		}
	}
	return nil
}

// dots tells whether a segment may be read as . or .. by a parser that cuts
// parameters off, takes a decoded question mark or hash for the end of the path,
// forgives spaces and what cannot be seen, or takes for a dot what Unicode's
// compatibility forms do. More dots are refused too: some file systems forgive them.
func dots(segment string) bool {
	if end := strings.IndexAny(segment, ";?#"); end >= 0 {
		segment = segment[:end]
	}
	segment = strings.TrimFunc(segment, blank)
	return segment != "" && strings.TrimFunc(segment, func(r rune) bool { return blank(r) || dot(r) }) == ""
}

func blank(r rune) bool { return r == '+' || unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }

func dot(r rune) bool {
	switch r {
	case '.', '\u2024', '\u2025', '\u2026', '\u3002', '\ufe52', '\uff0e', '\uff61':
		return true
	}
	return false
}

// decodeOnce undoes one layer of percent-encoding, as a forgiving parser does:
// what is no escape stays.
func decodeOnce(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b.WriteByte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	if c >= 'A' {
		return c - 'A' + 10
	}
	return c - '0'
}

// split cuts a request's URL into the service's name, in lower case, and the
// path behind it as the client wrote it. ok is false if it is none of services/.
func split(u *url.URL) (name, rest string, ok bool) {
	path, ok := strings.CutPrefix(u.EscapedPath(), "/")
	if !ok || len(path) < len(prefix) || !strings.EqualFold(path[:len(prefix)], prefix) {
		return "", "", false
	}
	path = path[len(prefix):]
	end := strings.IndexByte(path, '/')
	if end < 0 {
		end = len(path)
	}
	return strings.ToLower(path[:end]), path[end:], true
}

// below is the URL of a path at a service. It fails if the path may not travel.
func (e *Entry) below(client *url.URL, rest string) (*url.URL, error) {
	if client.RawPath != "" && client.EscapedPath() != client.RawPath { // else what is checked is not what was sent
		return nil, errEncoding
	}
	if err := checkPath(rest); err != nil {
		return nil, err
	}
	escaped := e.URL.EscapedPath() + rest
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, errEncoding
	}
	u := *e.URL
	u.Path, u.RawPath = path, escaped
	if escaped != "" && u.EscapedPath() != escaped {
		return nil, errEncoding
	}
	return &u, nil
}
