package ledger

import (
	"fmt"
	"regexp"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits that every store checks before it sends anything.
const (
	EntityBytesMax = 960 << 10 // of one entity, two bytes for each UTF-16 code unit; the service's own limit is 1 MiB
	ETagBytesMax   = 256
)

var propertyName = regexp.MustCompile(PropertyNameRE)

// ValidateKey checks the name of a partition or of a row. Its error is
// ErrInvalid.
func ValidateKey(key string) error {
	if len(key) == 0 || len(key) > KeyBytesMax {
		return invalid("a key has 1 to %d bytes, not %d", KeyBytesMax, len(key))
	}
	for i := range len(key) {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return invalid("a key must not contain %q", c)
		}
	}
	return nil
}

// ValidateRange checks the arguments of Range. The ends need not name a row,
// but must be names that a row could have; from >= to is an empty range.
func ValidateRange(partition, from, to string, limit int) error {
	for _, key := range []string{partition, from, to} {
		if err := ValidateKey(key); err != nil {
			return err
		}
	}
	if limit < 1 || limit > PageMax {
		return invalid("the limit of a range is 1 to %d, not %d", PageMax, limit)
	}
	return nil
}

// ValidateOps checks a transaction against every limit of the contract. Its
// errors are ErrInvalid. A store that accepts only what passes can be replaced
// by any other.
func ValidateOps(partition string, ops []Op) error {
	if err := ValidateKey(partition); err != nil {
		return err
	}
	if len(ops) == 0 || len(ops) > OpsMax {
		return invalid("a transaction has 1 to %d operations, not %d", OpsMax, len(ops))
	}
	rows, total := make(map[string]bool, len(ops)), 0
	for i, op := range ops {
		if err := validateOp(partition, op); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
		if rows[op.Entity.Row] {
			return invalid("operation %d: the row is in the transaction already", i)
		}
		rows[op.Entity.Row] = true
		if total += OpBytes(op); total > TxnBytesMax {
			return invalid("a transaction has at most %d bytes", TxnBytesMax)
		}
	}
	return nil
}

func validateOp(partition string, op Op) error {
	e := op.Entity
	if err := ValidateKey(e.Row); err != nil {
		return err
	}
	if e.Partition != "" && e.Partition != partition {
		return invalid("the entity is of another partition")
	}
	switch op.Kind {
	case Insert: // an ETag that it may have is that of another write, and is not used
	case Replace, Delete:
		if err := validateETag(e.ETag); err != nil {
			return err
		}
	default:
		return invalid("unknown kind %d", op.Kind)
	}
	if op.Kind == Delete {
		return nil
	}
	return validateProperties(e)
}

// validateETag refuses the empty ETag above all: a Replace without a condition
// would be an upsert on the service.
func validateETag(etag string) error {
	if etag == "" || len(etag) > ETagBytesMax {
		return invalid("a Replace or Delete needs an ETag of 1 to %d bytes", ETagBytesMax)
	}
	for i := range len(etag) {
		if etag[i] < ' ' || etag[i] > '~' {
			return invalid("an ETag must not contain %q", etag[i])
		}
	}
	return nil
}

func validateProperties(e Entity) error {
	if n := len(e.Ints) + len(e.Texts); n > PropertiesMax {
		return invalid("an entity has at most %d properties, not %d", PropertiesMax, n)
	}
	size := 2*KeyBytesMax + 2*len(e.Row) // the partition counts at its longest
	for name := range e.Ints {
		if err := validateName(name); err != nil {
			return err
		}
		size += 2*len(name) + 8 + 8
	}
	for name, text := range e.Texts {
		if err := validateName(name); err != nil {
			return err
		}
		if _, twice := e.Ints[name]; twice {
			return invalid("property %s is an integer and a text", name)
		}
		if !utf8.ValidString(text) {
			return invalid("property %s is not UTF-8", name)
		}
		units := utf16Units(text)
		if units > TextUnitsMax {
			return invalid("property %s has %d UTF-16 code units; %d are allowed", name, units, TextUnitsMax)
		}
		size += 2*len(name) + 8 + 2*units + 4
	}
	if size > EntityBytesMax {
		return invalid("an entity has at most %d bytes, not %d", EntityBytesMax, size)
	}
	return nil
}

func validateName(name string) error {
	if !propertyName.MatchString(name) {
		return invalid("%q is not the name of a property", name)
	}
	if name == "PartitionKey" || name == "RowKey" || name == "Timestamp" {
		return invalid("property %s belongs to the store", name)
	}
	return nil
}

func utf16Units(text string) (n int) {
	for _, r := range text {
		n += utf16.RuneLen(r)
	}
	return n
}

// OpBytes is what an operation counts towards TxnBytesMax: its properties as
// they are sent, which is JSON with HTML escapes. Its envelope does not count:
// what the service allows beyond TxnBytesMax has room for OpsMax of them.
func OpBytes(op Op) (n int) {
	if op.Kind == Delete {
		return 0
	}
	const integer = len(`"":"-9223372036854775808","@odata.type":"Edm.Int64",`)
	for name := range op.Entity.Ints {
		n += 2*len(name) + integer
	}
	for name, text := range op.Entity.Texts {
		n += len(name) + len(`"":"",`)
		for _, r := range text {
			switch {
			case r == '"', r == '\\', r == '\n', r == '\r', r == '\t':
				n += 2
			case r < ' ', r == '<', r == '>', r == '&', r == '\u2028', r == '\u2029':
				n += 6
			default:
				n += utf8.RuneLen(r)
			}
		}
	}
	return n
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
