package predict

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/retrieve"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Items is a list of what Retrieve finds.
type Items struct {
	// Name is the column with the items' names, by which they are returned. No name is
	// empty or there twice. The model need not read it.
	Name string
	// Columns are the items': Name, and others that the model reads. They are not kept.
	Columns []Column
}

// items are a list of items with the vectors by which they are searched. What changes is in
// table and stale; the rest does not.
//
// An item's vector is that of its features (see model.Parts), and behind it what they say by
// themselves; a query's is that of the context's features, and behind it 1. So an inner
// product is the score that the features of both have together, less what the context says
// by itself, which is the same for all items.
type items struct {
	origin  origin
	config  *ScorerConfig
	spec    *spec.Spec
	item    *spec.Spec // the features that depend on nothing but the items' columns
	context *schema
	query   *spec.Spec // those that depend on none of them; nil if there are none
	width   int        // of vectors; 0 if the network has none
	table   *retrieve.Table
	stale   *stale

	// names are the names one after the other; item i's is names[ends[i]:ends[i+1]].
	names  string
	ends   []int
	byName []int32   // items, in the order of
	named  directory // which is by the names' hashes

	// Item i has the features keys[of[starts[i]:starts[i+1]]], times values; nil values are
	// all 1. An item that cannot be used has none.
	starts []int32
	of     []int32
	values []float32
	keys   []ps.Key // in the order of
	keyed  directory
	// Key k is one of items having[havings[k]:havings[k+1]].
	havings, having []int32
}

func newItems(s *Scorer) (*items, error) {
	list := s.config.Items
	parts, err := model.NewParts(s.config.Spec)
	if err != nil {
		return nil, err
	}
	it := &items{origin: s.origin, config: &s.config, spec: s.config.Spec, width: parts.Width()}
	if it.table, err = retrieve.New(it.width + 1); err != nil {
		return nil, err
	}
	if err := it.name(list); err != nil {
		return nil, err
	}
	var columns []string
	for _, c := range list.Columns {
		columns = append(columns, c.Name)
	}
	if it.item, it.query, err = split(s.config.Spec, columns); err != nil {
		return nil, err
	}
	var asked []string
	if it.query != nil {
		asked = feature.UnlabelledColumns(it.query)
	}
	if it.context, err = newSchema(s.config.Spec, asked, &s.config); err != nil {
		return nil, err
	}
	it.context.mark(s.schema.names, ignored) // crosses of both sides read them
	it.context.mark(columns, ofItems)
	b, err := it.extract(list, s.schema.names)
	if err != nil {
		return nil, err
	}
	it.index(b, s.config.Shards)
	it.stale = newStale(len(it.keys), it.len())
	return it, nil
}

// split returns a spec with the features that depend on nothing but columns of items, and
// one with those that depend on none of them, or nil. Crosses of both are in neither.
func split(s *spec.Spec, columns []string) (item, query *spec.Spec, err error) {
	of := make(map[string]bool) // whether a feature is of items
	inItems, inQuery := *s, *s
	inItems.Features, inQuery.Features = nil, nil
	crossed := map[bool]map[string]bool{true: {}, false: {}}
	for _, f := range s.Features {
		isItems := slices.Contains(columns, f.Column)
		if f.Kind == spec.Cross {
			isItems = of[f.Of[0]]
			if slices.ContainsFunc(f.Of, func(name string) bool { return of[name] != isItems }) {
				continue
			}
			for _, name := range f.Of {
				crossed[isItems][name] = true
			}
		}
		of[f.Name] = isItems
		side := &inQuery
		if isItems {
			side = &inItems
		}
		side.Features = append(side.Features, f)
	}
	for isItems, side := range map[bool]*spec.Spec{true: &inItems, false: &inQuery} {
		side.Features = slices.DeleteFunc(side.Features, func(f spec.Feature) bool { return f.CrossOnly && !crossed[isItems][f.Name] })
	}
	if len(inItems.Features) == 0 {
		return nil, nil, fmt.Errorf("no feature depends on %s alone: name columns that the model reads: %w", listed(columns), ps.ErrInvalid)
	}
	inItems.Network.Constant = false // it is the query's
	if len(inQuery.Features) == 0 {
		return &inItems, nil, nil
	}
	return &inItems, &inQuery, nil
}

