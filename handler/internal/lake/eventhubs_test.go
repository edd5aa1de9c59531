package lake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/testkit/ehpeer"
)

// startPeer starts a peer of Event Hubs and a sink of it.
func startPeer(t testing.TB, o ehpeer.Options) (*ehpeer.Peer, *EventHubs) {
	t.Helper()
	peer, err := ehpeer.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	return peer, newHub(t, EventHubsOptions{ConnectionString: peer.ConnectionString()})
}

func newHub(t testing.TB, o EventHubsOptions) *EventHubs {
	t.Helper()
	hub, err := NewEventHubs(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hub.Close() })
	return hub
}

// hubRecord is a record of a product, of about the size given.
func hubRecord(product string, i, size int) []byte {
	text := fmt.Sprintf(`{"schema":1,"id":"%s-%06d","rev":1,"time":"2026-11-24T11:00:00Z","product_id":"%s"`, product, i, product)
	return fmt.Appendf(nil, `%s,"x":"%s"}`, text, strings.Repeat("x", max(0, size-len(text)-8)))
}

// bodies are the bodies of a peer's events, in the order of storing.
func bodies(peer *ehpeer.Peer) []string {
	var out []string
	for _, e := range peer.Events() {
		out = append(out, string(e.Body))
	}
	return out
}

func strs(records [][]byte) (out []string) {
	for _, r := range records {
		out = append(out, string(r))
	}
	return out
}

func TestEventHubsEvent(t *testing.T) {
	peer, hub := startPeer(t, ehpeer.Options{Key: "secret"})
	const (
		first  = `{"id":"019ab","rev":1,"kind":"request","time":"2026-11-24T11:00:00.5Z","product_id":"p_1","cost_nano_usd":9007199254740993}`
		second = `{"id":"019ab","rev":2,"kind":"request","time":"2026-11-24T11:00:00.5Z","product_id":"p_1"}`
		third  = `{"id":"019ac","rev":1,"kind":"config","time":"2026-11-24T11:00:01Z","product_id":null}`
	)
	if err := hub.Send(t.Context(), records(first, second, third)); err != nil {
		t.Fatal(err)
	}
	attributes := func(id, time string, rev int64, subject string) map[string]any {
		a := map[string]any{
			"cloudEvents:specversion": "1.0", "cloudEvents:type": "com.costgate.usage.v1", "cloudEvents:source": "/costgate",
			"cloudEvents:id": id, "cloudEvents:rev": rev, "cloudEvents:time": time,
		}
		if subject != "" {
			a["cloudEvents:subject"] = subject
		}
		return a
	}
	want := map[string]map[string]any{
		first:  attributes("019ab", "2026-11-24T11:00:00.5Z", 1, "p_1"),
		second: attributes("019ab:2", "2026-11-24T11:00:00.5Z", 2, "p_1"),
		third:  attributes("019ac", "2026-11-24T11:00:01Z", 1, ""),
	}
	for _, e := range peer.Events() {
		if diff := cmp.Diff(want[string(e.Body)], e.Properties); diff != "" {
			t.Errorf("%s: %s", e.Body, diff)
		}
		if e.MessageID != string(e.Body[7:12]) || e.ContentType != "application/json" || e.PartitionKey != "" {
			t.Errorf("%s: message id %q, content type %q, partition key %q", e.Body, e.MessageID, e.ContentType, e.PartitionKey)
		}
		delete(want, string(e.Body))
	}
	if len(want) > 0 {
		t.Errorf("not stored: %v", want)
	}
}

