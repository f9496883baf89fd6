package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

// moving are the flags of commands that make shards move.
type moving struct {
	address string
	wait    time.Duration
}

func (m *moving) add(cmd *cobra.Command) {
	addCoordinatorFlag(cmd, &m.address)
	cmd.Flags().DurationVar(&m.wait, "wait", 10*time.Minute, "how long to wait until they have moved (0: do not wait)")
}

// movedEvery is how often a command looks how far shards are.
const movedEvery = 50 * time.Millisecond

// until waits until left returns 0, and shows how many shards are left meanwhile.
func (m *moving) until(ctx context.Context, t *terminal, a *admin, what string, left func(coordinator.ShardList) int) error {
	if m.wait == 0 {
		return nil
	}
	late := time.After(m.wait)
	for {
		list, err := func() (coordinator.ShardList, error) {
			ctx, cancel := context.WithTimeout(ctx, adminMax)
			defer cancel()
			return a.Shards(ctx)
		}()
		if err != nil {
			return asked(m.address, err)
		}
		n := left(list)
		if n == 0 {
			return nil
		}
		t.progress("%s: %d shards to go", what, n)
		select {
		case <-time.After(movedEvery):
		case <-late:
			return fmt.Errorf("%s: %d shards have not moved after %v; they go on (freshet shards shows where they are): %w", what, n, m.wait, ps.ErrUnavailable)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// shardsOf parses shards such as "3,8-15".
func shardsOf(text string) ([]ps.ShardID, error) {
	var shards []ps.ShardID
	for _, part := range strings.Split(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		first, err := strconv.ParseUint(low, 10, 16)
		last, errLast := strconv.ParseUint(high, 10, 16)
		if err != nil || errLast != nil || last < first || last >= ps.ShardsMax {
			return nil, usageError{fmt.Errorf("--shards %q: %q is no shard and no range of them: want such as 3,8-15", text, part)}
		}
		for s := first; s <= last; s++ {
			shards = append(shards, ps.ShardID(s))
		}
	}
	return shards, nil
}

// moved is the result of a command that made shards move.
type moved struct {
	Node    ps.NodeID `json:"node"`
	Shards  int       `json:"shards"`
	Seconds float64   `json:"seconds"`
}

func newMove(t *terminal) *cobra.Command {
	var m moving
	var text, to string
	cmd := &cobra.Command{
		Use:   "move",
		Short: "Move shards to a node while everything goes on",
		Long: `The node follows the shards until it has whole copies, and then owns them.
Nothing is lost or doubled, and who pulls or pushes meanwhile waits for some
milliseconds.

An empty --to makes shards stay that are on the move.`,
		Example: `  freshet move --shards 3,8-15 --to ps-1 --coordinator 127.0.0.1:7400
  freshet move --shards 3 --to ""`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if text == "" || !cmd.Flags().Changed("to") {
				return usageError{errors.New("say which shards with --shards and where with --to (freshet shards and freshet status list them)")}
			}
			shards, err := shardsOf(text)
			if err != nil {
				return err
			}
			a, err := dialAdmin(m.address)
			if err != nil {
				return err
			}
			defer a.Close()
			began := time.Now()
			node, err := within(ctx, m.address, func(ctx context.Context) (ps.NodeID, error) { return a.Move(ctx, shards, to) })
			if err != nil {
				return err
			}
			if err := m.until(ctx, t, a, "move", func(list coordinator.ShardList) int {
				return countOf(shards, func(s ps.ShardID) bool {
					at := list.Shards[s]
					return node != "" && at.Owner != node && at.Target == node
				})
			}); err != nil {
				return err
			}
			list, err := within(ctx, m.address, a.Shards)
			if err != nil {
				return err
			}
			there := len(shards) - countOf(shards, func(s ps.ShardID) bool { return list.Shards[s].Owner != node })
			if node != "" && m.wait > 0 && there < len(shards) {
				return fmt.Errorf("move: %d of %d shards are at node %s; others were moved elsewhere meanwhile, or stay because it is gone (freshet events says why): %w",
					there, len(shards), node, ps.ErrConflict)
			}
			result := moved{Node: node, Shards: there, Seconds: time.Since(began).Seconds()}
			return t.result(result, func(w io.Writer) {
				switch {
				case node == "":
					fmt.Fprintf(w, "%d shards stay where they are\n", len(shards))
				case m.wait == 0:
					fmt.Fprintf(w, "%d shards begin to move to %s\n", len(shards), node)
				default:
					fmt.Fprintf(w, "%d shards have moved to %s in %.2f s\n", there, node, result.Seconds)
				}
			})
		},
	}
	m.add(cmd)
	cmd.Flags().StringVar(&text, "shards", "", "shards to move, such as 3,8-15")
	cmd.Flags().StringVar(&to, "to", "", "name or identifier of a node; empty: shards on the move stay")
	return cmd
}

// within calls a coordinator for at most adminMax.
func within[T any](ctx context.Context, address string, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, adminMax)
	defer cancel()
	answer, err := call(ctx)
	if err != nil {
		err = asked(address, err)
	}
	return answer, err
}

func countOf[T any](list []T, is func(T) bool) (n int) {
	for _, x := range list {
		if is(x) {
			n++
		}
	}
	return n
}

func newDrain(t *terminal) *cobra.Command {
	var m moving
	var undo bool
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Make a node give up all its shards, so that it can be stopped",
		Long: `Shards move to other nodes while everything goes on. When the command ends, the
node has none, and stopping it costs nothing. What a node that restarts has is
another life, which is not drained.`,
		Example: `  freshet drain ps-1 --coordinator 127.0.0.1:7400 && kubectl delete pod ps-1
  freshet drain ps-1 --undo`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			a, err := dialAdmin(m.address)
			if err != nil {
				return err
			}
			defer a.Close()
			began, first := time.Now(), -1
			node, err := within(ctx, m.address, func(ctx context.Context) (ps.NodeID, error) { return a.Drain(ctx, args[0], !undo) })
			if err != nil {
				return err
			}
			if undo {
				return t.result(moved{Node: node}, func(w io.Writer) { fmt.Fprintf(w, "node %s may have shards again\n", node) })
			}
			if err := m.until(ctx, t, a, "drain "+string(node), func(list coordinator.ShardList) int {
				left := countOf(list.Shards, func(s coordinator.ShardStatus) bool { return s.Owner == node })
				if first < 0 {
					first = left
				}
				return left
			}); err != nil {
				return err
			}
			result := moved{Node: node, Shards: max(first, 0), Seconds: time.Since(began).Seconds()}
			return t.result(result, func(w io.Writer) {
				if m.wait == 0 {
					fmt.Fprintf(w, "node %s begins to give up its shards\n", node)
					return
				}
				fmt.Fprintf(w, "node %s has given up %d shards in %.2f s and can be stopped\n", node, result.Shards, result.Seconds)
			})
		},
	}
	m.add(cmd)
	cmd.Flags().BoolVar(&undo, "undo", false, "let the node have shards again")
	return cmd
}

