package examples

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

// source is one file of the data set and the columns that the example needs of it.
type source struct {
	name    string // without .csv or .csv.zst
	what    string
	columns []string // the first names the rows: of the log by user
}

var (
	kuairandLog = source{
		"log", "KuaiRand-Pure's standard log",
		[]string{"user_id", "video_id", "time_ms", "is_click", "duration_ms", "tab"},
	}
	kuairandUsers = source{
		"users", "its user features",
		[]string{"user_id", "user_active_degree", "follow_user_num_range", "onehot_feat1", "onehot_feat2", "onehot_feat3"},
	}
	kuairandVideos = source{
		"videos", "its basic video features",
		[]string{"video_id", "author_id", "upload_type", "tag"},
	}
)

// Kuairand prepares the click stream of KuaiRand-Pure: Gao et al. 2022, KuaiRand:
// An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos, CIKM
// (doi:10.1145/3511808.3557624), CC BY-SA 4.0.
type Kuairand struct {
	// Dir has the files log.csv, users.csv and videos.csv, each as it is or
	// compressed as .csv.zst; where both are there, the former is read.
	Dir string
}

// Joined counts what Kuairand.Write wrote.
type Joined struct {
	Events, Clicks int64
	// UnknownUsers and UnknownVideos count events whose user or video is not in
	// its table. They are kept, and that table's columns are empty in them.
	UnknownUsers, UnknownVideos int64
}

// Write writes one event per row of the log, as CSV with a header, in the order of
// time_ms; rows of the same millisecond stay in the log's order. Rows that are
// wholly identical are distinct events. An event has all columns of the log, then
// those of its user and of its video but for their identifiers.
//
// It holds the log in memory: about half a kilobyte per event. It writes nothing before
// all files are read.
//
// A missing folder or file is fs.ErrNotExist; a missing column, a value that
// cannot be used and a file that is no CSV are ps.ErrCorrupt. The error says what
// is missing and what is expected there. Else an error is ctx's or w's.
func (k Kuairand) Write(ctx context.Context, w io.Writer) (Joined, error) {
	j, err := k.write(ctx, w)
	if err != nil {
		return Joined{}, fmt.Errorf("prepare example %s: %w", KuairandName, err)
	}
	return j, nil
}

func (k Kuairand) write(ctx context.Context, w io.Writer) (Joined, error) {
	if err := k.check(); err != nil {
		return Joined{}, err
	}
	users, err := k.readFeatures(ctx, kuairandUsers)
	if err != nil {
		return Joined{}, err
	}
	videos, err := k.readFeatures(ctx, kuairandVideos)
	if err != nil {
		return Joined{}, err
	}
	header, events, err := k.readLog(ctx)
	if err != nil {
		return Joined{}, err
	}
	slices.SortStableFunc(events, func(a, b impression) int { return cmp.Compare(a.time, b.time) })

	header = slices.Concat(header, users.columns, videos.columns)
	for i, name := range header {
		if slices.Contains(header[:i], name) {
			return Joined{}, fmt.Errorf("column %s stands in two of the files: rename one: %w", name, ps.ErrCorrupt)
		}
	}
	out := csv.NewWriter(w)
	err = out.Write(header)
	var joined Joined
	var row []string
	for i, e := range events {
		if i%checkEvery == 0 && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			break
		}
		user, userKnown := users.of(e.user)
		video, videoKnown := videos.of(e.video)
		row = append(append(append(row[:0], e.fields...), user...), video...)
		err = out.Write(row)
		joined.count(e.clicked, userKnown, videoKnown)
	}
	out.Flush()
	if err == nil {
		err = out.Error()
	}
	if err != nil {
		return Joined{}, fmt.Errorf("write events, %d of %d written: %w", joined.Events, len(events), err)
	}
	return joined, nil
}

func (j *Joined) count(clicked, userKnown, videoKnown bool) {
	j.Events++
	if clicked {
		j.Clicks++
	}
	if !userKnown {
		j.UnknownUsers++
	}
	if !videoKnown {
		j.UnknownVideos++
	}
}

