// Package fleet runs the parts of a trial on this machine: Azurite, several
// gateways that are killed and frozen, and an upstream that streams and keeps
// its own bill. It shares no code with the gateway: what judges it does not
// trust it.
package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// AdminKey opens the api routes of every gateway of a fleet.
const AdminKey = "fleet-admin-key-0123456789"

const (
	azuriteAccount = "devstoreaccount1"
	azuriteKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
	startMax       = 60 * time.Second
)

// preload ends Azurite with its parent, and says which free port it got.
const preload = `data:text/javascript,
import net from 'node:net';
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...a) {
  this.once('listening', () => console.log('port=' + this.address().port));
  return listen.apply(this, a);
};`

// Azurite starts Microsoft's emulator of Table Storage, which keeps everything in
// memory. script is its file. It ends with stop, or with this process.
func Azurite(script string) (url string, stop func(), err error) {
	command := exec.Command("node", "--import", preload, script, //nolint:gosec // the emulator that make deps installed
		"--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--tableHost", "127.0.0.1", "--tablePort", "0")
	command.Dir, command.Stderr = os.TempDir(), os.Stderr
	if _, err = command.StdinPipe(); err != nil { // kept open: its end ends Azurite
		return "", nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := command.Start(); err != nil {
		return "", nil, fmt.Errorf("start Azurite (make deps installs it): %w", err)
	}
	stop = func() { _ = command.Process.Kill(); _ = command.Wait() }
	watchdog := time.AfterFunc(startMax, func() { _ = command.Process.Kill() })
	defer watchdog.Stop()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if port, ok := strings.CutPrefix(lines.Text(), "port="); ok {
			go func() { _, _ = io.Copy(io.Discard, stdout) }()
			return "http://127.0.0.1:" + port, stop, nil
		}
	}
	stop()
	return "", nil, errors.New("Azurite ended before it listened")
}

// Connection is the connection string of an Azurite, or of a proxy before it.
func Connection(url string) string {
	return "DefaultEndpointsProtocol=http;AccountName=" + azuriteAccount + ";AccountKey=" + azuriteKey + ";TableEndpoint=" + url + "/" + azuriteAccount + ";"
}

// Options say what every gateway of a fleet is started with.
type Options struct {
	Binary  string
	Env     []string // settings, besides those below
	Storage string   // connection string
	Scratch string   // folder for the data of each slot
	Verbose bool
}

// Fleet is some slots, each with one gateway at a time.
type Fleet struct {
	options Options

	mu    sync.Mutex
	slots []*Gateway
	count int
	// All are the gateways that ever ran.
	All []*Gateway
}

// Gateway is one process.
type Gateway struct {
	Slot    int
	Name    string
	URL     string
	Data    string // its DATA_DIR
	Started time.Time

	command *exec.Cmd
	exited  chan struct{}
	mu      sync.Mutex
	killed  time.Time
	frozen  bool
	thawed  time.Time
}

// New makes a fleet without gateways.
func New(o Options) *Fleet { return &Fleet{options: o} }

var address = regexp.MustCompile(`listening on (http://[0-9.]+:[0-9]+)`)

// Start puts a new gateway into a slot. The slot's old one must be dead.
func (f *Fleet) Start(slot int) (*Gateway, error) {
	f.mu.Lock()
	f.count++
	name := fmt.Sprintf("g%d.%d", slot, f.count)
	f.mu.Unlock()
	data := filepath.Join(f.options.Scratch, "slot"+strconv.Itoa(slot))
	if err := os.MkdirAll(data, 0o750); err != nil {
		return nil, err
	}
	g := &Gateway{Slot: slot, Name: name, Data: data, exited: make(chan struct{})}
	g.command = exec.Command(f.options.Binary, "-listen", "127.0.0.1:0") //nolint:gosec // what the user says
	g.command.Env = append(os.Environ(), "ADMIN_KEY="+AdminKey, "DATA_DIR="+data, "QuotaStorage="+f.options.Storage, "LOG_LEVEL=error")
	g.command.Env = append(g.command.Env, f.options.Env...)
	if f.options.Verbose {
		g.command.Stderr = os.Stderr
	}
	stdout, err := g.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := g.command.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for g.URL == "" && lines.Scan() {
		if found := address.FindStringSubmatch(lines.Text()); found != nil {
			g.URL = found[1]
		}
	}
	if g.URL == "" {
		_ = g.command.Wait()
		return nil, fmt.Errorf("%s ended before it listened: %v", f.options.Binary, g.command.ProcessState)
	}
	g.Started = time.Now()
	go func() {
		for lines.Scan() { // errors only, by LOG_LEVEL
			fmt.Fprintln(os.Stderr, name, lines.Text())
		}
		_ = g.command.Wait()
		close(g.exited)
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.slots) <= slot {
		f.slots = append(f.slots, nil)
	}
	f.slots[slot] = g
	f.All = append(f.All, g)
	return g, nil
}

// In is the gateway of a slot, or nil.
func (f *Fleet) In(slot int) *Gateway {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.slots[slot]
}

// Kill ends a gateway like the Functions host does, and waits until it is gone.
func (g *Gateway) Kill() {
	g.mu.Lock()
	if g.killed.IsZero() {
		g.killed = time.Now()
	}
	g.mu.Unlock()
	_ = g.command.Process.Kill()
	<-g.exited
}

