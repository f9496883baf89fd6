package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/freshet-ml/freshet/worker/deadletter"
)

// freshet runs a command line in this process.
func freshet(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(args, &out, &err)
	return code, out.String(), err.String()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// internals is what a user must never read.
var internals = regexp.MustCompile(`rpc error|code = |desc = |goroutine |panic|\.go:\d|strconv|interface \{\}|invalid argument|%!|<nil>|0x[0-9a-f]{6}|NaN`)

// refused checks that a command line ends with an exit code and one line that says
// all of want, and prints nothing else.
func refused(t *testing.T, code int, want []string, args ...string) {
	t.Helper()
	got, stdout, stderr := freshet(t, args...)
	last := stderr[strings.LastIndex(strings.TrimSuffix(stderr, "\n"), "\n")+1:]
	if got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	if stdout != "" {
		t.Errorf("stdout has %q, want nothing", stdout)
	}
	if !strings.HasPrefix(last, "freshet: ") {
		t.Errorf("the last line is %q, want one that begins with freshet:", last)
	}
	for _, w := range want {
		if !strings.Contains(last, w) {
			t.Errorf("got %q, want it to say %q", last, w)
		}
	}
	if found := internals.FindString(stderr); found != "" {
		t.Errorf("%q in %q is for programmers", found, stderr)
	}
	if t.Failed() {
		t.Logf("freshet %s", strings.Join(args, " "))
	}
}

const priceSpec = `model: clicks
stream: {format: csv, partitions: 4, partition_by: user, identifiers: [user]}
label: {column: clicked}
features:
  - {name: user, column: user}
  - {name: item, column: item}
  - {name: price, column: price, log: 2}
evaluation: {window: 1000, holdout: 0.02}
`

// writePrices writes n rows of user, item, price and clicked; change, if not nil,
// may change the row of a line.
func writePrices(t *testing.T, n int, change func(line int, row string) string) (path string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("user,item,price,clicked\n")
	for line := 2; line < n+2; line++ {
		row := fmt.Sprintf("u%d,i%d,%d.5,%d", line%97, line%13, line%50, line%13/7)
		if change != nil {
			row = change(line, row)
		}
		b.WriteString(row + "\n")
	}
	return write(t, filepath.Join(t.TempDir(), "prices.csv"), b.String())
}

func TestAWrongCommandLine(t *testing.T) {
	dir := t.TempDir()
	here := func(name string) string { return filepath.Join(dir, name) }
	specFile := write(t, here("good.yaml"), priceSpec)
	write(t, here("unknown.yaml"), strings.Replace(priceSpec, "column: price", "colum: price", 1))
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"an unknown flag":             {[]string{"up", "--nodse", "3"}, []string{"--nodse", "up --help"}},
		"an unknown command":          {[]string{"stats"}, []string{`"stats"`, "did you mean status"}},
		"an unknown subcommand":       {[]string{"model", "aply"}, []string{`"aply"`, "did you mean apply"}},
		"no spec":                     {[]string{"up"}, []string{"SPEC", "--example"}},
		"a spec and an example":       {[]string{"up", specFile, "--example", "shop"}, []string{"one of them"}},
		"too many arguments":          {[]string{"up", "a", "b"}, []string{`"a" "b"`, "up [SPEC]"}},
		"a missing argument":          {[]string{"model", "validate"}, []string{"missing", "validate SPEC"}},
		"an argument too much":        {[]string{"status", "now"}, []string{`"now"`}},
		"a flag without its value":    {[]string{"up", "--example"}, []string{"--example"}},
		"a word for a number":         {[]string{"up", "--nodes", "abc"}, []string{"--nodes", `"abc"`, "whole number"}},
		"too large a number":          {[]string{"up", "--nodes", "99999999999999999999"}, []string{"--nodes", "not as large"}},
		"three shards":                {[]string{"up", specFile, "--shards", "3"}, []string{"--shards", "power of two"}},
		"no nodes":                    {[]string{"up", specFile, "--nodes", "0"}, []string{"--nodes 0"}},
		"no workers":                  {[]string{"up", specFile, "--workers", "-1"}, []string{"--workers -1"}},
		"a negative number in flight": {[]string{"up", specFile, "--in-flight", "-1"}, []string{"--in-flight -1"}},
		"a negative rate":             {[]string{"up", specFile, "--rate", "-1"}, []string{"--rate -1", "per second"}},
		"a rate of a worker's":        {[]string{"worker", "--rate", "inf"}, []string{"--rate +Inf", "per second"}},
		"kills that never let up":     {[]string{"up", specFile, "--kill-every", "5ms"}, []string{"--kill-every 5ms", "1s"}},
		"kills before the start":      {[]string{"up", specFile, "--kill-every", "-5s"}, []string{"--kill-every -5s", "1s"}},
		"kills without epochs":        {[]string{"up", specFile, "--kill-every", "5s", "--checkpoint-every", "0"}, []string{"--kill-every", "--checkpoint-every"}},
		"a number for a time":         {[]string{"up", specFile, "--kill-every", "5"}, []string{"--kill-every", `"5"`, "5s"}},
		"nothing to recover from":     {[]string{"bench", "recovery", "--bytes", "0", "--standbys", "0"}, []string{"--bytes 0", "--standbys 0"}},
		"no node to stand by":         {[]string{"bench", "recovery", "--nodes", "1"}, []string{"--nodes 1", "--standbys 1"}},
		"recovery without load":       {[]string{"bench", "recovery", "--rate", "0"}, []string{"--rate 0", "per second"}},
		"no kills":                    {[]string{"bench", "recovery", "--kills", "0"}, []string{"--kills 0"}},
		"recovery without epochs":     {[]string{"bench", "recovery", "--checkpoint-every", "0"}, []string{"--checkpoint-every 0s"}},
		"recovery of three shards":    {[]string{"bench", "recovery", "--shards", "3"}, []string{"--shards", "power of two"}},
		"an unknown example":          {[]string{"up", "--example", "shoop"}, []string{`"shoop"`, "shop or kuairand"}},
		"a stream for an example":     {[]string{"up", "--example", "shop", "--stream", "file:///x"}, []string{"--stream"}},
		"kuairand without data":       {[]string{"up", "--example", "kuairand"}, []string{"--data", "users.csv"}},
		"kuairand without users":      {[]string{"up", "--example", "kuairand", "--data", dir}, []string{"users.csv", dir}},
		"an unknown output":           {[]string{"data", "list", "-o", "yaml"}, []string{`"yaml"`, "text or json"}},
		"an unknown log level":        {[]string{"version", "--log-level", "loud"}, []string{`"loud"`, "debug"}},
		"an address without a port":   {[]string{"up", specFile, "--listen", "localhost"}, []string{"--listen", "port"}},
		"a coordinator without one":   {[]string{"status", "--coordinator", "localhost"}, []string{"--coordinator", "host:port"}},
		"no spec file":                {[]string{"up", here("none.yaml")}, []string{"none.yaml", "no such file"}},
		"a folder for a spec":         {[]string{"up", dir}, []string{dir, "directory"}},
		"an unknown key in a spec":    {[]string{"up", here("unknown.yaml")}, []string{"unknown.yaml:7:", "colum", `did you mean "column"`}},
		"a spec without a stream":     {[]string{"up", specFile}, []string{"--stream"}},
		"a path for a URL":            {[]string{"up", specFile, "--stream", "a.csv"}, []string{`"a.csv"`, "file:///"}},
		"a relative URL":              {[]string{"up", specFile, "--stream", "file://a.csv"}, []string{"file:///absolute"}},
		"no secret":                   {[]string{"model", "apply", specFile, "--stream", "file://" + specFile}, []string{"--secret-file", "user"}},
		"an empty secret":             {[]string{"audit", "--secret-file", write(t, here("empty"), "")}, []string{"empty"}},
		"events to predict missing":   {[]string{"predict"}, []string{"--events"}},
		"a negative limit":            {[]string{"predict", "--events", "file:///x", "--limit", "-1"}, []string{"--limit -1"}},
		"a negative number to show":   {[]string{"model", "validate", specFile, "--show", "-1"}, []string{"--show -1"}},
		"init without a file":         {[]string{"model", "init", "--label", "x"}, []string{"--from"}},
		"init from a folder":          {[]string{"model", "init", "--from", dir, "--label", "x"}, []string{dir, "directory"}},
		"generate to nowhere":         {[]string{"stream", "generate"}, []string{"--out"}},
		"generate to a missing place": {[]string{"stream", "generate", "--out", here("none/x.csv")}, []string{"--out", "no such file"}},
		"generate less than nothing":  {[]string{"stream", "generate", "--out", specFile, "--events", "-5"}, []string{"--events -5"}},
		"generate an unknown shape":   {[]string{"stream", "generate", "--out", specFile, "--shape", "round"}, []string{`"round"`, "shop or criteo"}},
		"generate with a shop's flag": {[]string{"stream", "generate", "--out", specFile, "--shape", "criteo", "--users", "5"}, []string{"--users", "criteo"}},
		"bench with no rule":          {[]string{"bench", "store", "--optimizer", "magic"}, []string{`"magic"`, "adagrad"}},
		"bench of no share":           {[]string{"bench", "checkpoint", "--touched", "0"}, []string{"--touched 0", "above 0"}},
		"bench of no rounds":          {[]string{"bench", "checkpoint", "--rounds", "0"}, []string{"--rounds 0"}},
		"bench of epochs to nowhere":  {[]string{"bench", "checkpoint", "--checkpoints", "epochs"}, []string{"--checkpoints", "file:///"}},
		"bench of no network":         {[]string{"bench", "train", "--network", "magic"}, []string{`"magic"`, "logistic"}},
		"bench by an unknown product": {[]string{"bench", "train", "--product", "magic"}, []string{`"magic"`, "gonum"}},
		"a worker's unknown product":  {[]string{"worker", "--product", "magic"}, []string{`"magic"`, "gonum"}},
		"bench of no examples":        {[]string{"bench", "train", "--examples", "0"}, []string{"--examples 0"}},
		"bench of no passes":          {[]string{"bench", "train", "--passes", "0"}, []string{"--passes 0"}},
		"bench with none in flight":   {[]string{"bench", "train", "--in-flight", "0"}, []string{"--in-flight 0"}},
		"bench of three shards":       {[]string{"bench", "train", "--shards", "3"}, []string{"--shards"}},
		"bench without epochs":        {[]string{"bench", "train", "--checkpoint-every", "0"}, []string{"--checkpoint-every"}},
		"bench of a missing stream":   {[]string{"bench", "train", "--source", "file:///none/x.vw"}, []string{"/none/x.vw"}},
		"bench of a missing spec":     {[]string{"bench", "train", "--spec", here("none.yaml")}, []string{"--spec", "none.yaml"}},
		"bench of no encoding":        {[]string{"bench", "lookup", "--encoding", "int4"}, []string{"--encoding", `"int4"`, "int8"}},
		"too large a look-up":         {[]string{"bench", "lookup", "--keys", "1000000"}, []string{"--keys 1000000", "262144"}},
		"look-ups of no keys":         {[]string{"ps", "--lookup-keys-max", "0"}, []string{"--lookup-keys-max 0"}},
		"look-ups at a negative rate": {[]string{"ps", "--lookup-rate", "-1"}, []string{"--lookup-rate -1", "per second"}},
		"bench of no memory":          {[]string{"bench", "memory", "--rows", "0"}, []string{"--rows"}},
		"an unknown setting":          {[]string{"data", "list", "--config", write(t, here("a.yaml"), "nodes: 2\nnodse: 3\n")}, []string{"a.yaml:2", `"nodse"`}},
		"a broken settings file":      {[]string{"data", "list", "--config", write(t, here("b.yaml"), "nodes: [3\nx")}, []string{"b.yaml", "line 2"}},
		"a list of settings":          {[]string{"data", "list", "--config", write(t, here("c.yaml"), "- a\n")}, []string{"c.yaml:1", "until-end: true"}},
		"a setting of another kind":   {[]string{"up", "--config", write(t, here("d.yaml"), "\nnodes: many\n")}, []string{"d.yaml:2", "--nodes", `"many"`}},
		"a setting twice":             {[]string{"up", "--config", write(t, here("e.yaml"), "nodes: 1\nnodes: 2\n")}, []string{"nodes"}},
		"no settings file":            {[]string{"up", "--config", here("none.yaml")}, []string{"none.yaml"}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, exitUsage, test.want, test.args...) })
	}
	t.Run("a word for a number in the environment", func(t *testing.T) {
		t.Setenv("FRESHET_NODES", "abc")
		refused(t, exitUsage, []string{"FRESHET_NODES", `"abc"`}, "up", specFile)
	})
	t.Run("what was refused has changed nothing", func(t *testing.T) {
		if got, err := os.ReadFile(specFile); err != nil || string(got) != priceSpec {
			t.Errorf("the file that was not to be written holds %q (%v)", got, err)
		}
	})
}

