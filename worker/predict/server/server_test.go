package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	predictv1 "github.com/freshet-ml/freshet/proto/freshet/predict/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/predict/predicttest"
	"github.com/freshet-ml/freshet/worker/predict/server"
)

var from = predict.Served{Version: 3, Fresh: predict.Fresh{
	Parameters: "live", Applied: []ps.Offset{120_400, 119_872}, EventTime: 1764547200000, Age: 12500 * time.Microsecond,
}}

// pod is a server that serves over both transports, and clients of it.
type pod struct {
	t       testing.TB
	server  *server.Server
	metrics *prometheus.Registry
	log     *logged
	grpc    predictv1.PredictionsClient
	conn    *grpc.ClientConn
	url     string
}

// logged is a log that a test may read while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// serving is one model that is ready.
func serving(name string, p predict.Predictions) server.Model {
	return server.Model{Name: name, Predictions: p, Served: func() (predict.Served, error) { return from, nil }}
}

// newPod serves what a configuration says, or else one model.
func newPod(t testing.TB, c server.Config, models ...server.Model) *pod {
	t.Helper()
	p := &pod{t: t, metrics: prometheus.NewRegistry(), log: new(logged)}
	if len(models) == 0 {
		models = []server.Model{serving("clicks", &predicttest.Model{Served: from})}
	}
	if c.Models == nil {
		c.Models = func() []server.Model { return models }
	}
	c.Status, c.Metrics, c.Logger = wire.ToStatus, p.metrics, slog.New(slog.NewTextHandler(p.log, nil))
	var err error
	if p.server, err = server.New(c); err != nil {
		t.Fatal(err)
	}
	p.serve(p.server.Options()...)
	overHTTP := httptest.NewServer(p.server.Handler())
	t.Cleanup(overHTTP.Close)
	p.url = overHTTP.URL
	return p
}

// serve puts the server on gRPC.
func (p *pod) serve(options ...grpc.ServerOption) {
	p.t.Helper()
	g := grpc.NewServer(options...)
	p.server.Register(g)
	listener := bufconn.Listen(1 << 20)
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	p.t.Cleanup(func() {
		g.Stop()
		<-done
	})
	conn, err := grpc.NewClient("passthrough:///pod", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	p.conn, p.grpc = conn, predictv1.NewPredictionsClient(conn)
}

// answer is what came over HTTP.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// do sends a request over HTTP. Headers are names and values in turn.
func (p *pod) do(method, path string, body io.Reader, headers ...string) answer {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, text}
}

// post sends a body over HTTP.
func (p *pod) post(path, body string, headers ...string) answer {
	p.t.Helper()
	return p.do(http.MethodPost, path, strings.NewReader(body), append([]string{"Content-Type", "application/json"}, headers...)...)
}

// problem is a refusal over HTTP.
type problem struct {
	Type, Title, Detail, Reason string
	Status                      int
}

// refused reads a refusal.
func (p *pod) refused(a answer) problem {
	p.t.Helper()
	if kind := a.header.Get("Content-Type"); kind != "application/problem+json" {
		p.t.Fatalf("status %d with content of type %q: %s", a.code, kind, a.body)
	}
	var read problem
	if err := json.Unmarshal(a.body, &read); err != nil {
		p.t.Fatalf("%s: %v", a.body, err)
	}
	if read.Status != a.code || read.Type != "about:blank" || read.Title == "" || read.Detail == "" {
		p.t.Errorf("status %d with a problem that is not whole: %s", a.code, a.body)
	}
	return read
}

const predictOne = `{"columns":{"uid":["17"]}}`

// predictOne asks for a prediction over gRPC.
func (p *pod) predictOne(ctx context.Context) error {
	_, err := p.grpc.Predict(ctx, &predictv1.PredictRequest{Columns: []*predictv1.Column{column("uid", "17")}})
	return err
}

func column(name string, values ...string) *predictv1.Column {
	return &predictv1.Column{Name: name, Values: values}
}

// plain is a document or a message as encoding/json sees it, without what is zero: messages
// have tags that leave it out.
func plain(t testing.TB, what any) any {
	t.Helper()
	text, ok := what.([]byte)
	if !ok {
		var err error
		if text, err = json.Marshal(what); err != nil {
			t.Fatal(err)
		}
	}
	var read any
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return withoutZero(read)
}

