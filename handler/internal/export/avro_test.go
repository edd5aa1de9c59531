package export

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hamba/avro/v2/ocf"

	"github.com/costgate/costgate/handler/internal/usage"
)

func TestCaptureCodecs(t *testing.T) {
	for _, codec := range []ocf.CodecName{ocf.Null, ocf.Deflate} {
		dir := lakeOf(t, map[string]string{"00.avro": string(captureFile(t, codec, line(t, sold(1)), line(t, sold(2)), line(t, sold(3))))})
		rows, report := run(t, Options{From: dir})
		if pick(rows, "id") != id(1)+"; "+id(2)+"; "+id(3) || !report.Clean() {
			t.Errorf("%s: %+v", codec, report)
		}
	}
}

func TestBrokenCaptureFiles(t *testing.T) {
	good := captureFile(t, ocf.Null, line(t, sold(1)), line(t, sold(2)), line(t, sold(3)), line(t, sold(4)))
	deflated := captureFile(t, ocf.Deflate, line(t, sold(1)), line(t, sold(2)))
	change := func(data []byte, from, to string) string {
		t.Helper()
		if !bytes.Contains(data, []byte(from)) {
			t.Fatalf("no %q", from)
		}
		return strings.Replace(string(data), from, to, 1)
	}
	header := bytes.Index(good, append([]byte{7}, make([]byte, 15)...)) + 16
	f := func(name, data string, ids, events int, reason string) {
		t.Helper()
		dir := lakeOf(t, map[string]string{"a.avro": data, "b.jsonl": lines(t, sold(9))})
		rows, report := run(t, Options{From: dir})
		if len(rows) != ids+1 || report.Bad != 1 {
			t.Fatalf("%s: %d rows, %+v", name, len(rows), report)
		}
		if got := report.BadLines[0]; got.Line != int64(events) || !strings.Contains(got.Reason, reason) || got.File != filepath.Join(dir, "a.avro") {
			t.Errorf("%s: %v", name, got)
		}
	}
	f("text", "text", 0, 0, "not an Avro file")
	f("short", "Obj", 0, 0, "not an Avro file")
	f("cut in the header", string(good[:60]), 0, 0, "not an Avro file")
	f("cut in a block", string(good[:header+700]), 0, 0, "cut off")
	f("cut in the last block", string(good[:len(good)-20]), 2, 2, "cut off")
	f("cut in a marker", string(good[:len(good)-3]), 2, 2, "cut off")
	f("another marker", string(good[:len(good)-1])+"x", 2, 2, "sync marker")
	f("another codec", change(good, "\x08null", "\x08zstd"), 0, 0, `codec "zstd"`)
	f("another schema", change(good, `"Body"`, `"Booy"`), 0, 0, "not that of Event Hubs Capture")
	f("no schema", change(good, `"record"`, `"recxrd"`), 0, 0, "schema cannot be read")
	f("not deflated", change(good, "\x08null", "\x0edeflate"), 0, 0, "inflated")
	f("damaged", string(deflated[:len(deflated)-40])+strings.Repeat("\xff", 24)+string(deflated[len(deflated)-16:]), 0, 0, "inflated")
	huge := binary.AppendVarint(binary.AppendVarint(append([]byte{}, good[:header]...), 1), BlockBytesMax+1)
	f("a huge block", string(huge), 0, 0, "a block of 1 events and 67108865 bytes")
	f("a block of that size that is not there", string(binary.AppendVarint(binary.AppendVarint(append([]byte{}, good[:header]...), 1), BlockBytesMax)), 0, 0, "cut off")
	f("a negative count", string(binary.AppendVarint(binary.AppendVarint(append([]byte{}, good[:header]...), -1), 0)), 0, 0, "a block of -1 events")
	f("more events than bytes", string(binary.AppendVarint(binary.AppendVarint(append([]byte{}, good[:header]...), 5), 0))+string(good[header-16:header]), 0, 1, "not of its schema")
	f("an empty body", string(captureFile(t, ocf.Null, line(t, sold(1)), []byte{}, line(t, sold(2)))), 2, 2, "empty")
	f("no body", string(captureFile(t, ocf.Null, line(t, sold(1)), nil, line(t, sold(2)))), 2, 2, "without a body")
	f("another body", string(captureFile(t, ocf.Null, line(t, sold(1)), []byte("ping"), line(t, sold(2)))), 2, 2, "no record")
	long := sold(2)
	long.User = usage.Text(strings.Repeat("x", RecordBytesMax))
	f("a long body", string(captureFile(t, ocf.Deflate, line(t, sold(1)), line(t, long), line(t, sold(3)))), 2, 2, "more than 200000 bytes")
	f("a huge body", string(captureFile(t, ocf.Null, line(t, sold(1)), bytes.Repeat([]byte("x"), 3<<20), line(t, sold(3)))), 2, 2, "more than 200000 bytes")
	f("fewer events than there are", string(good[:header])+"\x02"+string(good[header+1:]), 1, 1, "bytes behind its events")
}

