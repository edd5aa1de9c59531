package tablestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// Apply implements ledger.Store.
func (s *Store) Apply(ctx context.Context, partition string, ops []ledger.Op) ([]string, error) {
	if err := ledger.ValidateOps(partition, ops); err != nil {
		return nil, err
	}
	actions := make([]aztables.TransactionAction, len(ops))
	for i, op := range ops {
		action, err := actionOf(partition, op)
		if err != nil {
			return nil, err
		}
		actions[i] = action
	}
	ctx, cancel := context.WithTimeout(ctx, s.tryTimeout)
	defer cancel()
	_, err := s.client.SubmitTransaction(ctx, actions, nil)
	var got *answerError
	switch {
	case errors.As(err, &got):
		return got.read(ops)
	case err == nil: // the policy was not asked: nobody has read the answer
		err = errMangled
	}
	return nil, unavailable("transaction", err)
}

func actionOf(partition string, op ledger.Op) (action aztables.TransactionAction, err error) {
	etag := azcore.ETag(op.Entity.ETag)
	switch op.Kind {
	case ledger.Insert:
		action.ActionType = aztables.TransactionTypeAdd
	case ledger.Replace:
		action.ActionType, action.IfMatch = aztables.TransactionTypeUpdateReplace, &etag
	case ledger.Delete:
		action.ActionType, action.IfMatch = aztables.TransactionTypeDelete, &etag
	default:
		return action, ledger.ErrInvalid // ValidateOps let it through
	}
	if op.Kind != ledger.Insert && etag == "" {
		return action, ledger.ErrInvalid // never an upsert, whatever ValidateOps says
	}
	action.Entity, err = encode(partition, op)
	return action, err
}

// transactionAnswers is the pipeline's step that takes the answer of a
// transaction away from the SDK, which would drop the ETags, hide the inner
// errors and panic on a body without a line break. The answer travels as an
// error: that is the one thing that the SDK hands on untouched.
type transactionAnswers struct{}

// Do implements policy.Policy.
func (transactionAnswers) Do(request *policy.Request) (*http.Response, error) {
	response, err := request.Next()
	if err != nil || !strings.HasSuffix(request.Raw().URL.Path, "/$batch") {
		return response, err
	}
	body, err := runtime.Payload(response)
	if err != nil {
		return nil, err
	}
	return nil, &answerError{response.StatusCode, response.Header.Get("Content-Type"), body}
}

// answerError is what the service said to a transaction. It is an error only to
// the SDK.
type answerError struct {
	status      int
	contentType string
	body        []byte
}

func (*answerError) Error() string { return "the answer of a transaction" }

// errMangled means that an answer is not one of the two that a transaction has.
var errMangled = errors.New("the answer of the transaction cannot be read")

// part is the answer to one operation.
type part struct {
	status int
	etag   string
	body   []byte
}

// read tells the outcome. There are two: each operation has its own success, or
// one part is the failure of all. Whatever else it is, even if only a byte of
// the end is missing, is unknown.
func (a *answerError) read(ops []ledger.Op) ([]string, error) {
	if a.status != http.StatusAccepted {
		code, _ := failureOf(a.body)
		return nil, fmt.Errorf("transaction: %w: HTTP status %d %s", ledger.ErrUnavailable, a.status, code)
	}
	parts, err := a.parts()
	if err != nil {
		return nil, unavailable("transaction", fmt.Errorf("%w: %w", errMangled, err))
	}
	if len(parts) == 1 && parts[0].status >= http.StatusBadRequest {
		return nil, parts[0].failure(ops)
	}
	if len(parts) != len(ops) {
		return nil, unavailable("transaction", fmt.Errorf("%w: %d parts for %d operations", errMangled, len(parts), len(ops)))
	}
	etags := make([]string, len(ops))
	for i, p := range parts {
		if p.status != http.StatusNoContent && p.status != http.StatusCreated {
			return nil, unavailable("transaction", fmt.Errorf("%w: status %d of operation %d", errMangled, p.status, i))
		}
		if ops[i].Kind == ledger.Delete {
			continue
		}
		if etags[i] = p.etag; p.etag == "" {
			return nil, unavailable("transaction", fmt.Errorf("%w: operation %d has no ETag", errMangled, i))
		}
	}
	return etags, nil
}

