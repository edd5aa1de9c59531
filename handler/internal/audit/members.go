package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// namedMax is how many members of a line a finding names.
const namedMax = 3

// beyond tells what a line holds beyond the record that was read of it, encoded
// again: members that no record has, or that are there twice, at the top or in
// its lists and objects. It is empty if that is nothing. Members that lack are
// null, and how numbers, texts and spaces are written is not compared.
func beyond(line, encoded []byte) string {
	if bytes.Equal(line, encoded) {
		return ""
	}
	known, seen := map[string]json.RawMessage{}, map[string]bool{}
	var found []string
	err := members(encoded, func(name string, value json.RawMessage) { known[name] = value })
	if err == nil {
		err = members(line, func(name string, value json.RawMessage) {
			own, ok := known[name]
			switch {
			case !ok:
				found = append(found, fmt.Sprintf("no record has a member %.64q", name))
			case seen[name]:
				found = append(found, fmt.Sprintf("its member %q is there twice", name))
			case !holdsNoMore(value, own):
				found = append(found, fmt.Sprintf("its member %q holds more than a record", name))
			}
			seen[name] = true
		})
	}
	if err != nil {
		found = append(found, err.Error())
	}
	if more := len(found) - namedMax; more > 0 {
		found = append(slices.Clip(found[:namedMax]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(found, "; ")
}

// holdsNoMore compares a list or an object, token by token, with what was read
// of it. Of a single value all was read.
func holdsNoMore(value, read json.RawMessage) bool {
	if value[0] != '{' && value[0] != '[' {
		return true
	}
	a, b := json.NewDecoder(bytes.NewReader(value)), json.NewDecoder(bytes.NewReader(read))
	a.UseNumber()
	b.UseNumber()
	for {
		x, errX := a.Token()
		y, errY := b.Token()
		if errX != nil || errY != nil {
			return errors.Is(errX, io.EOF) && errors.Is(errY, io.EOF)
		}
		if x != y {
			return false
		}
	}
}

// members calls each for every member of an object, in their order. The decoder
// of a whole object takes the last of two, and names in any case.
func members(object []byte, each func(name string, value json.RawMessage)) error {
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil { // its brace
		return err
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		name, _ := token.(string)
		each(name, value)
	}
	return nil
}
