package service_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/service"
)

// A service that cannot be reached costs nothing, and leaves no record.
func TestNotSent(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.5"`, nil, nil)
	b.service.Close()
	for range 3 {
		b.refused(502, "upstream_error", "POST", "/services/w/x", "body")
	}
	if b.settled(0); b.spent() != 0 {
		t.Errorf("spent %d", b.spent())
	}
}

// A call that was sent costs its price, whatever becomes of its answer.
func TestBrokenIsCharged(t *testing.T) {
	hijack := func(say string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(c, say)
			c.Close()
		}
	}
	f := func(answer http.HandlerFunc, status int, code, outcome string, kb int64) {
		t.Helper()
		b := newBench(t, `"pricePerCall":"0.01","pricePerKB":"0.001","bodyBytesMax":4096,"timeout":"1s"`, nil, nil)
		b.answer = answer
		got, text, err := b.do("POST", "/services/w/x", "body")
		r := b.settled(1)[0]
		if got.StatusCode != status || !strings.Contains(text, code) || (err != nil) != (code == "") || string(r.Outcome) != outcome || r.UsageSource != "estimate" ||
			r.Charge.N != 10_000_000+kb*1_000_000 || r.Items[1].Quantity != kb {
			t.Errorf("%d %q %v, record %+v", got.StatusCode, text, err, r)
		}
	}
	hang := func(say string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if say != "" {
				_, _ = io.WriteString(w, say)
				_ = http.NewResponseController(w).Flush()
			}
			<-r.Context().Done()
		}
	}
	f(hijack(""), 502, "upstream_error", "upstream_error", 1)
	f(hijack("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), 502, "upstream_error", "upstream_error", 1)
	f(hijack("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Up: 1\r\n\r\nfour"), 502, "upstream_error", "upstream_error", 1)
	f(hijack("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n"), 200, "", "upstream_error", 1)
	f(hijack("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n"+strings.Repeat("x", 1024)+"\r\n"), 200, "", "upstream_error", 2)
	f(hang(""), 504, "upstream_timeout", "timeout", 1)
	f(hang("four"), 200, "", "timeout", 1)
}

func TestConnectionRefusedWhileHeld(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() { // a server that hangs up before it has read anything
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	b := newBench(t, `"pricePerCall":"0.5"`, nil, func(o *service.Options) {
		o.Services, _ = service.Parse(`{"w":{"url":"http://`+listener.Addr().String()+`","pricePerCall":"0.5"}}`, func(string) string { return "" })
	})
	if answer, _, _ := b.do("POST", "/services/w/x", "body"); answer.StatusCode != 502 {
		t.Errorf("%d", answer.StatusCode)
	}
	if b.settled(1); b.spent() != 500_000_000 { // it may have read it
		t.Errorf("spent %d", b.spent())
	}
}

// What an answer has beyond the hold is not served.
func TestAnswerBeyondTheHold(t *testing.T) {
	const price = `"pricePerCall":"0.01","pricePerKB":"0.001","bodyBytesMax":`
	f := func(fields string, budget int64, size int, chunked, whole bool, charge int64) {
		t.Helper()
		b := newBench(t, fields, func(p *quota.Product) { p.Budget = budget }, nil)
		b.answer = func(w http.ResponseWriter, _ *http.Request) {
			if chunked {
				_ = http.NewResponseController(w).Flush()
			} else {
				w.Header().Set("Content-Length", strconv.Itoa(size))
			}
			_, _ = w.Write(bytes.Repeat([]byte("x"), size))
		}
		answer, text, err := b.do("GET", "/services/w/x", "")
		r := b.settled(1)[0]
		if ok := err == nil && answer.StatusCode == 200 && len(text) == size; ok != whole {
			t.Errorf("%s, %d bytes: %d, %d bytes, %v", fields, size, answer.StatusCode, len(text), err)
		}
		if want := map[bool]string{true: "completed", false: "upstream_error"}[whole]; string(r.Outcome) != want || r.Charge.N != charge || r.Charge.N > r.HoldNanoUSD.N {
			t.Errorf("%s, %d bytes: %s, %d of %d, want %d", fields, size, r.Outcome, r.Charge.N, r.HoldNanoUSD.N, charge)
		}
		if !whole && !chunked && (answer.StatusCode != 502 || !strings.Contains(text, "answer_too_large")) {
			t.Errorf("%d, %d bytes", answer.StatusCode, len(text))
		}
	}
	f(price+"2048", 1e9, 2048, false, true, 12_000_000)
	f(price+"2048", 1e9, 2049, false, false, 10_000_000)
	f(price+"2048", 1e9, 2048, true, true, 12_000_000)
	f(price+"2048", 1e9, 2049, true, false, 12_000_000)
	// The budget pays for a call and 100 KB, less than bodyBytesMax.
	f(price+"204800", 110_000_000, 102400, true, true, 110_000_000)
	f(price+"204800", 110_000_000, 102401, true, false, 110_000_000)
	f(price+"204800", 110_000_999, 102401, false, false, 10_000_000)
	f(`"pricePerCall":"0.01","bodyBytesMax":10`, 1e9, 3<<20, true, true, 10_000_000) // nobody pays for its size
	b := newBench(t, price+"204800", func(p *quota.Product) { p.Budget = 73_999_999 }, nil)
	b.refused(429, "insufficient_quota", "GET", "/services/w/x", "") // not even AnswerLeast
}

func TestLargeAnswer(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0","pricePerKB":"0.00001","bodyBytesMax":4194304`, nil, nil)
	for i, size := range []int{service.AnswerBufferMax, service.AnswerBufferMax + 1} {
		b.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip") // passed as it is
			w.Header().Set("Content-Length", strconv.Itoa(size))
			_, _ = w.Write(bytes.Repeat([]byte("x"), size))
		}
		answer, text, err := b.do("GET", "/services/w/x", "", "Accept-Encoding", "gzip")
		want := map[int]string{0: "0.01024", 1: "0.01025"}[i]
		if err != nil || len(text) != size || answer.Header.Get("X-Costgate-Cost") != want || answer.ContentLength != int64(size) {
			t.Errorf("%d bytes, %v, %v", len(text), answer.Header, err)
		}
		if b.requests()[i].header.Get("Accept-Encoding") != "gzip" {
			t.Error("Accept-Encoding did not travel")
		}
		b.settled(i + 1)
	}
}

func TestStream(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.001","pricePerKB":"0.001","bodyBytesMax":2048,"timeout":"1s"`, nil, func(o *service.Options) { o.KeepAlive = 300 * time.Millisecond })
	next := make(chan bool)
	b.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for range 3 {
			_, _ = io.WriteString(w, "data: step\n\n")
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}
	answer, err := client.Do(b.request("GET", "/services/w/x", nil))
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 100)
	read := func(want string) {
		t.Helper()
		n, _ := io.ReadFull(answer.Body, buffer[:len(want)])
		if string(buffer[:n]) != want {
			t.Fatalf("%q, want %q", buffer[:n], want)
		}
	}
	read("data: step\n\n")
	for range 5 { // longer than the timeout: a stream may be silent
		read(": keepalive\n\n")
	}
	next <- true
	read("data: step\n\n")
	next <- true
	read("data: step\n\n")
	next <- true
	_, _ = io.Copy(io.Discard, answer.Body)
	if answer.Trailer.Get("X-Costgate-Cost") != "0.002" || answer.Trailer.Get("X-Costgate-Usage-Source") != "tokenizer" {
		t.Errorf("trailers %v", answer.Trailer)
	}
	if r := b.settled(1)[0]; r.Stream == nil || !*r.Stream || r.Charge.N != 2_000_000 || r.Outcome != "completed" {
		t.Errorf("%+v", r)
	}
}

