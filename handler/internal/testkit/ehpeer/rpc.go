package ehpeer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const grantsMax = 1024 // entities that a connection has put tokens for

// answer is what $cbs and $management reply.
type answer struct {
	code        int32 // an HTTP status
	description string
	body        any
}

// reply answers a request on the client's own receiving link.
func (c *conn) reply(n node, request *message) error {
	var a answer
	if n.kind == nodeTokens {
		a = c.putToken(request)
	} else {
		a = c.peer.manage(request)
	}
	for _, s := range c.sessions {
		for _, o := range s.outlets {
			if o.consumer || o.address != request.replyTo {
				continue
			}
			if len(o.queue) >= repliesMax {
				return &amqpError{"amqp:resource-limit-exceeded", "too many replies wait for credit"}
			}
			o.queue = append(o.queue, a.encode(request.id))
			return nil
		}
	}
	return &amqpError{"amqp:not-allowed", fmt.Sprintf("no link replies to %q", request.replyTo)}
}

// encode is a reply to the request of an id.
func (a answer) encode(id raw) []byte {
	properties := composite(codeProperties, nil, nil, nil, nil, nil, id)
	application := described{codeApplication, pairs{"status-code", a.code, "status-description", a.description}}
	b := appendValue(appendValue(nil, properties), application)
	return appendValue(b, described{codeValue, a.body})
}

// putToken grants a client what its token is for.
func (c *conn) putToken(request *message) answer {
	if request.text("operation") != "put-token" {
		return answer{code: http.StatusBadRequest, description: "only put-token is known"}
	}
	audience, err := url.Parse(request.text("name"))
	if err != nil || audience.Path == "" {
		return answer{code: http.StatusBadRequest, description: "the name is no URL with a path"}
	}
	value, _, err := decode(request.value)
	token, ok := value.(string)
	if err != nil || !ok {
		return answer{code: http.StatusBadRequest, description: "the token is no string"}
	}
	if c.peer.plan.take(onPutToken) == Unauthorized {
		return answer{code: http.StatusUnauthorized, description: "InvalidSignature: injected"}
	}
	if key := c.peer.options.Key; key != "" {
		if err := checkToken(token, key, audience, time.Now()); err != nil {
			return answer{code: http.StatusUnauthorized, description: "InvalidSignature: " + err.Error()}
		}
	}
	if len(c.granted) >= grantsMax {
		return answer{code: http.StatusForbidden, description: "too many entities for one connection"}
	}
	c.granted[strings.ToLower(strings.Trim(audience.Path, "/"))] = true
	return answer{code: http.StatusAccepted, description: "Accepted"}
}

// checkToken checks a shared access signature: HMAC-SHA256 of the resource, as it
// stands in the token, and the end of its life in Unix seconds. A token for a
// resource is good for all below it.
func checkToken(token, key string, audience *url.URL, now time.Time) error {
	text, ok := strings.CutPrefix(token, "SharedAccessSignature ")
	if !ok {
		return errors.New("no shared access signature")
	}
	part := map[string]string{}
	for _, pair := range strings.Split(text, "&") {
		name, value, _ := strings.Cut(pair, "=")
		part[name] = value
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(part["sr"] + "\n" + part["se"]))
	signature, err := url.QueryUnescape(part["sig"])
	if err != nil || !hmac.Equal([]byte(signature), []byte(base64.StdEncoding.EncodeToString(mac.Sum(nil)))) {
		return errors.New("the signature is not by the key")
	}
	if part["skn"] != KeyName {
		return fmt.Errorf("no key is named %q", part["skn"])
	}
	end, err := strconv.ParseInt(part["se"], 10, 64)
	if err != nil || !now.Before(time.Unix(end, 0)) {
		return errors.New("the token has expired")
	}
	resource, err := url.QueryUnescape(part["sr"])
	if err != nil {
		return errors.New("the resource is no URL")
	}
	signed, err := url.Parse(resource)
	if err != nil || !strings.EqualFold(signed.Host, audience.Host) || !below(audience.Path, signed.Path) {
		return fmt.Errorf("the token is for %q", resource)
	}
	return nil
}

// below says whether a path is another one or below it.
func below(path, top string) bool {
	path, top = strings.ToLower(strings.Trim(path, "/"))+"/", strings.ToLower(strings.Trim(top, "/"))+"/"
	return top == "/" || strings.HasPrefix(path, top)
}

// manage tells of the hub and its partitions.
func (p *Peer) manage(request *message) answer {
	missing := answer{code: http.StatusNotFound, description: "The messaging entity could not be found."}
	if request.text("operation") != "READ" {
		return answer{code: http.StatusBadRequest, description: "only READ is known"}
	}
	if !strings.EqualFold(request.text("name"), p.options.Hub) {
		return missing
	}
	switch request.text("type") {
	case "com.microsoft:eventhub":
		ids := make([]string, p.options.Partitions)
		for i := range ids {
			ids[i] = strconv.Itoa(i)
		}
		return answer{code: http.StatusOK, description: "OK", body: pairs{
			"name", p.options.Hub, "type", "com.microsoft:eventhub", "created_at", p.created,
			"partition_count", int32(len(ids)), "partition_ids", ids, "georeplication_factor", int32(1),
		}}
	case "com.microsoft:partition":
		var i int
		if !p.partition(request.text("partition"), &i) {
			return missing
		}
		s := p.store.state(i)
		return answer{code: http.StatusOK, description: "OK", body: pairs{
			"name", p.options.Hub, "type", "com.microsoft:partition", "partition", strconv.Itoa(i),
			"begin_sequence_number", s.first, "last_enqueued_sequence_number", s.last, "last_enqueued_offset", s.offset,
			"last_enqueued_time_utc", s.enqueued, "is_partition_empty", s.empty,
		}}
	}
	return answer{code: http.StatusBadRequest, description: "the type is unknown"}
}
