package proxy

import (
	"sync"
	"time"
)

// Azure accepts stream_options.include_usage from this API version on; the v1
// routes and unknown versions are tried.
const usageSince = "2024-08-01"

const (
	refusalsMax     = 1000
	refusalLifetime = time.Hour
)

// shape is what decides whether Azure accepts stream_options.
type shape struct{ deployment, apiVersion, operation string }

func (x *exchange) shape() shape { return shape{x.deployment, x.apiVersion, x.operation.name} }

// mayAskUsage tells whether to put in stream_options.include_usage: for streams
// of chat and legacy completions whose client did not ask for it itself.
// Responses report usage anyway and refuse the field; requests with
// data_sources refuse it too.
func (x *exchange) mayAskUsage(s shape) bool {
	if !x.asked.stream || x.asked.includeUsage || x.asked.dataSources || x.asked.empty {
		return false
	}
	if x.operation.name != "chat" && x.operation.name != "completions" {
		return false
	}
	if len(x.apiVersion) >= len(usageSince) && x.apiVersion[0] == '2' && x.apiVersion[:len(usageSince)] < usageSince {
		return false
	}
	return !x.handler.refusals.known(s)
}

// refusalMemory remembers for an hour which shapes of request do not accept
// stream_options.
type refusalMemory struct {
	now func() time.Time
	mu  sync.Mutex
	at  map[shape]time.Time
}

func (m *refusalMemory) known(s shape) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.at[s]
	return ok && m.now().Sub(at) < refusalLifetime
}

func (m *refusalMemory) remember(s shape) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil || len(m.at) >= refusalsMax {
		m.at = map[shape]time.Time{} // starting over costs one resend for each shape
	}
	m.at[s] = m.now()
}
