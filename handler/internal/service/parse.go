package service

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/jsonscan"
	"github.com/costgate/costgate/handler/internal/money"
)

// Parse reads the setting SERVICES:
//
//	{"w":{"url":"https://h/base","auth":"pass","header":"x-key","secretSetting":"NAME",
//	 "scope":"...","pricePerCall":"0.001","pricePerKB":"0","timeout":"100s",
//	 "bodyBytesMax":104857600,"private":false}}
//
// Only url is required. An entry without prices is free; the log says so at start.
// A text that is empty is as good as none. lookup gives the value of another
// setting. All that is wrong is returned at once; each
// error names the entry, the field and what to write.
func Parse(text string, lookup func(name string) string) (*Services, []error) {
	s := &Services{Entries: map[string]*Entry{}}
	if strings.TrimSpace(text) == "" {
		return s, nil
	}
	if len(text) > settingBytesMax {
		return nil, []error{fmt.Errorf("has %d bytes; at most %d are read", len(text), settingBytesMax)}
	}
	sum := sha256.Sum256([]byte(text))
	s.Version = "services-" + hex.EncodeToString(sum[:4])
	var problems []error
	err := jsonscan.Object([]byte(text), func(key []byte, v jsonscan.Value) error {
		name := string(key)
		if len(s.Entries) >= EntriesMax {
			return fmt.Errorf("has more than %d entries; remove some", EntriesMax)
		}
		e, found := parseEntry(name, v, lookup)
		problems = append(problems, found...)
		folded := strings.ToLower(name)
		if s.Entries[folded] != nil {
			problems = append(problems, fmt.Errorf("%q is there twice (letter case does not matter); keep one", name))
		}
		s.Entries[folded] = e
		return nil
	})
	if err != nil {
		problems = append(problems, notJSON(err))
	}
	return s, problems
}

func notJSON(err error) error {
	if errors.As(err, new(*jsonscan.SyntaxError)) {
		return fmt.Errorf("is not valid JSON: %w", err)
	}
	return err
}

// entryReader reads one entry and collects what is wrong with it.
type entryReader struct {
	entry    *Entry
	lookup   func(string) string
	seen     map[string]bool
	setting  string // the value of secretSetting
	problems []error
}

func (r *entryReader) fail(field, format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf("%s.%s: %s", r.entry.Name, field, fmt.Sprintf(format, args...)))
}

func parseEntry(name string, v jsonscan.Value, lookup func(string) string) (*Entry, []error) {
	r := &entryReader{lookup: lookup, seen: map[string]bool{}}
	r.entry = &Entry{Name: name, Auth: AuthPass, Timeout: TimeoutDefault, BodyBytesMax: BodyBytesMax}
	if !validName(name) {
		r.problems = append(r.problems, fmt.Errorf("%q is no name of a service; use 1 to %d of a-z, 0-9 and -", name, NameBytesMax))
	}
	if v.Kind != jsonscan.KindObject {
		r.problems = append(r.problems, fmt.Errorf(`%q must be an object, like {"url":"https://host/base","pricePerCall":"0.001"}`, name))
		return r.entry, r.problems
	}
	_ = jsonscan.Object(v.Raw, func(key []byte, v jsonscan.Value) error { // it was scanned before
		field := string(key)
		switch {
		case r.seen[field]:
			r.fail(field, "is given twice; keep one")
		case v.Kind == jsonscan.KindString && string(v.Raw) == `""` && optional[field]:
			return nil
		case v.Kind == jsonscan.KindNull:
			r.fail(field, "is null; give a value or leave the field out")
		default:
			r.field(field, v)
		}
		r.seen[field] = true
		return nil
	})
	r.check()
	return r.entry, r.problems
}

// optional are the fields that may be empty.
var optional = map[string]bool{"header": true, "secretSetting": true, "scope": true}

func validName(name string) bool {
	return name != "" && len(name) <= NameBytesMax && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" &&
		strings.IndexFunc(name, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }) < 0
}

func (r *entryReader) field(field string, v jsonscan.Value) {
	e := r.entry
	switch field {
	case "url":
		e.URL = r.base(field, r.text(field, v))
	case "auth":
		if e.Auth = Auth(r.text(field, v)); e.Auth != AuthPass && e.Auth != AuthHeader && e.Auth != AuthIdentity {
			r.fail(field, "%q is not known; use pass, header or identity", e.Auth)
		}
	case "header":
		if e.Header = r.text(field, v); !isToken(e.Header) || reserved(e.Header) {
			r.fail(field, "%q cannot carry a secret; use a header of the service's own, like x-key or Authorization", e.Header)
		}
	case "secretSetting":
		r.setting = r.text(field, v)
	case "scope":
		if e.Scope = r.text(field, v); e.Scope == "" || strings.ContainsAny(e.Scope, " \t\r\n") {
			r.fail(field, "%q is no scope; use one like https://host/.default", e.Scope)
		}
	case "pricePerCall":
		e.PerCall = r.price(field, v)
	case "pricePerKB":
		e.PerKB = r.price(field, v)
	case "timeout":
		d, err := time.ParseDuration(r.text(field, v))
		if e.Timeout = d; err != nil || d < TimeoutLeast || d > TimeoutMax {
			r.fail(field, "%s is not a duration from %v to %v; use a form like \"100s\"", v.Raw, TimeoutLeast, TimeoutMax)
		}
	case "bodyBytesMax":
		n, err := strconv.ParseInt(string(v.Raw), 10, 64)
		if e.BodyBytesMax = n; err != nil || n < 1 || n > BodyBytesMax {
			r.fail(field, "%s is not a whole number of bytes from 1 to %d", v.Raw, BodyBytesMax)
		}
	case "private":
		if e.Private = bytes.Equal(v.Raw, []byte("true")); v.Kind != jsonscan.KindBool {
			r.fail(field, "%s is neither true nor false", v.Raw)
		}
	default:
		r.fail(field, "unknown field; the fields are url, auth, header, secretSetting, scope, pricePerCall, pricePerKB, timeout, bodyBytesMax, private")
	}
}