// bodies is a container file of events that have a body of some type between
// fields of all other types.
func bodies(t testing.TB, kind string, bodies ...any) string {
	t.Helper()
	var out bytes.Buffer
	encoder, err := ocf.NewEncoder(`{"type":"record","name":"EventData","fields":[
		{"name":"Null","type":"null"},{"name":"Boolean","type":"boolean"},{"name":"Int","type":"int"},{"name":"Long","type":"long"},
		{"name":"Float","type":"float"},{"name":"Double","type":"double"},{"name":"String","type":"string"},{"name":"Bytes","type":"bytes"},
		{"name":"Fixed","type":{"type":"fixed","name":"F","size":3}},{"name":"Enum","type":{"type":"enum","name":"E","symbols":["A","B"]}},
		{"name":"Body","type":`+kind+`},
		{"name":"Ref","type":"F"},{"name":"Record","type":{"type":"record","name":"R","fields":[{"name":"x","type":["null","R"]}]}},
		{"name":"Array","type":{"type":"array","items":"string"}},{"name":"Nulls","type":{"type":"array","items":{"type":"record","name":"N","fields":[]}}},
		{"name":"Map","type":{"type":"map","values":{"type":"map","values":["long","double","string","bytes"]}}}]}`, &out, ocf.WithBlockLength(2))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		err := encoder.Encode(map[string]any{
			"Null": nil, "Boolean": true, "Int": -70_000, "Long": int64(1) << 40, "Float": float32(1), "Double": float64(2), "String": "text", "Bytes": []byte("bytes"),
			"Fixed": [3]byte{1, 2, 3}, "Enum": "B", "Body": body, "Ref": [3]byte{4, 5, 6},
			"Record": map[string]any{"x": map[string]any{"R": map[string]any{"x": nil}}},
			"Array":  []string{"a", "", "bc"}, "Nulls": []map[string]any{{}, {}},
			"Map": map[string]any{"a": map[string]any{"b": map[string]any{"string": "c"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := encoder.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A body may be plain bytes, or of any union that bytes are in; of an event
// whose body is something else only that event is told of.
func TestBodies(t *testing.T) {
	f := func(kind string, good int, reasons string, events ...any) {
		t.Helper()
		rows, report := run(t, Options{From: lakeOf(t, map[string]string{"a.avro": bodies(t, kind, events...)})})
		got := ""
		for _, bad := range report.BadLines {
			got += fmt.Sprintf("%d: %s; ", bad.Line, bad.Reason)
		}
		if len(rows) != good || got != reasons {
			t.Errorf("%s: %d rows, %q", kind, len(rows), got)
		}
	}
	record := func(n int) []byte { return line(t, sold(n)) }
	in := func(kind string, v any) any { return map[string]any{kind: v} }
	f(`"bytes"`, 3, "2: empty; ", record(1), []byte{}, record(2), record(3))
	f(`["null","bytes"]`, 2, "2: an event without a body; ", in("bytes", record(1)), nil, in("bytes", record(2)))
	f(`["bytes","null"]`, 2, "1: an event without a body; ", nil, in("bytes", record(1)), in("bytes", record(2)))
	f(`["bytes","string"]`, 2, "2: an event whose body is no bytes, but string; ", in("bytes", record(1)), in("string", "x"), in("bytes", record(2)))
	f(`["string","null","bytes"]`, 1, "1: an event whose body is no bytes, but string; 2: an event without a body; ", in("string", "x"), nil, in("bytes", record(1)))
	f(`["bytes",{"type":"array","items":"long"}]`, 1, "1: an event whose body is no bytes, but array; ", in("array", []int64{1, 2}), in("bytes", record(1)))
	f(`["null","string"]`, 0, "0: not an Avro file, or a broken one: its schema is not that of Event Hubs Capture; the rest of the file is not read; ", in("string", "x"))
}

// Counts that a broken file names take no time, and schemas that hold themselves
// end.
func TestEventsEnd(t *testing.T) {
	f := func(field string, data []byte, broken bool) {
		t.Helper()
		fields, body, err := bodyOf(`{"type":"record","name":"E","fields":[{"name":"x","type":` + field + `},{"name":"Body","type":"bytes"}]}`)
		if err != nil {
			t.Fatal(err)
		}
		e := events{fields: fields, body: body, left: data}
		if got, _ := e.next(); e.broken != broken || !broken && string(got) != "r" {
			t.Errorf("%s: %q, broken %v", field, got, e.broken)
		}
	}
	long := func(numbers ...int64) (data []byte) {
		for _, n := range numbers {
			data = binary.AppendVarint(data, n)
		}
		return data
	}
	rest := append(long(0, 1), 'r')
	f(`{"type":"array","items":"null"}`, append(long(1<<62), rest...), false)
	f(`{"type":"array","items":"bytes"}`, append(long(1<<62, 1), rest...), true)
	f(`{"type":"map","values":"null"}`, append(long(1<<62), rest...), true)
	f(`{"type":"array","items":"bytes"}`, append(append(long(-2, 3), 2, 0, 0), rest...), false)
	f(`{"type":"array","items":"bytes"}`, long(-2, 1<<62), true)
	f(`{"type":"array","items":"bytes"}`, long(-2, -1), true)
	f(`{"type":"fixed","name":"F","size":9}`, rest, true)
	f(`["null","long"]`, long(2), true)
	f(`["null","long"]`, long(-1), true)
	f(`"string"`, long(-1), true)
	f(`"long"`, bytes.Repeat([]byte{0xff}, 11), true)
	f(`"E"`, rest, true)
	f(`{"type":"array","items":"E"}`, bytes.Repeat([]byte{2}, 1000), true)
	list := func(depth int) string {
		return strings.Repeat(`{"type":"array","items":`, depth) + `"null"` + strings.Repeat("}", depth)
	}
	deep := func(depth int) []byte {
		return append(append(bytes.Repeat(long(1), depth), bytes.Repeat(long(0), depth-1)...), rest...)
	}
	f(list(nestedMax-1), deep(nestedMax-1), false)
	f(list(nestedMax), deep(nestedMax), true)
}

// The library's writer and ours agree on the frame, its header's metadata in
// either form of a map included.
func TestMetadataWithSizes(t *testing.T) {
	good := captureFile(t, ocf.Null, line(t, sold(1)))
	// The library writes the count as negative and the size behind it, or the
	// count alone; make the other form of what it wrote.
	rest := good[len(avroMagic):]
	count, n := binary.Varint(rest)
	body := rest[n:]
	other := append([]byte{}, avroMagic...)
	if count < 0 {
		_, m := binary.Varint(body)
		other, body = binary.AppendVarint(other, -count), body[m:]
	} else {
		other = binary.AppendVarint(binary.AppendVarint(other, -count), 1)
	}
	rows, report := run(t, Options{From: lakeOf(t, map[string]string{"a.avro": string(append(other, body...))})})
	if pick(rows, "id") != id(1) || !report.Clean() {
		t.Errorf("%+v", report)
	}
}

func FuzzCapture(f *testing.F) {
	f.Add([]byte{})
	f.Add(captureFile(f, ocf.Null, line(f, sold(1)), line(f, sold(2)), nil, []byte("x")))
	f.Add(captureFile(f, ocf.Deflate, line(f, sold(1)), line(f, sold(2))))
	f.Add(captureFile(f, ocf.Null))
	f.Fuzz(func(t *testing.T, data []byte) { readFuzzed(t, (*lake).capture, data) })
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(lines(f, sold(1), sold(2))))
	f.Add([]byte("\n{}\n" + lines(f, sold(1)) + "{"))
	f.Add([]byte("\x00\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		read, bad := readFuzzed(t, (*lake).lines, data)
		if lines := bytes.Count(data, []byte("\n")); read+bad != lines {
			t.Errorf("%d lines: %d records, %d bad", lines, read, bad)
		}
	})
}

// readFuzzed demands that a file of any bytes is read to its end, and that what
// is taken for a record can be written in each format.
func readFuzzed(t *testing.T, reader func(*lake, string, io.Reader) error, data []byte) (read, bad int) {
	t.Helper()
	record, row := make([]value, len(recordColumns)), make([]value, len(focusColumns))
	l := lake{note: &Report{}, bad: func(LineError) error { bad++; return nil }, take: func(_ string, _ int64, line []byte) error {
		var r usage.Record
		if _, err := decode(line, &r); err != nil {
			return err
		}
		read++
		m := meters{found: map[string]*sheet{}}
		parts, _ := m.split(&r, 1, 1)
		if err := errors.Join(cells(record, recordColumns, &r), cells(row, focusColumns, &charge{record: &r, meter: parts[0], account: [2]string{"a"}})); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		return nil
	}}
	if err := reader(&l, "f", bytes.NewReader(data)); err != nil {
		t.Errorf("%v", err)
	}
	return read, bad
}
