package retail

import "strings"

// A class is what a word of a meter's name can mean.
type class uint8

const (
	aFiller    class = iota + 1 // says nothing
	anInput                     // direction
	anOutput                    // direction
	aCached                     // cached input
	aWrite                      // with "cached": writing the cache
	aGlobal                     // deployment type
	aZone                       // deployment type
	aRegional                   // deployment type
	aBatch                      // deployment type
	aPriority                   // service tier
	aStandard                   // service tier, the usual one
	aLong                       // context band
	aShort                      // context band
	aThousand                   // unit
	aMillion                    // unit
	aTokens                     // unit
	aFineTuned                  // excluded
	aHosted                     // excluded
	aGrader                     // excluded
	aProvision                  // excluded
	aFlex                       // excluded
	aPerCall                    // excluded
)

// vocabulary is every word of meter names that is not part of a model's name.
// The spellings come from published lists of meters; a meter with another one
// is reported as unmatched, which is how a new spelling shows up.
var vocabulary = map[string]class{
	"inp": anInput, "inpt": anInput, "input": anInput, "in": anInput,
	"outp": anOutput, "outpt": anOutput, "output": anOutput, "opt": anOutput, "out": anOutput, "otpt": anOutput,
	"cached": aCached, "cach": aCached, "cache": aCached, "cchd": aCached, "cched": aCached, "ccchd": aCached, "chd": aCached,
	"cd": aCached,
	"wr": aWrite, "write": aWrite, "writes": aWrite,
	"gl": aGlobal, "glb": aGlobal, "glbl": aGlobal, "global": aGlobal,
	"dz": aZone, "dzn": aZone, "dzone": aZone, "datazone": aZone,
	"rg": aRegional, "rgnl": aRegional, "regn": aRegional, "regnl": aRegional, "regional": aRegional,
	"batch": aBatch,
	"pp":    aPriority, "priority": aPriority,
	"std": aStandard, "standard": aStandard,
	"longco": aLong, "loco": aLong, "shortco": aShort, "shco": aShort,
	"1k": aThousand, "1m": aMillion, "tokens": aTokens, "token": aTokens,
	"unit": aFiller,

	"ft": aFineTuned, "rft": aFineTuned, "dev": aFineTuned, "finetuned": aFineTuned, "training": aFineTuned, "trng": aFineTuned,
	"hosting": aHosted, "hstng": aHosted,
	"grader": aGrader, "grdr": aGrader,
	"provisioned": aProvision, "ptu": aProvision,
	"flex": aFlex, "fl": aFlex,
	"session": aPerCall, "calls": aPerCall, "images": aPerCall, "second": aPerCall, "gb": aPerCall,
}

// excluded says why meters with such words are left out: the book has no place for them.
var excluded = map[class]string{
	aFineTuned: "fine-tuned models are not priced",
	aHosted:    "hosting is paid by the hour",
	aGrader:    "graders are not priced",
	aProvision: "provisioned throughput is paid by the hour",
	aFlex:      "the flex tier is not priced",
	aPerCall:   "not sold by the token",
}

// pairs are words that mean something only together.
var pairs = map[[2]string]string{
	{"data", "zone"}: "datazone",
	{"long", "co"}:   "longco", {"short", "co"}: "shortco",
	{"fine", "tuned"}: "finetuned",
}

// spellings of words that are part of models' names.
var spellings = map[string]string{
	"aud": "audio", "txt": "text", "img": "image", "rt": "realtime", "rtime": "realtime", "tcrb": "transcribe", "trscb": "transcribe",
	"mn": "mini", "prvw": "preview", "35": "3.5",
}

// The kinds of token that media models price apart.
const (
	kindText  = "text"
	kindAudio = "audio"
	kindImage = "image"
)

// aliases are models whose meters call them by other words than their names.
var aliases = map[string]string{
	"embedding ada":             "text-embedding-ada-002",
	"computer use":              "computer-use-preview",
	"gpt 3.5 turbo 4k":          "gpt-3.5-turbo",
	"gpt 4 8k":                  "gpt-4",
	"gpt 4 turbo 128k":          "gpt-4-turbo",
	"gpt 4 turbo vision 128k":   "gpt-4-turbo-vision-preview",
	"gpt 4.5":                   "gpt-4.5-preview",
	"gpt 4o audio":              "gpt-4o-audio-preview",
	"gpt 4o mini audio":         "gpt-4o-mini-audio-preview",
	"gpt 4o realtime":           "gpt-4o-realtime-preview",
	"gpt 4o mini realtime":      "gpt-4o-mini-realtime-preview",
	"gpt 4o transcribe d":       "gpt-4o-transcribe-diarize",
	"gpt 4o transcribe diarize": "gpt-4o-transcribe-diarize",
	"whisper":                   "whisper-1",
	"tts":                       "tts-1",
	"tts hd":                    "tts-1-hd",
}

// chunks splits a name at everything that is no letter, digit or decimal point,
// in lower case. "gpt-4o 5.1" is gpt, 4o, 5.1.
func chunks(name string) []string {
	s := strings.ToLower(name)
	digit := func(i int) bool { return i >= 0 && i < len(s) && s[i] >= '0' && s[i] <= '9' }
	var out []string
	start := -1
	for i := 0; i <= len(s); i++ {
		part := i < len(s) && (digit(i) || s[i] >= 'a' && s[i] <= 'z' || s[i] >= 0x80 || s[i] == '.' && digit(i-1) && digit(i+1))
		switch {
		case part && start < 0:
			start = i
		case !part && start >= 0:
			out = append(out, s[start:i])
			start = -1
		}
	}
	return out
}

// stamp tells whether a word is the date of a model's version: MMDD or MMDDYYYY.
func stamp(word string) bool {
	if len(word) != 4 && len(word) != 8 || strings.Trim(word, "0123456789") != "" {
		return false
	}
	month, day := word[:2], word[2:4]
	return month >= "01" && month <= "12" && day >= "01" && day <= "31" && (len(word) == 4 || word[4:6] == "20")
}
