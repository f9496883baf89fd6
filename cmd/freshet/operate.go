package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/freshet-ml/freshet/coordinator"
	coordinatorserver "github.com/freshet-ml/freshet/coordinator/server"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
)

// adminMax bounds a call to a coordinator and the wait for a shard map.
const adminMax = 10 * time.Second

func addCoordinatorFlag(cmd *cobra.Command, address *string) {
	cmd.Flags().StringVar(address, "coordinator", "127.0.0.1:7400", "host:port of a coordinator")
}

// admin is a client of a coordinator with its connection.
type admin struct {
	*coordinatorserver.Client
	conn *grpc.ClientConn
}

// dialAdmin returns a client of a coordinator; its first call connects.
func dialAdmin(address string) (*admin, error) {
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return nil, usageError{fmt.Errorf("--coordinator %q: want host:port, such as 127.0.0.1:7400", address)}
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, usageError{fmt.Errorf("--coordinator %q: %w", address, err)}
	}
	return &admin{coordinatorserver.NewClient(conn), conn}, nil
}

func (a *admin) Close() error { return a.conn.Close() }

// asked returns what a call to a coordinator failed with, and what to do about it.
func asked(address string, err error) error {
	if isAny(err, ps.ErrUnavailable, context.DeadlineExceeded) {
		return fmt.Errorf("coordinator at %s: %w; is freshet up or freshet coordinator running there? say where with --coordinator", address, err)
	}
	return fmt.Errorf("coordinator at %s: %w", address, err)
}

// ask asks a coordinator one question, for at most so long.
func ask[T any](ctx context.Context, address string, most time.Duration, question func(context.Context, *admin) (T, error)) (answer T, err error) {
	a, err := dialAdmin(address)
	if err != nil {
		return answer, err
	}
	defer a.Close()
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if answer, err = question(ctx, a); err != nil {
		return answer, asked(address, err)
	}
	return answer, nil
}

// cluster is a command's view of a running cluster and one of its models.
type cluster struct {
	admin  *admin
	client *client.Client
	model  coordinator.Model
	spec   *spec.Spec
	shards int
}

// openCluster reaches a cluster through a coordinator and reads a model.
func openCluster(ctx context.Context, t *terminal, address, model string) (c *cluster, err error) {
	c = &cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.admin, err = dialAdmin(address); err != nil {
		return c, err
	}
	ctx, cancel := context.WithTimeout(ctx, adminMax)
	defer cancel()
	if c.model, err = c.admin.Model(ctx, model); err != nil {
		return c, asked(address, err)
	}
	if c.spec, err = spec.Parse("spec of model "+c.model.Name, c.model.Spec); err != nil {
		return c, err
	}
	routes, err := client.Addresses(t.logger, nil, address)
	if err != nil {
		return c, err
	}
	if c.client, err = client.Dial(ctx, client.Config{Routes: routes, Logger: t.logger}); err != nil {
		return c, err
	}
	m, err := c.client.Map(ctx, 0)
	if err != nil {
		return c, asked(address, err)
	}
	c.shards = len(m.Shards)
	return c, nil
}

// Close ends both connections.
func (c *cluster) Close() error {
	var err error
	if c.client != nil {
		err = c.client.Close()
	}
	if c.admin != nil {
		err = errors.Join(err, c.admin.Close())
	}
	return err
}

func newStatus(t *terminal) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show nodes, workers, models and how far each partition is",
		Example: "  freshet status --coordinator 127.0.0.1:7400 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := ask(cmd.Context(), address, adminMax, func(ctx context.Context, a *admin) (coordinator.Status, error) {
				return a.Status(ctx)
			})
			if err != nil {
				return err
			}
			return t.result(status, func(w io.Writer) { printStatus(w, status) })
		},
	}
	addCoordinatorFlag(cmd, &address)
	return cmd
}

// printStatus writes a cluster's status for people.
func printStatus(w io.Writer, s coordinator.Status) {
	fmt.Fprintf(w, "cluster %s: %d shards, %d without an owner, map version %d\n", s.Cluster, s.Shards, s.ShardsWithoutOwner, s.MapVersion)
	if len(s.Nodes) == 0 {
		fmt.Fprintln(w, "  no nodes (freshet ps)")
	}
	for _, n := range s.Nodes {
		copies := ""
		if n.Copies > 0 {
			copies = fmt.Sprintf(", copies of %d", n.Copies)
		}
		if n.Arriving > 0 {
			copies += fmt.Sprintf(", %d arriving", n.Arriving)
		}
		if n.Draining {
			copies += ", draining"
		}
		fmt.Fprintf(w, "  node    %-26s %-22s %d shards%s\n", n.ID, n.Address, n.Shards, copies)
	}
	for _, worker := range s.Workers {
		fmt.Fprintf(w, "  worker  %-26s %-22s partitions %v\n", worker.ID, worker.Model, worker.Partitions)
	}
	if len(s.Workers) == 0 {
		fmt.Fprintln(w, "  no workers that have a model (freshet worker)")
	}
	if len(s.Models) == 0 {
		fmt.Fprintln(w, "no models (freshet model apply)")
	}
	for _, m := range s.Models {
		fmt.Fprintf(w, "\nmodel %s, version %d: %s rows, assignment %d\n  stream %s\n", m.Name, m.Version, thousands(int64(m.Rows)), m.Generation, m.Stream)
		printPartitions(w, m)
	}
}

func newAudit(t *terminal) *cobra.Command {
	var address, model, url, secretFile string
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Prove that every event was applied exactly once",
		Long: `Reads a model's stream once from its start, works out which events should have
contributed to which shard, and compares with the fingerprints that the shards
keep. Learning goes on meanwhile. Ends with exit code 1 if anything was lost or
doubled.`,
		Example: `  freshet audit --coordinator 127.0.0.1:7400 --secret-file dir/secret \
      --stream file:///data/events.csv -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			secret, err := readSecret(secretFile)
			if err != nil {
				return err
			}
			c, err := openCluster(ctx, t, address, model)
			if err != nil {
				return err
			}
			defer c.Close()
			source, err := openStream(ctx, opening{
				spec: c.spec, url: url, columns: feature.Columns(c.spec), secret: secret, known: c.model.Stream, bounded: true, logger: t.logger,
			})
			if err != nil {
				return err
			}
			defer source.Close()
			if err := sameStream(c.model, source.Identity()); err != nil {
				return err
			}
			asking, cancel := context.WithTimeout(ctx, adminMax)
			defer cancel()
			progress, err := c.client.Applied(asking, c.model.Name)
			if err != nil {
				return err
			}
			report, err := audit.Run(ctx, audit.Config{
				Spec: c.spec, Source: source, Progress: progress,
				Read: func(n int64) { t.progress("auditing: %s of about %s events", thousands(n), thousands(source.Size())) },
			})
			if err != nil {
				return err
			}
			if err := t.result(report, func(w io.Writer) { printAudit(w, report) }); err != nil {
				return err
			}
			if !report.Clean() {
				return errNotClean
			}
			return nil
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().StringVar(&model, "model", "", "model to audit (default: the only one there is)")
	cmd.Flags().StringVar(&url, "stream", "", "stream URL, in place of the spec's")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the secret that masks identifiers (up keeps it in its directory)")
	return cmd
}
