package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// epochMax bounds the wait for an epoch that was asked for.
const epochMax = 10 * time.Minute

// add gives a command the flags of epochs.
func (e *epochSettings) add(cmd *cobra.Command, every time.Duration) {
	flags := cmd.Flags()
	flags.DurationVar(&e.every, "checkpoint-every", every, "time between automatic epochs (0: none by time)")
	flags.Uint64Var(&e.events, "checkpoint-events", 0, "events between automatic epochs (0: none by events)")
	flags.IntVar(&e.keep, "checkpoint-keep", 3, "epochs that can be restored, at least 3")
}

func newCheckpoint(t *terminal) *cobra.Command {
	var address, model string
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Take a checkpoint epoch now",
		Long: `Asks all nodes for snapshots while learning goes on, and commits them as an
epoch: for every shard one cut of weights, optimizer state, counts and offsets.
A shard that does not answer keeps its snapshot of the epoch before.`,
		Example: "  freshet checkpoint --coordinator 127.0.0.1:7400",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			taken, err := ask(cmd.Context(), address, epochMax, func(ctx context.Context, a *admin) (coordinator.EpochTaken, error) {
				return a.TakeEpoch(ctx, model)
			})
			if err != nil {
				return err
			}
			return t.result(taken, func(w io.Writer) {
				if !taken.Taken {
					fmt.Fprintf(w, "nothing has changed since epoch %d (%s events)\n", taken.Epoch, thousands(int64(taken.Events)))
					return
				}
				fmt.Fprintf(w, "epoch %d: %s events, %s bytes written", taken.Epoch, thousands(int64(taken.Events)), thousands(int64(taken.Bytes)))
				if taken.ShardsKept > 0 {
					fmt.Fprintf(w, "; %d shards keep their snapshot of the epoch before", taken.ShardsKept)
				}
				fmt.Fprintln(w)
			})
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().StringVar(&model, "model", "", "model (default: the only one there is)")
	return cmd
}

// listEpochs asks a coordinator for the epochs of a model.
func listEpochs(ctx context.Context, address, model string) (coordinator.EpochList, error) {
	return ask(ctx, address, adminMax, func(ctx context.Context, a *admin) (coordinator.EpochList, error) {
		return a.Epochs(ctx, model)
	})
}

