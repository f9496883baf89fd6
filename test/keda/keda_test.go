// Package keda drives a coordinator's external scaler with KEDA's own client. It is a module
// of its own, so that the product links nothing of KEDA.
package keda

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const spec = `
model: clicks
stream: {format: csv, partitions: 4, partition_by: user, identifiers: [user]}
label: {column: clicked}
features: [{name: user, column: user}, {name: item, column: item}]
`

// up starts a whole cluster that learns a file slowly, and returns its coordinator's address.
func up(t *testing.T) string {
	t.Helper()
	program := os.Getenv("FRESHET_BIN")
	if program == "" {
		t.Skip("FRESHET_BIN does not name the program (make keda sets it)")
	}
	dir := t.TempDir()
	var events bytes.Buffer
	events.WriteString("user,item,clicked\n")
	for i := range 20_000 {
		fmt.Fprintf(&events, "u%d,i%d,%d\n", i%700, i%50, i%3/2)
	}
	for name, content := range map[string][]byte{"clicks.csv": events.Bytes(), "clicks.yaml": []byte(spec)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	cluster := exec.Command(program, "up", filepath.Join(dir, "clicks.yaml"), "--stream", "file://"+filepath.Join(dir, "clicks.csv"),
		"--dir", filepath.Join(dir, "state"), "--listen", address, "--rate", "2000", "--shards", "16")
	var log bytes.Buffer
	cluster.Stdout, cluster.Stderr = &log, &log
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cluster.Process.Signal(syscall.SIGTERM)
		if err := cluster.Wait(); err != nil || t.Failed() {
			t.Errorf("the cluster ended with %v:\n%s", err, log.String())
		}
	})
	return address
}

func TestKEDAsClientIsAnswered(t *testing.T) {
	conn, err := grpc.NewClient(up(t), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewExternalScalerClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ref := &pb.ScaledObjectRef{Name: "workers", Namespace: "shop", ScalerMetadata: map[string]string{"scalerAddress": "freshet:7400", "model": "clicks"}}

	stream, err := client.StreamIsActive(ctx, ref, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || !first.GetResult() {
		t.Fatalf("the stream begins with %v (%v), want active", first, err)
	}
	if active, err := client.IsActive(ctx, ref); err != nil || !active.GetResult() {
		t.Errorf("active: %v (%v)", active, err)
	}
	specs, err := client.GetMetricSpec(ctx, ref)
	if err != nil || len(specs.GetMetricSpecs()) != 1 || specs.GetMetricSpecs()[0].GetTargetSizeFloat() != 1 {
		t.Fatalf("metric specs: %v (%v), want one with a target of 1", specs, err)
	}
	name := specs.GetMetricSpecs()[0].GetMetricName()
	values, err := client.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: ref, MetricName: name})
	if err != nil || len(values.GetMetricValues()) != 1 || values.GetMetricValues()[0].GetMetricName() != name ||
		values.GetMetricValues()[0].GetMetricValueFloat() < 1 || values.GetMetricValues()[0].GetMetricValueFloat() > 4 {
		t.Errorf("metrics: %v (%v), want one value of 1 to 4 workers", values, err)
	}
	// When all is learned, KEDA may scale to none.
	if second, err := stream.Recv(); err != nil || second.GetResult() {
		t.Errorf("the stream goes on with %v (%v), want not active at the end of the file", second, err)
	}
	// What newer versions of KEDA try is refused as it is by scalers that do not know it.
	newer, err := client.StreamMetricSpec(ctx, ref)
	if err == nil {
		_, err = newer.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("StreamMetricSpec: %v, want Unimplemented, by which KEDA falls back", err)
	}
	bad := &pb.ScaledObjectRef{Name: "workers", ScalerMetadata: map[string]string{"model": "clicks", "targetUtilisation": "high"}}
	if _, err := client.IsActive(ctx, bad); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "targetUtilisation") {
		t.Errorf("a word for a number: %v, want InvalidArgument with the name", err)
	}
	if doc, err := json.Marshal(values); err == nil {
		t.Logf("KEDA is told %s", doc)
	}
}
