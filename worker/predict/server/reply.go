package server

import (
	"bytes"
	"encoding/json"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/predict"
)

// Answers become documents here, with the fields of the messages, all of them present but
// those of an error. A number that is not finite cannot be written: encoding/json refuses
// it, and the request has failed.

type predictReply struct {
	Predictions []prediction `json:"predictions"`
	Served      served       `json:"served"`
}

type prediction struct {
	Score float32 `json:"score"`
	Value float64 `json:"value"`
	Error string  `json:"error,omitempty"`
}

type served struct {
	Version    uint64      `json:"version"`
	Parameters string      `json:"parameters"`
	Applied    []ps.Offset `json:"applied"`
	EventTime  int64       `json:"event_time"`
	AgeMs      float64     `json:"age_ms"`
}

type rankReply struct {
	Ranked   []ranked `json:"ranked"`
	Filtered int      `json:"filtered"`
	Unusable int      `json:"unusable"`
	Served   served   `json:"served"`
}

type ranked struct {
	Candidate int     `json:"candidate"`
	Score     float32 `json:"score"`
	Value     float64 `json:"value"`
}

type retrieveReply struct {
	Items  []retrieved `json:"items"`
	Served served      `json:"served"`
}

type retrieved struct {
	Item  string  `json:"item"`
	Score float32 `json:"score"`
}

type explainReply struct {
	Prediction prediction            `json:"prediction"`
	Features   []featureContribution `json:"features"`
	Served     served                `json:"served"`
}

type featureContribution struct {
	Feature      string  `json:"feature"`
	Contribution float32 `json:"contribution"`
}

type modelsReply struct {
	Models []modelReply `json:"models"`
}

// modelReply has either what a model is served from or why it is not.
type modelReply struct {
	Name   string  `json:"name"`
	Served *served `json:"served,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// problem is a refusal as RFC 9457 has it. Its type is about:blank: what is particular is in
// the reason.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Reason string `json:"reason"`
}

func servedReply(s predict.Served) served {
	r := served{Version: s.Version, Parameters: s.Parameters, Applied: s.Applied, EventTime: s.EventTime, AgeMs: milliseconds(s.Age)}
	if r.Applied == nil {
		r.Applied = []ps.Offset{}
	}
	return r
}

func predictionReply(p *predict.Prediction) prediction {
	if p.Err != nil {
		return prediction{Error: p.Err.Error()}
	}
	return prediction{Score: p.Score, Value: p.Value}
}

func newPredictReply(predictions []predict.Prediction, s predict.Served) any {
	r := predictReply{Predictions: make([]prediction, len(predictions)), Served: servedReply(s)}
	for i := range predictions {
		r.Predictions[i] = predictionReply(&predictions[i])
	}
	return &r
}

func newRankReply(ranking predict.Ranking, s predict.Served) any {
	r := rankReply{
		Ranked: make([]ranked, len(ranking.Ranked)), Filtered: ranking.Filtered, Unusable: ranking.Unusable, Served: servedReply(s),
	}
	for i, one := range ranking.Ranked {
		r.Ranked[i] = ranked(one)
	}
	return &r
}

func newRetrieveReply(items []predict.Retrieved, s predict.Served) any {
	r := retrieveReply{Items: make([]retrieved, len(items)), Served: servedReply(s)}
	for i, item := range items {
		r.Items[i] = retrieved(item)
	}
	return &r
}

func newExplainReply(e predict.Explanation, s predict.Served) any {
	r := explainReply{
		Prediction: predictionReply(&e.Prediction), Features: make([]featureContribution, len(e.Features)), Served: servedReply(s),
	}
	for i, f := range e.Features {
		r.Features[i] = featureContribution(f)
	}
	return &r
}

// document writes a reply as JSON, in one line.
func document(reply any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(reply)
	return b.Bytes(), err
}
