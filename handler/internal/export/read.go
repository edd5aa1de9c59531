package export

import "context"

// Read calls take for every record of a lake, a file or a folder, as it is
// there: JSON, in the order of the files' names, doubles included. The slice is
// not to be kept. bad are lines that are no records, BadLinesMax at most. An
// error of take becomes one of them.
func Read(ctx context.Context, from string, take func(record []byte) error) (bad []LineError, err error) {
	l := &lake{take: take, note: &Report{}, bad: func(e LineError) error {
		if len(bad) < BadLinesMax {
			bad = append(bad, e)
		}
		return nil
	}}
	err = l.walk(ctx, from)
	return bad, err
}
