package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/costgate/costgate/handler/internal/admin"
	"github.com/costgate/costgate/handler/internal/boltstore"
	"github.com/costgate/costgate/handler/internal/budget"
	"github.com/costgate/costgate/handler/internal/funchost"
	"github.com/costgate/costgate/handler/internal/lake"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/notify"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/proxy"
	"github.com/costgate/costgate/handler/internal/service"
	"github.com/costgate/costgate/handler/internal/tablestore"
	"github.com/costgate/costgate/handler/internal/telemetry"
	"github.com/costgate/costgate/handler/internal/upstream"
	"github.com/costgate/costgate/handler/internal/usage"
)

const (
	initTimeout   = 60 * time.Second // for the store and the sweep of what dead processes held
	initRetry     = time.Second
	hostedWait    = 220 * time.Second // the platform gives a function 230 s to begin its answer
	hostedMargin  = time.Minute       // after STREAM_MAX, a call of the Functions host ends in any case
	drainTimeout  = 10 * time.Second
	maintainLimit = 50 * time.Second // the timer comes every minute
	maintainLook  = 15 * time.Second // of it, for the relay
	scanAlone     = 3 * time.Second  // between two looks at the outbox for what was not handed over
	scanShared    = 30 * time.Second // the same where each look is paid for
)

// App is the gateway: every part, wired. Build it with NewApp, start its parts
// with Open, end them with Close.
type App struct {
	config *Config
	log    *slog.Logger

	store      ledger.Store
	closers    []func() error
	ledger     *ledger.Ledger
	relay      *lake.Relay
	notifier   *notify.Notifier // nil: nobody is to be told
	crossed    chan struct{}    // wakes it
	proxy      *proxy.Handler
	services   *service.Handler
	admin      *admin.Handler
	alerts     *budget.Handler
	metrics    telemetry.Registry
	unaccepted func() int64      // transfers of the hub; nil: there is none
	watch      func(http.Header) // logs the version of the Functions host once
	ready      chan struct{}     // closed when Open has succeeded
	stop       context.CancelFunc
	running    sync.WaitGroup
	simulated  *http.Server
}

// NewApp makes an App that answers health checks; all else waits for Open.
func NewApp(c *Config, log *slog.Logger) *App {
	watch := funchost.VersionWatch(func(version string) { log.Info("running in the Functions host", "version", version) })
	return &App{config: c, log: log, watch: watch, ready: make(chan struct{}), stop: func() {}}
}

// Open connects the parts. It fails only on what trying again cannot mend.
func (a *App) Open(ctx context.Context) error {
	book := pricing.Builtin()
	if a.config.Prices != nil {
		book = book.With(a.config.Prices)
	}
	for _, message := range book.Shadowed() {
		a.log.Warn("PRICES_FILE: " + message)
	}
	if err := a.openStore(ctx); err != nil {
		return err
	}
	instance := time.Now().UTC().Format("20060102T150405") + "-" + strings.ToLower(rand.Text()[:10])
	_, embedded := a.store.(*boltstore.Store)
	a.ledger = ledger.New(a.store, ledger.Options{
		Instance: instance, Embedded: embedded, Log: a.log, Retention: a.config.Retention,
		OnRecord: func(product, row string, record usage.Record) bool { return a.offer(product, row, record) }, OnCrossing: a.onCrossing(),
	})
	scan := scanShared
	if embedded {
		scan = scanAlone
	}
	sink, err := a.openLake(instance, embedded)
	if err != nil {
		return err
	}
	a.relay = lake.NewRelay(outbox{a.ledger}, sink, lake.Options{Alone: embedded, Interval: scan, Log: a.log})
	if err := a.firstSweep(ctx); err != nil {
		return err
	}
	target, err := a.openUpstream()
	if err != nil {
		return err
	}
	answerWait := time.Duration(0)
	if a.config.Hosted {
		answerWait = hostedWait
	}
	a.proxy = proxy.New(proxy.Options{
		Ledger: a.ledger, Upstream: target, Book: book, Deployments: a.config.Deployments, Unmetered: a.config.Unmetered,
		StreamMax: a.config.StreamMax, AnswerWait: answerWait, KeepAlive: a.config.KeepAlive, Trailers: !a.config.Hosted,
		LogContent: a.config.LogContent, Log: a.log, Metrics: &a.metrics,
	})
	if err := a.openServices(); err != nil {
		return err
	}
	a.admin = admin.New(admin.Options{Ledger: a.ledger, Book: book, Deployments: a.config.Deployments, Log: a.log})
	a.alerts = budget.New(budget.Options{Ledger: a.ledger, Log: a.log})
	a.openNotifier()
	background, stop := context.WithCancel(context.Background())
	a.stop = stop
	a.running.Go(func() { a.ledger.Run(background, !a.config.Hosted) })
	a.running.Go(func() { a.relay.Run(background) })
	if a.notifier != nil {
		a.running.Go(func() { a.notifier.Run(background) })
	}
	a.running.Go(func() { a.logMetrics(background) })
	close(a.ready)
	return nil
}

