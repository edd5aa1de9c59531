package ehpeer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// certificate makes the two sides of TLS for a host of the service and for this
// machine.
func certificate(t *testing.T) (server *tls.Config, client *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer"}, IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"name.servicebus.windows.net"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// token is a credential of Entra ID, whose tokens the peer does not look into.
type token struct{}

func (token) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if !slices.Equal(o.Scopes, []string{"https://eventhubs.azure.net//.default"}) {
		return azcore.AccessToken{}, fmt.Errorf("scopes %v", o.Scopes)
	}
	return azcore.AccessToken{Token: "header.claims.signature", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestTLS(t *testing.T) {
	server, client := certificate(t)
	f := func(name, key string, entra bool, trust *x509.CertPool, check func(error) bool) {
		t.Helper()
		p := start(t, Options{TLS: server, Key: key})
		o := &azeventhubs.ProducerClientOptions{RetryOptions: azeventhubs.RetryOptions{MaxRetries: -1}, TLSConfig: &tls.Config{RootCAs: trust, ServerName: "127.0.0.1"}}
		c, err := azeventhubs.NewProducerClientFromConnectionString(p.ConnectionString(), "", o)
		if entra {
			o.CustomEndpoint, o.TLSConfig = p.Address(), &tls.Config{RootCAs: trust} // the name is the service's
			c, err = azeventhubs.NewProducerClient("name.servicebus.windows.net", "usage", token{}, o)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if err := send(deadline(t), c, nil, "a"); !check(err) {
			t.Errorf("%s: got %v", name, err)
		} else if err == nil {
			want(t, name, bodies(p), []string{"a"})
		}
	}
	success := func(err error) bool { return err == nil }
	f("shared key", "c2VjcmV0", false, client, success)
	f("Entra ID", "", true, client, success)
	f("Entra ID, but keys wanted", "c2VjcmV0", true, client, func(err error) bool { return isCode(err, azeventhubs.ErrorCodeUnauthorizedAccess) })
	f("unknown certificate", "", true, x509.NewCertPool(), func(err error) bool { return err != nil })
}

func TestCheckToken(t *testing.T) {
	const key = "c2VjcmV0"
	now := time.Unix(1_800_000_000, 0)
	audience, err := url.Parse("amqps://Name.servicebus.windows.net/usage/Partitions/0")
	if err != nil {
		t.Fatal(err)
	}
	// Signed with: printf 'SR\nSE' | openssl dgst -sha256 -hmac c2VjcmV0 -binary | base64
	const (
		forPartition = "sr=amqps%3a%2f%2fname.servicebus.windows.net%2fusage%2fpartitions%2f0&sig=kJGdqw1uRZNh4A5WqbQ7aFsMWNii730FBtLs%2FN7RkjQ%3D&se=1800000001&skn=RootManageSharedAccessKey"
		forHub       = "sr=sb%3a%2f%2fname.servicebus.windows.net%2fusage&sig=%2B%2FCU6pa8Y0QVDf595sBeX4ExtBmagvQIE7e7N%2BOVXGo%3D&se=1800000001&skn=RootManageSharedAccessKey"
		forNamespace = "sr=sb%3a%2f%2fname.servicebus.windows.net%2f&sig=N%2BLM74J1SNAEfQ5GofoIz%2BokYMAHgvw3%2Fmxt%2BLMLZIw%3D&se=1800000001&skn=RootManageSharedAccessKey"
		forOther     = "sr=sb%3a%2f%2fname.servicebus.windows.net%2fus&sig=iCpTwSkPUhAxoYolpGWtGG1loEmFrS4zNZ9QDwAsPrg%3D&se=1800000001&skn=RootManageSharedAccessKey"
		forHost      = "sr=sb%3a%2f%2fother.servicebus.windows.net%2fusage&sig=k%2B0O5aXfmTK5SVtB97J4JsNV6SWtQ1or%2B2khk5dpyjU%3D&se=1800000001&skn=RootManageSharedAccessKey"
		expired      = "sr=sb%3a%2f%2fname.servicebus.windows.net%2fusage&sig=MMYnjRTE2D%2BlR%2B0FTiljtnWi7Np6u9OiB4QiWsJawe0%3D&se=1800000000&skn=RootManageSharedAccessKey"
		otherName    = "sr=sb%3a%2f%2fname.servicebus.windows.net%2fusage&sig=%2B%2FCU6pa8Y0QVDf595sBeX4ExtBmagvQIE7e7N%2BOVXGo%3D&se=1800000001&skn=Other"
		prolonged    = "sr=sb%3a%2f%2fname.servicebus.windows.net%2fusage&sig=MMYnjRTE2D%2BlR%2B0FTiljtnWi7Np6u9OiB4QiWsJawe0%3D&se=1800000001&skn=RootManageSharedAccessKey"
	)
	f := func(text, reason string) {
		t.Helper()
		err := checkToken(text, key, audience, now)
		if (err == nil) != (reason == "") || err != nil && err.Error() != reason {
			t.Errorf("%s: got %v, want %q", text, err, reason)
		}
	}
	const scheme = "SharedAccessSignature "
	f(scheme+forPartition, "")
	f(scheme+forHub, "")
	f(scheme+forNamespace, "")
	f(scheme+forOther, `the token is for "sb://name.servicebus.windows.net/us"`)
	f(scheme+forHost, `the token is for "sb://other.servicebus.windows.net/usage"`)
	f(scheme+expired, "the token has expired")
	f(scheme+otherName, `no key is named "Other"`)
	f(scheme+prolonged, "the signature is not by the key")
	f(scheme, "the signature is not by the key")
	f(forHub, "no shared access signature")
	f("header.claims.signature", "no shared access signature")
}