func TestSettingsComeInLayers(t *testing.T) {
	config := write(t, filepath.Join(t.TempDir(), "freshet.yaml"), "output: json\nlog-level: error\nrows-max: 7\n")
	jsonOut := func(args ...string) bool {
		code, out, stderr := freshet(t, append([]string{"version", "--config", config}, args...)...)
		if code != 0 {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		return strings.HasPrefix(out, "{")
	}
	if !jsonOut() {
		t.Error("the file has no effect")
	}
	t.Setenv("FRESHET_OUTPUT", "text")
	if jsonOut() {
		t.Error("the environment does not win over the file")
	}
	if !jsonOut("-o", "json") {
		t.Error("the command line does not win over the environment")
	}
}

func TestAStreamThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	specFile := write(t, filepath.Join(dir, "spec.yaml"), priceSpec)
	url := func(path string) string { return "file://" + path }
	up := func(stream string) []string {
		return []string{"up", specFile, "--stream", stream, "--until-end", "--listen", "127.0.0.1:0"}
	}
	for name, test := range map[string]struct {
		stream string
		want   []string
	}{
		"a missing file":   {url(dir + "/none.csv"), []string{"none.csv", "no such file"}},
		"a folder":         {url(dir), []string{dir, "no regular file"}},
		"an empty file":    {url(write(t, dir+"/empty.csv", "")), []string{"empty.csv", "column names"}},
		"a missing column": {url(write(t, dir+"/less.csv", "user,item,prices,clicked\na,b,1,0\n")), []string{"less.csv", `"price"`, `did you mean "prices"`}},
		"no zstd":          {url(write(t, dir+"/a.csv.zst", "user,item,price,clicked\na,b,1,0\n")), []string{"a.csv.zst"}},
		"zstd cut short":   {url(cutZstd(t, dir)), []string{"cut.csv.zst", "middle of a zstd frame"}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, exitUsage, test.want, up(test.stream)...) })
	}
	t.Run("leaves the directory as it was, so that it can be tried again", func(t *testing.T) {
		made := filepath.Join(dir, "made")
		refused(t, exitUsage, nil, append(up(url(dir+"/none.csv")), "--dir", made)...)
		if _, err := os.Stat(made); !os.IsNotExist(err) {
			t.Errorf("a directory that was made is there: %v", err)
		}
		empty := t.TempDir()
		refused(t, exitUsage, nil, append(up(url(dir+"/none.csv")), "--dir", empty)...)
		if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
			t.Errorf("left behind: %v (%v)", entries, err)
		}
	})
	t.Run("nothing is overwritten", func(t *testing.T) {
		refused(t, exitPrecondition, []string{"--dir", dir, "new directory"}, append(up(url(dir+"/less.csv")), "--dir", dir)...)
		refused(t, exitUsage, []string{"--dir", "not a directory"}, append(up(url(dir+"/less.csv")), "--dir", specFile)...)
	})
}

