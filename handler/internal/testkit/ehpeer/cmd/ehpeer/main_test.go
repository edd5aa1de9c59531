package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// TestRun has a client send while the peer is told to fail.
func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "events.jsonl")
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-out", out, "-partitions", "1", "-key", "c2VjcmV0"}, w)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no more lines: %v", <-ended)
		}
		return lines.Text()
	}
	connection, control := next(), next()
	c, err := azeventhubs.NewProducerClientFromConnectionString(connection, "", &azeventhubs.ProducerClientOptions{
		RetryOptions: azeventhubs.RetryOptions{MaxRetries: 1000, RetryDelay: time.Millisecond, MaxRetryDelay: 5 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	send := func(id string, body []byte) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		b, err := c.NewEventDataBatch(ctx, nil)
		if err == nil {
			err = b.AddEventData(&azeventhubs.EventData{Body: body, MessageID: to.Ptr(id), Properties: map[string]any{"n": int64(1)}}, nil)
		}
		if err == nil {
			err = c.SendEventDataBatch(ctx, b, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ask := func(method, path string, status int) (got struct {
		Transfers, Events int
		Faults            map[string]int
	}) {
		t.Helper()
		request, err := http.NewRequest(method, control+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode != status {
			t.Errorf("%s: status %d, want %d", path, answer.StatusCode, status)
		}
		if status == http.StatusOK {
			if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
				t.Error(err)
			}
		}
		return got
	}

	send("1", []byte(`{"a":"<é>"}`))
	ask("POST", "/fail?fault=throttle&times=2", 200)
	ask("POST", "/fail?fault=drop-after&times=1", 200)
	send("2", []byte("\xff"))
	ask("POST", "/restart", 200)
	send("3", []byte("x"))
	ask("POST", "/down?ms=20", 200)
	send("4", []byte("y"))
	ask("POST", "/fail?fault=detach&times=-1", 200)
	ask("POST", "/clear", 200)
	send("5", nil)
	stats := ask("GET", "/stats", 200)
	if stats.Events != 6 || stats.Transfers != 8 || stats.Faults["throttle"] != 2 || stats.Faults["drop-after"] != 1 {
		t.Errorf("stats %+v", stats)
	}
	ask("POST", "/fail?fault=nothing&times=1", 400)
	ask("POST", "/fail?fault=throttle", 400)
	ask("POST", "/down?ms=-1", 400)
	ask("POST", "/down?ms=86400001", 400)
	ask("POST", "/stats", 405)
	ask("GET", "/other", 404)

	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		`"message_id":"1","properties":{"n":1},"body":"{\"a\":\"<é>\"}"}`,
		`"message_id":"2","properties":{"n":1},"body":"","body_base64":"/w=="}`,
		`"message_id":"2","properties":{"n":1},"body":"","body_base64":"/w=="}`,
		`"message_id":"3","properties":{"n":1},"body":"x"}`,
		`"message_id":"4","properties":{"n":1},"body":"y"}`,
		`"message_id":"5","properties":{"n":1},"body":""}`,
		``,
	} {
		line := strings.Split(string(got), "\n")[i]
		if !strings.HasSuffix(line, want) || want != "" && !strings.HasPrefix(line, `{"partition":0,"sequence":`) {
			t.Errorf("line %d: got %s, want %s", i, line, want)
		}
	}
}

func TestRunFails(t *testing.T) {
	f := func(args ...string) {
		t.Helper()
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%v runs", args)
		}
	}
	f("-partitions", "33")
	f("-hub", "a/b")
	f("-listen", "nowhere:x")
	f("-control", "nowhere:x")
	f("-out", t.TempDir())
}
