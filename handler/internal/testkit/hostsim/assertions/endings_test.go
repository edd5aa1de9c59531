package assertions_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/testkit/hostsim"
)

// idleFor is longer than the host keeps a connection that it does not use.
const idleFor = 61 * time.Second

// watchIdle makes a connection and leaves it alone for idleFor; then it must
// still answer.
func watchIdle(handler string) <-chan error {
	result := make(chan error, 1)
	go func() { result <- idles(strings.TrimPrefix(handler, "http://")) }()
	return result
}

func idles(address string) error {
	c, err := net.DialTimeout("tcp", address, waitMax)
	if err != nil {
		return err
	}
	defer c.Close()
	answers := bufio.NewReader(c)
	ask := func() error {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return errors.Join(err, resp.Body.Close())
	}
	if err := ask(); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(idleFor)); err != nil {
		return err
	}
	if _, err := answers.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) { // its end would come here
		return fmt.Errorf("the connection while it is idle: %w", err)
	}
	return errors.Join(c.SetReadDeadline(time.Time{}), ask())
}

// swept is a gateway that was killed while it had finished some requests and
// was in the middle of others.
type swept struct {
	*host
	p     product
	costs map[string]int64 // of the finished ones
}

const inFlight = 5

func startSwept(t *testing.T) *swept {
	t.Helper()
	u := startUpstream(t)
	s := &swept{host: startHost(t, hostsim.Options{Env: settings(t, u), TimerEvery: time.Second}), costs: map[string]int64{}}
	s.p = s.product("swept", "100")
	for i := range int64(3) {
		user := fmt.Sprintf("finished-%d", i)
		s.costs[user] = cost(10+i, 20)
		u.script(user, func(w http.ResponseWriter, _ *http.Request, _ string) {
			newStream(w, user).send(usageEvent(user, 10+i, 20) + doneEvent)
		})
		if a := do(t, "POST", s.URL+chatPath, chat(user, true, withUsage), "Api-Key", s.p.key); !strings.HasSuffix(a.body, doneEvent) {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	arrived := make(chan struct{}, inFlight)
	var cut sync.WaitGroup
	for i := range inFlight {
		user := fmt.Sprintf("flying-%d", i)
		u.script(user, func(_ http.ResponseWriter, r *http.Request, _ string) { // killed before the first byte
			arrived <- struct{}{}
			<-r.Context().Done()
		})
		cut.Go(func() {
			if a := do(t, "POST", s.URL+chatPath, chat(user, false), "Api-Key", s.p.key); a.status != http.StatusInternalServerError || a.body != "" {
				t.Errorf("%s: %d %q", user, a.status, a.body)
			}
		})
	}
	for range inFlight {
		<-arrived
	}
	s.Kill()
	cut.Wait()
	return s
}

func (s *swept) check(t *testing.T) {
	s.t = t
	if records := s.records(s.p); len(records) < len(s.costs) {
		t.Errorf("%d records after the kill", len(records))
	}
	until(t, "a record for each request", func() bool { return len(s.records(s.p)) >= len(s.costs)+inFlight && s.view(s.p.id).Held == "0" })
	flying := 0
	for _, r := range s.records(s.p) {
		want, finished := s.costs[r.User]
		switch {
		case finished && (r.Charge != want || r.Outcome != "completed"):
			t.Errorf("%+v, want %d", r, want)
		case finished:
		case r.Outcome != "swept" || r.Charge != r.Hold || r.Charge == 0:
			t.Errorf("%+v", r)
		default:
			flying++
		}
	}
	if n := len(s.records(s.p)); flying != inFlight || n != inFlight+len(s.costs) {
		t.Errorf("%d records, %d of them swept", n, flying)
	}
	s.balanced(s.p)
	s.verify()
}

func (b *bench) clientGone(t *testing.T) {
	leave := func(user string, p product, goOn <-chan struct{}) (gone <-chan struct{}) {
		ended := make(chan struct{})
		b.u.script(user, func(w http.ResponseWriter, r *http.Request, _ string) {
			defer close(ended)
			s := newStream(w, user)
			s.send(word(user, 0))
			if !wait(r, goOn) {
				return
			}
			for i := range 50 { // the gateway learns from a write that its client is gone, not from the first
				if !s.send(word(user, i)) || !pause(r, 10*time.Millisecond) {
					return
				}
			}
			s.send(usageEvent(user, 30, 40) + doneEvent)
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resp, err := client.Do(request(t, ctx, "POST", b.URL+chatPath, chat(user, true, withUsage), "Api-Key", p.key))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, len(word(user, 0)))); err != nil {
			t.Fatal(err)
		}
		cancel()
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return ended
	}
	impatient := b.product("impatient", "10", `,"disconnect":"cancel"`)
	<-leave("leaves", impatient, nil) // upstream is told by the end of its connection
	r := b.one(impatient, "leaves")
	if r.Outcome != "client_gone" || r.UsageSource != "estimate" || r.Charge == 0 || r.Charge > r.Hold {
		t.Errorf("cancel: %+v", r)
	}
	goOn := make(chan struct{})
	ended := leave("drained", b.p, goOn)
	close(goOn)
	<-ended
	if r := b.one(b.p, "drained"); r.Outcome != "client_gone" || r.UsageSource != "provider" || r.Charge != cost(30, 40) {
		t.Errorf("drain: %+v, want %d", r, cost(30, 40))
	}
	b.balanced(impatient)
}

func exitCodes(t *testing.T, u *upstream) {
	bad := func(name string, want ...string) {
		t.Helper()
		var errs strings.Builder
		h, err := hostsim.New(hostsim.Options{Dist: dist(t), Env: settings(t, u, name), Stderr: &errs})
		if err == nil {
			h.Close()
			t.Fatalf("%s was taken", name)
		}
		if !errors.Is(err, hostsim.ErrTooMany) || !strings.Contains(err.Error(), "code 2") || strings.Count(errs.String(), "gateway: bad settings:\n") != 3 {
			t.Errorf("%s: %v %s", name, err, errs.String())
		}
		for _, w := range want {
			if !strings.Contains(errs.String(), w) {
				t.Errorf("%s: %s", name, errs.String())
			}
		}
	}
	bad("QuotaStorage=", "QuotaStorage: is not set")
	bad("AZURE_OPENAI_ENDPOINT=simulator", "AZURE_OPENAI_ENDPOINT: ")
	bad("STREAM_MAX=30m", "STREAM_MAX: 30m0s is too near to functionTimeout")

	h := startHost(t, hostsim.Options{Env: settings(t, u)})
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		pid := h.Pid()
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		until(t, "another handler", func() bool { return h.Pid() != pid })
		if a := do(t, "GET", h.URL+"/health", nil); a.status != http.StatusOK {
			t.Errorf("after %v: %d", signal, a.status)
		}
	}
	if diff := cmp.Diff([]int{143, 143}, h.Exits()); diff != "" {
		t.Error(diff)
	}
	h.Kill()
	<-h.Done()
	if err := h.Err(); !errors.Is(err, hostsim.ErrTooMany) {
		t.Errorf("after the third: %v", err)
	}
	orphan(t, u)
}

// orphan: a gateway whose host is gone ends by itself.
func orphan(t *testing.T, u *upstream) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(probe.Addr().String())
	probe.Close()
	shell := exec.Command("sh", "-c", `"$0" >/dev/null & read line; kill -9 $!`, filepath.Join(dist(t), "gateway")) // the last of it only if the test ends early
	shell.Env = append(settings(t, u), "FUNCTIONS_CUSTOMHANDLER_PORT="+port)
	stdin, err := shell.StdinPipe()
	if err == nil {
		err = shell.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	answers := func() bool {
		resp, err := http.Get("http://127.0.0.1:" + port + "/health")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	}
	until(t, "it listens", answers)
	_ = shell.Process.Kill()
	_ = shell.Wait()
	until(t, "the orphan ends", func() bool { return !answers() })
}

func deadlines(t *testing.T, u *upstream) {
	h := startHost(t, hostsim.Options{Env: settings(t, u, "STREAM_MAX=1s", "STREAM_KEEPALIVE=200ms")})
	p := h.product("deadlines", "10")
	told := make(chan struct{}, 3)
	u.script("mute", func(_ http.ResponseWriter, r *http.Request, _ string) {
		<-r.Context().Done()
		told <- struct{}{}
	})
	u.script("half", func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"x",`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		told <- struct{}{}
	})
	u.script("endless", func(w http.ResponseWriter, r *http.Request, _ string) {
		newStream(w, "endless").send(word("endless", 0))
		<-r.Context().Done()
		told <- struct{}{}
	})
	for _, user := range []string{"mute", "half"} {
		a := do(t, "POST", h.URL+chatPath, chat(user, false), "Api-Key", p.key)
		if a.status != http.StatusGatewayTimeout || a.code() != "upstream_timeout" {
			t.Errorf("%s: %d %s", user, a.status, a.body)
		}
		if r := h.one(p, user); r.Outcome != "timeout" || r.Charge != r.Hold || r.Charge == 0 || r.UsageSource != "estimate" {
			t.Errorf("%+v", r)
		}
		<-told
	}
	resp, err := client.Do(request(t, t.Context(), "POST", h.URL+chatPath, chat("endless", true), "Api-Key", p.key))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err == nil || !strings.HasPrefix(string(got), word("endless", 0)+comment) {
		t.Errorf("endless: %q %v", got, err)
	}
	if r := h.one(p, "endless"); r.Outcome != "timeout" || r.Charge == 0 {
		t.Errorf("%+v", r)
	}
	<-told
	h.balanced(p)
	if len(h.Exits()) != 0 {
		t.Errorf("exits %v", h.Exits())
	}
}
