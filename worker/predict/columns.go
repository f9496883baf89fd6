package predict

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

// schema says which columns events may be given by. It does not change.
type schema struct {
	// names are the extractor's columns, in order, and behind them the event time's unless
	// it is one of them.
	names  []string
	asked  int    // how many are the extractor's
	masked []bool // by column
	time   int    // column with the event time, or -1
	clock  spec.Time
	at     map[string]int // by name: the column, or ignored, or ofItems
	secret []byte
	now    func() time.Time
	known  []string // what the columns are, for messages
}

// What a name stands for that is no column of the schema's.
const (
	ignored = -1 - iota // a column that nothing here depends on
	ofItems             // a column that the list of items has
)

// newSchema returns the schema of events of a spec that have columns for an extractor.
func newSchema(s *spec.Spec, columns []string, c *ScorerConfig) (*schema, error) {
	m := &schema{names: slices.Clone(columns), asked: len(columns), time: -1, clock: s.Stream.Time, secret: c.Secret, now: c.Now, at: make(map[string]int)}
	if len(s.Stream.Identifiers) > 0 {
		if _, err := mask.New(c.Secret); err != nil {
			return nil, err
		}
	}
	if column := s.Stream.Time.Column; column != "" {
		if m.time = slices.Index(m.names, column); m.time < 0 {
			m.time = len(m.names)
			m.names = append(m.names, column)
		}
	}
	// What else the spec says of the stream's rows may be sent along, as a row has it.
	m.mark(s.Stream.Identifiers, ignored)
	m.mark([]string{s.Label.Column, s.Stream.PartitionBy}, ignored)
	if s.Stream.Format == spec.VW {
		m.mark([]string{feature.LabelColumn, feature.ImportanceColumn}, ignored)
	}
	delete(m.at, "")
	for i, name := range m.names {
		m.at[name] = i
		m.masked = append(m.masked, slices.Contains(s.Stream.Identifiers, name))
	}
	m.known = m.names
	return m, nil
}

// mark says what names stand for that are no columns of the schema's.
func (m *schema) mark(names []string, meaning int) {
	for _, name := range names {
		if at, ok := m.at[name]; !ok || at < 0 {
			m.at[name] = meaning
		}
	}
}

// unknown returns the error for a column that there is not.
func (m *schema) unknown(name string) error {
	near := ""
	if meant := spec.Nearest(name, m.known); meant != "" {
		near = fmt.Sprintf("did you mean %q? ", meant)
	}
	return fmt.Errorf("unknown column %q: %sthe model reads %s: %w", shortened(name), near, listed(m.known), ps.ErrInvalid)
}