// parts takes the body apart: a multipart of one part, which is a multipart of
// one HTTP answer for each operation.
func (a *answerError) parts() (parts []part, err error) {
	outer, err := multipartOf(a.contentType, bytes.NewReader(a.body))
	if err != nil {
		return nil, err
	}
	changes, err := outer.NextRawPart()
	if err != nil {
		return nil, err
	}
	inner, err := multipartOf(changes.Header.Get("Content-Type"), changes)
	if err != nil {
		return nil, err
	}
	for {
		section, err := inner.NextRawPart()
		if err == io.EOF { //nolint:errorlint // wrapped, it means that the end is missing
			break
		} else if err != nil {
			return nil, err
		}
		p, err := readPart(section)
		if err != nil {
			return nil, err
		}
		if parts = append(parts, p); len(parts) > ledger.OpsMax {
			return nil, errors.New("too many parts")
		}
	}
	if _, err := outer.NextRawPart(); err != io.EOF {
		return nil, fmt.Errorf("after the last part: %w", err)
	}
	return parts, nil
}

func multipartOf(contentType string, r io.Reader) (*multipart.Reader, error) {
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/mixed" || parameters["boundary"] == "" {
		return nil, errors.New("not multipart/mixed")
	}
	return multipart.NewReader(r, parameters["boundary"]), nil
}

func readPart(r io.Reader) (p part, err error) {
	response, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return p, err
	}
	defer response.Body.Close()
	if p.body, err = io.ReadAll(response.Body); err != nil {
		return p, err
	}
	p.status, p.etag = response.StatusCode, response.Header.Get("ETag")
	return p, nil
}

// failure makes an error of the one part of a failed transaction. It is a
// definite one only if status, code and the operation's kind say the same.
func (p part) failure(ops []ledger.Op) error {
	code, message := failureOf(p.body)
	unknown := fmt.Errorf("transaction: %w: HTTP status %d %s", ledger.ErrUnavailable, p.status, code)
	index := indexOf(message)
	if index < 0 && len(ops) == 1 {
		index = 0
	}
	if index >= len(ops) {
		return unknown
	}
	var err error
	inserts := false
	switch {
	case p.status == http.StatusConflict && code == string(aztables.EntityAlreadyExists):
		err, inserts = ledger.ErrExists, true
	case p.status == http.StatusPreconditionFailed && (code == string(aztables.UpdateConditionNotSatisfied) || code == "ConditionNotMet"):
		err = ledger.ErrConflict
	case p.status == http.StatusNotFound && isMissing(code):
		err = ledger.ErrMissing
	default:
		return unknown
	}
	if index >= 0 && (ops[index].Kind == ledger.Insert) != inserts {
		return unknown
	}
	return &ledger.OpError{Index: index, Err: err}
}

// isMissing tells a missing entity from a missing table.
func isMissing(code string) bool {
	return code == string(aztables.ResourceNotFound) || code == string(aztables.EntityNotFound)
}

// failureOf reads the body of a failure; what cannot be read is empty.
func failureOf(body []byte) (code, message string) {
	var failure struct {
		Error struct {
			Code    string `json:"code"`
			Message struct {
				Value string `json:"value"`
			} `json:"message"`
		} `json:"odata.error"`
	}
	if json.Unmarshal(body, &failure) != nil {
		return "", ""
	}
	return failure.Error.Code, failure.Error.Message.Value
}

// indexOf reads the operation's index that begins a message, as in
// "1:The specified entity already exists."; -1 if there is none.
func indexOf(message string) int {
	digits, _, found := strings.Cut(message, ":")
	index, err := strconv.ParseUint(digits, 10, 16)
	if !found || err != nil {
		return -1
	}
	return int(index)
}
