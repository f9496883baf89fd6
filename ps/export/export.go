// Package export writes the weights of a checkpoint epoch as files that other programs
// read: safetensors, NumPy's .npy, or JSON Lines.
//
// It reads an epoch as it is at rest and asks no node. Optimizer state is not written, nor
// is what a row is before its first update: a row that is not there counts as zeros.
//
// The one idea to keep in mind: a shard's files are read from the newest to the full one,
// and a row counts where it is first seen. So rows stream from the bucket to the output,
// and only the keys of increments are held in memory, a shard at a time.
//
// Invariants:
//
//  1. The description, export.json, is written last: where it is, all files are whole, and
//     every checksum of the epoch's files was right.
//  2. The same epoch and settings give the same bytes.
package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/quant"
)

// Format is what the files look like.
type Format string

// The formats.
const (
	// Safetensors is one file, weights.safetensors, with the tensors <table>.keys (U64),
	// <table>.weights and, for int8, <table>.scales.
	Safetensors Format = "safetensors"
	// NPY is the same tensors, each in a file <tensor>.npy. Weights as bfloat16, which
	// NumPy does not have, are uint16: the upper half of a float32.
	NPY Format = "npy"
	// JSONL is a file <table>.jsonl for each table, with a row on each line.
	JSONL Format = "jsonl"
)

// ParseFormat returns the format of the given name. It wraps ps.ErrInvalid.
func ParseFormat(name string) (Format, error) {
	if f := Format(name); f == Safetensors || f == NPY || f == JSONL {
		return f, nil
	}
	return "", fmt.Errorf("format %q: want safetensors, npy or jsonl: %w", name, ps.ErrInvalid)
}

// DescriptionName is the file that describes an export: a Description.
const DescriptionName = "export.json"

// Config says what is written, and where.
type Config struct {
	Bucket   *checkpoint.Bucket
	Manifest checkpoint.Manifest
	// Model is the manifest's, and Tables are those of its layout that are written.
	Model  ps.Model
	Tables []ps.TableID
	Format Format
	// Encoding is that of float32 tables where it makes rows smaller.
	Encoding ps.Encoding
	// PruneBelow leaves out rows of float32 tables whose Euclidean norm is below it. 0
	// leaves out none.
	PruneBelow float64
	// Layers are tables whose rows have an order: the keys of row 0, 1, … They are not
	// pruned.
	Layers map[ps.TableID][]ps.Key
	// Dir is empty or not there yet.
	Dir string
	// Progress, if not nil, is told after each shard how many have been read.
	Progress func(shards int)
	// Seen, if not nil, is told of every row of a float32 table what its weights were, and
	// what they are to who reads the files; nil if it was pruned. Both are valid until it
	// returns.
	Seen func(table ps.TableID, key ps.Key, before, after []byte)
}

func (c *Config) validate() error {
	if _, err := ParseFormat(string(c.Format)); err != nil {
		return err
	}
	if hash := c.Model.Layout.Hash(); c.Manifest.Model != c.Model.Name || c.Manifest.Layout != hash {
		return fmt.Errorf("epoch %d of model %s has layout %x, model %s has %x: %w",
			c.Manifest.Epoch, c.Manifest.Model, c.Manifest.Layout, c.Model.Name, hash, ps.ErrModelMismatch)
	}
	if !(c.PruneBelow >= 0) || math.IsInf(c.PruneBelow, 0) {
		return fmt.Errorf("rows pruned below a norm of %v: want 0 or more: %w", c.PruneBelow, ps.ErrInvalid)
	}
	for i, id := range c.Tables {
		if int(id) >= len(c.Model.Layout.Tables) || slices.Contains(c.Tables[:i], id) {
			return fmt.Errorf("table %d is not there, or there twice: %w", id, ps.ErrInvalid)
		}
		if name := c.Model.Layout.Tables[id].Name; strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\\\x00") {
			return fmt.Errorf("table %q: that is no name of a file: %w", name, ps.ErrInvalid)
		}
	}
	if len(c.Tables) == 0 {
		return fmt.Errorf("no tables to write: %w", ps.ErrInvalid)
	}
	return nil
}

