package main

import (
	"context"
	"strconv"
)

// storePart compares pulls and pushes with Redis.
func storePart(s *settings) *part {
	var server *redis
	p := &part{name: "redis"}
	p.prepare = func(ctx context.Context) (err error) {
		if err = installRedis(ctx); err == nil {
			server, err = startRedis(ctx, s.work, s.rows)
		}
		return err
	}
	p.end = func() error {
		if server == nil {
			return nil
		}
		return server.close()
	}
	p.peer = func(context.Context) (figures, error) { return measureRedis(s, server) }
	p.own = func(ctx context.Context) (figures, error) { return measureStore(ctx, s) }
	const of = " against Redis "
	p.goals = []goal{
		{"pull, keys per server CPU-second," + of + "MGET", "mget_cpu", "pull_cpu", moreBy, 15},
		{"pull, keys per second," + of + "MGET", "mget", "pull", moreBy, 8},
		{"pull of 512 keys one at a time, p50 µs," + of + "MGET", "mget_p50", "pull_p50", lessBy, 5},
		{"push with AdaGrad, keys per server CPU-second," + of + "MSET", "mset_cpu", "push_cpu", moreBy, 20},
		{"the same," + of + "adding in Lua", "lua_cpu", "push_cpu", moreBy, 50},
	}
	return p
}

// fewKeys is how many keys a pull has whose latency is compared.
const fewKeys = 512

func measureRedis(s *settings, r *redis) (f figures, err error) {
	f = figures{}
	pull, set, add := command{mget, r.rowsOf}, command{mset, r.status}, command{r.evalsha, r.number}
	if f["mget"], f["mget_cpu"], err = r.rate(pull, s.keys, s.pipeline, s.seconds); err != nil {
		return nil, err
	}
	if f["mset"], f["mset_cpu"], err = r.rate(set, s.keys, s.pipeline, s.seconds); err != nil {
		return nil, err
	}
	if f["lua"], f["lua_cpu"], err = r.rate(add, s.keys, s.pipeline, s.seconds); err != nil {
		return nil, err
	}
	f["mget_p50"], err = r.latency(pull, fewKeys, s.seconds)
	return f, err
}

// storeDocument is what is read of "freshet bench store -o json".
type storeDocument struct {
	Pull, Push struct {
		KeysPerSecond          float64 `json:"keys_per_second"`
		KeysPerServerCPUSecond float64 `json:"keys_per_server_cpu_second"`
		P50                    float64 `json:"p50_us"`
	}
}

func measureStore(ctx context.Context, s *settings) (figures, error) {
	many, err := s.store(ctx, s.rows, s.keys, s.inFlight, 1, 1)
	if err != nil {
		return nil, err
	}
	few, err := s.store(ctx, s.rows, fewKeys, 1, 1, 1)
	if err != nil {
		return nil, err
	}
	return figures{
		"pull": many.Pull.KeysPerSecond, "pull_cpu": many.Pull.KeysPerServerCPUSecond, "pull_p50": few.Pull.P50,
		"push": many.Push.KeysPerSecond, "push_cpu": many.Push.KeysPerServerCPUSecond,
	}, nil
}

// store runs "freshet bench store" with AdaGrad.
func (s *settings) store(ctx context.Context, rows, keys, inFlight, clients, nodes int) (d storeDocument, err error) {
	err = s.bench(ctx, &d, "store", "--rows", strconv.Itoa(rows), "--width", strconv.Itoa(width), "--optimizer", "adagrad",
		"--keys", strconv.Itoa(keys), "--in-flight", strconv.Itoa(inFlight), "--clients", strconv.Itoa(clients), "--nodes", strconv.Itoa(nodes),
		"--seconds", strconv.FormatFloat(s.seconds, 'g', -1, 64))
	return d, err
}

// memoryPart holds what a row takes against fixed goals: memory does not drift.
func memoryPart(s *settings) *part {
	tables := []struct {
		work, optimizer string
		width           int
		limit           float64
	}{
		{"bytes a row of 16 floats takes", "sgd", width, 100},
		{"with AdaGrad", "adagrad", width, 170},
		{"bytes a float with FTRL takes", "ftrl", 1, 36},
	}
	p := &part{name: "memory", once: true}
	p.own = func(ctx context.Context) (figures, error) {
		f := figures{}
		for _, t := range tables {
			var d struct {
				BytesPerRow float64 `json:"bytes_per_row"`
			}
			if err := s.bench(ctx, &d, "memory", "--rows", strconv.Itoa(s.memory), "--width", strconv.Itoa(t.width), "--optimizer", t.optimizer); err != nil {
				return nil, err
			}
			f[t.optimizer] = d.BytesPerRow
		}
		return f, nil
	}
	for _, t := range tables {
		p.goals = append(p.goals, goal{t.work, "", t.optimizer, atMost, t.limit})
	}
	return p
}
