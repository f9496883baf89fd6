package main

import (
	"context"
	"slices"
)

// growthPart measures what the same work costs as clients, nodes and rows become more. There
// is no peer: Freshet is compared with itself.
func growthPart(s *settings) *part {
	table := kernelPart(s, "growth", "ps/table", [2]build{{true, ""}, {true, "^BenchmarkGrowth$"}}, nil)
	p := &part{name: "growth", prepare: table.prepare}
	p.own = func(ctx context.Context) (figures, error) {
		f, err := table.own(ctx)
		if err != nil {
			return nil, err
		}
		var times []float64
		for _, rows := range []int{100_000, 1_000_000, 10_000_000} {
			d, err := s.store(ctx, rows, s.keys, 1, 1, 1)
			if err != nil {
				return nil, err
			}
			times = append(times, d.Push.P50)
		}
		f["rows"] = spread(times)
		var clients, nodes [2][]float64
		for _, n := range []int{1, 2, 4} {
			if err := s.scaled(ctx, &clients, n, 1); err != nil {
				return nil, err
			}
			if err := s.scaled(ctx, &nodes, 1, n); err != nil {
				return nil, err
			}
		}
		f["pull by clients"], f["push by clients"] = spread(clients[0]), spread(clients[1])
		f["pull by nodes"], f["push by nodes"] = spread(nodes[0]), spread(nodes[1])
		return f, nil
	}
	const cost = ", keys per server CPU-second, the most through the least"
	p.goals = []goal{
		{"pull with 1, 2 and 4 clients" + cost, "", "pull by clients", atMost, 1.25},
		{"push, the same", "", "push by clients", atMost, 1.25},
		{"pull from 1, 2 and 4 nodes" + cost, "", "pull by nodes", atMost, 1.25},
		{"push, the same", "", "push by nodes", atMost, 1.25},
		{"time of a push at 0.1, 1 and 10 M rows, p50, the most through the least", "", "rows", atMost, 1.5},
		{"the longest that growth to 10 M rows holds a push of 4096, in ms", "", "adagrad ms-longest", atMost, 5},
	}
	return p
}

// scaled appends the keys per server CPU-second of pulls and pushes by some clients at some
// nodes. A request has as many more keys as there are more nodes, so that each message has
// the same.
func (s *settings) scaled(ctx context.Context, to *[2][]float64, clients, nodes int) error {
	d, err := s.store(ctx, s.rows, nodes*s.keys, s.inFlight, clients, nodes)
	to[0], to[1] = append(to[0], d.Pull.KeysPerServerCPUSecond), append(to[1], d.Push.KeysPerServerCPUSecond)
	return err
}

// spread is the most through the least.
func spread(values []float64) float64 { return slices.Max(values) / slices.Min(values) }