// name takes the names of the list.
func (it *items) name(list *Items) error {
	at := slices.IndexFunc(list.Columns, func(c Column) bool { return c.Name == list.Name })
	if at < 0 || list.Name == "" {
		return fmt.Errorf("no column %q with their names: %w", list.Name, ps.ErrInvalid)
	}
	names := list.Columns[at].Values
	if len(names) == 0 || len(names) > itemsMax {
		return fmt.Errorf("%d items: want 1 to %d: %w", len(names), itemsMax, ps.ErrInvalid)
	}
	it.ends = make([]int, 1, len(names)+1)
	hashes := make([]uint64, len(names))
	size := 0
	for i, name := range names {
		if name == "" {
			return fmt.Errorf("item %d of column %q has no name: %w", i, list.Name, ps.ErrInvalid)
		}
		size += len(name)
		it.ends = append(it.ends, size)
		hashes[i] = xxhash.Sum64String(name)
	}
	it.names = strings.Join(names, "")
	it.byName = make([]int32, len(names))
	var places []int32
	it.named, places = newDirectory(hashes)
	for i, place := range places {
		it.byName[place] = int32(i)
	}
	for i, name := range names {
		if found := it.find(name); found != i {
			return fmt.Errorf("items %d and %d of column %q have one name: %w", min(i, found), max(i, found), list.Name, ps.ErrInvalid)
		}
	}
	return nil
}

// itemsMax bounds the items of a list: with 32 factors, 13 GB of vectors.
const itemsMax = 100_000_000

func (it *items) len() int { return len(it.ends) - 1 }

// nameOf returns the name of an item.
func (it *items) nameOf(item int) string { return it.names[it.ends[item]:it.ends[item+1]] }

// find returns the item of a name, or -1.
func (it *items) find(name string) int {
	from, to := it.named.span(xxhash.Sum64String(name))
	for _, item := range it.byName[from:to] {
		if it.nameOf(int(item)) == name {
			return int(item)
		}
	}
	return -1
}

// extract returns the examples of all items. The model reads the known columns.
func (it *items) extract(list *Items, known []string) (*worker.Batch, error) {
	columns := feature.UnlabelledColumns(it.item)
	untimed := *it.item
	untimed.Stream.Time = spec.Time{}
	schema, err := newSchema(&untimed, columns, it.config)
	if err != nil {
		return nil, err
	}
	schema.mark(append([]string{list.Name}, known...), ignored)
	schema.known = known
	events, err := schema.newEvents()
	if err != nil {
		return nil, err
	}
	if err := events.add(list.Columns, nil); err != nil {
		return nil, err
	}
	events.begin()
	if events.n != it.len() {
		return nil, fmt.Errorf("%d items have %d names: %w", events.n, it.len(), ps.ErrInvalid)
	}
	extractor, err := feature.NewUnlabelled(it.item, columns)
	if err != nil {
		return nil, err
	}
	extractor.Share(events.shared[:schema.asked], true)
	b := new(worker.Batch)
	b.Reset(0, 0, 0)
	unusable := 0
	var first error
	for i := range events.n {
		if err := extractor.Append(b, events.get(i)); err != nil {
			unusable++
			if first == nil {
				first = err
			}
		}
		if len(b.Keys) > math.MaxInt32 {
			return nil, fmt.Errorf("they have more than %d values of features: %w", math.MaxInt32, ps.ErrTooLarge)
		}
	}
	if unusable > 0 {
		it.config.Logger.Warn("items that cannot be used are never retrieved", "items", unusable, "of", events.n, "first", first)
	}
	return b, nil
}

// index keeps the features of examples, and which items have which.
func (it *items) index(b *worker.Batch, shards int) {
	var g ps.Group // of distinct keys
	g.Fill(b.Keys, shards)
	keyed, places := newDirectory(g.Keys)
	it.keyed, it.keys = keyed, make([]ps.Key, len(places))
	for i, place := range places {
		it.keys[place] = g.Keys[i]
	}
	it.starts, it.of = b.Starts, g.Index
	if slices.ContainsFunc(b.Values, func(x float32) bool { return x != 1 }) {
		it.values = b.Values
	}
	it.havings = make([]int32, len(it.keys)+1)
	for i, at := range it.of {
		it.of[i] = places[at]
		it.havings[places[at]+1]++
	}
	for k := range it.keys {
		it.havings[k+1] += it.havings[k]
	}
	next := slices.Clone(it.havings)
	it.having = make([]int32, len(it.of))
	for item := range it.len() {
		for _, k := range it.of[it.starts[item]:it.starts[item+1]] {
			it.having[next[k]] = int32(item)
			next[k]++
		}
	}
}
