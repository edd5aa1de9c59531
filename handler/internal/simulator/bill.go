package simulator

import (
	"math/big"
	"strings"
	"sync"
)

// Tokens are the prices of a token by its class, in pico-USD. Parts of a prompt
// (cached, written to the cache, images, audio) have prices of their own instead
// of In, parts of an answer instead of Out.
type Tokens struct {
	In, Cached, Write, ImageIn, AudioIn int64
	Out, ImageOut, AudioOut             int64
}

// Price is what a model costs. What costs nothing here has no price: its use is
// counted in [Bill.Unpriced].
type Price struct {
	Tokens
	Priority           Tokens // answers of the tier priority
	Long, LongPriority Tokens // prompts above LongThreshold, whole
	LongThreshold      int64  // tokens; 0: none
	// Items are the prices of what is no token, in pico-USD for one: per_image,
	// sec_in and sec_out (seconds of sound), char_in, and the calls of tools:
	// web_search_call, file_search_call, code_interpreter_session.
	Items map[string]int64
}

// The items of a line. Sound is billed by the thousandth of a second.
const (
	itemImage           = "per_image"
	itemAudioIn         = "audio_in_ms"
	itemCharacter       = "char_in"
	itemWebSearch       = "web_search_call"
	itemFileSearch      = "file_search_call"
	itemCodeInterpreter = "code_interpreter_session"
)

// Line is one answer on the bill. The classes of tokens are parts of
// PromptTokens and CompletionTokens.
type Line struct {
	ID               string           `json:"id"`         // the answer's own; embeddings, images and sound have none
	RequestID        string           `json:"request_id"` // the header apim-request-id of the answer; no two are the same
	Operation        string           `json:"operation"`
	Model            string           `json:"model"`
	Tier             string           `json:"tier"`
	SpilledOver      bool             `json:"spilled_over"`
	Stream           bool             `json:"stream"`
	Outcome          string           `json:"outcome"` // completed, filtered, blocked, cut, gone, cancelled, refused (an error that is billed)
	PromptTokens     int64            `json:"prompt_tokens"`
	CachedTokens     int64            `json:"cached_tokens"`
	CacheWriteTokens int64            `json:"cache_write_tokens"`
	ImageInTokens    int64            `json:"image_in_tokens"`
	AudioInTokens    int64            `json:"audio_in_tokens"`
	CompletionTokens int64            `json:"completion_tokens"`
	ImageOutTokens   int64            `json:"image_out_tokens"`
	AudioOutTokens   int64            `json:"audio_out_tokens"`
	Items            map[string]int64 `json:"items"`     // quantities by meter
	CostPico         string           `json:"cost_pico"` // rounded up
	CostNano         int64            `json:"cost_nano"` // rounded up

	priceName string // if it is not Model
	priced    bool
}

// Bill is what the simulator charges.
type Bill struct {
	Entries  int64  `json:"entries"`
	CostNano int64  `json:"cost_nano"`
	Unpriced int64  `json:"unpriced"` // entries with something that has no price
	Cut      bool   `json:"cut"`      // there are more entries than lines
	Lines    []Line `json:"lines"`
}

type bill struct {
	prices func(model string) (Price, bool)
	mu     sync.Mutex
	bill   Bill
}

