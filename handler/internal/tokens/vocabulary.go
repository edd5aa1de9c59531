package tokens

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/bits"
	"strconv"

	"github.com/pkoukk/tiktoken-go-loader/assets"
)

const (
	// none is the rank of what is not a token.
	none = 1<<32 - 1
	// entryBytes are before each token in vocabulary.entries: its rank, 3 bytes with the lowest first, and its length.
	entryBytes = 4
	// offsetBits of a slot of the hash table are where an entry begins.
	offsetBits = 22
	offsetMask = 1<<offsetBits - 1
)

// vocabulary is the tokens of an encoding and their ranks, which are their ids
// too. Garbage collection does not look into it.
type vocabulary struct {
	entries string   // the tokens, each behind its rank and length
	longest int      // bytes of the longest token
	slots   []uint32 // 0 if free, else an offset + 1 and above it bits of the hash; collisions go to the next slot
	pairs   []uint32 // the ranks of tokens of two bytes, at the first byte * 256 + the second
}

// load reads a vocabulary that is part of the program: lines of a token in base64 and its rank.
func load(name string) (*vocabulary, error) {
	file, err := assets.Assets.ReadFile(name + ".tiktoken")
	if err != nil {
		return nil, err
	}
	n := bytes.Count(file, []byte{'\n'}) + 1
	entries := make([]byte, 0, len(file)*3/4)
	for len(file) > 0 {
		var line []byte
		line, file, _ = bytes.Cut(file, []byte{'\n'})
		token, digits, _ := bytes.Cut(line, []byte{' '})
		rank, err := strconv.ParseUint(string(digits), 10, 24)
		if err != nil {
			return nil, fmt.Errorf("tokens: %s: line %q", name, line)
		}
		begin := len(entries)
		entries = append(entries, byte(rank), byte(rank>>8), byte(rank>>16), 0)
		if entries, err = base64.StdEncoding.AppendDecode(entries, token); err != nil {
			return nil, fmt.Errorf("tokens: %s: line %q", name, line)
		}
		length := len(entries) - begin - entryBytes
		if length == 0 || length > 255 || len(entries) > offsetMask {
			return nil, fmt.Errorf("tokens: %s: line %q", name, line)
		}
		entries[begin+3] = byte(length)
	}
	return index(string(entries), n), nil
}

// index makes a vocabulary of n entries, and tables of which less than a half is used.
func index(entries string, n int) *vocabulary {
	v := &vocabulary{entries: entries, slots: make([]uint32, 1<<bits.Len(uint(2*n))), pairs: make([]uint32, 1<<16)}
	for i := range v.pairs {
		v.pairs[i] = none
	}
	for offset := 0; offset < len(entries); {
		rank, token := v.entry(offset)
		v.longest = max(v.longest, len(token))
		if len(token) == 2 {
			v.pairs[int(token[0])<<8|int(token[1])] = rank
		}
		h := hash(token)
		i := v.home(h)
		for v.slots[i] != 0 {
			i = (i + 1) & (len(v.slots) - 1)
		}
		v.slots[i] = uint32(h)&^offsetMask | uint32(offset+1)
		offset += entryBytes + len(token)
	}
	return v
}

// home is the slot of a hash, from bits that slots do not hold.
func (v *vocabulary) home(h uint64) int { return int(h>>32) & (len(v.slots) - 1) }

// entry is the rank and the token at an offset of entries.
func (v *vocabulary) entry(offset int) (rank uint32, token string) {
	e := v.entries[offset:]
	return uint32(e[0]) | uint32(e[1])<<8 | uint32(e[2])<<16, e[entryBytes : entryBytes+int(e[3])]
}

// rank is the rank of a token, or none.
func (v *vocabulary) rank(token string) uint32 {
	if len(token) > v.longest {
		return none
	}
	h := hash(token)
	for i := v.home(h); ; i = (i + 1) & (len(v.slots) - 1) {
		slot := v.slots[i]
		if slot == 0 {
			return none
		}
		if (slot^uint32(h))&^offsetMask == 0 {
			if rank, found := v.entry(int(slot&offsetMask) - 1); found == token {
				return rank
			}
		}
	}
}

// hash mixes the bytes of a text that is not empty.
func hash(s string) uint64 {
	const a, b = 0x9e3779b97f4a7c15, 0xe7037ed1a0b428db
	n := len(s)
	var first, last uint64 // all bytes, if there are up to 16
	switch {
	case n >= 8:
		h := uint64(0)
		for i := 8; i < n-8; i += 8 {
			h = (h ^ load64(s[i:])) * a
			h ^= h >> 32
		}
		first, last = load64(s)^h, load64(s[n-8:])
	case n >= 4:
		first, last = load32(s), load32(s[n-4:])
	default:
		first, last = uint64(s[0])<<8|uint64(s[n-1]), uint64(s[n/2])
	}
	high, low := bits.Mul64(first^a^uint64(n), last^b)
	return high ^ low
}

func load64(s string) uint64 { return load32(s) | load32(s[4:])<<32 }

func load32(s string) uint64 {
	_ = s[3]
	return uint64(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24)
}