func newEpochs(t *terminal) *cobra.Command {
	var address, model string
	cmd := &cobra.Command{
		Use:     "epochs",
		Short:   "List the checkpoint epochs that can be restored",
		Example: "  freshet epochs --coordinator 127.0.0.1:7400 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := listEpochs(cmd.Context(), address, model)
			if err != nil {
				return err
			}
			return t.result(list, func(w io.Writer) {
				if len(list.Epochs) == 0 {
					fmt.Fprintf(w, "model %s has no epoch yet (freshet checkpoint takes one)\n", list.Model)
					return
				}
				fmt.Fprintf(w, "model %s, in %s\n  %6s  %7s  %14s  %s\n", list.Model, list.Bucket, "epoch", "lineage", "events", "committed")
				for _, e := range list.Epochs {
					fmt.Fprintf(w, "  %6d  %7d  %14s  %s\n", e.Epoch, e.Lineage, thousands(int64(e.Events)), time.UnixMilli(e.Created).Format(time.DateTime))
				}
			})
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().StringVar(&model, "model", "", "model (default: the only one there is)")
	return cmd
}

func newRollback(t *terminal) *cobra.Command {
	var address, model string
	var epoch uint64
	cmd := &cobra.Command{
		Use:     "rollback --epoch N",
		Aliases: []string{"restore"},
		Short:   "Set a model back to an older epoch",
		Long: `Makes an older epoch the newest of a new lineage: every shard is opened anew
from it, on however many nodes there are, and the workers learn the stream again
from its offsets. What was learned since is gone, but for epochs still kept.
Inference pods that follow the model serve it within seconds.`,
		Example: "  freshet epochs\n  freshet rollback --epoch 3",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if epoch == 0 {
				return usageError{fmt.Errorf("give the epoch to go back to with --epoch (see freshet epochs)")}
			}
			lineage, err := ask(cmd.Context(), address, adminMax, func(ctx context.Context, a *admin) (uint64, error) {
				return a.Restore(ctx, model, ps.Epoch(epoch))
			})
			if err != nil {
				return err
			}
			return t.result(map[string]uint64{"epoch": epoch, "lineage": lineage}, func(w io.Writer) {
				fmt.Fprintf(w, "set back to epoch %d; lineage %d begins\n", epoch, lineage)
			})
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().StringVar(&model, "model", "", "model (default: the only one there is)")
	cmd.Flags().Uint64Var(&epoch, "epoch", 0, "the epoch to go back to")
	return cmd
}

// verification is the result of "verify". Keys may be added and do not change.
type verification struct {
	Model  string          `json:"model"`
	Epochs []verifiedEpoch `json:"epochs"`
	// Damaged counts the files and manifests that are not whole.
	Damaged int `json:"damaged"`
}

// verifiedEpoch is what reading one epoch has shown.
type verifiedEpoch struct {
	Epoch ps.Epoch `json:"epoch"`
	Files int      `json:"files"`
	Rows  uint64   `json:"rows"`
	Bytes int64    `json:"bytes"`
	// Damage says what is wrong, a line for each file or for the manifest.
	Damage []string `json:"damage,omitempty"`
}

func newVerify(t *terminal) *cobra.Command {
	var address, model string
	var epoch uint64
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read epochs whole and check every byte",
		Long: `Reads the manifests and files of the epochs that can be restored, or of one of
them, and checks every checksum, length and hash. Ends with exit code 1 if
anything is damaged. This process must reach the bucket.`,
		Example: "  freshet verify --coordinator 127.0.0.1:7400\n  freshet verify --epoch 3 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := verifyEpochs(cmd.Context(), t, address, model, ps.Epoch(epoch))
			if err != nil {
				return err
			}
			if err := t.result(v, v.print); err != nil {
				return err
			}
			if v.Damaged > 0 {
				return fmt.Errorf("%d manifests or files are damaged", v.Damaged)
			}
			return nil
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().StringVar(&model, "model", "", "model (default: the only one there is)")
	cmd.Flags().Uint64Var(&epoch, "epoch", 0, "the epoch to read (default: all that can be restored)")
	return cmd
}

// print writes the verification for people.
func (v verification) print(w io.Writer) {
	for _, e := range v.Epochs {
		verdict := "whole"
		if len(e.Damage) > 0 {
			verdict = "DAMAGED"
		}
		fmt.Fprintf(w, "epoch %d: %s: %d files, %s rows, %s bytes\n", e.Epoch, verdict, e.Files, thousands(int64(e.Rows)), thousands(e.Bytes))
		for _, line := range e.Damage {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
}

// verifyEpochs reads one epoch, or all if number is 0.
func verifyEpochs(ctx context.Context, t *terminal, address, model string, number ps.Epoch) (v verification, err error) {
	list, err := listEpochs(ctx, address, model)
	if err != nil {
		return v, err
	}
	v = verification{Model: list.Model, Epochs: []verifiedEpoch{}}
	if len(list.Epochs) == 0 {
		return v, usageError{fmt.Errorf("model %s has no epoch yet (freshet checkpoint takes one)", list.Model)}
	}
	bucket, err := checkpoint.OpenBucket(ctx, list.Bucket)
	if err != nil {
		return v, err
	}
	defer bucket.Close()
	for _, e := range list.Epochs {
		if number != 0 && e.Epoch != number {
			continue
		}
		read, err := verifyEpoch(ctx, t, bucket, e)
		if err != nil {
			return v, err
		}
		v.Epochs = append(v.Epochs, read)
		v.Damaged += len(read.Damage)
	}
	if len(v.Epochs) == 0 {
		return v, usageError{fmt.Errorf("model %s keeps no epoch %d (see freshet epochs)", list.Model, number)}
	}
	return v, nil
}

// verifyEpoch reads one epoch. Damage is in the result; an error is the bucket's.
func verifyEpoch(ctx context.Context, t *terminal, bucket *checkpoint.Bucket, e coordinator.EpochStatus) (verifiedEpoch, error) {
	read := verifiedEpoch{Epoch: e.Epoch}
	m, err := checkpoint.ReadManifest(ctx, bucket, e.Manifest)
	if errors.Is(err, ps.ErrCorrupt) {
		read.Damage = append(read.Damage, plain(err))
		return read, nil
	}
	if err != nil {
		return read, err
	}
	for _, s := range m.Shards {
		for _, f := range s.Files {
			err := checkpoint.Verify(ctx, bucket, f)
			if errors.Is(err, ps.ErrCorrupt) {
				read.Damage = append(read.Damage, plain(err))
			} else if err != nil {
				return read, err
			}
			read.Files++
			read.Rows += f.Rows
			read.Bytes += f.Bytes
		}
		t.progress("epoch %d: %d of %d shards read", e.Epoch, s.Shard+1, len(m.Shards))
	}
	return read, nil
}
