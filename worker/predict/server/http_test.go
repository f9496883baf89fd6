package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/predict/predicttest"
	"github.com/freshet-ml/freshet/worker/predict/server"
)

func TestABodyThatCannotBeMeantIsRefusedWithThePlace(t *testing.T) {
	p := newPod(t, server.Config{})
	for _, c := range []struct{ path, body, says string }{
		{"predict", ``, "no JSON"},
		{"predict", `{"columns":{"uid":["1"]}} {}`, "no JSON: byte 27"},
		{"predict", `{"columns":{"uid":["1"],}}`, "no JSON: byte 25"},
		{"predict", "{\"columns\":{\"uid\":[\"\xff\"]}}", "not UTF-8"},
		{"predict", `null`, "want an object, not null"},
		{"predict", `[]`, "want an object, not an array"},
		{"predict", `{}`, "want either columns or events"},
		{"predict", `{"columns":{"uid":["1"]},"events":[{"uid":"1"}]}`, "want either columns or events"},
		{"predict", `{"Columns":{"uid":["1"]}}`, "Columns: unknown field, want some of model, columns, events"},
		{"predict", `{"columns":{"uid":["1"]},"columns":{"uid":["1"]}}`, "columns: it is there twice"},
		{"predict", `{"columns":{}}`, "columns: it is empty"},
		{"predict", `{"columns":null}`, "columns: want an object, not null"},
		{"predict", `{"columns":{"uid":"1"}}`, "columns: uid: want an array, not a string"},
		{"predict", `{"columns":{"uid":["1",["2"]]}}`, "columns: uid: [1]: want a string, number, boolean or null, not an array"},
		{"predict", `{"model":1,"columns":{"uid":["1"]}}`, "model: want a string, not a number"},
		{"predict", `{"events":[]}`, "events: it is empty"},
		{"predict", `{"events":{"uid":"1"}}`, "events: want an array, not an object"},
		{"predict", `{"events":[{"uid":"1"},{}]}`, "events: [1]: it is empty"},
		{"predict", `{"events":[{"uid":"1"},{"uid":"1","uid":"2"}]}`, "events: [1]: uid: it is there twice"},
		{"predict", `{"events":[{"uid":{"id":1}}]}`, "events: [0]: uid: want a string, number, boolean or null, not an object"},
		{"rank", `{}`, "candidates: they are missing"},
		{"rank", `{"candidates":true}`, "candidates: want an object, not a boolean"},
		{"rank", `{"candidates":{"item":["1"]},"context":{"uid":["1"]}}`, "context: uid: want a string, number, boolean or null, not an array"},
		{"rank", `{"candidates":{"item":["1"]},"context":{}}`, "context: it is empty"},
		{"rank", `{"candidates":{"item":["1"]},"top":-1}`, "top: want a whole number from 0"},
		{"rank", `{"candidates":{"item":["1"]},"top":1.5}`, "top: want a whole number from 0"},
		{"rank", `{"candidates":{"item":["1"]},"top":4294967296}`, "top: want a whole number from 0 to 4294967295"},
		{"rank", `{"candidates":{"item":["1"]},"top":"1"}`, "top: want a number, not a string"},
		{"rank", `{"candidates":{"item":["1"]},"filters":[{"in":["1"]}]}`, "filters: [0]: column: it is missing"},
		{"rank", `{"candidates":{"item":["1"]},"filters":[{"column":"item"}]}`, "filters: [0]: want one of in, not_in, at_least and at_most"},
		{"rank", `{"candidates":{"item":["1"]},"filters":[{"column":"item","in":[],"at_most":1}]}`, "filters: [0]: want one of in, not_in, at_least and at_most"},
		{"rank", `{"candidates":{"item":["1"]},"filters":[{"column":"item","at_most":1e999}]}`, "at_most: the number is too large"},
		{"rank", `{"candidates":{"item":["1"]},"filters":[{"column":"item","in":"1"}]}`, "in: want an array, not a string"},
		{"retrieve", `{"context":{"uid":"1"}}`, "top: how many items to return is missing"},
		{"retrieve", `{"top":1,"vector":[1,2,3,1e39]}`, "vector: [3]: the number is too large for 32 bits"},
		{"retrieve", `{"top":1,"vector":[]}`, "vector: it is empty"},
		{"retrieve", `{"top":1,"vector":[1,2,3,"4"]}`, "vector: [3]: want a number, not a string"},
		{"explain", `{}`, "event: it is missing"},
		{"explain", `{"event":[{"uid":"1"}]}`, "event: want an object, not an array"},
		{"explain", `{"columns":{"uid":["1"]}}`, "columns: unknown field, want some of model, event"},
	} {
		got := p.refused(p.post("/v1/"+c.path, c.body))
		if got.Status != 400 || got.Reason != "INVALID" || !strings.Contains(got.Detail, c.says) {
			t.Errorf("%s %s:\n got %+v\nwant 400 INVALID that says %q", c.path, c.body, got, c.says)
		}
	}
}

