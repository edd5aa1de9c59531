package service

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// A call that a service has read is not sent again when the kept connection dies
// before the answer: it would work twice, and be paid once.
func TestSentOnce(t *testing.T) {
	f := func(method, body, head string, header ...string) {
		t.Helper()
		var calls atomic.Int64
		said := make(chan string, 3)
		targets := newTargets(&Services{}, nil, nil)
		defer targets.close()
		targets.anywhere.DialContext = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				for reader := bufio.NewReader(theirs); ; {
					var text strings.Builder
					r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(reader, &text)))
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					said <- text.String()
					if calls.Add(1) == 2 {
						return // it worked, and dies
					}
					_, _ = io.WriteString(theirs, "HTTP/1.1 204 No Content\r\n\r\n")
				}
			}()
			return ours, nil
		}
		u, _ := url.Parse("http://127.0.0.1/")
		e := &Entry{URL: u}
		request := func() *http.Request {
			r := &http.Request{Method: method, URL: u, Header: http.Header{"User-Agent": nil}, ContentLength: int64(len(body))}
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			once(r, []byte(body))
			return r
		}
		if a, _, err := targets.send(t.Context(), e, request()); err != nil {
			t.Fatal(err)
		} else if a.Body.Close(); <-said != method+" / HTTP/1.1\r\nHost: 127.0.0.1\r\n"+head+"\r\n"+body {
			t.Errorf("%s %q %v: not the bytes that were expected", method, body, header)
		}
		_, sent, err := targets.send(t.Context(), e, request())
		if err == nil || !sent || calls.Load() != 2 {
			t.Errorf("%s %q %v: seen %d times, sent %v, %v", method, body, header, calls.Load(), sent, err)
		}
	}
	f("GET", "", "")
	f("HEAD", "", "")
	f("OPTIONS", "", "")
	f("DELETE", "", "")
	f("GET", "body", "Content-Length: 4\r\n")
	f("POST", "body", "Content-Length: 4\r\nidempotency-key: k\r\n", "Idempotency-Key", "k")
	f("POST", "", "Content-Length: 0\r\nidempotency-key: k\r\n", "Idempotency-Key", "k")
	f("POST", "", "Content-Length: 0\r\nx-idempotency-key: k\r\n", "X-Idempotency-Key", "k")
}

// dying is a connection that cannot be written to any more, from the second call on.
type dying struct {
	net.Conn
	writes *atomic.Int64
}

func (c dying) Write(p []byte) (int, error) {
	if c.writes.Add(1) > 1 {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// A kept connection dies before anything is written, and there is no other: the
// call was not sent, so it is not charged.
func TestNothingWritten(t *testing.T) {
	var writes, dials atomic.Int64
	targets := newTargets(&Services{}, nil, nil)
	defer targets.close()
	gone := make(chan bool)
	targets.anywhere.DialContext = func(context.Context, string, string) (net.Conn, error) {
		if dials.Add(1) > 1 {
			return nil, errors.New("refused")
		}
		ours, theirs := net.Pipe()
		go func() {
			reader := bufio.NewReader(theirs)
			_, _ = http.ReadRequest(reader)
			_, _ = io.WriteString(theirs, "HTTP/1.1 204 No Content\r\n\r\n")
			_, _ = reader.ReadByte()
			close(gone)
		}()
		return dying{ours, &writes}, nil
	}
	u, _ := url.Parse("http://127.0.0.1/")
	for i := range 2 {
		r := &http.Request{Method: "POST", URL: u, Header: http.Header{}, ContentLength: 4}
		once(r, []byte("body"))
		a, sent, err := targets.send(t.Context(), &Entry{URL: u}, r)
		if i == 0 {
			a.Body.Close()
		} else if sent || err == nil {
			t.Errorf("sent %v after %d dials, %v", sent, dials.Load(), err)
		}
	}
	<-gone
}
