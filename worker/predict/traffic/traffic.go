// Package traffic lets several versions of one model answer its requests: each a share of
// them, to be compared with each other, or in the shadow, where a version is asked as well
// and nobody waits for what it says. It knows versions by name; what differs between them is
// the caller's.
//
// The one idea to keep in mind: which version answers is a function of the request's routing
// key alone, the same in every pod and after every restart, so that one session meets one
// version. When shares change, only keys whose share changes hands do.
package traffic

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/predict"
)

// Version is one of those that are served.
type Version struct {
	// Name tells it from the others, in metrics.
	Name        string
	Predictions predict.Predictions
	// Share is the part of the requests that it answers. 0 puts it into the shadow.
	Share float64
	// Said, if not nil, is told every prediction that the version has made of an event that
	// can be used. It is called by the request's goroutine, and should not block.
	Said func(value float64)
}

// Config is what a Split needs.
type Config struct {
	// Model names the model, in metrics.
	Model string
	// Versions have shares that add up to 1.
	Versions []Version
	// Metrics, if not nil, is told what the versions do.
	Metrics prometheus.Registerer
}

func (c *Config) validate() error {
	sum, names := 0.0, make(map[string]bool)
	for _, v := range c.Versions {
		if v.Name == "" || names[v.Name] || v.Predictions == nil {
			return fmt.Errorf("version %q is there twice, or without a name or predictions: %w", v.Name, ps.ErrInvalid)
		}
		names[v.Name] = true
		if !(v.Share >= 0 && v.Share <= 1) {
			return fmt.Errorf("version %q has %v of the requests: want 0 to 1: %w", v.Name, v.Share, ps.ErrInvalid)
		}
		sum += v.Share
	}
	if math.Abs(sum-1) > 1e-9 {
		return fmt.Errorf("versions have %v of the requests together: want 1: %w", sum, ps.ErrInvalid)
	}
	return nil
}

const (
	// shadowsMax is how many requests the versions in the shadow work on at a time. Beyond
	// them they miss some: nobody waits for them, and they must not take all processors.
	shadowsMax = 4
	// shadowTime bounds one of them.
	shadowTime = time.Second
)

// Split answers each request by one of several versions. It is safe for concurrent use.
type Split struct {
	config  Config
	ends    []float64 // of each version's part of [0, 1)
	shadows []int     // versions in the shadow
	working chan struct{}
	figures figures
}

var _ predict.Predictions = (*Split)(nil)

// New returns a split. It wraps ps.ErrInvalid.
func New(c Config) (*Split, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := &Split{config: c, working: make(chan struct{}, shadowsMax)}
	end := 0.0
	for i, v := range c.Versions {
		end += v.Share
		s.ends = append(s.ends, end)
		if v.Share == 0 {
			s.shadows = append(s.shadows, i)
		}
	}
	var err error
	s.figures, err = newFigures(c)
	return s, err
}

// choose returns the version that answers a request with a routing key. Requests without one
// are shared out at random.
func (s *Split) choose(key string) int {
	at := rand.Float64()
	if key != "" {
		hash := fnv.New64a()
		hash.Write([]byte(key))
		at = float64(ps.Mix(hash.Sum64())>>11) / (1 << 53)
	}
	last := 0
	for i, end := range s.ends {
		if s.config.Versions[i].Share == 0 {
			continue
		}
		if last = i; at < end {
			break
		}
	}
	return last // also where rounding makes the shares end before 1
}

// ask has a request answered by one version, and seen by those in the shadow.
func ask[A any](s *Split, ctx context.Context, method string, question func(context.Context, predict.Predictions) (A, predict.Served, error), values func(A) []float64) (A, predict.Served, error) {
	ask := func(ctx context.Context, i int) (A, predict.Served, error) {
		v, began := &s.config.Versions[i], time.Now()
		answer, served, err := question(ctx, v.Predictions)
		s.figures.answered(i, method, time.Since(began), err)
		if err == nil {
			for _, value := range values(answer) {
				s.figures.said[i].Observe(value)
				if v.Said != nil {
					v.Said(value)
				}
			}
		}
		return answer, served, err
	}
	for _, i := range s.shadows {
		select {
		case s.working <- struct{}{}:
		default:
			s.figures.missed[i].Inc()
			continue
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shadowTime)
		go func() { // ends by itself, within shadowTime
			defer func() {
				cancel()
				<-s.working
			}()
			_, _, _ = ask(ctx, i) // what it says is in the figures
		}()
	}
	return ask(ctx, s.choose(predict.KeyOf(ctx)))
}

// Predict implements predict.Predictions.
func (s *Split) Predict(ctx context.Context, columns []predict.Column) ([]predict.Prediction, predict.Served, error) {
	return ask(s, ctx, "predict", func(ctx context.Context, p predict.Predictions) ([]predict.Prediction, predict.Served, error) {
		return p.Predict(ctx, columns)
	}, func(predictions []predict.Prediction) []float64 {
		values := make([]float64, 0, len(predictions))
		for i := range predictions {
			if predictions[i].Err == nil {
				values = append(values, predictions[i].Value)
			}
		}
		return values
	})
}

// Rank implements predict.Predictions. Of candidates, those count as said that are returned.
func (s *Split) Rank(ctx context.Context, r predict.Rank) (predict.Ranking, predict.Served, error) {
	return ask(s, ctx, "rank", func(ctx context.Context, p predict.Predictions) (predict.Ranking, predict.Served, error) {
		return p.Rank(ctx, r)
	}, func(ranking predict.Ranking) []float64 {
		values := make([]float64, len(ranking.Ranked))
		for i := range ranking.Ranked {
			values[i] = ranking.Ranked[i].Value
		}
		return values
	})
}

// Retrieve implements predict.Predictions. Inner products are no predictions.
func (s *Split) Retrieve(ctx context.Context, r predict.Retrieve) ([]predict.Retrieved, predict.Served, error) {
	return ask(s, ctx, "retrieve", func(ctx context.Context, p predict.Predictions) ([]predict.Retrieved, predict.Served, error) {
		return p.Retrieve(ctx, r)
	}, func([]predict.Retrieved) []float64 { return nil })
}

// Explain implements predict.Predictions.
func (s *Split) Explain(ctx context.Context, columns []predict.Column) (predict.Explanation, predict.Served, error) {
	return ask(s, ctx, "explain", func(ctx context.Context, p predict.Predictions) (predict.Explanation, predict.Served, error) {
		return p.Explain(ctx, columns)
	}, func(e predict.Explanation) []float64 {
		if e.Err != nil {
			return nil
		}
		return []float64{e.Value}
	})
}
