package export

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// rowName names a row within a shard.
type rowName struct {
	table ps.TableID
	key   ps.Key
}

// eachRow calls visit with the weights of every row that a shard had in an epoch, each
// once. Whether all files were whole is known only when it has returned nil.
func eachRow(ctx context.Context, bucket *checkpoint.Bucket, layout ps.Layout, s *checkpoint.Shard, visit func(ps.TableID, ps.Key, []byte) error) error {
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
func fileRows(ctx context.Context, bucket *checkpoint.Bucket, layout ps.Layout, f checkpoint.File, newer map[rowName]struct{}, visit func(ps.TableID, ps.Key, []byte) error) error {
	r, err := checkpoint.Open(ctx, bucket, f)
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
		end := checkpoint.RowHeadBytes + layout.Tables[table].RowBytes()
		for ; len(rows) > 0; rows = rows[stride:] {
			name := rowName{table, ps.Key(binary.LittleEndian.Uint64(rows))}
			if _, seen := newer[name]; seen {
				continue
			}
			if !f.Full() {
				newer[name] = struct{}{}
			}
			if stride == checkpoint.TombstoneBytes {
				continue
			}
			if err := visit(table, name.key, rows[checkpoint.RowHeadBytes:end]); err != nil {
				return err
			}
		}
	}
}

// sameLayout reports whether a file's rows are laid out as layout says.
func sameLayout(h checkpoint.Head, layout ps.Layout) error {
	if h.Layout != layout.Hash() || len(h.Tables) != len(layout.Tables) {
		return fmt.Errorf("layout %x, the model has %x: %w", h.Layout, layout.Hash(), ps.ErrModelMismatch)
	}
	for i, t := range layout.Tables {
		if h.Tables[i].Kind != t.Kind || h.Tables[i].Stride < checkpoint.RowHeadBytes+t.RowBytes() {
			return fmt.Errorf("table %s has rows of %d bytes of %v: %w", t.Name, h.Tables[i].Stride, h.Tables[i].Kind, ps.ErrCorrupt)
		}
	}
	return nil
}
