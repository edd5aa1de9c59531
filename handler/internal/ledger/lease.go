package ledger

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// account is the stored account of a period. Always
//
//	Committed = Closed + the Granted of every open lease
//	Committed <= Budget, but for records of money already spent
type account struct {
	Window    quota.Window
	Budget    int64
	Committed int64 // what may have been spent
	Closed    int64 // what was spent under leases that are gone
	Records   int64 // of those leases, as are the next two
	Tokens    int64
	Overruns  int64
	Version   int64 // counts every change
	Config    int64 // the version of the configuration that it knows of
	Pressure  int64 // counts how often idle shares were called back
}

func (a *account) entity() Entity {
	return Entity{
		Row: accountRow(a.Window.Name),
		Ints: map[string]int64{
			"Budget": a.Budget, "Committed": a.Committed, "Closed": a.Closed, "Records": a.Records, "Tokens": a.Tokens,
			"Overruns": a.Overruns, "Version": a.Version, "Config": a.Config, "Pressure": a.Pressure,
		},
		Texts: map[string]string{"Period": a.Window.Name, "Start": formatTime(a.Window.Start), "End": formatTime(a.Window.End)},
	}
}

func accountOf(e Entity) account {
	return account{
		Window: quota.Window{Name: e.Texts["Period"], Start: parseTime(e.Texts["Start"]), End: parseTime(e.Texts["End"])},
		Budget: e.Ints["Budget"], Committed: e.Ints["Committed"], Closed: e.Ints["Closed"], Records: e.Ints["Records"],
		Tokens: e.Ints["Tokens"], Overruns: e.Ints["Overruns"], Version: e.Ints["Version"], Config: e.Ints["Config"],
		Pressure: e.Ints["Pressure"],
	}
}

// intent is a hold that a lease lists: its request may be running.
type intent struct {
	ID   string // of the record
	Hold int64
	// What of the record differs from request to request; the rest is in a
	// template that many intents share.
	NanoUSD  usage.Count
	Request  usage.Text
	User     usage.Text
	template string
	stored   string // its stored form up to the template's index: it is written again and again
}

// storedIntent is how a row has an intent. Template is an index.
type storedIntent struct {
	ID       string      `json:"d"`
	Hold     int64       `json:"h"`
	NanoUSD  usage.Count `json:"n"`
	Request  usage.Text  `json:"r"`
	User     usage.Text  `json:"u"`
	Template int         `json:"t"`
}

// newIntent lists a record that is about to be.
func newIntent(r *usage.Record, hold int64) (intent, error) {
	i := intent{ID: r.ID, Hold: hold, NanoUSD: r.HoldNanoUSD, Request: r.RequestID, User: r.User}
	shared := *r
	shared.ID, shared.Time, shared.HoldNanoUSD, shared.RequestID, shared.User = "", time.Time{}, usage.Count{}, "", ""
	doc, err := json.Marshal(&shared)
	if err != nil {
		return i, err
	}
	i.template = string(doc)
	return i, i.encode()
}

const indexBytes = 5 // of a template's index, and what stands between two intents

func (i *intent) bytes() int { return len(i.stored) + indexBytes }

// encode makes the stored form.
func (i *intent) encode() error {
	doc, err := json.Marshal(storedIntent{ID: i.ID, Hold: i.Hold, NanoUSD: i.NanoUSD, Request: i.Request, User: i.User})
	i.stored = strings.TrimSuffix(string(doc), "0}")
	return err
}

// orphan is the record of an intent whose process is gone: it is charged at its
// hold.
func (i *intent) orphan() (usage.Record, error) {
	var r usage.Record
	if err := json.Unmarshal([]byte(i.template), &r); err != nil {
		return r, fmt.Errorf("intent %s: %w", i.ID, err)
	}
	ms, err := idMillis(i.ID)
	if err != nil {
		return r, err
	}
	r.ID, r.Time, r.HoldNanoUSD, r.RequestID, r.User = i.ID, time.UnixMilli(ms).UTC(), i.NanoUSD, i.Request, i.User
	r.Outcome, r.UsageSource = usage.Text(usage.OutcomeSwept), usage.Text(usage.SourceSwept)
	r.Charge, r.CostNanoUSD, r.ListCostNanoUSD = usage.Of(i.Hold), i.NanoUSD, i.NanoUSD
	return r, nil
}

