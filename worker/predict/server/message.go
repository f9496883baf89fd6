package server

import (
	"fmt"
	"time"

	predictv1 "github.com/freshet-ml/freshet/proto/freshet/predict/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/predict"
)

// Messages become words and words messages here. Words share the values of a message, and
// the parts of an answer are made as one piece of memory.

func columnWords(m []*predictv1.Column) []predict.Column {
	columns := make([]predict.Column, len(m))
	for i, c := range m {
		columns[i] = predict.Column{Name: c.GetName(), Values: c.GetValues()}
	}
	return columns
}

func predictWords(m *predictv1.PredictRequest) ([]predict.Column, error) {
	return columnWords(m.GetColumns()), nil
}

func explainWords(m *predictv1.ExplainRequest) ([]predict.Column, error) {
	return columnWords(m.GetColumns()), nil
}

func rankWords(m *predictv1.RankRequest) (predict.Rank, error) {
	r := predict.Rank{
		Context: columnWords(m.GetContext()), Candidates: columnWords(m.GetCandidates()), Top: int(m.GetTop()),
	}
	for i, f := range m.GetFilters() {
		words := predict.Filter{Column: f.GetColumn()}
		switch test := f.GetTest().(type) {
		case *predictv1.Filter_In:
			words.In = present(test.In.GetValues())
		case *predictv1.Filter_NotIn:
			words.NotIn = present(test.NotIn.GetValues())
		case *predictv1.Filter_AtLeast:
			words.AtLeast = &test.AtLeast
		case *predictv1.Filter_AtMost:
			words.AtMost = &test.AtMost
		default:
			return r, fmt.Errorf("filters: [%d]: %w", i, errTests)
		}
		r.Filters = append(r.Filters, words)
	}
	return r, nil
}

// errTests says that a filter has none of the tests, or several.
var errTests = fmt.Errorf("want one of in, not_in, at_least and at_most: %w", ps.ErrInvalid)

// present returns values that are not nil: no value is another test than none.
func present(values []string) []string {
	if values == nil {
		return []string{}
	}
	return values
}

func retrieveWords(m *predictv1.RetrieveRequest) (predict.Retrieve, error) {
	return retrieve(predict.Retrieve{
		Top: int(m.GetTop()), Context: columnWords(m.GetContext()), Vector: m.GetVector(), NotIn: m.GetNotIn(),
	})
}

// retrieve refuses what asks for nothing, which is a field that was forgotten, or with two
// queries.
func retrieve(r predict.Retrieve) (predict.Retrieve, error) {
	if r.Top == 0 {
		return r, fmt.Errorf("top: how many items to return is missing, or 0: %w", ps.ErrInvalid)
	}
	if len(r.Context) > 0 && len(r.Vector) > 0 {
		return r, fmt.Errorf("want a query's context or its vector, not both: %w", ps.ErrInvalid)
	}
	return r, nil
}

func servedMessage(s predict.Served) *predictv1.Served {
	m := &predictv1.Served{
		Version: s.Version, Parameters: s.Parameters, EventTime: s.EventTime, AgeMs: milliseconds(s.Age),
		Applied: make([]uint64, len(s.Applied)),
	}
	for p, offset := range s.Applied {
		m.Applied[p] = uint64(offset)
	}
	return m
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// fill makes m what p says.
func fill(m *predictv1.Prediction, p *predict.Prediction) {
	if p.Err != nil {
		m.Error = p.Err.Error()
		return
	}
	m.Score, m.Value = p.Score, p.Value
}

// messages returns n messages.
func messages[M any](n int) []*M {
	memory, all := make([]M, n), make([]*M, n)
	for i := range memory {
		all[i] = &memory[i]
	}
	return all
}

func predictMessage(predictions []predict.Prediction, served predict.Served) *predictv1.PredictResponse {
	m := &predictv1.PredictResponse{Predictions: messages[predictv1.Prediction](len(predictions)), Served: servedMessage(served)}
	for i := range predictions {
		fill(m.Predictions[i], &predictions[i])
	}
	return m
}

func rankMessage(r predict.Ranking, served predict.Served) *predictv1.RankResponse {
	m := &predictv1.RankResponse{
		Ranked: messages[predictv1.Ranked](len(r.Ranked)), Filtered: uint32(r.Filtered), Unusable: uint32(r.Unusable),
		Served: servedMessage(served),
	}
	for i, ranked := range r.Ranked {
		m.Ranked[i].Candidate, m.Ranked[i].Score, m.Ranked[i].Value = uint32(ranked.Candidate), ranked.Score, ranked.Value
	}
	return m
}

func retrieveMessage(items []predict.Retrieved, served predict.Served) *predictv1.RetrieveResponse {
	m := &predictv1.RetrieveResponse{Items: messages[predictv1.Retrieved](len(items)), Served: servedMessage(served)}
	for i, item := range items {
		m.Items[i].Item, m.Items[i].Score = item.Item, item.Score
	}
	return m
}

func explainMessage(e predict.Explanation, served predict.Served) *predictv1.ExplainResponse {
	m := &predictv1.ExplainResponse{
		Prediction: new(predictv1.Prediction), Features: messages[predictv1.FeatureContribution](len(e.Features)), Served: servedMessage(served),
	}
	fill(m.Prediction, &e.Prediction)
	for i, f := range e.Features {
		m.Features[i].Feature, m.Features[i].Contribution = f.Feature, f.Contribution
	}
	return m
}
