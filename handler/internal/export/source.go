package export

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// RecordBytesMax bounds one record; no sink of the gateway takes a longer one.
const RecordBytesMax = 200_000

// lake reads the files of a lake one after the other, in the order of their
// names.
type lake struct {
	take func(line []byte) error // a record; its error says why it is none
	bad  func(LineError) error   // its error ends the reading
	note *Report
}

// walk reads a file, or a folder with all that is below it. Files of other
// names than *.jsonl and *.avro are left alone.
func (l *lake) walk(ctx context.Context, from string) error {
	if info, err := os.Stat(from); err != nil {
		return err
	} else if !info.IsDir() {
		return l.file(from)
	}
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case !entry.Type().IsRegular() || readerOf(name) == nil:
			return nil
		}
		return l.file(name)
	})
}

func readerOf(name string) func(l *lake, name string, in io.Reader) error {
	switch {
	case strings.HasSuffix(name, ".jsonl"):
		return (*lake).lines
	case strings.HasSuffix(name, ".avro"):
		return (*lake).capture
	}
	return nil
}

func (l *lake) file(name string) error {
	read := readerOf(name)
	if read == nil {
		return fmt.Errorf("%s: only *.jsonl and *.avro can be read", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	l.note.Files++
	return read(l, name, file)
}

// lines reads JSON lines. A last line without its line feed is one that is being
// written, or was when its writer died: it was not acknowledged, and its record
// comes again.
func (l *lake) lines(name string, in io.Reader) error {
	buffered := bufio.NewReaderSize(in, RecordBytesMax+2)
	for number := int64(1); ; number++ {
		line, err := buffered.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = buffered.ReadSlice('\n')
		}
		switch {
		case errors.Is(err, io.EOF):
			if len(line) > 0 {
				l.note.Unfinished++
			}
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		case tooLong:
			err = fmt.Errorf("more than %d bytes", RecordBytesMax)
		default:
			err = l.take(line[:len(line)-1])
		}
		if err = l.refused(name, number, err); err != nil {
			return err
		}
	}
}

// refused tells of a line that was not taken. Other errors than those of the
// line end the reading.
func (l *lake) refused(name string, number int64, err error) error {
	if fatal := (*spoolError)(nil); err == nil || errors.As(err, &fatal) {
		return err
	}
	return l.bad(LineError{File: name, Line: number, Reason: err.Error()})
}
