package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/freshet-ml/freshet/ps"
)

// manifestBytesMax bounds a manifest that is read: 16,384 shards with 8 files each
// take some 60 MiB.
const manifestBytesMax = 256 << 20

// manifestFormat is the version of manifests that is written. Readers accept every
// older one.
const manifestFormat = 1

// Manifest lists the files of an epoch: for every shard a full snapshot and what
// was added to it since.
//
// Invariants, checked by Valid:
//
//  1. Every shard of the cluster is there, in order.
//  2. A shard's files are a chain from a full one to the newest: each has the
//     previous one as parent and begins at its seq, fences do not fall, and the last
//     one has the shard's seq. A shard without files has no mutation, and has
//     applied nothing beyond where the stream began for the model.
//  3. Every name is of this model and says what the entry says.
//  4. Applied has one offset per partition of the stream.
type Manifest struct {
	Model string   `json:"model"`
	Epoch ps.Epoch `json:"epoch"`
	// Lineage numbers the line of epochs; a rollback begins another.
	Lineage uint64 `json:"lineage"`
	// Parent is the epoch this one was taken after, or 0.
	Parent ps.Epoch `json:"parent"`
	// Created is for people; no rule reads it.
	Created    time.Time   `json:"created"`
	Version    uint64      `json:"version"`       // the spec's
	Layout     uint64      `json:"layout,string"` // ps.Layout.Hash
	Stream     ps.StreamID `json:"stream"`
	Partitions int         `json:"partitions"`
	Shards     []Shard     `json:"shards"`
}

// Shard is one shard's part of a manifest.
type Shard struct {
	Shard ps.ShardID `json:"shard"`
	// Fence and Seq are the shard's when its newest file was taken; the fence may be
	// a later one under which nothing has changed.
	Fence ps.Fence `json:"fence"`
	Seq   uint64   `json:"seq"`
	// Applied is the first offset not yet applied, by partition.
	Applied []ps.Offset `json:"applied"`
	// Files are loaded in this order: a full snapshot, then what was added.
	Files []File `json:"files"`
}

func (s *Shard) tip() tip { return tip{s.Fence, s.Seq} }

// Valid reports a broken invariant of m, wrapping ps.ErrInvalid.
func (m *Manifest) Valid() error {
	if err := validModel(m.Model); err != nil {
		return err
	}
	if m.Epoch == 0 || m.Parent >= m.Epoch {
		return fmt.Errorf("epoch %d after %d: %w", m.Epoch, m.Parent, ps.ErrInvalid)
	}
	if m.Partitions < 1 {
		return fmt.Errorf("%d partitions: %w", m.Partitions, ps.ErrInvalid)
	}
	if err := ps.ValidShards(len(m.Shards)); err != nil {
		return err
	}
	for i := range m.Shards {
		s := &m.Shards[i]
		if int(s.Shard) != i {
			return fmt.Errorf("entry %d is of shard %d: %w", i, s.Shard, ps.ErrInvalid)
		}
		if len(s.Applied) != m.Partitions {
			return fmt.Errorf("shard %d has applied offsets of %d partitions of %d: %w",
				i, len(s.Applied), m.Partitions, ps.ErrInvalid)
		}
		if err := s.validChain(m.Model); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
	}
	return nil
}

// validChain reports whether the shard's files are a chain that ends at its seq.
func (s *Shard) validChain(model string) error {
	var last File
	names := make(map[string]bool, len(s.Files))
	for i, f := range s.Files {
		name, ok := parseSnapshot(f.Name)
		switch {
		case !ok || name.model != model || name.shard != s.Shard || name.tip != (tip{f.Fence, f.Seq}) || names[f.Name]:
			return fmt.Errorf("file %d: name %q for model %q, fence %d, seq %d: %w", i, f.Name, model, f.Fence, f.Seq, ps.ErrInvalid)
		case f.Hash == Hash{} || f.Bytes <= 0:
			return fmt.Errorf("file %s: no hash or length: %w", f.Name, ps.ErrInvalid)
		case f.Full() != (i == 0) || f.Parent != last.Hash || f.Since != last.Seq:
			return fmt.Errorf("file %s: parent %v at seq %d, the file before it is %v at %d: %w",
				f.Name, f.Parent, f.Since, last.Hash, last.Seq, ps.ErrInvalid)
		case f.Seq < f.Since || f.Fence < last.Fence:
			return fmt.Errorf("file %s: fence %d and seq %d after fence %d and seq %d: %w",
				f.Name, f.Fence, f.Seq, last.Fence, last.Seq, ps.ErrInvalid)
		}
		names[f.Name] = true
		last = f
	}
	if last.Seq != s.Seq || last.Fence > s.Fence {
		return fmt.Errorf("fence %d and seq %d, its newest file has %d and %d: %w", s.Fence, s.Seq, last.Fence, last.Seq, ps.ErrInvalid)
	}
	return nil
}

// Applied returns the lowest offset that any shard has yet to apply of a
// partition: where the stream must still begin for the epoch to be of use. p must
// be below m.Partitions, and m valid.
func (m *Manifest) Applied(p ps.Partition) ps.Offset {
	lowest := m.Shards[0].Applied[p]
	for _, s := range m.Shards[1:] {
		lowest = min(lowest, s.Applied[p])
	}
	return lowest
}

// Names returns the names of all files that m reaches.
func (m *Manifest) Names() []string {
	var names []string
	for _, s := range m.Shards {
		for _, f := range s.Files {
			names = append(names, f.Name)
		}
	}
	return names
}

// The object of a manifest is its document between these, with the hash of the
// document in the gap. Together they are JSON, and no byte is left unchecked.
const (
	manifestBegin  = `{"freshet_manifest":"`
	manifestMiddle = "\",\"document\":\n"
	manifestEnd    = "}\n"
)

