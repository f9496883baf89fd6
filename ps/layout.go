package ps

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
)

// Kind is the element type of a table's rows. Its numbers reach disk and wire:
// append only.
type Kind uint8

// The kinds of rows.
const (
	Float32 Kind = iota // learned weights
	Float64             // sums: statistics and test-then-train figures
	Uint64              // counts of the audit table
)

// Size returns the bytes of one element.
func (k Kind) Size() int {
	if k == Float32 {
		return 4
	}
	return 8
}

// String returns the name used in messages.
func (k Kind) String() string {
	switch k {
	case Float32:
		return "float32"
	case Float64:
		return "float64"
	case Uint64:
		return "uint64"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// TableID is the position of a table in its layout.
type TableID uint32

// Names of optimizers. They reach etcd and checkpoints: append only.
const (
	SGD     = "sgd"     // w -= η g
	AdaGrad = "adagrad" // w -= η g / √(Σ g²)
	FTRL    = "ftrl"    // FTRL-proximal
	Adam    = "adam"    // w -= η m / (√v + ε), by means m of g and v of g²
	AdamW   = "adamw"   // adam, and w -= η λ w
	Sum     = "sum"     // w += g, in float64
	Audit   = "audit"   // w += g, in uint64
)

// Optimizer is a table's update rule with its settings. Settings that a rule
// does not read are zero.
type Optimizer struct {
	Name string `json:"name"`
	// LearningRate is η of sgd, adagrad, adam and adamw, and α of ftrl. Above 0.
	LearningRate float64 `json:"learning_rate,omitempty"`
	// InitialAccumulator is what adagrad's Σ g² starts from. Above 0 for
	// adagrad, so that the first step is finite.
	InitialAccumulator float64 `json:"initial_accumulator,omitempty"`
	// Beta is β of ftrl, added to √(Σ g²). At least 0.
	Beta float64 `json:"beta,omitempty"`
	// L1 is λ1 of ftrl: weights whose |z| stays below it are exactly 0.
	L1 float64 `json:"l1,omitempty"`
	// L2 is λ2 of ftrl, and of sgd, adagrad and adam the factor of the row's weights
	// added to its gradient whenever the row has one.
	L2 float64 `json:"l2,omitempty"`
	// Beta1 and Beta2 are the shares that adam's and adamw's means of gradients and of
	// their squares keep at each update. From 0 to less than 1, Beta1 at most Beta2.
	Beta1 float64 `json:"beta1,omitempty"`
	Beta2 float64 `json:"beta2,omitempty"`
	// Epsilon is ε of adam and adamw, added to √v. Above 0.
	Epsilon float64 `json:"epsilon,omitempty"`
	// WeightDecay is λ of adamw: each update takes η λ of the weights away.
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Names of initializers. They reach etcd and checkpoints: append only.
const (
	Zero    = "zero"
	Uniform = "uniform" // uniform in [-Scale, Scale)
	Normal  = "normal"  // normal with mean 0 and standard deviation Scale
)

// Initializer says what a row is before its first update, as a function of
// (layout seed, table name, key). Nothing is stored until a row is pushed to.
type Initializer struct {
	Name  string  `json:"name"`
	Scale float64 `json:"scale,omitempty"`
}

// Table describes rows of one width and kind under one optimizer.
type Table struct {
	Name        string      `json:"name"`
	Kind        Kind        `json:"kind"`
	Width       int         `json:"width"`
	Optimizer   Optimizer   `json:"optimizer"`
	Initializer Initializer `json:"initializer"`
}

// Limits of a layout; beyond them a spec is refused.
const (
	WidthMax  = 4096 // elements of a row: 16 KiB of float32
	TablesMax = 256
)

// Layout is the set of a model's tables. The position of a table is its TableID.
//
// Invariant: two layouts with the same Hash lay out and update rows alike.
type Layout struct {
	// Seed decides the initial values of all rows.
	Seed   uint64  `json:"seed"`
	Tables []Table `json:"tables"`
}

// Hash identifies the layout: the first 8 bytes, little endian, of the SHA-256
// of its JSON. It travels in every request. The layout must be valid.
func (l Layout) Hash() uint64 {
	doc, err := json.Marshal(l)
	if err != nil {
		panic(fmt.Sprintf("ps: layout that was not validated does not marshal: %v", err)) // only NaN and infinity cannot be
	}
	sum := sha256.Sum256(doc)
	return binary.LittleEndian.Uint64(sum[:8])
}

// Table returns the table of the given name and its position.
func (l Layout) Table(name string) (TableID, Table, bool) {
	for i, t := range l.Tables {
		if t.Name == name {
			return TableID(i), t, true
		}
	}
	return 0, Table{}, false
}

// Validate reports the first thing wrong with the layout's shape, or a setting that
// is not finite, wrapping ErrInvalid. What a setting may be beyond that is checked
// by ps/optim and ps/table.
func (l Layout) Validate() error {
	if len(l.Tables) == 0 || len(l.Tables) > TablesMax {
		return fmt.Errorf("layout has %d tables: want 1 to %d: %w", len(l.Tables), TablesMax, ErrInvalid)
	}
	names := make(map[string]bool)
	for _, t := range l.Tables {
		switch {
		case t.Name == "":
			return fmt.Errorf("layout has a table without a name: %w", ErrInvalid)
		case names[t.Name]:
			return fmt.Errorf("layout has two tables %q: %w", t.Name, ErrInvalid)
		case t.Width < 1 || t.Width > WidthMax:
			return fmt.Errorf("table %q has width %d: want 1 to %d: %w", t.Name, t.Width, WidthMax, ErrInvalid)
		case t.Kind > Uint64:
			return fmt.Errorf("table %q has %v: %w", t.Name, t.Kind, ErrInvalid)
		}
		names[t.Name] = true
		if err := t.finite(); err != nil {
			return err
		}
	}
	return nil
}

// finite reports the first setting that is NaN or infinite.
func (t Table) finite() error {
	o := t.Optimizer
	for _, setting := range []struct {
		name  string
		value float64
	}{
		{"optimizer's learning rate", o.LearningRate},
		{"optimizer's initial accumulator", o.InitialAccumulator},
		{"optimizer's beta", o.Beta},
		{"optimizer's l1", o.L1},
		{"optimizer's l2", o.L2},
		{"optimizer's beta1", o.Beta1},
		{"optimizer's beta2", o.Beta2},
		{"optimizer's epsilon", o.Epsilon},
		{"optimizer's weight decay", o.WeightDecay},
		{"initializer's scale", t.Initializer.Scale},
	} {
		if math.IsNaN(setting.value) || math.IsInf(setting.value, 0) {
			return fmt.Errorf("table %q: its %s is %v: %w", t.Name, setting.name, setting.value, ErrInvalid)
		}
	}
	return nil
}

// RowBytes returns the bytes of one row's weights, as they travel.
func (t Table) RowBytes() int { return t.Width * t.Kind.Size() }

// Model is what the parameter servers know of a model: how its rows are laid
// out and which stream they come from.
type Model struct {
	Name string `json:"name"`
	// Version counts the specs applied under this name, from 1.
	Version uint64 `json:"version"`
	Layout  Layout `json:"layout"`
	// Stream is the identity of the behaviour stream it learns from.
	Stream StreamID `json:"stream"`
	// Partitions is the number of the stream's partitions.
	Partitions int `json:"partitions"`
}
