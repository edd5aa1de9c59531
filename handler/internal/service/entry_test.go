package service

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
)

func setting(name string) string {
	return map[string]string{"KEY": "s3cret", "BROKEN": "a\nb", "SPACED": " a"}[name]
}

func TestParse(t *testing.T) {
	s, problems := Parse(`{"w":{"url":"https://h/base/","auth":"header","header":"x-key","secretSetting":"KEY","pricePerCall":"0.001","pricePerKB":"0.000000001",
		"timeout":"90s","bodyBytesMax":1,"private":true},"free-1":{"url":"http://10.0.0.1:8080","pricePerCall":"0"},
		"i":{"url":"https://h","auth":"identity","scope":"api://x/.default","pricePerCall":"1000"}}`, setting)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	w, free, i := s.Entries["w"], s.Entries["free-1"], s.Entries["i"]
	if w.URL.String() != "https://h/base" || w.Auth != AuthHeader || w.Header != "x-key" || w.Secret != "s3cret" || w.PerCall != 1_000_000 || w.PerKB != 1 ||
		w.Timeout != 90*time.Second || w.BodyBytesMax != 1 || !w.Private || !w.local() {
		t.Errorf("w: %+v", w)
	}
	if free.Auth != AuthPass || free.PerCall != 0 || free.PerKB != 0 || free.Timeout != TimeoutDefault || free.BodyBytesMax != BodyBytesMax || free.Private || !free.local() {
		t.Errorf("free-1: %+v", free)
	}
	if i.Scope != "api://x/.default" || i.PerCall != PriceMax || i.local() {
		t.Errorf("i: %+v", i)
	}
	if again, _ := Parse(`{}`, setting); len(s.Version) != len("services-01234567") || s.Version == again.Version {
		t.Errorf("versions %q and %q", s.Version, again.Version)
	}
	if none, problems := Parse(" ", setting); len(none.Entries) != 0 || len(problems) != 0 {
		t.Errorf("no setting: %v, %v", none, problems)
	}
}

