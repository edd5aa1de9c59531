package lake

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/testkit/ehpeer"
)

// toldOutbox is a fakeOutbox that tells when it is empty.
type toldOutbox struct {
	fakeOutbox
	empty chan struct{} // capacity 1
}

func (o *toldOutbox) Acknowledge(ctx context.Context, entries []Entry) error {
	err := o.fakeOutbox.Acknowledge(ctx, entries)
	if o.left() == 0 {
		select {
		case o.empty <- struct{}{}:
		default:
		}
	}
	return err
}

// relayTo runs a relay with short waits to a hub.
func relayTo(t *testing.T, hub *EventHubs, o Options) (*toldOutbox, *Relay) {
	t.Helper()
	outbox := &toldOutbox{empty: make(chan struct{}, 1)}
	o.Alone, o.Linger, o.BackoffMin, o.BackoffMax = true, time.Millisecond, 10*time.Millisecond, 50*time.Millisecond
	o.Interval = 50 * time.Millisecond
	r := NewRelay(outbox, hub, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return outbox, r
}

func (o *toldOutbox) await(t *testing.T) {
	t.Helper()
	select {
	case <-o.empty:
	case <-time.After(30 * time.Second):
		t.Fatalf("%d records are left", o.left())
	}
}

func hubEntry(product string, i int) Entry {
	return Entry{Product: product, Row: fmt.Sprint(i), Record: hubRecord(product, i, 300)}
}

// Whatever the hub does, every record is stored, in order, and none twice but
// where its storing was not told.
func TestEventHubsFaults(t *testing.T) {
	const n = 20
	f := func(fault ehpeer.Fault, times int, doubled bool) {
		t.Run(fmt.Sprintf("%v %d times", fault, times), func(t *testing.T) {
			t.Parallel()
			peer, hub := startPeer(t, ehpeer.Options{})
			hub.tryMax = 1200 * time.Millisecond // more than the SDK waits between its two tries
			outbox, relay := relayTo(t, hub, Options{BatchMax: 5})
			warm := hubEntry("p", 0)
			outbox.add(warm)
			outbox.await(t)
			peer.Fail(fault, times)
			if fault == ehpeer.Unauthorized || fault == ehpeer.NotFound { // what strikes new links only
				if err := peer.Restart(); err != nil {
					t.Fatal(err)
				}
			}
			for i := 1; i < n; i++ {
				outbox.add(hubEntry("p", i))
			}
			outbox.await(t)
			var want, got []string
			for i := range n {
				want = append(want, string(hubEntry("p", i).Record))
			}
			seen := map[string]bool{}
			for _, body := range bodies(peer) {
				if !seen[body] {
					got = append(got, body)
				}
				seen[body] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if doubles := len(peer.Events()) - n; (doubles > 0) != doubled {
				t.Errorf("%d came twice", doubles)
			}
			if peer.Stats().Faults[fault.String()] != int64(times) {
				t.Errorf("faults met: %v", peer.Stats().Faults)
			}
			if s := relay.Stats(); s.Sent != n || s.Waiting != 0 || s.Oldest != 0 || s.Refused != 0 {
				t.Errorf("%+v", s)
			}
			unaccepted := int64(0)
			if fault == ehpeer.Release || fault == ehpeer.Modify {
				unaccepted = int64(times)
			}
			if s := hub.Stats(); s.Unaccepted != unaccepted || s.Events != n {
				t.Errorf("%+v", s)
			}
		})
	}
	for _, times := range []int{1, 3} {
		f(ehpeer.Throttle, times, false)
		f(ehpeer.Release, times, false)
		f(ehpeer.Modify, times, false)
		f(ehpeer.Detach, times, false)
		f(ehpeer.Stolen, times, false)
		f(ehpeer.ForceClose, times, false)
		f(ehpeer.DropBefore, times, false)
		f(ehpeer.DropAfter, times, true)
		f(ehpeer.NeverSettle, times, false)
		f(ehpeer.NeverSettleAfter, times, true)
		f(ehpeer.Unauthorized, times, false)
		f(ehpeer.NotFound, times, false)
	}
}

// With many partitions on their way at once an outcome that is no acceptance
// concerns some that were accepted, too: they come twice, and none is lost.
func TestEventHubsUnacceptedAmongOthers(t *testing.T) {
	peer, hub := startPeer(t, ehpeer.Options{Partitions: 8})
	outbox, _ := relayTo(t, hub, Options{})
	peer.Fail(ehpeer.Release, 5)
	want := map[string]bool{}
	for i := range 200 {
		e := outbox.add(hubEntry(fmt.Sprintf("p_%d", i%40), i))
		want[string(e.Record)] = true
	}
	outbox.await(t)
	for _, body := range bodies(peer) {
		delete(want, body)
	}
	if len(want) != 0 || hub.Stats().Unaccepted != 5 {
		t.Errorf("%d are lost, %+v", len(want), hub.Stats())
	}
}

// One partition that fails does not hold up the others, and what they have stored
// is not sent again.
func TestEventHubsPartialFailure(t *testing.T) {
	peer, hub := startPeer(t, ehpeer.Options{Partitions: 4})
	var batch [][]byte
	for i := range 40 {
		batch = append(batch, hubRecord(fmt.Sprintf("p_%d", i%8), i, 300))
	}
	peer.Fail(ehpeer.Stolen, 1)
	err := hub.Send(t.Context(), batch)
	partial := (*PartialError)(nil)
	if !errors.As(err, &partial) {
		t.Fatalf("%v", err)
	}
	var rest [][]byte
	for i, stored := range partial.Stored {
		if !stored {
			rest = append(rest, batch[i])
		}
	}
	if len(rest) == 0 || len(rest) == len(batch) {
		t.Errorf("%d of %d are not stored", len(rest), len(batch))
	}
	for range renewAfter { // the SDK does not use its link again, nor make another
		if err = hub.Send(t.Context(), rest); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	got := bodies(peer)
	slices.Sort(got)
	want := strs(batch)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A hub that is silent about every partition costs a Send one try's time, not one
// for each partition.
func TestEventHubsNeverSettles(t *testing.T) {
	peer, hub := startPeer(t, ehpeer.Options{Partitions: 32})
	var batch [][]byte
	for i := range 200 {
		batch = append(batch, hubRecord(fmt.Sprintf("p_%d", i), i, 300))
	}
	if err := hub.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	hub.tryMax = 500 * time.Millisecond
	peer.Fail(ehpeer.NeverSettle, -1)
	start := time.Now()
	err := hub.Send(t.Context(), batch)
	if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 1500*time.Millisecond {
		t.Errorf("%v after %v", err, took)
	}
	peer.Clear()
	hub.tryMax = tryMax // the SDK waits half a second before it connects again
	if err := hub.Send(t.Context(), batch); err != nil {
		t.Error(err)
	}
}

// A connection that the service has dropped while nothing was sent costs one
// reconnect, no record and no double, also where it dropped it without a word.
func TestEventHubsIdle(t *testing.T) {
	f := func(name string, drop func(*ehpeer.Peer)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer, hub := startPeer(t, ehpeer.Options{})
			outbox, _ := relayTo(t, hub, Options{})
			const n = 2
			for i := range n {
				start := time.Now()
				outbox.add(hubEntry("p", i))
				outbox.await(t)
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("record %d took %v", i, took)
				}
				drop(peer)
			}
			if got := len(peer.Events()); got != n || peer.Stats().Connections < n {
				t.Errorf("%d events, %+v", got, peer.Stats())
			}
		})
	}
	f("closed", func(p *ehpeer.Peer) { _ = p.Restart() })
	f("silent", func(p *ehpeer.Peer) { p.Fail(ehpeer.NeverSettle, 1) }) // with the real limit of a try
}

// The hub is down while more comes than memory may hold; then everything arrives.
func TestEventHubsDown(t *testing.T) {
	peer, hub := startPeer(t, ehpeer.Options{})
	outbox, relay := relayTo(t, hub, Options{})
	if err := peer.Down(); err != nil {
		t.Fatal(err)
	}
	const n = QueueMax + 2000
	turned := 0
	for i := range n {
		e := hubEntry(fmt.Sprintf("p_%d", i%100), i)
		outbox.add(e)
		if !relay.Offer(e) {
			turned++
		}
		if i%1000 > 0 {
			continue
		}
		if s := relay.Stats(); s.Waiting > QueueMax {
			t.Fatalf("%+v", s)
		}
	}
	if turned == 0 {
		t.Error("the queue has no end")
	}
	if s := relay.Stats(); s.Sent != 0 || s.Oldest == 0 {
		t.Errorf("%+v", s)
	}
	if err := peer.Restart(); err != nil {
		t.Fatal(err)
	}
	outbox.await(t)
	got := bodies(peer)
	slices.Sort(got)
	if len(got) != n || len(slices.Compact(got)) != n {
		t.Errorf("%d events", len(got))
	}
	s, h := relay.Stats(), hub.Stats()
	t.Logf("after the outage %d records in %d sends and %d batches", s.Sent, s.Sends, h.Batches)
}

// token is a credential with one token.
type token struct{ text string }

func (c token) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if _, limited := ctx.Deadline(); !limited || !slices.Equal(o.Scopes, []string{"https://eventhubs.azure.net//.default"}) {
		return azcore.AccessToken{}, fmt.Errorf("limited %v, scopes %v", limited, o.Scopes)
	}
	return azcore.AccessToken{Token: c.text, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// By identity the connection has TLS, which verifies the host.
func TestEventHubsIdentity(t *testing.T) {
	certificate, roots := selfSigned(t)
	peer, err := ehpeer.Start(ehpeer.Options{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	f := func(name string, o EventHubsOptions, want string) {
		t.Run(name, func(t *testing.T) {
			err := newHub(t, o).Send(t.Context(), [][]byte{hubRecord("p", 0, 300)})
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%v", err)
			}
		})
	}
	trusting := &tls.Config{RootCAs: roots}
	f("identity", EventHubsOptions{Namespace: peer.Address(), Hub: "usage", Credential: token{"t"}, TLS: trusting}, "")
	f("connection string", EventHubsOptions{ConnectionString: peer.ConnectionString(), TLS: trusting}, "")
	f("unknown authority", EventHubsOptions{Namespace: peer.Address(), Hub: "usage", Credential: token{"t"}}, "x509")
	other := trusting.Clone()
	other.ServerName = "example.org"
	f("another host", EventHubsOptions{Namespace: peer.Address(), Hub: "usage", Credential: token{"t"}, TLS: other}, "example.org")
	if n := len(peer.Events()); n != 2 {
		t.Errorf("%d events", n)
	}
}

func TestEventHubsWrongKey(t *testing.T) {
	peer, _ := startPeer(t, ehpeer.Options{Key: "right"})
	hub := newHub(t, EventHubsOptions{ConnectionString: strings.Replace(peer.ConnectionString(), "right", "wrong", 1)})
	err := hub.Send(t.Context(), [][]byte{hubRecord("p", 0, 300)})
	if err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("%v", err)
	}
	t.Log(err)
}

// selfSigned is a certificate of 127.0.0.1 and who trusts it.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// BenchmarkEventHubs sends records of 1,500 bytes of 1,000 products, 500 at once.
func BenchmarkEventHubs(b *testing.B) {
	_, hub := startPeer(b, ehpeer.Options{Partitions: 4})
	batch := make([][]byte, 500)
	for i := range batch {
		batch[i] = hubRecord(fmt.Sprintf("p_%d", i), i, 1500)
	}
	for b.Loop() {
		if err := hub.Send(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	s := hub.Stats()
	b.ReportMetric(float64(s.Events)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(1000*float64(s.Batches)/float64(s.Events), "transfers/1000records")
}