// mark is a record that the lake has not acknowledged.
type mark struct {
	ID  string
	Rev int
}

// in names the outbox entry of a record that a row lists.
func (m mark) in(row string) string { return fmt.Sprintf("%s %s:%d", row, m.ID, m.Rev) }

// lease is a share of an account's budget that one process may spend without
// asking. While it is open only that process changes its row, under the row's
// ETag: whoever closes it fences the process. Always
//
//	Granted >= Settled + the holds of Intents + Slack
type lease struct {
	ID       string // never used again
	Instance string
	Granted  int64
	Settled  int64 // the sum of the records written under it, as are the next three
	Records  int64
	Tokens   int64
	Overruns int64
	Slack    int64 // bound on the holds of forwarded requests that Intents lacks
	Intents  []intent
	Unsent   []mark
	Nonce    string // of the transaction that wrote the row
	Closed   bool   // reclaimed; only Unsent still counts
}

func (l *lease) held() (sum int64) {
	for i := range l.Intents {
		sum += l.Intents[i].Hold
	}
	return sum
}

// check is an assertion on every lease that is written.
func (l *lease) check() error {
	if l.Settled < 0 || l.Slack < 0 || l.Granted-l.Settled-l.Slack < l.held() {
		return fmt.Errorf("BUG: lease %s: granted %d < settled %d + held %d + slack %d", l.ID, l.Granted, l.Settled, l.held(), l.Slack)
	}
	return nil
}

const (
	textChunk  = 30_000 // bytes in one property
	textsName  = "%s%02d"
	chunksMax  = 12 // for each of the long texts of a row: together they stay below 1 MiB
	prefixL    = ".L."
	prefixW    = ".W."
	afterBooks = ".X" // no row of a period's books comes after it
)

func leaseRow(period, id string) string    { return prefixAccount + period + prefixL + id }
func writeOffRow(period, id string) string { return prefixAccount + period + prefixW + id }

func (l *lease) ints() map[string]int64 {
	n := map[string]int64{
		"Granted": l.Granted, "Settled": l.Settled, "Records": l.Records, "Tokens": l.Tokens, "Overruns": l.Overruns, "Slack": l.Slack,
		"Held": l.held(), "Closed": 0,
	}
	if l.Closed {
		n["Closed"] = 1
	}
	return n
}

func (l *lease) entity(period string) (Entity, error) {
	e := Entity{
		Row: leaseRow(period, l.ID), Ints: l.ints(),
		Texts: map[string]string{"Instance": l.Instance, "Nonce": l.Nonce, "Period": period},
	}
	if err := putIntents(e.Texts, l.Intents); err != nil {
		return e, err
	}
	return e, putMarks(e.Texts, l.Unsent)
}

// leaseOf reads a lease.
func leaseOf(e Entity) (lease, error) {
	l, err := leaseHead(e)
	if err == nil {
		l.Intents, err = intentsOf(e.Texts)
	}
	if err != nil {
		return l, fmt.Errorf("lease %s/%s: %w", e.Partition, e.Row, err)
	}
	return l, nil
}

// leaseHead reads a lease without its intents: their sum is in the row too.
func leaseHead(e Entity) (lease, error) {
	l := lease{
		ID: e.Row[strings.LastIndex(e.Row, ".")+1:], Instance: e.Texts["Instance"],
		Granted: e.Ints["Granted"], Settled: e.Ints["Settled"], Records: e.Ints["Records"], Tokens: e.Ints["Tokens"],
		Overruns: e.Ints["Overruns"], Slack: e.Ints["Slack"], Nonce: e.Texts["Nonce"], Closed: e.Ints["Closed"] != 0,
	}
	var err error
	l.Unsent, err = marksOf(e.Texts)
	return l, err
}

func putMarks(texts map[string]string, list []mark) error {
	marks := make([]byte, 0, 40*len(list))
	for i, m := range list {
		if i > 0 {
			marks = append(marks, ' ')
		}
		marks = append(append(marks, m.ID...), ':')
		marks = strconv.AppendInt(marks, int64(m.Rev), 10)
	}
	return putText(texts, "Unsent", string(marks))
}

func marksOf(texts map[string]string) (list []mark, err error) {
	for text := range strings.FieldsSeq(getText(texts, "Unsent")) {
		m, err := markOf(text)
		if err != nil {
			return list, err
		}
		list = append(list, m)
	}
	return list, nil
}

