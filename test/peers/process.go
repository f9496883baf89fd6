package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// processorTime returns the CPU-seconds that a process has used, to a hundredth.
func processorTime(pid int) (float64, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	doc, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything; the state behind it is field 3 of
	// proc(5), and user and system time are 14 and 15.
	fields := bytes.Fields(doc[bytes.LastIndexByte(doc, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s has %d fields behind the name, want more", path, len(fields))
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		ticks += n
	}
	const ticksPerSecond = 100 // what Linux shows, whatever its clock
	return float64(ticks) / ticksPerSecond, nil
}

// bench runs one of freshet's benchmarks and reads its document.
func (s *settings) bench(ctx context.Context, into any, args ...string) error {
	args = append(append([]string{"bench"}, args...), "-o", "json")
	out, err := output(ctx, s.freshet, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("freshet %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// output runs a program and returns what it writes to stdout.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	command.SysProcAttr = ended()
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, lastLine(stderr.Bytes()))
	}
	return out, nil
}

// lastLine returns the last line of a text that says something.
func lastLine(text []byte) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(lines[len(lines)-1])
}
