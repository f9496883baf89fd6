package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// self is this process, which may stand for a peer's.
func self(t *testing.T) *os.Process {
	t.Helper()
	p, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProcessorTimeGrowsWithWork(t *testing.T) {
	before, err := processorTime(os.Getpid())
	if err != nil {
		t.Skipf("skipped: there is no /proc: %v", err)
	}
	after := before
	for end := time.Now().Add(20 * time.Second); after < before+0.05 && time.Now().Before(end); {
		if after, err = processorTime(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if after < before+0.05 {
		t.Errorf("%v CPU-seconds before, %v after 20 s of work; want more", before, after)
	}
}

func TestAProgramThatFailsSaysWhy(t *testing.T) {
	_, err := output(t.Context(), "go", "no-such-command")
	if err == nil || !strings.Contains(err.Error(), "go no-such-command") || !strings.Contains(err.Error(), "go help") {
		t.Errorf("error %v, want the command and the last line it wrote", err)
	}
}
