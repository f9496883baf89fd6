package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/freshet-ml/freshet/coordinator"
	predictv1 "github.com/freshet-ml/freshet/proto/freshet/predict/v1"
)

// newServedCluster is a cluster of a node that takes epochs when asked to, and has a model
// of so many events that nobody learns yet.
func newServedCluster(t *testing.T, doc string, events int) *testCluster {
	t.Helper()
	c := newCheckpointedCluster(t, 1, 1, epochSettings{bucket: "file://" + t.TempDir()})
	c.apply(doc, writeClicks(t, events))
	c.startNode("a")
	c.dial()
	return c
}

// command runs a command of the cluster's operator, which has to succeed, and decodes its
// document.
func (c *testCluster) command(document any, args ...string) {
	c.t.Helper()
	code, stdout, stderr := freshet(c.t, append(args, "--coordinator", c.coordinator, "-o", "json")...)
	if code != 0 {
		c.t.Fatalf("freshet %s ended with %d: %s", strings.Join(args, " "), code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), document); err != nil {
		c.t.Fatalf("freshet %s: %v: %s", strings.Join(args, " "), err, stdout)
	}
}

// epoch takes an epoch and returns its number.
func (c *testCluster) epoch() int {
	c.t.Helper()
	var taken coordinator.EpochTaken
	c.command(&taken, "checkpoint")
	return int(taken.Epoch)
}

func (c *testCluster) rollback(epoch int) {
	c.t.Helper()
	var lineage map[string]uint64
	c.command(&lineage, "rollback", "--epoch", strconv.Itoa(epoch))
}

// secretFile returns a file with the cluster's secret.
func secretFile(t *testing.T) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "secret"), string(testSecret))
}

// askedEvents are events that a test has scored, some of users and items that nobody knows.
type askedEvents struct{ users, items []string }

func newAsked(n int) (e askedEvents) {
	for i := range n {
		e.users = append(e.users, fmt.Sprintf("u%d", i*7%2100))
		e.items = append(e.items, fmt.Sprintf("i%d", i%32))
	}
	return e
}

// request asks for all of them.
func (e askedEvents) request() *predictv1.PredictRequest {
	return &predictv1.PredictRequest{Columns: []*predictv1.Column{{Name: "user", Values: e.users}, {Name: "item", Values: e.items}}}
}

// predicted returns what "freshet predict" says of events.
func (c *testCluster) predicted(e askedEvents) (values []float64) {
	c.t.Helper()
	var text strings.Builder
	text.WriteString("user,item\n")
	for i := range e.users {
		fmt.Fprintf(&text, "%s,%s\n", e.users[i], e.items[i])
	}
	file := write(c.t, filepath.Join(c.t.TempDir(), "asked.csv"), text.String())
	var got struct {
		Predictions []one `json:"predictions"`
	}
	c.command(&got, "predict", "--events", "file://"+file, "--secret-file", secretFile(c.t))
	for _, p := range got.Predictions {
		if p.Prediction == nil {
			c.t.Fatalf("line %d is not predicted: %s", p.Line, p.Error)
		}
		values = append(values, *p.Prediction)
	}
	return values
}

// servingPod is a "freshet serve" in this process.
type servingPod struct {
	t        *testing.T
	log      *syncBuffer
	http     string // URL
	requests predictv1.PredictionsClient
	end      context.CancelFunc
	exitCode func() int // waits for the end
}

