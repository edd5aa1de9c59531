// Package ehpeer is a peer for clients of Azure Event Hubs in tests: an AMQP 1.0
// server in one process, with no broker, container or cloud account. Producer,
// consumer and processor of azeventhubs/v2 work against it; what can go wrong
// between them and the service goes wrong on demand.
//
// It is one namespace with one hub. It knows SASL ANONYMOUS, put-token on $cbs,
// READ on $management, senders to the hub and to partitions, receivers from
// partitions with start positions and epochs. It does not know transactions,
// resumed links, geo-replication, throttling of its own accord, or the end of a
// token's life: who has put a token once may go on.
//
// Read it from the bottom up: codec.go (values), frame.go (frames), conn.go (one
// connection), session.go (sessions and links), publish.go, consume.go and rpc.go
// (the three kinds of links), store.go (what is kept).
package ehpeer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// PartitionsMax is the service's limit for a hub of the Standard tier.
const PartitionsMax = 32

// KeyName is the name of the key that tokens are signed with.
const KeyName = "RootManageSharedAccessKey"

// Options say what to serve. The zero value serves.
type Options struct {
	Address         string      // listen; default 127.0.0.1:0
	Hub             string      // name; default "usage"
	Partitions      int         // default 4
	MaxMessageBytes uint64      // max-message-size of links; default 1 MiB
	Key             string      // SharedAccessKey that put-token must be signed with; empty: any token
	TLS             *tls.Config // nil: plain, for UseDevelopmentEmulator=true
}

// Peer is a running peer. Its methods may be called at any time, from any
// goroutine.
type Peer struct {
	options Options
	created time.Time
	idle    time.Duration // after which a silent client has gone
	store   *store
	plan    plan
	seats   seats

	storing sync.Mutex // held while a batch is stored and told of
	onEvent []func(Event)

	mu       sync.Mutex
	address  string
	listener net.Listener // nil while down
	closed   bool
	conns    map[*conn]struct{}
	stats    Stats
	running  sync.WaitGroup
}

// Stats are what a peer has seen since Start.
type Stats struct {
	Connections int64            `json:"connections"` // accepted
	Open        int              `json:"open"`        // of them now
	Transfers   int64            `json:"transfers"`   // batches and single events, stored or not
	Events      int64            `json:"events"`      // stored
	Kept        int              `json:"kept"`        // of them still here
	Dropped     int64            `json:"dropped"`     // of them forgotten, for EventsMax or BytesMax
	Faults      map[string]int64 `json:"faults"`      // that clients have met
}

// Start starts a peer.
func Start(o Options) (*Peer, error) {
	p, err := newPeer(o)
	if err != nil {
		return nil, err
	}
	return p, p.listen()
}

// newPeer is a peer that does not listen yet.
func newPeer(o Options) (*Peer, error) {
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	if o.Hub == "" {
		o.Hub = "usage"
	}
	if o.Partitions == 0 {
		o.Partitions = 4
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = 1 << 20
	}
	if o.Partitions < 0 || o.Partitions > PartitionsMax {
		return nil, fmt.Errorf("ehpeer: %d partitions, at most %d", o.Partitions, PartitionsMax)
	}
	if strings.ContainsAny(o.Hub, "/$;") {
		return nil, fmt.Errorf("ehpeer: a hub cannot be named %q", o.Hub)
	}
	return &Peer{
		options: o, created: time.Now(), idle: idleWait, store: newStore(o.Partitions),
		address: o.Address, conns: map[*conn]struct{}{},
	}, nil
}

func (p *Peer) listen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("ehpeer: closed")
	}
	if p.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		return err
	}
	p.listener, p.address = l, l.Addr().String()
	p.running.Go(func() { p.accept(l) })
	return nil
}

func (p *Peer) accept(l net.Listener) {
	for {
		n, err := l.Accept()
		if err != nil {
			return
		}
		if p.options.TLS != nil {
			n = tls.Server(n, p.options.TLS)
		}
		p.start(n, l)
	}
}

// start serves a connection that a listener has accepted.
func (p *Peer) start(n net.Conn, l net.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l != p.listener { // accepted just before it went down
		_ = n.Close()
		return
	}
	c := newConn(p, n)
	p.conns[c] = struct{}{}
	p.stats.Connections++
	p.running.Go(func() {
		c.serve()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	})
}

// Address is where the peer listens: host and port.
func (p *Peer) Address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.address
}

// ConnectionString is for NewProducerClientFromConnectionString and its like,
// whose hub must be empty. With TLS the client's TLSConfig must trust the
// certificate and give a ServerName: the SDK's own has the port in it.
func (p *Peer) ConnectionString() string {
	key, emulator := p.options.Key, "UseDevelopmentEmulator=true;"
	if key == "" {
		key = "any"
	}
	if p.options.TLS != nil {
		emulator = ""
	}
	return fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=%s;SharedAccessKey=%s;%sEntityPath=%s",
		p.Address(), KeyName, key, emulator, p.options.Hub)
}

// Down drops all connections and refuses new ones until Restart. A batch that has
// arrived may still be stored after it; its sender does not hear of that.
func (p *Peer) Down() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down()
}

func (p *Peer) down() (err error) {
	if p.listener != nil {
		err = p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		_ = c.net.Close()
	}
	return err
}

// Restart drops all connections and listens on the same port again. What is
// stored and the faults to come stay.
func (p *Peer) Restart() error {
	if err := p.Down(); err != nil {
		return err
	}
	return p.listen()
}

// Close ends the peer and waits until it has ended. Events stay readable.
func (p *Peer) Close() error {
	p.mu.Lock()
	p.closed = true
	err := p.down()
	p.mu.Unlock()
	p.running.Wait()
	return err
}

// Events are the events kept, in the order of storing.
func (p *Peer) Events() []Event { return p.store.all() }

// OnEvent has a function called for each event, in the order of storing, before
// the sender hears of it. While it runs nothing else is stored. It must not call
// OnEvent or Close.
func (p *Peer) OnEvent(f func(Event)) {
	p.storing.Lock()
	defer p.storing.Unlock()
	p.onEvent = append(p.onEvent, f)
}

// Fail plans a fault for the next so many occasions: transfers to the hub,
// put-tokens for Unauthorized, attaches to the hub for NotFound. Below 0 it stays
// until Clear. Faults of the same occasion come one after the other.
func (p *Peer) Fail(f Fault, times int) { p.plan.add(f, times) }

// Clear forgets the faults to come.
func (p *Peer) Clear() { p.plan.clear() }

// Stats counts.
func (p *Peer) Stats() Stats {
	p.mu.Lock()
	s := p.stats
	s.Open = len(p.conns)
	p.mu.Unlock()
	s.Kept, s.Dropped = p.store.counts()
	s.Faults = p.plan.counts()
	return s
}

// keep stores a batch and tells of it.
func (p *Peer) keep(partition int, key string, batch []*entry) {
	p.storing.Lock()
	defer p.storing.Unlock()
	p.store.add(partition, key, batch)
	p.mu.Lock()
	p.stats.Events += int64(len(batch))
	p.mu.Unlock()
	for _, f := range p.onEvent {
		for _, e := range batch {
			f(e.Event)
		}
	}
}
