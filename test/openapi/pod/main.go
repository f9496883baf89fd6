// Command pod serves a model that is worked out by hand over HTTP, for clients that are to
// find what a pod does not bear. It prints its address, and ends when its input does.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/predict/predicttest"
	"github.com/freshet-ml/freshet/worker/predict/server"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	served := predict.Served{Version: 3, Fresh: predict.Fresh{
		Parameters: "live", Applied: []ps.Offset{120_400, 119_872}, EventTime: 1764547200000, Age: 12500 * time.Microsecond,
	}}
	models := []server.Model{{
		Name: "clicks", Predictions: &predicttest.Model{Served: served},
		Served: func() (predict.Served, error) { return served, nil },
	}}
	pod, err := server.New(server.Config{
		Models: func() []server.Model { return models }, Status: wire.ToStatus, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: pod.Handler(), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		_ = s.Close()
		ended <- err
	}()
	fmt.Println(listener.Addr())
	if err := s.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return <-ended
}