// offer hands a fresh record to the lake, so that it need not be read again. If
// the relay's queue is full it is found in the outbox later.
func (a *App) offer(product, row string, record usage.Record) (taken bool) {
	doc, err := json.Marshal(record)
	if err != nil {
		a.log.Error("record cannot be written", "record", record.ID, "error", err)
		return false
	}
	return a.relay.Offer(lake.Entry{Product: product, Row: row, Record: doc})
}

// openStore opens the embedded store, or the table.
func (a *App) openStore(ctx context.Context) error {
	c := a.config
	if c.Storage == "" && c.StorageURI == "" {
		if err := os.MkdirAll(c.DataDir, 0o750); err != nil {
			return &settingError{"DATA_DIR", err.Error()}
		}
		store, err := boltstore.Open(filepath.Join(c.DataDir, databaseFile))
		if err != nil {
			return &settingError{"DATA_DIR", err.Error()}
		}
		a.store, a.closers = store, append(a.closers, store.Close)
		return nil
	}
	options := tablestore.Options{ConnectionString: c.Storage, ServiceURI: c.StorageURI, Table: c.TableName + "Ledger"}
	if c.StorageURI != "" {
		credential, err := identity(c.Credential, c.ClientID)
		if err != nil {
			return &settingError{"QuotaStorage__credential", err.Error()}
		}
		options.Credential = credential
	}
	store, err := tablestore.Open(options)
	if err != nil {
		return &settingError{"QuotaStorage", err.Error()}
	}
	a.store = store
	return a.untilDone(ctx, "table", store.EnsureTable)
}

// openLake is the event hub, or a folder.
func (a *App) openLake(instance string, embedded bool) (lake.Sink, error) {
	h := a.config.Hub
	if h.Connection == "" && h.Namespace == "" {
		folder := lake.NewFolder(lake.FolderOptions{
			Dir: filepath.Join(a.config.DataDir, "lake"), Instance: instance, Alone: embedded, Now: time.Now,
		})
		a.closers = append(a.closers, folder.Close)
		return folder, nil
	}
	options := lake.EventHubsOptions{ConnectionString: h.Connection, Namespace: h.Namespace, Hub: h.Name}
	if h.Namespace != "" {
		credential, err := identity(h.Credential, h.ClientID)
		if err != nil {
			return nil, &settingError{"UsageEventHub__credential", err.Error()}
		}
		options.Credential = credential
	}
	hub, err := lake.NewEventHubs(options)
	if err != nil {
		return nil, &settingError{"UsageEventHub", err.Error()}
	}
	a.closers = append(a.closers, hub.Close)
	a.unaccepted = func() int64 { return hub.Stats().Unaccepted }
	return hub, nil
}

// identity is the managed identity, or the default chain of credentials.
func identity(kind, clientID string) (azcore.TokenCredential, error) {
	if strings.EqualFold(kind, managedIdentity) {
		options := &azidentity.ManagedIdentityCredentialOptions{}
		if clientID != "" {
			options.ID = azidentity.ClientID(clientID)
		}
		return azidentity.NewManagedIdentityCredential(options)
	}
	return azidentity.NewDefaultAzureCredential(nil)
}

// firstSweep charges what the dead have held.
func (a *App) firstSweep(ctx context.Context) error {
	sweep := func(ctx context.Context) error {
		swept, err := a.ledger.Sweep(ctx)
		if swept > 0 {
			a.log.Info("holds of dead processes were charged", "records", swept)
		}
		if errors.Is(err, ledger.ErrBroken) {
			a.log.Error("a part of the books cannot be swept; the rest was", "error", err)
			return nil
		}
		return err
	}
	if _, embedded := a.store.(*boltstore.Store); embedded {
		return a.untilDone(ctx, "sweep", sweep)
	}
	a.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), maintainLimit)
		defer cancel()
		if err := sweep(ctx); err != nil {
			a.log.Warn("first sweep failed; Maintain will do it", "error", err)
		}
	})
	return nil
}

