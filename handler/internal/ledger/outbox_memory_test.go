package ledger

import (
	"fmt"
	"testing"
	"time"
)

// TestAdoptedIsBounded: what is known of leases that others have deleted goes,
// and what is too much goes from the oldest one on.
func TestAdoptedIsBounded(t *testing.T) {
	var s outboxState
	marks := func(lease, n int) (list []mark) {
		for i := range n {
			list = append(list, mark{fmt.Sprint(lease, ".", i), 1})
		}
		return list
	}
	name := func(lease int) entryName { return entryName{"p_1", fmt.Sprint("S.2026-11.L.", lease)} }
	for lease := range 10 {
		if have := s.adopt(name(lease), marks(lease, 3)); len(have) != 3 {
			t.Errorf("adopted %v", have)
		}
		s.adopt(name(lease), marks(lease, 2)) // told twice
	}
	s.adopt(entryName{"p_2", "S.2026-11.L.0"}, marks(0, 1))
	s.keepAdopted("p_1", map[string]bool{name(4).row: true, name(7).row: true})
	if len(s.adopted) != 3 || s.marks != 7 || len(s.have(name(4))) != 3 {
		t.Errorf("%d leases with %d marks", len(s.adopted), s.marks)
	}
	for lease := range 60 {
		s.adopt(name(100+lease), marks(lease, adoptedMax/50))
	}
	if s.marks > adoptedMax || len(s.adopted) != 50 || s.have(name(4)) != nil || s.have(name(159)) == nil {
		t.Errorf("%d leases with %d marks", len(s.adopted), s.marks)
	}
	for lease := range 200 {
		s.forget(name(lease))
	}
	if s.adopt(name(1), nil); len(s.adopted) != 0 || s.marks != 0 {
		t.Errorf("%d leases with %d marks", len(s.adopted), s.marks)
	}
}

// TestOffersAreBounded, in number and in bytes.
func TestOffersAreBounded(t *testing.T) {
	var s outboxState
	record := make([]byte, 1000)
	number, _, _ := s.begin(0)
	for i := range offersMax + 500 {
		s.returned(entryName{"p", fmt.Sprint(i)}, offer{look: number, record: record})
	}
	if len(s.offers) != offersMax || s.bytes > offerBytesMax || s.bytes < offerBytesMax-1000 {
		t.Errorf("%d offers of %d bytes", len(s.offers), s.bytes)
	}
	if r, due := s.due(entryName{"p", "1"}, number, 0); due {
		t.Errorf("twice in one look, %d bytes", len(r))
	}
	if _, due := s.due(entryName{"p", fmt.Sprint(offersMax + 1)}, number+1, 0); !due {
		t.Error("what is not remembered is due")
	}
	s.begin(resendAfter + time.Second)
	if len(s.offers) != 0 || s.bytes != 0 {
		t.Errorf("%d offers of %d bytes", len(s.offers), s.bytes)
	}
}
