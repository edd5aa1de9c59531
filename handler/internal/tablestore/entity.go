package tablestore

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// On the wire an entity is a JSON object. An integer is a string with the
// annotation Edm.Int64 beside it: a JSON number would be an Int32 or, past 2^53,
// another number. A text is a string without annotation.
const (
	annotation   = "@odata.type"
	edmInt64     = "Edm.Int64"
	partitionKey = "PartitionKey"
	rowKey       = "RowKey"
	timestamp    = "Timestamp"
	entityETag   = "odata.etag"
)

func encode(partition string, op ledger.Op) ([]byte, error) {
	object := map[string]string{partitionKey: partition, rowKey: op.Entity.Row}
	if op.Kind != ledger.Delete {
		for name, n := range op.Entity.Ints {
			object[name], object[name+annotation] = strconv.FormatInt(n, 10), edmInt64
		}
		for name, text := range op.Entity.Texts {
			object[name] = text
		}
	}
	return json.Marshal(object)
}

var errEntity = errors.New("the entity cannot be read")

// decode reads an entity. Properties of types that we do not write are left out.
func decode(object []byte) (e ledger.Entity, err error) {
	var properties map[string]json.RawMessage
	if err := json.Unmarshal(object, &properties); err != nil {
		return e, fmt.Errorf("%w: %w", errEntity, err)
	}
	text := func(name string) (s string) {
		if value, there := properties[name]; there && json.Unmarshal(value, &s) != nil {
			err = fmt.Errorf("%w: property %s", errEntity, name)
		}
		return s
	}
	e = ledger.Entity{Partition: text(partitionKey), Row: text(rowKey), ETag: text(entityETag)}
	written := text(timestamp)
	for name, value := range properties {
		if name == partitionKey || name == rowKey || name == timestamp || strings.HasPrefix(name, "odata.") || strings.Contains(name, "@") {
			continue
		}
		switch kind := text(name + annotation); {
		case kind == edmInt64:
			e.Ints, err = with(e.Ints, name, text(name), err)
		case kind != "":
		case len(value) > 0 && value[0] == '"':
			if e.Texts == nil {
				e.Texts = map[string]string{}
			}
			e.Texts[name] = text(name)
		}
	}
	if err != nil {
		return ledger.Entity{}, err
	}
	if e.Updated, err = time.Parse(time.RFC3339, written); err != nil || e.Partition == "" || e.Row == "" {
		return ledger.Entity{}, fmt.Errorf("%w: a property of the service is missing", errEntity)
	}
	return e, nil
}

// with adds an integer, and keeps the first error.
func with(ints map[string]int64, name, digits string, before error) (map[string]int64, error) {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		before = errors.Join(before, fmt.Errorf("%w: property %s", errEntity, name))
	}
	if ints == nil {
		ints = map[string]int64{}
	}
	ints[name] = n
	return ints, before
}
