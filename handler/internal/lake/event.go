package lake

import (
	"encoding/json"
	"fmt"
	"hash/fnv"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// CloudEvents 1.0 attributes in the AMQP binding, which prefixes their names.
const (
	eventType    = "com.costgate.usage.v1"
	eventSource  = "/costgate"
	eventContent = "application/json"

	idBytesMax = 128 // of a message id, which the service bounds
)

// event is a record on its way to the hub.
type event struct {
	index   int // in the records that were sent
	product string
	data    *azeventhubs.EventData
}

// newEvent makes the event of a record. The message id is the record's; an event
// id is unique for each revision, since two events of one source and id are the
// same to readers of CloudEvents.
func newEvent(index int, record []byte) (event, error) {
	var r struct {
		ID        string `json:"id"`
		Rev       int64  `json:"rev"`
		ProductID string `json:"product_id"`
		Time      string `json:"time"`
	}
	if err := json.Unmarshal(record, &r); err != nil {
		return event{}, &RecordError{Index: index, ID: recordID(record), Reason: err.Error()}
	}
	if r.ID == "" || len(r.ID) > idBytesMax {
		return event{}, &RecordError{Index: index, Reason: fmt.Sprintf("an id has 1 to %d bytes, not %d", idBytesMax, len(r.ID))}
	}
	properties := map[string]any{
		"cloudEvents:specversion": "1.0",
		"cloudEvents:id":          r.ID,
		"cloudEvents:type":        eventType,
		"cloudEvents:source":      eventSource,
		"cloudEvents:rev":         r.Rev, // long: what Capture's files can hold
	}
	if r.Rev > 1 {
		properties["cloudEvents:id"] = fmt.Sprintf("%s:%d", r.ID, r.Rev)
	}
	if r.ProductID != "" {
		properties["cloudEvents:subject"] = r.ProductID
	}
	if r.Time != "" {
		properties["cloudEvents:time"] = r.Time
	}
	return event{index: index, product: r.ProductID, data: &azeventhubs.EventData{
		Body: record, ContentType: to.Ptr(eventContent), MessageID: &r.ID, Properties: properties,
	}}, nil
}

// partition spreads products over n partitions, the same in every process.
func partition(product string, n int) int {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(product))
	return int(hash.Sum32() % uint32(n))
}