// untilDone tries until the store answers. A store that is out of reach is no
// reason to exit: the Functions host gives up on a handler that exits thrice.
func (a *App) untilDone(ctx context.Context, what string, do func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, initTimeout)
		err := do(try)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.log.Warn("storage is not ready, trying again", "step", what, "error", err)
		select {
		case <-time.After(initRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// openUpstream is Azure OpenAI, or the built-in simulator on a port of its own.
func (a *App) openUpstream() (*upstream.Azure, error) {
	o := upstream.Options{Endpoint: a.config.Endpoint, Key: a.config.APIKey, NotSent: proxy.ErrNotSent}
	if a.config.Hosted {
		o.HeaderWait = hostedWait
	}
	if o.Endpoint == simulatorEndpoint {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		o.Endpoint, o.Key = "http://"+listener.Addr().String(), rand.Text()
		a.simulated = &http.Server{Handler: newSimulator(o.Key, a.config.Deployments), ReadHeaderTimeout: time.Minute}
		a.running.Go(func() { _ = a.simulated.Serve(listener) }) // ends with Close
	}
	if o.Key == "" {
		credential, err := identity(a.config.Credential, a.config.ClientID)
		if err != nil {
			return nil, &settingError{"AZURE_OPENAI_API_KEY", "is not set, and there is no identity: " + err.Error()}
		}
		o.Credential = credential
	}
	target, err := upstream.New(o)
	if err != nil {
		return nil, &settingError{"AZURE_OPENAI_ENDPOINT", err.Error()}
	}
	a.closers = append(a.closers, func() error { target.Close(); return nil })
	return target, nil
}

// Maintain sweeps what dead processes held.
func (a *App) Maintain(ctx context.Context) error {
	if err := a.await(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maintainLimit)
	defer cancel()
	swept, err := a.ledger.Sweep(ctx)
	if swept > 0 {
		a.log.Info("holds of dead processes were charged", "records", swept)
	}
	if errors.Is(err, ledger.ErrUnfinished) {
		a.log.Info("the sweep goes on in a minute", "error", err)
		err = nil
	}
	// What dead processes have not sent: an instance that the timer woke may not
	// live until the relay's next look.
	look, done := context.WithTimeout(ctx, maintainLook)
	defer done()
	for range 2 {
		if lookErr := a.relay.Look(look); lookErr != nil {
			a.log.Info("records wait for the lake", "error", lookErr)
			break
		}
	}
	a.notifyNow(ctx)
	return err
}

// await waits until the parts are there.
func (a *App) await(ctx context.Context) error {
	select {
	case <-a.ready:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	select {
	case <-a.ready:
		return nil
	case <-ctx.Done():
		return errors.New("the gateway is starting; storage has not answered yet")
	}
}

// Close ends the parts: what was charged becomes durable, what was recorded is
// sent, as far as the time allows. Nothing depends on it.
func (a *App) Close() error {
	if a.alerts != nil {
		a.alerts.Wait() // for what goes on behind answers, 15 s at most
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var failed error
	if a.ledger != nil {
		if err := a.ledger.Drain(ctx); err != nil {
			failed = fmt.Errorf("drain: %w", err)
		}
	}
	a.stop()
	if a.simulated != nil {
		_ = a.simulated.Close()
	}
	a.running.Wait()
	for _, closer := range a.closers {
		failed = errors.Join(failed, closer())
	}
	return failed
}

// outbox lets the lake read the ledger's outbox.
type outbox struct{ ledger *ledger.Ledger }

func (o outbox) Unsent(ctx context.Context, limit int) ([]lake.Entry, error) {
	unsent, err := o.ledger.Unsent(ctx, limit)
	entries := make([]lake.Entry, len(unsent))
	for i, u := range unsent {
		entries[i] = lake.Entry(u)
	}
	return entries, err
}

func (o outbox) Acknowledge(ctx context.Context, entries []lake.Entry) error {
	unsent := make([]ledger.OutboxEntry, len(entries))
	for i, e := range entries {
		unsent[i] = ledger.OutboxEntry(e)
	}
	return o.ledger.Acknowledge(ctx, unsent)
}
