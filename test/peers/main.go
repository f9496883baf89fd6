// Command peers runs Freshet and other systems on the same work, in turn, and prints
// by how much the one is faster than the other. `make bench-peers` is how to call it.
//
// It installs what it compares with: Redis by Debian's apt-get, Vowpal Wabbit by pip in
// a virtual environment of its own. What cannot be installed, or fails, fails the lines
// that it is in; the others go on. Freshet is run as its user would, by the commands of
// the bin/freshet that it is given: nothing of the product is imported.
//
// The one idea to keep in mind: machines drift by tens of percent within minutes, so an
// absolute figure of one run says little about that of another. In every round the two
// sides of a part run right after each other, who is first changing from round to
// round; a ratio is of one round, and a line is judged by the median of its ratios.
//
// Invariants:
//  1. A line without figures is not met.
//  2. What is started here is ended here, by its process.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes, as freshet's.
const (
	exitMissed = 1
	exitUsage  = 2
)

// settings are the flags.
type settings struct {
	freshet  string
	work     string
	only     string
	output   string
	rounds   int
	rows     int
	memory   int // rows
	keys     int
	pipeline int
	inFlight int
	seconds  float64
	examples int
	deep     int
	window   int
}

// width is how many floats a row has; Redis's values have as many bytes.
const width = 16

func (s *settings) flags(stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, `Runs Freshet and other systems on the same work, in turn, and prints the ratios.
Exit code 1 if a goal is missed or a system cannot be run.

Examples:
  make bench-peers
  make bench-peers PEERS="-only redis,kernels -rounds 7 -rows 10000000"
  go run ./test/peers -freshet bin/freshet -o json > peers.json

Flags:
`)
		f.PrintDefaults()
	}
	f.StringVar(&s.freshet, "freshet", "bin/freshet", "the program to measure")
	f.StringVar(&s.work, "work", filepath.Join(os.TempDir(), "freshet-peers"), "`directory` for installed peers and generated streams; kept for the next time")
	f.StringVar(&s.only, "only", "", "the `parts` to run, separated by commas: "+strings.Join(partNames(parts(s)), ", ")+" (default: all)")
	f.StringVar(&s.output, "o", "text", "what stdout gets: text or json")
	f.IntVar(&s.rounds, "rounds", 5, "how often each pair is run")
	f.IntVar(&s.rows, "rows", 1_000_000, "rows of 16 floats in Redis and in Freshet")
	f.IntVar(&s.memory, "memory-rows", 10_000_000, "rows whose memory is measured")
	f.IntVar(&s.keys, "keys", 4096, "random keys of a request")
	f.IntVar(&s.pipeline, "pipeline", 8, "requests under way at Redis")
	f.IntVar(&s.inFlight, "in-flight", 4, "requests under way at Freshet")
	f.Float64Var(&s.seconds, "seconds", 3, "how long each request is repeated in each round")
	f.IntVar(&s.examples, "examples", 1_000_000, "examples of the stream that is learned")
	f.IntVar(&s.deep, "deep-examples", 50_000, "examples that DeepFM learns")
	f.IntVar(&s.window, "events-in-flight", 896, "examples that Freshet has between pull and push")
	return f
}

func (s *settings) validate(all []*part) error {
	for _, n := range []struct {
		name  string
		value int
	}{
		{"-rounds", s.rounds},
		{"-rows", s.rows},
		{"-memory-rows", s.memory},
		{"-keys", s.keys},
		{"-pipeline", s.pipeline},
		{"-in-flight", s.inFlight},
		{"-examples", s.examples},
		{"-deep-examples", s.deep},
		{"-events-in-flight", s.window},
	} {
		if n.value < 1 {
			return fmt.Errorf("%s %d: want at least 1", n.name, n.value)
		}
	}
	if s.seconds <= 0 {
		return fmt.Errorf("-seconds %v: want above 0", s.seconds)
	}
	if s.output != "text" && s.output != "json" {
		return fmt.Errorf("-o %q: want text or json", s.output)
	}
	for _, name := range s.chosen() {
		if !slices.Contains(partNames(all), name) {
			return fmt.Errorf("-only %q: want some of %s", name, strings.Join(partNames(all), ", "))
		}
	}
	return nil
}

// chosen returns the names of the parts that were asked for.
func (s *settings) chosen() []string {
	if s.only == "" {
		return nil
	}
	return strings.Split(s.only, ",")
}

// parts returns all that can be compared.
func parts(s *settings) []*part {
	return slices.Concat([]*part{storePart(s), memoryPart(s)}, trainParts(s), kernelParts(s), []*part{growthPart(s)})
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var s settings
	f := s.flags(stderr)
	if err := f.Parse(args); err != nil {
		if err == flag.ErrHelp { //nolint:errorlint // that is how package flag documents it
			return 0
		}
		return exitUsage
	}
	all := parts(&s)
	err := s.validate(all)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("cannot make sense of the arguments %q", f.Args())
	}
	if err == nil {
		err = os.MkdirAll(s.work, 0o750)
	}
	if err != nil {
		fmt.Fprintf(stderr, "peers: %v (see -h)\n", err)
		return exitUsage
	}
	report := document{Rounds: s.rounds, Rows: s.rows, Keys: s.keys, Examples: s.examples}
	for _, p := range all {
		if chosen := s.chosen(); chosen != nil && !slices.Contains(chosen, p.name) {
			continue
		}
		report.Lines = append(report.Lines, p.run(ctx, s.rounds, stderr)...)
		if ctx.Err() != nil {
			fmt.Fprintln(stderr, "peers: interrupted")
			return exitMissed
		}
	}
	if s.output == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = report.print(stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "peers: %v\n", err)
		return exitMissed
	}
	if !report.met() {
		return exitMissed
	}
	return 0
}