// Each product has one partition, in every process, and its records keep their
// order. Nothing comes twice.
func TestEventHubsPartitions(t *testing.T) {
	peer, hub := startPeer(t, ehpeer.Options{Partitions: 5})
	another := newHub(t, EventHubsOptions{ConnectionString: peer.ConnectionString()})
	for round := range 20 {
		var batch [][]byte
		for i := range 10 {
			for p := range 50 {
				batch = append(batch, hubRecord(fmt.Sprintf("p_%d", p), 10*round+i, 300))
			}
		}
		sink := hub
		if round%2 > 0 {
			sink = another
		}
		if err := sink.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	partitions, next, used := map[string]int{}, map[string]int{}, map[int]bool{}
	for _, e := range peer.Events() {
		product, _, _ := strings.Cut(e.MessageID, "-")
		if p, ok := partitions[product]; ok && p != e.Partition {
			t.Fatalf("%s is in the partitions %d and %d", product, p, e.Partition)
		}
		partitions[product], used[e.Partition] = e.Partition, true
		if want := fmt.Sprintf("%s-%06d", product, next[product]); e.MessageID != want {
			t.Fatalf("%s comes where %s should", e.MessageID, want)
		}
		next[product]++
	}
	for product, n := range next {
		if n != 200 {
			t.Errorf("%s has %d records", product, n)
		}
	}
	if len(next) != 50 || len(used) != 5 {
		t.Errorf("%d products in %d partitions", len(next), len(used))
	}
	if s := hub.Stats(); s != (EventHubsStats{Batches: 50, Events: 5000}) {
		t.Errorf("%+v", s)
	}
}

// A batch has what the link takes. A record that it never takes is blamed; the
// others are stored.
func TestEventHubsSizes(t *testing.T) {
	f := func(limit uint64, sizes []int, blamed int, batches int64) {
		t.Helper()
		peer, hub := startPeer(t, ehpeer.Options{MaxMessageBytes: limit, Partitions: 1})
		var batch, want [][]byte
		for i, size := range sizes {
			r := hubRecord("p", i, size)
			batch = append(batch, r)
			if blamed < 0 || i < blamed {
				want = append(want, r)
			}
		}
		err := hub.Send(t.Context(), batch)
		bad, partial := (*RecordError)(nil), (*PartialError)(nil)
		switch {
		case blamed < 0 && err != nil:
			t.Errorf("%v: %v", sizes, err)
		case blamed >= 0 && (!errors.As(err, &bad) || bad.Index != blamed || !errors.As(err, &partial)):
			t.Errorf("%v: %v", sizes, err)
		case blamed >= 0:
			for i, stored := range partial.Stored {
				if stored != (i < blamed) {
					t.Errorf("%v: record %d is stored: %v", sizes, i, stored)
				}
			}
		}
		if diff := cmp.Diff(strs(want), bodies(peer)); diff != "" {
			t.Errorf("%v: %s", sizes, diff)
		}
		if s := hub.Stats(); s.Batches != batches || s.Events != int64(len(want)) {
			t.Errorf("%v: %+v", sizes, s)
		}
	}
	f(1<<20, slices.Repeat([]int{2000}, 500), -1, 2)
	f(256<<10, slices.Repeat([]int{2000}, 500), -1, 5)            // of the Basic tier
	f(256<<10, []int{RecordBytesMax, RecordBytesMax, 300}, -1, 2) // the largest record goes through it
	f(64<<10, []int{300, 60_000, 70_000, 300}, 2, 1)
	f(64<<10, []int{70_000}, 0, 0)
}

// A link that takes nothing at all, one without max-message-size, is no record's
// fault.
func TestFillLinkWithoutLimit(t *testing.T) {
	e, err := newEvent(0, hubRecord("p", 0, 300))
	if err != nil {
		t.Fatal(err)
	}
	_, err = fill(&azeventhubs.EventDataBatch{}, []event{e})
	bad := (*RecordError)(nil)
	if err == nil || errors.As(err, &bad) {
		t.Errorf("%v", err)
	}
}

// A service that refuses a batch for its size, whatever its link says, gets
// smaller ones.
func TestEventHubsTooLarge(t *testing.T) {
	peer, hub := startPeer(t, ehpeer.Options{Partitions: 1})
	var batch [][]byte
	for i := range 7 {
		batch = append(batch, hubRecord("p", i, 300))
	}
	peer.Fail(ehpeer.TooLarge, 2)
	if err := hub.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strs(batch), bodies(peer)); diff != "" {
		t.Error(diff)
	}
	if s := hub.Stats(); s.Batches != 7 {
		t.Errorf("%+v", s)
	}
	peer.Fail(ehpeer.TooLarge, 4)
	err := hub.Send(t.Context(), batch)
	if bad := (*RecordError)(nil); !errors.As(err, &bad) || bad.Index != 0 {
		t.Errorf("%v", err)
	}
}

