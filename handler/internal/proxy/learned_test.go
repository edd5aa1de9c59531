package proxy

import "testing"

// TestScale: a length lies in its step, and no longer one does.
func TestScale(t *testing.T) {
	for n := range int64(5000) {
		if s := step(n); top(s) < n || s > 0 && top(s-1) >= n {
			t.Fatalf("%d is in step %d, up to %d", n, s, top(s))
		}
	}
}

// TestLearnedKeysMax: at the limit nothing is forgotten, one past it everything.
func TestLearnedKeysMax(t *testing.T) {
	var l learned
	key := func(n int) learnedKey { return learnedKey{product: string(rune(n))} }
	for range learnedLeast {
		l.note(key(0), 100)
	}
	for n := 1; n < learnedKeysMax; n++ {
		l.note(key(n), 1)
	}
	if got := l.usual(key(0), 1000); got < 100 || got > 111 {
		t.Errorf("at the limit: %d", got)
	}
	l.note(key(learnedKeysMax), 1)
	if got := l.usual(key(0), 1000); got != 0 {
		t.Errorf("past it: %d", got)
	}
}
