// Command ehpeer runs the peer of Event Hubs for tests in other languages and of
// whole processes. The first line of its standard output is the connection
// string, the second the URL of its control server. SIGINT and SIGTERM end it.
//
// With -out each event is appended to a file, as one line of JSON, before its
// sender hears that it is stored:
//
//	{"partition":0,"sequence":7,"enqueued":"2026-11-25T20:00:00.123Z","message_id":"m","partition_key":"p",
//	 "content_type":"application/json","properties":{"k":"v"},"body":"{\"a\":1}"}
//
// The body is a string; one that is not UTF-8 is in body_base64 instead.
//
// The control server knows
//
//	POST /fail?fault=throttle&times=3   a fault of the package ehpeer; times=-1: until cleared
//	POST /clear                         forgets the faults to come
//	POST /restart                       drops all connections
//	POST /down?ms=60000                 refuses connections for so long
//	GET  /stats                         counts
//
// and answers 200 with the stats, or 400 with a text.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/costgate/costgate/handler/internal/testkit/ehpeer"
)

const downMax = 24 * time.Hour

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ehpeer:", err)
		os.Exit(1) //nolint:gocritic // the signals end with the process
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("ehpeer", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "where the peer listens; port 0: any")
	hub := flags.String("hub", "usage", "name of the hub")
	partitions := flags.Int("partitions", 4, "partitions of the hub")
	key := flags.String("key", "", "key that tokens must be signed with; none: any token will do")
	out := flags.String("out", "", "file to append events to")
	control := flags.String("control", "127.0.0.1:0", "where the control server listens")
	if err := flags.Parse(args); err != nil {
		return err
	}
	peer, err := ehpeer.Start(ehpeer.Options{Address: *listen, Hub: *hub, Partitions: *partitions, Key: *key})
	if err != nil {
		return err
	}
	s := &server{peer: peer}
	if *out != "" {
		file, err := os.OpenFile(*out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return errors.Join(err, peer.Close())
		}
		peer.OnEvent(func(e ehpeer.Event) { s.note(write(file, e)) })
		defer func() { err = errors.Join(err, file.Close()) }()
	}
	defer func() { err = errors.Join(err, s.close()) }()
	listener, err := net.Listen("tcp", *control)
	if err != nil {
		return err
	}
	web := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	fmt.Fprintf(stdout, "%s\nhttp://%s\n", peer.ConnectionString(), listener.Addr())
	select {
	case <-ctx.Done():
		return web.Close()
	case err := <-served:
		return err
	}
}

// write writes an event in one piece, past any buffer of ours: what a sender has
// heard of is in the file, even if this process is killed.
func write(w io.Writer, e ehpeer.Event) error {
	line := struct {
		Partition    int            `json:"partition"`
		Sequence     int64          `json:"sequence"`
		Enqueued     time.Time      `json:"enqueued"`
		MessageID    string         `json:"message_id"`
		PartitionKey string         `json:"partition_key,omitempty"`
		ContentType  string         `json:"content_type,omitempty"`
		Properties   map[string]any `json:"properties,omitempty"`
		Body         string         `json:"body"`
		Base64       []byte         `json:"body_base64,omitempty"`
	}{e.Partition, e.Sequence, e.Enqueued, e.MessageID, e.PartitionKey, e.ContentType, e.Properties, string(e.Body), nil}
	if !utf8.Valid(e.Body) {
		line.Body, line.Base64 = "", e.Body
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(line)
}

// server controls a peer.
type server struct {
	peer *ehpeer.Peer

	mu    sync.Mutex
	up    *time.Timer // ends an outage
	first error       // of writing events or ending an outage
}

// note keeps the first error, of which run tells in the end.
func (s *server) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == nil {
		s.first = err
	}
}

func (s *server) close() error {
	err := s.peer.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up != nil {
		s.up.Stop()
	}
	return errors.Join(err, s.first)
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(s.peer.Stats())
		})
	}
	handle("GET /stats", func(*http.Request) error { return nil })
	handle("POST /clear", func(*http.Request) error { s.peer.Clear(); return nil })
	handle("POST /fail", s.fail)
	handle("POST /restart", func(*http.Request) error { return s.peer.Restart() })
	handle("POST /down", s.down)
	return mux
}

func (s *server) fail(r *http.Request) error {
	fault, err := ehpeer.ParseFault(r.FormValue("fault"))
	if err != nil {
		return err
	}
	times, err := strconv.Atoi(r.FormValue("times"))
	if err != nil {
		return fmt.Errorf("times: %w", err)
	}
	s.peer.Fail(fault, times)
	return nil
}

// down begins an outage, or gives the one under way a new end.
func (s *server) down(r *http.Request) error {
	ms, err := strconv.ParseInt(r.FormValue("ms"), 10, 64)
	if err != nil || ms < 0 || ms > downMax.Milliseconds() {
		return fmt.Errorf("ms must be a number from 0 to %d", downMax.Milliseconds())
	}
	if err := s.peer.Down(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up != nil {
		s.up.Stop()
	}
	s.up = time.AfterFunc(time.Duration(ms)*time.Millisecond, func() {
		if err := s.peer.Restart(); err != nil {
			s.note(err)
		}
	})
	return nil
}