func markOf(text string) (m mark, err error) {
	id, rev, _ := strings.Cut(text, ":")
	m.ID = id
	m.Rev, err = strconv.Atoi(rev)
	return m, err
}

// putIntents writes a list as {"t":[templates],"i":[intents]}.
func putIntents(texts map[string]string, list []intent) error {
	if len(list) == 0 {
		return nil
	}
	index, templates, intents := map[string]int{}, make([]byte, 0, 1024), make([]byte, 0, 160*len(list))
	for i := range list {
		in := &list[i]
		if in.stored == "" {
			if err := in.encode(); err != nil {
				return err
			}
		}
		at, ok := index[in.template]
		if !ok {
			at = len(index)
			index[in.template] = at
			templates = append(append(templates, ','), in.template...)
		}
		intents = append(append(intents, ','), in.stored...)
		intents = append(strconv.AppendInt(intents, int64(at), 10), '}')
	}
	return putText(texts, "Intents", `{"t":[`+string(templates[1:])+`],"i":[`+string(intents[1:])+`]}`)
}

func intentsOf(texts map[string]string) ([]intent, error) {
	doc := getText(texts, "Intents")
	if doc == "" {
		return nil, nil
	}
	var stored struct {
		Templates []json.RawMessage `json:"t"`
		Intents   []storedIntent    `json:"i"`
	}
	if err := json.Unmarshal([]byte(doc), &stored); err != nil {
		return nil, err
	}
	list := make([]intent, len(stored.Intents))
	for i, s := range stored.Intents {
		if s.Template < 0 || s.Template >= len(stored.Templates) {
			return nil, fmt.Errorf("intent %s has no template", s.ID)
		}
		list[i] = intent{ID: s.ID, Hold: s.Hold, NanoUSD: s.NanoUSD, Request: s.Request, User: s.User, template: string(stored.Templates[s.Template])}
	}
	return list, nil
}

// putText spreads a long text over as many properties as it needs.
func putText(texts map[string]string, name, text string) error {
	for i := 0; text != ""; i++ {
		if i == chunksMax {
			return fmt.Errorf("%w: %s has more than %d bytes", ErrInvalid, name, chunksMax*textChunk)
		}
		n := min(len(text), textChunk)
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n--
		}
		texts[fmt.Sprintf(textsName, name, i)], text = text[:n], text[n:]
	}
	return nil
}

func getText(texts map[string]string, name string) string {
	var b strings.Builder
	for i := range chunksMax {
		b.WriteString(texts[fmt.Sprintf(textsName, name, i)])
	}
	return b.String()
}

// writeOff is what a reclaim left to be turned into records: intents that are
// charged at their hold already. It exists if and only if its list is not empty.
func writeOffEntity(period, leaseID string, list []intent) (Entity, error) {
	e := Entity{Row: writeOffRow(period, leaseID), Ints: map[string]int64{"Rest": 0}, Texts: map[string]string{"Period": period}}
	for i := range list {
		e.Ints["Rest"] += list[i].Hold
	}
	return e, putIntents(e.Texts, list)
}

// period is all that the books of a period hold, as one read saw it.
type periodBooks struct {
	exists    bool
	account   account
	row       Entity // of the account
	leases    []storedLease
	writeOffs []storedWriteOff
	total     total     // of records that are not kept any more
	date      time.Time // the store's clock
}

// storedLease has no Intents until they are asked for.
type storedLease struct {
	lease
	etag    string
	updated time.Time
	holding int64 // the sum of the holds that it lists
	row     Entity
}

// whole reads the intents too.
func (l *storedLease) whole() (err error) {
	l.lease, err = leaseOf(l.row)
	return err
}

type storedWriteOff struct {
	leaseID string
	list    []intent
	row     Entity
}

// view is what the books say to a reader.
func (b *periodBooks) view() Account {
	a := b.account
	v := Account{
		Period: a.Window.Name, Start: a.Window.Start, End: a.Window.End, Budget: a.Budget,
		Spent: a.Closed, Records: a.Records, Tokens: a.Tokens, Overruns: a.Overruns, Version: a.Version,
	}
	for i := range b.leases {
		if l := &b.leases[i]; !l.Closed {
			v.Spent += l.Settled
			v.Held += l.holding + l.Slack
			v.Records += l.Records
			v.Tokens += l.Tokens
			v.Overruns += l.Overruns
		}
	}
	return v
}