// serve starts a pod that has to end cleanly when the test does.
func (c *testCluster) serve(args ...string) *servingPod {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	p := &servingPod{t: c.t, log: &syncBuffer{}, end: cancel, exitCode: sync.OnceValue(func() int { return <-code })}
	args = append([]string{
		"serve", "--coordinator", c.coordinator, "--secret-file", secretFile(c.t), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
	}, args...)
	go func() { code <- runContext(ctx, args, io.Discard, p.log) }()
	c.t.Cleanup(func() {
		cancel()
		if got := p.exitCode(); got != 0 {
			c.t.Errorf("the pod ended with exit code %d, want 0", got)
		}
		if c.t.Failed() {
			c.t.Logf("log of freshet %s:\n%s", strings.Join(args, " "), p.log)
		}
	})
	p.http = p.logged(`msg=serving http=(\S+)`)
	conn, err := grpc.NewClient(p.logged(`msg=serving .*grpc=(\S+)`), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	p.requests = predictv1.NewPredictionsClient(conn)
	return p
}

// until looks every few milliseconds until done.
func (p *servingPod) until(what string, done func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for ticks := time.NewTicker(5 * time.Millisecond); !done(); <-ticks.C {
		if time.Now().After(deadline) {
			p.t.Fatalf("after a minute not yet: %s", what)
		}
	}
}

// logged waits until the pod has logged something and returns the match's last group.
func (p *servingPod) logged(pattern string) string {
	p.t.Helper()
	re, match := regexp.MustCompile(pattern), []string(nil)
	p.until("the log has "+pattern, func() bool {
		match = re.FindStringSubmatch(p.log.String())
		return match != nil
	})
	return match[len(match)-1]
}

// get asks the pod by HTTP.
func (p *servingPod) get(path string) (status int, body []byte) {
	p.t.Helper()
	r, err := http.Get(p.http + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err = io.ReadAll(r.Body); err != nil {
		p.t.Fatal(err)
	}
	return r.StatusCode, body
}

func (p *servingPod) ready() {
	p.t.Helper()
	p.until("the pod is ready", func() bool {
		status, _ := p.get("/readyz")
		return status == http.StatusOK
	})
}

// predict asks for predictions, which have to come.
func (p *servingPod) predict(e askedEvents) (values []float64, served *predictv1.Served) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	r, err := p.requests.Predict(ctx, e.request())
	if err != nil {
		p.t.Fatal(err)
	}
	for i, got := range r.Predictions {
		if got.Error != "" {
			p.t.Fatalf("event %d: %s", i, got.Error)
		}
		values = append(values, got.Value)
	}
	return values, r.Served
}

// served returns what the pod says it serves, without predicting anything.
func (p *servingPod) served() (s struct {
	Parameters string   `json:"parameters"`
	Applied    []uint64 `json:"applied"`
	AgeMs      float64  `json:"age_ms"`
},
) {
	p.t.Helper()
	var list struct {
		Models []struct {
			Served json.RawMessage `json:"served"`
		} `json:"models"`
	}
	_, body := p.get("/v1/models")
	if err := json.Unmarshal(body, &list); err != nil || len(list.Models) != 1 {
		p.t.Fatalf("models %s: %v, want one", body, err)
	}
	if list.Models[0].Served != nil {
		if err := json.Unmarshal(list.Models[0].Served, &s); err != nil {
			p.t.Fatal(err)
		}
	}
	return s
}

// serves waits until the pod serves parameters of a name that have so many events, which a
// negative number leaves open.
func (p *servingPod) serves(parameters string, events int64) {
	p.t.Helper()
	p.until(fmt.Sprintf("the pod serves %s with %d events", parameters, events), func() bool {
		s := p.served()
		return s.Parameters == parameters && (events < 0 || sum(s.Applied) == events)
	})
}

func sum(applied []uint64) (events int64) {
	for _, a := range applied {
		events += int64(a)
	}
	return events
}

// metric returns a sample of the pod's metrics; 0 if it is not there.
func (p *servingPod) metric(name string, labels ...string) float64 {
	p.t.Helper()
	_, body := p.get("/metrics")
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name+"{"); ok && !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			_, number, _ := strings.Cut(strings.TrimSpace(rest), "} ")
			value, err := strconv.ParseFloat(number, 64)
			if err != nil {
				p.t.Fatalf("%q: %v", line, err)
			}
			return value
		}
	}
	return 0
}

// same fails unless two lists of predictions are the same to the last bit.
func same(t *testing.T, what string, got, want []float64) {
	t.Helper()
	differ := 0
	for i := range want {
		if i >= len(got) || math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			differ++
		}
	}
	if differ > 0 || len(got) != len(want) || len(want) == 0 {
		t.Errorf("%s: %d of %d predictions differ (there are %d)", what, differ, len(want), len(got))
	}
}

// asking asks a pod all the time.
type asking struct {
	stop func()

	mu             sync.Mutex
	answers, fails int // guarded by mu
	last           error
	longest        time.Duration
}

