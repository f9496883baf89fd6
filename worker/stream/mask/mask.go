// Package mask turns identifiers of people into keyed hashes. It knows no files
// and no events; readers of streams call it before an event exists, and whoever
// asks for a prediction calls it with the same secret.
//
// The one idea to keep in mind: the mask is a function of the secret and the
// identifier alone. The same person has the same mask in every column, stream
// and request of one installation, so that impressions can be joined with
// actions and predictions find the rows that training wrote; without the secret
// a mask can be neither computed nor guessed from a list of identifiers.
//
// The name of the column is no part of it on purpose. It would hide that two
// columns hold the same text, at the price that user_id here and uid there could
// no longer be joined. Features are keyed by their own name anyway, so equal
// masks in two columns never share a row.
package mask

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/freshet-ml/freshet/ps"
)

// size is how many bytes of the HMAC a mask keeps. With 128 bits the chance that
// any two of a billion identifiers share a mask is 1.5e-21, and half as many
// bytes travel through every event; truncated HMACs of at least half the hash's
// length keep their strength (RFC 2104, section 5).
const size = 16

// Len is the length of a mask in bytes: lower-case hexadecimal digits.
const Len = 2 * size

// Masker masks identifiers under one secret. It has one owner at a time, and
// allocates nothing per identifier.
type Masker struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

// New returns a masker. An empty secret wraps ps.ErrInvalid: masks under it
// could be computed by everybody.
func New(secret []byte) (*Masker, error) {
	if len(secret) == 0 {
		return nil, fmt.Errorf("identifiers are to be masked, but the secret is empty: %w", ps.ErrInvalid)
	}
	return &Masker{mac: hmac.New(sha256.New, secret)}, nil
}

// Append appends the mask of an identifier to dst: the first 16 bytes of
// HMAC-SHA-256(secret, identifier) as 32 hexadecimal digits. For an empty
// identifier, which is nobody's, it appends nothing.
func (m *Masker) Append(dst, identifier []byte) []byte {
	if len(identifier) == 0 {
		return dst
	}
	m.mac.Reset()
	m.mac.Write(identifier)
	return hex.AppendEncode(dst, m.mac.Sum(m.sum[:0])[:size])
}

// checkLabel is hashed in place of an identifier by Check. It is twice keyed, so
// that it is the mask of no identifier.
const checkLabel = "freshet: which secret is this"

// Check returns a value that tells two secrets apart and says nothing else of
// them. It reaches stream identities: it must never change.
func (m *Masker) Check() string {
	m.mac.Reset()
	m.mac.Write([]byte(checkLabel))
	once := m.mac.Sum(nil)
	m.mac.Reset()
	m.mac.Write(once)
	return hex.EncodeToString(m.mac.Sum(nil)[:size])
}
