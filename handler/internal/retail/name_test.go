package retail

import (
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/pricing"
)

// catalog knows the models of the built-in book, some of its versions spelt out so
// that the tests do not depend on it, and some that it does not have.
func catalog(tb testing.TB) *Catalog {
	tb.Helper()
	c, err := NewCatalog(pricing.Builtin(), []string{
		"gpt-4o-2024-05-13", "gpt-4o-2024-08-06", "gpt-4o-2024-11-20", "gpt-4o-mini-2024-07-18", "gpt-4.1", "o3-mini-2025-01-31",
		"o4-mini-2025-04-16", "o3-2025-04-16", "gpt-realtime-2.1=realtime", "gpt-transcribe=audio_transcription",
		"gpt-live-transcribe=audio_transcription", "gpt-chat-latest-2026-08-06",
	})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestParseName(t *testing.T) {
	c := catalog(t)
	f := func(name, want string) {
		t.Helper()
		n, err := c.Parse(name)
		got := line{product{n.Model, n.Version, n.SKU}, n.Meter}.String()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", name, got, want)
		}
	}
	f("gpt 4o 1120 Inp glbl Tokens", "gpt-4o/2024-11-20/GlobalStandard/in")
	f("gpt-4o-0806-Outp-regnl Tokens", "gpt-4o/2024-08-06/Standard/out")
	f("gpt 4o 0806 cached Inp Data Zone Tokens", "gpt-4o/2024-08-06/DataZoneStandard/in_cached")
	f("gpt 4o 0513 Batch Outp global Tokens", "gpt-4o/2024-05-13/GlobalBatch/out")
	f("gpt-4o-mini-0718-Inp-glbl Tokens", "gpt-4o-mini/2024-07-18/GlobalStandard/in")
	f("gpt 4o mini0718 BatchInp DataZone Tokens", "gpt-4o-mini/2024-07-18/DataZoneBatch/in")
	f("gpt4omini0718BatchOutpDataZone", "gpt-4o-mini/2024-07-18/DataZoneBatch/out")
	f("gpt 4.1 Inp glbl Tokens", "gpt-4.1/*/GlobalStandard/in")
	f("gpt 4.1 nano cached Inp DZone Tokens", "gpt-4.1-nano/*/DataZoneStandard/in_cached")
	f("gpt 4.1 pp Inp glbl Tokens", "gpt-4.1/*/GlobalStandard/prio_in")
	f("o3 mini 0131 Batch Outp Data Zone Tokens", "o3-mini/2025-01-31/DataZoneBatch/out")
	f("o3 0416 output glbl Tokens", "o3/2025-04-16/GlobalStandard/out")
	f("o1 preview cached input glbl Tokens", "o1-preview/*/GlobalStandard/in_cached")
	f("GPT 5 Mini cchd Inpt DZone 1M Tokens", "gpt-5-mini/*/DataZoneStandard/in_cached")
	f("GPT 5 Chat outpt Glbl 1M Tokens - Preview", "gpt-5-chat/*/GlobalStandard/out")
	f("gpt 5 pro out glbl Tokens", "gpt-5-pro/*/GlobalStandard/out")
	f("gpt-5-codex-ccchd-inp-glbl Tokens", "gpt-5-codex/*/GlobalStandard/in_cached")
	f("codex mini inp cchd glbl Tokens", "codex-mini/*/GlobalStandard/in_cached")
	f("5.1 codex mini opt Gl 1M Tokens", "gpt-5.1-codex-mini/*/GlobalStandard/out")
	f("GPT 5.1 inp Rg 1M Tokens", "gpt-5.1/*/Standard/in")
	f("5.1 pp cd inp Dz 1M Tokens", "gpt-5.1/*/DataZoneStandard/prio_in_cached")
	f("5.4 opt Gl", "gpt-5.4/*/GlobalStandard/out")
	f("5.4 mini Inp Dz 1M Tokens", "gpt-5.4-mini/*/DataZoneStandard/in")
	f("5.5 LoCo Cd Inp PP Gl 1M Tokens", "gpt-5.5/*/GlobalStandard/long_prio_in_cached")
	f("5.5 Long Co Opt DZn 1M Tokens", "gpt-5.5/*/DataZoneStandard/long_out")
	f("5.6 luna ShortCo Cd Wr Std Gl 1M Tokens", "gpt-5.6-luna/*/GlobalStandard/in_cache_write")
	f("5.6 terra LongCo Cd Wr Std DZ 1M Tokens", "gpt-5.6-terra/*/DataZoneStandard/long_in_cache_write")
	f("5.6 sol ShCo Batch Opt Gl 1M Tokens", "gpt-5.6-sol/*/GlobalBatch/out")
	f("text-embedding-3-large-glbl Tokens", "text-embedding-3-large/*/GlobalStandard/in")
	f("text embedding 3 small DZ Tokens", "text-embedding-3-small/*/DataZoneStandard/in")
	f("embedding-ada-regional Tokens", "text-embedding-ada-002/*/Standard/in")
	f("computer-use-outp-glbl Tokens", "computer-use-preview/*/GlobalStandard/out")
	f("gpt-35-turbo4K-Inp-glbl Tokens", "gpt-3.5-turbo/*/GlobalStandard/in")
	f("gpt-4-turbo128K Outp-glbl Tokens", "gpt-4-turbo/*/GlobalStandard/out")
	f("gpt-4-8K-Inp-glbl Tokens", "gpt-4/*/GlobalStandard/in")
	f("chat-latest 08062026 inp Gl", `model "chat latest" is not known`)

	f("gpt-realtime-2.1 Text inp Gl 1M Tokens", "gpt-realtime-2.1/*/GlobalStandard/in")
	f("gpt-realtime-2.1 Audio cd inp Gl 1M Tokens", "gpt-realtime-2.1/*/GlobalStandard/audio_in_cached")
	f("gpt rt 1.5 img inp Gl", "gpt-realtime-1.5/*/GlobalStandard/image_in")
	f("gpt rt aud mn Outp glbl Tokens", "gpt-realtime-mini/*/GlobalStandard/audio_out")
	f("gpt-4o-rt-txt-1217 cchd Inp glbl Tokens", "gpt-4o-realtime-preview/2024-12-17/GlobalStandard/in_cached")
	f("gpt4omini-rt-aud1217 Outp glbl Tokens", "gpt-4o-mini-realtime-preview/2024-12-17/GlobalStandard/audio_out")
	f("gpt4o realtimePrvw audio inp glbl Tokens", "gpt-4o-realtime-preview/*/GlobalStandard/audio_in")
	f("gpt-4o-aud-1217 Inp glbl Tokens", "gpt-4o-audio-preview/2024-12-17/GlobalStandard/audio_in")
	f("gpt-4o-aud-1217-txt Outp glbl Tokens", "gpt-4o-audio-preview/2024-12-17/GlobalStandard/out")
	f("gpt-4o-transcribe-aud-inp-glbl Tokens", "gpt-4o-transcribe/*/GlobalStandard/audio_in")
	f("gpt 4o tcrb d txt out glbl Tokens", "gpt-4o-transcribe-diarize/*/GlobalStandard/out")
	f("gpt-transcribe Gl Unit", "gpt-transcribe/*/GlobalStandard/sec_in")
	f("tts hd glbl Unit", "tts-1-hd/*/GlobalStandard/char_in")
	f("gpt-image-1-inp-img-glbl Tokens", "gpt-image-1/*/GlobalStandard/image_in")
	f("gpt-image-1-inp-cached-txt-glbl Tokens", "gpt-image-1/*/GlobalStandard/in_cached")

	f("gpt-image-1-inp-cached-img-glbl Tokens", "the book has no price for cached images")
	f("gpt rt 1.5 Inp Gl", "the name does not say which tokens are meant: text, audio or image")
	f("gpt 4o aud ft Inp glbl Tokens", "left out: fine-tuned models are not priced")
	f("gpt 4o mini dev ft cchd inpt glbl Tokens", "left out: fine-tuned models are not priced")
	f("o4-mini-ft model grader output Tokens", "left out: fine-tuned models are not priced")
	f("gpt 4.1 grdr Inp glbl Tokens", "left out: graders are not priced")
	f("Provisioned Managed Global Unit", "left out: provisioned throughput is paid by the hour")
	f("gpt 4.1 hosting global Unit", "left out: hosting is paid by the hour")
	f("54 inp Flex Gl 1M Tokens", "left out: the flex tier is not priced")
	f("56sol ShCo Inp Fl Gl", "left out: the flex tier is not priced")
	f("Sora 2 pro glbl Second", "left out: not sold by the token")
	f("Image-Dall-E-3 HD LowRes-glbl Images", "left out: not sold by the token")
	f("Code-Interpreter-global Session", "left out: not sold by the token")

	f("5.2 chat 0210 inp Gl 1M Tokens", "no version 0210 of gpt-5.2-chat is known")
	f("gpt 4.1 Inp Tokens", "the name has no deployment type")
	f("gpt 4.1 Inp glbl regnl Tokens", "the name has two deployment types")
	f("gpt 4.1 Batch Inp regnl Tokens", "there is no regional batch deployment")
	f("gpt 4.1 glbl Tokens", "the name has no direction")
	f("gpt 4.1 Inp Outp glbl Tokens", "the name's direction is unclear")
	f("gpt 4.1 cached Outp glbl Tokens", "the name's direction is unclear")
	f("gpt 4.1 Wr glbl Tokens", "the name's direction is unclear")
	f("5.5 ShortCo LongCo inp Gl", "the name has two context bands")
	f("5.5 pp inp Std Gl", "the name has two service tiers")
	f("5.5 pp Batch inp Gl", "the name has two service tiers")
	f("text-embedding-3-large-outp-glbl Tokens", "embeddings have no such meter")
	f("gpt 4o aud Inp regnl Tokens", "gpt-4o-audio-preview/*/Standard/audio_in")
	f("gpt 4.1 aud Inp glbl Tokens", `model "gpt 4.1 audio" is not known`)
	f("gpt 5.1 maxi inp Gl", `model "gpt 5.1 maxi" is not known`)
	f("gpt 51 inp Gl", `model "gpt 51" is not known`)
	f("gpt 4o 1120 0806 Inp glbl Tokens", `model "gpt 4o 0806" is not known`)
	f("gpt 4o Data Inp glbl Tokens", `model "gpt 4o data" is not known`)
	f("", `model "" is not known`)
	f("Ünï inp Gl", `model "ünï" is not known`)
	f(strings.Repeat("a", NameBytesMax), `model "`+strings.Repeat("a", NameBytesMax)+`" is not known`)
	f(strings.Repeat("a", NameBytesMax+1), "the name has more than 200 bytes")
}