// check says of a folder that is not there, or lacks files, what is expected.
func (k Kuairand) check() error {
	info, err := os.Stat(k.Dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no folder: %w", k.Dir, fs.ErrNotExist)
	}
	var missing []string
	if err == nil {
		for _, s := range []source{kuairandLog, kuairandUsers, kuairandVideos} {
			if _, err := k.find(s); errors.Is(err, fs.ErrNotExist) {
				missing = append(missing, s.name+".csv")
			}
		}
		if missing == nil {
			return nil
		}
		err = fmt.Errorf("%s has no %s: %w", k.Dir, strings.Join(missing, ", no "), fs.ErrNotExist)
	}
	return fmt.Errorf("%w; want a folder with log.csv (%s), users.csv (%s) and videos.csv (%s), each plain or as .csv.zst",
		err, kuairandLog.what, kuairandUsers.what, kuairandVideos.what)
}

func (k Kuairand) find(s source) (path string, err error) {
	path = filepath.Join(k.Dir, s.name+".csv")
	if _, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		path += ".zst"
		_, err = os.Stat(path)
	}
	return path, err
}

// read calls each with every row of a file, after header with the first. Both may
// keep what they are given. Their errors get the file and the line.
func (k Kuairand) read(ctx context.Context, s source, header func(columns []string), each func(row []string) error) error {
	path, err := k.find(s)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, free, err := files.Decompress(path, f)
	if err != nil {
		return fmt.Errorf("decompress %s: %w", path, err)
	}
	defer free()
	rows := csv.NewReader(text)
	for n := 0; ; n++ {
		row, err := rows.Read()
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%s is empty: want a header with at least %s: %w", path, strings.Join(s.columns, ", "), ps.ErrCorrupt)
		case errors.As(err, new(*fs.PathError)): // of the disk, not of what is on it
			return fmt.Errorf("read %s: %w", path, err)
		case err != nil:
			return fmt.Errorf("read %s: %w: %w", path, ps.ErrCorrupt, err)
		case n == 0:
			for _, name := range s.columns {
				if !slices.Contains(row, name) {
					return fmt.Errorf("%s has no column %s: want at least %s: %w", path, name, strings.Join(s.columns, ", "), ps.ErrCorrupt)
				}
			}
			header(row)
			continue
		case n%checkEvery == 0 && ctx.Err() != nil:
			return fmt.Errorf("read %s: %w", path, ctx.Err())
		}
		if err := each(row); err != nil {
			line, _ := rows.FieldPos(0)
			return fmt.Errorf("%s, line %d: %w: %w", path, line, ps.ErrCorrupt, err)
		}
	}
}

// features are a table of users or of videos.
type features struct {
	columns []string // without the identifier
	rows    map[string][]string
	none    []string // for those not in the table
}

func (f *features) of(id string) (row []string, known bool) {
	row, known = f.rows[id]
	if !known {
		row = f.none
	}
	return row, known
}

func (k Kuairand) readFeatures(ctx context.Context, s source) (*features, error) {
	f := &features{rows: make(map[string][]string)}
	at := 0
	err := k.read(ctx, s, func(columns []string) {
		at = slices.Index(columns, s.columns[0])
		f.columns = slices.Delete(columns, at, at+1)
		f.none = make([]string, len(f.columns))
	}, func(row []string) error {
		id := row[at]
		if _, twice := f.rows[id]; twice {
			return fmt.Errorf("a second row with this %s; each has one", s.columns[0])
		}
		f.rows[id] = slices.Delete(row, at, at+1)
		return nil
	})
	return f, err
}

// impression is a row of the log.
type impression struct {
	time        int64 // milliseconds since 1970
	user, video string
	clicked     bool
	fields      []string
}

func (k Kuairand) readLog(ctx context.Context) (header []string, events []impression, err error) {
	var user, video, at, label int
	err = k.read(ctx, kuairandLog, func(columns []string) {
		header = columns
		user, video = slices.Index(columns, "user_id"), slices.Index(columns, "video_id")
		at, label = slices.Index(columns, "time_ms"), slices.Index(columns, "is_click")
	}, func(row []string) error {
		time, err := strconv.ParseInt(row[at], 10, 64)
		if err != nil {
			return errors.New("time_ms is no whole number of milliseconds")
		}
		if row[label] != "0" && row[label] != "1" {
			return errors.New("is_click is neither 0 nor 1")
		}
		events = append(events, impression{time, row[user], row[video], row[label] == "1", row})
		return nil
	})
	return header, events, err
}
