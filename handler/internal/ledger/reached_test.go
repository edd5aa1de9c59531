package ledger

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// TestReached compares with exact numbers, at the edges above all.
func TestReached(t *testing.T) {
	f := func(spent, budget, ppm int64) {
		t.Helper()
		left := new(big.Int).Mul(big.NewInt(spent), big.NewInt(1_000_000))
		right := new(big.Int).Mul(big.NewInt(budget), big.NewInt(ppm))
		want := left.Cmp(right) >= 0 && spent > 0 && budget > 0
		if got := reached(spent, budget, ppm); got != want {
			t.Errorf("reached(%d, %d, %d) = %v", spent, budget, ppm, got)
		}
	}
	for _, budget := range []int64{-1, 0, 1, 3, 1000, math.MaxInt64} {
		for _, spent := range []int64{math.MinInt64, -1, 0, 1, 2, 3, 499, 500, 501, math.MaxInt64/2 - 1, math.MaxInt64 / 2, math.MaxInt64/2 + 1, math.MaxInt64} {
			for _, ppm := range []int64{1, 499_999, 500_000, 500_001, 1_000_000, 10_000_000} {
				f(spent, budget, ppm)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		budget, ppm := random.Int64(), random.Int64N(10_000_000)+1
		f(random.Int64(), budget, ppm)
		f(budget/1_000_000*ppm/10, budget, ppm/10+1)
	}
}

// TestNoticeIsCheap: looking for a crossing after every settlement allocates
// nothing.
func TestNoticeIsCheap(t *testing.T) {
	b := &book{ledger: New(nil, Options{OnCrossing: func() {}}), product0: nil, lease: &lease{Settled: 900}, crossed: []int64{500_000}}
	p, err := productOf(Entity{Texts: map[string]string{"Doc": `{"notifyAtPpm":[500000,950000,1000000]}`}})
	if err != nil {
		t.Fatal(err)
	}
	b.product0, b.account.Budget = p, 1000
	if n := testing.AllocsPerRun(100, b.notice); n > 0 || b.noticing {
		t.Errorf("%v allocations, noticing %v", n, b.noticing)
	}
}
