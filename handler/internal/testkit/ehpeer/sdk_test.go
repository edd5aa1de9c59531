package ehpeer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/google/go-cmp/cmp"
)

// retries are as many as the SDK's own, but quick.
var retries = azeventhubs.RetryOptions{RetryDelay: time.Millisecond, MaxRetryDelay: 5 * time.Millisecond}

func start(t testing.TB, o Options) *Peer {
	t.Helper()
	p, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func producer(t testing.TB, p *Peer) *azeventhubs.ProducerClient {
	t.Helper()
	c, err := azeventhubs.NewProducerClientFromConnectionString(p.ConnectionString(), "", &azeventhubs.ProducerClientOptions{RetryOptions: retries})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func consumer(t testing.TB, p *Peer) *azeventhubs.ConsumerClient {
	t.Helper()
	c, err := azeventhubs.NewConsumerClientFromConnectionString(p.ConnectionString(), "", azeventhubs.DefaultConsumerGroup,
		&azeventhubs.ConsumerClientOptions{RetryOptions: retries})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// send sends one batch.
func send(ctx context.Context, c *azeventhubs.ProducerClient, o *azeventhubs.EventDataBatchOptions, bodies ...string) error {
	b, err := c.NewEventDataBatch(ctx, o)
	if err != nil {
		return err
	}
	for _, body := range bodies {
		if err := b.AddEventData(&azeventhubs.EventData{Body: []byte(body), MessageID: to.Ptr("id-" + body)}, nil); err != nil {
			return err
		}
	}
	return c.SendEventDataBatch(ctx, b, nil)
}

func mustSend(t testing.TB, c *azeventhubs.ProducerClient, o *azeventhubs.EventDataBatchOptions, bodies ...string) {
	t.Helper()
	if err := send(deadline(t), c, o, bodies...); err != nil {
		t.Fatal(err)
	}
}

func bodies(p *Peer) (all []string) {
	for _, e := range p.Events() {
		all = append(all, string(e.Body))
	}
	return all
}

func want[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// until waits for something that another goroutine does.
func until(done func() bool) {
	for !done() {
		runtime.Gosched()
	}
}

// count is how many readers there are.
func (s *seats) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.taken)
}

func TestProducer(t *testing.T) {
	p := start(t, Options{Key: "c2VjcmV0"})
	var heard []Event
	p.OnEvent(func(e Event) { heard = append(heard, e) })
	c, ctx := producer(t, p), deadline(t)

	b, err := c.NewEventDataBatch(ctx, &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("2")})
	if err != nil {
		t.Fatal(err)
	}
	properties := map[string]any{"cloudEvents:type": "usage", "n": int64(7), "yes": true, "at": time.UnixMilli(1700000000123).UTC(), "none": nil}
	if err := b.AddEventData(&azeventhubs.EventData{
		Body: []byte(`{"a":1}`), MessageID: to.Ptr("m1"), ContentType: to.Ptr("application/json"), Properties: properties,
	}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.AddEventData(&azeventhubs.EventData{Body: []byte("two")}, nil); err != nil { // the SDK gives it an id
		t.Fatal(err)
	}
	if err := c.SendEventDataBatch(ctx, b, nil); err != nil {
		t.Fatal(err)
	}
	mustSend(t, c, &azeventhubs.EventDataBatchOptions{PartitionKey: to.Ptr("131")}, "three")
	for _, body := range []string{"four", "five"} {
		mustSend(t, c, nil, body)
	}

	events := p.Events()
	want(t, "told", heard, events)
	want(t, "bodies", bodies(p), []string{`{"a":1}`, "two", "three", "four", "five"})
	first := events[0]
	if first.Enqueued.IsZero() || first.Enqueued.Nanosecond()%1e6 != 0 {
		t.Errorf("enqueued at %v", first.Enqueued)
	}
	first.Enqueued = time.Time{}
	want(t, "first", first, Event{
		Partition: 2, Offset: "0", MessageID: "m1", ContentType: "application/json", Properties: properties, Body: []byte(`{"a":1}`),
	})
	if e := events[1]; e.Partition != 2 || e.Sequence != 1 || e.Offset == "0" || len(e.MessageID) != 36 {
		t.Errorf("second: %+v", e)
	}
	if e := events[2]; e.Partition != partitionOf("131", 4) || e.PartitionKey != "131" || e.MessageID != "id-three" {
		t.Errorf("third: %+v", e)
	}
	if a, b := events[3].Partition, events[4].Partition; (a+1)%4 != b {
		t.Errorf("without a key, partitions %d and %d", a, b)
	}
	want(t, "stats", p.Stats(), Stats{Connections: 1, Open: 1, Transfers: 4, Events: 5, Kept: 5, Faults: map[string]int64{}})
}

// TestLarge sends a batch that fills max-message-size, in many frames, and gets it
// back.
func TestLarge(t *testing.T) {
	f := func(size uint64, bodyBytes int) {
		t.Helper()
		p := start(t, Options{Partitions: 1, MaxMessageBytes: size})
		c, ctx := producer(t, p), deadline(t)
		b, err := c.NewEventDataBatch(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		var sent []string
		for {
			body := fmt.Sprintf("%d %s", len(sent), strings.Repeat("x", bodyBytes))
			if err := b.AddEventData(&azeventhubs.EventData{Body: []byte(body)}, nil); err != nil {
				if !errors.Is(err, azeventhubs.ErrEventDataTooLarge) {
					t.Fatal(err)
				}
				break
			}
			sent = append(sent, body)
		}
		if err := c.SendEventDataBatch(ctx, b, nil); err != nil {
			t.Fatal(err)
		}
		want(t, "stored", bodies(p), sent)
		want(t, "received", receive(t, consumer(t, p), "0", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, len(sent)), sent)
	}
	f(0, 400)       // many small events
	f(0, 300<<10)   // three events of several frames
	f(256<<10, 400) // the Basic tier
}

// receive reads n events of a partition.
func receive(t testing.TB, c *azeventhubs.ConsumerClient, partition string, from azeventhubs.StartPosition, n int) (got []string) {
	t.Helper()
	for _, e := range receiveEvents(t, c, partition, from, n) {
		got = append(got, string(e.Body))
	}
	return got
}

func receiveEvents(t testing.TB, c *azeventhubs.ConsumerClient, partition string, from azeventhubs.StartPosition, n int) (got []*azeventhubs.ReceivedEventData) {
	t.Helper()
	ctx := deadline(t)
	r, err := c.NewPartitionClient(partition, &azeventhubs.PartitionClientOptions{StartPosition: from})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(ctx)
	for len(got) < n {
		events, err := r.ReceiveEvents(ctx, n-len(got), nil)
		if err != nil {
			t.Fatalf("after %d events: %v", len(got), err)
		}
		got = append(got, events...)
	}
	return got
}

func TestConsumer(t *testing.T) {
	p := start(t, Options{Partitions: 2})
	clock := time.UnixMilli(1_700_000_000_000)
	p.store.now = func() time.Time { clock = clock.Add(time.Second); return clock }
	c, r := producer(t, p), consumer(t, p)
	toOne := &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("1")}
	for _, body := range []string{"a", "b", "c", "d"} {
		mustSend(t, c, toOne, body)
	}
	events := p.Events()
	f := func(name string, from azeventhubs.StartPosition, bodies ...string) {
		t.Helper()
		want(t, name, receive(t, r, "1", from, len(bodies)), bodies)
	}
	f("earliest", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, "a", "b", "c", "d")
	f("sequence", azeventhubs.StartPosition{SequenceNumber: to.Ptr(int64(1))}, "c", "d")
	f("sequence, inclusive", azeventhubs.StartPosition{SequenceNumber: to.Ptr(int64(1)), Inclusive: true}, "b", "c", "d")
	f("offset", azeventhubs.StartPosition{Offset: to.Ptr(events[2].Offset)}, "d")
	f("offset, inclusive", azeventhubs.StartPosition{Offset: to.Ptr(events[2].Offset), Inclusive: true}, "c", "d")
	f("time", azeventhubs.StartPosition{EnqueuedTime: to.Ptr(events[0].Enqueued)}, "b", "c", "d")
	f("time between", azeventhubs.StartPosition{EnqueuedTime: to.Ptr(events[3].Enqueued.Add(-time.Millisecond))}, "d")

	got := receiveEvents(t, r, "1", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 1)[0]
	e := events[0]
	if got.SequenceNumber != e.Sequence || got.Offset != e.Offset || !got.EnqueuedTime.Equal(e.Enqueued) || *got.MessageID != e.MessageID {
		t.Errorf("got %+v, want %+v", got, e)
	}

	latest, err := r.NewPartitionClient("1", &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Latest: to.Ptr(true)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, sent := deadline(t), make(chan error)
	go func() {
		until(func() bool { return p.seats.count() > 0 || ctx.Err() != nil })
		sent <- send(ctx, c, toOne, "e")
	}()
	late, err := latest.ReceiveEvents(ctx, 1, nil)
	if err != nil || string(late[0].Body) != "e" {
		t.Errorf("latest: %v, %v", late, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	_ = latest.Close(ctx)

	hub, err := r.GetEventHubProperties(deadline(t), nil)
	if err != nil || hub.Name != "usage" || !slices.Equal(hub.PartitionIDs, []string{"0", "1"}) {
		t.Errorf("hub: %+v, %v", hub, err)
	}
	part, err := r.GetPartitionProperties(deadline(t), "1", nil)
	if err != nil || part.LastEnqueuedSequenceNumber != 4 || part.BeginningSequenceNumber != 0 || part.IsEmpty || part.LastEnqueuedOffset != p.Events()[4].Offset {
		t.Errorf("partition 1: %+v, %v", part, err)
	}
	part, err = r.GetPartitionProperties(deadline(t), "0", nil)
	if err != nil || part.LastEnqueuedSequenceNumber != -1 || !part.IsEmpty {
		t.Errorf("partition 0: %+v, %v", part, err)
	}
	if _, err := r.GetPartitionProperties(deadline(t), "2", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("partition 2: %v", err)
	}
}

// TestPrefetch reads more than the credit that the SDK gives at first, and more
// than the session's window.
func TestPrefetch(t *testing.T) {
	p := start(t, Options{Partitions: 1})
	c := producer(t, p)
	var sent []string
	for i := range 12 {
		var batch []string
		for j := range 1000 {
			batch = append(batch, fmt.Sprint(i*1000+j))
		}
		mustSend(t, c, nil, batch...)
		sent = append(sent, batch...)
	}
	want(t, "received", receive(t, consumer(t, p), "0", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, len(sent)), sent)
}

// TestEpochs has a reader take a partition over from another.
func TestEpochs(t *testing.T) {
	p := start(t, Options{Partitions: 1})
	mustSend(t, producer(t, p), nil, "a")
	open := func(level *int64) *azeventhubs.PartitionClient {
		t.Helper()
		r, err := consumer(t, p).NewPartitionClient("0", &azeventhubs.PartitionClientOptions{
			OwnerLevel: level, StartPosition: azeventhubs.StartPosition{Earliest: to.Ptr(true)},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close(context.Background()) })
		return r
	}
	read := func(r *azeventhubs.PartitionClient, lost bool) {
		t.Helper()
		_, err := r.ReceiveEvents(deadline(t), 1, nil)
		if lost != isCode(err, azeventhubs.ErrorCodeOwnershipLost) || !lost && err != nil {
			t.Errorf("got %v, lost: %t", err, lost)
		}
	}
	free, one, two := open(nil), open(to.Ptr(int64(1))), open(to.Ptr(int64(2)))
	read(free, false)
	read(open(nil), false) // shares
	read(one, false)
	read(free, true)
	read(two, false)
	read(one, true)
	for _, level := range []*int64{to.Ptr(int64(1)), nil} { // come too late
		if _, err := open(level).ReceiveEvents(deadline(t), 1, nil); err == nil || !strings.Contains(err.Error(), "amqp:link:stolen") {
			t.Errorf("got %v", err)
		}
	}
	read(open(to.Ptr(int64(2))), false) // as high is high enough
	read(two, true)
}