// cutZstd writes half of a compressed stream that is long enough for a part of it
// to be readable.
func cutZstd(t *testing.T, dir string) (path string) {
	t.Helper()
	text, err := os.ReadFile(writePrices(t, 100_000, func(line int, row string) string {
		return strings.Replace(row, "u", "u"+strconv.Itoa(line*7919%100_003)+"-", 1)
	}))
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	whole := encoder.EncodeAll(text, nil)
	return write(t, filepath.Join(dir, "cut.csv.zst"), string(whole[:len(whole)/2]))
}

func TestAFileWithoutRowsIsAReportOfNothing(t *testing.T) {
	specFile := write(t, filepath.Join(t.TempDir(), "spec.yaml"), priceSpec)
	stream := "file://" + writePrices(t, 0, nil)
	args := []string{"up", specFile, "--stream", stream, "--until-end", "--listen", "127.0.0.1:0"}
	code, out, stderr := freshet(t, append(args, "-o", "json")...)
	var doc struct {
		Events      *int64
		Progressive map[string]*float64
	}
	if err := json.Unmarshal([]byte(out), &doc); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, stderr)
	}
	if *doc.Events != 0 || doc.Progressive["log_loss"] != nil || doc.Progressive["auc"] != nil {
		t.Errorf("got %s, want 0 events and null figures", out)
	}
	code, out, _ = freshet(t, args...)
	if code != 0 || !strings.Contains(out, "no events") || strings.Contains(out, "NaN") || strings.Contains(out, "exactly once") {
		t.Errorf("exit code %d, report %q, want that there was nothing to learn", code, out)
	}
}

