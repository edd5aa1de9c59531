package lake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

const (
	// tryMax bounds one exchange with the hub. One that is not answered in it
	// costs the connection, and the relay tries again: the first records after a
	// silent loss are stored within 10 s.
	tryMax   = 7 * time.Second
	sendsMax = 4 // batches of one Send on their way at once
	// renewAfter is how many Sends in a row may fail before the SDK's client is
	// replaced: some of its states it never leaves, a link that was "stolen" for one.
	renewAfter   = 3
	closeTimeout = 5 * time.Second
	tokenTimeout = 10 * time.Second
)

// sdkRetries mends a connection or link that was lost unnoticed. All else is left
// to the Relay, which waits longer between two tries: the SDK's own defaults hold
// a call for up to a minute.
var sdkRetries = azeventhubs.RetryOptions{MaxRetries: 1, RetryDelay: 500 * time.Millisecond, MaxRetryDelay: time.Second}

// EventHubs is a Sink of an Azure Event Hub: each record one event, with the
// attributes of CloudEvents 1.0 as application properties. The records of one
// product go to one partition, in their order.
type EventHubs struct {
	connect func() (*azeventhubs.ProducerClient, error) // makes a client; it does not dial
	wire    *wire
	tryMax  time.Duration

	opening chan struct{} // holds one token: links are opened one by one

	mu         sync.Mutex
	client     *azeventhubs.ProducerClient
	partitions []string // ids; nil: to be read
	failures   int      // Sends in a row that failed

	batches, events atomic.Int64
}

// EventHubsStats is what an EventHubs has done.
type EventHubsStats struct {
	Batches    int64 // that were stored, each one AMQP transfer
	Events     int64 // in them
	Unaccepted int64 // transfers that the service neither accepted nor rejected
}

// NewEventHubs makes a sink. It connects when the first record comes.
func NewEventHubs(o EventHubsOptions) (*EventHubs, error) {
	h := &EventHubs{tryMax: tryMax, opening: make(chan struct{}, 1)}
	options := azeventhubs.ProducerClientOptions{ApplicationID: "costgate", RetryOptions: sdkRetries}
	hub := o.Hub
	if o.ConnectionString == "" {
		if err := errors.Join(CheckNamespace(o.Namespace), CheckHub(hub)); err != nil {
			return nil, err
		}
		if o.Credential == nil {
			return nil, errors.New("neither a connection string nor a credential")
		}
		h.wire = newWire(o.Namespace, false, o.TLS)
		h.connect = func() (*azeventhubs.ProducerClient, error) {
			return azeventhubs.NewProducerClient(o.Namespace, hub, timely{o.Credential}, &options)
		}
	} else {
		p, err := azeventhubs.ParseConnectionString(o.ConnectionString)
		if err != nil {
			return nil, err
		}
		if p.EntityPath != nil {
			if hub != "" && hub != *p.EntityPath {
				return nil, fmt.Errorf("the hub %q is not the connection string's, %q", hub, *p.EntityPath)
			}
			hub = "" // as the SDK demands
		}
		h.wire = newWire(p.FullyQualifiedNamespace, p.Emulator, o.TLS)
		h.connect = func() (*azeventhubs.ProducerClient, error) {
			return azeventhubs.NewProducerClientFromConnectionString(o.ConnectionString, hub, &options)
		}
	}
	options.NewWebSocketConn = h.wire.dial
	var err error
	h.client, err = h.connect()
	return h, err
}

// timely bounds the time of a token: the SDK asks for one without a limit, while
// it holds locks that a Send needs.
type timely struct{ azcore.TokenCredential }

func (t timely) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	return t.TokenCredential.GetToken(ctx, o)
}

var errUnaccepted = errors.New("the service neither accepted nor rejected a batch")

