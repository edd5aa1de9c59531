package tokens

import "sync"

const (
	// chunkBytes is how much of a long piece is merged at once, or as much as
	// is merged again before it if that is more.
	chunkBytes = 64
	// pieceBytesMax is the longest piece that is merged as a whole.
	pieceBytesMax = 2 * chunkBytes
	// againTokens is how many of the tokens before a chunk are merged again with it, at first.
	againTokens = 2
	// againBytesMax bounds that, and with it the work, whatever the text.
	againBytesMax = 4 << 10
	// startsMax is how many starts of tokens are remembered, at least 2 * againBytesMax.
	startsMax = 16 << 10
)

// part is a part of a piece: where it begins, and the rank of it and the next part as one token.
type part struct{ start, rank uint32 }

// merger makes tokens of pieces. It keeps its memory for the next piece.
type merger struct {
	parts  []part
	starts []uint32
	steps  int64 // parts looked at: the measure of the work in tests
}

var mergers = sync.Pool{New: func() any { return new(merger) }}

// count is the number of tokens of a piece.
func (m *merger) count(v *vocabulary, piece string) int {
	switch {
	case len(piece) == 1 || v.rank(piece) != none:
		return 1
	case len(piece) <= pieceBytesMax:
		return len(m.merge(v, piece)) - 1
	}
	return m.mergeLong(v, piece, chunkBytes)
}

// merge is the definition of the encoding: from the bytes of a piece on, of all
// neighbours that together are a token it joins those of the lowest rank, the
// leftmost first, until there are none. It returns where the tokens begin, and
// the end of the piece. The work grows with the square of the piece.
func (m *merger) merge(v *vocabulary, piece string) []part {
	parts := m.parts[:0]
	last := len(piece) - 1
	for i := range last {
		parts = append(parts, part{uint32(i), v.pairs[int(piece[i])<<8|int(piece[i+1])]})
	}
	parts = append(parts, part{uint32(last), none}, part{uint32(last + 1), none})
	for {
		lowest, at := uint32(none), 0
		for i := range parts {
			if parts[i].rank < lowest {
				lowest, at = parts[i].rank, i
			}
		}
		m.steps += int64(len(parts))
		if lowest == none {
			m.parts = parts
			return parts
		}
		// The next in turn are those of the same rank to the right, unless a lower one appears.
		for appeared := uint32(none); at < len(parts) && appeared > lowest; at++ {
			if parts[at].rank != lowest {
				continue
			}
			parts = append(parts[:at+1], parts[at+2:]...)
			parts[at].rank = none
			if at+2 < len(parts) {
				parts[at].rank = v.rank(piece[parts[at].start:parts[at+2].start])
			}
			appeared = parts[at].rank
			if at > 0 {
				parts[at-1].rank = v.rank(piece[parts[at-1].start:parts[at+1].start])
				appeared = min(appeared, parts[at-1].rank)
			}
		}
	}
}

// mergeLong is merge in time linear in the piece: it merges chunk by chunk. It
// returns the number of tokens, and leaves in m.starts where the last of them begin.
//
// It rests on this. If each two neighbours in a list of tokens, merged on their
// own, come out as these two tokens, then the text of the list comes out as the
// list: the first join across a border of two tokens would be made in their
// text alone too, since up to it the joins there are the same, in the same
// order. And any neighbours in what came out of a merge are such.
//
// So with each chunk the last tokens before it are merged again. If the first
// of them comes out as before, all neighbours are as they must be. If not, more
// are merged again. How far to the left a chunk has an effect depends on the
// vocabulary, not on the length of the text: from join to join it takes a
// higher rank. It is a few tokens in practice, and againBytesMax is far beyond
// what the ranks allow: the longest row of joins like that has 2.3 KB.
func (m *merger) mergeLong(v *vocabulary, piece string, chunk int) (n int) {
	starts := m.starts[:0]
	for done := 0; done < len(piece); {
		if len(starts) >= startsMax { // more than half of them are too far back to be merged again
			kept := starts[startsMax/2:]
			n += len(starts) - len(kept)
			starts = append(starts[:0], kept...)
		}
		for again := againTokens; ; again *= 2 {
			kept := max(len(starts)-again, 0)
			from := done
			if kept < len(starts) {
				from = int(starts[kept])
			}
			end := min(done+max(chunk, done-from), len(piece))
			parts := m.merge(v, piece[from:end])
			if kept > 0 && done-from < againBytesMax && starts[kept+1] != uint32(from)+parts[1].start {
				continue
			}
			starts = starts[:kept]
			for _, p := range parts[:len(parts)-1] {
				starts = append(starts, uint32(from)+p.start)
			}
			done = end
			break
		}
	}
	m.starts = starts
	return n + len(starts)
}