func TestRowsThatCannotBeUsedAreSkippedOnce(t *testing.T) {
	const rows, secretText = 3000, "HUSHHUSH"
	bad := map[int]struct{ row, reason string }{
		11:  {secretText + ",i3", "2 fields"},
		101: {secretText + ",i3,NaN,1", `"price"`},
		201: {secretText + ",i3,5," + secretText, `"clicked"`},
		301: {secretText + ",\"i3,5,1", "quote"},
		401: {secretText + ",i3," + secretText + ",0", `"price"`},
		501: {secretText + ",i3,5,2", `"clicked"`},
		601: {secretText + ",i3,5,1,more", "5 fields"},
	}
	events := writePrices(t, rows, func(line int, row string) string {
		if b, ok := bad[line]; ok {
			return b.row
		}
		return row
	})
	base := t.TempDir()
	specFile := write(t, filepath.Join(base, "spec.yaml"), priceSpec)
	dir := filepath.Join(base, "dir")
	code, out, stderr := freshet(t, "up", specFile, "--stream", "file://"+events, "--until-end", "--listen", "127.0.0.1:0", "--dir", dir, "-o", "json")
	var r upReport
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, stderr)
	}
	skipped := int64(len(bad))
	if r.Events != rows || r.Audit.Events != rows || r.Audit.Skipped != skipped || !r.Audit.Clean() || int64(r.Progressive.Events) != rows-skipped {
		t.Errorf("%d events, %v scored, audit %+v; want %d events of which %d are skipped", r.Events, r.Progressive.Events, r.Audit, rows, skipped)
	}
	if r.DeadLetters != filepath.Join(dir, lettersName) {
		t.Errorf("dead letters are said to be in %q", r.DeadLetters)
	}
	list, err := os.ReadFile(r.DeadLetters)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		var l deadletter.Letter
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		b, ok := bad[int(l.Line)]
		if !ok || l.File != events || !strings.Contains(l.Reason, b.reason) {
			t.Errorf("letter %+v, want file %s and a reason with %q", l, events, b.reason)
		}
		delete(bad, int(l.Line))
	}
	if len(bad) > 0 {
		t.Errorf("not listed: %v", bad)
	}
	noText(t, dir, secretText)
}

