package assertions_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/testkit/hostsim"
)

const (
	streams     = 200
	streamSteps = 10
	// Ten minutes, of them 400 s without a word, while the host ends a call after
	// 240 s of silence; all in scaled time.
	streamLength  = 10 * time.Minute / scale
	streamSilence = 400 * time.Second / scale
	keepAlive     = 60 * time.Second / scale
)

const comment = ": keepalive\n\n"

// TestStreams: 200 streams of ten minutes at once, silent for 400 s, come whole
// through the host, which ends calls that are silent for 240 s. Each is one
// record of its exact cost.
func TestStreams(t *testing.T) {
	t.Parallel()
	u := startUpstream(t)
	h := startHost(t, hostsim.Options{Env: settings(t, u, "STREAM_KEEPALIVE="+keepAlive.String())})
	p := h.product("streams", "1000")
	tokens := func(i int) (prompt, completion int64) { return int64(10 + i), int64(1000 - i) }
	var clients sync.WaitGroup
	began := time.Now()
	for i := range streams {
		user := fmt.Sprintf("stream-%d", i)
		asked := i%2 == 0 // the others get no usage, and the gateway takes it out
		prompt, completion := tokens(i)
		var want strings.Builder
		for n := range streamSteps {
			want.WriteString(word(user, n))
		}
		if asked {
			want.WriteString(usageEvent(user, prompt, completion))
		}
		want.WriteString(doneEvent)
		u.script(user, func(w http.ResponseWriter, r *http.Request, _ string) {
			s := newStream(w, user)
			step := (streamLength - streamSilence) / (streamSteps - 1)
			for n := range streamSteps {
				if !s.send(word(user, n)) || !pause(r, step) || n == streamSteps/2 && !pause(r, streamSilence) {
					return
				}
			}
			s.send(usageEvent(user, prompt, completion) + doneEvent)
		})
		clients.Go(func() {
			more := ""
			if asked {
				more = withUsage
			}
			resp, err := client.Do(request(t, t.Context(), "POST", h.URL+chatPath, chat(user, true, more), "Api-Key", p.key))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			comments := bytes.Count(got, []byte(comment))
			if text := strings.ReplaceAll(string(got), comment, ""); err != nil || text != want.String() {
				t.Errorf("%s: %v, %d comments, %q", user, err, comments, got)
			}
			if comments == 0 {
				t.Errorf("%s: no comment in %v of silence", user, streamSilence)
			}
		})
	}
	clients.Wait()
	t.Logf("%d streams of %v, %v of it silent, took %v", streams, streamLength, streamSilence, time.Since(began).Round(time.Millisecond))
	records := map[string]record{}
	for _, r := range h.records(p) {
		if _, twice := records[r.User]; twice {
			t.Errorf("%s has two records", r.User)
		}
		records[r.User] = r
	}
	for i := range streams {
		user := fmt.Sprintf("stream-%d", i)
		r, want := records[user], cost(tokens(i))
		if r.Cost != want || r.Charge != want || r.Outcome != "completed" || r.UsageSource != "provider" || len(u.got(user)) != 1 {
			t.Errorf("%s: %+v, want %d; sent %d times", user, r, want, len(u.got(user)))
		}
	}
	if len(records) != streams {
		t.Errorf("%d records", len(records))
	}
	h.balanced(p)
	h.verify()
	if exits := h.Exits(); len(exits) != 0 {
		t.Errorf("the handler ended: %v", exits)
	}
}

const killed = 100

// TestKilled: SIGKILL in the middle of 100 streams. The host starts the handler
// again, and its timer brings a record for each of them, charged at what was
// held.
func TestKilled(t *testing.T) {
	t.Parallel()
	u := startUpstream(t)
	h := startHost(t, hostsim.Options{Env: settings(t, u), TimerEvery: time.Second})
	p := h.product("killed", "1000")
	var begun, ended sync.WaitGroup
	begun.Add(killed)
	for i := range killed {
		user := fmt.Sprintf("killed-%d", i)
		u.script(user, func(w http.ResponseWriter, r *http.Request, _ string) {
			newStream(w, user).send(word(user, 0))
			<-r.Context().Done()
		})
		ended.Go(func() {
			resp, err := client.Do(request(t, t.Context(), "POST", h.URL+chatPath, chat(user, true), "Api-Key", p.key))
			if err != nil {
				t.Error(err)
				begun.Done()
				return
			}
			defer resp.Body.Close()
			first := make([]byte, len(word(user, 0)))
			_, err = io.ReadFull(resp.Body, first)
			begun.Done()
			if rest, cut := io.ReadAll(resp.Body); err != nil || string(first) != word(user, 0) || len(rest) > 0 || cut == nil {
				t.Errorf("%s: %q %v, then %q %v", user, first, err, rest, cut)
			}
		})
	}
	begun.Wait()
	if v := h.view(p.id); v.Held == "0" || v.Spent != "0" {
		t.Errorf("while they run: %+v", v)
	}
	h.Kill()
	ended.Wait()
	restarted := time.Now()
	until(t, "a record for each stream", func() bool { return len(h.records(p)) >= killed && h.view(p.id).Held == "0" })
	t.Logf("%d records %v after the kill", killed, time.Since(restarted).Round(100*time.Millisecond))
	users := map[string]bool{}
	for _, r := range h.records(p) {
		users[r.User] = true
		if r.Outcome != "swept" || r.UsageSource != "swept" || r.Charge != r.Hold || r.Charge == 0 || len(u.got(r.User)) != 1 {
			t.Errorf("%+v; sent %d times", r, len(u.got(r.User)))
		}
	}
	if len(users) != killed || len(h.records(p)) != killed || len(h.Exits()) != 1 {
		t.Errorf("%d records of %d streams, exits %v", len(h.records(p)), len(users), h.Exits())
	}
	h.balanced(p)
	h.verify()
}
