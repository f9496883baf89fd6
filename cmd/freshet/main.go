// Command freshet is Freshet: every role of a cluster, the cluster in one process,
// and the commands of whoever operates it.
//
// Only this package reads flags, the environment and settings files, opens
// listeners and decides what goes to the terminal. What the roles do is in the
// packages it wires together.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // specs name zones, and a bare container has no zone database

	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "unknown"

func main() {
	useProduct(productFreshet)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit code. The first interrupt lets
// the command end in order, a second one ends the process at once.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	return runContext(ctx, args, stdout, stderr)
}

// runContext is run with what interrupts it.
func runContext(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	t := newTerminal(stdout, stderr)
	root := newRoot(t)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	t.endLine()
	if err == nil {
		return 0
	}
	code := exitCode(err)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		code, err = exitInterrupted, errors.New("interrupted")
	}
	fmt.Fprintf(stderr, "freshet: %s\n", plain(err))
	return code
}

// untilStopped returns what a role ended with: to be interrupted is how it ends.
func untilStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// newRoot returns the command tree.
func newRoot(t *terminal) *cobra.Command {
	root := &cobra.Command{
		Use:   "freshet",
		Short: "Keeps recommendation and search models fresh",
		Long: `Freshet is a distributed parameter server that learns from a behaviour stream
while it happens, and applies every event exactly once.

Every flag can also be set by the environment (--until-end is FRESHET_UNTIL_END)
or in a YAML file given by --config (until-end: true). A flag wins over the
environment, and the environment over the file.

Exit codes:
    0  done; what serves until it is interrupted ends with 0, too
    1  failed, or an audit is not clean
    2  wrong usage, or wrong or damaged input
    3  something cannot be reached or had right now
    4  the cluster is not in the state that this needs
  130  interrupted before it was done`,
		Example: `  freshet up --example shop --events 1000000 --until-end

  # Your own events:
  freshet model init --from events.csv --time ts --label clicked \
      --user uid --item sku > model.yaml
  freshet up model.yaml --stream file:///path/to/events.csv`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := layerSettings(cmd); err != nil {
				return usageError{err}
			}
			return t.configure(cmd)
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", flagError(err), cmd.CommandPath())}
	})
	root.SetVersionTemplate("freshet {{.Version}}\n")
	root.SetUsageTemplate(strings.NewReplacer(
		"FlagUsages ", "FlagUsagesWrapped 80 ",
		"{{if .Runnable}}", "{{if not .HasAvailableSubCommands}}", // a group of commands is no command
	).Replace(root.UsageTemplate()))
	flags := root.PersistentFlags()
	flags.StringP("output", "o", "text", "what stdout gets: text or json (one document)")
	flags.String("log-level", "", "debug, info, warn or error (default: info for roles, warn for the rest)")
	flags.String("config", "", "YAML file with settings, by flag name")
	root.AddCommand(
		newUp(t), newCoordinator(t), newPS(t), newWorker(t),
		newModel(t), newPredict(t), newServe(t), newStatus(t), newShards(t), newPartitions(t), newWorkers(t), newTop(t), newEvents(t),
		newMove(t), newDrain(t), newRebalance(t), newAudit(t),
		newCheckpoint(t), newEpochs(t), newRollback(t), newVerify(t),
		newStream(t), newData(t), newExport(t), newImport(t), newSink(t), newBench(t), newVersion(t),
	)
	strictArguments(root)
	return root
}

// strictArguments makes every command refuse arguments in a way that is usage.
func strictArguments(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if check(cmd, args) == nil {
				return nil
			}
			got := "an argument is missing"
			if len(args) > 0 {
				got = fmt.Sprintf("cannot make sense of the arguments %q", args)
			}
			return usageError{fmt.Errorf("%s; want %s (see %s --help)", got, cmd.UseLine(), cmd.CommandPath())}
		}
	}
	if !cmd.Runnable() {
		cmd.SuggestionsMinimumDistance = 2 // edits
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			meant := ""
			if names := cmd.SuggestionsFor(args[0]); len(names) > 0 {
				meant = fmt.Sprintf("; did you mean %s?", strings.Join(names, " or "))
			}
			return usageError{fmt.Errorf("unknown command %q for %q%s (see %s --help)", args[0], cmd.CommandPath(), meant, cmd.CommandPath())}
		}
	}
	for _, sub := range cmd.Commands() {
		strictArguments(sub)
	}
}

func newVersion(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  freshet version -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return t.result(map[string]string{"version": version}, func(w io.Writer) {
				fmt.Fprintf(w, "freshet %s\n", version)
			})
		},
	}
}
