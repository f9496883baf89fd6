package scaler

// White-box because a look's time is an argument of take only: ten minutes have to pass.

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/proto/externalscaler"
)

func TestWhatNobodyAsksForIsForgotten(t *testing.T) {
	registry := prometheus.NewRegistry()
	s, err := New(Config{
		Status: func(context.Context) (coordinator.Status, error) { return coordinator.Status{}, nil },
		Logger: slog.New(slog.DiscardHandler), Metrics: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(catchUp int) error {
		_, err := s.IsActive(t.Context(), &externalscaler.ScaledObjectRef{
			ScalerMetadata: map[string]string{metaModel: "shop", metaCatchUp: fmt.Sprint(catchUp)},
		})
		return err
	}
	if err := ask(60); status.Code(err) != codes.Unavailable {
		t.Errorf("before the first look: %v, want Unavailable", err)
	}
	shop := coordinator.Status{Models: []coordinator.ModelStatus{{
		Name: "shop", Partitions: []coordinator.PartitionStatus{{Applied: 5, End: 5, EndKnown: true}},
	}}}
	now := time.Now()
	s.take(shop, now)
	for i := range askedMax {
		if err := ask(100 + i); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(60); err != nil {
		t.Errorf("the usual targets, with as many others as there may be: %v", err)
	}
	if err := ask(99); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more than there may be: %v, want ResourceExhausted", err)
	}
	s.take(shop, now.Add(forgetAfter/2))
	if len(s.models) != askedMax+1 {
		t.Errorf("%d decisions are kept after half the time, want %d", len(s.models), askedMax+1)
	}
	s.take(shop, now.Add(forgetAfter+time.Minute))
	if len(s.models) != 1 || len(s.now) != 1 || len(s.askedAt) != 0 {
		t.Errorf("%d decisions, %d figures, %d times are kept, want those of the usual targets only", len(s.models), len(s.now), len(s.askedAt))
	}
	if err := ask(99); err != nil {
		t.Errorf("where there is room again: %v", err)
	}

	// Of a model that is gone nothing stays, least of all a number for an autoscaler.
	s.take(coordinator.Status{}, now.Add(2*forgetAfter))
	if len(s.models)+len(s.now)+len(s.known)+len(s.askedAt) != 0 {
		t.Errorf("of a model that is gone there are %d decisions, %d figures, %d looks", len(s.models), len(s.now), len(s.known))
	}
	if families, err := registry.Gather(); err != nil || len(families) != 0 {
		t.Errorf("metrics of a model that is gone: %v (%v)", families, err)
	}
}
