package ehpeer

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	handshakeWait = 10 * time.Second
	idleWait      = 2 * time.Minute  // for a frame from the client, which is told half of it in open
	writeWait     = 30 * time.Second // for a client that does not read
	closeWait     = time.Second      // for the client's answer to close

	beatFloor   = time.Millisecond // between empty frames to the client, however often it wants them
	channelMax  = 255
	handleMax   = 255
	framesAhead = 16 // frames read before they are handled
)

// errHangUp drops the connection without a word.
var errHangUp = errors.New("ehpeer: hang up")

// conn is one connection. One goroutine reads frames; another, which runs serve,
// does everything else, so that nothing of it needs a lock.
type conn struct {
	peer     *Peer
	net      net.Conn
	out      *bufio.Writer
	scratch  []byte
	frameMax int           // of the client
	beat     time.Duration // between empty frames; 0: none wanted

	frames chan frame
	wake   chan struct{} // events to send, or orders
	done   chan struct{} // closed at the end

	sessions map[uint16]*session
	granted  map[string]bool // entities for which tokens have been put
	closing  <-chan time.Time

	mu     sync.Mutex
	orders []func() // by other connections
}

func newConn(p *Peer, n net.Conn) *conn {
	return &conn{
		peer: p, net: n, out: bufio.NewWriterSize(deadlined{n}, frameBytesMax), frameMax: 512,
		frames: make(chan frame, framesAhead), wake: make(chan struct{}, 1), done: make(chan struct{}),
		sessions: map[uint16]*session{}, granted: map[string]bool{},
	}
}

// deadlined does not wait for ever for a client that does not read.
type deadlined struct{ net.Conn }

func (d deadlined) Write(b []byte) (int, error) {
	if err := d.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return 0, err
	}
	return d.Conn.Write(b)
}

// order has a function run by the connection's own goroutine.
func (c *conn) order(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orders = append(c.orders, f)
	wake(c.wake)
}

func (c *conn) obey() {
	c.mu.Lock()
	orders := c.orders
	c.orders = nil
	c.mu.Unlock()
	for _, f := range orders {
		f()
	}
}

// serve does the handshake and then handles frames until either side ends it.
func (c *conn) serve() {
	var reading sync.WaitGroup
	defer func() {
		_ = c.out.Flush() // answers to what came before the end
		close(c.done)
		_ = c.net.Close()
		reading.Wait()
		c.peer.store.unwatch(c.wake)
		for _, s := range c.sessions {
			s.leave()
		}
	}()
	if err := c.handshake(); err != nil {
		return
	}
	reading.Go(c.read)
	c.peer.store.watch(c.wake)
	c.run()
}

// handshake is everything up to open.
func (c *conn) handshake() error {
	if err := c.net.SetReadDeadline(time.Now().Add(handshakeWait)); err != nil {
		return err
	}
	sasl, err := readHeader(c.net)
	if err == nil && sasl {
		if err = c.sasl(); err == nil {
			sasl, err = readHeader(c.net)
		}
	}
	if err != nil || sasl {
		return errHangUp
	}
	_, _ = c.out.Write(headerAMQP)
	if err := c.out.Flush(); err != nil {
		return err
	}
	f, err := readFrame(c.net)
	if err != nil || f.kind != kindAMQP || f.code != codeOpen {
		return errHangUp
	}
	frameMax, idle := f.fields.uint(2, 1<<32-1), time.Duration(f.fields.uint(4, 0))*time.Millisecond
	if f.fields.err != nil {
		return f.fields.err
	}
	c.frameMax = int(min(max(frameMax, 512), frameBytesMax))
	if idle > 0 {
		c.beat = max(idle/2, beatFloor)
	}
	c.send(0, composite(codeOpen, "ehpeer", nil, uint32(frameBytesMax), uint16(channelMax), uint32(c.peer.idle/2/time.Millisecond)), nil)
	return c.out.Flush()
}

