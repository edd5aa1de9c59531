// Command bench measures the gateway against a bare reverse proxy and against no
// proxy at all, in one run: throughput, added latency, CPU and memory. All
// parts are processes of their own on this machine; the upstream is the
// built-in simulator.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"time"

	"github.com/costgate/costgate/e2e/figures"
)

const (
	adminKey  = "bench-admin-key-0123456789"
	bareProxy = "proxy" // the subcommand that is the bare reverse proxy
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == bareProxy {
		fatal(serveProxy(os.Args[2]))
	}
	gateway := flag.String("gateway", "./gateway", "the gateway's binary")
	rounds := flag.Int("rounds", 3, "rounds; the targets come in another order in each")
	seconds := flag.Float64("seconds", 5, "length of one closed-loop measurement")
	out := flag.String("out", "", "Markdown file whose table to replace")
	smoke := flag.Bool("smoke", false, "one short round: does it still work?")
	flag.Parse()
	b := &bench{rounds: *rounds, span: time.Duration(*seconds * float64(time.Second)), streams: 384, chunks: 200}
	if *smoke {
		b.rounds, b.span, b.streams, b.chunks = 1, 300*time.Millisecond, 16, 20
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	report, err := b.run(ctx, *gateway)
	if err == nil {
		fmt.Print(report)
		if *out != "" {
			err = figures.Replace(*out, "bench", report)
		}
	}
	fatal(err)
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// serveProxy is Go's reverse proxy and nothing else: what the gateway is
// measured against.
func serveProxy(target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(u) },
		FlushInterval: -1,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 2048, DisableCompression: true},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listening on http://" + listener.Addr().String())
	return http.Serve(listener, proxy) //nolint:gosec // on loopback, for the length of a benchmark
}

type bench struct {
	rounds, streams, chunks int
	span                    time.Duration
	targets                 []*target
	results                 map[string][]result
	streamed                map[string][]streamResult
}

// target is one way to the simulator.
type target struct {
	name, url, key string
	process        *os.Process // whose CPU and memory count
}

var address = regexp.MustCompile(`http://[0-9.]+:[0-9]+`)

// launch starts a process and waits for its address.
func launch(ctx context.Context, env []string, command string, args ...string) (string, *os.Process, error) {
	c := exec.CommandContext(ctx, command, args...) //nolint:gosec // what the user says
	c.Env = append(os.Environ(), env...)
	c.Stderr = os.Stderr
	stdout, err := c.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	first := make([]byte, 256)
	n, err := stdout.Read(first)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", command, err)
	}
	go func() { _, _ = io.Copy(io.Discard, stdout); _ = c.Wait() }() // ends with the context
	found := address.FindString(string(first[:n]))
	if found == "" {
		return "", nil, fmt.Errorf("%s: no address in %q", command, first[:n])
	}
	return found, c.Process, nil
}

func (b *bench) run(ctx context.Context, gateway string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	data, err := os.MkdirTemp("", "costgate-bench-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(data)
	simURL, sim, err := launch(ctx, nil, gateway, "simulator", "-listen", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	proxyURL, proxy, err := launch(ctx, nil, self, bareProxy, simURL)
	if err != nil {
		return "", err
	}
	env := []string{"AZURE_OPENAI_ENDPOINT=" + simURL, "AZURE_OPENAI_API_KEY=bench", "DATA_DIR=" + data, "ADMIN_KEY=" + adminKey, "QuotaStorage=", "LOG_LEVEL=error"}
	gatewayURL, gate, err := launch(ctx, env, gateway, "-listen", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	key := "bench-product-key-0123456789"
	if err := createProduct(gatewayURL, key); err != nil {
		return "", err
	}
	b.targets = []*target{{"direct", simURL, "any", sim}, {"bare reverse proxy", proxyURL, "any", proxy}, {"gateway", gatewayURL, key, gate}}
	b.results, b.streamed = map[string][]result{}, map[string][]streamResult{}
	for round := range b.rounds {
		order := rand.Perm(len(b.targets))
		for _, c := range []int{1, 32, 256} {
			for _, i := range order {
				if err := b.closed(ctx, b.targets[i], c); err != nil {
					return "", err
				}
			}
		}
		for _, i := range order {
			if err := b.stream(ctx, b.targets[i]); err != nil {
				return "", err
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, b.rounds)
	}
	return b.report(fsync(data)), nil
}

func createProduct(base, key string) error {
	body := fmt.Sprintf(`{"subscriptionKey":%q,"productName":"Bench","amount":"1000000"}`, key)
	r, err := http.NewRequest(http.MethodPost, base+"/api/Quota", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("x-functions-key", adminKey)
	for try := range 50 {
		answer, err := http.DefaultClient.Do(r.Clone(r.Context()))
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return nil
		}
		if try == 49 {
			return fmt.Errorf("create: %s", answer.Status)
		}
		r.Body = io.NopCloser(strings.NewReader(body))
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("unreachable")
}

// fsync is how long the disk takes to make 4 KiB durable: the gateway's books
// cannot be faster.
func fsync(dir string) time.Duration {
	f, err := os.CreateTemp(dir, "fsync")
	if err != nil {
		return 0
	}
	defer f.Close()
	const times = 50
	block := make([]byte, 4096)
	start := time.Now()
	for range times {
		if _, err := f.Write(block); err != nil {
			return 0
		}
		if err := f.Sync(); err != nil {
			return 0
		}
	}
	return time.Since(start) / times
}

// chatBody is a request of about 1.5 KB.
var chatBody = func() []byte {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog near the old river bank. ", 5)
	messages := []map[string]string{{"role": "system", "content": text}, {"role": "user", "content": text}, {"role": "assistant", "content": text}, {"role": "user", "content": text}}
	body, _ := json.Marshal(map[string]any{"model": "gpt-4o", "messages": messages, "max_tokens": 100})
	return body
}()

var streamBody = bytes.Replace(chatBody, []byte(`{`), []byte(`{"stream":true,"stream_options":{"include_usage":true},`), 1)