func (r *entryReader) text(field string, v jsonscan.Value) (text string) {
	if v.Kind != jsonscan.KindString || json.Unmarshal(v.Raw, &text) != nil {
		r.fail(field, "must be a string")
	}
	return text
}

// price reads an amount that is not negative.
func (r *entryReader) price(field string, v jsonscan.Value) money.Nano {
	if v.Kind != jsonscan.KindString {
		r.fail(field, `must be a string, an amount of USD like "0.001"`)
		return 0
	}
	text := r.text(field, v)
	n, err := money.ParseNano(text)
	switch {
	case err != nil:
		r.fail(field, "%q: %v", text, err)
	case n < 0 || strings.HasPrefix(text, "-"):
		r.fail(field, "%q is negative; use 0 for none", text)
	case n > PriceMax:
		r.fail(field, "%q is more than %v USD; it is the price of one unit", text, PriceMax)
	}
	return n
}

func (r *entryReader) base(field, text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.Opaque != "" ||
		u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#") || u.User != nil {
		r.fail(field, "must be http(s)://host[:port][/base], without query, fragment or user")
		return nil
	}
	if port, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || port < 1 || port > 65535) {
		r.fail(field, "port %q does not exist; use 1 to 65535", u.Port())
	}
	escaped := strings.TrimSuffix(u.EscapedPath(), "/")
	path, err := url.PathUnescape(escaped)
	if u.RawPath != "" && u.EscapedPath() != u.RawPath {
		err = errEncoding
	}
	if why := errors.Join(err, checkPath(escaped)); why != nil {
		r.fail(field, "its path cannot be a base: %v", why)
	}
	u.Path, u.RawPath = path, escaped
	return u
}

// check looks at what fields mean together.
func (r *entryReader) check() {
	e := r.entry
	if !r.seen["url"] {
		r.fail("url", "is missing; use http(s)://host[:port][/base]")
	}
	e.Unpriced = !r.seen["pricePerCall"] && !r.seen["pricePerKB"]
	r.belongs("header", AuthHeader)
	r.belongs("secretSetting", AuthHeader)
	r.belongs("scope", AuthIdentity)
	if r.seen["secretSetting"] && e.Auth == AuthHeader {
		switch e.Secret = r.lookup(r.setting); {
		case r.setting == "" || e.Secret == "":
			r.fail("secretSetting", "the setting %q is not set; set it to the secret, or name another", r.setting)
		case strings.ContainsFunc(e.Secret, func(c rune) bool { return c < ' ' || c == 0x7f }) || e.Secret != strings.TrimSpace(e.Secret):
			r.fail("secretSetting", "the value of %q cannot stand in a header; remove its line ends, control characters and outer spaces", r.setting)
		}
	}
	if e.Auth != AuthPass && e.URL != nil && e.URL.Scheme == "http" && !e.onNetwork() {
		r.fail("url", `must be https, since it gets a credential; or say "private":true if no public network is on the way`)
	}
}

// belongs requires a field for one kind of auth, and refuses it for the others.
func (r *entryReader) belongs(field string, auth Auth) {
	switch {
	case r.entry.Auth == auth && !r.seen[field]:
		r.fail(field, "is missing; auth %q needs it", auth)
	case r.entry.Auth != auth && r.seen[field]:
		r.fail(field, `is for auth %q only; leave it out, or set "auth":%q`, auth, auth)
	}
}

// onNetwork tells whether no public network is on the way to the service.
func (e *Entry) onNetwork() bool {
	a, err := netip.ParseAddr(e.URL.Hostname())
	return e.Private || strings.EqualFold(e.URL.Hostname(), "localhost") || err == nil && !public(a)
}

// reserved tells whether a header is of a connection, of a message's frame, or
// ours.
func reserved(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "proxy-") || strings.HasPrefix(lower, "x-costgate-") || slices.Contains([]string{
		"connection", "content-encoding", "content-length", "content-type", "expect", "host", "http2-settings", "keep-alive", "te", "trailer",
		"transfer-encoding", "upgrade",
	}, lower)
}

// isToken tells whether a name may be a header's (RFC 9110, 5.6.2).
func isToken(s string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(marks, r)
	}) < 0
}
