// Package azurite runs the table service of Azurite, Microsoft's emulator of
// Azure Storage, for tests.
//
// A test binary shares one process of it, which keeps everything in memory and
// ends when the test binary does, however that ends: it watches its standard
// input, which the kernel closes then. Tests keep apart by table names.
//
// Azurite is more lenient than the real service and never throttles; what only
// the real service refuses has to be tested without it.
package azurite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The account that every Azurite has; the key is no secret.
const (
	Account = "devstoreaccount1"
	Key     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

const (
	startTimeMax = 60 * time.Second // of a busy machine
	script       = "e2e/node_modules/azurite/dist/src/table/main.js"
)

// ErrAbsent means that Azurite is not installed.
var ErrAbsent = errors.New("no Azurite here: make deps")

// preload ends the process with its parent, and says which free port it got.
const preload = `data:text/javascript,
import net from 'node:net';
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...a) {
  this.once('listening', () => console.log('port=' + this.address().port));
  return listen.apply(this, a);
};`

// Process is a running Azurite.
type Process struct {
	Port    int
	command *exec.Cmd
	stdin   io.Closer
}

var shared = sync.OnceValues(func() (*Process, error) { return Launch(os.Getenv("AZURITE")) })

// Start gives the connection string of the test binary's Azurite, which it
// starts the first time. Without Azurite the test is skipped; in CI it fails.
func Start(t testing.TB) string {
	t.Helper()
	p, err := shared()
	switch {
	case errors.Is(err, ErrAbsent) && os.Getenv("CI") != "true":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return p.ConnectionString()
}

var tables atomic.Int64

// Table makes a table name that no other test of this binary has.
func Table() string { return "Test" + strconv.FormatInt(tables.Add(1), 10) }

// Launch starts an Azurite and waits until it answers. path is its script; if
// empty, that of e2e/node_modules in this module. The error is ErrAbsent if
// it is not there.
func Launch(path string) (*Process, error) {
	if path == "" {
		root, err := moduleRoot()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(root, filepath.FromSlash(script))
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrAbsent, err)
	}
	command := exec.Command("node", "--import", preload, path, //nolint:gosec // the tests' own emulator
		"--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck",
		"--tableHost", "127.0.0.1", "--tablePort", "0")
	command.Dir = os.TempDir() // where it may leave files
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr strings.Builder
	command.Stderr = &stderr
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start Azurite: %w", err)
	}
	p := &Process{command: command, stdin: stdin}
	if err := p.ready(stdout); err != nil {
		return nil, fmt.Errorf("%w\n%s", errors.Join(err, p.Stop()), stderr.String())
	}
	return p, nil
}

// ready reads the port and waits for the first answer.
func (p *Process) ready(stdout io.Reader) error {
	deadline := time.AfterFunc(startTimeMax, func() { _ = p.command.Process.Kill() })
	defer deadline.Stop()
	lines := bufio.NewScanner(stdout)
	for p.Port == 0 && lines.Scan() {
		if port, ok := strings.CutPrefix(lines.Text(), "port="); ok {
			p.Port, _ = strconv.Atoi(port)
		}
	}
	if p.Port == 0 {
		return fmt.Errorf("no port of Azurite: it ended, or took more than %v", startTimeMax)
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	return p.answers()
}

// answers asks once: the port is bound, so that the answer comes when the
// process is ready.
func (p *Process) answers() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeMax)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL(), nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("first request to Azurite: %w", err)
	}
	return answer.Body.Close()
}

// URL is the table endpoint, without a slash at its end.
func (p *Process) URL() string { return fmt.Sprintf("http://127.0.0.1:%d/%s", p.Port, Account) }

// ConnectionString is what the gateway's setting takes.
func (p *Process) ConnectionString() string { return ConnectionString(p.URL()) }

// ConnectionString is that of Azurite's account behind another endpoint.
func ConnectionString(endpoint string) string {
	return "AccountName=" + Account + ";AccountKey=" + Key + ";TableEndpoint=" + endpoint + ";"
}

// Stop ends the process. What it held is gone.
func (p *Process) Stop() error {
	_ = p.stdin.Close()
	_ = p.command.Process.Kill()
	var exit *exec.ExitError
	if err := p.command.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// moduleRoot is the directory of go.mod, upwards from the working directory,
// which is that of the test's package.
func moduleRoot() (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(directory, "go.mod")); err == nil {
			return directory, nil
		}
		parent := filepath.Dir(directory)
		if parent == directory {
			return "", errors.New("no go.mod above the working directory")
		}
		directory = parent
	}
}