// listed joins names for a message. A long list is cut.
func listed(names []string) string {
	const most = 40
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// shortened cuts a name that somebody else made up for a message.
func shortened(name string) string {
	const most = 100
	if len(name) > most {
		return strings.ToValidUTF8(name[:most], "") + "…"
	}
	return name
}

// requestFile stands for the file of events that come in a request; their lines are
// counted from 1.
const requestFile = "request"

// events are a request's events. They have one owner, and allocate nothing per event. Their
// memory is the request's until clear.
type events struct {
	*schema
	masker *mask.Masker // nil if nothing is masked

	n     int // how many events
	bytes int // of text
	// given has the values of each column, by column; nil: it is not there.
	given   [][]string
	shared  []bool // by column of the extractor: it is the same for all events
	varying []int  // the columns that are not
	event   worker.Event
	masks   []byte // of the event's columns; those of shared ones come first
	fixed   int    // how many bytes of masks are those of shared columns
	bad     error  // what is wrong with a time that all share
}

func (m *schema) newEvents() (*events, error) {
	v := &events{schema: m, given: make([][]string, len(m.names)), shared: make([]bool, len(m.names))}
	v.event.File = requestFile
	v.event.Columns = make([][]byte, len(m.names))
	if slices.Contains(m.masked, true) {
		var err error
		if v.masker, err = mask.New(m.secret); err != nil {
			return nil, err
		}
	}
	v.clear()
	return v, nil
}

// clear forgets the request.
func (v *events) clear() {
	clear(v.given)
	clear(v.event.Columns)
	v.n, v.bytes = shareable, 0
}

// shareable is how many events there are while only values that all share are known.
const shareable = -1

// add adds columns. Those that the schema does not have are refused, unless a filter is on
// them. The values' lengths have to fit.
func (v *events) add(columns []Column, filters []Filter) error {
	for i := range columns {
		c := &columns[i]
		v.count(c.Values)
		if err := v.fit(c); err != nil {
			return err
		}
		at, known := v.at[c.Name]
		switch {
		case !known && slices.ContainsFunc(filters, func(f Filter) bool { return f.Column == c.Name }):
		case !known:
			return v.unknown(c.Name)
		case at == ignored:
		case at == ofItems:
			return fmt.Errorf("column %q is one that the items have: leave it out: %w", c.Name, ps.ErrInvalid)
		case v.given[at] != nil:
			return fmt.Errorf("column %q is there twice: %w", c.Name, ps.ErrInvalid)
		case len(c.Values) == 0:
			v.given[at] = none
		default:
			v.given[at] = c.Values
		}
	}
	return nil
}

var none = []string{}

// count counts the text of values.
func (v *events) count(values []string) {
	for _, text := range values {
		v.bytes += len(text)
	}
}

// fit sees to it that a column has a value for each event, or one for all.
func (v *events) fit(c *Column) error {
	switch n := len(c.Values); {
	case n == 1 || n == v.n:
	case v.n == shareable:
		v.n = n
	default:
		return fmt.Errorf("column %q has %d values, and there are %d events: want one for each, or one that all share: %w",
			shortened(c.Name), n, v.n, ps.ErrInvalid)
	}
	return nil
}

// begin ends adding: the events can be looked at. Columns with one value are those of all
// events.
func (v *events) begin() {
	if v.n == shareable {
		v.n = 1
	}
	v.varying, v.masks, v.bad = v.varying[:0], v.masks[:0], nil
	for i, values := range v.given {
		v.shared[i] = len(values) == 1 || values == nil
		if !v.shared[i] {
			v.varying = append(v.varying, i)
		} else if values != nil {
			v.set(i, values[0])
		}
	}
	v.fixed = len(v.masks)
	v.event.Time = 0
	switch {
	case v.time < 0:
	case v.given[v.time] == nil:
		v.event.Time = v.now().UnixMilli()
	case v.shared[v.time]:
		v.event.Time, v.bad = v.clock.Milliseconds(v.event.Columns[v.time])
	}
}

// sharedClock reports whether all events have the same time.
func (v *events) sharedClock() bool { return v.time < 0 || v.shared[v.time] }

// set gives the event at hand a column.
func (v *events) set(column int, text string) {
	// Nobody changes an event's columns, so they may be the string itself.
	b := bytesOf(text)
	if v.masked[column] && len(b) > 0 {
		from := len(v.masks)
		v.masks = v.masker.Append(v.masks, b)
		b = v.masks[from:len(v.masks):len(v.masks)]
	}
	v.event.Columns[column] = b
}

func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }

// get returns event i, which is valid until the next call.
func (v *events) get(i int) *worker.Event {
	v.masks = v.masks[:v.fixed]
	for _, column := range v.varying {
		v.set(column, v.given[column][i])
	}
	e := &v.event
	e.Offset, e.Row, e.Line, e.Err = ps.Offset(i), ps.Offset(i), int64(i)+1, nil
	bad := v.bad
	if v.time >= 0 && !v.shared[v.time] {
		e.Time, bad = v.clock.Milliseconds(e.Columns[v.time])
	}
	if bad != nil {
		e.Err = &worker.Unreadable{File: requestFile, Line: e.Line, Reason: bad.Error()}
	}
	return e
}
