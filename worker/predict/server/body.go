package server

import (
	"fmt"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/predict"
)

// Bodies of requests become words here; openapi.json says what is in them. A column's values
// are strings, as a stream has them; in the place of one there may be a number or a boolean,
// taken as it is written, and null is a missing one.

func predictBody(s *scan) (model string, columns []predict.Column, err error) {
	given := 0
	err = s.fields([]string{"model", "columns", "events"}, func(name string) (err error) {
		switch name {
		case "model":
			model, err = s.string()
		case "columns":
			given++
			columns, err = s.columns()
		case "events":
			given++
			columns, err = s.rows()
		}
		return err
	})
	if err == nil && given != 1 {
		err = fmt.Errorf("want either columns or events: %w", ps.ErrInvalid)
	}
	return model, columns, err
}

func explainBody(s *scan) (model string, columns []predict.Column, err error) {
	err = s.fields([]string{"model", "event"}, func(name string) (err error) {
		switch name {
		case "model":
			model, err = s.string()
		case "event":
			columns, err = s.row()
		}
		return err
	})
	if err == nil && columns == nil {
		err = fmt.Errorf("event: it is missing: %w", ps.ErrInvalid)
	}
	return model, columns, err
}

func rankBody(s *scan) (model string, r predict.Rank, err error) {
	err = s.fields([]string{"model", "context", "candidates", "top", "filters"}, func(name string) (err error) {
		switch name {
		case "model":
			model, err = s.string()
		case "context":
			r.Context, err = s.row()
		case "candidates":
			if s.next() == '[' {
				r.Candidates, err = s.rows()
			} else {
				r.Candidates, err = s.columns()
			}
		case "top":
			r.Top, err = s.count()
		case "filters":
			err = s.array(func(int) error {
				f, err := s.filter()
				r.Filters = append(r.Filters, f)
				return err
			})
		}
		return err
	})
	if err == nil && r.Candidates == nil {
		err = fmt.Errorf("candidates: they are missing: %w", ps.ErrInvalid)
	}
	return model, r, err
}

func retrieveBody(s *scan) (model string, r predict.Retrieve, err error) {
	err = s.fields([]string{"model", "top", "context", "vector", "not_in"}, func(name string) (err error) {
		switch name {
		case "model":
			model, err = s.string()
		case "top":
			r.Top, err = s.count()
		case "context":
			r.Context, err = s.row()
		case "vector":
			err = s.array(func(int) error {
				x, err := s.number(32)
				r.Vector = append(r.Vector, float32(x))
				return err
			})
			if err == nil && len(r.Vector) == 0 {
				err = errNothing
			}
		case "not_in":
			r.NotIn, err = s.values()
		}
		return err
	})
	if err == nil {
		r, err = retrieve(r)
	}
	return model, r, err
}

func (s *scan) filter() (f predict.Filter, err error) {
	tests, columns := 0, 0
	err = s.fields([]string{"column", "in", "not_in", "at_least", "at_most"}, func(name string) (err error) {
		tests++
		switch name {
		case "column":
			tests, columns = tests-1, 1
			f.Column, err = s.string()
		case "in":
			f.In, err = s.values()
		case "not_in":
			f.NotIn, err = s.values()
		case "at_least":
			f.AtLeast, err = s.bound()
		case "at_most":
			f.AtMost, err = s.bound()
		}
		return err
	})
	switch {
	case err != nil:
	case columns == 0:
		err = fmt.Errorf("column: it is missing: %w", ps.ErrInvalid)
	case tests != 1:
		err = errTests
	}
	return f, err
}

func (s *scan) bound() (*float64, error) {
	x, err := s.number(64)
	return &x, err
}

// values reads an array of values, which is not nil.
func (s *scan) values() ([]string, error) {
	values := []string{}
	err := s.array(func(int) error {
		text, err := s.value()
		values = append(values, text)
		return err
	})
	return values, err
}

// row reads an object with a value for each column: one event. There is at least one.
func (s *scan) row() ([]predict.Column, error) {
	r := rows{valuesMax: len(s.text)}
	err := r.add(s)
	return r.columns, err
}

// columns reads an object with an array of values for each column. It is not nil.
func (s *scan) columns() ([]predict.Column, error) {
	columns := []predict.Column{}
	var values []string // of all columns, one after the other
	var ends []int
	err := s.object(func(name string) error {
		columns = append(columns, predict.Column{Name: name})
		err := s.array(func(int) error {
			text, err := s.value()
			values = append(values, text)
			return err
		})
		ends = append(ends, len(values))
		return err
	})
	if err == nil && len(columns) == 0 {
		err = errNothing
	}
	from := 0
	for i, end := range ends {
		columns[i].Values = values[from:end:end]
		from = end
	}
	return columns, err
}

// errNothing: an object or an array is empty, which nobody can mean.
var errNothing = fmt.Errorf("it is empty: %w", ps.ErrInvalid)

// rows reads an array of rows and returns their columns, which are not nil: those that any
// row has, in the order in which they appear. Where a row lacks one, its value is missing.
func (s *scan) rows() ([]predict.Column, error) {
	r := rows{valuesMax: max(len(s.text), 1<<16)}
	from, n := s.at, 0
	err := s.array(func(i int) error {
		n++
		err := r.add(s)
		if i == 0 {
			r.expect((len(s.text) - from) / (s.at - from))
		}
		return err
	})
	if err == nil && n == 0 {
		err = errNothing
	}
	for j := range r.columns {
		r.pad(j)
	}
	return r.columns, err
}

// rows are events that came as rows, by column.
type rows struct {
	n       int // how many rows have been read
	columns []predict.Column
	at      map[string]int // by name: its column
	// valuesMax bounds what the columns become. Rows that each have what the others lack
	// would otherwise grow with their square; a body has more bytes than values.
	valuesMax int
}

// add reads a row. It may be that the last values of columns are still to be padded.
func (r *rows) add(s *scan) error {
	next := 0 // the column that comes if this row is like the first
	fields := 0
	err := s.object(func(name string) error {
		fields++
		j, known := next, next < len(r.columns) && r.columns[next].Name == name
		if !known {
			j, known = r.at[name]
		}
		if !known {
			j = len(r.columns)
			r.columns = append(r.columns, predict.Column{Name: name})
			if r.at == nil {
				r.at = make(map[string]int)
			}
			r.at[name] = j
		}
		next = j + 1
		if len(r.columns[j].Values) > r.n {
			return errTwice
		}
		text, err := s.value()
		if err != nil {
			return err
		}
		if (r.n+1)*len(r.columns) > r.valuesMax {
			return fmt.Errorf("so many columns that most rows lack are more than %d values: send the rows by column: %w", r.valuesMax, ps.ErrTooLarge)
		}
		r.pad(j)
		r.columns[j].Values = append(r.columns[j].Values, text)
		return nil
	})
	if err == nil && fields == 0 {
		err = errNothing
	}
	r.n++
	return err
}

// pad says of the rows so far that lack a column that its value is missing.
func (r *rows) pad(column int) {
	c := &r.columns[column]
	for len(c.Values) < r.n {
		c.Values = append(c.Values, "")
	}
}

// expect makes room for about so many rows.
func (r *rows) expect(n int) {
	for j := range r.columns {
		r.columns[j].Values = slices.Grow(r.columns[j].Values, n)
	}
}
