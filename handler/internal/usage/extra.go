package usage

import (
	"bytes"
	"strconv"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

const (
	// UsageExtraBytesMax bounds what is kept of the unknown members of a usage
	// object. Those that do not fit are left out, each as a whole.
	UsageExtraBytesMax = 2048
	// extraWordMax bounds a key, a number or a string in it.
	extraWordMax = 64
	// extraDepthMax is how many unknown objects may be nested.
	extraDepthMax = 3
)

// The members of a record's usage_extra that are known: they are rare, and a
// price may ask for them.
const (
	extraImageOut      = "image_output_tokens"
	extraAudioInCached = "cached_audio_input_tokens"
)

// Extra is a JSON object that is null in JSON when it is empty.
type Extra []byte

// with is the object with those counts of a usage that a record has no field
// for, if they are above zero.
func (e Extra) with(u Usage) Extra {
	if len(e) == 0 && u.ImageOut.N <= 0 && u.AudioInCached.N <= 0 {
		return nil
	}
	out := []byte{'{'}
	_ = jsonscan.Object(e, func(key []byte, v jsonscan.Value) error { // it has none if it is empty
		if k := string(key); k == extraImageOut || k == extraAudioInCached {
			return nil
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, e[v.KeyStart:v.End]...)
		return nil
	})
	if u.ImageOut.N > 0 {
		out = strconv.AppendInt(appendKey(out, []byte(extraImageOut)), u.ImageOut.N, 10)
	}
	if u.AudioInCached.N > 0 {
		out = strconv.AppendInt(appendKey(out, []byte(extraAudioInCached)), u.AudioInCached.N, 10)
	}
	if len(out) == 1 {
		return nil
	}
	return append(out, '}')
}

// MarshalJSON writes the object, or null if it is empty.
func (e Extra) MarshalJSON() ([]byte, error) {
	if len(e) == 0 {
		return []byte("null"), nil
	}
	return e, nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Extra) UnmarshalJSON(data []byte) error {
	*e = nil
	if !bytes.Equal(data, []byte("null")) {
		*e = bytes.Clone(data)
	}
	return nil
}

// extra gathers members of a usage object in an object of the same shape. It
// takes numbers, booleans, null, single words and objects of them: nothing that
// could hold a piece of a prompt may get into a record. The zero value is ready
// and costs nothing as long as nothing is added.
type extra struct {
	json  []byte    // the object, without the braces that close it
	open  [2][]byte // keys of the details objects that are open in it
	depth int       // how many they are
}

// add takes a member. The path are the keys that lead to it, its own last, at
// most three.
func (x *extra) add(v jsonscan.Value, path ...[]byte) {
	before := *x
	within, key := path[:len(path)-1], path[len(path)-1]
	if x.json == nil {
		x.json = append(x.json, '{')
	}
	same := 0
	for same < min(x.depth, len(within)) && bytes.Equal(x.open[same], within[same]) {
		same++
	}
	for ; x.depth > same; x.depth-- {
		x.json = append(x.json, '}')
	}
	for _, k := range within[same:] {
		x.json = append(appendKey(x.json, k), '{')
		x.open[x.depth] = k
		x.depth++
	}
	ok := isWord(key)
	if ok {
		x.json, ok = appendPlain(appendKey(x.json, key), v, 1, UsageExtraBytesMax-x.depth-1)
	}
	if !ok {
		*x = before
	}
}

// object is what was gathered, nil if that is nothing.
func (x *extra) object() []byte {
	if x.json == nil {
		return nil
	}
	return append(x.json, "}}}"[:x.depth+1]...)
}

func appendKey(to, key []byte) []byte {
	if to[len(to)-1] != '{' {
		to = append(to, ',')
	}
	to = append(to, '"')
	to = append(to, key...)
	return append(to, '"', ':')
}

// appendPlain appends a value that may be kept, of an object what may be. It is
// false if that is nothing, or if the whole would be longer than most.
func appendPlain(to []byte, v jsonscan.Value, depth, most int) (_ []byte, ok bool) {
	switch v.Kind {
	case jsonscan.KindNull, jsonscan.KindBool:
		ok = true
	case jsonscan.KindNumber:
		ok = len(v.Raw) <= extraWordMax
	case jsonscan.KindString:
		ok = isWord(v.Raw[1 : len(v.Raw)-1])
	case jsonscan.KindObject:
		if depth > extraDepthMax {
			return to, false
		}
		to = append(to, '{')
		start := len(to)
		members(v, func(key []byte, v jsonscan.Value) {
			if !isWord(key) {
				return
			}
			if longer, ok := appendPlain(appendKey(to, key), v, depth+1, most-1); ok {
				to = longer
			}
		})
		return append(to, '}'), len(to) > start
	case jsonscan.KindArray:
	}
	if !ok || len(to)+len(v.Raw) > most {
		return to, false
	}
	return append(to, v.Raw...), true
}

// isWord tells whether a text is short and made of the characters of names and
// numbers, none of which JSON writers escape.
func isWord(text []byte) bool {
	if len(text) == 0 || len(text) > extraWordMax {
		return false
	}
	for _, c := range text {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '-' || c > ':') && c != '_' {
			return false
		}
	}
	return true
}