// Description is what was written. Its fields may grow and do not change.
type Description struct {
	Model   string   `json:"model"`
	Epoch   ps.Epoch `json:"epoch"`
	Lineage uint64   `json:"lineage"`
	Format  Format   `json:"format"`
	// Applied is the first offset that some shard has not applied, by partition.
	Applied    []ps.Offset `json:"applied"`
	PruneBelow float64     `json:"prune_below"`
	Tables     []Table     `json:"tables"`
	// BytesBefore is what keys and weights of all rows are without encoding and pruning,
	// and BytesAfter the size of the files.
	BytesBefore int64    `json:"bytes_before"`
	BytesAfter  int64    `json:"bytes_after"`
	Files       []string `json:"files"`
}

// Table is what was written of one table.
type Table struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Width    int    `json:"width"`
	Encoding string `json:"encoding"`
	// Rows were written, and Pruned were not.
	Rows   int64 `json:"rows"`
	Pruned int64 `json:"pruned"`
	// Initializer says what rows are that were never updated.
	Initializer ps.Initializer `json:"initializer"`
	// RowKeys are the keys of a layer's rows, in order; they are text because not every
	// reader of JSON has integers of 64 bits.
	RowKeys []string `json:"row_keys,omitempty"`
}

// output is files of one format.
type output interface {
	// add appends a row, by the table's position among those written.
	add(table int, key ps.Key, encoded []byte) error
	// finish completes the files and returns their names.
	finish() ([]string, error)
	// close lets go of what is open. It may be called more than once.
	close()
}

// column says how a table is written.
type column struct {
	ps.Table
	encoding ps.Encoding
	prune    bool
}

// Run writes the files. What it began is removed if it returns an error: ps.ErrInvalid or
// ps.ErrModelMismatch for the configuration, ps.ErrCorrupt or ps.ErrUnavailable of the
// bucket, ps.ErrConflict if the directory is not empty, or that of a file.
func Run(ctx context.Context, c Config) (d Description, err error) {
	if err := c.validate(); err != nil {
		return d, err
	}
	made, err := emptyDirectory(c.Dir)
	if err != nil {
		return d, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeFiles(c.Dir, made))
		}
	}()
	columns := make([]column, len(c.Tables))
	d = Description{Model: c.Model.Name, Epoch: c.Manifest.Epoch, Lineage: c.Manifest.Lineage, Format: c.Format, PruneBelow: c.PruneBelow}
	for p := range c.Manifest.Partitions {
		d.Applied = append(d.Applied, c.Manifest.Applied(ps.Partition(p)))
	}
	for i, id := range c.Tables {
		t := c.Model.Layout.Tables[id]
		_, layer := c.Layers[id]
		columns[i] = column{Table: t, prune: c.PruneBelow > 0 && t.Kind == ps.Float32 && !layer}
		if c.Encoding.RowBytes(t) < t.RowBytes() {
			columns[i].encoding = c.Encoding
		}
		table := Table{Name: t.Name, Kind: t.Kind.String(), Width: t.Width, Encoding: columns[i].encoding.String(), Initializer: t.Initializer}
		for _, key := range c.Layers[id] {
			table.RowKeys = append(table.RowKeys, fmt.Sprint(uint64(key)))
		}
		d.Tables = append(d.Tables, table)
	}
	out, err := c.open(columns)
	if err != nil {
		return d, err
	}
	defer out.close()
	if err := c.writeRows(ctx, out, columns, &d); err != nil {
		return d, err
	}
	if d.Files, err = out.finish(); err != nil {
		return d, err
	}
	return d, d.finish(c.Dir)
}

// open begins the files.
func (c *Config) open(columns []column) (output, error) {
	switch c.Format {
	case JSONL:
		return newLines(c.Dir, columns)
	case NPY:
		return newNPY(c.Dir, columns)
	}
	return newSafetensors(c.Dir, columns, map[string]string{
		"freshet_model": c.Model.Name, "freshet_epoch": fmt.Sprint(c.Manifest.Epoch), "freshet_lineage": fmt.Sprint(c.Manifest.Lineage),
	})
}

