package export

import (
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
)

// RowGroupRows bounds a row group, and so the memory that writing one takes.
const RowGroupRows = 50_000

// decimalMax is the first number that a decimal column of Parquet does not hold:
// it has 18 digits.
const decimalMax = 1_000_000_000_000_000_000

// rowsAtOnce is how many rows go to the library in one call.
const rowsAtOnce = 64

// parquetTable writes Parquet, compressed by Snappy, which every reader has. The
// columns are flat: a list or a map is JSON in a text.
type parquetTable struct {
	fields []field
	out    *parquet.GenericWriter[any]
	rows   []parquet.Row
}

// ordered is a group whose fields keep their order. The library's own sorts them
// by name.
type ordered struct {
	parquet.Group
	names []field
}

func (o ordered) Fields() []parquet.Field {
	byName := map[string]parquet.Field{}
	for _, f := range o.Group.Fields() {
		byName[f.Name()] = f
	}
	out := make([]parquet.Field, len(o.names))
	for i := range o.names {
		out[i] = byName[o.names[i].name]
	}
	return out
}

func newParquet(out io.Writer, name string, fields []field) table {
	group := parquet.Group{}
	for i := range fields {
		group[fields[i].name] = node(&fields[i])
	}
	return &parquetTable{fields: fields, out: parquet.NewGenericWriter[any](out, parquet.NewSchema(name, ordered{group, fields}),
		parquet.Compression(&parquet.Snappy), parquet.MaxRowsPerRowGroup(RowGroupRows), parquet.CreatedBy("costgate", "1", ""))}
}

func node(f *field) (n parquet.Node) {
	switch f.kind {
	case text:
		n = parquet.String()
		if !f.unique {
			n = parquet.Encoded(n, &parquet.RLEDictionary)
		}
	case boolean:
		n = parquet.Leaf(parquet.BooleanType)
	case instant, second:
		n = parquet.TimestampAdjusted(parquet.Millisecond, true)
	case decimal3, decimal9, decimal12:
		n = parquet.Decimal(f.kind.scale(), 18, parquet.Int64Type)
	case integer:
		n = parquet.Int(64)
	}
	if !f.required {
		n = parquet.Optional(n)
	}
	return n
}

// fitsParquet tells whether a row can be written: its error is an *unfitError.
func fitsParquet(fields []field, values []value) error {
	for i, v := range values {
		if f := &fields[i]; v.known && f.kind.scale() > 0 && (v.n >= decimalMax || v.n <= -decimalMax) {
			return &unfitError{fmt.Sprintf("%s is too large for Parquet: %s", f.name, v.format(f.kind))}
		}
	}
	return nil
}

// row writes a row that fits.
func (t *parquetTable) row(values []value) error {
	row := make(parquet.Row, len(values))
	for i, v := range values {
		f := &t.fields[i]
		level := 1
		cell := parquet.Int64Value(v.n)
		switch {
		case !v.known:
			cell, level = parquet.NullValue(), 0
		case f.kind == text:
			cell = parquet.ByteArrayValue([]byte(v.s))
		case f.kind == boolean:
			cell = parquet.BooleanValue(v.n != 0)
		}
		if f.required {
			level = 0
		}
		row[i] = cell.Level(0, level, i)
	}
	if t.rows = append(t.rows, row); len(t.rows) < rowsAtOnce {
		return nil
	}
	return t.flush()
}

func (t *parquetTable) flush() error {
	_, err := t.out.WriteRows(t.rows)
	t.rows = t.rows[:0]
	return err
}

func (t *parquetTable) close() error {
	if err := t.flush(); err != nil {
		return err
	}
	return t.out.Close()
}