// noText checks that no file below dir holds a text.
func noText(t *testing.T, dir, text string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if doc, err := os.ReadFile(path); err != nil || bytes.Contains(doc, []byte(text)) {
			t.Errorf("%s holds the text of a row (%v)", path, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAStreamThatTheSpecDoesNotFitEnds(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	specFile := write(t, filepath.Join(t.TempDir(), "spec.yaml"), priceSpec)
	events := writePrices(t, 3000, func(_ int, row string) string { return row[:len(row)-1] + "yes" })
	args := []string{"up", specFile, "--stream", "file://" + events, "--until-end", "--listen", "127.0.0.1:0"}
	refused(t, exitFailure, []string{"check the spec against the stream", events + ":", `"clicked"`, lettersName}, args...)
	kept, err := filepath.Glob(filepath.Join(os.TempDir(), "*", "*"))
	if err != nil || len(kept) != 1 || filepath.Base(kept[0]) != lettersName {
		t.Errorf("of the temporary directory %v is kept (%v), want the dead letters", kept, err)
	}
}

func TestWhatCannotBeReached(t *testing.T) {
	dir := t.TempDir()
	specFile := write(t, filepath.Join(dir, "spec.yaml"), priceSpec)
	events, secret := "file://"+writePrices(t, 10, nil), write(t, filepath.Join(dir, "secret"), string(testSecret))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() }) // after the parallel tests
	taken := listener.Addr().String()
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"a port in use":        {[]string{"up", specFile, "--stream", events, "--until-end", "--listen", taken}, []string{taken, "in use", "--listen"}},
		"no etcd":              {[]string{"worker", "--etcd", "127.0.0.1:1", "--dead-letters", filepath.Join(dir, "dead")}, []string{"127.0.0.1:1", "--etcd"}},
		"nobody for status":    {[]string{"status", "--coordinator", "127.0.0.1:1"}, []string{"127.0.0.1:1", "refused", "--coordinator"}},
		"nobody to checkpoint": {[]string{"checkpoint", "--coordinator", "127.0.0.1:1"}, []string{"127.0.0.1:1", "refused", "--coordinator"}},
		"nobody with epochs":   {[]string{"epochs", "--coordinator", "127.0.0.1:1"}, []string{"127.0.0.1:1", "refused", "--coordinator"}},
		"nobody to restore":    {[]string{"restore", "--epoch", "1", "--coordinator", "127.0.0.1:1"}, []string{"127.0.0.1:1", "refused", "--coordinator"}},
		"nobody to verify":     {[]string{"verify", "--coordinator", "127.0.0.1:1"}, []string{"127.0.0.1:1", "refused", "--coordinator"}},
		"nobody to predict":    {[]string{"predict", "--coordinator", "127.0.0.1:1", "--events", events, "--secret-file", secret}, []string{"127.0.0.1:1", "refused"}},
		"nobody to audit":      {[]string{"audit", "--coordinator", "127.0.0.1:1", "--stream", events, "--secret-file", secret}, []string{"127.0.0.1:1", "refused"}},
		"nobody to apply to": {
			[]string{"model", "apply", specFile, "--coordinator", "127.0.0.1:1", "--stream", events, "--secret-file", secret},
			[]string{"127.0.0.1:1", "refused"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, exitUnavailable, test.want, test.args...)
		})
	}
}

