package service

import (
	"net/netip"
	"net/url"
	"sort"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/money"
)

// Auth is how a service is told who calls.
type Auth string

// Pass sends the client's own credential on; header puts in a secret of the
// gateway's; identity a token of its managed identity.
const (
	AuthPass     Auth = "pass"
	AuthHeader   Auth = "header"
	AuthIdentity Auth = "identity"
)

// Defaults and limits of an entry of SERVICES.
const (
	TimeoutDefault  = 100 * time.Second
	TimeoutLeast    = time.Second
	TimeoutMax      = 30 * time.Minute
	BodyBytesMax    = 100 << 20 // the default, and the most: the Functions host takes no larger body
	EntriesMax      = 1000
	NameBytesMax    = 64
	PriceMax        = 1000 * money.Nano(money.NanoPerUSD) // of a call or a KB; a price above it is a mistyped unit
	KB              = 1024                                // bytes
	settingBytesMax = 4 << 20
)

// Entry is one registered service.
type Entry struct {
	Name         string
	URL          *url.URL // without a slash at its end
	Auth         Auth
	Header       string // that carries Secret
	Secret       string
	Scope        string        // of the token
	PerCall      money.Nano    // price of a call, in nano-USD
	PerKB        money.Nano    // price of 1,024 bytes, begun, of request and answer
	Unpriced     bool          // neither has a price
	Timeout      time.Duration // silence of the service that is borne
	BodyBytesMax int64         // of a request; where a KB has a price of an answer too
	Private      bool          // its name may mean an address that is not public
}

// Services are the registered ones.
type Services struct {
	Version string // a digest of the setting
	Entries map[string]*Entry
}

// local tells whether a connection may go to an address that is not public: the
// operator said so, or wrote such an address down.
func (e *Entry) local() bool {
	host := strings.ToLower(e.URL.Hostname())
	_, err := netip.ParseAddr(host)
	return e.Private || err == nil || host == "localhost"
}

// kb is how many KB so many bytes have begun.
func kb(bytes int64) int64 { return (bytes + KB - 1) / KB }

// cost is what a call costs that moved so many bytes: by the list, and to a
// product with a multiplier in ppm (0: none). It is rounded once, up.
func (e *Entry) cost(bytes, ppm int64) (list, charged money.Nano, err error) {
	var total money.Total
	total.Add(1, money.Pico(e.PerCall)*money.PicoPerNano)
	total.Add(kb(bytes), money.Pico(e.PerKB)*money.PicoPerNano)
	if list, err = total.Ceil(); err != nil || ppm <= 0 {
		return list, list, err
	}
	var weighted money.Weighted
	weighted.Add(&total, ppm)
	charged, err = weighted.Ceil(money.PPM, money.PPM)
	return list, charged, err
}

// within is how many bytes a call may move for an amount, at most so many.
func (e *Entry) within(amount money.Nano, most, ppm int64) int64 {
	n := sort.Search(int(kb(most))+1, func(n int) bool { // the first that costs too much
		_, charged, err := e.cost(int64(n)*KB, ppm)
		return err != nil || charged > amount
	})
	return min(most, int64(n-1)*KB)
}
