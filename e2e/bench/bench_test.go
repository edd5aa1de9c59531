package main

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	if got := parseCPU("12 (gateway) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20"); got != 3*time.Second {
		t.Errorf("CPU = %v", got)
	}
	if got := parsePeak("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS: 1 kB\n"); got != 2<<20 {
		t.Errorf("peak = %d", got)
	}
	if parseCPU("") != 0 || parsePeak("") != 0 {
		t.Error("nothing must be 0")
	}
}