func TestEventHubsRefuses(t *testing.T) {
	_, hub := startPeer(t, ehpeer.Options{})
	f := func(record string) {
		t.Helper()
		err := hub.Send(t.Context(), records(`{"id":"good"}`, record))
		if bad := (*RecordError)(nil); !errors.As(err, &bad) || bad.Index != 1 {
			t.Errorf("%.40s: %v", record, err)
		}
	}
	f("")
	f("{\n}")
	f(`{"id":1}`)
	f(`{"id":}`)
	f(`{"product_id":"p"}`)
	f(`{"id":"` + strings.Repeat("i", idBytesMax+1) + `"}`)
	if err := hub.Send(t.Context(), records(`{"id":"`+strings.Repeat("i", idBytesMax)+`"}`)); err != nil {
		t.Error(err)
	}
	if err := hub.Send(t.Context(), nil); err != nil {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hub.Send(ended, records(`{"id":"1"}`)); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

// A Send never lasts longer than its tries may, also against a peer that accepts
// connections and is silent; nor does Close.
func TestEventHubsSilence(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	hub := newHub(t, EventHubsOptions{ConnectionString: "Endpoint=sb://" + listener.Addr().String() +
		";SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=true;EntityPath=usage"})
	hub.tryMax = 100 * time.Millisecond
	start := time.Now()
	for range 3 {
		if err := hub.Send(t.Context(), records(`{"id":"1"}`)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
	if err := hub.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// A hub that was made anew with fewer partitions is found out.
func TestEventHubsFewerPartitions(t *testing.T) {
	peer, hub := startPeer(t, ehpeer.Options{Partitions: 8})
	var batch [][]byte
	for i := range 50 {
		batch = append(batch, hubRecord(fmt.Sprintf("p_%d", i), i, 300))
	}
	if err := hub.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	_ = peer.Close()
	fewer, err := ehpeer.Start(ehpeer.Options{Address: peer.Address(), Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fewer.Close() })
	for range 5 {
		if err = hub.Send(t.Context(), batch); err == nil {
			break
		}
		t.Log(err)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestNewEventHubs(t *testing.T) {
	f := func(o EventHubsOptions, want string) {
		t.Helper()
		hub, err := NewEventHubs(o)
		if hub != nil && err == nil {
			_ = hub.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || err != nil && strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%v: %v", o, err)
		}
	}
	const s = "Endpoint=sb://n.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0"
	f(EventHubsOptions{ConnectionString: s, Hub: "usage"}, "")
	f(EventHubsOptions{ConnectionString: s + ";EntityPath=usage"}, "")
	f(EventHubsOptions{ConnectionString: s + ";EntityPath=usage", Hub: "usage"}, "")
	f(EventHubsOptions{ConnectionString: s + ";EntityPath=usage", Hub: "other"}, "other")
	f(EventHubsOptions{ConnectionString: s}, "EntityPath")
	f(EventHubsOptions{ConnectionString: "c2VjcmV0"}, "connection string")
	f(EventHubsOptions{Namespace: "n.servicebus.windows.net", Hub: "usage", Credential: token{}}, "")
	f(EventHubsOptions{Namespace: "n.servicebus.windows.net", Hub: "usage"}, "credential")
	f(EventHubsOptions{Namespace: "sb://n.servicebus.windows.net", Hub: "usage", Credential: token{}}, "host name")
	f(EventHubsOptions{Namespace: "n.servicebus.windows.net", Hub: "us/age", Credential: token{}}, "us/age")
	f(EventHubsOptions{Namespace: "n.servicebus.windows.net", Credential: token{}}, "event hub")
}