func newRebalance(t *terminal) *cobra.Command {
	var m moving
	var dry bool
	cmd := &cobra.Command{
		Use:   "rebalance",
		Short: "Move shards so that the nodes are evenly loaded",
		Long: `A coordinator does this by itself, a few shards at a time (--moves), when nodes
come, go or are drained, and when their load has long been uneven. This makes
all moves begin at once, or only tells which there would be.`,
		Example: `  freshet rebalance --dry-run
  freshet rebalance --coordinator 127.0.0.1:7400`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			a, err := dialAdmin(m.address)
			if err != nil {
				return err
			}
			defer a.Close()
			moves, err := within(ctx, m.address, func(ctx context.Context) ([]coordinator.Move, error) { return a.Rebalance(ctx, dry) })
			if err != nil {
				return err
			}
			if !dry {
				if err := m.until(ctx, t, a, "rebalance", func(list coordinator.ShardList) int {
					return countOf(list.Shards, func(s coordinator.ShardStatus) bool { return s.Target != "" })
				}); err != nil {
					return err
				}
			}
			return t.result(moves, func(w io.Writer) {
				if len(moves) == 0 {
					fmt.Fprintln(w, "nothing to move: the nodes are as evenly loaded as whole shards allow")
				}
				for _, move := range moves {
					fmt.Fprintf(w, "shard %5d  %-26s -> %-26s  %s\n", move.Shard, move.From, move.To, move.Why)
				}
			})
		},
	}
	m.add(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "tell only")
	return cmd
}