func withoutZero(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			v[name] = withoutZero(value)
		}
		maps.DeleteFunc(v, func(_ string, value any) bool { return value == nil || value == 0.0 || value == "" })
	case []any:
		if len(v) == 0 {
			return nil
		}
		for i := range v {
			v[i] = withoutZero(v[i])
		}
	}
	return v
}

// questions are the same over both transports.
var questions = []struct {
	name, path, body string
	message          proto.Message
}{
	{
		"events by column", "/v1/predict", `{"columns":{"uid":["17","18",null],"hour":[3],"price":["1.50",2e1,""]}}`,
		&predictv1.PredictRequest{Columns: []*predictv1.Column{column("uid", "17", "18", ""), column("hour", "3"), column("price", "1.50", "2e1", "")}},
	},
	{
		"events row by row", "/v1/predict", `{"model":"clicks","events":[{"uid":"17","price":1.50},{"hour":"noon"},{"price":-0.0,"uid":true}]}`,
		&predictv1.PredictRequest{Model: "clicks", Columns: []*predictv1.Column{
			column("uid", "17", "", "true"), column("price", "1.50", "", "-0.0"), column("hour", "", "noon", ""),
		}},
	},
	{"no event", "/v1/predict", `{"columns":{"uid":[]}}`, &predictv1.PredictRequest{Columns: []*predictv1.Column{column("uid")}}},
	{
		"candidates by column", "/v1/rank",
		`{"context":{"uid":17,"hour":3},"candidates":{"item":["a4","b2","c9"],"stock":[2,0,11]},"top":2,
		  "filters":[{"column":"stock","at_least":1},{"column":"stock","at_most":1e1}]}`,
		&predictv1.RankRequest{
			Context:    []*predictv1.Column{column("uid", "17"), column("hour", "3")},
			Candidates: []*predictv1.Column{column("item", "a4", "b2", "c9"), column("stock", "2", "0", "11")}, Top: 2,
			Filters: []*predictv1.Filter{
				{Column: "stock", Test: &predictv1.Filter_AtLeast{AtLeast: 1}}, {Column: "stock", Test: &predictv1.Filter_AtMost{AtMost: 10}},
			},
		},
	},
	{
		"candidates row by row", "/v1/rank",
		`{"candidates":[{"item":"a4","hour":3},{"item":"b2","hour":"x"},{"item":"c9"},{"item":"d5"}],"filters":[{"column":"item","not_in":["c9",null]}]}`,
		&predictv1.RankRequest{
			Candidates: []*predictv1.Column{column("item", "a4", "b2", "c9", "d5"), column("hour", "3", "x", "", "")},
			Filters:    []*predictv1.Filter{{Column: "item", Test: &predictv1.Filter_NotIn{NotIn: &predictv1.Values{Values: []string{"c9", ""}}}}},
		},
	},
	{
		"a filter that keeps none", "/v1/rank", `{"candidates":{"item":["a4","b2"]},"filters":[{"column":"item","in":[]}]}`,
		&predictv1.RankRequest{
			Candidates: []*predictv1.Column{column("item", "a4", "b2")},
			Filters:    []*predictv1.Filter{{Column: "item", Test: &predictv1.Filter_In{In: &predictv1.Values{}}}},
		},
	},
	{
		"a filter that keeps one", "/v1/rank", `{"candidates":{"item":["a4","7"]},"filters":[{"column":"item","in":[7]}]}`,
		&predictv1.RankRequest{
			Candidates: []*predictv1.Column{column("item", "a4", "7")},
			Filters:    []*predictv1.Filter{{Column: "item", Test: &predictv1.Filter_In{In: &predictv1.Values{Values: []string{"7"}}}}},
		},
	},
	{
		"items for a context", "/v1/retrieve", `{"top":3.0,"context":{"uid":"17","hour":3},"not_in":["a4"]}`,
		&predictv1.RetrieveRequest{Top: 3, Context: []*predictv1.Column{column("uid", "17"), column("hour", "3")}, NotIn: []string{"a4"}},
	},
	{
		"items for a vector", "/v1/retrieve", `{"top":2,"vector":[0.25,-1,0.1,0]}`,
		&predictv1.RetrieveRequest{Top: 2, Vector: []float32{0.25, -1, 0.1, 0}},
	},
	{
		"an explanation", "/v1/explain", `{"event":{"uid":"17","item":"a\u0034","hour":3}}`,
		&predictv1.ExplainRequest{Columns: []*predictv1.Column{column("uid", "17"), column("item", "a4"), column("hour", "3")}},
	},
	{"an unusable event", "/v1/explain", `{"event":{"hour":"x"}}`, &predictv1.ExplainRequest{Columns: []*predictv1.Column{column("hour", "x")}}},

	{"columns of different lengths", "/v1/predict", `{"columns":{"uid":["1","2"],"hour":["1","2","3"]}}`, &predictv1.PredictRequest{
		Columns: []*predictv1.Column{column("uid", "1", "2"), column("hour", "1", "2", "3")},
	}},
	{"a column that there is not", "/v1/predict", `{"columns":{"uidd":["1"]}}`, &predictv1.PredictRequest{Columns: []*predictv1.Column{column("uidd", "1")}}},
	{"a column twice", "/v1/predict", `{"columns":{"uid":["1"],"uid":["1"]}}`, &predictv1.PredictRequest{
		Columns: []*predictv1.Column{column("uid", "1"), column("uid", "1")},
	}},
	{"a model that there is not", "/v1/predict", `{"model":"orders","columns":{"uid":["1"]}}`, &predictv1.PredictRequest{
		Model: "orders", Columns: []*predictv1.Column{column("uid", "1")},
	}},
	{"a filter without a test", "/v1/rank", `{"candidates":{"item":["1"]},"filters":[{"column":"item"}]}`, &predictv1.RankRequest{
		Candidates: []*predictv1.Column{column("item", "1")}, Filters: []*predictv1.Filter{{Column: "item"}},
	}},
	{"no items wanted", "/v1/retrieve", `{"vector":[1,2,3,4]}`, &predictv1.RetrieveRequest{Vector: []float32{1, 2, 3, 4}}},
	{"two queries", "/v1/retrieve", `{"top":1,"vector":[1,2,3,4],"context":{"uid":1}}`, &predictv1.RetrieveRequest{
		Top: 1, Vector: []float32{1, 2, 3, 4}, Context: []*predictv1.Column{column("uid", "1")},
	}},
	{"a vector of another width", "/v1/retrieve", `{"top":1,"vector":[1]}`, &predictv1.RetrieveRequest{Top: 1, Vector: []float32{1}}},
}

