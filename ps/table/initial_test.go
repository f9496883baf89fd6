package table_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/table"
)

func initial(t *testing.T, name string, scale float64, tableName string, seed uint64) table.Initial {
	t.Helper()
	v, err := table.NewInitial(ps.Table{Name: tableName, Initializer: ps.Initializer{Name: name, Scale: scale}}, seed)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestInitialValuesAreFixed pins values to the bit: checkpoints leave out rows
// that were never pushed to, so another release must compute the same.
func TestInitialValuesAreFixed(t *testing.T) {
	for _, test := range []struct {
		name  string
		scale float64
		table string
		seed  uint64
		key   ps.Key
		want  []float32
	}{
		{ps.Zero, 0, "item", 1, 42, []float32{0, 0, 0, 0}},
		{ps.Uniform, 1, "item", 1, 42, []float32{0.61567485, 0.659407, 0.5071789, 0.749208}},
		{ps.Uniform, 0.25, "item", 1, 0xffffffffffffffff, []float32{0.042224348, -0.19213203, -0.12345743, 0.20793813}},
		{ps.Normal, 1, "item", 1, 42, []float32{0.8699548, 0.9529943, 0.6858288, 1.148428}},
		{ps.Normal, 0.01, "user", 2, 0, []float32{-0.005004523, 0.0057626897, 0.0017780289, 0.009084209}},
	} {
		got := make([]float32, 4)
		initial(t, test.name, test.scale, test.table, test.seed).Fill(got, test.key)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s(%g), table %q, seed %d, key %#x: %#v, want %#v",
				test.name, test.scale, test.table, test.seed, uint64(test.key), got, test.want)
		}
	}
}

func TestInitialValuesDependOnSeedTableAndKey(t *testing.T) {
	fill := func(table string, seed uint64, key ps.Key, width int) []float32 {
		row := make([]float32, width)
		initial(t, ps.Uniform, 1, table, seed).Fill(row, key)
		return row
	}
	base := fill("item", 1, 42, 4)
	for what, other := range map[string][]float32{
		"another seed":  fill("item", 2, 42, 4),
		"another table": fill("user", 1, 42, 4),
		"another key":   fill("item", 1, 43, 4),
	} {
		if slices.Equal(base, other) {
			t.Errorf("%s gives the same values %v", what, other)
		}
	}
	if wider := fill("item", 1, 42, 8)[:4]; !slices.Equal(base, wider) {
		t.Errorf("a wider row begins with %v, want %v", wider, base)
	}
}

// TestInitialValuesAreDistributedAsSaid compares 400,000 values of rows with
// consecutive keys with the distribution. The bound of the Kolmogorov-Smirnov
// distance, 1.95/√n, is passed by chance once in 1,000 sequences; ours is fixed.
func TestInitialValuesAreDistributedAsSaid(t *testing.T) {
	const rows, width, scale = 50_000, 8, 0.5
	for name, distribution := range map[string]func(float64) float64{
		ps.Uniform: func(x float64) float64 { return (x/scale + 1) / 2 },
		ps.Normal:  func(x float64) float64 { return math.Erfc(-x/scale/math.Sqrt2) / 2 },
	} {
		t.Run(name, func(t *testing.T) {
			v := initial(t, name, scale, "item", 7)
			values := make([]float32, rows*width)
			neighbours := 0.0
			for i := range rows {
				v.Fill(values[i*width:(i+1)*width], ps.Key(i))
				if i > 0 {
					neighbours += float64(values[i*width]) * float64(values[(i-1)*width])
				}
			}
			variance := scale * scale
			if name == ps.Uniform {
				variance /= 3
			}
			// The mean of n products of independent values has deviation variance/√n.
			if mean, most := neighbours/(rows-1), 4*variance/math.Sqrt(rows); math.Abs(mean) > most {
				t.Errorf("rows of neighbouring keys go together: %g, want at most %g", mean, most)
			}
			slices.Sort(values)
			if name == ps.Uniform && (values[0] < -scale || values[len(values)-1] >= scale) {
				t.Errorf("values from %v to %v, want within [%v, %v)", values[0], values[len(values)-1], -scale, scale)
			}
			distance := 0.0
			for i, value := range values {
				p := distribution(float64(value))
				distance = max(distance, p-float64(i)/float64(len(values)), float64(i+1)/float64(len(values))-p)
			}
			if most := 1.95 / math.Sqrt(rows*width); distance > most {
				t.Errorf("distance from the distribution is %g, want at most %g", distance, most)
			}
		})
	}
}

func TestInitializerSettings(t *testing.T) {
	for _, test := range []struct {
		name string
		in   ps.Initializer
		kind ps.Kind
		says string
	}{
		{"no name", ps.Initializer{}, ps.Float32, `name ""`},
		{"an unknown name", ps.Initializer{Name: "ones"}, ps.Float32, `name "ones"`},
		{"zero with a scale", ps.Initializer{Name: ps.Zero, Scale: 1}, ps.Float32, "scale = 1"},
		{"uniform without a scale", ps.Initializer{Name: ps.Uniform}, ps.Float32, "scale = 0"},
		{"a scale that is no number", ps.Initializer{Name: ps.Normal, Scale: math.NaN()}, ps.Float32, "scale = NaN"},
		{"a negative scale", ps.Initializer{Name: ps.Normal, Scale: -1}, ps.Float32, "scale = -1"},
		{"random sums", ps.Initializer{Name: ps.Normal, Scale: 1}, ps.Float64, "float64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := table.NewInitial(ps.Table{Name: "item", Kind: test.kind, Initializer: test.in}, 1)
			if !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("NewInitial(%+v, %v): %v, want ps.ErrInvalid that says %q", test.in, test.kind, err, test.says)
			}
		})
	}
}
