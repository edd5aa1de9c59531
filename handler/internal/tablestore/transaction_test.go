package tablestore

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/costgate/costgate/handler/internal/ledger"
)

const answerType = "multipart/mixed; boundary=batchresponse_4c637ba4-b2f8-40f8-8856-c2d10d163a83"

// answerOf builds an answer as the service sends it: one part for each inner
// HTTP answer.
func answerOf(inner ...string) *answerError {
	const change = "changesetresponse_d2ca5f32-eb48-4abb-aa13-b13e1d9ebf9f"
	var b strings.Builder
	b.WriteString("--batchresponse_4c637ba4-b2f8-40f8-8856-c2d10d163a83\r\nContent-Type: multipart/mixed; boundary=" + change + "\r\n\r\n")
	for _, part := range inner {
		b.WriteString("--" + change + "\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n" + part + "\r\n")
	}
	b.WriteString("--" + change + "--\r\n--batchresponse_4c637ba4-b2f8-40f8-8856-c2d10d163a83--\r\n")
	return &answerError{http.StatusAccepted, answerType, []byte(b.String())}
}

func written(etag string) string {
	return strings.TrimSuffix(deleted, "\r\n") + "ETag: " + etag + "\r\n\r\n"
}

const deleted = "HTTP/1.1 204 No Content\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-cache\r\nDataServiceVersion: 1.0;\r\n\r\n"

func failed(status int, code, message string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nX-Content-Type-Options: nosniff\r\nDataServiceVersion: 3.0;\r\n"+
		"Content-Type: application/json;odata=minimalmetadata;streaming=true;charset=utf-8\r\n\r\n"+
		`{"odata.error":{"code":%q,"message":{"lang":"en-US","value":%q}}}`, status, http.StatusText(status), code, message)
}

// threeOps is one operation of each kind.
var threeOps = []ledger.Op{{Kind: ledger.Insert}, {Kind: ledger.Replace}, {Kind: ledger.Delete}}

const etagOne, etagTwo = `W/"datetime'2026-11-24T12%3A00%3A00.1234567Z'"`, `W/"datetime'2026-11-24T12%3A00%3A00.1234568Z'"`

func TestAnswerOfSuccess(t *testing.T) {
	etags, err := answerOf(written(etagOne), written(etagTwo), deleted).read(threeOps)
	if err != nil || !slices.Equal(etags, []string{etagOne, etagTwo, ""}) {
		t.Errorf("got %q, %v", etags, err)
	}
	created := strings.Replace(written(etagOne), "204 No Content", "201 Created", 1) + `{"PartitionKey":"p","RowKey":"r"}`
	etags, err = answerOf(created).read(threeOps[:1])
	if err != nil || !slices.Equal(etags, []string{etagOne}) {
		t.Errorf("with content: got %q, %v", etags, err)
	}
}

func TestAnswerOfFailure(t *testing.T) {
	f := func(ops []ledger.Op, status int, code, message string, want error, index int) {
		t.Helper()
		etags, err := answerOf(failed(status, code, message)).read(ops)
		var op *ledger.OpError
		if etags != nil || !errors.Is(err, want) || !errors.As(err, &op) || op.Index != index {
			t.Errorf("got %q, %v, want %v of operation %d", etags, err, want, index)
		}
	}
	const exists, condition, missing = "EntityAlreadyExists", "UpdateConditionNotSatisfied", "ResourceNotFound"
	f(threeOps, 409, exists, "0:The specified entity already exists.\nRequestId:0\nTime:2026", ledger.ErrExists, 0)
	f(threeOps, 412, condition, "1:The update condition specified in the request was not satisfied.", ledger.ErrConflict, 1)
	f(threeOps, 412, "ConditionNotMet", "2:The condition specified using HTTP conditional header(s) is not met.", ledger.ErrConflict, 2)
	f(threeOps, 404, missing, "2:The specified resource does not exist.", ledger.ErrMissing, 2)
	f(threeOps, 404, "EntityNotFound", "1:x", ledger.ErrMissing, 1)
	f(threeOps, 404, missing, "The specified resource does not exist.", ledger.ErrMissing, -1)
	f(threeOps, 409, exists, "", ledger.ErrExists, -1)
	f(threeOps[:1], 409, exists, "The specified entity already exists.", ledger.ErrExists, 0)
}

