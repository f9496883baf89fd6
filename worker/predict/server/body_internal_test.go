package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	predictv1 "github.com/freshet-ml/freshet/proto/freshet/predict/v1"
	"github.com/freshet-ml/freshet/worker/predict"
)

// It is a white-box test because it is about what bodies become, and what that costs, apart
// from the network and the model.

// FuzzBodies holds what bodies become against what encoding/json makes of them.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{"columns":{"uid":["17","18",null],"hour":[3]}}`, `{"model":"m","events":[{"uid":"17","price":1.50},{"hour":null,"uid":true},{"price":-0}]}`,
		`{"context":{"uid":17},"candidates":{"item":["a","b"]},"top":2.0,"filters":[{"column":"item","in":["a"]},{"column":"item","at_least":1e3}]}`,
		`{"candidates":[{"item":"a"},{"stock":1}],"filters":[{"column":"item","not_in":[null]}]}`,
		`{"top":3,"context":{"uid":"1"},"not_in":["a\n\u00e9"]}`, `{"top":3,"vector":[1,-0.5,1e-3]}`, `{"event":{"uid":"\ud83d\ude00","x":"\ud800"}}`,
		`{"events":[{"a":1},{"b":1},{"c":1}]}`, ` { "events" : [ { "a" : [ ] } ] } `, `{"columns":{"":[""]}}`, `[`, `null`, `{"a":"\"}"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, read := range []func(s *scan){
			func(s *scan) { _, _, _ = rankBody(s) }, func(s *scan) { _, _, _ = retrieveBody(s) },
		} {
			if s, err := newScan(body); err == nil {
				read(s)
			}
		}
		s, err := newScan(body)
		if err != nil {
			return
		}
		if _, columns, err := predictBody(s); err == nil {
			if want, ok := reference(body); ok {
				if got := byName(columns); !maps.EqualFunc(got, want, slices.Equal) {
					t.Errorf("%s\nbecomes %v\nwant    %v", body, got, want)
				}
			}
		}
		s.at = 0
		if _, columns, err := explainBody(s); err == nil {
			var read struct{ Event map[string]any }
			decode(body, &read)
			want := map[string][]string{}
			for name, value := range read.Event {
				want[name] = []string{text(value)}
			}
			if got := byName(columns); !maps.EqualFunc(got, want, slices.Equal) {
				t.Errorf("%s\nbecomes %v\nwant    %v", body, got, want)
			}
		}
	})
}

// decode decodes with numbers as they are written.
func decode(body []byte, into any) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		panic(err)
	}
}

func text(value any) string {
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

func byName(columns []predict.Column) map[string][]string {
	all := map[string][]string{}
	for _, c := range columns {
		all[c.Name] = c.Values
	}
	return all
}

// reference reads the columns of a body that is as described. It is not ok where a column is
// there twice, of which encoding/json keeps one.
func reference(body []byte) (columns map[string][]string, ok bool) {
	var read struct {
		Columns map[string][]any
		Events  []map[string]any
	}
	decode(body, &read)
	columns = map[string][]string{}
	for name, values := range read.Columns {
		columns[name] = []string{}
		for _, value := range values {
			columns[name] = append(columns[name], text(value))
		}
	}
	for i, row := range read.Events {
		for name, value := range row {
			if columns[name] == nil {
				columns[name] = make([]string, len(read.Events))
			}
			columns[name][i] = text(value)
		}
	}
	s, err := newScan(body)
	if err != nil {
		return nil, false
	}
	_, all, err := predictBody(s)
	return columns, err == nil && len(all) == len(columns)
}

// What a request costs beside the model: 200 candidates with 39 columns, of which 13 are
// numbers, all different.
const (
	benchEvents  = 200
	benchColumns = 39
)

// benchBodies returns the same request by column, row by row and as a message.
func benchBodies(t testing.TB) (byColumn, byRow, message []byte) {
	t.Helper()
	columns := map[string][]any{}
	rows := make([]map[string]any, benchEvents)
	m := new(predictv1.PredictRequest)
	for j := range benchColumns {
		c := &predictv1.Column{Name: fmt.Sprintf("column%02d", j)}
		for i := range benchEvents {
			var value any = fmt.Sprintf("%08x", (i*benchColumns+j)*2654435761%(1<<32))
			if j < 13 {
				value = i*j + 1
			}
			if rows[i] == nil {
				rows[i] = map[string]any{}
			}
			rows[i][c.GetName()] = value
			columns[c.GetName()] = append(columns[c.GetName()], value)
			c.Values = append(c.Values, fmt.Sprint(value))
		}
		m.Columns = append(m.Columns, c)
	}
	var err error
	if byColumn, err = json.Marshal(map[string]any{"columns": columns}); err != nil {
		t.Fatal(err)
	}
	if byRow, err = json.Marshal(map[string]any{"events": rows}); err != nil {
		t.Fatal(err)
	}
	if message, err = proto.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return byColumn, byRow, message
}

func TestABodyCostsNothingForEachOfItsValues(t *testing.T) {
	byColumn, byRow, _ := benchBodies(t)
	for name, body := range map[string][]byte{"by column": byColumn, "row by row": byRow} {
		allocated := testing.AllocsPerRun(10, func() {
			s, err := newScan(body)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := predictBody(s); err != nil {
				t.Fatal(err)
			}
		})
		if allocated > 4*benchColumns {
			t.Errorf("%s: %v allocations for %d values in %d columns", name, allocated, benchEvents*benchColumns, benchColumns)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	byColumn, byRow, message := benchBodies(b)
	size := fmt.Sprintf("candidates=%d/columns=%d", benchEvents, benchColumns)
	for name, body := range map[string][]byte{"json-columns": byColumn, "json-rows": byRow} {
		b.Run(name+"/"+size, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				s, err := newScan(body)
				if err != nil {
					b.Fatal(err)
				}
				if _, columns, err := predictBody(s); err != nil || events(columns) != benchEvents {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("message/"+size, func(b *testing.B) {
		b.SetBytes(int64(len(message)))
		b.ReportAllocs()
		for b.Loop() {
			m := new(predictv1.PredictRequest)
			if err := proto.Unmarshal(message, m); err != nil {
				b.Fatal(err)
			}
			if columns, err := predictWords(m); err != nil || events(columns) != benchEvents {
				b.Fatal(err)
			}
		}
	})
	b.Run("words-of-message/"+size, func(b *testing.B) { // without protobuf's own part
		m := new(predictv1.PredictRequest)
		if err := proto.Unmarshal(message, m); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if columns, err := predictWords(m); err != nil || len(columns) != benchColumns {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkReply(b *testing.B) {
	predictions := make([]predict.Prediction, benchEvents)
	for i := range predictions {
		predictions[i] = predict.Prediction{Score: float32(i) / 7, Value: float64(i) / 211}
	}
	size := fmt.Sprintf("candidates=%d", benchEvents)
	b.Run("json/"+size, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if text, err := document(newPredictReply(predictions, predict.Served{})); err != nil || strings.Contains(string(text[:10]), "error") {
				b.Fatal(err)
			}
		}
	})
	b.Run("message/"+size, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := proto.Marshal(predictMessage(predictions, predict.Served{})); err != nil {
				b.Fatal(err)
			}
		}
	})
}
