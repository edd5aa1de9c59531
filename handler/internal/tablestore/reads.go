package tablestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/costgate/costgate/handler/internal/ledger"
)

// Limits of a read.
const (
	AnswerBytesMax = 64 << 20 // of one answer of the service
	segmentsMax    = 64       // answers that one page may be put together of
	collectsMax    = 4        // tries to read such a page unchanged
)

// reading is a context in which the SDK tries again: a read can be repeated.
func (s *Store) reading(ctx context.Context) context.Context {
	return policy.WithRetryOptions(ctx, policy.RetryOptions{
		MaxRetries: readRetriesMax, TryTimeout: s.tryTimeout, RetryDelay: readRetryDelay, MaxRetryDelay: readRetryDelayMax,
	})
}

// Get implements ledger.Store.
func (s *Store) Get(ctx context.Context, partition, row string) (ledger.Entity, error) {
	if err := errors.Join(ledger.ValidateKey(partition), ledger.ValidateKey(row)); err != nil {
		return ledger.Entity{}, err
	}
	answer, err := s.client.GetEntity(s.reading(ctx), partition, row, nil)
	var response *azcore.ResponseError
	if errors.As(err, &response) && response.StatusCode == http.StatusNotFound && isMissing(response.ErrorCode) {
		return ledger.Entity{}, ledger.ErrMissing
	} else if err != nil {
		return ledger.Entity{}, unavailable("get", err)
	}
	e, err := decode(answer.Value)
	if err != nil {
		return ledger.Entity{}, unavailable("get", err)
	}
	if e.ETag = string(answer.ETag); e.ETag == "" || e.Partition != partition || e.Row != row {
		return ledger.Entity{}, unavailable("get", errEntity)
	}
	return e, nil
}

// Range implements ledger.Store. Page.Date comes from an HTTP header and has
// whole seconds, rounded down; Updated has more digits, so that it may be later
// than Date by less than a second. Of several answers, Date is that of the
// first: rows look younger by it, not older.
//
// One answer of the service is a snapshot; a page put together of several is
// not. Such a page is read until two readings agree, which makes it one.
func (s *Store) Range(ctx context.Context, partition, from, to string, limit int) (ledger.Page, error) {
	if err := ledger.ValidateRange(partition, from, to, limit); err != nil {
		return ledger.Page{}, err
	}
	page, segments, err := s.collect(ctx, partition, from, to, limit)
	for try := 1; err == nil && segments > 1; try++ {
		if try == collectsMax {
			return ledger.Page{}, unavailable("range", errors.New("the rows change too fast to be read as one page"))
		}
		before := page
		if page, segments, err = s.collect(ctx, partition, from, to, limit); err == nil && samePage(before, page) {
			break
		}
	}
	if err != nil {
		return ledger.Page{}, unavailable("range", err)
	}
	return page, nil
}

func samePage(a, b ledger.Page) bool {
	return slices.EqualFunc(a.Entities, b.Entities, func(x, y ledger.Entity) bool { return x.Row == y.Row && x.ETag == y.ETag })
}

// collect reads a page and tells of how many answers it is made. An answer may
// be empty and yet not be the last.
func (s *Store) collect(ctx context.Context, partition, from, end string, limit int) (page ledger.Page, segments int, err error) {
	options := &aztables.ListEntitiesOptions{
		Filter: to.Ptr(filter(partition, "ge", from, end)),
		Top:    to.Ptr(int32(min(limit+1, ledger.PageMax))),
	}
	for pager := s.client.NewListEntitiesPager(options); pager.More(); {
		if segments++; segments > segmentsMax {
			return page, segments, fmt.Errorf("more than %d answers for one page", segmentsMax)
		}
		entities, date, err := s.segment(ctx, pager)
		if err != nil {
			return page, segments, err
		}
		if segments == 1 {
			page.Date = date
		}
		page.Entities = append(page.Entities, entities...)
		if len(page.Entities) > limit {
			page.Next = page.Entities[limit].Row
			page.Entities = page.Entities[:limit]
			break
		}
		if len(page.Entities) == limit && pager.More() {
			if page.Next, err = s.next(ctx, partition, page.Entities[limit-1].Row, end); err != nil {
				return page, segments, err
			}
			break
		}
	}
	return page, segments, inOrder(page.Entities, partition, from, end)
}

// segment reads one answer of a query.
func (s *Store) segment(ctx context.Context, pager pager) (entities []ledger.Entity, date time.Time, err error) {
	var response *http.Response
	answer, err := pager.NextPage(policy.WithCaptureResponse(s.reading(ctx), &response))
	if err != nil {
		return nil, date, err
	}
	if date, err = http.ParseTime(response.Header.Get("Date")); err != nil {
		return nil, date, fmt.Errorf("date of the answer: %w", err)
	}
	for _, object := range answer.Entities {
		e, err := decode(object)
		if err != nil {
			return nil, date, err
		}
		entities = append(entities, e)
	}
	return entities, date, nil
}

type pager interface {
	NextPage(ctx context.Context) (aztables.ListEntitiesResponse, error)
}

// next finds the first row after a full page; empty if there is none.
func (s *Store) next(ctx context.Context, partition, last, end string) (string, error) {
	options := &aztables.ListEntitiesOptions{Filter: to.Ptr(filter(partition, "gt", last, end)), Top: to.Ptr(int32(1))}
	pager := s.client.NewListEntitiesPager(options)
	for segments := 0; pager.More() && segments < segmentsMax; segments++ {
		entities, _, err := s.segment(ctx, pager)
		if err != nil {
			return "", err
		}
		if len(entities) > 0 {
			return entities[0].Row, nil
		}
	}
	if pager.More() {
		return "", fmt.Errorf("more than %d answers for one row", segmentsMax)
	}
	return "", nil
}

// filter selects a range of rows. Keys are checked: they hold no quotes.
func filter(partition, comparison, from, end string) string {
	return fmt.Sprintf("PartitionKey eq '%s' and RowKey %s '%s' and RowKey lt '%s'", partition, comparison, from, end)
}

// inOrder checks what the service promises: without it a page would be read as
// complete that is not.
func inOrder(entities []ledger.Entity, partition, from, end string) error {
	for i, e := range entities {
		if e.Partition != partition || e.Row < from || e.Row >= end || (i > 0 && e.Row <= entities[i-1].Row) || e.ETag == "" {
			return fmt.Errorf("%w: row %d of the page", errEntity, i)
		}
	}
	return nil
}

// limitedAnswers fails an answer that is longer than AnswerBytesMax.
type limitedAnswers struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limitedAnswers) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(request)
	if err == nil {
		response.Body = &limitedBody{response.Body, AnswerBytesMax}
	}
	return response, err
}

// limitedBody is http.MaxBytesReader for a client.
type limitedBody struct {
	io.ReadCloser
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", AnswerBytesMax)
	}
	return n, err
}
