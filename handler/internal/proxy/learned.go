package proxy

import (
	"math/bits"
	"sync"
)

const (
	learnedKeysMax = 4096
	learnedLeast   = 50  // answers before anything is said of them
	learnedShare   = 100 // one answer in so many may be longer than usual
	learnedSteps   = 8   // of the scale, for each power of two
	learnedFade    = 4096
)

// learned knows how long the answers of a product's requests to a model usually
// are. Only soft products hold money by it: nothing is refused for money there,
// and what is held only tells how much is on its way. It forgets with the process.
type learned struct {
	mu   sync.Mutex
	keys map[learnedKey]*lengths
}

type learnedKey struct{ product, deployment, operation string }

// lengths counts answers by their length, on a scale of eight steps for each
// power of two.
type lengths struct {
	total int64
	steps [64 * learnedSteps]int32
}

func (x *exchange) learnedKey() learnedKey {
	return learnedKey{x.product.ID, x.deployment, x.operation.name}
}

// step is the place of a length on the scale.
func step(n int64) int {
	if n < learnedSteps {
		return int(max(n, 0))
	}
	power := bits.Len64(uint64(n)) - 1 // at least 3
	return (power-2)*learnedSteps + int(n>>(power-3)&(learnedSteps-1))
}

// top is the greatest length of a step.
func top(step int) int64 {
	if step < learnedSteps {
		return int64(step)
	}
	power := step/learnedSteps + 2
	return (int64(learnedSteps+step%learnedSteps)+1)<<(power-3) - 1
}

// note takes in the length of an answer, in output tokens.
func (l *learned) note(key learnedKey, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys == nil || len(l.keys) >= learnedKeysMax && l.keys[key] == nil {
		l.keys = map[learnedKey]*lengths{} // starting over costs holds that are too high for a while
	}
	of := l.keys[key]
	if of == nil {
		of = new(lengths)
		l.keys[key] = of
	}
	of.steps[step(n)]++
	if of.total++; of.total >= learnedFade { // what was long ago counts less
		of.total = 0
		for i := range of.steps {
			of.steps[i] /= 2
			of.total += int64(of.steps[i])
		}
	}
}

// usual is the length that all but one in a hundred answers have at most, no
// more than limit; 0 if too few are known.
func (l *learned) usual(key learnedKey, limit int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.keys[key]
	if of == nil || of.total < learnedLeast {
		return 0
	}
	longer := of.total / learnedShare
	for i := len(of.steps) - 1; i >= 0; i-- {
		if longer -= int64(of.steps[i]); longer < 0 {
			return max(1, min(top(i), limit))
		}
	}
	return 0
}
