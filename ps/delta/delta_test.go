package delta_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/delta"
)

// of returns a delta to a seq with some bytes of rows.
func of(seq uint64, bytes int) *ps.Delta {
	return &ps.Delta{
		Since: seq - 1, ShardProgress: ps.ShardProgress{Seq: seq},
		Blocks: []ps.Block{{Stride: 1, Rows: make([]byte, bytes)}},
	}
}

// read returns the seqs of what a follower can read now.
func read(t *testing.T, l *delta.Follower) (seqs []uint64, err error) {
	t.Helper()
	for {
		d, err := l.Next()
		if d == nil || err != nil {
			return seqs, err
		}
		seqs = append(seqs, d.Seq)
	}
}

func TestAFollowerReadsWhatIsPublishedAfterItHasBegun(t *testing.T) {
	feed, wake := delta.NewFeed(ps.Layout{}, 1000), make(chan struct{}, 1)
	feed.Publish(of(1, 10))
	first := feed.Follow(ps.Reading{}, wake)
	feed.Publish(of(2, 10))
	second := feed.Follow(ps.Reading{}, wake)
	feed.Publish(of(3, 10))
	select {
	case <-wake:
	default:
		t.Error("nobody was woken up")
	}
	if got, err := read(t, first); len(got) != 2 || got[0] != 2 || got[1] != 3 || err != nil {
		t.Errorf("the first follower read %v, %v, want 2 and 3", got, err)
	}
	if got, err := read(t, second); len(got) != 1 || got[0] != 3 || err != nil {
		t.Errorf("the second follower read %v, %v, want 3", got, err)
	}
	if got, err := read(t, second); len(got) != 0 || err != nil {
		t.Errorf("after the end: %v, %v, want nothing", got, err)
	}
}

func TestASlowFollowerIsCutOffAloneAndNobodyWaits(t *testing.T) {
	feed := delta.NewFeed(ps.Layout{}, 100)
	slow, quick := feed.Follow(ps.Reading{}, make(chan struct{}, 1)), feed.Follow(ps.Reading{}, make(chan struct{}, 1))
	for seq := range uint64(50) {
		feed.Publish(of(seq+1, 30))
		if got, err := read(t, quick); len(got) != 1 || err != nil {
			t.Fatalf("the quick one read %v, %v at seq %d", got, err, seq+1)
		}
	}
	if _, err := slow.Next(); !errors.Is(err, delta.ErrCutOff) {
		t.Errorf("the slow one: %v, want ErrCutOff", err)
	}
	if !feed.Followed() {
		t.Error("the quick one is not there any more")
	}
	quick.Close()
	if feed.Followed() {
		t.Error("the feed is followed by nobody, and says it is")
	}
	if _, err := quick.Next(); !errors.Is(err, delta.ErrCutOff) {
		t.Errorf("after Close: %v, want ErrCutOff", err)
	}
}

func TestTheEndOfAFeedReachesItsFollowers(t *testing.T) {
	feed, wake := delta.NewFeed(ps.Layout{}, 100), make(chan struct{}, 1)
	l := feed.Follow(ps.Reading{}, wake)
	feed.Close()
	<-wake
	if _, err := l.Next(); !errors.Is(err, delta.ErrCutOff) {
		t.Errorf("%v, want ErrCutOff", err)
	}
}

// TestEveryFollowerReadsEveryDeltaInOrder has followers that come while deltas are
// published, each in a goroutine of its own.
func TestEveryFollowerReadsEveryDeltaInOrder(t *testing.T) {
	const last = 2000
	feed := delta.NewFeed(ps.Layout{}, 1<<30)
	var followers sync.WaitGroup
	for seq := uint64(1); seq <= last; seq++ {
		if seq%100 == 1 {
			wake := make(chan struct{}, 1)
			l, next := feed.Follow(ps.Reading{}, wake), seq
			followers.Go(func() {
				defer l.Close()
				for next <= last {
					d, err := l.Next()
					switch {
					case err != nil:
						t.Errorf("follower from %d on: %v", next, err)
						return
					case d == nil:
						<-wake
					case d.Seq != next:
						t.Errorf("read %d, want %d", d.Seq, next)
						return
					default:
						next++
					}
				}
			})
		}
		feed.Publish(of(seq, 1))
	}
	followers.Wait()
}
