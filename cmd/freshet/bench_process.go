package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/freshet-ml/freshet/ps"
)

// processUsage returns what another process has used, to a hundredth of a second. It
// needs /proc.
func processUsage(pid int) (usage, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	doc, err := os.ReadFile(path)
	if err != nil {
		return usage{}, fmt.Errorf("processor time of another process: %w", err)
	}
	// The name, in parentheses, may hold anything; from the state behind it on, fields
	// are numbered as in proc(5), from 3.
	fields := bytes.Fields(doc[bytes.LastIndexByte(doc, ')')+1:])
	const user, system, resident, first = 14, 15, 24, 3
	if len(fields) <= resident-first {
		return usage{}, fmt.Errorf("%s has %d fields behind the name: %w", path, len(fields), ps.ErrCorrupt)
	}
	var numbers [3]int64
	for i, field := range []int{user, system, resident} {
		if numbers[i], err = strconv.ParseInt(string(fields[field-first]), 10, 64); err != nil {
			return usage{}, fmt.Errorf("%s, field %d: %w: %w", path, field, ps.ErrCorrupt, err)
		}
	}
	const ticksPerSecond = 100 // what Linux shows, whatever its clock
	return usage{CPU: float64(numbers[0]+numbers[1]) / ticksPerSecond, Resident: numbers[2] * int64(os.Getpagesize())}, nil
}
