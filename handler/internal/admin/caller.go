package admin

import (
	"encoding/json"
	"net/http"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/usage"
)

// CallerRunesMax bounds what a caller may be called.
const CallerRunesMax = 128

const (
	actorHeader     = "X-Costgate-Actor"
	principalHeader = "X-Ms-Client-Principal-Name" // set by App Service's own login, if that is on
	nobody          = "admin key"                  // all that is known: the caller had the key
)

// caller is who calls a function, and what that one calls the request.
type caller struct {
	who       string // what records show as their user
	requestID string
}

// callerOf finds out who calls: the user that App Service has logged in, else
// who the caller says, else only that it has the administrators' key. Both are
// claims of somebody who has that key, so they serve the history, not the right
// to do something. What is or may be a key of this request is not repeated.
func callerOf(r *http.Request, secrets ...string) (caller, error) {
	c := caller{who: nobody}
	for _, name := range []string{"X-Client-Request-Id", "X-Ms-Client-Request-Id", "X-Request-Id"} {
		if id := r.Header.Get(name); id != "" && c.requestID == "" && printable(id) {
			c.requestID = id
		}
	}
	secrets = append(secrets, r.Header.Get("X-Functions-Key"), r.URL.Query().Get("code"))
	for _, name := range []string{principalHeader, actorHeader} {
		who := r.Header.Get(name)
		switch {
		case who == "":
			continue
		case slices.Contains(secrets, who):
			return c, invalid(name, "%s must say who is calling, not be a key.", name)
		case !printable(who):
			return c, invalid(name, "%s may have %d characters, none of them a control character.", name, CallerRunesMax)
		}
		c.who = who
		return c, nil
	}
	return c, nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > CallerRunesMax {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// note adds a record of what the caller did. Its words go to usage_extra.
func (c caller) note(d *ledger.Draft, kind usage.Kind, charge usage.Count, words map[string]any) {
	r := usage.Record{Kind: kind, Charge: charge, User: usage.Text(c.who), RequestID: usage.Text(c.requestID)}
	if len(words) > 0 {
		r.UsageExtra, _ = json.Marshal(words) // plain values: it cannot fail
	}
	d.Records = append(d.Records, r)
}