func TestAPathTakesItsMethodAlone(t *testing.T) {
	p := newPod(t, server.Config{})
	for path, allow := range map[string]string{
		"/v1/predict": "POST", "/v1/explain": "POST", "/v1/models": "GET, HEAD", "/healthz": "GET, HEAD", "/openapi.json": "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"} {
			a := p.do(method, path, http.NoBody, "Content-Type", "application/json")
			if slices.Contains(strings.Split(allow, ", "), method) {
				if a.code == http.StatusMethodNotAllowed || a.code == http.StatusNotFound {
					t.Errorf("%s %s: %d", method, path, a.code)
				}
				continue
			}
			if a.code != http.StatusMethodNotAllowed || a.header.Get("Allow") != allow {
				t.Errorf("%s %s: %d that allows %q, want 405 that allows %q", method, path, a.code, a.header.Get("Allow"), allow)
			}
			if method != "HEAD" && p.refused(a).Reason != "METHOD_NOT_ALLOWED" {
				t.Errorf("%s %s: %s", method, path, a.body)
			}
		}
	}
	for _, path := range []string{"/", "/v1", "/v1/predict/", "//v1/predict", "/v1/../healthz"} {
		if got := p.refused(p.do(http.MethodGet, path, http.NoBody)); got.Status != 404 || got.Reason != "NOT_FOUND" {
			t.Errorf("%s: %+v, want 404", path, got)
		}
	}
}

func TestABodyOfAnotherTypeIsRefused(t *testing.T) {
	p := newPod(t, server.Config{})
	for _, c := range []struct {
		headers []string
		taken   bool
	}{
		{[]string{"Content-Type", "application/json"}, true},
		{[]string{"Content-Type", "Application/JSON; charset=UTF-8"}, true},
		{[]string{"Content-Type", "application/json", "Content-Encoding", "identity"}, true},
		{nil, false},
		{[]string{"Content-Type", "text/plain"}, false},
		{[]string{"Content-Type", "application/json; charset=latin1"}, false},
		{[]string{"Content-Type", "application/json;;"}, false},
		{[]string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, false},
	} {
		a := p.do(http.MethodPost, "/v1/predict", strings.NewReader(predictOne), c.headers...)
		if c.taken {
			if a.code != 200 {
				t.Errorf("%v: %d, want 200", c.headers, a.code)
			}
		} else if got := p.refused(a); got.Status != 415 || got.Reason != "UNSUPPORTED_MEDIA_TYPE" {
			t.Errorf("%v: %+v, want 415", c.headers, got)
		}
	}
}

func TestARequestThatIsTooLargeIsNotReadToItsEnd(t *testing.T) {
	p := newPod(t, server.Config{BytesMax: 1000})
	long := `{"columns":{"uid":["` + strings.Repeat("1", 1000) + `"]}}`
	for what, body := range map[string]io.Reader{
		"with its length":    strings.NewReader(long),
		"without its length": io.MultiReader(strings.NewReader(long)),
	} {
		a := p.do(http.MethodPost, "/v1/predict", body, "Content-Type", "application/json")
		if got := p.refused(a); got.Status != 413 || got.Reason != "TOO_LARGE" || !strings.Contains(got.Detail, "1000 bytes") {
			t.Errorf("%s: %+v, want 413 TOO_LARGE", what, got)
		}
	}
	if n := p.count("predict", "TOO_LARGE"); n != 2 {
		t.Errorf("counted %v, want 2", n)
	}
	err := p.predictOneOf(strings.Repeat("1", 1000))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("gRPC says %v, want RESOURCE_EXHAUSTED", err)
	}
}

