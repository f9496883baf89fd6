package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
)

// benchMemory is the work of "bench memory".
type benchMemory struct{ benchStore }

// memoryReport is the document of "bench memory -o json". Keys may be added and do not
// change.
type memoryReport struct {
	Rows          int     `json:"rows"`
	Width         int     `json:"width"`
	Optimizer     string  `json:"optimizer"`
	Shards        int     `json:"shards"`
	BytesBefore   int64   `json:"bytes_before"`
	BytesAfter    int64   `json:"bytes_after"`
	BytesPerRow   float64 `json:"bytes_per_row"`
	ValueBytes    int     `json:"value_bytes_per_row"` // what a pull returns
	ServerSeconds float64 `json:"server_cpu_seconds"`  // to push every row once
}

func newBenchMemory(t *terminal) *cobra.Command {
	b := benchMemory{benchStore{Seconds: 1}}
	cmd := &cobra.Command{
		Use:   "memory",
		Short: "Measure the memory that rows take",
		Long: `Starts a parameter-server node in a process of its own, pushes every row of a
table once, and divides by their number what the process has more of resident
memory than before. The table is not told its size.`,
		Example: `  freshet bench memory
  freshet bench memory --rows 10000000 --width 1 --optimizer ftrl -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := b.run(cmd.Context(), t)
			if err != nil {
				return err
			}
			return t.result(report, report.print)
		},
	}
	flags := cmd.Flags()
	b.addFlags(flags, 10_000_000, 4096, 1)
	for _, name := range []string{"keys", "in-flight"} {
		if err := flags.MarkHidden(name); err != nil {
			panic(err) // the flag has just been added
		}
	}
	return cmd
}

func (b benchMemory) run(ctx context.Context, t *terminal) (report memoryReport, err error) {
	model, err := b.model()
	if err != nil {
		return report, err
	}
	server, err := startBenchNode(ctx, b.benchStore, 0)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	before, err := server.usage()
	if err != nil {
		return report, err
	}
	c, err := client.Dial(ctx, client.Config{Routes: staticRoutes(b.Shards, server.address), Logger: t.logger})
	if err != nil {
		return report, err
	}
	defer c.Close()
	p := &benchPusher{b: b.benchStore, c: c, model: model, sent: make([]ps.Offset, b.Shards)}
	if err := p.fill(ctx, t); err != nil {
		return report, err
	}
	after, err := server.usage()
	if err != nil {
		return report, err
	}
	return memoryReport{
		Rows: b.Rows, Width: b.Width, Optimizer: b.Optimizer, Shards: b.Shards,
		BytesBefore: before.Resident, BytesAfter: after.Resident,
		BytesPerRow: float64(after.Resident-before.Resident) / float64(b.Rows),
		ValueBytes:  4 * b.Width, ServerSeconds: after.CPU - before.CPU,
	}, nil
}

// print writes the report for people.
func (r memoryReport) print(w io.Writer) {
	fmt.Fprintf(w, "%s rows × %d floats, %s, %s: %.1f bytes a row, of which %d are its values\n  resident %s bytes before, %s after\n",
		thousands(int64(r.Rows)), r.Width, r.Optimizer, count(r.Shards, "shard"), r.BytesPerRow, r.ValueBytes,
		thousands(r.BytesBefore), thousands(r.BytesAfter))
}