func TestBothTransportsGiveTheSameAnswers(t *testing.T) {
	p := newPod(t, server.Config{})
	methods := map[string]func(proto.Message) (proto.Message, error){
		"/v1/predict": func(m proto.Message) (proto.Message, error) {
			return p.grpc.Predict(t.Context(), m.(*predictv1.PredictRequest))
		},
		"/v1/rank": func(m proto.Message) (proto.Message, error) {
			return p.grpc.Rank(t.Context(), m.(*predictv1.RankRequest))
		},
		"/v1/retrieve": func(m proto.Message) (proto.Message, error) {
			return p.grpc.Retrieve(t.Context(), m.(*predictv1.RetrieveRequest))
		},
		"/v1/explain": func(m proto.Message) (proto.Message, error) {
			return p.grpc.Explain(t.Context(), m.(*predictv1.ExplainRequest))
		},
	}
	for _, q := range questions {
		t.Run(q.name, func(t *testing.T) {
			overHTTP := p.post(q.path, q.body)
			overGRPC, err := methods[q.path](q.message)
			if err != nil {
				if got, want := p.refused(overHTTP), status.Convert(err).Message(); got.Detail != want {
					t.Errorf("HTTP refuses with %q, gRPC with %q", got.Detail, want)
				} else if reason := wire.Reason(wire.FromStatus(err)); got.Reason != reason {
					t.Errorf("HTTP gives the reason %q, gRPC %q", got.Reason, reason)
				}
				return
			}
			if overHTTP.code != http.StatusOK || overHTTP.header.Get("Content-Type") != "application/json" {
				t.Fatalf("HTTP answers %d with %s: %s", overHTTP.code, overHTTP.header.Get("Content-Type"), overHTTP.body)
			}
			if diff := cmp.Diff(plain(t, overGRPC), plain(t, overHTTP.body)); diff != "" {
				t.Errorf("gRPC's answer (-) is not HTTP's (+):\n%s", diff)
			}
		})
	}
}

