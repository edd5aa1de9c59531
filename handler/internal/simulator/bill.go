package simulator

import (
	"math/big"
	"sync"
)

// Line is one answer on the bill.
type Line struct {
	ID               string `json:"id"`
	Operation        string `json:"operation"`
	Model            string `json:"model"`
	Stream           bool   `json:"stream"`
	Outcome          string `json:"outcome"` // completed, filtered, blocked, cut, gone
	PromptTokens     int64  `json:"prompt_tokens"`
	CachedTokens     int64  `json:"cached_tokens"`
	CompletionTokens int64  `json:"completion_tokens"`
	CostPico         string `json:"cost_pico"`
	CostNano         int64  `json:"cost_nano"` // rounded up
}

// Bill is what the simulator charges.
type Bill struct {
	Entries  int64  `json:"entries"`
	CostNano int64  `json:"cost_nano"`
	Unpriced int64  `json:"unpriced"` // entries whose model has no price
	Cut      bool   `json:"cut"`      // there are more entries than lines
	Lines    []Line `json:"lines"`
}

type bill struct {
	prices func(model string) (Price, bool)
	mu     sync.Mutex
	bill   Bill
}

// charge adds an answer, at whatever the service would bill for it.
func (b *bill) charge(l Line) {
	price, ok := Price{}, false
	if b.prices != nil {
		price, ok = b.prices(l.Model)
	}
	product := func(n, price int64) *big.Int { return new(big.Int).Mul(big.NewInt(n), big.NewInt(price)) }
	pico := product(l.PromptTokens-l.CachedTokens, price.In)
	pico.Add(pico, product(l.CachedTokens, price.Cached)).Add(pico, product(l.CompletionTokens, price.Out))
	l.CostPico = pico.String()
	l.CostNano = new(big.Int).Div(new(big.Int).Add(pico, big.NewInt(999)), big.NewInt(1000)).Int64()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bill.Entries++
	b.bill.CostNano += l.CostNano
	if !ok {
		b.bill.Unpriced++
	}
	if len(b.bill.Lines) >= BillLinesMax {
		b.bill.Cut = true
		return
	}
	b.bill.Lines = append(b.bill.Lines, l)
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

func (c *call) charge(outcome string, completion int64) {
	c.server.bill.charge(Line{
		ID: c.responseID(), Operation: c.operation, Model: c.model, Stream: c.in.Stream, Outcome: outcome,
		PromptTokens: c.prompt, CachedTokens: c.cached, CompletionTokens: completion,
	})
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
