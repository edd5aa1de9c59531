package hostsim

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// OutputBytesMax bounds what is kept of each of the handler's two outputs: the
// newest bytes. LinesMax bounds the lines of both, LineBytesMax each of them.
const (
	OutputBytesMax = 1 << 20
	LinesMax       = 10_000
	LineBytesMax   = 64 << 10
)

// Level is how the host logs a line of the handler's.
type Level string

// Everything on standard output is Information. On standard error a line is an
// Error unless it speaks of a warning.
const (
	LevelInformation Level = "Information"
	LevelWarning     Level = "Warning"
	LevelError       Level = "Error"
)

func levelOf(text string) Level {
	if strings.Contains(strings.ToLower(text), "warn") {
		return LevelWarning
	}
	return LevelError
}

// Line is one line that a handler wrote.
type Line struct {
	Level Level
	Text  string
}

type lines struct {
	mu   sync.Mutex
	kept []Line
}

func (l *lines) add(level Level, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, Line{level, text})
	if len(l.kept) > 2*LinesMax {
		l.kept = append([]Line(nil), l.kept[len(l.kept)-LinesMax:]...)
	}
}

func (l *lines) all() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Line(nil), l.kept[max(0, len(l.kept)-LinesMax):]...)
}

// output keeps the end of a stream, passes all of it on, and cuts it into lines.
type output struct {
	mu   sync.Mutex
	kept []byte
	part []byte            // of a line
	next io.Writer         // may be nil
	line func(text string) // may be nil
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, p...)
	if len(o.kept) > 2*OutputBytesMax {
		o.kept = append([]byte(nil), o.kept[len(o.kept)-OutputBytesMax:]...)
	}
	if o.next != nil {
		_, _ = o.next.Write(p) // the handler must not die of a reader's end
	}
	if o.line != nil {
		o.cut(p)
	}
	return len(p), nil
}

func (o *output) cut(p []byte) {
	for len(p) > 0 {
		head, rest, whole := bytes.Cut(p, []byte("\n"))
		o.part = append(o.part, head[:min(len(head), LineBytesMax-len(o.part))]...)
		if !whole {
			return
		}
		o.line(string(o.part))
		o.part, p = o.part[:0], rest
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.kept[max(0, len(o.kept)-OutputBytesMax):])
}