func TestAnswerUnknown(t *testing.T) {
	f := func(ops []ledger.Op, a *answerError) {
		t.Helper()
		etags, err := a.read(ops)
		unknown(t, err)
		if etags != nil {
			t.Errorf("ETags %q", etags)
		}
	}
	const exists, condition, missing = "EntityAlreadyExists", "UpdateConditionNotSatisfied", "ResourceNotFound"
	f(threeOps, answerOf())
	f(threeOps, answerOf(written(etagOne), written(etagTwo)))
	f(threeOps, answerOf(written(etagOne), written(etagTwo), deleted, deleted))
	f(threeOps, answerOf(written(etagOne), deleted, deleted)) // no ETag of the Replace
	f(threeOps, answerOf(written(etagOne), written(""), deleted))
	f(threeOps, answerOf(written(etagOne), failed(412, condition, "1:x"), deleted))
	f(threeOps, answerOf(written(etagOne), failed(412, condition, "1:x")))
	f(threeOps, answerOf(failed(412, condition, "1:x"), failed(412, condition, "2:x")))
	f(threeOps, answerOf("HTTP/1.1 200 OK\r\nETag: x\r\n\r\n", written(etagTwo), deleted))
	f(threeOps, answerOf("", written(etagTwo), deleted))
	f(threeOps, answerOf(failed(500, "InternalError", "0:x")))
	f(threeOps, answerOf(failed(503, "ServerBusy", "0:x")))
	f(threeOps, answerOf(failed(400, "InvalidInput", "0:x")))
	f(threeOps, answerOf(failed(403, "AuthorizationFailure", "0:x")))
	f(threeOps, answerOf(failed(404, "TableNotFound", "0:x")))
	f(threeOps, answerOf(failed(409, "TableBeingDeleted", "0:x")))
	f(threeOps, answerOf(failed(412, exists, "0:x")))    // status and code do not fit
	f(threeOps, answerOf(failed(409, exists, "1:x")))    // a Replace cannot find that the row exists
	f(threeOps, answerOf(failed(404, missing, "0:x")))   // nor an Insert that it does not
	f(threeOps, answerOf(failed(412, condition, "0:x"))) // nor has it a condition
	f(threeOps, answerOf(failed(412, condition, "3:x"))) // there is no such operation
	f(threeOps, answerOf(strings.TrimSuffix(failed(409, exists, "0:x"), "}")))
	for _, end := range []string{"", "--changesetresponse_d2ca5f32-eb48-4abb-aa13-b13e1d9ebf9f", "--changeset"} { // of the inner message
		for _, a := range []*answerError{answerOf(written(etagOne), written(etagTwo), deleted), answerOf(failed(409, exists, "0:x"))} {
			whole := "--changesetresponse_d2ca5f32-eb48-4abb-aa13-b13e1d9ebf9f--"
			a.body = []byte(strings.Replace(string(a.body), whole, end, 1))
			f(threeOps, a)
		}
	}
	for _, contentType := range []string{
		"", "application/json", "multipart/mixed", "multipart/form-data; boundary=x", "multipart/mixed; boundary=other",
	} {
		a := answerOf(written(etagOne), written(etagTwo), deleted)
		a.contentType = contentType
		f(threeOps, a)
	}
	for _, status := range []int{200, 204, 409, 412, 404, 500} {
		a := answerOf(written(etagOne), written(etagTwo), deleted)
		a.status = status
		f(threeOps, a)
	}
}

// TestAnswerCut cuts good answers at every byte: none may be read as an outcome.
func TestAnswerCut(t *testing.T) {
	for _, whole := range []*answerError{
		answerOf(written(etagOne), written(etagTwo), deleted),
		answerOf(failed(412, "UpdateConditionNotSatisfied", "1:x")),
	} {
		for n := range len(whole.body) - len("\r\n") {
			_, err := (&answerError{whole.status, whole.contentType, whole.body[:n]}).read(threeOps)
			if unknown(t, err); t.Failed() {
				t.Fatalf("the first %d of %d bytes", n, len(whole.body))
			}
		}
	}
}

// FuzzAnswer reads anything. A success needs an answer for each operation and
// both ends of the message; a definite failure needs its code and both ends.
func FuzzAnswer(f *testing.F) {
	for _, a := range []*answerError{
		answerOf(written(etagOne), written(etagTwo), deleted),
		answerOf(failed(409, "EntityAlreadyExists", "0:x")),
		answerOf(failed(412, "UpdateConditionNotSatisfied", "1:x")),
		answerOf(failed(404, "ResourceNotFound", "2:x")),
		answerOf(failed(503, "ServerBusy", "x")),
		answerOf(),
	} {
		f.Add(a.status, a.contentType, a.body)
	}
	f.Fuzz(func(t *testing.T, status int, contentType string, body []byte) {
		etags, err := (&answerError{status, contentType, body}).read(threeOps)
		text := string(body)
		switch {
		case err == nil:
			if status != 202 || len(etags) != len(threeOps) || etags[0] == "" || etags[1] == "" || strings.Count(text, "HTTP/1.") < len(threeOps) {
				t.Errorf("success of %q", body)
			}
		case errors.As(err, new(*ledger.OpError)):
			said := strings.Contains(text, "409") || strings.Contains(text, "412") || strings.Contains(text, "404")
			if status != 202 || errors.Is(err, ledger.ErrUnavailable) || !said {
				t.Errorf("failure %v of %q", err, body)
			}
		default:
			if unknown(t, err); t.Failed() {
				t.Errorf("of %q", body)
			}
			return
		}
		_, parameters, _ := mime.ParseMediaType(contentType)
		if end := "--" + parameters["boundary"] + "--"; !strings.Contains(text, end) || strings.Count(text, "--") < 4 {
			t.Errorf("an outcome without an end: %q", body)
		}
	})
}