// Each error names the entry, the field, and what to do.
func TestParseErrors(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		_, problems := Parse(text, setting)
		got := fmt.Sprint(problems)
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %s does not say %q", text, got, part)
			}
		}
		if len(problems) != 1 && !strings.Contains(text, "two") {
			t.Errorf("%s: %d problems: %s", text, len(problems), got)
		}
		if strings.Contains(got, "s3cret") {
			t.Errorf("%s: the secret is in %s", text, got)
		}
	}
	with := func(fields string) string { return `{"w":{"url":"https://h","pricePerCall":"0",` + fields + `}}` }
	url := func(u string) string { return `{"w":{"url":"` + u + `","pricePerCall":"0"}}` }
	f(`{`, "is not valid JSON")
	f(`[]`, "is not valid JSON")
	f(`{} x`, "is not valid JSON")
	f(`{"w":1}`, `"w" must be an object, like`)
	f(`{"w":{"pricePerCall":"0"}}`, "w.url: is missing; use http(s)://")
	f(`{"W":{"url":"https://h","pricePerCall":"0"}}`, `"W" is no name of a service; use 1 to 64 of a-z, 0-9 and -`)
	f(`{"":{"url":"https://h","pricePerCall":"0"}}`, `"" is no name`)
	f(`{"a_b":{"url":"https://h","pricePerCall":"0"}}`, "is no name")
	f(`{"`+strings.Repeat("a", 65)+`":{"url":"https://h","pricePerCall":"0"}}`, "is no name")
	f(`{"w":{"url":"https://h","pricePerCall":"0"},"w":{"url":"https://h","pricePerCall":"0"}}`, `"w" is there twice`)
	f(`{"two":{"url":"https://h","pricePerCall":"0"},"TWO":{"url":"https://h","pricePerCall":"0"}}`, `"TWO" is there twice (letter case does not matter)`)
	f(with(`"colour":1`), "w.colour: unknown field; the fields are url, auth,")
	f(with(`"URL":"https://h"`), "w.URL: unknown field")
	f(with(`"url":"https://h"`), "w.url: is given twice; keep one")
	f(with(`"private":null`), "w.private: is null; give a value or leave the field out")
	for _, bad := range []string{"", "h/base", "ftp://h", "https://", "https://h?a=1", "https://h?", "https://h#f", "https://h#", "https://u:p@h", "https:h", "https://:80"} {
		f(url(bad), "w.url: must be http(s)://host[:port][/base], without query, fragment or user")
	}
	f(url("https://h:0"), `w.url: port "0" does not exist; use 1 to 65535`)
	f(url("https://h:65536"), "w.url: port")
	f(url("https://h/a/../b"), "w.url: its path cannot be a base: a segment of it is made of dots only")
	f(url("https://h//x"), "begins with two slashes")
	f(url("https://h/%5C"), "backslash")
	f(with(`"auth":"basic"`), `w.auth: "basic" is not known; use pass, header or identity`)
	f(with(`"auth":1,"two":1`), "w.auth: must be a string")
	f(with(`"auth":"header","header":"x-key"`), `w.secretSetting: is missing; auth "header" needs it`)
	f(with(`"auth":"header","secretSetting":"KEY"`), `w.header: is missing`)
	f(with(`"auth":"header","secretSetting":"KEY","header":""`), `w.header: is missing`)
	f(with(`"auth":"header","header":"x-key","secretSetting":"NONE"`), `w.secretSetting: the setting "NONE" is not set; set it to the secret`)
	f(with(`"auth":"header","header":"x-key","secretSetting":"BROKEN"`), `w.secretSetting: the value of "BROKEN" cannot stand in a header`)
	f(with(`"auth":"header","header":"x-key","secretSetting":"SPACED"`), "cannot stand in a header")
	for _, bad := range []string{"x key", "x:key", "Connection", "Host", "content-length", "Proxy-Authorization", "X-Costgate-Product", "upgrade", "é"} {
		f(with(`"auth":"header","secretSetting":"KEY","header":"`+bad+`"`), "w.header:", "cannot carry a secret; use a header of the service's own")
	}
	f(with(`"header":"x-key"`), `w.header: is for auth "header" only; leave it out, or set "auth":"header"`)
	f(with(`"scope":"x"`), `w.scope: is for auth "identity" only`)
	f(with(`"auth":"identity"`), `w.scope: is missing; auth "identity" needs it`)
	f(with(`"auth":"identity","scope":"a b"`), `w.scope: "a b" is no scope`)
	f(`{"w":{"url":"http://h","auth":"identity","scope":"s","pricePerCall":"0"}}`, "w.url: must be https, since it gets a credential")
	f(`{"w":{"url":"http://8.8.8.8","auth":"identity","scope":"s","pricePerCall":"0"}}`, "w.url: must be https")
	for _, bad := range []string{`"-1"`, `"-0"`, `"1e-3"`, `"1,5"`, `""`, `".5"`, `"0.0000000001"`, `"1000.000000001"`, `0.001`, `true`} {
		f(with(`"pricePerKB":`+bad), "w.pricePerKB: ")
	}
	for _, bad := range []string{`"999ms"`, `"30m0.001s"`, `"100"`, `""`, `"-5s"`} {
		f(with(`"timeout":`+bad), "w.timeout: "+bad+" is not a duration from 1s to 30m0s; use a form like")
	}
	for _, bad := range []string{"0", "-1", "104857601", "1.5", "1e3", `"5"`} {
		f(with(`"bodyBytesMax":`+bad), "w.bodyBytesMax: "+bad+" is not a whole number of bytes from 1 to 104857600")
	}
	f(with(`"private":1`), "w.private: 1 is neither true nor false")
	f(`{"two":{"url":"x","timeout":"x"}}`, "two.url", "two.timeout") // all at once
	good := func(text string) {
		t.Helper()
		if _, problems := Parse(text, setting); len(problems) > 0 {
			t.Errorf("%s: %v", text, problems)
		}
	}
	good(with(`"timeout":"1s"`))
	good(with(`"timeout":"30m"`))
	good(with(`"bodyBytesMax":104857600`))
	good(with(`"pricePerKB":"1000"`))
	good(with(`"auth":"header","secretSetting":"KEY","header":"x-functions-key"`))
	good(`{"w":{"url":"https://h"}}`)
	good(`{"w":{"url":"https://h","auth":"pass","header":"","secretSetting":"","scope":"","pricePerKB":"0"}}`)
	good(`{"w":{"url":"http://127.0.0.1:1","auth":"identity","scope":"s","pricePerCall":"0"}}`)
	good(`{"w":{"url":"http://svc.internal","auth":"identity","scope":"s","pricePerCall":"0","private":true}}`)
	good(`{"` + strings.Repeat("a", 64) + `":{"url":"https://h","pricePerCall":"0"}}`)
}

