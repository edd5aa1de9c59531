package pricing

import (
	"slices"
	"strings"
)

// variant is a name under which the book prices one quality and size of an
// image model: "hd/1024-x-1792/dall-e-3", "512-x-512/dall-e-2".
type variant struct {
	name, quality, size string // either of the last two may be empty: any
}

// splitVariant reads the name of a variant. ok is false for other names.
func splitVariant(name string) (quality, size, model string, ok bool) {
	parts := strings.Split(name, "/")
	model, parts = parts[len(parts)-1], parts[:len(parts)-1]
	if model == "" || len(parts) == 0 || len(parts) > 2 {
		return "", "", "", false
	}
	if last := normalizeSize(parts[len(parts)-1]); isSize(last) {
		size, parts = last, parts[:len(parts)-1]
	}
	switch len(parts) {
	case 0:
	case 1:
		quality = parts[0]
	default:
		return "", "", "", false
	}
	return quality, size, model, quality != "" || size != ""
}

// canonicalVariant spells the size in a variant's name as the book does:
// "hd/1024x1792/dall-e-3" is "hd/1024-x-1792/dall-e-3". Other names stay.
func canonicalVariant(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts[:len(parts)-1] {
		if size := normalizeSize(part); isSize(size) {
			parts[i] = strings.ReplaceAll(size, "x", "-x-")
		}
	}
	return strings.Join(parts, "/")
}

// normalizeSize makes "1024-x-1792" into "1024x1792", as the API writes it.
func normalizeSize(s string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), "-x-", "x")
}

// isSize tells whether a text is digits, an x, and digits.
func isSize(s string) bool {
	width, height, ok := strings.Cut(s, "x")
	return ok && width != "" && height != "" && strings.Trim(width+height, "0123456789") == ""
}

// defaultsOf is what the API takes for a quality and a size left out. Models
// that choose for themselves have none.
func defaultsOf(model string) (quality, size string) {
	switch model {
	case "dall-e-3", "dall-e-2":
		return "standard", "1024x1024"
	}
	return "", ""
}

// variantOf finds the price of an image of the query's quality and size: among
// the variants of the model that fit, the dearest. A quality or a size that is
// not one of the model's ("auto", or a new one) leaves it open; if no variant
// has both, all are open.
func (b *Book) variantOf(q *Query, w *wanted, x *Explanation) *Entry {
	all := b.variants[w.model]
	if len(all) == 0 {
		return nil
	}
	quality, size := strings.ToLower(strings.TrimSpace(q.Quality)), normalizeSize(q.Size)
	defaultQuality, defaultSize := defaultsOf(w.model)
	if quality == "" {
		quality = defaultQuality
	}
	if size == "" {
		size = defaultSize
	}
	if !slices.ContainsFunc(all, func(v variant) bool { return v.quality == quality }) {
		quality = ""
	}
	if !slices.ContainsFunc(all, func(v variant) bool { return v.size == size }) {
		size = ""
	}
	var best, fallback *Entry
	for _, v := range all {
		of := *w
		of.model = v.name
		e := b.one(&of, nil)
		if e == nil || e.items[itemImage].price == 0 {
			continue
		}
		fallback = dearerImage(fallback, e)
		if fits(v.quality, quality) && fits(v.size, size) {
			best = dearerImage(best, e)
			x.passed(e, "a variant that fits, but there is a dearer one")
		} else {
			x.passed(e, "of another quality or size")
		}
	}
	if best == nil {
		best = fallback
	}
	if best != nil {
		x.chose(best, "the dearest variant that fits the quality and the size; what is open fits all")
	}
	return best
}

func fits(has, wanted string) bool { return has == "" || wanted == "" || has == wanted }

func dearerImage(a, b *Entry) *Entry {
	if a == nil || b.items[itemImage].charged() > a.items[itemImage].charged() {
		return b
	}
	return a
}

// withImage is an entry with the price per image of a variant.
func (e *Entry) withImage(image *Entry) Entry {
	with := *e
	with.items[itemImage] = image.items[itemImage]
	quality, size, _, _ := splitVariant(image.Model)
	with.Key += "+" + strings.Trim(quality+"/"+size, "/")
	with.noteMultipliers()
	return with
}