// A client that leaves has its answer drained, or the call ended, as the product
// wants it.
func TestClientGone(t *testing.T) {
	f := func(disconnect quota.Disconnect, kb int64) {
		t.Helper()
		b := newBench(t, `"pricePerCall":"0","pricePerKB":"0.001","bodyBytesMax":4096`, func(p *quota.Product) { p.Disconnect = disconnect }, nil)
		left, ended := make(chan bool), make(chan bool, 1)
		b.answer = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1024))
			_ = http.NewResponseController(w).Flush()
			<-left
			if disconnect == quota.DisconnectCancel {
				<-r.Context().Done()
			}
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1024))
			ended <- true
		}
		answer, err := client.Do(b.request("GET", "/services/w/x", nil))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadFull(answer.Body, make([]byte, 1024))
		answer.Body.Close()
		close(left)
		<-ended
		r := b.settled(1)[0]
		if r.Outcome != "client_gone" && disconnect == quota.DisconnectCancel || r.Charge.N != kb*1_000_000 {
			t.Errorf("%s: %s, %d", disconnect, r.Outcome, r.Charge.N)
		}
	}
	f(quota.DisconnectDrain, 2)
	f(quota.DisconnectCancel, 1)
}

func TestHostedWait(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.5"`, nil, func(o *service.Options) { o.AnswerWait = 200 * time.Millisecond })
	b.answer = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	if answer, text, _ := b.do("GET", "/services/w/x", ""); answer.StatusCode != 504 || !strings.Contains(text, "upstream_timeout") {
		t.Errorf("%d %s", answer.StatusCode, text)
	}
	if r := b.settled(1)[0]; r.Outcome != "timeout" || r.Charge.N != 500_000_000 {
		t.Errorf("%+v", r)
	}
}

func TestStreamMax(t *testing.T) {
	b := newBench(t, `"pricePerCall":"0.5"`, nil, func(o *service.Options) { o.StreamMax = 300 * time.Millisecond })
	b.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: x\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	if answer, text, err := b.do("GET", "/services/w/x", ""); answer.StatusCode != 200 || text != "data: x\n\n" || err == nil {
		t.Errorf("%d %q %v", answer.StatusCode, text, err)
	}
	if r := b.settled(1)[0]; r.Outcome != "timeout" || r.Charge.N != 500_000_000 {
		t.Errorf("%+v", r)
	}
}
