package ehpeer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// TestProcessor reads all partitions, with checkpoints, each event once.
func TestProcessor(t *testing.T) {
	const events = 400
	p := start(t, Options{Key: "c2VjcmV0"})
	c := producer(t, p)
	sent := map[string]bool{}
	for i := range events {
		sent[fmt.Sprint(i)] = true
	}
	for i := range events / 10 {
		var batch []string
		for j := range 10 {
			batch = append(batch, fmt.Sprint(i*10+j))
		}
		mustSend(t, c, nil, batch...)
	}
	checkpoints := &memory{}
	run, stop := context.WithCancel(deadline(t))
	defer stop()
	processor, err := azeventhubs.NewProcessor(consumer(t, p), checkpoints, &azeventhubs.ProcessorOptions{
		LoadBalancingStrategy: azeventhubs.ProcessorStrategyGreedy, UpdateInterval: 10 * time.Millisecond,
		StartPositions: azeventhubs.StartPositions{Default: azeventhubs.StartPosition{Earliest: to.Ptr(true)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			r := processor.NextPartitionClient(run)
			if r == nil {
				return
			}
			readers.Go(func() {
				defer r.Close(context.Background())
				for {
					got, err := r.ReceiveEvents(run, 10, nil)
					if err != nil && run.Err() == nil {
						t.Error(err)
					}
					if err != nil {
						return
					}
					if err := r.UpdateCheckpoint(run, got[len(got)-1], nil); err != nil && run.Err() == nil {
						t.Error(err)
					}
					mu.Lock()
					for _, e := range got {
						if !sent[string(e.Body)] {
							t.Errorf("%s came twice", e.Body)
						}
						delete(sent, string(e.Body))
					}
					if len(sent) == 0 {
						stop()
					}
					mu.Unlock()
				}
			})
		}
	})
	if err := processor.Run(run); err != nil && run.Err() == nil {
		t.Fatal(err)
	}
	readers.Wait()
	if len(sent) > 0 {
		t.Errorf("%d events never came", len(sent))
	}
	if len(checkpoints.points) != 4 {
		t.Errorf("checkpoints of %d partitions", len(checkpoints.points))
	}
}

// memory is a checkpoint store.
type memory struct {
	mu     sync.Mutex
	owners map[string]azeventhubs.Ownership
	points map[string]azeventhubs.Checkpoint
	etag   int
}

func (m *memory) ClaimOwnership(_ context.Context, wanted []azeventhubs.Ownership, _ *azeventhubs.ClaimOwnershipOptions) (got []azeventhubs.Ownership, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.owners == nil {
		m.owners = map[string]azeventhubs.Ownership{}
	}
	for _, o := range wanted {
		if old, ok := m.owners[o.PartitionID]; ok && (o.ETag == nil || *o.ETag != *old.ETag) {
			continue
		}
		m.etag++
		o.ETag, o.LastModifiedTime = to.Ptr(azcore.ETag(fmt.Sprint(m.etag))), time.Now().UTC()
		m.owners[o.PartitionID] = o
		got = append(got, o)
	}
	return got, nil
}

func (m *memory) ListOwnership(context.Context, string, string, string, *azeventhubs.ListOwnershipOptions) (all []azeventhubs.Ownership, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.owners {
		all = append(all, o)
	}
	return all, nil
}

func (m *memory) ListCheckpoints(context.Context, string, string, string, *azeventhubs.ListCheckpointsOptions) (all []azeventhubs.Checkpoint, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.points {
		all = append(all, c)
	}
	return all, nil
}

func (m *memory) SetCheckpoint(_ context.Context, c azeventhubs.Checkpoint, _ *azeventhubs.SetCheckpointOptions) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.points == nil {
		m.points = map[string]azeventhubs.Checkpoint{}
	}
	m.points[c.PartitionID] = c
	return nil
}