// writeRows writes every row and counts it in d.
func (c *Config) writeRows(ctx context.Context, out output, columns []column, d *Description) error {
	w := writer{Config: c, out: out, columns: columns, description: d, position: make(map[ps.TableID]int, len(c.Tables))}
	for i, id := range c.Tables {
		w.position[id] = i
	}
	for i := range c.Manifest.Shards {
		if err := checkpoint.EachRow(ctx, c.Bucket, c.Model.Layout, &c.Manifest.Shards[i], w.row); err != nil {
			return err
		}
		if c.Progress != nil {
			c.Progress(i + 1)
		}
	}
	return nil
}

// writer is what a row goes through.
type writer struct {
	*Config
	out         output
	columns     []column
	description *Description
	position    map[ps.TableID]int // among columns
	encoded     []byte
	decoded     []byte
}

// row encodes and writes a row, or prunes it.
func (w *writer) row(table ps.TableID, key ps.Key, weights []byte) error {
	at, wanted := w.position[table]
	if !wanted {
		return nil
	}
	to, count := w.columns[at], &w.description.Tables[at]
	w.description.BytesBefore += int64(8 + len(weights))
	if to.prune || to.encoding != ps.Plain {
		norm := normOf(weights)
		if math.IsNaN(norm) || math.IsInf(norm, 0) {
			return fmt.Errorf("row %d of table %s has a weight that is not finite: write it without encoding and pruning: %w", key, to.Name, ps.ErrInvalid)
		}
		if to.prune && norm < w.PruneBelow {
			count.Pruned++
			return w.seen(table, to, key, weights, nil)
		}
	}
	count.Rows++
	encoded := weights
	if to.encoding != ps.Plain {
		w.encoded = resize(w.encoded, to.encoding.RowBytes(to.Table))
		quant.Encode(w.encoded, to.encoding, to.Table, weights)
		encoded = w.encoded
	}
	if err := w.seen(table, to, key, weights, encoded); err != nil {
		return err
	}
	return w.out.add(at, key, encoded)
}

// seen tells who wants to know of a row.
func (w *writer) seen(table ps.TableID, c column, key ps.Key, before, encoded []byte) error {
	if w.Seen == nil || c.Kind != ps.Float32 {
		return nil
	}
	if encoded != nil && c.encoding != ps.Plain {
		w.decoded = resize(w.decoded, c.RowBytes())
		if err := quant.Decode(w.decoded, c.encoding, c.Table, encoded); err != nil {
			return err
		}
		encoded = w.decoded
	}
	w.Seen(table, key, before, encoded)
	return nil
}

// resize returns memory of n bytes, which may be b's.
func resize(b []byte, n int) []byte { return slices.Grow(b[:0], n)[:n] }

// normOf returns the Euclidean norm of float32 weights.
func normOf(weights []byte) float64 {
	sum := 0.0
	for _, w := range ps.View[float32](weights) {
		sum += float64(w) * float64(w)
	}
	return math.Sqrt(sum)
}

// finish adds up the files' sizes and writes the description.
func (d *Description) finish(dir string) error {
	for _, name := range d.Files {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		d.BytesAfter += info.Size()
	}
	doc, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, DescriptionName), append(doc, '\n'), 0o644)
}

// emptyDirectory makes sure that there is an empty directory, and reports whether it was
// made.
func emptyDirectory(dir string) (made bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, os.MkdirAll(dir, 0o755)
	case err != nil:
		return false, err
	case len(entries) > 0:
		return false, fmt.Errorf("directory %s is not empty (there is %s): give a new one: %w", dir, entries[0].Name(), ps.ErrConflict)
	}
	return false, nil
}

// removeFiles removes what was written.
func removeFiles(dir string, made bool) error {
	if made {
		return os.RemoveAll(dir)
	}
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
	}
	return err
}
