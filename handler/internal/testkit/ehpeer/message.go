package ehpeer

import (
	"bytes"
	"fmt"
)

// What the service writes on each event, and what the sender may.
const (
	annotationSequence = "x-opt-sequence-number"
	annotationOffset   = "x-opt-offset"
	annotationEnqueued = "x-opt-enqueued-time"
	annotationKey      = "x-opt-partition-key"
)

// formatBatch is the message-format of a batch: each data section is a message.
const formatBatch = 0x80013700

// message is a message as it comes (part 3 of the standard), as far as the peer
// needs to look into it.
type message struct {
	annotations map[any]any
	id          raw
	replyTo     string
	contentType string
	application map[any]any
	data        [][]byte
	value       raw
	bare        raw // properties, application properties and body, as the sender wrote them
}

// parseMessage takes a message apart. It keeps pieces of b.
func parseMessage(b []byte) (m message, err error) {
	for len(b) > 0 {
		code, content, rest, err := splitDescribed(b)
		if err != nil {
			return m, err
		}
		if code < codeHeader || code > codeFooter {
			return m, fmt.Errorf("ehpeer: message has a section %#x", code)
		}
		if m.bare == nil && code >= codeProperties {
			m.bare = b
		}
		if code == codeFooter { // about the message, no part of it
			m.bare = m.bare[:len(m.bare)-len(b)]
			break
		}
		if err := m.section(code, content); err != nil {
			return m, err
		}
		b = rest
	}
	return m, nil
}

func (m *message) section(code uint64, content raw) (err error) {
	f := fields{raw: []raw{content}}
	switch code {
	case codeAnnotations:
		m.annotations = f.dict(0)
	case codeApplication:
		m.application = f.dict(0)
	case codeValue:
		m.value = content
	case codeData:
		data, ok := f.value(0).([]byte)
		if !ok {
			return fmt.Errorf("ehpeer: data section is no binary: %w", errShort)
		}
		m.data = append(m.data, data)
	case codeProperties:
		if f.raw, err = splitList(content); err != nil {
			return err
		}
		m.id, m.replyTo, m.contentType = f.at(0), f.text(4), f.text(6)
	}
	return f.err
}

// text is an application property; empty if it is no string.
func (m *message) text(key string) string {
	s, _ := m.application[key].(string)
	return s
}

// event is a message as it will be stored; which partition, and when, the store
// says. Key is the envelope's partition key, for messages without their own.
func (m *message) event(key string) (*entry, error) {
	e := &entry{bare: m.bare, Event: Event{PartitionKey: key, ContentType: m.contentType}}
	if m.id != nil {
		id, _, err := decode(m.id)
		if err != nil {
			return nil, err
		}
		e.MessageID = fmt.Sprint(id)
	}
	switch len(m.data) {
	case 0:
	case 1:
		e.Body = m.data[0]
	default:
		e.Body = bytes.Join(m.data, nil)
	}
	if len(m.application) > 0 {
		e.Properties = make(map[string]any, len(m.application))
	}
	for k, v := range m.application {
		e.Properties[fmt.Sprint(k)] = plain(v)
	}
	if own := m.partitionKey(); own != "" {
		e.PartitionKey = own
	}
	return e, nil
}

func (m *message) partitionKey() string {
	s, _ := m.annotations[symbol(annotationKey)].(string)
	return s
}

// plain is a value without types of this package.
func plain(v any) any {
	switch v := v.(type) {
	case symbol:
		return string(v)
	case described:
		return plain(v.value)
	}
	return v
}

// encode is an event as consumers get it. Annotations of the sender other than
// the partition key are not kept.
func (e *entry) encode() []byte {
	annotations := pairs{
		symbol(annotationSequence), e.Sequence, symbol(annotationOffset), e.Offset, symbol(annotationEnqueued), e.Enqueued,
	}
	if e.PartitionKey != "" {
		annotations = append(annotations, symbol(annotationKey), e.PartitionKey)
	}
	b := make([]byte, 0, len(e.bare)+len(e.PartitionKey)+192)
	return append(appendValue(b, described{codeAnnotations, annotations}), e.bare...)
}
