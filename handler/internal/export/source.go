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

// What is wrong with a folder as a whole. To pass over either would be to take a
// part of a lake for the whole.
var (
	ErrNoFiles    = errors.New("no lake is here: there is no *.jsonl and no *.avro file in any depth")
	ErrFolderLink = errors.New("is a link to a folder, which is not followed: name that folder itself, or take the link away")
)

// lake reads the files of a lake one after the other, in the order of their
// names.
type lake struct {
	// take takes a record; its error says why it is none. Of a Capture file the
	// number is that of the event.
	take func(file string, number int64, record []byte) error
	bad  func(LineError) error // its error ends the reading
	note *Report
}

// walk reads a file, or a folder with all that is below it. Files of other
// names than *.jsonl and *.avro are left alone. Links to files are followed, and
// so is from; below it, links to folders are refused: a tree that is followed
// through them may hold itself.
func (l *lake) walk(ctx context.Context, from string) error {
	if info, err := os.Stat(from); err != nil {
		return err
	} else if !info.IsDir() {
		return l.file(from)
	}
	root, err := filepath.EvalSymlinks(from) // WalkDir does not
	if err != nil {
		return err
	}
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		regular := entry.Type().IsRegular()
		if entry.Type()&fs.ModeSymlink != 0 {
			info, err := os.Stat(name)
			if err != nil {
				return err
			}
			if info.IsDir() {
				return fmt.Errorf("%s %w", name, ErrFolderLink)
			}
			regular = info.Mode().IsRegular()
		}
		switch {
		case entry.IsDir() || readerOf(name) == nil:
			return nil
		case !regular:
			return fmt.Errorf("%s: is no regular file", name)
		}
		return l.file(name)
	})
	if err == nil && l.note.Files == 0 {
		return fmt.Errorf("%s: %w", from, ErrNoFiles)
	}
	return err
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
			err = errTooLong
		default:
			err = l.offer(name, number, line[:len(line)-1])
		}
		if err = l.refused(name, number, err); err != nil {
			return err
		}
	}
}

var errTooLong = fmt.Errorf("more than %d bytes", RecordBytesMax)

func (l *lake) offer(name string, number int64, record []byte) error {
	if len(record) > RecordBytesMax {
		return errTooLong
	}
	return l.take(name, number, record)
}

// refused tells of a line that was not taken. Other errors than those of the
// line end the reading.
func (l *lake) refused(name string, number int64, err error) error {
	if fatal := (*spoolError)(nil); err == nil || errors.As(err, &fatal) {
		return err
	}
	return l.bad(LineError{File: name, Line: number, Reason: err.Error()})
}