// Send stores the records, each partition's in batches one after the other. What
// fails is a *PartialError, unless nothing was tried.
func (h *EventHubs) Send(ctx context.Context, records [][]byte) error {
	if len(records) == 0 {
		return nil
	}
	if err := checkRecords(records); err != nil {
		return err
	}
	events := make([]event, len(records))
	for i, record := range records {
		var err error
		if events[i], err = newEvent(i, record); err != nil {
			return err
		}
	}
	client := h.current()
	stored := make([]bool, len(records))
	err := h.sendAll(ctx, client, events, stored)
	h.learn(ctx, client, err)
	if err != nil {
		return &PartialError{Stored: stored, Err: fmt.Errorf("event hub: %w", err)}
	}
	return nil
}

// sendAll sends the partitions' events side by side and marks those that are stored.
// A try without an answer ends them all: the connection that they share is lost.
func (h *EventHubs) sendAll(ctx context.Context, client *azeventhubs.ProducerClient, events []event, stored []bool) error {
	partitions, err := h.partitionIDs(ctx, client)
	if err != nil {
		return err
	}
	groups := make([][]event, len(partitions))
	for _, e := range events {
		p := partition(e.product, len(partitions))
		groups[p] = append(groups[p], e)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make([]error, len(partitions))
	slots := make(chan struct{}, sendsMax)
	var running sync.WaitGroup
	for p, group := range groups {
		if len(group) == 0 {
			continue
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			if err := h.sendPartition(ctx, client, partitions[p], group, stored); err != nil {
				failed[p] = fmt.Errorf("partition %s: %w", partitions[p], err)
				if errors.Is(err, context.DeadlineExceeded) {
					cancel()
				}
			}
		})
	}
	running.Wait()
	return gravest(failed)
}

// gravest picks the error that tells most of several: one that blames a record
// before others, what was only cut short last.
func gravest(failed []error) (worst error) {
	rank := func(err error) int {
		bad := (*RecordError)(nil)
		switch {
		case err == nil:
			return 0
		case errors.Is(err, context.Canceled):
			return 1
		case !errors.As(err, &bad):
			return 2
		}
		return 3
	}
	for _, err := range failed {
		if rank(err) > rank(worst) {
			worst = err
		}
	}
	return worst
}

