package feature_test

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/feature"
)

func TestKeysAreThoseOfOtherLanguages(t *testing.T) {
	f, err := os.Open("testdata/keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unquote := func(s string) string {
		text, err := strconv.Unquote(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		return text
	}
	key := func(s string) ps.Key {
		k, err := strconv.ParseUint(s, 16, 64)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		return ps.Key(k)
	}
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		n++
		name, want := unquote(words[1]), key(words[len(words)-1])
		var got ps.Key
		switch words[0] {
		case "key":
			got = feature.Key(name, []byte(unquote(words[2])))
		case "cross":
			var crossed []ps.Key
			for _, word := range words[2 : len(words)-1] {
				crossed = append(crossed, key(word))
			}
			got = feature.CrossKey(name, crossed...)
		default:
			t.Fatalf("unknown line %q", lines.Text())
		}
		if got != want {
			t.Errorf("%s: got %016x", lines.Text(), uint64(got))
		}
	}
	if n < 10 {
		t.Errorf("%d examples read, want at least 10", n)
	}
	if got := feature.ConstantKey(); got != 0x9a337a55c7062b3a {
		t.Errorf("key of the constant = %016x", uint64(got))
	}
}

func TestKeysSpread(t *testing.T) {
	const shards, keys = 64, 64 * 500
	var counts [shards]int
	seen := make(map[ps.Key]bool)
	for i := range keys {
		k := feature.Key("user", strconv.AppendInt(nil, int64(i), 10))
		counts[ps.ShardOf(k, shards)]++
		seen[k] = true
	}
	if len(seen) != keys {
		t.Errorf("%d distinct keys of %d values", len(seen), keys)
	}
	for s, n := range counts { // mean 500, standard deviation 22
		if n < 380 || n > 620 {
			t.Errorf("shard %d has %d of %d keys, want about 500", s, n, keys)
		}
	}
}
