package ledger

import (
	"context"
	"errors"
	"time"
)

// Store is a table of entities with optimistic concurrency and transactions
// inside one partition: what Azure Table Storage offers, and no more.
//
// The contract, checked by package storetest for every implementation:
//   - An entity is named by partition and row. Keys are 1 to [KeyBytesMax]
//     bytes of [A-Za-z0-9._-]; anything else is an error before it is sent.
//   - Every write gives the entity a new ETag.
//   - Apply is atomic: all operations or none, and readers see all or none.
//   - Reads are linearizable. A range comes back in row order, and each page is
//     a snapshot.
//   - Nothing is retried: an error other than [ErrConflict], [ErrMissing],
//     [ErrExists] and [ErrInvalid] says nothing about whether the operation took
//     effect, now or later. Even those three say only how *this answer* ended: a
//     message delivered twice answers its second copy with them.
type Store interface {
	// Get reads one entity. It fails with ErrMissing if there is none.
	Get(ctx context.Context, partition, row string) (Entity, error)

	// Range reads the entities whose row is in [from, to), in row order, at
	// most limit of them (1 to PageMax). It does all paging the service asks
	// for until limit is reached or the range is exhausted.
	Range(ctx context.Context, partition, from, to string, limit int) (Page, error)

	// Apply executes the operations in one transaction and returns the new
	// ETag of each (empty for a Delete). 1 to OpsMax operations, each row at
	// most once, at most TxnBytesMax in all; a breach is ErrInvalid and is not
	// sent. If an operation's condition fails, nothing happens and the error
	// is a *OpError that wraps ErrExists, ErrMissing or ErrConflict and holds
	// the index of the operation.
	Apply(ctx context.Context, partition string, ops []Op) (etags []string, err error)
}

// Limits of a transaction and of its parts. They are those of Azure Table
// Storage, or lower.
const (
	KeyBytesMax    = 255
	OpsMax         = 100
	TxnBytesMax    = 3 << 20
	TextUnitsMax   = 32 << 10 // of one text property, in UTF-16 code units
	PropertiesMax  = 100
	PageMax        = 1000
	AnyETag        = "*"
	PropertyNameRE = `^[A-Z][A-Za-z0-9]{0,63}$` // of Ints and Texts
)

// Entity is a row: integers and texts by property name.
type Entity struct {
	Partition, Row string
	ETag           string
	Updated        time.Time // by the store's clock; only differences to Page.Date mean anything
	Ints           map[string]int64
	Texts          map[string]string
}

// Page is a part of a range.
type Page struct {
	Entities []Entity
	Next     string    // the row to continue from; empty: the range is exhausted
	Date     time.Time // the store's clock when it answered
}

// OpKind is what an operation does.
type OpKind int

// Insert fails with ErrExists if the row exists. Replace and Delete need an
// ETag ([AnyETag] demands only that the row exists) and fail with ErrMissing or
// ErrConflict. There is no upsert: it would hide the second copy of a message.
const (
	Insert OpKind = iota + 1
	Replace
	Delete
)

// Op is one operation of a transaction. Entity.ETag is the condition of a
// Replace or Delete.
type Op struct {
	Kind   OpKind
	Entity Entity // of a Delete only Row and ETag matter; Partition may be empty
}

// The errors of a Store. Use errors.Is.
var (
	ErrMissing     = errors.New("no such entity")
	ErrExists      = errors.New("the entity exists already")
	ErrConflict    = errors.New("the entity was changed by someone else")
	ErrInvalid     = errors.New("not a valid store operation")
	ErrUnavailable = errors.New("the store cannot be reached, or refuses for now") // includes throttling; the operation may have happened
)

// OpError names the operation whose condition failed.
type OpError struct {
	Index int // of the operation in the transaction; -1 if the service did not say
	Err   error
}

func (e *OpError) Error() string { return e.Err.Error() }

// Unwrap gives the sentinel.
func (e *OpError) Unwrap() error { return e.Err }