// askAlways asks the pod every few milliseconds until the test or stop ends it.
func (p *servingPod) askAlways() *asking {
	a := &asking{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	a.stop = sync.OnceFunc(func() { cancel(); <-done })
	p.t.Cleanup(a.stop)
	request := newAsked(3).request()
	go func() {
		defer close(done)
		for ticks := time.NewTicker(2 * time.Millisecond); ctx.Err() == nil; <-ticks.C {
			began := time.Now()
			one, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := p.requests.Predict(one, request)
			cancel()
			a.mu.Lock()
			a.longest = max(a.longest, time.Since(began))
			if err != nil {
				a.fails, a.last = a.fails+1, err
			} else {
				a.answers++
			}
			a.mu.Unlock()
		}
	}()
	return a
}

// unfailing ends it and fails if a request has failed, or none was answered.
func (a *asking) unfailing(t *testing.T) {
	t.Helper()
	a.stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fails > 0 || a.answers == 0 {
		t.Errorf("%d requests failed and %d were answered; the last error: %v", a.fails, a.answers, a.last)
	}
	t.Logf("%d requests answered, the slowest took %v", a.answers, a.longest)
}

func TestAPodSaysWhatPredictSays(t *testing.T) {
	const events = 10_000
	c := newServedCluster(t, factorSpec, events)
	pod := c.serve() // before anything is learned, so that what it has came as deltas
	pod.ready()
	late := c.serve("--beside", "newest=shadow") // a version without parameters yet
	c.startWorker("w")
	c.waitFor(events)
	pod.serves("live", events)
	e := newAsked(500)
	want := c.predicted(e)
	got, served := pod.predict(e)
	same(t, "over gRPC", got, want)
	if served.Parameters != "live" || sum(served.Applied) != events || served.Version != 1 || served.AgeMs > 5000 {
		t.Errorf("served from %v, want live with %d events, fresh", served, events)
	}

	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(map[string]any{"columns": map[string][]string{"user": e.users, "item": e.items}}); err != nil {
		t.Fatal(err)
	}
	r, err := http.Post(pod.http+"/v1/predict", "application/json", &body)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var reply struct {
		Predictions []struct {
			Value float64 `json:"value"`
		} `json:"predictions"`
	}
	if err := json.NewDecoder(r.Body).Decode(&reply); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %v", r.StatusCode, err)
	}
	overHTTP := make([]float64, len(reply.Predictions))
	for i, p := range reply.Predictions {
		overHTTP[i] = p.Value
	}
	same(t, "over HTTP", overHTTP, want)

	if status, body := late.get("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(string(body), "newest") {
		t.Errorf("a pod one of whose versions has no weights: /readyz says %d %s, want 503 and the version", status, body)
	}
	c.epoch()
	late.ready()
}

func TestAPodFollowsARollbackWithoutFailingARequest(t *testing.T) {
	const events = 12_000
	c := newServedCluster(t, slowSpec, events)
	pod := c.serve()
	pod.ready()
	asked := pod.askAlways()
	stop := c.startWorker("w")
	c.waitFor(events / 5)
	first := c.epoch()
	c.waitFor(events / 2)
	stop()
	before, _ := c.applied()
	pod.serves("live", before)
	c.rollback(first)
	began := time.Now()
	var list coordinator.EpochList
	c.command(&list, "epochs")
	back := int64(list.Epochs[0].Events)
	pod.serves("live", back)
	t.Logf("set back from %d events to %d; the pod serves that after %v", before, back, time.Since(began).Round(time.Millisecond))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the pod took %v to follow, want seconds", took)
	}
	e := newAsked(300)
	got, _ := pod.predict(e)
	same(t, "after the rollback", got, c.predicted(e))

	c.startWorker("x")
	c.waitFor(events)
	pod.serves("live", events)
	got, _ = pod.predict(e)
	same(t, "at the end", got, c.predicted(e))
	asked.unfailing(t)
}

