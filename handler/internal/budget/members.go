package budget

import (
	"errors"
	"strings"

	"github.com/costgate/costgate/handler/internal/jsonscan"
)

// members are those of an object's members that are asked for.
type members struct {
	path  string
	raw   map[string][]byte
	plain bool // its amounts are numbers without a currency, so that a point is a decimal sign
}

// membersOf reads an object. Names are compared without letter case. A member
// that is there twice is malformed: two readers could see two budgets.
func membersOf(path string, raw []byte, names ...string) (members, error) {
	m := members{path: path, raw: map[string][]byte{}}
	err := jsonscan.Object(raw, func(key []byte, v jsonscan.Value) error {
		for _, name := range names {
			if !strings.EqualFold(name, string(key)) {
				continue
			}
			if _, twice := m.raw[name]; twice {
				return malformed("%s is there twice", m.name(name))
			}
			m.raw[name] = v.Raw
		}
		return nil
	})
	switch {
	case err == nil, errors.Is(err, ErrMalformed):
		return m, err
	case path == "":
		return m, malformed("the body is not a JSON object: %v", err)
	}
	return m, malformed("%s must be an object", path)
}

func (m members) name(name string) string { return strings.TrimPrefix(m.path+"."+name, ".") }

func (m members) has(name string) bool {
	raw, ok := m.raw[name]
	return ok && !jsonscan.IsNull(raw)
}

// object reads a member that is an object; one that is not there is empty.
func (m members) object(name string, names ...string) (members, error) {
	if !m.has(name) {
		return members{path: m.name(name)}, nil
	}
	return membersOf(m.name(name), m.raw[name], names...)
}

func (m members) text(name string) (string, error) {
	if !m.has(name) {
		return "", nil
	}
	s, ok := jsonscan.String(m.raw[name])
	if !ok {
		return "", malformed("%s must be a string", m.name(name))
	}
	if len(s) > TextBytesMax {
		return "", malformed("%s has %d bytes; %d are allowed", m.name(name), len(s), TextBytesMax)
	}
	return s, nil
}

func (m members) into(to *string, name string) (err error) {
	*to, err = m.text(name)
	return err
}

// amount reads a display string or a number. What is a string but no amount is
// unknown. The text as it was sent goes to sent, if that is not nil.
func (m members) amount(to *Amount, sent *string, name string) error {
	if !m.has(name) {
		return nil
	}
	raw := m.raw[name]
	var text string
	switch jsonscan.KindOf(raw) {
	case jsonscan.KindNumber:
		text = string(raw)
		*to = parseNumber(text)
	case jsonscan.KindString:
		var err error
		if text, err = m.text(name); err != nil {
			return err
		}
		if *to = parseNumber(text); !m.plain || !to.Known {
			*to = ParseAmount(text)
		}
	default:
		return malformed("%s must be a string or a number", m.name(name))
	}
	if sent != nil {
		*sent = text
	}
	return nil
}
