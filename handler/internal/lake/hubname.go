package lake

import (
	"crypto/tls"
	"fmt"
	"regexp"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// EventHubsOptions name a hub and the right to send to it, by a connection string
// or by an identity.
type EventHubsOptions struct {
	ConnectionString string // the emulator's form included
	Namespace        string // host name, <name>.servicebus.windows.net; without a connection string
	Hub              string // may be empty if the connection string has it as EntityPath
	Credential       azcore.TokenCredential
	TLS              *tls.Config // nil: the system's roots, TLS 1.2 and above
}

// Limits of names in Event Hubs.
var (
	namespacePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)+(:[0-9]{1,5})?$`)
	hubPattern       = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,254}[A-Za-z0-9])?$`)
)

// CheckConnection reads a connection string and returns the hub that it names,
// which may be none. Errors do not repeat what is secret.
func CheckConnection(connection string) (hub string, err error) {
	p, err := azeventhubs.ParseConnectionString(connection)
	if err != nil {
		return "", err
	}
	if p.EntityPath == nil {
		return "", nil
	}
	return *p.EntityPath, CheckHub(*p.EntityPath)
}

// CheckNamespace tells whether a namespace is a host name.
func CheckNamespace(namespace string) error {
	if !namespacePattern.MatchString(namespace) {
		return fmt.Errorf("%q is no host name; use the form <name>.servicebus.windows.net", namespace)
	}
	return nil
}

// CheckHub tells whether a hub can have that name.
func CheckHub(hub string) error {
	if !hubPattern.MatchString(hub) {
		return fmt.Errorf("%q is no name of an event hub; it has letters, digits, dots, hyphens and underscores", hub)
	}
	return nil
}
