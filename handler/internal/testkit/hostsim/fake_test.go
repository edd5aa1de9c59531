package hostsim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain makes this test binary a handler when a Host starts it.
func TestMain(m *testing.M) {
	if os.Getenv("HOSTSIM_FAKE") != "" {
		fakeHandler()
		return
	}
	os.Exit(m.Run())
}

// seen is what the fake handler tells of a request.
type seen struct {
	Method, URI, Host, Dir string
	Header                 http.Header
	Length                 int64 // as announced; -1: chunked
	Bytes                  int
	SHA                    string
	Env                    map[string]string
}

type fake struct {
	mu    sync.Mutex
	next  chan struct{} // a step of a stream that waits
	calls map[string]int
	ids   map[string]bool // of the invocations that were reset
}

func fakeHandler() {
	switch os.Getenv("HOSTSIM_FAKE") {
	case "exits":
		fmt.Fprintln(os.Stderr, "bad settings")
		os.Exit(2)
	case "deaf":
		time.Sleep(time.Hour) // not select{}: a program that can never go on is ended by the runtime
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	fmt.Println("handler is up")
	f := &fake{next: make(chan struct{}), calls: map[string]int{}, ids: map[string]bool{}}
	err = http.Serve(listener, f)
	fmt.Fprintln(os.Stderr, err)
	os.Exit(4)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	flush := func() { _ = http.NewResponseController(w).Flush() }
	what := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	f.mu.Lock()
	f.calls[what]++
	calls := f.calls[what]
	f.mu.Unlock()
	if mode := os.Getenv("HOSTSIM_FAKE"); what != "Maintain" && strings.HasPrefix(r.Header.Get("User-Agent"), "Azure-Functions-Host/") {
		fakeEnvelope(w, r, mode)
		return
	}
	switch what {
	case "Maintain":
		fakeTimer(w, r)
	case "next": // lets a waiting request take its next step
		f.next <- struct{}{}
	case "steps":
		for i := range 3 {
			fmt.Fprintf(w, "step %d\n", i)
			flush()
			<-f.next
		}
	case "late":
		w.WriteHeader(http.StatusTeapot)
		flush()
		<-f.next
		<-f.next
		_, _ = io.WriteString(w, "late")
	case "trailer":
		w.Header().Set("Trailer", "X-Cost")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Cost", "1")
	case "cut":
		_, _ = io.WriteString(w, "part")
		flush()
		panic(http.ErrAbortHandler)
	case "reset": // fails before its headers, twice
		id := r.Header.Get("X-Azure-Functions-InvocationId")
		f.mu.Lock()
		f.ids[id] = true
		ids := len(f.ids)
		f.mu.Unlock()
		if calls <= 2 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, calls, ids, " ", id)
	case "silent":
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the client is not noticed
		fmt.Println("silent call began")
		<-r.Context().Done()
		fmt.Println("silent call ended")
	case "exit":
		code, _ := strconv.Atoi(r.URL.Query().Get("with"))
		os.Exit(code)
	case "plain":
		w.Header()["Content-Type"] = nil
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.Header().Set("Server", "own")
		w.Header().Set("Keep-Alive", "x")
		w.Header().Set("retry-after-ms", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, "<html>")
	default:
		fakeEcho(w, r)
	}
}

func fakeEcho(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	n, _ := io.Copy(hash, r.Body)
	s := seen{
		Method: r.Method, URI: r.RequestURI, Host: r.Host, Header: r.Header, Length: r.ContentLength, Bytes: int(n),
		SHA: hex.EncodeToString(hash.Sum(nil)), Env: map[string]string{},
	}
	s.Dir, _ = os.Getwd()
	for _, e := range os.Environ() {
		if name, value, _ := strings.Cut(e, "="); strings.HasPrefix(name, "FUNCTIONS_") || name == "ASPNETCORE_URLS" || name == "OWN" {
			s.Env[name] = value
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s)
}

// fakeTimer answers as its setting says; it fails on an envelope that is not one.
func fakeTimer(w http.ResponseWriter, r *http.Request) {
	var envelope struct {
		Data map[string]struct {
			IsPastDue      *bool
			ScheduleStatus json.RawMessage
		}
		Metadata struct {
			Sys struct{ MethodName, UtcNow string }
		}
	}
	err := json.NewDecoder(r.Body).Decode(&envelope)
	sys := envelope.Metadata.Sys
	if err != nil || envelope.Data["timer"].IsPastDue == nil || sys.MethodName != "Maintain" || sys.UtcNow == "" ||
		r.ContentLength != -1 || r.Header.Get("X-Azure-Functions-InvocationId") == "" || r.Method != http.MethodPost {
		http.Error(w, "not an envelope", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch os.Getenv("HOSTSIM_FAKE") {
	case "timer empty":
	case "timer text":
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "{}")
	case "timer fails":
		w.WriteHeader(http.StatusInternalServerError)
	case "timer tells":
		line, _ := json.Marshal(fmt.Sprintf("%s %v", envelope.Data["timer"].ScheduleStatus, *envelope.Data["timer"].IsPastDue))
		fmt.Fprintf(w, `{"Outputs":{},"Logs":[%s],"ReturnValue":null}`, line)
	case "timer broken":
		_, _ = io.WriteString(w, "{")
	default:
		_, _ = io.WriteString(w, `{"Outputs":{},"Logs":["swept"],"ReturnValue":null}`)
	}
}

// fakeEnvelope answers the envelope of an HTTP function as its setting says.
func fakeEnvelope(w http.ResponseWriter, r *http.Request, mode string) {
	body, _ := io.ReadAll(r.Body)
	answer := map[string]any{"res": map[string]any{"statusCode": 200, "body": map[string]int{"a": 1}}}
	switch mode {
	case "1":
		told, _ := json.Marshal(map[string]any{
			"Path": r.URL.Path, "Agent": r.Header.Get("User-Agent"), "Kind": r.Header.Get("Content-Type"), "Length": r.ContentLength, "Body": json.RawMessage(body),
		})
		answer = map[string]any{"res": map[string]any{"statusCode": "202", "headers": map[string]string{"X-Own": "1"}, "body": string(told)}}
	case "envelope empty":
		return
	case "envelope fails":
		w.WriteHeader(http.StatusBadGateway)
	case "envelope none":
		answer = nil
	case "envelope status":
		answer = map[string]any{"res": map[string]any{"statusCode": "many"}}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"Outputs": answer})
}
