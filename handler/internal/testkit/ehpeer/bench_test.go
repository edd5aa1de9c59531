package ehpeer

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// Benchmarks of the SDK and the peer together, which share the machine. An
// operation is one event, with a body of 400 bytes.
//
//	go test ./handler/internal/testkit/ehpeer -run '^$' -bench . -benchtime 2s

func BenchmarkSend(b *testing.B) {
	for _, senders := range []int{1, 8} {
		for _, size := range []int{1, 100} {
			b.Run(fmt.Sprintf("senders=%d/batch=%d", senders, size), func(b *testing.B) { benchmarkSend(b, senders, size) })
		}
	}
}

func benchmarkSend(b *testing.B, senders, size int) {
	p := start(b, Options{})
	c := producer(b, p)
	body := []byte(strings.Repeat("x", 400))
	mustSend(b, c, nil, "first")
	left := make(chan int, senders)
	b.ReportAllocs()
	b.ResetTimer()
	var running sync.WaitGroup
	for range senders {
		running.Go(func() {
			for n := range left {
				batch, err := c.NewEventDataBatch(b.Context(), nil)
				for range n {
					if err == nil {
						err = batch.AddEventData(&azeventhubs.EventData{Body: body, MessageID: to.Ptr("id")}, nil)
					}
				}
				if err == nil {
					err = c.SendEventDataBatch(b.Context(), batch, nil)
				}
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	for done := 0; done < b.N; done += size {
		left <- min(size, b.N-done)
	}
	close(left)
	running.Wait()
	b.StopTimer()
	if got := p.Stats().Events; got != int64(b.N)+1 {
		b.Errorf("%d events stored, %d sent", got, b.N+1)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkReceive(b *testing.B) {
	p := start(b, Options{Partitions: 1})
	batch := make([]*entry, min(b.N, EventsMax))
	for i := range batch {
		m := message{bare: appendValue(nil, described{codeData, []byte(strings.Repeat("x", 400))})}
		batch[i], _ = m.event("")
	}
	p.keep(0, "", batch)
	c := consumer(b, p)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(batch) {
		receiveEvents(b, c, "0", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, min(left, len(batch)))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