func TestSparseRowsDoNotGrowWithTheirSquare(t *testing.T) {
	p := newPod(t, server.Config{})
	var body strings.Builder
	for i := range 20_000 { // of which each has a column of its own: 400 million values
		fmt.Fprintf(&body, `,{"c%d":1}`, i)
	}
	got := p.refused(p.post("/v1/predict", `{"events":[`+body.String()[1:]+`]}`))
	if got.Status != 413 || !strings.Contains(got.Detail, "send the rows by column") {
		t.Errorf("got %+v, want 413", got)
	}
}

func TestABodyThatDoesNotArriveIsNotWaitedFor(t *testing.T) {
	for _, c := range []struct {
		what, path, kind, deadline string
		timeMax                    time.Duration
		status                     int
		reason                     string
	}{
		{"beyond the pod's limit", "/v1/predict", "application/json", "60000", 20 * time.Millisecond, 504, "DEADLINE_EXCEEDED"},
		{"beyond the request's", "/v1/predict", "application/json", "20", time.Minute, 504, "DEADLINE_EXCEEDED"},
		{"of another type", "/v1/predict", "text/plain", "60000", 20 * time.Millisecond, 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"to nowhere", "/v1", "text/plain", "60000", 20 * time.Millisecond, 404, "NOT_FOUND"},
	} {
		p := newPod(t, server.Config{TimeMax: c.timeMax})
		var dialer net.Dialer
		conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: pod\r\nContent-Type: %s\r\nFreshet-Deadline-Ms: %s\r\nContent-Length: 100\r\n\r\n{", c.path, c.kind, c.deadline)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		got := p.refused(answer{response.StatusCode, response.Header, text})
		if got.Status != c.status || got.Reason != c.reason {
			t.Errorf("a body %s: got %+v, want %d %s", c.what, got, c.status, c.reason)
		}
	}
}

func TestTheClientMayHangUp(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan error, 1)
	p := newPod(t, server.Config{TimeMax: time.Minute}, serving("clicks", &predicttest.Model{Before: func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}}))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/v1/predict", strings.NewReader(predictOne))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if response, err := http.DefaultClient.Do(r); err == nil {
			response.Body.Close()
			t.Error("a request that was given up was answered")
		}
	}()
	<-entered
	cancel()
	<-done
	if err := <-ended; err != context.Canceled {
		t.Errorf("the model's context ended with %v, want context.Canceled", err)
	}
}

// diverged is a model whose scores are no numbers.
type diverged struct{ predicttest.Model }

func (d *diverged) Predict(context.Context, []predict.Column) ([]predict.Prediction, predict.Served, error) {
	return []predict.Prediction{{Score: float32(math.NaN()), Value: math.Inf(1)}}, d.Served, nil
}

func TestWhatIsNoNumberIsNeverWritten(t *testing.T) {
	p := newPod(t, server.Config{}, serving("clicks", new(diverged)))
	a := p.post("/v1/predict", predictOne)
	if got := p.refused(a); got.Status != 500 || got.Reason != "INTERNAL" {
		t.Errorf("got %+v, want INTERNAL", got)
	}
}

// described is what a test reads of openapi.json.
type described struct {
	Paths map[string]map[string]struct {
		RequestBody struct {
			Content map[string]struct {
				Examples map[string]struct{ Value json.RawMessage }
			}
		} `json:"requestBody"`
		Responses map[string]struct {
			Content map[string]struct {
				Examples map[string]struct{ Value json.RawMessage }
			}
		}
	}
}

func TestTheExamplesOfTheDocumentAreAnswered(t *testing.T) {
	p := newPod(t, server.Config{})
	a := p.do(http.MethodGet, "/openapi.json", http.NoBody)
	var document described
	if err := json.Unmarshal(a.body, &document); err != nil || a.code != 200 || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d with %s: %v", a.code, a.header.Get("Content-Type"), err)
	}
	examples := 0
	for path, methods := range document.Paths {
		for method, operation := range methods {
			for name, example := range operation.RequestBody.Content["application/json"].Examples {
				examples++
				got := p.do(strings.ToUpper(method), path, bytes.NewReader(example.Value), "Content-Type", "application/json")
				if got.code != 200 {
					t.Errorf("%s %s, example %s: %d: %s", method, path, name, got.code, got.body)
				}
			}
		}
	}
	if examples < 6 {
		t.Errorf("%d examples", examples)
	}
}
