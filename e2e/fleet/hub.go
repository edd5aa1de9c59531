package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Hub is a peer of Event Hubs, a process of its own.
type Hub struct {
	Connection string // for UsageEventHub
	control    string
	out        string // what it stored, a JSON line for each event
	command    *exec.Cmd
}

// StartHub builds the peer and starts it. It keeps what it stores in a folder.
func StartHub(scratch string) (*Hub, error) {
	binary := filepath.Join(scratch, "ehpeer")
	if out, err := exec.Command("go", "build", "-o", binary, "./handler/internal/testkit/ehpeer/cmd/ehpeer").CombinedOutput(); err != nil { //nolint:gosec // our own
		return nil, fmt.Errorf("build the peer of Event Hubs: %w: %s", err, out)
	}
	h := &Hub{out: filepath.Join(scratch, "hub.jsonl")}
	h.command = exec.Command(binary, "-listen", "127.0.0.1:0", "-hub", "usage", "-out", h.out, "-control", "127.0.0.1:0") //nolint:gosec // our own
	h.command.Stderr = os.Stderr
	stdout, err := h.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.command.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stdout)
	for _, into := range []*string{&h.Connection, &h.control} {
		if !lines.Scan() {
			return nil, errors.Join(errors.New("the peer of Event Hubs ended before it listened"), h.command.Wait())
		}
		*into = lines.Text()
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	return h, nil
}

// Stop ends it.
func (h *Hub) Stop() { _ = h.command.Process.Kill(); _ = h.command.Wait() }

// Control asks for a fault, such as fail?fault=throttle&times=3.
func (h *Hub) Control(ctx context.Context, path string, query url.Values) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.control+"/"+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= http.StatusMultipleChoices {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("%s: %d %s", path, answer.StatusCode, text)
	}
	return nil
}

// Export writes the records that the hub has into a lake folder, in the order of
// their coming, and returns the highest revision of each and how many there are.
func (h *Hub) Export(folder string) (revisions map[string]int, events int, err error) {
	text, err := os.ReadFile(h.out)
	if err != nil {
		return nil, 0, err
	}
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return nil, 0, err
	}
	var lake bytes.Buffer
	revisions = map[string]int{}
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			continue // being written
		}
		var event struct{ Body string } // which is JSON
		var r Record
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, 0, err
		}
		if err := json.Unmarshal([]byte(event.Body), &r); err != nil {
			return nil, 0, err
		}
		lake.WriteString(event.Body)
		lake.WriteByte('\n')
		revisions[r.ID] = max(revisions[r.ID], r.Rev)
		events++
	}
	return revisions, events, os.WriteFile(filepath.Join(folder, "usage-hub.jsonl"), lake.Bytes(), 0o600)
}
