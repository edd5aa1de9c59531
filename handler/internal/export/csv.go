package export

import (
	"encoding/csv"
	"io"
)

// csvTable writes CSV as RFC 4180 has it, with a header. Null is an empty field.
type csvTable struct {
	fields []field
	out    *csv.Writer
	line   []string
}

func newCSV(out io.Writer, fields []field) (table, error) {
	t := &csvTable{fields: fields, out: csv.NewWriter(out), line: make([]string, len(fields))}
	t.out.UseCRLF = true
	for i := range fields {
		t.line[i] = fields[i].name
	}
	return t, t.out.Write(t.line)
}

func (t *csvTable) row(values []value) error {
	for i := range values {
		t.line[i] = values[i].format(t.fields[i].kind)
	}
	return t.out.Write(t.line)
}

func (t *csvTable) close() error {
	t.out.Flush()
	return t.out.Error()
}