func TestAPinnedPodServesItsEpochWhateverIsLearned(t *testing.T) {
	const events = 20_000
	c := newServedCluster(t, slowSpec, events)
	stop := c.startWorker("w")
	c.waitFor(events / 10)
	stop()
	e := newAsked(300)
	first, want := c.epoch(), c.predicted(e)
	pinned, newest := c.serve("--pin", strconv.Itoa(first)), c.serve("--pin", "newest")
	later := c.serve("--pin", strconv.Itoa(first+5)) // it waits until there is one
	pinned.ready()
	newest.ready()
	got, served := pinned.predict(e)
	same(t, "of the pinned epoch", got, want)
	name := fmt.Sprintf("epoch %d", first)
	if at, _ := c.applied(); served.Parameters != name || sum(served.Applied) != at || served.AgeMs <= 0 {
		t.Errorf("served from %v, want %s with %d events and its age", served, name, at)
	}
	if status, _ := later.get("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("a pod of an epoch that is not there is ready: %d", status)
	}
	later.logged(`level=WARN msg="the epoch is not served yet; trying again" .*keeps no epoch that is asked for \(see freshet epochs\)`)

	// So many more epochs that the first is collected.
	asked := pinned.askAlways()
	c.startPacedWorker("x", events/4)
	for k := range int64(4) {
		c.waitFor(events * (k + 2) / 10)
		c.epoch()
	}
	c.waitFor(events)
	last := c.epoch()
	if last != first+5 {
		t.Fatalf("the last epoch is %d, want %d: all was learned before the others were taken", last, first+5)
	}
	var list coordinator.EpochList
	c.command(&list, "epochs")
	if slices.ContainsFunc(list.Epochs, func(s coordinator.EpochStatus) bool { return int(s.Epoch) == first }) {
		t.Fatalf("epoch %d is still kept: %+v", first, list.Epochs)
	}
	newest.serves(fmt.Sprintf("epoch %d", last), events)
	got, _ = newest.predict(e)
	same(t, "of the newest epoch", got, c.predicted(e))
	looked := time.Now()
	pinned.until("the pod has looked for its epoch twice more", func() bool {
		got, served = pinned.predict(e)
		return served.Parameters != name || time.Since(looked) > 2*podLooks
	})
	if served.Parameters != name {
		t.Errorf("when the epoch is no longer kept, the pod serves %s", served.Parameters)
	}
	same(t, "of the collected epoch", got, want)
	asked.unfailing(t)
	later.serves(fmt.Sprintf("epoch %d", last), events)
}

func TestVersionsBesideEachOtherMeetTheirShares(t *testing.T) {
	const events, keys = 6_000, 2_000
	c := newServedCluster(t, slowSpec, events)
	stop := c.startWorker("w")
	c.waitFor(events / 4)
	stop()
	first := c.epoch()
	c.startWorker("x")
	c.waitFor(events)
	newest := c.epoch()
	pod := c.serve("--beside", "newest=0.3", "--beside", fmt.Sprintf("%d=shadow", first))
	pod.ready()
	e := newAsked(1)
	counts := make(map[string]int)
	for i := range keys {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "freshet-key", fmt.Sprintf("session-%d", i))
		var met [2]string
		for k := range met {
			r, err := pod.requests.Predict(ctx, e.request())
			if err != nil {
				t.Fatal(err)
			}
			met[k] = r.Served.Parameters
		}
		if met[0] != met[1] {
			t.Fatalf("session %d meets %s and then %s", i, met[0], met[1])
		}
		counts[met[0]]++
	}
	name := fmt.Sprintf("epoch %d", newest)
	// Five standard deviations.
	if off := math.Abs(float64(counts[name]) - keys*0.3); off > 5*math.Sqrt(keys*0.3*0.7) || counts["live"]+counts[name] != keys {
		t.Errorf("of %d keys, versions answered %v; want a share of 0.3 for %s and live for the others", keys, counts, name)
	}
	for version, want := range map[string]int{"live": 2 * counts["live"], "newest": 2 * counts[name]} {
		label := fmt.Sprintf("version=%q", version)
		if got := pod.metric("freshet_version_request_seconds_count", label, `method="predict"`); got != float64(want) {
			t.Errorf("version %s counts %v requests, want %d", version, got, want)
		}
		if got := pod.metric("freshet_version_predictions_count", label); got != float64(want) {
			t.Errorf("version %s counts %v predictions, want %d", version, got, want)
		}
	}
	shadow := fmt.Sprintf(`version="%d"`, first)
	pod.until("the version in the shadow was asked, or was busy, each time", func() bool {
		seen := pod.metric("freshet_version_request_seconds_count", shadow)
		return seen > 0 && seen+pod.metric("freshet_version_missed_total", shadow) == 2*keys
	})
}

