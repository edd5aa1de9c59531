package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

const (
	settingsBegin = "<!-- settings:begin -->\n"
	settingsEnd   = "<!-- settings:end -->"
)

// TestReadmeSettings keeps the README's table equal to the code's. With
// UPDATE=1 in the environment it writes it.
func TestReadmeSettings(t *testing.T) {
	const path = "../README.md"
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(readme, []byte(settingsBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(settingsEnd))
	if !ok || !ok2 {
		t.Fatal("the README has no place for the settings")
	}
	want := string(before) + settingsBegin + settingsTable() + settingsEnd + string(after)
	if string(readme) == want {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatal("the README's table of settings differs from the code's: run UPDATE=1 go test ./handler -run ReadmeSettings")
	}
	if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestConfig(t *testing.T) {
	f := func(env map[string]string, want ...string) {
		t.Helper()
		_, err := ParseConfig("127.0.0.1:0", func(name string) string { return env[name] })
		got := ""
		if err != nil {
			got = err.Error()
		}
		if len(want) == 0 && got != "" {
			t.Errorf("%v: %s", env, got)
		}
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%v: %q does not name %q", env, got, part)
			}
		}
	}
	const key = "0123456789abcdef"
	with := func(pairs ...string) map[string]string {
		env := map[string]string{"ADMIN_KEY": key}
		for i := 0; i < len(pairs); i += 2 {
			env[pairs[i]] = pairs[i+1]
		}
		return env
	}
	f(with())
	f(nil, "ADMIN_KEY: is not set")
	f(with("ADMIN_KEY", "short"), "ADMIN_KEY: has 5 characters")
	f(with("AZURE_OPENAI_ENDPOINT", "r.openai.azure.com"), "AZURE_OPENAI_ENDPOINT", "http(s)://")
	f(with("STREAM_MAX", "soon", "STREAM_KEEPALIVE", "-1s"), "STREAM_MAX", "STREAM_KEEPALIVE")
	f(with("LOG_LEVEL", "loud"), "LOG_LEVEL")
	f(with("DEPLOYMENTS", `{"a":{"modell":"gpt-4o"}}`), "DEPLOYMENTS", "modell")
	f(with("DEPLOYMENTS", "/no/such/file"), "DEPLOYMENTS")
	f(with("PRICES_FILE", `{"version":"x","prices":[{"model":"m","pico_usd":{"in":0}}]}`), "PRICES_FILE")
	f(with("QuotaTableName", "1x"), "QuotaTableName")
	f(with("QuotaStorage", "x", "QuotaStorage__tableServiceUri", "y"), "QuotaStorage")
	hosted := map[string]string{"FUNCTIONS_CUSTOMHANDLER_PORT": "8080"}
	f(hosted, "AZURE_OPENAI_ENDPOINT", "QuotaStorage")
	f(map[string]string{"FUNCTIONS_CUSTOMHANDLER_PORT": "8080", "AZURE_OPENAI_ENDPOINT": "simulator", "QuotaStorage": "x"}, "AZURE_OPENAI_ENDPOINT")
	f(map[string]string{"FUNCTIONS_CUSTOMHANDLER_PORT": "8080", "AZURE_OPENAI_ENDPOINT": "https://x", "QuotaStorage": "x"})
	f(map[string]string{"FUNCTIONS_CUSTOMHANDLER_PORT": "8080", "AZURE_OPENAI_ENDPOINT": "https://x", "QuotaStorage": "x", "STREAM_KEEPALIVE": "220s"})
	f(map[string]string{"FUNCTIONS_CUSTOMHANDLER_PORT": "8080", "AZURE_OPENAI_ENDPOINT": "https://x", "QuotaStorage": "x", "STREAM_KEEPALIVE": "221s"}, "STREAM_KEEPALIVE: 3m41s is too long")
	f(map[string]string{"FUNCTIONS_CUSTOMHANDLER_PORT": "8080", "AZURE_OPENAI_ENDPOINT": "https://x", "QuotaStorage": "x", "STREAM_KEEPALIVE": "0"})
}
