package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// SERVICES is JSON or a file of it; each complaint names the setting, the entry
// and the field, and no secret is in one.
func TestServicesSetting(t *testing.T) {
	env := func(value string) func(string) string {
		settings := map[string]string{"ADMIN_KEY": "0123456789abcdef", "SERVICES": value, "W_KEY": "hidden-value"}
		return func(name string) string { return settings[name] }
	}
	f := func(value string, entries int, want ...string) {
		t.Helper()
		c, err := ParseConfig("127.0.0.1:0", env(value))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if len(want) == 0 && (got != "" || len(c.Services.Entries) != entries) {
			t.Errorf("%s: %s, %d entries", value, got, len(c.Services.Entries))
		}
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q does not say %q", value, got, part)
			}
		}
		if strings.Contains(got, "hidden-value") {
			t.Errorf("the secret is in %q", got)
		}
	}
	file := filepath.Join(t.TempDir(), "services.json")
	if err := os.WriteFile(file, []byte(`{"w":{"url":"https://h/base","pricePerCall":"0.001"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f("", 0)
	f("{}", 0)
	f(file, 1)
	f(`{"w":{"url":"https://h/base","auth":"header","header":"x-key","secretSetting":"W_KEY","pricePerCall":"0.001","pricePerKB":"0","timeout":"100s","bodyBytesMax":104857600}}`, 1)
	f(filepath.Join(t.TempDir(), "none"), 0, "SERVICES: is neither JSON (it would begin with {) nor a file")
	f(`{"w":{"url":"h"},"v":{"pricePerCall":"1"}}`, 0, "SERVICES: w.url: must be http(s)://", "SERVICES: v.url: is missing")
	f(`{"w":{"url":"https://h","auth":"header","header":"x-key","secretSetting":"NONE","pricePerCall":"0"}}`, 0, `SERVICES: w.secretSetting: the setting "NONE" is not set`)
	f(`{"w":{"url":"https://h","auth":"header","header":"Host","secretSetting":"W_KEY","pricePerCall":"0"}}`, 0, "SERVICES: w.header:")
}
