package tokens

// A splitter finds the pieces of a text that are tokenized on their own: it
// tells how many bytes the first piece of a text has, which is not empty and
// valid UTF-8. Each does what the regular expression of its encoding does, which
// stands above it, but in time linear in the piece and the blanks behind it.
//
// In (?i:'s), s stands for s and S alone: not for the long s, which some engines fold.
type splitter func(t *classTable, text string) int

// splitCL100K:
//
//	(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func splitCL100K(t *classTable, text string) int {
	if n := contraction(text, 0, foldCase); n > 0 {
		return n
	}
	first, size := t.at(text, 0)
	if first&(line|number|letter) == 0 {
		if n := t.run(text, size, letter); n > size {
			return n
		}
	}
	switch {
	case first&letter != 0:
		return t.run(text, size, letter)
	case first&number != 0:
		return t.numbers(text)
	}
	if n := t.signs(text); n > 0 {
		for n < len(text) && (text[n] == '\r' || text[n] == '\n') {
			n++
		}
		return n
	}
	return t.spaces(text, true)
}

// splitO200K, where a word does not go on from small letters to capitals:
//
//	[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
func splitO200K(t *classTable, text string) int {
	first, size := t.at(text, 0)
	n := 0
	if first&(line|number|letter) == 0 {
		capitals, word := t.word(text, size)
		if n = word; n == 0 && first&lower != 0 { // a mark before capitals is a word, not their prefix
			_, n = t.word(text, 0)
		}
		if n == 0 && capitals > size {
			n = capitals
		}
	} else if first&letter != 0 {
		capitals, word := t.word(text, 0)
		if n = word; n == 0 {
			n = capitals
		}
	}
	switch {
	case n > 0:
		return n + contraction(text, n, foldCase)
	case first&number != 0:
		return t.numbers(text)
	}
	if n := t.signs(text); n > 0 {
		for n < len(text) && (text[n] == '\r' || text[n] == '\n' || text[n] == '/') {
			n++
		}
		return n
	}
	return t.spaces(text, true)
}

// word matches [upper]*[lower]+ at i. word is its end, or 0 if there is no
// match; then capitals is the end of [upper]*.
func (t *classTable) word(text string, i int) (capitals, word int) {
	both := 0 // behind the last character that is upper and lower
	for {
		c, size := t.at(text, i)
		if c&upper == 0 {
			if c&lower != 0 {
				return i, t.run(text, i, lower)
			}
			return i, both // gives back what follows the last one that may be lower
		}
		i += size
		if c&lower != 0 {
			both = i
		}
	}
}

// splitP50K, of p50k and r50k:
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func splitP50K(t *classTable, text string) int {
	if n := contraction(text, 0, 0); n > 0 {
		return n
	}
	start := 0
	if text[0] == ' ' {
		start = 1
	}
	switch c, _ := t.at(text, start); {
	case c&letter != 0:
		return t.run(text, start, letter)
	case c&number != 0:
		return t.run(text, start, number)
	}
	if n := t.signs(text); n > 0 {
		return n
	}
	return t.spaces(text, false)
}

// run is the end of the characters from i that have one of some classes.
func (t *classTable) run(text string, i int, of class) int {
	for {
		c, size := t.at(text, i)
		if c&of == 0 {
			return i
		}
		i += size
	}
}

// numbers matches \p{N}{1,3} at a number.
func (t *classTable) numbers(text string) int {
	i := 0
	for range 3 {
		c, size := t.at(text, i)
		if c&number == 0 {
			break
		}
		i += size
	}
	return i
}

// signs matches  ?[^\s\p{L}\p{N}]+ and is 0 if there is no match.
func (t *classTable) signs(text string) int {
	start := 0
	if text[0] == ' ' {
		start = 1
	}
	i := start
	for {
		c, size := t.at(text, i)
		if size == 0 || c&(space|letter|number) != 0 {
			break
		}
		i += size
	}
	if i == start {
		return 0
	}
	return i
}

// spaces matches \s*[\r\n]+ if lines are asked for, else \s+(?!\S), else \s+, at a space.
func (t *classTable) spaces(text string, lines bool) int {
	i, last, behind := 0, 0, 0 // where the last space begins, and the end of the last line
	for {
		c, size := t.at(text, i)
		if c&space == 0 {
			break
		}
		last = i
		i += size
		if c&line != 0 {
			behind = i
		}
	}
	switch {
	case lines && behind > 0:
		return behind
	case i == len(text) || last == 0:
		return i
	}
	return last // the last space goes with what follows it
}

// foldCase is the bit that makes a capital letter of ASCII small. It makes no letter of anything else.
const foldCase = 'a' - 'A'

// contraction matches 's|'t|'re|'ve|'m|'ll|'d at i, with fold in both cases, and is 0 if there is no match.
func contraction(text string, i int, fold byte) int {
	if i+1 >= len(text) || text[i] != '\'' {
		return 0
	}
	switch a := text[i+1] | fold; a {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v', 'l':
		if i+2 >= len(text) {
			return 0
		}
		if b := text[i+2] | fold; b == 'e' && a != 'l' || b == 'l' && a == 'l' {
			return 3
		}
	}
	return 0
}
