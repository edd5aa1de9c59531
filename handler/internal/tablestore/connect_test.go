package tablestore

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/costgate/costgate/handler/internal/ledger"
)

func TestConnectionString(t *testing.T) {
	f := func(text string, want account) {
		t.Helper()
		got, err := parseConnectionString(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	f("UseDevelopmentStorage=true", account{endpoint: "http://127.0.0.1:10002/devstoreaccount1", name: "devstoreaccount1", key: emulatorKey})
	f("usedevelopmentstorage=True;DevelopmentStorageProxyUri=http://host/;",
		account{endpoint: "http://host:10002/devstoreaccount1", name: "devstoreaccount1", key: emulatorKey})
	f("DefaultEndpointsProtocol=https;AccountName=n;AccountKey=a2V5==;EndpointSuffix=core.windows.net",
		account{endpoint: "https://n.table.core.windows.net", name: "n", key: "a2V5=="})
	f("AccountName=n; AccountKey=k", account{endpoint: "https://n.table.core.windows.net", name: "n", key: "k"})
	f("accountname=n;accountkey=k;endpointsuffix=core.chinacloudapi.cn",
		account{endpoint: "https://n.table.core.chinacloudapi.cn", name: "n", key: "k"})
	f("AccountName=n;AccountKey=k;TableEndpoint=http://127.0.0.1:1/n/;BlobEndpoint=x",
		account{endpoint: "http://127.0.0.1:1/n", name: "n", key: "k"})
	f("TableEndpoint=https://n.table.core.windows.net/;SharedAccessSignature=?sv=1&sig=s%3D",
		account{endpoint: "https://n.table.core.windows.net", signature: "sv=1&sig=s%3D"})
}

func TestOptionErrors(t *testing.T) {
	const secret = "c2VjcmV0"
	f := func(o Options, want string) {
		t.Helper()
		if o.Table == "" {
			o.Table = "Table"
		}
		_, err := Open(o)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f(Options{}, "neither a connection string")
	f(Options{ConnectionString: "UseDevelopmentStorage=true", ServiceURI: "https://n"}, "only one")
	f(Options{ConnectionString: secret}, "Name=value")
	f(Options{ConnectionString: "AccountName=n"}, "AccountKey")
	f(Options{ConnectionString: "AccountKey=" + secret}, "AccountName")
	f(Options{ConnectionString: "SharedAccessSignature=" + secret}, "AccountName")
	f(Options{ConnectionString: "AccountName=n;AccountKey=%" + secret}, "base64")
	f(Options{ConnectionString: "AccountName=n;AccountKey=" + secret + ";TableEndpoint=host"}, "table endpoint")
	f(Options{ConnectionString: "TableEndpoint=https://h/?sig=" + secret + ";SharedAccessSignature=x"}, "table endpoint")
	f(Options{ConnectionString: "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=x"}, "DevelopmentStorageProxyUri")
	f(Options{ServiceURI: "https://n.table.core.windows.net"}, "credential")
	f(Options{ServiceURI: "n.table.core.windows.net", Credential: token{}}, "service URI")
	f(Options{ServiceURI: "http://n.table.core.windows.net", Credential: token{}}, "https")
	for _, table := range []string{"ab", "1abc", "a-b", "a_bc", strings.Repeat("a", 64)} {
		f(Options{ConnectionString: "UseDevelopmentStorage=true", Table: table}, "table name")
	}
	mustOpen(t, Options{ConnectionString: "UseDevelopmentStorage=true", Table: strings.Repeat("a", 63)})
	mustOpen(t, Options{ConnectionString: "UseDevelopmentStorage=true", Table: "abc"})
}

// token is a credential.
type token struct{}

func (token) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: strings.Join(o.Scopes, " "), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// transport answers in place of the service.
type transport func(r *http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

var errNetwork = errors.New("network is down")

func TestTokenIsSent(t *testing.T) {
	var got []string
	s := mustOpen(t, Options{ServiceURI: "https://n.table.core.windows.net/", Credential: token{}, Table: "Table", Transport: transport(
		func(r *http.Request) (*http.Response, error) {
			got = append(got, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization"))
			return nil, errNetwork
		})})
	_, err := s.Apply(t.Context(), "p", []ledger.Op{count("a", ledger.Insert, "", 1)})
	unknown(t, err)
	if !errors.Is(err, errNetwork) {
		t.Errorf("got %v", err)
	}
	want := "POST https://n.table.core.windows.net/$batch Bearer https://storage.azure.com/.default"
	if len(got) != 1 || got[0] != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// TestErrorsHideSignatures lets every call fail on the way, with the address in
// the error that net/http makes.
func TestErrorsHideSignatures(t *testing.T) {
	sent := ""
	s := mustOpen(t, Options{
		ConnectionString: "AccountName=n;SharedAccessSignature=sv=1&sig=SECRET", Table: "Table",
		Transport: transport(func(r *http.Request) (*http.Response, error) { sent = r.URL.String(); return nil, errNetwork }),
	})
	_, get := s.Get(t.Context(), "p", "a")
	_, list := s.Range(t.Context(), "p", "a", "b", 1)
	_, apply := s.Apply(t.Context(), "p", []ledger.Op{count("a", ledger.Insert, "", 1)})
	for _, err := range []error{get, list, apply, s.EnsureTable(t.Context())} {
		unknown(t, err)
		if strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "http") {
			t.Errorf("shows the address: %v", err)
		}
	}
	if !strings.Contains(sent, "sig=SECRET") || !strings.HasPrefix(sent, "https://n.table.core.windows.net/") {
		t.Errorf("sent to %s", sent)
	}
}
