package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestMetrics: what is refused is counted by its code, what the relay does is
// seen, and the log has each once, when it changes.
func TestMetrics(t *testing.T) {
	env := map[string]string{"ADMIN_KEY": "0123456789abcdef", "DATA_DIR": t.TempDir()}
	config, err := ParseConfig("127.0.0.1:0", func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	app := NewApp(config, slog.New(slog.DiscardHandler))
	if err := app.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	call := func(path, key string) (int, string) {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("x-functions-key", key)
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		body, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, string(body)
	}
	if code, _ := call("/metrics", "wrong"); code != http.StatusUnauthorized {
		t.Errorf("without the key: %d", code)
	}
	call("/openai/v1/models", "")
	call("/openai/v1/models", "")
	code, text := call("/Metrics/", "0123456789abcdef")
	for _, want := range []string{"costgate_refusals_total{code=\"invalid_api_key\"} 2\n", "costgate_lake_records_waiting 0\n", "# TYPE costgate_lake_records_sent gauge\n"} {
		if code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%d, no %q in\n%s", code, want, text)
		}
	}
	before := map[string]int64{}
	if attrs := app.changed(before); len(attrs) != 1 || attrs[0].Key != `costgate_refusals_total{code="invalid_api_key"}` || attrs[0].Value.Int64() != 2 {
		t.Errorf("%v", attrs)
	}
	if attrs := app.changed(before); len(attrs) != 0 {
		t.Errorf("nothing changed, but %v", attrs)
	}
}
