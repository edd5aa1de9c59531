package export

import (
	"bytes"
	"encoding/binary"
	"errors"
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
	f("more events than bytes", string(binary.AppendVarint(binary.AppendVarint(append([]byte{}, good[:header]...), 5), 0))+string(good[header-16:header]), 0, 1, "EOF")
	f("an empty body", string(captureFile(t, ocf.Null, line(t, sold(1)), []byte{}, line(t, sold(2)))), 2, 2, "empty")
	f("no body", string(captureFile(t, ocf.Null, line(t, sold(1)), nil, line(t, sold(2)))), 2, 2, "without a body")
	f("another body", string(captureFile(t, ocf.Null, line(t, sold(1)), []byte("ping"), line(t, sold(2)))), 2, 2, "no record")
	long := sold(2)
	long.User = usage.Text(strings.Repeat("x", RecordBytesMax))
	f("a long body", string(captureFile(t, ocf.Deflate, line(t, sold(1)), line(t, long), line(t, sold(3)))), 2, 2, "more than 200000 bytes")
	f("a body above all limits", string(captureFile(t, ocf.Null, line(t, sold(1)), bytes.Repeat([]byte("x"), EventBytesMax+1))), 1, 2, "rest of the file")
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
	l := lake{note: &Report{}, bad: func(LineError) error { bad++; return nil }, take: func(line []byte) error {
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