func TestAnAnswerIsWhatTheModelSays(t *testing.T) {
	p := newPod(t, server.Config{})
	got := p.post("/v1/predict", `{"events":[{"uid":"17","hour":3},{"hour":"noon"}]}`)
	score := predicttest.Weight("uid", "17") + predicttest.Weight("hour", "3")
	want := fmt.Sprintf(`{"predictions":[{"score":%v,"value":0.5312093733737563},{"score":0,"value":0,"error":"the hour is no number"}],`+
		`"served":{"version":3,"parameters":"live","applied":[120400,119872],"event_time":1764547200000,"age_ms":12.5}}`+"\n", score)
	if string(got.body) != want {
		t.Errorf("got\n%swant\n%s", got.body, want)
	}
}

// conditions are the errors of predict.Predictions and what becomes of them.
var conditions = []struct {
	err    error
	code   codes.Code
	http   int
	reason string
}{
	{ps.ErrInvalid, codes.InvalidArgument, 400, "INVALID"},
	{ps.ErrTooLarge, codes.InvalidArgument, 413, "TOO_LARGE"},
	{ps.ErrUnknownModel, codes.NotFound, 404, "UNKNOWN_MODEL"},
	{ps.ErrUnavailable, codes.Unavailable, 503, "UNAVAILABLE"},
	{ps.ErrBehind, codes.FailedPrecondition, 503, "BEHIND"},
	{ps.ErrModelMismatch, codes.FailedPrecondition, 503, "MODEL_MISMATCH"},
	{ps.ErrConflict, codes.Aborted, 503, "CONFLICT"},
	{ps.ErrLimited, codes.ResourceExhausted, 429, "LIMITED"},
	{ps.ErrOutOfMemory, codes.ResourceExhausted, 503, "OUT_OF_MEMORY"},
	{ps.ErrCorrupt, codes.DataLoss, 500, "CORRUPT"},
	{errors.New("something else"), codes.Internal, 500, "INTERNAL"},
	{context.DeadlineExceeded, codes.DeadlineExceeded, 504, "DEADLINE_EXCEEDED"},
}

func TestEveryConditionKeepsItsReason(t *testing.T) {
	for _, c := range conditions {
		p := newPod(t, server.Config{}, serving("clicks", &predicttest.Model{Before: func(context.Context) error {
			return fmt.Errorf("asked at a bad time: %w", c.err)
		}}))
		err := p.predictOne(t.Context())
		if code := status.Code(err); code != c.code {
			t.Errorf("%v: gRPC says %v, want %v", c.err, code, c.code)
		}
		a := p.post("/v1/predict", predictOne)
		got := p.refused(a)
		if got.Status != c.http || got.Reason != c.reason || got.Detail != "asked at a bad time: "+c.err.Error() {
			t.Errorf("%v: HTTP says %+v, want %d with %s", c.err, got, c.http, c.reason)
		}
		if again := a.header.Get("Retry-After"); (again != "") != (c.http == 503 || c.http == 429) {
			t.Errorf("%v: status %d with Retry-After %q", c.err, c.http, again)
		}
		if n := p.count("predict", c.reason); n != 2 {
			t.Errorf("%v: counted %v times under %s, want 2", c.err, n, c.reason)
		}
	}
}

// figure is what has been gathered of a metric: the value of a counter or a gauge, or how
// many a histogram has seen and their sum.
type figure struct {
	value, sum float64
	n          uint64
}

// metric returns what has been gathered of a metric with some labels.
func (p *pod) metric(name string, labels map[string]string) (f figure) {
	p.t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			has := map[string]string{}
			for _, label := range m.GetLabel() {
				has[label.GetName()] = label.GetValue()
			}
			if family.GetName() == name && maps.Equal(has, labels) {
				f.value = m.GetCounter().GetValue() + m.GetGauge().GetValue()
				f.n, f.sum = m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
			}
		}
	}
	return f
}

// count returns how many requests have been counted.
func (p *pod) count(method, outcome string) float64 {
	return p.metric("freshet_serve_requests_total", map[string]string{"method": method, "outcome": outcome}).value
}

