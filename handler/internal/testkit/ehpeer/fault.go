package ehpeer

import (
	"fmt"
	"sync"
)

// Fault is something that goes wrong on demand. What azeventhubs v2.0.2 makes of
// it stands behind each.
type Fault int

// Faults of transfers to the hub, but for the last two.
const (
	none             Fault = iota
	Throttle               // rejected with server-busy; retried on the link, with the backoff of RetryOptions
	TooLarge               // rejected with message-size-exceeded; fatal
	Release                // outcome released; the SDK reports success, the events are lost
	Modify                 // outcome modified; the SDK reports success, the events are lost
	Detach                 // link detached with detach-forced, nothing stored; a new link at once
	Stolen                 // link detached with stolen, nothing stored; fatal, ownershiplost
	ForceClose             // connection closed with connection:forced, nothing stored; a new connection
	DropBefore             // TCP connection dropped, nothing stored; a new connection
	DropAfter              // stored, then TCP connection dropped; the SDK sends again, so all is stored twice
	NeverSettle            // nothing stored and no answer; the SDK waits until its context ends
	NeverSettleAfter       // stored, and no answer; the SDK waits until its context ends
	Unauthorized           // of put-tokens: answered with 401; fatal, unauthorized
	NotFound               // of attaches to the hub: refused with not-found; fatal
	faultsEnd
)

var faultNames = [faultsEnd]string{
	Throttle: "throttle", TooLarge: "too-large", Release: "release", Modify: "modify", Detach: "detach", Stolen: "stolen",
	ForceClose: "force-close", DropBefore: "drop-before", DropAfter: "drop-after", NeverSettle: "never-settle",
	NeverSettleAfter: "never-settle-after", Unauthorized: "unauthorized", NotFound: "not-found",
}

// String is the fault's name.
func (f Fault) String() string {
	if f <= none || f >= faultsEnd {
		return fmt.Sprintf("Fault(%d)", int(f))
	}
	return faultNames[f]
}

// ParseFault finds a fault by its name.
func ParseFault(name string) (Fault, error) {
	for f := none + 1; f < faultsEnd; f++ {
		if faultNames[f] == name {
			return f, nil
		}
	}
	return none, fmt.Errorf("ehpeer: no fault is named %q", name)
}

// occasion is when a fault can strike.
type occasion int

const (
	onTransfer occasion = iota
	onPutToken
	onAttach
)

func (f Fault) occasion() occasion {
	switch f {
	case Unauthorized:
		return onPutToken
	case NotFound:
		return onAttach
	}
	return onTransfer
}

// plan is the faults to come, in the order of planning.
type plan struct {
	mu   sync.Mutex
	next []planned
	met  [faultsEnd]int64
}

type planned struct {
	fault Fault
	times int // below 0: until cleared
}

func (p *plan) add(f Fault, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if times != 0 {
		p.next = append(p.next, planned{f, times})
	}
}

func (p *plan) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = nil
}

// take is what goes wrong now.
func (p *plan) take(o occasion) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.next {
		n := &p.next[i]
		if n.fault.occasion() != o {
			continue
		}
		f := n.fault
		if n.times > 0 {
			n.times--
		}
		if n.times == 0 {
			p.next = append(p.next[:i], p.next[i+1:]...)
		}
		p.met[f]++
		return f
	}
	return none
}

func (p *plan) counts() map[string]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := map[string]int64{}
	for f, n := range p.met {
		if n > 0 {
			counts[Fault(f).String()] = n
		}
	}
	return counts
}