// sasl takes anyone: who may do what is settled by put-token.
func (c *conn) sasl() error {
	const anonymous = symbol("ANONYMOUS")
	_, _ = c.out.Write(headerSASL)
	_, _ = c.out.Write(appendFrame(nil, kindSASL, 0, composite(codeMechanisms, anonymous), nil))
	if err := c.out.Flush(); err != nil {
		return err
	}
	f, err := readFrame(c.net)
	if err != nil || f.kind != kindSASL || f.code != codeInit {
		return errHangUp
	}
	const ok, refused = uint8(0), uint8(1)
	outcome := ok
	if f.fields.text(0) != string(anonymous) {
		outcome = refused
	}
	_, _ = c.out.Write(appendFrame(nil, kindSASL, 0, composite(codeOutcome, outcome), nil))
	if err := c.out.Flush(); err != nil {
		return err
	}
	if outcome == refused {
		return errHangUp
	}
	return nil
}

// read passes frames on until there are no more.
func (c *conn) read() {
	defer close(c.frames)
	in := bufio.NewReaderSize(c.net, frameBytesMax)
	for {
		if err := c.net.SetReadDeadline(time.Now().Add(c.peer.idle)); err != nil {
			return
		}
		f, err := readFrame(in)
		if err != nil {
			return
		}
		select {
		case c.frames <- f:
		case <-c.done:
			return
		}
	}
}

// run handles frames, sends events and shows that the peer lives. Output is
// flushed when there is nothing else to do.
func (c *conn) run() {
	var beats <-chan time.Time
	if c.beat > 0 {
		ticker := time.NewTicker(c.beat)
		defer ticker.Stop()
		beats = ticker.C
	}
	for {
		more := c.pump()
		select {
		case f, ok := <-c.frames:
			if !ok || !c.next(f) {
				return
			}
			continue
		default:
		}
		if more {
			continue
		}
		if err := c.out.Flush(); err != nil {
			return
		}
		select {
		case f, ok := <-c.frames:
			if !ok || !c.next(f) {
				return
			}
		case <-c.wake:
			c.obey()
		case <-beats:
			c.scratch = appendFrame(c.scratch[:0], kindAMQP, 0, nil, nil)
			_, _ = c.out.Write(c.scratch)
		case <-c.closing:
			return
		}
	}
}

// next handles a frame and says whether the connection goes on.
func (c *conn) next(f frame) bool {
	if c.closing != nil { // all that matters now is the client's close
		return f.code != codeClose
	}
	err := c.handle(&f)
	if err == nil {
		err = f.fields.err
	}
	if err == nil {
		return true
	}
	if errors.Is(err, errHangUp) {
		return false
	}
	var told *amqpError
	if !errors.As(err, &told) {
		told = &amqpError{"amqp:decode-error", err.Error()}
	}
	c.send(0, composite(codeClose, told.value()), nil)
	c.closing = time.After(closeWait)
	return true
}

func (c *conn) handle(f *frame) error {
	switch {
	case f.kind != kindAMQP:
		return fmt.Errorf("ehpeer: frame of type %d after the handshake", f.kind)
	case f.code == 0:
		return nil
	case f.code == codeClose:
		c.send(0, composite(codeClose), nil)
		return errHangUp
	case f.code == codeBegin:
		return c.begin(f)
	}
	s := c.sessions[f.channel]
	if s == nil {
		return &amqpError{"amqp:not-allowed", fmt.Sprintf("no session on channel %d", f.channel)}
	}
	switch f.code {
	case codeEnd:
		s.leave()
		delete(c.sessions, f.channel)
		s.send(composite(codeEnd))
		return nil
	case codeAttach:
		return s.attach(f)
	case codeFlow:
		return s.flow(f)
	case codeTransfer:
		return s.transfer(f)
	case codeDetach:
		return s.detached(f)
	case codeDisposition: // what consumers get is settled when sent
		return nil
	}
	return fmt.Errorf("ehpeer: frame with performative %#x", f.code)
}

// send writes a frame. An error shows when the output is flushed.
func (c *conn) send(channel uint16, performative any, payload []byte) {
	c.scratch = appendFrame(c.scratch[:0], kindAMQP, channel, performative, payload)
	_, _ = c.out.Write(c.scratch)
}