func TestRequestsAreCountedAndTimedByMethod(t *testing.T) {
	p := newPod(t, server.Config{})
	p.post("/v1/predict", `{"columns":{"uid":["1","2","3"]}}`)
	p.post("/v1/predict", `{`)
	p.post("/v1/rank", `{"candidates":{"item":["1","2"]}}`)
	if err := p.predictOne(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		method, outcome string
		n               float64
	}{{"predict", "OK", 2}, {"predict", "INVALID", 1}, {"rank", "OK", 1}} {
		if got := p.count(want.method, want.outcome); got != want.n {
			t.Errorf("%s %s: counted %v, want %v", want.method, want.outcome, got, want.n)
		}
	}
	predicted := map[string]string{"method": "predict"}
	if n := p.metric("freshet_serve_request_seconds", predicted).n; n != 3 {
		t.Errorf("%d requests timed, want 3", n)
	}
	if f := p.metric("freshet_serve_request_candidates", predicted); f.n != 2 || f.sum != 4 {
		t.Errorf("%d requests had %v candidates, want 2 and 4", f.n, f.sum)
	}
	if n := p.metric("freshet_serve_requests_under_way", map[string]string{}).value; n != 0 {
		t.Errorf("%v requests under way, want none", n)
	}
}

func TestAPanicEndsItsRequestAlone(t *testing.T) {
	var faulty bool
	p := newPod(t, server.Config{}, serving("clicks", &predicttest.Model{Before: func(context.Context) error {
		if faulty {
			var none []int
			_ = none[3]
		}
		return nil
	}}))
	faulty = true
	if err := p.predictOne(t.Context()); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "index") {
		t.Errorf("gRPC says %v, want INTERNAL and nothing of the code", err)
	}
	if got := p.refused(p.post("/v1/predict", predictOne)); got.Status != 500 || got.Reason != "INTERNAL" {
		t.Errorf("HTTP says %+v, want INTERNAL", got)
	}
	faulty = false
	if err := p.predictOne(t.Context()); err != nil {
		t.Errorf("the request after it: %v", err)
	}
	if n := p.metric("freshet_serve_panics_total", map[string]string{}).value; n != 2 {
		t.Errorf("%v panics counted, want 2", n)
	}
	if log := p.log.String(); !strings.Contains(log, "index out of range [3]") || !strings.Contains(log, "server_test.go") {
		t.Errorf("the log has no stack: %s", log)
	}
}

func TestWhatIsTooLateIsNotBegun(t *testing.T) {
	asked := false
	p := newPod(t, server.Config{}, serving("clicks", &predicttest.Model{Before: func(context.Context) error {
		asked = true
		return nil
	}}))
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	p.serve(grpc.UnaryInterceptor(func(_ context.Context, m any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		return handle(late, m)
	}))
	if err := p.predictOne(t.Context()); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("gRPC says %v, want DEADLINE_EXCEEDED", err)
	}
	r := httptest.NewRequestWithContext(late, http.MethodPost, "/v1/predict", strings.NewReader(predictOne))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	p.server.Handler().ServeHTTP(w, r)
	if got := p.refused(answer{w.Code, w.Header(), w.Body.Bytes()}); got.Status != 504 || got.Reason != "DEADLINE_EXCEEDED" {
		t.Errorf("HTTP says %+v, want DEADLINE_EXCEEDED", got)
	}
	if asked {
		t.Error("the model was asked")
	}
}

func TestTheModelIsToldHowLongAnAnswerIsWorthWaitingFor(t *testing.T) {
	var left time.Duration
	p := newPod(t, server.Config{TimeMax: time.Minute}, serving("clicks", &predicttest.Model{Before: func(ctx context.Context) error {
		until, _ := ctx.Deadline()
		left = time.Until(until)
		return nil
	}}))
	within := func(what string, most time.Duration) {
		t.Helper()
		if left > most || left < most-30*time.Second {
			t.Errorf("%s: %v left, want almost %v", what, left, most)
		}
	}
	soon, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	_ = p.predictOne(soon)
	within("a deadline over gRPC", 40*time.Second)
	_ = p.predictOne(t.Context())
	within("none over gRPC", time.Minute)
	p.post("/v1/predict", predictOne)
	within("none over HTTP", time.Minute)
	p.post("/v1/predict", predictOne, "Freshet-Deadline-Ms", "40000")
	within("a deadline over HTTP", 40*time.Second)
	p.post("/v1/predict", predictOne, "Freshet-Deadline-Ms", "90000")
	within("one beyond the pod's", time.Minute)
	for _, bad := range []string{"", "0", "-1", "1.5", "soon", "99999999999"} {
		got := p.refused(p.post("/v1/predict", predictOne, "Freshet-Deadline-Ms", bad))
		if got.Status != 400 || !strings.Contains(got.Detail, "Freshet-Deadline-Ms") {
			t.Errorf("a deadline of %q: %+v, want 400", bad, got)
		}
	}
}

