package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

const (
	folderMode = 0o750
	fileMode   = 0o640
	hourLayout = "2006-01-02T15" // of file names, UTC
)

// instancePattern keeps the name of a process from leaving the folder.
var instancePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Folder is a Sink of local files: one record a line, one file per hour (UTC, by
// the time of storing) and process, named usage-2026-11-24T11-<instance>.jsonl.
//
// A process killed while it wrote can leave a last line without its end. The
// line was not acknowledged, so its record comes again, in the file of another
// process. Whoever reads the files must pass over a last line without a line
// feed. A Folder repairs only a file of its own name.
type Folder struct {
	dir, instance string
	now           func() time.Time

	mu   sync.Mutex
	hour string
	file *os.File // of hour; nil: to be opened
	size int64    // bytes known to be whole lines
}

// NewFolder makes a sink of the folder dir, which is created when the first
// record comes. No two processes may have the same instance name.
func NewFolder(dir, instance string, now func() time.Time) *Folder {
	return &Folder{dir: dir, instance: instance, now: now}
}

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
	if err := f.open(); err != nil {
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

// open makes f.file the file of this hour, ending in a whole line.
func (f *Folder) open() error {
	hour := f.now().UTC().Format(hourLayout)
	if f.file != nil && f.hour == hour {
		return nil
	}
	if err := f.closeFile(); err != nil { // all in it is synced
		return err
	}
	if !instancePattern.MatchString(f.instance) {
		return fmt.Errorf("instance name %q does not fit into a file name", f.instance)
	}
	if err := os.MkdirAll(f.dir, folderMode); err != nil {
		return err
	}
	name := filepath.Join(f.dir, "usage-"+hour+"-"+f.instance+".jsonl")
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, fileMode)
	if err != nil {
		return err
	}
	size, err := repair(file)
	if err == nil {
		err = syncDir(f.dir) // a new name must survive, too
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.file, f.hour, f.size = file, hour, size
	return nil
}

// repair cuts a last line without its end and returns the size that is left.
func repair(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	whole := info.Size()
	block := make([]byte, 64<<10)
	for whole > 0 {
		n := min(whole, int64(len(block)))
		if _, err := file.ReadAt(block[:n], whole-n); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(block[:n], '\n'); i >= 0 {
			whole += int64(i) + 1 - n
			break
		}
		whole -= n
	}
	if whole == info.Size() {
		return whole, nil
	}
	return whole, file.Truncate(whole)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
