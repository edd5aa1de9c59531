package export

import (
	"io"
	"strings"
)

// csvTable writes CSV as RFC 4180 has it, with a header: lines end in CR LF. Null
// is an empty field. Cells are as they were recorded, line breaks of any kind
// included; encoding/csv would rewrite those.
type csvTable struct {
	fields []field
	out    io.Writer
	line   []byte
}

func newCSV(out io.Writer, fields []field) (table, error) {
	t := &csvTable{fields: fields, out: out}
	return t, t.write(func(i int) string { return fields[i].name })
}

func (t *csvTable) row(values []value) error {
	return t.write(func(i int) string { return values[i].format(t.fields[i].kind) })
}

func (t *csvTable) write(cell func(i int) string) error {
	t.line = t.line[:0]
	for i := range t.fields {
		if i > 0 {
			t.line = append(t.line, ',')
		}
		t.line = appendCell(t.line, cell(i))
	}
	_, err := t.out.Write(append(t.line, '\r', '\n'))
	return err
}

// appendCell quotes what must be, and cells with space at an end, which some
// readers would trim.
func appendCell(to []byte, cell string) []byte {
	if !strings.ContainsAny(cell, ",\"\r\n") && strings.TrimSpace(cell) == cell {
		return append(to, cell...)
	}
	to = append(to, '"')
	to = append(to, strings.ReplaceAll(cell, `"`, `""`)...)
	return append(to, '"')
}

func (t *csvTable) close() error { return nil }
