package export

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	folderMode = 0o750
	fileMode   = 0o640
)

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// outputs are the files of an export: one, or one for each day. They are written
// under other names, and get their own when all of them are on the disk.
type outputs struct {
	options *Options
	stdout  io.Writer
	name    string  // of the table
	fields  []field // of the table

	day   string // of the open one
	table table
	out   *bufio.Writer
	file  *os.File // nil: the standard output
	done  []pending
}

type pending struct{ temporary, name string }

// fits tells whether the format can hold a row: its error is an *unfitError.
func (o *outputs) fits(values []value) error {
	if o.options.asParquet() {
		return fitsParquet(o.fields, values)
	}
	return nil
}

// row writes a row that belongs to a time, and that fits. Times come in order.
func (o *outputs) row(at time.Time, values []value) error {
	day := ""
	if o.options.Partition == PartitionDay {
		day = at.UTC().Format(time.DateOnly)
	}
	if o.table != nil && day != o.day {
		if err := o.finish(); err != nil {
			return err
		}
	}
	if o.table == nil {
		if err := o.begin(day); err != nil {
			return err
		}
	}
	return o.table.row(values)
}

func (o *outputs) begin(day string) error {
	o.day = day
	target := o.stdout
	if o.options.To != Stdout {
		name := o.options.To
		if day != "" {
			name = filepath.Join(name, "day="+day, o.options.fileName())
		} else if isDir(name) {
			name = filepath.Join(name, o.options.fileName())
		}
		if err := os.MkdirAll(filepath.Dir(name), folderMode); err != nil {
			return err
		}
		file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
		if err != nil {
			return err
		}
		o.file, target = file, file
		o.done = append(o.done, pending{file.Name(), name})
	}
	o.out = bufio.NewWriterSize(target, 256<<10)
	if o.options.asParquet() {
		o.table = newParquet(o.out, o.name, o.fields)
		return nil
	}
	var err error
	o.table, err = newCSV(o.out, o.fields)
	return err
}

// finish ends the open file, and waits until it is on the disk.
func (o *outputs) finish() error {
	err := errors.Join(o.table.close(), o.out.Flush())
	if o.file != nil {
		if err == nil {
			err = errors.Join(o.file.Chmod(fileMode), o.file.Sync())
		}
		err = errors.Join(err, o.file.Close())
	}
	o.table, o.file = nil, nil
	return err
}

// commit gives all files their names, and returns them. Without any row there is
// a file without rows, but no partition.
func (o *outputs) commit() (names []string, err error) {
	if o.table == nil && o.options.Partition == "" {
		if err := o.begin(""); err != nil {
			return nil, err
		}
	}
	if o.table != nil {
		if err := o.finish(); err != nil {
			return nil, err
		}
	}
	names = []string{}
	for len(o.done) > 0 {
		next := o.done[0]
		if err := os.Rename(next.temporary, next.name); err != nil {
			return names, err
		}
		o.done = o.done[1:]
		names = append(names, next.name)
		if err := syncDir(filepath.Dir(next.name)); err != nil {
			return names, err
		}
	}
	return names, nil
}

// abandon removes what has not got its name.
func (o *outputs) abandon() {
	if o.file != nil {
		_ = o.file.Close()
	}
	for _, p := range o.done {
		_ = os.Remove(p.temporary)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
