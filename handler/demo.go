package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// demoFile keeps the keys of a demo on this machine. It is not in DATA_DIR:
// nothing that the gateway itself writes has a key in it.
const demoFile = ".demo.env"

// demoCommand serves standalone with a product whose key it prints.
func demoCommand(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	keys, err := demoKeys()
	if err != nil {
		fmt.Fprintf(stderr, "gateway demo: %v\n", err)
		return exitFailed
	}
	env := func(name string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return keys[name]
	}
	return serveCommand(ctx, args, env, stdout, stderr, func(a *App, address string) error {
		product := keys["DEMO_PRODUCT_KEY"]
		if err := demoProduct(ctx, address, product, env("ADMIN_KEY")); err != nil {
			return fmt.Errorf("demo product: %w", err)
		}
		fmt.Fprintf(stdout, demoText, address, product, env("ADMIN_KEY"), a.describeUpstream(), address, product, address, product, env("ADMIN_KEY"))
		return nil
	})
}

// demoProduct creates the demo's product over the API, if it is not there.
func demoProduct(ctx context.Context, address, key, adminKey string) error {
	call := func(method, path, body string) (int, error) {
		r, err := http.NewRequestWithContext(ctx, method, address+path, strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		r.Header.Set("x-functions-key", adminKey)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err
		}
		return answer.StatusCode, answer.Body.Close()
	}
	status, err := call(http.MethodGet, "/api/Quota/"+key, "")
	if err == nil && status == http.StatusNotFound {
		status, err = call(http.MethodPost, "/api/Quota", fmt.Sprintf(`{"subscriptionKey":%q,"productName":"Demo","amount":"5.00"}`, key))
	}
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

const demoText = `
Costgate is ready.

  URL          %s
  product key  %s
  admin key    %s
  upstream     %s

Ask for something:

  curl -s '%s/openai/v1/chat/completions' -H 'api-key: %s' -H 'Content-Type: application/json' -d '{"model":"gpt-4o","messages":[{"role":"user","content":"What does this cost?"}]}'

See what it cost:

  curl -s '%s/api/Quota/%s' -H 'x-functions-key: %s'

Stop with Ctrl-C. Balances and records stay.

`

func (a *App) describeUpstream() string {
	if a.config.Endpoint == simulatorEndpoint {
		return "the built-in simulator (set AZURE_OPENAI_ENDPOINT for the real one)"
	}
	return a.config.Endpoint
}

// demoKeys reads the demo's keys, or makes them once.
func demoKeys() (map[string]string, error) {
	keys := map[string]string{}
	file, err := os.Open(demoFile)
	if err == nil {
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), "="); ok {
				keys[name] = value
			}
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	made := false
	for name, prefix := range map[string]string{"ADMIN_KEY": "admin-", "DEMO_PRODUCT_KEY": "demo-"} {
		if keys[name] == "" {
			keys[name], made = prefix+rand.Text(), true
		}
	}
	if !made {
		return keys, nil
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		fmt.Fprintf(&text, "%s=%s\n", name, keys[name])
	}
	return keys, os.WriteFile(demoFile, []byte(text.String()), 0o600)
}

// simulatorCommand serves the simulator alone, for tests and benchmarks.
func simulatorCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	listen, key := "127.0.0.1:7072", ""
	err := parseFlags("gateway simulator", args, stderr, func(set *flag.FlagSet) {
		set.StringVar(&listen, "listen", listen, "")
		set.StringVar(&key, "key", "", "")
	})
	if err != nil {
		return exitSettings
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		fmt.Fprintf(stderr, "gateway simulator: %v\n", err)
		return exitFailed
	}
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: newSimulator(key, nil), ReadHeaderTimeout: time.Minute}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintf(stderr, "gateway simulator: %v\n", err)
		return exitFailed
	}
	return exitOK
}
