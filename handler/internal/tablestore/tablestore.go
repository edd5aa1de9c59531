// Package tablestore is a ledger.Store in Azure Table Storage.
//
// Invariants:
//   - A write is sent once. Nothing here sends it again, and whatever is not
//     the service's clear answer to it is ErrUnavailable: it may have happened,
//     or may yet. A repeated write would answer 409 or 412 to its own first
//     copy, and that would be taken for a conflict with someone else.
//   - A Replace or Delete always carries a condition. Without one the service
//     would make the row.
//   - Every write is an entity group transaction, also one of one operation. Its
//     answer is read here: the SDK drops ETags and the inner errors.
//   - Errors hold no address with a signature in it.
//
// Azure Cosmos DB for Table is not supported: it does not sort.
package tablestore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/costgate/costgate/handler/internal/ledger"
)

const (
	defaultTryTimeout = 2 * time.Second
	idleConnsMax      = 256 // kept open to the service; the default of 2 would make a TLS handshake of most requests
	readRetriesMax    = 2
	readRetryDelay    = 50 * time.Millisecond
	readRetryDelayMax = time.Second // a longer Retry-After ends the read
)

var tableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{2,62}$`)

// Options are where the table is and who we are.
type Options struct {
	// ConnectionString is one of a storage account, with AccountKey or
	// SharedAccessSignature, or UseDevelopmentStorage=true.
	ConnectionString string

	// ServiceURI and Credential serve in place of a connection string:
	// https://account.table.core.windows.net and a Microsoft Entra identity.
	ServiceURI string
	Credential azcore.TokenCredential

	Table      string            // 3 to 63 letters and digits, a letter first
	Transport  http.RoundTripper // nil: one of our own with enough connections
	TryTimeout time.Duration     // of one request; 0: 2 s
}

// Store is the store. It is safe for concurrent use.
type Store struct {
	client     *aztables.Client
	tryTimeout time.Duration
}

var _ ledger.Store = (*Store)(nil)

// Open prepares a store. It sends nothing; its errors are those of the options,
// and hold no secret.
func Open(o Options) (*Store, error) {
	if !tableName.MatchString(o.Table) {
		return nil, fmt.Errorf("%q is not a table name: 3 to 63 letters and digits, a letter first", o.Table)
	}
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	if o.TryTimeout == 0 {
		o.TryTimeout = defaultTryTimeout
	}
	service, err := connect(o, &aztables.ClientOptions{ClientOptions: azcore.ClientOptions{
		Retry:           policy.RetryOptions{MaxRetries: -1}, // reads ask for theirs
		Telemetry:       policy.TelemetryOptions{ApplicationID: "costgate"},
		PerCallPolicies: []policy.Policy{transactionAnswers{}},
		Transport: &http.Client{
			Transport:     limitedAnswers{o.Transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}})
	if err != nil {
		return nil, err
	}
	return &Store{client: service.NewClient(o.Table), tryTimeout: o.TryTimeout}, nil
}

func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		MaxIdleConns:        idleConnsMax,
		MaxIdleConnsPerHost: idleConnsMax,
		IdleConnTimeout:     60 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second,
	}
}

// EnsureTable makes the table if it is not there.
func (s *Store) EnsureTable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.tryTimeout)
	defer cancel()
	_, err := s.client.CreateTable(ctx, nil)
	var response *azcore.ResponseError
	if errors.As(err, &response) && response.StatusCode == http.StatusConflict && response.ErrorCode == string(aztables.TableAlreadyExists) {
		return nil
	}
	if err != nil {
		return unavailable("create table", err)
	}
	return nil
}

// unavailable makes ErrUnavailable of whatever went wrong. It keeps what can be
// shown: not addresses, which may hold a signature, and of an answer only its
// status and code, not its body.
func unavailable(doing string, err error) error {
	var response *azcore.ResponseError
	var request *url.Error
	switch {
	case errors.As(err, &response):
		return fmt.Errorf("%s: %w: HTTP status %d %s", doing, ledger.ErrUnavailable, response.StatusCode, response.ErrorCode)
	case errors.As(err, &request):
		err = request.Err
	}
	return fmt.Errorf("%s: %w: %w", doing, ledger.ErrUnavailable, err)
}
