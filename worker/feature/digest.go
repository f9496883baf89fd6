package feature

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/freshet-ml/freshet/worker/spec"
)

// extraction numbers the rules by which events become examples. It is part of every
// digest; a change of the rules raises it.
const extraction = 2

// Digest names what s makes of an event: specs with the same digest extract the same
// examples from the same stream. What is stored of extracted examples is stored under it.
func Digest(s *spec.Spec) ([sha256.Size]byte, error) {
	doc, err := json.Marshal(struct {
		Extraction  int
		Features    []spec.Feature
		Label       string
		Loss        string
		Seed        uint64
		Holdout     float64
		Constant    bool
		Fielded     bool
		Format      string
		Time        spec.Time
		Identifiers []string
	}{
		extraction, s.Features, s.Label.Column, s.Loss, s.Seed, s.Evaluation.Holdout,
		s.Network.Constant, s.Network.HasTower(), s.Stream.Format, s.Stream.Time, s.Stream.Identifiers,
	})
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("digest of features: %w", err)
	}
	return sha256.Sum256(doc), nil
}