// learn draws the conclusions from how a Send ended.
func (h *EventHubs) learn(ctx context.Context, used *azeventhubs.ProducerClient, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	bad := (*RecordError)(nil)
	if err == nil || errors.As(err, &bad) {
		h.failures = 0
		return
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	if hasCondition(err, conditionNoPartition, amqp.ErrCondNotFound) {
		h.partitions = nil
	}
	if h.failures++; h.failures >= renewAfter && h.client == used {
		h.renew()
	}
}

// current is the client to use. One whose connection was lost has a dead link for
// each partition, and would find out by a failed try and a wait for each.
func (h *EventHubs) current() *azeventhubs.ProducerClient {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wire.isLost() {
		h.renew()
	}
	return h.client
}

// renew replaces the client. mu is held.
func (h *EventHubs) renew() {
	fresh, err := h.connect()
	if err != nil {
		return // the old one may yet recover
	}
	old := h.client
	h.client, h.failures = fresh, 0
	h.wire.drop() // so that to close waits for nobody
	_ = h.close(old)
	h.wire.isLost() // that is known
}

// conditionNoPartition is said of a partition that the hub has no more.
const conditionNoPartition amqp.ErrCond = "com.microsoft:argument-out-of-range"

func hasCondition(err error, conditions ...amqp.ErrCond) bool {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range conditions {
		if e.Condition == c {
			return true
		}
	}
	return false
}

// partitionIDs reads the hub's partitions, once.
func (h *EventHubs) partitionIDs(ctx context.Context, client *azeventhubs.ProducerClient) ([]string, error) {
	h.mu.Lock()
	known := h.partitions
	h.mu.Unlock()
	if known != nil {
		return known, nil
	}
	try, done := h.try(ctx)
	defer done()
	properties, err := client.GetEventHubProperties(try, nil)
	if err != nil {
		return nil, err
	}
	if len(properties.PartitionIDs) == 0 {
		return nil, errors.New("it has no partitions")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.partitions = properties.PartitionIDs
	return h.partitions, nil
}

// sendPartition stores events in their order and marks those that are. It ends
// with the first batch that fails, so that none overtakes another.
func (h *EventHubs) sendPartition(ctx context.Context, client *azeventhubs.ProducerClient, id string, events []event, stored []bool) error {
	most := len(events) // in one batch
	for len(events) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch, err := h.openBatch(ctx, client, id)
		if err != nil {
			return err
		}
		n, err := fill(batch, events[:min(most, len(events))])
		if err != nil {
			return err
		}
		err = h.sendBatch(ctx, client, batch)
		if hasCondition(err, amqp.ErrCondMessageSizeExceeded) {
			if n == 1 {
				return &RecordError{Index: events[0].index, ID: *events[0].data.MessageID, Reason: err.Error()}
			}
			most = n / 2 // the service's limit is below what its link says
			continue
		}
		if err != nil {
			return err
		}
		h.batches.Add(1)
		h.events.Add(int64(n))
		for _, e := range events[:n] {
			stored[e.index] = true
		}
		events = events[n:]
	}
	return nil
}

// fill puts as many events into the batch as fit, at least one.
func fill(batch *azeventhubs.EventDataBatch, events []event) (int, error) {
	for n, e := range events {
		err := batch.AddEventData(e.data, nil)
		switch {
		case err == nil:
		case !errors.Is(err, azeventhubs.ErrEventDataTooLarge):
			return 0, &RecordError{Index: e.index, ID: *e.data.MessageID, Reason: err.Error()}
		case n > 0:
			return n, nil
		case batch.AddEventData(&azeventhubs.EventData{}, nil) != nil:
			// No fault of the record: not even an empty one fits.
			return 0, errors.New("the hub's link has no limit of size, or none that lets an event through")
		default:
			reason := fmt.Sprintf("%d bytes and its properties are more than the hub takes", len(e.data.Body))
			return 0, &RecordError{Index: e.index, ID: *e.data.MessageID, Reason: reason}
		}
	}
	return len(events), nil
}

// openBatch begins a batch, and opens the partition's link if need be. The SDK
// opens links one by one and lets the others wait without a deadline, so they wait
// here.
func (h *EventHubs) openBatch(ctx context.Context, client *azeventhubs.ProducerClient, id string) (*azeventhubs.EventDataBatch, error) {
	select {
	case h.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.opening }()
	try, done := h.try(ctx)
	defer done()
	return client.NewEventDataBatch(try, &azeventhubs.EventDataBatchOptions{PartitionID: &id})
}

// sendBatch returns nil only if the service has accepted the batch. An outcome
// that is no acceptance, of any batch that was on its way at the same time, is
// taken to be this one's: the SDK does not say whose it is.
func (h *EventHubs) sendBatch(ctx context.Context, client *azeventhubs.ProducerClient, batch *azeventhubs.EventDataBatch) error {
	try, done := h.try(ctx)
	defer done()
	before := h.wire.unaccepted.Load()
	if err := client.SendEventDataBatch(try, batch, nil); err != nil {
		return err
	}
	if h.wire.unaccepted.Load() != before {
		return errUnaccepted
	}
	return nil
}

// try bounds an exchange with the hub.
func (h *EventHubs) try(ctx context.Context) (context.Context, context.CancelFunc) {
	return h.wire.within(ctx, h.tryMax)
}

// Stats may be called at any time.
func (h *EventHubs) Stats() EventHubsStats {
	return EventHubsStats{Batches: h.batches.Load(), Events: h.events.Load(), Unaccepted: h.wire.unaccepted.Load()}
}

// Close ends the connection. Nothing waits in an EventHubs: what Send has not
// stored it has reported.
func (h *EventHubs) Close() error {
	h.mu.Lock()
	client := h.client
	h.mu.Unlock()
	defer h.wire.drop()
	return h.close(client)
}

func (h *EventHubs) close(client *azeventhubs.ProducerClient) error {
	ctx, done := h.wire.within(context.Background(), closeTimeout)
	defer done()
	return client.Close(ctx)
}