// Every model and version of the built-in book is found by its own name.
func TestOwnNames(t *testing.T) {
	c, err := NewCatalog(pricing.Builtin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for e := range pricing.Builtin().All() {
		switch m := c.byName[e.Model]; {
		case m == nil || m.media() && !m.nativeAudio():
			continue
		default:
			date := e.Version
			if len(date) == len("2026-01-31") {
				date = date[5:7] + date[8:] + date[:4]
			}
			date = strings.TrimSuffix(date, "-preview")
			got, err := c.Parse(e.Model + " " + date + " Inp glbl Tokens")
			if n++; err != nil || got.Model != e.Model || got.Version != e.Version {
				t.Errorf("%s: %+v, %v", e.Key, got, err)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d entries", n)
	}
}

func TestAddedModels(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, err := NewCatalog(pricing.Builtin(), []string{text})
		if got := err == nil; got != (want == "") || !got && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	f("gpt-9", "")
	f("gpt-9-2027-01-31", "")
	f("gpt-9=embedding", "")
	f("", "write a name")
	f("=chat", "write a name")
	f("gpt 9", "write a name")
	f("hd/gpt-9", "write a name")
	f("gpt-9=talk", "write a name")
	if _, err := NewCatalog(pricing.Builtin(), make([]string, ModelsMax+1)); err == nil {
		t.Error("too many models")
	}
	c, err := NewCatalog(pricing.Builtin(), []string{"gpt-9-2027-01-31", "gpt-9-2028-01-31", "o9-0613", "gpt-4o-mini-0718"})
	if err != nil {
		t.Fatal(err)
	}
	g := func(name, want string) {
		t.Helper()
		n, err := c.Parse(name)
		if err != nil || n.Version != want {
			t.Errorf("%q: %v, %v", name, n, err)
		}
	}
	g("gpt 9 01312028 inp Gl", "2028-01-31")
	g("o9 0613 inp Gl", "0613")
	if _, err := c.Parse("gpt 9 0131 inp Gl"); err == nil || !strings.Contains(err.Error(), "any of 2027-01-31, 2028-01-31") {
		t.Error(err)
	}
}

// seedNames are shapes for the fuzzer.
var seedNames = []string{
	"gpt 4o 1120 Inp glbl Tokens", "gpt 4o mini0718 BatchOutp DataZone Tokens", "5.6 luna ShortCo Cd Wr Std Gl 1M Tokens",
	"gpt-4o-aud-1217-txt Inp glbl Tokens", "text-embedding-3-large-glbl Tokens", "gpt4omini-rt-aud1217 cchd Inp glbl Tokens",
	"gpt 5 pro out glbl Tokens", "GPT 5 Chat outpt Glbl 1M Tokens - Preview", "..--1m1k", "gpt-35-turbo16K-0125 Inp-glbl Tokens",
}

// FuzzParseName: no panic; and the words that are not of the vocabulary, without
// a date and one kind of token, are all the words of the model and no other.
func FuzzParseName(f *testing.F) {
	c := catalog(f)
	for _, s := range seedNames {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		n, err := c.Parse(name)
		if err != nil {
			return
		}
		if n.SKU == "" || n.Meter == "" || c.byName[n.Model] == nil {
			t.Fatalf("%q: %+v", name, n)
		}
		var words []string
		dates := 0
		for i, word := range c.split(name) {
			switch _, known := vocabulary[word]; {
			case stamp(word):
				dates++
			case !known && (word != "preview" || i == 0 || c.split(name)[i-1] != "tokens"):
				words = append(words, word)
			}
		}
		own := false
		for key, m := range c.byWords {
			if m.name == n.Model {
				spoken := strings.TrimPrefix(key, "gpt ")
				for i := range len(words) + 1 { // without words[i]; at the end: with all
					rest := words
					if i < len(words) {
						if !slices.Contains([]string{kindText, kindAudio, kindImage}, words[i]) {
							continue
						}
						rest = slices.Concat(words[:i], words[i+1:])
					}
					joined := strings.Join(rest, " ")
					own = own || joined == key || joined == spoken
				}
			}
		}
		if !own || dates > 1 || (dates == 1) != (n.Version != "") {
			t.Fatalf("%q with words %q was taken for %+v", name, words, n)
		}
	})
}

// FuzzLongerName: a word more that is not of the vocabulary is never overlooked.
func FuzzLongerName(f *testing.F) {
	c := catalog(f)
	for _, s := range []string{"mini", "pro", "x", "5", ".1", "o", "-nano", "cd", "0806", "Inp", "4", "batch pro", "turbo128K", "aud"} {
		f.Add(s)
	}
	shorter := []string{"gpt 4o", "gpt 5", "gpt 4", "o3", "o1", "5.4", "5.6", "gpt 4.1", "gpt 5.1 codex"}
	f.Fuzz(func(t *testing.T, more string) {
		explained := true // by vocabulary, date, kind or unit alone
		for _, word := range c.split(more) {
			_, known := vocabulary[word]
			explained = explained && (known || stamp(word) || word == "preview")
		}
		if explained {
			return
		}
		for _, model := range shorter {
			plain, err := c.Parse(model + " Inp glbl Tokens")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{
				model + " " + more + " Inp glbl Tokens", model + "-" + more + "-Inp-glbl Tokens",
				more + " " + model + " Inp glbl Tokens", model + " Inp " + more + " glbl Tokens", model + " Inp glbl Tokens " + more,
			} {
				n, err := c.Parse(name)
				if err == nil && n.Model == plain.Model && !sameWords(c, more, model) {
					t.Fatalf("%q was taken for %s", name, n.Model)
				}
			}
		}
	})
}

// sameWords tells whether more is only another spelling within the model's own
// aliases ("gpt" before a number, "8k" behind gpt 4).
func sameWords(c *Catalog, more, model string) bool {
	var words []string
	for _, word := range c.split(more) {
		if _, ok := vocabulary[word]; !ok && !stamp(word) {
			words = append(words, word)
		}
	}
	joined := strings.Join(words, " ")
	return joined == "gpt" && model[0] <= '9' || joined == "8k" && model == "gpt 4"
}

// TestPublishedMeters reads meter names as published, and compares them with what
// regular expressions make of them.
func TestPublishedMeters(t *testing.T) {
	dir := os.Getenv("COSTGATE_TESTDATA")
	if dir == "" {
		t.Skip("COSTGATE_TESTDATA is not set")
	}
	data, err := os.ReadFile(filepath.Join(dir, "prices", "retail-meters.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Meters []struct {
			M, UOM, Product string
			USD             json.Number
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	c := catalog(t)
	understood, priced, left := 0, 0, 0
	for _, m := range file.Meters {
		n, err := c.Parse(m.M)
		if errors.Is(err, ErrExcluded) {
			left++
			if !regexp.MustCompile(`(?i)\bft\b|Provisioned|hosting|Second`).MatchString(m.M) {
				t.Errorf("%q: %v", m.M, err)
			}
			continue
		}
		if strings.HasPrefix(m.M, "chat-latest") { // no model of the book
			if err == nil {
				t.Errorf("%q: %v", m.M, n)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", m.M, err)
			continue
		}
		understood++
		got := line{product{n.Model, n.Version, n.SKU}, n.Meter}.String()
		if want := byExpression(m.M); got != want {
			t.Errorf("%q: got %s, want %s", m.M, got, want)
		}
		if m.USD == "" || m.UOM == "" {
			continue
		}
		priced++
		u, err := parseUnit(m.UOM, counts(n.Meter))
		if err != nil {
			t.Errorf("%q: %v", m.M, err)
			continue
		}
		price, err := u.pico(m.USD.String())
		exact, _ := new(big.Rat).SetString(m.USD.String())
		exact.Mul(exact, big.NewRat(1_000_000_000_000, map[string]int64{"1K": 1000, "1M": 1_000_000, "1 Hour": 3600}[m.UOM]))
		if err != nil || new(big.Rat).SetInt64(int64(price)).Cmp(exact) != 0 {
			t.Errorf("%q: got %d, %v; want %v", m.M, price, err, exact)
		}
		if m.M == "5.6 luna ShortCo Cd Wr Std Gl 1M Tokens" && (got != "gpt-5.6-luna/*/GlobalStandard/in_cache_write" || price != money.Pico(250_000)) {
			t.Errorf("%q: %s %d", m.M, got, price)
		}
	}
	t.Logf("%d meters: %d understood, %d of them with a price, %d left out", len(file.Meters), understood, priced, left)
	if understood < 60 || priced < 35 {
		t.Errorf("only %d understood, %d with a price", understood, priced)
	}
}

// byExpression reads a name in another way: the first expression that fits.
func byExpression(name string) string {
	s := strings.ToLower(regexp.MustCompile(`[- ]+`).ReplaceAllString(name, " "))
	first := func(table ...string) string {
		for i := 0; i < len(table); i += 2 {
			if regexp.MustCompile(table[i]).MatchString(s) {
				return table[i+1]
			}
		}
		return "?"
	}
	media := regexp.MustCompile(`audio|\baud\b`).MatchString(s)
	model := first(`^text embedding 3 large`, "text-embedding-3-large/*", `^text embedding 3 small`, "text-embedding-3-small/*",
		`^embedding ada`, "text-embedding-ada-002/*", `^gpt 4o transcribe`, "gpt-4o-transcribe/*", `^gpt live transcribe`, "gpt-live-transcribe/*",
		`^gpt transcribe`, "gpt-transcribe/*", `^gpt realtime 2\.1`, "gpt-realtime-2.1/*",
		`^gpt 4o mini ?0718`, "gpt-4o-mini/2024-07-18", `^gpt 4o 0806`, "gpt-4o/2024-08-06", `^gpt 4o 1120`, "gpt-4o/2024-11-20",
		`^gpt 4o 0513`, "gpt-4o/2024-05-13", `^gpt 4\.1 mini`, "gpt-4.1-mini/*", `^gpt 4\.1 `, "gpt-4.1/*", `^o3 mini 0131`, "o3-mini/2025-01-31",
		`^o4 mini 0416`, "o4-mini/2025-04-16", `^o3 0416`, "o3/2025-04-16", `^gpt 5 pro`, "gpt-5-pro/*", `^gpt 5 codex`, "gpt-5-codex/*",
		`^gpt 5 mini`, "gpt-5-mini/*", `^gpt 5 `, "gpt-5/*", `^(gpt )?5\.1 `, "gpt-5.1/*", `^5\.4 mini`, "gpt-5.4-mini/*", `^5\.4 `, "gpt-5.4/*",
		`^5\.5 `, "gpt-5.5/*", `^5\.6 luna`, "gpt-5.6-luna/*")
	sku := first(`batch.*(data ?zone|dz)`, "DataZoneBatch", `batch.*(glbl|global)`, "GlobalBatch", `data ?zone|dz`, "DataZoneStandard",
		`\b(glbl|gl|global)\b`, "GlobalStandard", `regnl|regional|\brg\b`, "Standard")
	meter := first(`unit$`, "sec_in", `cd wr`, "in_cache_write", `cached|c+hd|\bcd\b`, "in_cached", `outp|opt\b|out\b`, "out", ``, "in")
	if media {
		meter = "audio_" + meter
	}
	if regexp.MustCompile(`\bpp\b`).MatchString(s) {
		meter = "prio_" + meter
	}
	if strings.Contains(s, "longco") {
		meter = "long_" + meter
	}
	return model + "/" + sku + "/" + meter
}
