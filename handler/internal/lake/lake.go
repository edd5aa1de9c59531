// Package lake carries finished records out of the ledger to where finance and
// analysts read them, off the request path.
//
// Invariants:
//   - every record of the outbox reaches the sink at least once: it is
//     acknowledged only after the sink has said that it is durable;
//   - records may arrive more than once (a process that died between the two, a
//     sink or an outbox that failed after it had succeeded, two processes that
//     find the same one). A reader drops doubles by id and keeps the highest rev;
//   - memory is bounded whatever fails; an outage of the sink delays, and the
//     outbox keeps what does not fit.
//
// It does not read, change or check records, and it owns no storage of its own
// but the files of [Folder]. Only this package knows the SDK of Event Hubs.
package lake

import (
	"context"
	"encoding/json"
	"fmt"
)

// RecordBytesMax bounds one record. Those of the ledger have 1 to 2 KB; every
// sink takes one of this size.
const RecordBytesMax = 200_000

// Sink stores records. Each is one JSON object without a line feed.
type Sink interface {
	// Send returns nil only when all records are durable. After an error any
	// number of them may be. An error that is a *RecordError blames one record:
	// trying it again is of no use, the others can be sent without it. One that
	// is a *PartialError tells which are durable; it may wrap a *RecordError.
	Send(ctx context.Context, records [][]byte) error
}

// Entry is a record that the sink may not have yet. Product and Row name it;
// they mean nothing here.
type Entry struct {
	Product, Row string
	Record       []byte // JSON, on one line
}

// Outbox is implemented by the ledger.
type Outbox interface {
	// Unsent returns up to limit entries not yet acknowledged, oldest first per
	// product.
	Unsent(ctx context.Context, limit int) ([]Entry, error)

	// Acknowledge forgets entries that the sink has stored. Those that are gone
	// already are no error.
	Acknowledge(ctx context.Context, entries []Entry) error
}

// RecordError is a record that a sink can never take.
type RecordError struct {
	Index  int    // in the records that were sent
	ID     string // its id, as far as it has a readable one
	Reason string
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("record %d (id %q) cannot be stored: %s", e.Index, e.ID, e.Reason)
}

// PartialError is a Send of which some records are known to be durable.
type PartialError struct {
	Stored []bool // by the index of the records
	Err    error
}

func (e *PartialError) Error() string { return e.Err.Error() }
func (e *PartialError) Unwrap() error { return e.Err }

// checkRecords finds the first record that no sink takes.
func checkRecords(records [][]byte) error {
	for i, record := range records {
		reason := ""
		switch {
		case len(record) > RecordBytesMax:
			reason = fmt.Sprintf("%d bytes, at most %d are allowed", len(record), RecordBytesMax)
		case len(record) == 0 || record[0] != '{' || record[len(record)-1] != '}':
			reason = "not a JSON object"
		case hasLineBreak(record):
			reason = "it has a line break"
		}
		if reason != "" {
			return &RecordError{Index: i, ID: recordID(record), Reason: reason}
		}
	}
	return nil
}

func hasLineBreak(record []byte) bool {
	for _, c := range record {
		if c == '\n' || c == '\r' {
			return true
		}
	}
	return false
}

// recordID reads the id of a record that is at fault. Its text is bounded: it
// goes into a log.
func recordID(record []byte) string {
	var r struct{ ID string }
	if json.Unmarshal(record, &r) != nil || len(r.ID) > 64 {
		return ""
	}
	return r.ID
}