func TestAModelThatTakesTooLongIsNotWaitedFor(t *testing.T) {
	p := newPod(t, server.Config{TimeMax: 20 * time.Millisecond}, serving("clicks", &predicttest.Model{Before: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}))
	if err := p.predictOne(t.Context()); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("gRPC says %v, want DEADLINE_EXCEEDED", err)
	}
	if got := p.refused(p.post("/v1/predict", predictOne)); got.Status != 504 || got.Reason != "DEADLINE_EXCEEDED" {
		t.Errorf("HTTP says %+v, want DEADLINE_EXCEEDED", got)
	}
}

func TestWhatIsBeyondTheRequestsUnderWayIsRefusedAtOnce(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	p := newPod(t, server.Config{UnderWayMax: 2}, serving("clicks", &predicttest.Model{Before: func(context.Context) error {
		entered <- struct{}{}
		<-leave
		return nil
	}}))
	var under sync.WaitGroup
	for range 2 {
		under.Go(func() {
			if err := p.predictOne(t.Context()); err != nil {
				t.Errorf("one of those under way: %v", err)
			}
		})
		<-entered
	}
	if err := p.predictOne(t.Context()); !errors.Is(wire.FromStatus(err), ps.ErrUnavailable) {
		t.Errorf("gRPC says %v, want ps.ErrUnavailable", err)
	}
	a := p.post("/v1/predict", predictOne)
	if got := p.refused(a); got.Status != 503 || got.Reason != "UNAVAILABLE" || a.header.Get("Retry-After") != "1" {
		t.Errorf("HTTP says %+v, want UNAVAILABLE and when to ask again", got)
	}
	if n := p.metric("freshet_serve_requests_under_way", map[string]string{}).value; n != 2 {
		t.Errorf("%v requests under way, want 2", n)
	}
	close(leave)
	under.Wait()
	under.Go(func() { <-entered })
	if err := p.predictOne(t.Context()); err != nil {
		t.Errorf("after they have ended: %v", err)
	}
	under.Wait()
}

func TestARequestCarriesItsRoutingKey(t *testing.T) {
	var key string
	p := newPod(t, server.Config{}, serving("clicks", &predicttest.Model{Before: func(ctx context.Context) error {
		key = predict.KeyOf(ctx)
		return nil
	}}))
	for _, want := range []string{"session-8f2c", ""} {
		headers := map[string]string{}
		var list []string
		if want != "" {
			headers["freshet-key"] = want
			list = []string{"Freshet-Key", want}
		}
		if err := p.predictOne(metadata.NewOutgoingContext(t.Context(), metadata.New(headers))); err != nil {
			t.Fatal(err)
		}
		if key != want {
			t.Errorf("over gRPC the key is %q, want %q", key, want)
		}
		key = "?"
		p.post("/v1/predict", predictOne, list...)
		if key != want {
			t.Errorf("over HTTP the key is %q, want %q", key, want)
		}
	}
}

func TestAModelIsFoundByItsName(t *testing.T) {
	clicks, orders := serving("clicks", &predicttest.Model{Served: from}), serving("orders", &predicttest.Model{})
	for _, c := range []struct {
		name   string
		models []server.Model
		ask    string
		want   error
		says   string
	}{
		{"by name", []server.Model{clicks, orders}, "orders", nil, ""},
		{"the only one", []server.Model{clicks}, "", nil, ""},
		{"without a name of several", []server.Model{clicks, orders}, "", ps.ErrInvalid, "clicks, orders"},
		{"another", []server.Model{clicks, orders}, "carts", ps.ErrUnknownModel, `"carts" is not served here, only clicks, orders`},
		{"before there are any", []server.Model{}, "clicks", ps.ErrUnavailable, "no model is served yet"},
	} {
		p := newPod(t, server.Config{Models: func() []server.Model { return c.models }})
		_, err := p.grpc.Predict(t.Context(), &predictv1.PredictRequest{Model: c.ask, Columns: []*predictv1.Column{column("uid", "1")}})
		if err = wire.FromStatus(err); !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %v that says %q", c.name, err, c.want, c.says)
		}
	}
}