// price works out what a line costs, in numbers of any size: in thousandths of
// a pico-USD, for thousandths of seconds.
func (b *bill) price(l *Line) {
	var price Price
	l.priced = false
	if b.prices != nil {
		name := l.Model
		if l.priceName != "" {
			name = l.priceName
		}
		price, l.priced = b.prices(name)
	}
	long := price.LongThreshold > 0 && l.PromptTokens > price.LongThreshold
	token := price.Tokens
	switch priority := l.Tier == "priority"; {
	case long && priority:
		token = price.LongPriority
	case long:
		token = price.Long
	case priority:
		token = price.Priority
	}
	sum := new(big.Int)
	add := func(n, price, parts int64) { // so many parts make one that is priced
		if n == 0 {
			return
		}
		l.priced = l.priced && price > 0
		product := new(big.Int).Mul(big.NewInt(n), big.NewInt(price))
		sum.Add(sum, product.Mul(product, big.NewInt(1000/parts)))
	}
	add(l.PromptTokens-l.CachedTokens-l.CacheWriteTokens-l.ImageInTokens-l.AudioInTokens, token.In, 1)
	add(l.CachedTokens, token.Cached, 1)
	add(l.CacheWriteTokens, token.Write, 1)
	add(l.ImageInTokens, token.ImageIn, 1)
	add(l.AudioInTokens, token.AudioIn, 1)
	add(l.CompletionTokens-l.ImageOutTokens-l.AudioOutTokens, token.Out, 1)
	add(l.ImageOutTokens, token.ImageOut, 1)
	add(l.AudioOutTokens, token.AudioOut, 1)
	for meter, n := range l.Items {
		if meter == itemAudioIn {
			add(n, price.Items["sec_in"], 1000)
		} else {
			add(n, price.Items[meter], 1)
		}
	}
	up := func(by int64) *big.Int {
		return new(big.Int).Div(new(big.Int).Add(sum, big.NewInt(by-1)), big.NewInt(by))
	}
	l.CostPico, l.CostNano = up(1000).String(), up(1_000_000).Int64()
}

// count adds a line to the totals, or with -1 takes it off.
func (b *bill) count(l *Line, sign int64) {
	b.bill.Entries += sign
	b.bill.CostNano += sign * l.CostNano
	if !l.priced {
		b.bill.Unpriced += sign
	}
}

// charge adds an answer, at whatever the service would bill for it.
func (b *bill) charge(l Line) {
	b.price(&l)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count(&l, 1)
	if len(b.bill.Lines) >= BillLinesMax {
		b.bill.Cut = true
		return
	}
	b.bill.Lines = append(b.bill.Lines, l)
}

// change changes the line of an answer, if it is there.
func (b *bill) change(id string, how func(*Line)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.bill.Lines) - 1; i >= 0; i-- {
		if l := &b.bill.Lines[i]; l.ID == id {
			b.count(l, -1)
			how(l)
			b.price(l)
			b.count(l, 1)
			return
		}
	}
}

func (b *bill) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bill = Bill{}
}

// Bill is what was charged since the start, or the last reset.
func (s *Server) Bill() Bill {
	s.bill.mu.Lock()
	defer s.bill.mu.Unlock()
	b := s.bill.bill
	b.Lines = append([]Line{}, b.Lines...)
	return b
}

// charge bills an answer with so many tokens.
func (c *call) charge(outcome string, completion int64) {
	l := Line{
		ID: c.responseID(), RequestID: c.requestID, Operation: c.operation, Model: c.model, Tier: c.tier(), SpilledOver: c.settings.Spilled,
		Stream: c.in.Stream, Outcome: outcome, PromptTokens: c.prompt, CachedTokens: c.cached, CacheWriteTokens: c.write,
		ImageInTokens: c.imageIn, AudioInTokens: c.audioIn, CompletionTokens: completion, ImageOutTokens: c.imageOut, AudioOutTokens: c.audioOut,
		Items: c.items, priceName: c.priceName,
	}
	if outcome == "refused" {
		l.ID = ""
	}
	c.server.bill.charge(l)
}

// use adds an item to what is billed.
func (c *call) use(meter string, n int64) {
	if c.items == nil {
		c.items = map[string]int64{}
	}
	c.items[meter] += n
}

func (c *call) responseID() string {
	switch c.operation {
	case "chat":
		return "chatcmpl-" + c.id
	case "completions":
		return "cmpl-" + c.id
	case "responses":
		return "resp_" + c.id
	}
	return ""
}

// isGPTImage tells the image models that are billed by tokens.
func isGPTImage(model string) bool {
	return strings.HasPrefix(model, "gpt-image") || strings.HasPrefix(model, "chatgpt-image")
}
