package main

import (
	"strings"
	"testing"
)

// Notifications need an address and a secret; neither is ever in a message.
func TestNotifySettings(t *testing.T) {
	const address, secret = "https://hooks.example/path-secret", "0123456789abcdefghijklmnop"
	f := func(url, key string, want ...string) {
		t.Helper()
		env := map[string]string{"ADMIN_KEY": "0123456789abcdef", "NOTIFY_WEBHOOK_URL": url, "NOTIFY_WEBHOOK_SECRET": key}
		c, err := ParseConfig("127.0.0.1:0", func(name string) string { return env[name] })
		got := ""
		if err != nil {
			got = err.Error()
		}
		if len(want) == 0 && got != "" {
			t.Errorf("%q, %q: %s", url, key, got)
		}
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%q, %q: %q does not say %q", url, key, got, part)
			}
		}
		for _, never := range []string{"path-secret", secret, "short"} {
			if strings.Contains(got, never) {
				t.Errorf("%q is in %q", never, got)
			}
		}
		if on := c.Notify.URL != nil && c.Notify.Key != nil; on != (len(want) == 0 && url != "") {
			t.Errorf("%q, %q: notifies: %v", url, key, on)
		}
	}
	f("", "")
	f(address, secret)
	f(address, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	f(address, "", "NOTIFY_WEBHOOK_SECRET: is not set, and NOTIFY_WEBHOOK_URL is", "openssl rand")
	f("", secret, "NOTIFY_WEBHOOK_SECRET: is set, and NOTIFY_WEBHOOK_URL is not")
	f("ftp://hooks.example/path-secret", "whsec_short", "NOTIFY_WEBHOOK_URL: is no URL; use http(s)://", "NOTIFY_WEBHOOK_SECRET: begins with whsec_, and what follows is not base64")
}
