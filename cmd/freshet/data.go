package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
)

func newStream(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "stream",
		Short:   "Make streams to learn from",
		Example: "  freshet stream generate --events 1000000 --out shop.csv",
	}
	cmd.AddCommand(newStreamGenerate(t), newStreamSend(t))
	return cmd
}

// generator writes a simulated stream.
type generator struct {
	shape string
	shop  examples.Shop // its events and seed are those of every shape
}

// write writes the stream's events.
func (g *generator) write(ctx context.Context, w io.Writer, progress func(int64)) (examples.Best, error) {
	if g.shape == examples.CriteoName {
		return examples.Criteo{Events: g.shop.Events, Seed: g.shop.Seed}.Write(ctx, w, progress)
	}
	return g.shop.Write(ctx, w, progress)
}

func (g *generator) validate() error {
	switch {
	case g.shape != examples.ShopName && g.shape != examples.CriteoName:
		return usageError{fmt.Errorf("--shape %q: want %s or %s", g.shape, examples.ShopName, examples.CriteoName)}
	case g.shape != examples.ShopName && (g.shop.Users != 0 || g.shop.Products != 0):
		return usageError{fmt.Errorf("--users and --products are a shop's, --shape %s has none", g.shape)}
	case g.shop.Events < 1:
		return usageError{fmt.Errorf("--events %d: want at least 1", g.shop.Events)}
	}
	return g.shop.Valid()
}

func newStreamGenerate(t *terminal) *cobra.Command {
	var g generator
	var out string
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Write the events of a simulated stream",
		Long: `Writes simulated events whose true click probabilities are known, and says what
the best possible model would reach on them. The same settings give the same
bytes. Shapes:

shop    A shop that changes all the time, as CSV, with a column
        click_probability that holds the true one; no feature may read it.
criteo  39 fields with the cardinalities of the Criteo display-advertising set,
        as Vowpal Wabbit text, in column f: what bench train learns.`,
		Example: `  freshet stream generate --events 1000000 --out shop.csv
  freshet stream generate --events 50000000 --out - | zstd > shop.csv.zst
  freshet stream generate --shape criteo --seed 42 --out criteo.vw`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if out == "" {
				return usageError{errors.New("give the file to write with --out (- for stdout)")}
			}
			w := t.stdout
			if out == "-" && t.json {
				return usageError{errors.New("stdout cannot hold both the events and a JSON document: write to a file")}
			}
			// Before the file, which may hold something: it is emptied.
			if err := g.validate(); err != nil {
				return err
			}
			if out != "-" {
				file, createErr := os.Create(out)
				if createErr != nil {
					return usageError{fmt.Errorf("--out: %w", createErr)}
				}
				defer func() {
					if err = errors.Join(err, file.Close()); err != nil {
						removePart(out)
					}
				}()
				w = file
			}
			buffered := bufio.NewWriterSize(w, 1<<20)
			total := thousands(g.shop.Events)
			b, err := g.write(cmd.Context(), buffered, func(n int64) { t.progress("%s of %s events", thousands(n), total) })
			if err != nil {
				return err
			}
			if err := buffered.Flush(); err != nil {
				return err
			}
			summary := map[string]any{
				"events": b.Events, "clicks": b.Clicks, "average": map[string]float64{"log_loss": b.Average},
				"best": best{LogLoss: b.LogLoss, AUC: b.AUC}, "file": out,
			}
			if out == "-" {
				t.note("%s events, best possible log loss %.4f, always the average %.4f", thousands(b.Events), b.LogLoss, b.Average)
				return nil
			}
			return t.result(summary, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %s events, %s clicks\nlog loss: best possible %.4f (AUC %.4f), always the average %.4f\n",
					out, thousands(b.Events), thousands(b.Clicks), b.LogLoss, b.AUC, b.Average)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&out, "out", "", "file to write; - for stdout")
	flags.StringVar(&g.shape, "shape", examples.ShopName, "what is simulated: shop or criteo")
	flags.Int64Var(&g.shop.Events, "events", 1_000_000, "number of events")
	flags.Uint64Var(&g.shop.Seed, "seed", 1, "decides everything that is drawn")
	flags.IntVar(&g.shop.Users, "users", 0, "shop: number of users (default 10,000)")
	flags.IntVar(&g.shop.Products, "products", 0, "shop: products listed at a time (default 2,400)")
	return cmd
}

// removePart removes a file that holds only a part of what was to be in it, so that
// nobody takes it for the whole. Devices and pipes stay.
func removePart(path string) {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		_ = os.Remove(path) // why it is only a part has been said
	}
}

func newData(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "data",
		Short:   "Show the examples there are data for",
		Example: "  freshet data list",
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the examples that up can learn",
		Example: "  freshet data list -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			type entry struct {
				Name        string `json:"name"`
				Description string `json:"description"`
				Command     string `json:"command"`
			}
			commands := map[string]string{
				examples.ShopName:     "freshet up --example shop --events 1000000 --until-end",
				examples.KuairandName: "freshet up --example kuairand --data DIR --until-end",
			}
			var list []entry
			for _, name := range examples.Names() {
				description, err := examples.Describe(name)
				if err != nil {
					return err
				}
				list = append(list, entry{name, description, commands[name]})
			}
			return t.result(list, func(w io.Writer) {
				for _, e := range list {
					fmt.Fprintf(w, "%s: %s\n    %s\n", e.Name, e.Description, e.Command)
				}
			})
		},
	})
	return cmd
}