func TestAPodIsReadyWhenAllModelsAre(t *testing.T) {
	var missing error
	orders := server.Model{Name: "orders", Predictions: &predicttest.Model{}, Served: func() (predict.Served, error) { return from, missing }}
	p := newPod(t, server.Config{}, serving("clicks", &predicttest.Model{}), orders)
	check := func(when string, ready bool, detail string) {
		t.Helper()
		a := p.do(http.MethodGet, "/readyz", http.NoBody)
		if (a.code == 200) != ready {
			t.Errorf("%s: /readyz says %d", when, a.code)
		}
		if !ready {
			if got := p.refused(a); got.Status != 503 || got.Reason != "UNAVAILABLE" || !strings.Contains(got.Detail, detail) {
				t.Errorf("%s: /readyz says %+v, want UNAVAILABLE and %q", when, got, detail)
			}
		}
		want := healthpb.HealthCheckResponse_SERVING
		if !ready {
			want = healthpb.HealthCheckResponse_NOT_SERVING
		}
		for _, name := range []string{"", "freshet.predict.v1.Predictions"} {
			got, err := healthpb.NewHealthClient(p.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			if err != nil || got.GetStatus() != want {
				t.Errorf("%s: health of %q is %v, %v, want %v", when, name, got.GetStatus(), err, want)
			}
		}
		if a := p.do(http.MethodGet, "/healthz", http.NoBody); a.code != 200 {
			t.Errorf("%s: /healthz says %d", when, a.code)
		}
	}
	missing = fmt.Errorf("12 shards are still to be copied: %w", ps.ErrUnavailable)
	check("while one has no parameters", false, "orders")
	models := p.do(http.MethodGet, "/v1/models", http.NoBody)
	want := `{"models":[{"name":"clicks","served":{"version":3,"parameters":"live","applied":[120400,119872],"event_time":1764547200000,"age_ms":12.5}},` +
		`{"name":"orders","error":"12 shards are still to be copied: unavailable"}]}` + "\n"
	if string(models.body) != want {
		t.Errorf("/v1/models says\n%swant\n%s", models.body, want)
	}
	missing = nil
	check("when all have them", true, "")
	p.server.Drain()
	check("when it is about to end", false, "about to end")
	if err := p.predictOneOf("clicks"); err != nil {
		t.Errorf("a request while it is about to end: %v", err)
	}
	if _, err := healthpb.NewHealthClient(p.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "else"}); status.Code(err) != codes.NotFound {
		t.Errorf("health of another service: %v, want NOT_FOUND", err)
	}
}

// predictOneOf is predictOne with a model's name.
func (p *pod) predictOneOf(model string) error {
	_, err := p.grpc.Predict(p.t.Context(), &predictv1.PredictRequest{Model: model, Columns: []*predictv1.Column{column("uid", "17")}})
	return err
}

func TestAConfigurationThatCannotBeMeantIsRefused(t *testing.T) {
	models := func() []server.Model { return nil }
	for name, c := range map[string]server.Config{
		"no models":         {Status: wire.ToStatus},
		"no statuses":       {Models: models},
		"negative requests": {Models: models, Status: wire.ToStatus, UnderWayMax: -1},
		"negative bytes":    {Models: models, Status: wire.ToStatus, BytesMax: -1},
		"negative time":     {Models: models, Status: wire.ToStatus, TimeMax: -1},
	} {
		if _, err := server.New(c); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%s: %v, want ps.ErrInvalid", name, err)
		}
	}
	registry := prometheus.NewRegistry()
	c := server.Config{Models: models, Status: wire.ToStatus, Metrics: registry}
	if _, err := server.New(c); err != nil {
		t.Fatal(err)
	}
	if _, err := server.New(c); err == nil {
		t.Error("two servers register the same metrics, and nobody says so")
	}
}
