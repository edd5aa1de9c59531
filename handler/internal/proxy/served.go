package proxy

import (
	"sync"

	"github.com/costgate/costgate/handler/internal/pricing"
)

// servedMax is of how many deployments is remembered what served them otherwise
// than expected.
const servedMax = 1000

// served remembers deployments that answered by other prices than their holds
// were made with: as another version or model, or in the priority tier without
// being asked. Later holds cover that too. It forgets with the process.
type served struct {
	mu   sync.Mutex
	as   map[string]servedAs
	told map[string]bool // mismatches
}

type servedAs struct {
	model    string
	priority bool
}

// expect makes the hold cover what served the deployment before.
func (x *exchange) expect() {
	as, ok := x.handler.served.of(x.deployment)
	if !ok {
		return
	}
	if as.priority && x.tier == "" {
		x.tier = pricing.TierPriority
	}
	if as.model == "" {
		return
	}
	d := x.target
	d.Model, d.Version = as.model, ""
	if pricing.Provisioned(d.SKU) {
		d.SKU = pricing.SpilloverSKU(d.SKU)
	}
	if entry, found := x.lookup(d); found {
		x.also = append(x.also, x.marked(entry))
	}
}

func (s *served) of(deployment string) (as servedAs, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	as, ok = s.as[deployment]
	return as, ok
}

// note remembers what the answer was charged by, if the hold did not expect it.
func (s *served) note(x *exchange, entry *pricing.Entry) {
	unasked := x.answer.ServiceTier == pricing.TierPriority && x.tier != pricing.TierPriority && x.tier != "auto"
	other := dearer(entry, &x.entry)
	for i := range x.also {
		other = other && dearer(entry, &x.also[i])
	}
	if !other && !unasked {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	as := s.as[x.deployment]
	as.priority = as.priority || unasked
	if other {
		as.model = x.servedModel()
	}
	if s.as == nil || len(s.as) >= servedMax {
		s.as = map[string]servedAs{} // starting over costs a hold that may be too low for each
	}
	s.as[x.deployment] = as
}

// dearer tells whether a request of a usual shape costs more by one price than by
// the other.
func dearer(a, b *pricing.Entry) bool {
	const prompt, output = 4000, 1000
	one, err := a.Bound(prompt, output, nil, "")
	other, otherErr := b.Bound(prompt, output, nil, "")
	return err == nil && otherErr == nil && one > other
}

// mismatch tells, once for each, that a deployment answers as another model or
// version than DEPLOYMENTS says.
func (s *served) mismatch(x *exchange, model string) {
	name := x.deployment + "\x00" + model
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[name] {
		return
	}
	if s.told == nil || len(s.told) >= servedMax {
		s.told = map[string]bool{}
	}
	s.told[name] = true
	x.handler.options.Log.Warn("model_mismatch: a deployment answers as another model or version than DEPLOYMENTS says",
		"deployment", x.deployment, "model", x.target.Model, "version", x.target.Version, "served", clip(model, nameBytesMax))
}