// TestOperatorsMistakes asks a running cluster for what it must refuse.
func TestOperatorsMistakes(t *testing.T) {
	c := newTestCluster(t, 1, 1)
	csv := writePrices(t, 2000, nil)
	c.apply(priceSpec, csv)
	c.startNode("a")
	c.startWorker("w")
	c.dial()
	c.waitFor(2000)
	dir := t.TempDir()
	here := func(name, text string) string { return write(t, filepath.Join(dir, name), text) }
	specFile, secret, other := here("spec.yaml", priceSpec), here("secret", string(testSecret)), here("other", "not the secret of this cluster")
	events := "file://" + csv
	ask := func(command string, args ...string) []string {
		return append(strings.Fields(command), append([]string{"--coordinator", c.coordinator}, args...)...)
	}

	t.Run("the right questions are answered", func(t *testing.T) {
		for _, args := range [][]string{
			ask("status"), ask("audit", "--stream", events, "--secret-file", secret),
			ask("predict", "--events", events, "--secret-file", secret, "--limit", "3"),
			ask("model apply", specFile, "--stream", events, "--secret-file", secret),
		} {
			code, out, stderr := freshet(t, args...)
			if code != 0 || out == "" || stderr != "" {
				t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, out, stderr)
			}
			if args[0] == "model" && !strings.Contains(out, "was applied already") {
				t.Errorf("applied again: %q, want that nothing has changed", out)
			}
		}
	})
	less := "file://" + here("less.csv", "user,item\nu1,i1\n")
	words := "file://" + here("words.vw", "1 |a b c\n")
	changed := "file://" + writePrices(t, 2000, func(line int, row string) string { return strings.Replace(row, "i5", "i6", 1) })
	changedSpec := here("changed.yaml", strings.Replace(priceSpec, "name: item", "name: thing", 1))
	for name, test := range map[string]struct {
		code int
		args []string
		want []string
	}{
		"predict without a column":        {exitUsage, ask("predict", "--events", less, "--secret-file", secret), []string{"less.csv", `"price"`}},
		"predict in another format":       {exitUsage, ask("predict", "--events", words, "--secret-file", secret), []string{"words.vw", "column"}},
		"predict without the secret":      {exitUsage, ask("predict", "--events", events), []string{"--secret-file"}},
		"predict with another secret":     {exitPrecondition, ask("predict", "--events", events, "--secret-file", other), []string{"secret is another", "--secret-file"}},
		"predict with an unknown model":   {exitPrecondition, ask("predict", "--events", events, "--secret-file", secret, "--model", "x"), []string{"model x", "clicks"}},
		"audit of a changed file":         {exitPrecondition, ask("audit", "--stream", changed, "--secret-file", secret), []string{"the file", "is another"}},
		"audit with another secret":       {exitPrecondition, ask("audit", "--stream", events, "--secret-file", other), []string{"secret is another"}},
		"apply a changed spec":            {exitPrecondition, ask("model apply", changedSpec, "--stream", events, "--secret-file", secret), []string{"another name"}},
		"apply a spec on a changed file":  {exitPrecondition, ask("model apply", specFile, "--stream", changed, "--secret-file", secret), []string{"another name"}},
		"apply a spec that does not read": {exitUsage, ask("model apply", specFile, "--stream", less, "--secret-file", secret), []string{"less.csv"}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, test.code, test.want, test.args...) })
	}
	t.Run("predict names the rows that cannot be used", func(t *testing.T) {
		mixed := "file://" + here("mixed.csv", "user,item,price\nu1,i1,3\nu2,i2,HUSH\n")
		code, out, stderr := freshet(t, ask("predict", "--events", mixed, "--secret-file", secret, "-o", "json")...)
		var doc struct {
			Predictions []one
			Unusable    int
		}
		if err := json.Unmarshal([]byte(out), &doc); code != 0 || err != nil || len(doc.Predictions) != 2 || doc.Unusable != 1 {
			t.Fatalf("exit code %d, %v: %s%s", code, err, out, stderr)
		}
		if first, second := doc.Predictions[0], doc.Predictions[1]; first.Prediction == nil || second.Prediction != nil ||
			!strings.Contains(second.Error, `"price"`) || strings.Contains(out+stderr, "HUSH") {
			t.Errorf("got %s", out)
		}
	})
}
