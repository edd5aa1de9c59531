package export

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"slices"

	"github.com/google/uuid"

	"github.com/costgate/costgate/handler/internal/usage"
)

// IndexBytes is about how much memory an export needs for each record that it
// writes, whatever the record holds.
const IndexBytes = 270

// place is what is remembered of a record: where in the spool it is.
type place struct {
	id     uuid.UUID
	time   int64 // Unix milliseconds
	offset int64
	size   int32
	rev    int32
	sum    uint64 // of its bytes
	line   int64  // of the lake
	file   int32  // index in files
}

// index is the first pass: it finds the records to be written, and keeps them in
// a temporary file until they can be written in order.
type index struct {
	options *Options
	report  *Report
	files   []string // of which there are records
	places  []place
	byID    map[uuid.UUID]int32
	seed    maphash.Seed

	spool *os.File
	out   *bufio.Writer
	size  int64
}

// spoolError is a failure of the temporary file: no line is to blame for it.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return "temporary file: " + e.err.Error() }

func (e *spoolError) Unwrap() error { return e.err }

// newIndex makes the temporary file in dir, which has room for the result too,
// or where the system wants it if dir is empty or does not exist yet.
func newIndex(dir string, o *Options, report *Report) (*index, error) {
	if dir != "" && !isDir(dir) {
		dir = ""
	}
	spool, err := os.CreateTemp(dir, ".lake-export-*")
	if err != nil {
		return nil, &spoolError{err}
	}
	return &index{
		options: o, report: report, byID: map[uuid.UUID]int32{}, seed: maphash.MakeSeed(),
		spool: spool, out: bufio.NewWriterSize(spool, 256<<10),
	}, nil
}

func (x *index) close() {
	_ = x.spool.Close()
	_ = os.Remove(x.spool.Name())
}

// readAll reads the lake and sorts what it found.
func (x *index) readAll(ctx context.Context) error {
	l := lake{take: x.take, note: x.report, bad: func(e LineError) error { return x.report.refuse(e, x.options.Strict) }}
	if err := l.walk(ctx, x.options.From); err != nil {
		return err
	}
	if err := x.out.Flush(); err != nil {
		return &spoolError{err}
	}
	x.byID = nil
	slices.SortFunc(x.places, func(a, b place) int {
		if order := cmp.Compare(a.time, b.time); order != 0 {
			return order
		}
		return bytes.Compare(a.id[:], b.id[:])
	})
	return nil
}

// take notes a record. Its error says why it is none, or is a *spoolError.
func (x *index) take(file string, number int64, line []byte) error {
	var r usage.Record
	id, err := decode(line, &r)
	if err != nil {
		return err
	}
	x.report.Read++
	if !x.options.wants(&r) {
		x.report.Excluded++
		return nil
	}
	if last := len(x.files) - 1; last < 0 || x.files[last] != file {
		x.files = append(x.files, file)
	}
	p := place{
		id: id, time: r.Time.UnixMilli(), offset: x.size, size: int32(len(line)), rev: int32(r.Rev), sum: maphash.Bytes(x.seed, line),
		line: number, file: int32(len(x.files) - 1),
	}
	if at, known := x.byID[id]; known {
		old := &x.places[at]
		switch {
		case p.rev == old.rev:
			if x.report.Doubles++; p.sum != old.sum {
				x.report.Altered++
			}
			return nil
		case p.rev < old.rev:
			x.report.Superseded++
			return nil
		}
		x.report.Superseded++
		*old = p
	} else {
		if len(x.places) == math.MaxInt32 {
			return &spoolError{errors.New("too many records for one export")}
		}
		x.byID[id] = int32(len(x.places))
		x.places = append(x.places, p)
	}
	if _, err := x.out.Write(line); err != nil {
		return &spoolError{err}
	}
	x.size += int64(len(line))
	return nil
}

// decode reads a record and checks what the export relies on.
func decode(line []byte, r *usage.Record) (id uuid.UUID, err error) {
	if len(bytes.TrimSpace(line)) == 0 {
		return id, errors.New("empty")
	}
	if err := json.Unmarshal(line, r); err != nil {
		return id, fmt.Errorf("no record: %w", err)
	}
	id, err = uuid.Parse(r.ID)
	switch {
	case r.Schema != usage.RecordSchema:
		return id, fmt.Errorf("a record of schema %d; this program knows %d", r.Schema, usage.RecordSchema)
	case err != nil || len(r.ID) != len("00000000-0000-0000-0000-000000000000"):
		return id, fmt.Errorf("no record: the id %.64q is no UUID", r.ID)
	case r.Rev < 1 || r.Rev > math.MaxInt32:
		return id, fmt.Errorf("no record: rev is %d", r.Rev)
	case r.Kind == "":
		return id, errors.New("no record: it has no kind")
	case r.Time.Year() < 2000 || r.Time.Year() > 9999:
		return id, errors.New("no record: it has no time")
	}
	return id, nil
}

// each reads the chosen records again, by time and id. One of which do says that
// it does not fit is told of, with its place in the lake.
func (x *index) each(ctx context.Context, do func(*usage.Record) error) error {
	line := make([]byte, 0, 4096)
	for i := range x.places {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p := &x.places[i]
		line = slices.Grow(line[:0], int(p.size))[:p.size]
		if _, err := x.spool.ReadAt(line, p.offset); err != nil {
			return &spoolError{err}
		}
		var r usage.Record
		if _, err := decode(line, &r); err != nil {
			return &spoolError{err}
		}
		err := do(&r)
		if unfit := (*unfitError)(nil); errors.As(err, &unfit) {
			err = x.report.refuse(LineError{File: x.files[p.file], Line: p.line, Reason: err.Error()}, x.options.Strict)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