// document is what is hashed.
type document struct {
	Format int `json:"format"`
	Manifest
}

// Encode returns the object of m and how to refer to it, or ps.ErrInvalid if m is
// not valid. The same manifest always gives the same bytes; Created is kept to the
// millisecond.
func (m Manifest) Encode() ([]byte, Ref, error) {
	fail := func(err error) ([]byte, Ref, error) {
		return nil, Ref{}, fmt.Errorf("manifest of model %q, epoch %d: %w", m.Model, m.Epoch, err)
	}
	if err := m.Valid(); err != nil {
		return fail(err)
	}
	m.Created = m.Created.UTC().Truncate(time.Millisecond)
	doc, err := json.Marshal(document{Format: manifestFormat, Manifest: m})
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ps.ErrInvalid, err))
	}
	hash := Hash(sha256.Sum256(doc))
	b := make([]byte, 0, len(manifestBegin)+2*len(hash)+len(manifestMiddle)+len(doc)+len(manifestEnd))
	b = append(append(append(b, manifestBegin...), hash.String()...), manifestMiddle...)
	b = append(append(b, doc...), manifestEnd...)
	if len(b) > manifestBytesMax {
		return fail(fmt.Errorf("%d bytes, at most %d are read: %w", len(b), manifestBytesMax, ps.ErrTooLarge))
	}
	return b, Ref{Name: manifestName(m.Model, m.Epoch, hash), Hash: hash, Bytes: int64(len(b))}, nil
}

// DecodeManifest reads the object of the given name: what it begins with, its hash,
// its format, its fields (unknown ones are refused) and its invariants, in that
// order. It wraps ps.ErrCorrupt.
func DecodeManifest(name string, object []byte) (Manifest, error) {
	m, err := decodeManifest(name, object)
	if err != nil {
		return Manifest{}, fmt.Errorf("manifest %s: %w: %w", name, ps.ErrCorrupt, err)
	}
	return m, nil
}

func decodeManifest(name string, object []byte) (Manifest, error) {
	rest, begins := bytes.CutPrefix(object, []byte(manifestBegin))
	if !begins || len(rest) < 2*len(Hash{}) {
		return Manifest{}, errors.New("byte 0: begins as no manifest does")
	}
	stored, rest := string(rest[:2*len(Hash{})]), rest[2*len(Hash{}):]
	doc, middle := bytes.CutPrefix(rest, []byte(manifestMiddle))
	doc, ends := bytes.CutSuffix(doc, []byte(manifestEnd))
	if !middle || !ends {
		return Manifest{}, fmt.Errorf("ends in the middle, at byte %d", len(object))
	}
	hash := Hash(sha256.Sum256(doc))
	if hash.String() != stored {
		return Manifest{}, fmt.Errorf("hash of %d bytes is %v, it says %q", len(doc), hash, stored)
	}
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(doc, &format); err != nil {
		return Manifest{}, err
	}
	if format.Format != manifestFormat {
		return Manifest{}, fmt.Errorf("format %d, this program reads up to %d: a newer one wrote it", format.Format, manifestFormat)
	}
	var d document
	if err := decodeStrictly(doc, &d); err != nil {
		return Manifest{}, err
	}
	if err := d.Valid(); err != nil {
		return Manifest{}, err
	}
	if want := manifestName(d.Model, d.Epoch, hash); want != name {
		return Manifest{}, fmt.Errorf("is the manifest %s", want)
	}
	return d.Manifest, nil
}

// decodeStrictly fills v from one JSON document without unknown fields.
func decodeStrictly(doc []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("byte %d: something after the document", d.InputOffset())
	}
	return nil
}

// WriteManifest makes m durable and returns what etcd has to name for it to count.
// Writing the same manifest again does no harm, so that a leader whose answer was
// lost may try once more. It wraps ps.ErrInvalid or ps.ErrUnavailable.
func WriteManifest(ctx context.Context, b *Bucket, m Manifest) (Ref, error) {
	object, ref, err := m.Encode()
	if err != nil {
		return Ref{}, err
	}
	if err := b.put(ctx, ref.Name, object); err != nil && !errors.Is(err, ps.ErrConflict) {
		return Ref{}, fmt.Errorf("write manifest %s: %w", ref.Name, err)
	} else if err != nil {
		// The name has the hash in it, so what is there is this manifest, or it is broken.
		if _, err := ReadManifest(ctx, b, ref); err != nil {
			return Ref{}, fmt.Errorf("write manifest %s, which exists: %w", ref.Name, err)
		}
	}
	return ref, nil
}

// ReadManifest returns a manifest that etcd names. It wraps ps.ErrCorrupt if it is
// not what ref says or is not there, ps.ErrUnavailable if the bucket cannot be read
// just now.
func ReadManifest(ctx context.Context, b *Bucket, ref Ref) (Manifest, error) {
	object, err := b.get(ctx, ref.Name, manifestBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ps.ErrCorrupt, err)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest %s: %w", ref.Name, err)
	}
	if int64(len(object)) != ref.Bytes {
		return Manifest{}, fmt.Errorf("manifest %s: %d bytes long, want %d: %w", ref.Name, len(object), ref.Bytes, ps.ErrCorrupt)
	}
	m, err := DecodeManifest(ref.Name, object)
	if err != nil {
		return Manifest{}, err
	}
	if hash := Hash(sha256.Sum256(object[len(manifestBegin)+2*len(Hash{})+len(manifestMiddle) : len(object)-len(manifestEnd)])); hash != ref.Hash {
		return Manifest{}, fmt.Errorf("manifest %s: hash %v, want %v: %w", ref.Name, hash, ref.Hash, ps.ErrCorrupt)
	}
	return m, nil
}
