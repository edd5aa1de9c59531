package main

import (
	"context"
	"net/url"
	"time"

	"github.com/costgate/costgate/handler/internal/boltstore"
	"github.com/costgate/costgate/handler/internal/notify"
)

const (
	maintainNotify = 15 * time.Second // of one call of Maintain, for notifications
	noticesAlone   = 3 * time.Second  // between two looks for notifications that others left
	noticesShared  = 10 * time.Second // the same where each look is paid for
)

// NotifyConfig says where crossings of budgets are told. The zero value: nowhere.
type NotifyConfig struct {
	URL *url.URL
	Key []byte // that signs
}

func readNotify(getenv func(string) string, problem func(name, format string, args ...any)) (n NotifyConfig) {
	const address, signing = "NOTIFY_WEBHOOK_URL", "NOTIFY_WEBHOOK_SECRET"
	switch hasAddress, hasSecret := getenv(address) != "", getenv(signing) != ""; {
	case !hasAddress && !hasSecret:
		return n
	case !hasAddress:
		problem(signing, "is set, and %s is not: set it too, or leave both out", address)
	case !hasSecret:
		problem(signing, "is not set, and %s is: notifications are signed. Set it to the output of: echo whsec_$(openssl rand -base64 32)", address)
	}
	var err error
	if getenv(address) != "" {
		if n.URL, err = notify.ParseURL(getenv(address)); err != nil {
			problem(address, "%v", err)
		}
	}
	if getenv(signing) != "" {
		if n.Key, err = notify.ParseSecret(getenv(signing)); err != nil {
			problem(signing, "%v", err)
		}
	}
	return n
}

// onCrossing is what the ledger calls when there is something to be told; nil if
// nobody is to be told.
func (a *App) onCrossing() func() {
	if a.config.Notify.URL == nil {
		return nil
	}
	a.crossed = make(chan struct{}, 1)
	return func() {
		select {
		case a.crossed <- struct{}{}:
		default:
		}
	}
}

// openNotifier makes what tells of crossings, if somebody is to be told.
func (a *App) openNotifier() {
	if a.config.Notify.URL == nil {
		return
	}
	if len(a.config.Notify.Key) < notify.KeyBytesLeast {
		a.log.Warn("NOTIFY_WEBHOOK_SECRET is short: whoever sees a notification may guess it; use the output of: echo whsec_$(openssl rand -base64 32)")
	}
	interval := noticesShared
	if _, embedded := a.store.(*boltstore.Store); embedded {
		interval = noticesAlone
	}
	a.notifier = notify.New(notify.Options{
		Ledger: a.ledger, URL: a.config.Notify.URL, Key: a.config.Notify.Key, Wake: a.crossed, Interval: interval, Log: a.log,
		Count: func(outcome string) {
			a.metrics.Counter("costgate_notifications", "Webhook deliveries by what became of them.", "outcome", outcome).Inc()
		},
	})
}

// notifyNow tells what is due: an instance that the timer woke may not live until
// the notifier's next look.
func (a *App) notifyNow(ctx context.Context) {
	if a.notifier == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maintainNotify)
	defer cancel()
	if err := a.notifier.Look(ctx); err != nil {
		a.log.Info("notifications wait", "error", err)
	}
}
