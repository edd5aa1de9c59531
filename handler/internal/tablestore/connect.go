package tablestore

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
)

// The account that every storage emulator has; the key is published.
const (
	emulatorAccount = "devstoreaccount1"
	emulatorKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
	emulatorURL     = "http://127.0.0.1:10002/" + emulatorAccount
)

func connect(o Options, client *aztables.ClientOptions) (*aztables.ServiceClient, error) {
	switch {
	case o.ConnectionString != "" && o.ServiceURI != "":
		return nil, errors.New("a connection string and a service URI: only one can be used")
	case o.ConnectionString != "":
		a, err := parseConnectionString(o.ConnectionString)
		if err != nil {
			return nil, fmt.Errorf("connection string: %w", err)
		}
		return a.connect(client)
	case o.ServiceURI == "":
		return nil, errors.New("neither a connection string nor a service URI")
	case o.Credential == nil:
		return nil, errors.New("a service URI needs a credential")
	}
	if err := checkURL(o.ServiceURI); err != nil {
		return nil, fmt.Errorf("service URI: %w", err)
	}
	if !strings.HasPrefix(strings.ToLower(o.ServiceURI), "https://") {
		return nil, errors.New("service URI: a token is sent over https only")
	}
	return aztables.NewServiceClient(strings.TrimRight(o.ServiceURI, "/"), o.Credential, client)
}

// account is what a connection string says.
type account struct {
	endpoint, name, key, signature string
}

func (a account) connect(client *aztables.ClientOptions) (*aztables.ServiceClient, error) {
	if a.signature != "" {
		return aztables.NewServiceClientWithNoCredential(a.endpoint+"/?"+a.signature, client)
	}
	credential, err := aztables.NewSharedKeyCredential(a.name, a.key)
	if err != nil {
		return nil, errors.New("connection string: AccountKey is not base64")
	}
	return aztables.NewServiceClientWithSharedKey(a.endpoint, credential, client)
}

// parseConnectionString reads "Name=value;..." with names in any letter case.
// The SDK's own reading knows no emulator and no endpoint with a signature.
// Errors name parts, never their values.
func parseConnectionString(text string) (a account, err error) {
	parts := map[string]string{}
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, found := strings.Cut(part, "=")
		if !found {
			return a, errors.New("a part is not of the form Name=value")
		}
		parts[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	if strings.EqualFold(parts["usedevelopmentstorage"], "true") {
		return emulator(parts["developmentstorageproxyuri"])
	}
	a = account{
		endpoint: strings.TrimRight(parts["tableendpoint"], "/"), name: parts["accountname"],
		key: parts["accountkey"], signature: strings.TrimPrefix(parts["sharedaccesssignature"], "?"),
	}
	if a.key == "" && a.signature == "" {
		return a, errors.New("neither AccountKey nor SharedAccessSignature is there")
	}
	if a.name == "" && (a.key != "" || a.endpoint == "") {
		return a, errors.New("AccountName is missing")
	}
	if a.endpoint == "" {
		protocol, suffix := parts["defaultendpointsprotocol"], parts["endpointsuffix"]
		if protocol == "" {
			protocol = "https"
		}
		if suffix == "" {
			suffix = "core.windows.net"
		}
		a.endpoint = fmt.Sprintf("%s://%s.table.%s", protocol, a.name, suffix)
	}
	if err := checkURL(a.endpoint); err != nil {
		return a, fmt.Errorf("table endpoint: %w", err)
	}
	return a, nil
}

// emulator is the local account, on another host if a proxy address is given.
func emulator(proxyURI string) (account, error) {
	a := account{endpoint: emulatorURL, name: emulatorAccount, key: emulatorKey}
	if proxyURI == "" {
		return a, nil
	}
	if err := checkURL(proxyURI); err != nil {
		return a, fmt.Errorf("DevelopmentStorageProxyUri: %w", err)
	}
	a.endpoint = strings.TrimRight(proxyURI, "/") + ":10002/" + emulatorAccount
	return a, nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return errors.New("not an http or https address without a query")
	}
	return nil
}
