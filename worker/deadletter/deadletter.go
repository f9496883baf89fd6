// Package deadletter keeps the list of rows that could not be used, for people to
// read: where each is and why, and never what it says. It decides nothing. That a
// row is skipped, exactly once at every shard, is the business of the update that
// carries the skip; this list may be lost without harm.
//
// The one idea to keep in mind: rows are read again after every crash, so a letter
// is known by its partition and offset, and listed once however often it is added.
//
// Invariant: no letter holds text of a row. Reasons come from those who found the
// row unusable, who promise it (see worker.ErrUnreadable).
package deadletter

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
)

const (
	keepDefault     = 1000    // what a page can show
	rememberDefault = 1 << 16 // a stream with more stopped with an alarm long ago
	reasonMax       = 500     // bytes
	lineMax         = 64 << 10
)

// Letter is a row that could not be used. Its JSON is a line of the file.
type Letter struct {
	File      string       `json:"file,omitempty"`
	Line      int64        `json:"line,omitempty"` // 1-based
	Partition ps.Partition `json:"partition"`
	Offset    ps.Offset    `json:"offset"`
	Reason    string       `json:"reason"`
}

// Of returns the letter of an event that cannot be used because of err: its own
// Err, or what a later step found.
func Of(e *worker.Event, err error) Letter {
	l := Letter{Line: e.Line, Partition: e.Partition, Offset: e.Offset, Reason: err.Error()}
	if u, ok := errors.AsType[*worker.Unreadable](err); ok {
		l.File, l.Line, l.Reason = u.File, u.Line, u.Reason
	}
	return l
}

// Config says where letters are kept.
type Config struct {
	// Path is a file to which each letter is appended as a line of JSON. It is
	// created if it does not exist; letters in it are known from the beginning. One
	// file belongs to one stream. Empty keeps letters in memory only.
	Path string
	// Keep is how many letters, the newest, Letters returns. Default 1000.
	Keep int
	// Remember is how many letters are told apart by partition and offset. Beyond
	// that only letters above the highest offset of their partition are taken for
	// new ones. Default 65,536, about 3 MB.
	Remember int
}

// List is a list of dead letters. It is safe for concurrent use.
type List struct {
	config Config
	file   *os.File // nil without Path; every letter is one write

	mu      sync.Mutex // guards what follows
	seen    map[place]struct{}
	highest map[ps.Partition]ps.Offset
	newest  []Letter // at most Keep, oldest first
	total   uint64
}

type place struct {
	partition ps.Partition
	offset    ps.Offset
}

// Open returns the list of the letters in the file. It returns an error that wraps
// ps.ErrCorrupt if the file holds something else; an unfinished last line, as a
// crash leaves it, is taken off.
func Open(c Config) (*List, error) {
	if c.Keep < 0 || c.Remember < 0 {
		return nil, fmt.Errorf("keep %d and remember %d dead letters: %w", c.Keep, c.Remember, ps.ErrInvalid)
	}
	if c.Keep == 0 {
		c.Keep = keepDefault
	}
	if c.Remember == 0 {
		c.Remember = rememberDefault
	}
	l := &List{config: c, seen: make(map[place]struct{}), highest: make(map[ps.Partition]ps.Offset)}
	if c.Path == "" {
		return l, nil
	}
	file, err := os.OpenFile(c.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open dead letters: %w", err)
	}
	if err := l.load(file); err != nil {
		return nil, fmt.Errorf("open dead letters: %w", errors.Join(err, file.Close()))
	}
	l.file = file
	return l, nil
}

// load takes over the letters of a file.
func (l *List) load(file *os.File) error {
	lines := bufio.NewReaderSize(file, lineMax)
	var size int64 // of the whole lines
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) && (len(line) == 0 || line[0] == '{') {
			return file.Truncate(size)
		}
		var letter Letter
		if err == nil {
			err = json.Unmarshal(line, &letter)
		}
		if err != nil {
			return fmt.Errorf("%s:%d is no dead letter: give the list another file: %w: %w", file.Name(), n, err, ps.ErrCorrupt)
		}
		l.addLocked(letter)
		size += int64(len(line))
	}
}

// Add lists a letter unless it is listed already, and reports whether it was new.
// An error says that the letter, though listed, could not be written to the file.
func (l *List) Add(letter Letter) (added bool, err error) {
	if len(letter.Reason) > reasonMax {
		letter.Reason = strings.ToValidUTF8(letter.Reason[:reasonMax], "") + "…"
	}
	l.mu.Lock()
	added = l.addLocked(letter)
	l.mu.Unlock()
	if !added || l.file == nil {
		return added, nil
	}
	line, err := json.Marshal(letter)
	if err != nil {
		return added, fmt.Errorf("write dead letter: %w", err)
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		return added, fmt.Errorf("write dead letter: %w", err)
	}
	return added, nil
}

func (l *List) addLocked(letter Letter) bool {
	highest, known := l.highest[letter.Partition]
	above := !known || letter.Offset > highest
	at := place{letter.Partition, letter.Offset}
	if _, ok := l.seen[at]; ok {
		return false
	}
	if len(l.seen) < l.config.Remember {
		l.seen[at] = struct{}{}
	} else if !above {
		return false
	}
	if above {
		l.highest[letter.Partition] = letter.Offset
	}
	l.total++
	if len(l.newest) == l.config.Keep {
		l.newest = slices.Delete(l.newest, 0, 1)
	}
	l.newest = append(l.newest, letter)
	return true
}

// Letters returns a copy of the newest letters, oldest first.
func (l *List) Letters() []Letter {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.newest)
}

// Total returns how many letters were listed, those of the file included.
func (l *List) Total() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Close closes the file. Letters added later are listed in memory, with an error.
func (l *List) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