// Killed is when SIGKILL was sent; zero: never.
func (g *Gateway) Killed() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.killed
}

// Freeze stops a process where it is; Thaw lets it go on.
func (g *Gateway) Freeze() {
	g.mu.Lock()
	g.frozen = true
	g.mu.Unlock()
	_ = g.command.Process.Signal(syscall.SIGSTOP)
}

// Thaw lets a frozen process go on.
func (g *Gateway) Thaw() {
	_ = g.command.Process.Signal(syscall.SIGCONT)
	g.mu.Lock()
	g.frozen, g.thawed = false, time.Now()
	g.mu.Unlock()
}

// Frozen tells whether it is, and when it last went on.
func (g *Gateway) Frozen() (now bool, thawed time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.frozen, g.thawed
}

// Usable tells whether requests may be sent to it.
func (g *Gateway) Usable() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.frozen && g.killed.IsZero()
}

// Stop kills all that run.
func (f *Fleet) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.slots {
		if g != nil {
			g.Kill()
		}
	}
}

// client is for the api routes.
var client = &http.Client{Timeout: 60 * time.Second}

// API calls an api route and reads its JSON into into (nil: not).
func (g *Gateway) API(ctx context.Context, method, path, idempotencyKey string, body, into any) (status int, err error) {
	var content io.Reader
	if body != nil {
		doc, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		content = bytes.NewReader(doc)
	}
	r, err := http.NewRequestWithContext(ctx, method, g.URL+path, content)
	if err != nil {
		return 0, err
	}
	r.Header.Set("X-Functions-Key", AdminKey)
	if idempotencyKey != "" {
		r.Header.Set("Idempotency-Key", idempotencyKey)
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	if answer.StatusCode != http.StatusOK {
		return answer.StatusCode, fmt.Errorf("%s %s: %d %s", method, path, answer.StatusCode, text)
	}
	if into == nil {
		return answer.StatusCode, nil
	}
	return answer.StatusCode, json.Unmarshal(text, into)
}

// View is what GetById says.
type View struct {
	ProductID string `json:"ProductId"`
	Budget    string
	Spent     string
	Held      string
	State     string
	Period    string
}

// Nano reads a decimal amount of dollars as nano-dollars.
func Nano(text string) int64 {
	text, negative := strings.CutPrefix(text, "-")
	whole, fraction, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole+(fraction + "000000000")[:9], 10, 64)
	if err != nil || len(fraction) > 9 {
		panic("not an amount: " + text)
	}
	if negative {
		return -n
	}
	return n
}

// Dollars writes nano-dollars as a decimal amount.
func Dollars(nano int64) string { return fmt.Sprintf("%d.%09d", nano/1e9, nano%1e9) }

// Record is what the history says of a request.
type Record struct {
	ID          string `json:"id"`
	Rev         int    `json:"rev"`
	Kind        string `json:"kind"`
	Outcome     string `json:"outcome"`
	UsageSource string `json:"usage_source"`
	User        string `json:"user"`
	Charge      int64  `json:"charge"`
	Hold        int64  `json:"hold_nano_usd"`
	Period      string `json:"period"`
}

// History reads all records of a product.
func (g *Gateway) History(ctx context.Context, productID string) ([]Record, error) {
	var all []Record
	for after := ""; ; {
		path := "/api/Quota/" + productID + "/history?limit=1000"
		if after != "" {
			path += "&after=" + after
		}
		var page []Record
		if _, err := g.API(ctx, http.MethodGet, path, "", nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < 1000 {
			return all, nil
		}
		after = page[len(page)-1].ID
	}
}

// Verify runs the gateway's own audit.
func (f *Fleet) Verify(ctx context.Context, more ...string) (string, error) {
	data := f.options.Scratch
	if f.options.Storage == "" { // the embedded store has one user at a time
		data = f.In(0).Data
		f.Stop()
	}
	c := exec.CommandContext(ctx, f.options.Binary, append([]string{"verify", "-json"}, more...)...) //nolint:gosec // what the user says
	c.Env = append(os.Environ(), "ADMIN_KEY="+AdminKey, "DATA_DIR="+data, "QuotaStorage="+f.options.Storage)
	c.Env = append(c.Env, f.options.Env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// Lake reads the highest revision of each record that is in the lake folders.
func (f *Fleet) Lake() (map[string]int, error) {
	files, err := filepath.Glob(filepath.Join(f.options.Scratch, "slot*", "lake", "*.jsonl"))
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(text) {
			if !bytes.HasSuffix(line, []byte("\n")) {
				continue // cut by a kill
			}
			var r Record
			if err := json.Unmarshal(line, &r); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			found[r.ID] = max(found[r.ID], r.Rev)
		}
	}
	return found, nil
}

// Listen opens a port of loopback.
func Listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// RSS is the resident memory of a gateway in bytes, where Linux tells it.
func (g *Gateway) RSS() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", g.command.Process.Pid))
	if err != nil {
		return 0
	}
	var size, resident int64
	_, _ = fmt.Sscan(string(text), &size, &resident)
	return resident * int64(os.Getpagesize())
}
