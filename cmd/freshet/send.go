package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/stream/kafka"
)

// kafkaHelp says what the environment says.
const kafkaHelp = `Brokers are reached as the environment says: FRESHET_KAFKA_TLS, _CA,
_CERTIFICATE and _KEY (files in PEM), _SASL (plain, scram-sha-256 or
scram-sha-512), _USER and _PASSWORD_FILE.`

func newStreamSend(t *terminal) *cobra.Command {
	var to, key string
	cmd := &cobra.Command{
		Use:   "send FILE",
		Short: "Send the rows of a CSV file to a topic of Kafka, as JSON",
		Long: `Each row becomes an object with the texts of its columns; empty ones are left
out. Rows of a partition keep their order. The topic has to be there.

` + kafkaHelp,
		Example: `  freshet stream send clicks.csv --to kafka://127.0.0.1:9092/clicks --key uid
  freshet stream send clicks.csv.zst --to kafka://b1:9092,b2:9092/clicks`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usageError{errors.New("say where to with --to kafka://broker:9092/topic")}
			}
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			rows := io.Reader(file)
			if strings.HasSuffix(args[0], ".zst") {
				plain, err := zstd.NewReader(file)
				if err != nil {
					return err
				}
				defer plain.Close()
				rows = plain
			}
			began := time.Now()
			n, err := kafka.Send(cmd.Context(), kafka.SendConfig{URL: to, Auth: kafkaAuth(), Key: key, Sent: func(n int64) { t.progress("%s rows sent", thousands(n)) }}, rows)
			if errors.Is(err, ps.ErrInvalid) {
				err = usageError{err}
			}
			if err != nil {
				return fmt.Errorf("%w (brokers have %s rows)", err, thousands(n))
			}
			seconds := time.Since(began).Seconds()
			return t.result(map[string]any{"rows": n, "seconds": seconds}, func(w io.Writer) {
				fmt.Fprintf(w, "%s rows sent in %.1f s\n", thousands(n), seconds)
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the topic: kafka://host:port,host:port/topic")
	cmd.Flags().StringVar(&key, "key", "", "column whose text chooses the partition (default: rows are spread)")
	return cmd
}