func TestEntriesMax(t *testing.T) {
	text := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"s%d":{"url":"https://h","pricePerCall":"0"}`, i)
		}
		return "{" + b.String()[1:] + "}"
	}
	if s, problems := Parse(text(EntriesMax), setting); len(problems) != 0 || len(s.Entries) != EntriesMax {
		t.Errorf("%d entries: %v", EntriesMax, problems)
	}
	if _, problems := Parse(text(EntriesMax+1), setting); len(problems) != 1 {
		t.Errorf("one more: %v", problems)
	}
	if _, problems := Parse(`{}`+strings.Repeat(" ", settingBytesMax-2), setting); len(problems) != 0 {
		t.Errorf("largest setting: %v", problems)
	}
	if _, problems := Parse(`{}`+strings.Repeat(" ", settingBytesMax-1), setting); len(problems) != 1 {
		t.Errorf("one byte more: %v", problems)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"w":{"url":"https://h/base","auth":"header","header":"x-key","secretSetting":"KEY","pricePerCall":"0.001","timeout":"100s"}}`)
	f.Add(`{"w":{"url":"https://h/%2e","pricePerKB":"9","bodyBytesMax":1}}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, problems := Parse(text, setting)
		if len(problems) > 0 {
			return
		}
		for name, e := range s.Entries {
			if !validName(name) || e.URL == nil || e.PerCall < 0 || e.PerCall > PriceMax || e.PerKB < 0 || e.Timeout < TimeoutLeast || e.BodyBytesMax < 1 {
				t.Errorf("%s: %+v", text, e)
			}
			if _, _, err := e.cost(2*e.BodyBytesMax, 100_000_000); err != nil {
				t.Logf("%s: %v", text, err)
			}
		}
	})
}

func TestCost(t *testing.T) {
	f := func(call, perKB money.Nano, bytes, ppm int64, list, charged money.Nano) {
		t.Helper()
		e := &Entry{PerCall: call, PerKB: perKB}
		if l, c, err := e.cost(bytes, ppm); err != nil || l != list || c != charged {
			t.Errorf("%d + %d/KB of %d bytes at %d ppm: %d, %d, %v; want %d, %d", call, perKB, bytes, ppm, l, c, err, list, charged)
		}
	}
	f(1_000_000, 0, 1<<30, 0, 1_000_000, 1_000_000)
	f(0, 0, 5, 0, 0, 0)
	f(7, 3, 0, 0, 7, 7)
	f(7, 3, 1, 0, 10, 10)
	f(7, 3, 1024, 0, 10, 10)
	f(7, 3, 1025, 0, 13, 13)
	f(7, 3, 1, 1_500_000, 10, 15)
	f(7, 2, 1, 1_500_000, 9, 14) // 13.5, rounded up once
	f(0, 1, 1, 1, 1, 1)
	f(PriceMax, PriceMax, 2*BodyBytesMax, 0, 1e12*204801, 1e12*204801)
	if _, _, err := (&Entry{PerCall: PriceMax, PerKB: PriceMax}).cost(2*BodyBytesMax, 100_000_000); err == nil {
		t.Error("more than any budget has a price")
	}
}

// TestWithin: what an amount pays for costs no more than it, and one KB more does.
func TestWithin(t *testing.T) {
	for _, ppm := range []int64{0, 1, 999_999, 1_500_000} {
		for perKB := money.Nano(1); perKB < 2000; perKB = perKB*3 + 1 {
			for amount := money.Nano(50); amount < 100_000; amount = amount*2 + 7 {
				e := &Entry{PerCall: 50, PerKB: perKB}
				if _, least, _ := e.cost(0, ppm); least > amount {
					continue
				}
				n := e.within(amount, math.MaxInt32, ppm)
				_, cost, err := e.cost(n, ppm)
				_, more, _ := e.cost(n+1, ppm)
				if err != nil || cost > amount || more <= amount && n < math.MaxInt32 {
					t.Fatalf("%d per KB, %d, %d ppm: %d bytes cost %d, one more %d", perKB, amount, ppm, n, cost, more)
				}
			}
		}
	}
}