func TestABreakerKeepsAVersionAtAGoodEpochUntilARollback(t *testing.T) {
	const events = 12_000
	c := newServedCluster(t, slowSpec, events)
	stop := c.startWorker("w")
	c.waitFor(events / 5)
	stop()
	e := newAsked(100)
	good, want := c.epoch(), c.predicted(e)
	pod := c.serve("--mean-max", "0.01", "--bounds-over", "100", "--good-age", "1ms")
	pod.ready()
	asked := pod.askAlways()
	name := fmt.Sprintf("epoch %d", good)
	pod.logged(`level=ERROR msg="the circuit breaker has tripped: .*because="the mean of the last 100 predictions is 0\.\d+, its bounds are 0 and 0\.01"`)
	pod.serves(name, -1)
	if got := pod.metric("freshet_version_frozen", `version="live"`); got != 1 {
		t.Errorf("freshet_version_frozen is %v, want 1", got)
	}
	stop = c.startWorker("x")
	c.waitFor(events / 2)
	c.epoch()
	looked := time.Now()
	var got []float64
	var served *predictv1.Served
	pod.until("the pod has looked twice more", func() bool {
		got, served = pod.predict(e)
		return served.Parameters != name || time.Since(looked) > 2*podLooks
	})
	if served.Parameters != name {
		t.Errorf("a tripped version goes on to %s", served.Parameters)
	}
	same(t, "of the good epoch", got, want)
	asked.unfailing(t)
	stop()
	c.rollback(good)
	pod.serves("live", sum(served.Applied))
	if got := pod.metric("freshet_version_frozen", `version="live"`); got != 0 {
		t.Errorf("freshet_version_frozen is %v when the version follows again, want 0", got)
	}
	c.startWorker("y")
	c.waitFor(events)
	pod.serves("live", events)
}

func TestABreakerWatchesTheLossOfWhatIsLearned(t *testing.T) {
	const events = 30_000
	c := newServedCluster(t, slowSpec, events)
	pod := c.serve("--loss-max", "0.01", "--bounds-over", "500", "--good-age", "1ms")
	pod.ready()
	c.startPacedWorker("w", 2000)
	c.waitFor(500)
	good := c.epoch()
	pod.logged(`level=ERROR msg="the circuit breaker has tripped: .*because="the loss of the last events is 0\.\d+, its bound is 0\.01"`)
	pod.serves(fmt.Sprintf("epoch %d", good), -1)
	if got := pod.metric("freshet_version_frozen", `version="live"`); got != 1 {
		t.Errorf("freshet_version_frozen is %v, want 1", got)
	}
	if at, _ := c.applied(); at == events {
		t.Error("all was learned before the breaker tripped: the test says nothing of a version that stops following")
	}
}

