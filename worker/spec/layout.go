package spec

import "github.com/freshet-ml/freshet/ps"

// Names of the tables that a spec asks for. They reach checkpoints, and initial
// values depend on them: append only.
const (
	LinearTable  = "linear"  // table 0: one weight per key
	FactorsTable = "factors" // table 1 of all networks but logistic: a vector per key
	AuditTable   = "audit"   // the last, if asked for: events per key
)

// Columns returns the distinct columns that the stream must deliver, in the order
// of the features that read them, then the label's unless the stream brings its
// own. The event time is Event.Time, so its column is not among them unless a
// feature reads it as text. The caller owns the slice.
func (s *Spec) Columns() []string {
	var columns []string
	seen := make(map[string]bool)
	add := func(column string) {
		if column != "" && !seen[column] {
			seen[column] = true
			columns = append(columns, column)
		}
	}
	for _, f := range s.Features {
		add(f.Column)
	}
	add(s.Label.Column)
	return columns
}

// NetworkTables returns how many of the layout's tables are the network's. They are
// the first ones: linear, then factors if there are any, whose rows are those of an
// event's features, then those of Dense.
func (s *Spec) NetworkTables() int { return s.FeatureTables() + len(s.Dense()) }

// FeatureTables returns how many of the network's tables have a row per feature's value.
func (s *Spec) FeatureTables() int {
	if s.Network.hasFactors() {
		return 2
	}
	return 1
}

// Layout returns the model's tables: the network's, then figures, and last the audit
// table if there is one. figures are the tables in which the model measures itself,
// which is eval.Tables(); they are an argument because eval speaks this package's
// words. The layout is valid if s is.
func (s *Spec) Layout(figures []ps.Table) ps.Layout {
	tables := []ps.Table{{
		Name: LinearTable, Kind: ps.Float32, Width: 1,
		Optimizer: s.Network.Optimizer, Initializer: ps.Initializer{Name: ps.Zero},
	}}
	if s.Network.hasFactors() {
		tables = append(tables, ps.Table{
			Name: FactorsTable, Kind: ps.Float32, Width: s.Network.Factors,
			Optimizer:   s.Network.FactorOptimizer,
			Initializer: ps.Initializer{Name: ps.Normal, Scale: s.Network.FactorInit},
		})
	}
	for _, d := range s.Dense() {
		tables = append(tables, d.Table)
	}
	tables = append(tables, figures...)
	if s.Training.AuditTable {
		tables = append(tables, ps.Table{
			Name: AuditTable, Kind: ps.Uint64, Width: 1,
			Optimizer: ps.Optimizer{Name: ps.Audit}, Initializer: ps.Initializer{Name: ps.Zero},
		})
	}
	return ps.Layout{Seed: s.Seed, Tables: tables}
}
