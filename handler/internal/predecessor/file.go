package predecessor

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// FileBytesMax is the largest file that is read. A table whose export is larger
// is read itself.
const FileBytesMax = 256 << 20

const byteOrderMark = "\ufeff"

// AddFile reads an export of the table: CSV as Azure Storage Explorer writes it,
// with a header; or JSON, an array of rows, an object whose "items" or "value" is
// one (az storage entity query, the service itself), or one row a line.
func (r *Reader) AddFile(data []byte) error {
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	switch first := bytes.TrimSpace(data); {
	case len(first) == 0:
		return errors.New("it is empty")
	case !utf8.Valid(data):
		return errors.New("it is not UTF-8")
	case first[0] == '{' || first[0] == '[':
		return r.addJSON(data)
	}
	return r.addCSV(data)
}

func (r *Reader) addJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	n := 0
	add := func(object []byte) error {
		n++
		return r.Add(fmt.Sprintf("element %d", n), object)
	}
	for {
		var value json.RawMessage
		if err := decoder.Decode(&value); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("it is not JSON near byte %d", decoder.InputOffset())
		}
		objects := []json.RawMessage{value}
		var list struct{ Items, Value []json.RawMessage }
		switch {
		case value[0] == '[':
			_ = json.Unmarshal(value, &objects) // it is an array
		case json.Unmarshal(value, &list) == nil && (list.Items != nil || list.Value != nil):
			objects = append(list.Items, list.Value...)
		}
		for _, object := range objects {
			if err := add(object); err != nil {
				return err
			}
		}
	}
}

func (r *Reader) addCSV(data []byte) error {
	lines := csv.NewReader(bytes.NewReader(data))
	lines.FieldsPerRecord = -1
	header, err := lines.Read()
	if err != nil {
		return fmt.Errorf("it is neither JSON nor CSV: %w", err)
	}
	names := map[int]string{}
	for i, title := range header {
		for name := range strings.SplitSeq(Columns, ",") {
			if strings.EqualFold(strings.TrimSpace(title), name) {
				names[i] = name
			}
		}
	}
	found := map[string]bool{}
	for _, name := range names {
		found[name] = true
	}
	for _, name := range []string{"PartitionKey", "RowKey", "Timestamp", "Operation", "Amount"} {
		if !found[name] {
			return fmt.Errorf("its first line has no column %s", name)
		}
	}
	for {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("it is not CSV: %w", err)
		}
		line, _ := lines.FieldPos(0)
		properties := row{}
		for i, text := range fields {
			if name := names[i]; name != "" {
				properties[name] = text
			}
		}
		if err := r.add(fmt.Sprintf("line %d", line), properties); err != nil {
			return err
		}
	}
}

// Balances reads what was left from a file with a line "key,balance" for each
// key, and checks that the rows have these keys. Lines that cannot be used are
// problems.
func (r *Reader) Balances(data []byte) (map[string]string, error) {
	lines := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte(byteOrderMark))))
	lines.FieldsPerRecord = -1
	balances := map[string]string{}
	for {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return balances, nil
		} else if err != nil {
			return nil, fmt.Errorf("it is not CSV: %w", err)
		}
		line, _ := lines.FieldPos(0)
		if line == 1 && strings.EqualFold(fields[0], "key") {
			continue // a header
		}
		where := fmt.Sprintf("balances, line %d", line)
		if len(fields) != 2 {
			r.problem(where, "it is not of the form key,balance")
			continue
		}
		key := strings.TrimSpace(fields[0])
		where += ", " + Label(key)
		balance, err := decimal(strings.TrimSpace(fields[1]))
		_, twice := balances[key]
		switch {
		case err != nil:
			r.problem(where, "its balance "+err.Error())
		case r.keys[key] == nil:
			r.problem(where, "the table has no such key")
		case twice:
			r.problem(where, "the key is there twice")
		default:
			balances[key] = balance
		}
	}
}
