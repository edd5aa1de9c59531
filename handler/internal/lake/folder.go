package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// When a Folder begins a new file.
const (
	FileBytesMax = 64 << 20  // a batch that would go past it opens the next
	FileAgeMax   = time.Hour // since the file was opened, whatever came
)

const (
	prefix, suffix = "usage-", ".jsonl"

	folderMode = 0o750
	fileMode   = 0o640
	timeLayout = "20060102T150405.000Z" // of file names, UTC: they sort by time
	nameTries  = 1000
)

// instancePattern keeps the name of a process from leaving the folder.
var instancePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// FolderOptions of a Folder.
type FolderOptions struct {
	Dir      string           // created when the first record comes
	Instance string           // of this process, part of the file names; no two that run may have the same
	Now      func() time.Time // names files and tells their age

	// Alone says that no other process writes into the folder: every file in it is
	// mended, not only those of the instance.
	Alone bool
}

// Folder is a Sink of local files: one record a line, named by the time at which
// the file was begun and the process, usage-20261124T115959.123Z-<instance>.jsonl. A
// file is appended to for an hour or 64 MiB; all but the last of an instance are
// finished. A process begins a new file when it starts.
//
// Batches are written whole. Only a process killed while it wrote can leave a
// last line without its end, which was not acknowledged: its record comes again,
// in another file. The next process that is alone cuts such lines off; where
// there are several, whoever reads the files must pass over a last line without a
// line feed.
type Folder struct {
	o        FolderOptions
	bytesMax int64

	mu     sync.Mutex
	mended bool      // what dead processes left
	name   string    // of the current file; empty: none yet
	since  time.Time // it was begun
	size   int64     // bytes of it known to be whole batches
	file   *os.File  // nil: to be opened
}

// NewFolder makes a sink of a folder.
func NewFolder(o FolderOptions) *Folder { return &Folder{o: o, bytesMax: FileBytesMax} }

// Send appends the records and waits until they are on the disk.
func (f *Folder) Send(ctx context.Context, records [][]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkRecords(records); err != nil {
		return err
	}
	if len(records) == 0 {
		return nil
	}
	var lines bytes.Buffer
	for _, record := range records {
		lines.Write(record)
		lines.WriteByte('\n')
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.open(int64(lines.Len())); err != nil {
		return fmt.Errorf("lake folder: %w", err)
	}
	_, err := f.file.Write(lines.Bytes())
	if err == nil {
		err = f.file.Sync()
	}
	if err == nil {
		f.size += int64(lines.Len())
		return nil
	}
	// Take back what arrived of the batch. The file is opened anew next time:
	// after a failed sync nothing is known of its pages.
	return fmt.Errorf("lake folder: %w", errors.Join(err, f.file.Truncate(f.size), f.closeFile()))
}

// Close closes the file. A later Send opens it again.
func (f *Folder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closeFile()
}

func (f *Folder) closeFile() error {
	if f.file == nil {
		return nil
	}
	file := f.file
	f.file = nil
	return file.Close()
}

// open makes f.file a file with room for more bytes, ending in a whole batch.
func (f *Folder) open(more int64) error {
	if f.isCurrent(more) {
		if f.file != nil {
			return nil
		}
		if err := f.reopen(); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := f.closeFile(); err != nil { // all in it is synced
		return err
	}
	if !instancePattern.MatchString(f.o.Instance) {
		return fmt.Errorf("instance name %q does not fit into a file name", f.o.Instance)
	}
	if err := os.MkdirAll(f.o.Dir, folderMode); err != nil {
		return err
	}
	f.mend()
	return f.create()
}

// isCurrent tells whether the file takes more bytes. One that was moved away is
// left to whoever did so.
func (f *Folder) isCurrent(more int64) bool {
	if f.name == "" || f.o.Now().Sub(f.since) >= FileAgeMax || f.size > 0 && f.size+more > f.bytesMax {
		return false
	}
	if f.file == nil {
		return true
	}
	there, err := os.Stat(f.name)
	if err != nil {
		return false
	}
	ours, err := f.file.Stat()
	return err == nil && os.SameFile(there, ours)
}

// reopen continues the file after a failure. What the failed batch left is cut.
func (f *Folder) reopen() error {
	file, err := os.OpenFile(f.name, os.O_RDWR|os.O_APPEND, fileMode)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.Size() > f.size {
		err = file.Truncate(f.size)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.file = file
	return nil
}

// create begins a file. Its name is moved on by a millisecond if it is taken.
func (f *Folder) create() error {
	begun := f.o.Now()
	for i := range nameTries {
		at := begun.Add(time.Duration(i) * time.Millisecond).UTC().Format(timeLayout)
		name := filepath.Join(f.o.Dir, prefix+at+"-"+f.o.Instance+suffix)
		file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, fileMode)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := syncDir(f.o.Dir); err != nil { // a new name must survive, too
			return errors.Join(err, file.Close(), os.Remove(name))
		}
		f.file, f.name, f.since, f.size = file, name, begun, 0
		return nil
	}
	return fmt.Errorf("no free file name from %v on", begun)
}

// mend cuts, once, last lines without an end that dead processes left. What it
// cannot mend does not stop the records that come; the next file's turn tries again.
func (f *Folder) mend() {
	if f.mended {
		return
	}
	entries, err := os.ReadDir(f.o.Dir)
	for _, entry := range entries {
		name := entry.Name()
		ours := f.o.Alone || strings.HasSuffix(name, "-"+f.o.Instance+suffix)
		if ours && entry.Type().IsRegular() && strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
			err = errors.Join(err, repair(filepath.Join(f.o.Dir, name)))
		}
	}
	f.mended = err == nil
}

// repair cuts a last line without its end.
func repair(name string) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	whole, block := info.Size(), make([]byte, 1)
	for whole > 0 {
		n := min(whole, int64(len(block)))
		if _, err := file.ReadAt(block[:n], whole-n); err != nil {
			return err
		}
		if i := bytes.LastIndexByte(block[:n], '\n'); i >= 0 {
			whole += int64(i) + 1 - n
			break
		}
		whole -= n
		block = make([]byte, 64<<10) // most files end well: one byte tells
	}
	if whole == info.Size() {
		return nil
	}
	return errors.Join(file.Truncate(whole), file.Sync())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
