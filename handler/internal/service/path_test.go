package service

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	f := func(target, name, rest string, ok bool) {
		t.Helper()
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		if n, r, k := split(u); n != name || r != rest || k != ok {
			t.Errorf("%s: %q, %q, %v", target, n, r, k)
		}
	}
	f("/services/w", "w", "", true)
	f("/Services/W/A%2Fb//c/", "w", "/A%2Fb//c/", true)
	f("/services/w/", "w", "/", true)
	f("/services//w", "", "/w", true) // a name that no entry has
	f("//services/w", "", "", false)
	f("/services", "", "", false)
	f("/services%2Fw/x", "", "", false)
	f("/servicesx/w", "", "", false)
}

func TestCheckPath(t *testing.T) {
	f := func(escaped string, want error) {
		t.Helper()
		if err := checkPath(escaped); err != want { //nolint:errorlint // the error itself is meant
			t.Errorf("%q: %v, want %v", escaped, err, want)
		}
	}
	for _, good := range []string{
		"", "/", "/a", "/a/", "/a//b", "/a/b.c", "/.well-known/x", "/..a", "/a..", "/a;v=1", "/a%2Fb", "/a%252Fb", "/caf%C3%A9", "/a+b", "/a%20b",
		"/https:%2F%2Fexample.com", "/x:y@z", "/%", "/100%25", "/a%3Fb", "/~user", "/a%00b"[:3], "/%E2%80%8B", "/a%E2%80%A6", "/%E3%80%82a", "/%E3%80%80",
	} {
		f(good, nil)
	}
	for _, bad := range []string{
		"/..", "/../x", "/a/../b", "/a/..", "/.", "/./a", "/a/.", "/...", "/%2e%2e/x", "/%2E.", "/.%2e/", "/a/%2e%2e", "/%252e%252e/", "/%25252e%25252e",
		"/..;/x", "/..;a=b/x", "/.;/x", "/a%2F..%2Fb", "/%2e%2e%2fx", "/..%252fx", "/..%3Fx", "/..%23", "/..%20/x", "/.. /x", "/..+/x", "/%3B/..",
		"/..%C2%85/x", "/..%E2%80%8B/x", "/%EF%BB%BF../x", "/.%C2%AD./x", "/..%E3%80%80/x", "/..%C2%A0/x", "/..%25E2%2580%258B/x",
		"/%EF%BC%8E%EF%BC%8E/x", "/%E2%80%A4./x", "/%E2%80%A5/x", "/%E2%80%A6/x", "/%E3%80%82%E3%80%82/x", "/%EF%B9%92./x", "/%EF%BD%A1./x",
	} {
		f(bad, errDots)
	}
	f(`/..\x`, errBackslash)
	f("/a%5Cb", errBackslash)
	f("/a%255cb", errBackslash)
	f("//host/x", errLeading)
	f("/%2Fhost/x", errLeading)
	f("/%252Fhost/x", errLeading)
	f("/a%00", errControl)
	f("/a%0d%0aX:%20y", errControl)
	f("/a%2500", errControl)
	f("/a%7f", errControl)
	f("/%c0%ae%c0%ae/x", errUTF8)
	f("/a%ff", errUTF8)
	f("/a%25252541", nil)
	f("/a%2525252541", errLayers)
}

func TestBelow(t *testing.T) {
	f := func(base, target, want string) {
		t.Helper()
		client, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		r := &entryReader{entry: &Entry{Name: "w"}}
		e := &Entry{URL: r.base("url", base)}
		if len(r.problems) > 0 {
			t.Fatal(r.problems)
		}
		_, rest, _ := split(client)
		u, err := e.below(client, rest)
		got := "refused"
		if err == nil {
			got = u.Scheme + "://" + u.Host + u.RequestURI()
		}
		if got != want {
			t.Errorf("%s at %s: %s, want %s", target, base, got, want)
		}
	}
	f("https://h", "/services/w", "https://h/")
	f("https://h/", "/services/w/", "https://h/")
	f("https://h/base/", "/services/w", "https://h/base")
	f("https://h/base", "/services/w/", "https://h/base/")
	f("https://h/a%2Fb", "/services/w/c%2Fd//e", "https://h/a%2Fb/c%2Fd//e")
	f("https://h:8443/base", "/services/w/%41b", "https://h:8443/base/%41b")
	f("https://h/base", "/services/w/a|b%2Fc", "refused") // what Go makes of it is another path
	f("https://h/base", "/services/w/a\xffb", "refused")
	f("https://h/base", "/services/w/%2e%2e/admin", "refused")
}

// FuzzPath: whatever passes stays below the base for all who resolve it, however
// often they decode it.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/a/b", "/%2e%2e/x", "/..;/x", "/a%252F..", "/%5c..%5cx", "//h/x", "/a%3f/../x", "/%25%32%65.", "/. ./x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		client, err := url.ParseRequestURI("/services/w" + rest)
		if err != nil || !strings.HasPrefix(rest, "/") || client.RawQuery != "" || client.ForceQuery {
			return
		}
		base, _ := url.Parse("https://host/base/deep")
		e := &Entry{URL: base}
		_, behind, ok := split(client)
		if !ok {
			t.Fatalf("%q is not below services/", rest)
		}
		u, err := e.below(client, behind)
		if err != nil {
			return
		}
		if u.EscapedPath() != "/base/deep"+rest || u.Host != "host" {
			t.Fatalf("%q was changed to %q", rest, u)
		}
		form := u.EscapedPath()
		for range 4 {
			inside(t, rest, form)
			strict, err := url.PathUnescape(form)
			if err == nil {
				inside(t, rest, strict)
			}
			form = decodeOnce(form)
		}
	})
}

// inside holds a form of a path against the ways in which it may be resolved.
func inside(t *testing.T, rest, form string) {
	t.Helper()
	tail := strings.TrimPrefix(form, "/base/deep")
	for _, read := range []string{form, strings.ReplaceAll(form, `\`, "/"), parameterless(form), cut(form, "?"), cut(form, "#"), strings.ReplaceAll(form, " ", "")} {
		if clean := path.Clean(read); clean != "/base/deep" && !strings.HasPrefix(clean, "/base/deep/") {
			t.Fatalf("%q leaves the base as %q: %q", rest, read, clean)
		}
	}
	if joined := path.Join("/base/deep", tail); joined != "/base/deep" && !strings.HasPrefix(joined, "/base/deep/") {
		t.Fatalf("%q leaves the base joined: %q", rest, joined)
	}
	if ref, err := url.Parse("https://host" + form); err == nil {
		if got := ref.ResolveReference(&url.URL{}); got.Host != "host" || !strings.HasPrefix(got.Path, "/base/deep") {
			t.Fatalf("%q resolves to %q", rest, got)
		}
	}
	if ref, err := url.Parse(tail); err == nil && ref.Host != "" {
		t.Fatalf("%q names the host %q", rest, ref.Host)
	}
}

func cut(s, at string) string {
	before, _, _ := strings.Cut(s, at)
	return before
}

// parameterless drops what follows a semicolon in each segment, as servlets do.
func parameterless(s string) string {
	segments := strings.Split(s, "/")
	for i := range segments {
		segments[i] = cut(segments[i], ";")
	}
	return strings.Join(segments, "/")
}
