package main

import (
	"encoding/json"
	"testing"
)

func TestLookupsAreMeasuredAndTravelAsSmallAsTheirEncoding(t *testing.T) {
	processes(t)
	measured := func(encoding string) lookupReport {
		t.Helper()
		code, out, stderr := freshet(t, "bench", "lookup", "--rows", "20000", "--seconds", "0.2", "--encoding", encoding, "-o", "json")
		var r lookupReport
		if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
			t.Fatalf("exit code %d, %v\n%s%s", code, err, out, stderr)
		}
		l := r.Lookup
		if r.Encoding != encoding || r.Keys != 1300 || l.Calls < 1 || l.KeysPerSecond <= 0 || l.NsPerKey <= 0 || l.P50 <= 0 || l.P99 < l.P50 {
			t.Errorf("as %s: %+v", encoding, r)
		}
		// A key is 8 bytes; counts, how fresh shards are and the rest are shared by all.
		if l.RequestBytesPerKey < 8 || l.RequestBytesPerKey > 9 || l.ResponseBytesPerKey < l.BytesPerKey || l.ResponseBytesPerKey > l.BytesPerKey+3 {
			t.Errorf("as %s, a key takes %v bytes there and %v back, its row %v", encoding, l.RequestBytesPerKey, l.ResponseBytesPerKey, l.BytesPerKey)
		}
		return r
	}
	plain, small := measured("plain").Lookup, measured("int8").Lookup
	if plain.BytesPerKey != 64 || small.BytesPerKey != 20 || small.ResponseBytesPerKey > 0.35*plain.ResponseBytesPerKey {
		t.Errorf("rows of 16 floats take %v bytes, as int8 %v; whole answers %v and %v a key, want at most 0.35",
			plain.BytesPerKey, small.BytesPerKey, plain.ResponseBytesPerKey, small.ResponseBytesPerKey)
	}
}
