package pricing

import (
	"slices"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/usage"
)

// The classes of tokens, each with a price of its own. Those before classOut
// are parts of a prompt.
const (
	classIn = iota
	classCached
	classWrite
	classAudioIn
	classAudioCached
	classImageIn
	classOut
	classAudioOut
	classImageOut
	classCount
)

var classNames = [classCount]string{
	"in", "in_cached", "in_cache_write", "audio_in", "audio_in_cached", "image_in", "out", "audio_out", "image_out",
}

// The bands of prices: the tier times the length of the prompt.
const (
	bandStandard = iota
	bandPriority
	bandLong
	bandLongPriority
	bandCount
)

// A meter's prefix tells its band.
var bandPrefixes = [bandCount]string{"", "prio_", "long_", "long_prio_"}

// The meters of items, which are not tokens. The last three are tools.
const (
	itemImage = iota
	itemSecondIn
	itemSecondOut
	itemCharacter
	itemVideo
	itemCodeInterpreter
	itemWebSearch
	itemFileSearch
	itemCount
)

var itemMeters = [itemCount]string{
	"per_image", "sec_in", "sec_out", "char_in", "video_sec", "code_interpreter_session", "web_search_call", "file_search_call",
}

// toolNames are the models of the entries of mode tool.
var toolNames = map[string]int{
	"code_interpreter": itemCodeInterpreter, "web_search": itemWebSearch, "file_search": itemFileSearch,
}

// itemOf finds the meter of a usage item. Seconds are counted in thousandths.
func itemOf(meter string) (item int, thousandths, ok bool) {
	switch meter {
	case usage.ItemImage:
		return itemImage, false, true
	case usage.ItemAudioIn:
		return itemSecondIn, true, true
	case usage.ItemAudioOut:
		return itemSecondOut, true, true
	case usage.ItemCharacter:
		return itemCharacter, false, true
	case usage.ItemCodeInterpreter:
		return itemCodeInterpreter, false, true
	case usage.ItemWebSearch:
		return itemWebSearch, false, true
	case usage.ItemFileSearch:
		return itemFileSearch, false, true
	case itemMeters[itemVideo]:
		return itemVideo, false, true
	}
	return 0, false, false
}

// itemPrice is what one unit costs, and the multiplier of the entry that says so.
type itemPrice struct {
	price money.Pico // 0: not sold
	ppm   int64
}

// charged is the price with the multiplier, rounded up.
func (p itemPrice) charged() money.Pico { return scale(p.price, money.Pico(p.ppm), money.PPM) }

var meters = allMeters()

func allMeters() (names []string) {
	for _, prefix := range bandPrefixes {
		for _, class := range classNames {
			names = append(names, prefix+class)
		}
	}
	names = append(names, "batch_in", "batch_in_cached", "batch_out")
	return append(names, itemMeters[:]...)
}

// Meters are the names that pico_usd may have, in a fixed order.
func Meters() []string { return slices.Clone(meters) }