func TestAPodThatIsInterruptedAnswersUntilItHasDrained(t *testing.T) {
	const events = 1000
	c := newServedCluster(t, slowSpec, events)
	pod := c.serve("--drain", "1s")
	pod.ready()
	e := newAsked(3)
	pod.predict(e)
	pod.end()
	pod.until("/readyz says no", func() bool {
		status, _ := pod.get("/readyz")
		return status == http.StatusServiceUnavailable
	})
	for range 20 {
		pod.predict(e)
	}
	if status, _ := pod.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz says %d while the pod drains, want 200", status)
	}
	if code := pod.exitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestAPodThatCannotBe(t *testing.T) {
	c := newServedCluster(t, slowSpec, 100)
	dir := t.TempDir()
	secret := secretFile(t)
	other := write(t, filepath.Join(dir, "other"), "another secret of sixteen bytes")
	items := "file://" + write(t, filepath.Join(dir, "items.csv"), "item,price\ni1,2\n")
	taken := c.listen()
	defer taken.Close()
	used := taken.Addr().String()
	for name, test := range map[string]struct {
		code int
		args []string
		want []string
	}{
		"a word to pin":                  {exitUsage, []string{"--pin", "x"}, []string{"--pin", `"x"`, "number of an epoch, newest or live"}},
		"no epoch to pin":                {exitUsage, []string{"--pin", "0"}, []string{"--pin", `"0"`, "number of an epoch"}},
		"live beside live":               {exitUsage, []string{"--beside", "live=0.1"}, []string{"--beside", "live=0.1", "there already"}},
		"an epoch twice":                 {exitUsage, []string{"--pin", "3", "--beside", "03=0.1"}, []string{"--beside", "03=0.1", "there already"}},
		"no share":                       {exitUsage, []string{"--beside", "newest"}, []string{"--beside", "between 0 and 1, or shadow", "newest=0.1"}},
		"all of the requests":            {exitUsage, []string{"--beside", "newest=1"}, []string{"newest=1", "between 0 and 1"}},
		"more than there is":             {exitUsage, []string{"--beside", "newest=0.6", "--beside", "3=0.5"}, []string{"--beside", "add up to 1.1", "live"}},
		"items without the one name":     {exitUsage, []string{"--items", items}, []string{"--items", "--item-name"}},
		"a name without items":           {exitUsage, []string{"--item-name", "item"}, []string{"--items", "--item-name"}},
		"items that nothing names":       {exitUsage, []string{"--items", items, "--item-name", "sku"}, []string{"--item-name", `"sku"`, "item, price"}},
		"items that are no file":         {exitUsage, []string{"--items", "/items.csv", "--item-name", "item"}, []string{"--items", "file:///path"}},
		"items that are not there":       {exitUsage, []string{"--items", "file://" + dir + "/none.csv", "--item-name", "item"}, []string{"none.csv", "no such file"}},
		"an unknown encoding":            {exitUsage, []string{"--encoding", "float8"}, []string{"--encoding", "float8"}},
		"bounds the wrong way round":     {exitUsage, []string{"--mean-min", "0.5", "--mean-max", "0.1"}, []string{"0.5", "0.1", "in order"}},
		"a bound of the loss below zero": {exitUsage, []string{"--loss-max", "-1"}, []string{"-1", "negative"}},
		"a run of nothing":               {exitUsage, []string{"--mean-max", "0.5", "--bounds-over", "-1"}, []string{"-1", "negative"}},
		"an argument":                    {exitUsage, []string{"now"}, []string{`"now"`}},
		"no HTTP address":                {exitUsage, []string{"--http", "bad"}, []string{"--http", `"bad"`, "port"}},
		"no gRPC address":                {exitUsage, []string{"--listen", "bad"}, []string{"--listen", `"bad"`, "port"}},
		"a port that is taken":           {exitUnavailable, []string{"--listen", used}, []string{used, "in use", "--listen"}},
		"a port of HTTP that is taken":   {exitUnavailable, []string{"--http", used}, []string{used, "in use", "--http"}},
		"no secret":                      {exitUsage, []string{"--secret-file", ""}, []string{"clicks", "user", "--secret-file"}},
		"another secret":                 {exitPrecondition, []string{"--secret-file", other}, []string{"clicks", "secret"}},
		"a secret that is not there":     {exitUsage, []string{"--secret-file", dir + "/none"}, []string{"none", "no such file"}},
		"an unknown model":               {exitPrecondition, []string{"--model", "other"}, []string{"other"}},
		"no coordinator":                 {exitUnavailable, []string{"--coordinator", "127.0.0.1:1"}, []string{"127.0.0.1:1", "refused", "--coordinator"}},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, test.code, test.want, append([]string{
				"serve", "--coordinator", c.coordinator, "--secret-file", secret, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
			}, test.args...)...)
		})
	}
	t.Run("a share that is no number", func(t *testing.T) {
		code, _, stderr := freshet(t, "serve", "--beside", "newest=NaN")
		if code != exitUsage || !strings.Contains(stderr, `--beside "newest=NaN": want a share between 0 and 1`) {
			t.Errorf("exit code %d, %s", code, stderr)
		}
	})
}
