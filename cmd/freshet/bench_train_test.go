package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTrainingIsMeasuredAndLosesNothing(t *testing.T) {
	processes(t)
	data := t.TempDir()
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	for _, network := range trainNetworkNames() {
		t.Run(network, func(t *testing.T) {
			profiles := t.TempDir()
			code, out, stderr := freshet(t, "bench", "train", "--network", network, "--examples", "4000", "--data", data,
				"--passes", "2", "--in-flight", "64", "--checkpoint-every", "200ms", "--cpuprofile", profiles, "-o", "json")
			var r trainReport
			if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
				t.Fatalf("exit code %d, %v\n%s%s", code, err, out, stderr)
			}
			if r.Examples != 8000 || r.Network != network || r.InFlight != 64 || r.Passes != 2 {
				t.Errorf("%+v: want 8,000 examples of %s, 64 in flight, 2 passes", r, network)
			}
			if r.LogLoss == nil || *r.LogLoss < 0.4 || *r.LogLoss > 0.6 {
				t.Errorf("log loss %s, want 0.4 to 0.6", figure5(r.LogLoss))
			}
			if r.AUC == nil || *r.AUC < 0.55 || *r.AUC > 0.95 {
				t.Errorf("AUC %s, want 0.55 to 0.95", figure5(r.AUC))
			}
			if !r.Audit.Clean() || r.Audit.Events != 8000 {
				t.Errorf("audit %+v, want 8,000 events, none lost or doubled", r.Audit)
			}
			for _, test := range []struct{ path, want []string }{
				{nil, []string{
					"examples", "seconds", "examples_per_second", "examples_per_worker_cpu_second", "examples_per_server_cpu_second",
					"log_loss", "auc", "network", "in_flight", "audit",
				}},
				{[]string{"audit"}, []string{"lost", "doubled"}},
			} {
				got := keys(t, []byte(out), test.path...)
				for _, key := range test.want {
					if !slices.Contains(got, key) {
						t.Errorf("%v has the keys %v, want also %s", test.path, got, key)
					}
				}
			}
			for _, name := range []string{"ps-0.pprof", "worker-0.pprof"} {
				if info, err := os.Stat(filepath.Join(profiles, name)); err != nil || info.Size() == 0 {
					t.Errorf("profile %s: %v, want one that is not empty", name, err)
				}
			}
		})
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	if made, err := os.ReadDir(data); err != nil || len(made) != 1 || made[0].Name() != "criteo-4000-42.vw" {
		t.Errorf("streams kept: %v (%v), want one, made once", made, err)
	}
}

func TestMemoryIsMeasuredPerRow(t *testing.T) {
	processes(t)
	code, out, stderr := freshet(t, "bench", "memory", "--rows", "100000", "--width", "16", "--optimizer", "sgd", "--shards", "4", "-o", "json")
	var r memoryReport
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, stderr)
	}
	if r.Rows != 100_000 || r.Width != 16 || r.Optimizer != "sgd" || r.Shards != 4 {
		t.Errorf("inputs %+v, want those of the flags", r)
	}
	// A value has 64 bytes; what few rows take beside them is mostly the process's.
	if r.BytesPerRow < 64 || r.BytesPerRow > 1000 {
		t.Errorf("%v bytes a row, want 64 to 1,000", r.BytesPerRow)
	}
}

func TestAProcessIsSeenToUseWhatItSaysItself(t *testing.T) {
	own, err := ownUsage()
	if err != nil {
		t.Fatal(err)
	}
	seen, err := processUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	later, err := ownUsage()
	if err != nil {
		t.Fatal(err)
	}
	if seen.CPU < own.CPU-0.02 || seen.CPU > later.CPU+0.02 {
		t.Errorf("%v CPU-seconds are seen, want %v to %v", seen.CPU, own.CPU, later.CPU)
	}
	if low, high := own.Resident/2, 2*own.Resident; seen.Resident < low || seen.Resident > high {
		t.Errorf("%d resident bytes are seen, want about %d", seen.Resident, own.Resident)
	}
}
