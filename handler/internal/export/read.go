package export

import "context"

// Reading is what was read of a lake.
type Reading struct {
	Files      int   // read
	Unfinished int64 // last lines without their end, passed over
}

// Read calls take for every record of a lake, a file or a folder, as it is
// there: JSON, in the order of the files' names, doubles included, and where it
// is, as [LineError] has it. The slice is not to be kept. It calls bad for every
// line and every event that cannot be read, once for the rest of a broken file,
// and for those of which take says that they are no records. A folder without
// any file of a lake is [ErrNoFiles].
func Read(ctx context.Context, from string, take func(file string, line int64, record []byte) error, bad func(LineError)) (Reading, error) {
	note := &Report{}
	l := &lake{take: take, note: note, bad: func(e LineError) error {
		bad(e)
		return nil
	}}
	err := l.walk(ctx, from)
	return Reading{Files: note.Files, Unfinished: note.Unfinished}, err
}
