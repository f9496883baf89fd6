package checkpoint

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-ml/freshet/ps"
)

// rowName names a row within a shard.
type rowName struct {
	table ps.TableID
	key   ps.Key
}

// EachRow calls visit with the weights of every row that a shard had in an epoch, each
// once, in no order that means anything; they are valid until it returns. Files are read
// from the newest to the full one, so that only the keys of increments are held in memory.
//
// Whether all files were whole is known only when it has returned nil. It returns visit's
// error, ps.ErrCorrupt or ps.ErrUnavailable as Open and Reader.Next do, and
// ps.ErrModelMismatch if the files are of another layout.
func EachRow(ctx context.Context, bucket *Bucket, layout ps.Layout, s *Shard, visit func(ps.TableID, ps.Key, []byte) error) error {
	newer := make(map[rowName]struct{}) // seen in the files behind the one that is read
	for i := len(s.Files) - 1; i >= 0; i-- {
		if err := fileRows(ctx, bucket, layout, s.Files[i], newer, visit); err != nil {
			return err
		}
	}
	return nil
}

// fileRows visits a file's rows that are not in newer, and puts them there if older files
// follow.
func fileRows(ctx context.Context, bucket *Bucket, layout ps.Layout, f File, newer map[rowName]struct{}, visit func(ps.TableID, ps.Key, []byte) error) error {
	r, err := Open(ctx, bucket, f)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := sameLayout(r.Head(), layout); err != nil {
		return fmt.Errorf("snapshot %s: %w", f.Name, err)
	}
	for {
		table, stride, rows, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		end := RowHeadBytes + layout.Tables[table].RowBytes()
		for ; len(rows) > 0; rows = rows[stride:] {
			name := rowName{table, ps.Key(binary.LittleEndian.Uint64(rows))}
			if _, seen := newer[name]; seen {
				continue
			}
			if !f.Full() {
				newer[name] = struct{}{}
			}
			if stride == TombstoneBytes {
				continue
			}
			if err := visit(table, name.key, rows[RowHeadBytes:end]); err != nil {
				return err
			}
		}
	}
}

// sameLayout reports whether a file's rows are laid out as layout says.
func sameLayout(h Head, layout ps.Layout) error {
	if h.Layout != layout.Hash() || len(h.Tables) != len(layout.Tables) {
		return fmt.Errorf("layout %x, the model has %x: %w", h.Layout, layout.Hash(), ps.ErrModelMismatch)
	}
	for i, t := range layout.Tables {
		if h.Tables[i].Kind != t.Kind || h.Tables[i].Stride < RowHeadBytes+t.RowBytes() {
			return fmt.Errorf("table %s has rows of %d bytes of %v: %w", t.Name, h.Tables[i].Stride, h.Tables[i].Kind, ps.ErrCorrupt)
		}
	}
	return nil
}
