package usage

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// ContainersMax bounds how many containers of the code interpreter are told
// apart in one answer. Beyond, each call counts as a session of its own.
const ContainersMax = 128

// calls counts the calls of tools that the service runs and sells by the call.
type calls struct {
	items      int // in a list, of whatever type
	search     int64
	files      int64
	sessions   int64
	containers []string
}

// add counts an item of a response's output, failed or not: Azure bills the
// call. Opening a page that was found, or looking into it, is no call; an item
// without an action is from before there were such.
func (c *calls) add(kind, action, container string) {
	switch kind {
	case ItemWebSearch:
		if action == "" || action == "search" {
			c.search++
		}
	case ItemFileSearch:
		c.files++
	case "code_interpreter_call":
		if container != "" {
			if slices.Contains(c.containers, container) {
				return
			}
			if len(c.containers) < ContainersMax {
				c.containers = append(c.containers, container)
			}
		}
		c.sessions++
	}
}

// item reads and counts an item.
func (c *calls) item(v jsonscan.Value) {
	var kind, action, container string
	members(v, func(key []byte, v jsonscan.Value) {
		switch string(key) {
		case "type":
			name(v, &kind)
		case "action":
			action = typeIn(v)
		case "container_id":
			name(v, &container)
		}
	})
	c.add(kind, action, container)
}

// sold lists calls and milliseconds of audio by their meters.
func (c *calls) sold(millis int64) (items []Item) {
	for _, item := range []Item{
		{ItemWebSearch, c.search}, {ItemFileSearch, c.files}, {ItemCodeInterpreter, c.sessions}, {ItemAudioIn, millis},
	} {
		if item.Quantity > 0 {
			items = append(items, item)
		}
	}
	return items
}

// typeIn is the type that an object says it has.
func typeIn(object jsonscan.Value) (kind string) {
	members(object, func(key []byte, v jsonscan.Value) {
		if string(key) == "type" {
			name(v, &kind)
		}
	})
	return kind
}

// millis reads seconds, a number or a text of one, as milliseconds. Parts of
// one are rounded up: so are prices. ok is false for what is negative, has an
// exponent or is above CountMax milliseconds.
func millis(v jsonscan.Value) (ms int64, ok bool) {
	raw := v.Raw
	switch v.Kind {
	case jsonscan.KindNumber:
	case jsonscan.KindString:
		raw = raw[1 : len(raw)-1]
	default:
		return 0, false
	}
	whole, fraction, _ := bytes.Cut(raw, []byte("."))
	if len(whole) == 0 || len(whole) > len("1000000000") || !isDigits(whole) || !isDigits(fraction) {
		return 0, false
	}
	kept := append(whole[:len(whole):len(whole)], "000"...)
	copy(kept[len(whole):], fraction)
	ms, err := strconv.ParseInt(string(kept), 10, 64)
	if len(fraction) > 3 && len(bytes.Trim(fraction[3:], "0")) > 0 {
		ms++
	}
	if err != nil || ms > CountMax {
		return 0, false
	}
	return ms, true
}

func isDigits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
