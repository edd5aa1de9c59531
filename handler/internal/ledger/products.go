package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

const (
	roomLooksMax  = 100              // keys looked at to make room; those that are being read are kept
	keyRetryAfter = time.Second      // after a failed read of a key, until it is read again
	keyFailingFor = 10 * time.Second // after a failed read, how long a request that can do without does not wait for one
)

// cachedKey is what is known of a product key.
type cachedKey struct {
	found  *foundKey     // as it was last read; nil: it never was
	read   time.Duration // when that read was sent
	load   *keyLoad      // not nil while it is read
	failed error         // of the last read; nil: it succeeded
	tried  time.Duration // when that one failed
}

// foundKey is what the store says of a key. Without a product nobody has it.
type foundKey struct {
	product *quota.Product
	key     quota.Key
}

// keyLoad is one read of a key, for all requests that wait for it.
type keyLoad struct {
	gate  Gate
	began time.Duration
	found *foundKey // once the gate is open
	err   error
}

// ProductByKey finds the product that a key belongs to, at most 5 s old. The
// key is looked up by its hash; only hashes are kept. It fails with
// ErrUnknownKey, or ErrUnavailable if it is not known and cannot be read.
//
// While the store cannot be reached a product that was found before is used on,
// for 10 minutes. That decides only who it is: what it may spend, and whether it
// is stopped, the ledger reads for itself. In an outage the first requests of a
// key wait 2 s for its read, those that have nothing to go on 3 s; the others
// are answered at once.
func (l *Ledger) ProductByKey(ctx context.Context, key string) (*quota.Product, quota.Key, error) {
	hash := quota.HashKey(key)
	now := l.rt.Elapsed()
	l.mu.Lock()
	c := l.keys[hash]
	if c == nil {
		l.makeRoom()
		c = &cachedKey{}
		l.keys[hash] = c
	}
	if c.fresh(now) {
		found := c.found
		l.mu.Unlock()
		return found.answer()
	}
	known, failed := c.stale(now), c.failed
	resting := failed != nil && now-c.tried < keyRetryAfter
	failing := failed != nil && now-c.tried < keyFailingFor
	begin := c.load == nil && !resting
	if begin {
		c.load = &keyLoad{gate: l.rt.Gate(), began: now}
	}
	load := c.load
	l.mu.Unlock()
	if begin { // a task of its own: it outlives whoever asked, and others wait for it too
		l.start(func() { l.loadKey(context.WithoutCancel(ctx), hash, c, load) })
	}
	switch {
	case known != nil && failing:
		return known.answer()
	case load == nil:
		return nil, quota.Key{}, failed
	}
	patience := txnTimeout
	if known != nil {
		patience = softWaitMax
	}
	return l.awaitKey(ctx, load, known, patience-(now-load.began))
}

// awaitKey waits for a read of a key, and does with what is known if it fails or
// takes too long.
func (l *Ledger) awaitKey(ctx context.Context, load *keyLoad, known *foundKey, patience time.Duration) (*quota.Product, quota.Key, error) {
	err := context.DeadlineExceeded
	if patience > 0 {
		wait, cancel := l.rt.Deadline(ctx, patience)
		err = load.gate.Wait(wait)
		cancel()
	}
	switch {
	case err == nil && load.err == nil:
		return load.found.answer()
	case ctx.Err() != nil:
		return nil, quota.Key{}, ctx.Err()
	case known != nil:
		return known.answer()
	case err == nil:
		return nil, quota.Key{}, load.err
	}
	return nil, quota.Key{}, fmt.Errorf("product key: %w", errors.Join(ErrUnavailable, err))
}

func (c *cachedKey) fresh(now time.Duration) bool {
	switch {
	case c.found == nil:
		return false
	case c.found.product == nil:
		return now-c.read < unknownKeyTTL
	}
	return now-c.read < productTTL
}

// stale is what may be used while the store cannot be reached, or nil. That a
// key was unknown says nothing about now.
func (c *cachedKey) stale(now time.Duration) *foundKey {
	if c.found == nil || c.found.product == nil || now-c.read >= productStaleMax {
		return nil
	}
	return c.found
}

func (f *foundKey) answer() (*quota.Product, quota.Key, error) {
	if f.product == nil {
		return nil, quota.Key{}, ErrUnknownKey
	}
	return f.product, f.key, nil
}

// makeRoom keeps the cache within KeysCachedMax. Which key goes is left to
// chance: the map's order.
func (l *Ledger) makeRoom() {
	looked := 0
	for hash, entry := range l.keys {
		if looked++; len(l.keys) < KeysCachedMax || looked > roomLooksMax {
			return
		}
		if entry.load == nil {
			delete(l.keys, hash)
		}
	}
}

func (l *Ledger) loadKey(ctx context.Context, hash string, c *cachedKey, load *keyLoad) {
	load.found, load.err = l.readKey(ctx, hash)
	l.mu.Lock()
	c.load = nil
	if c.failed = load.err; load.err != nil {
		c.tried = l.rt.Elapsed()
	} else {
		c.found, c.read = load.found, load.began
	}
	l.mu.Unlock()
	load.gate.Open()
}

// readKey follows the index to the product, whose own list of keys decides.
func (l *Ledger) readKey(ctx context.Context, hash string) (*foundKey, error) {
	ctx, cancel := l.rt.Deadline(ctx, 3*txnTimeout)
	defer cancel()
	nobody := &foundKey{}
	index, err := l.store.Get(ctx, indexPartition, prefixKey+hash)
	if errors.Is(err, ErrMissing) {
		return nobody, nil
	} else if err != nil {
		return nil, err
	}
	product, _, err := l.readProduct(ctx, index.Texts["Product"])
	if errors.Is(err, ErrUnknownProduct) {
		return nobody, nil
	} else if err != nil {
		return nil, err
	}
	key, ok := product.KeyByHash(hash)
	if !ok {
		return nobody, nil
	}
	return &foundKey{product, key}, nil
}

func (l *Ledger) readProduct(ctx context.Context, id string) (*quota.Product, Entity, error) {
	row, err := l.store.Get(ctx, id, rowConfig)
	if errors.Is(err, ErrMissing) {
		return nil, row, ErrUnknownProduct
	} else if err != nil {
		return nil, row, err
	}
	product, err := productOf(row)
	if err == nil {
		l.learn(product)
	}
	return product, row, err
}

// learn keeps the newest of a product that this process has read, for when the
// store does not answer.
func (l *Ledger) learn(p *quota.Product) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have := l.newest[p.ID]; have == nil || have.Version < p.Version {
		copied := *p // an edit changes the one that was read
		l.newest[p.ID] = &copied
	}
}

// newestOf is that one, or p if it is newer.
func (l *Ledger) newestOf(p *quota.Product) *quota.Product {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have := l.newest[p.ID]; have != nil && have.Version > p.Version {
		return have
	}
	return p
}

// forget drops what is cached of a product's keys.
func (l *Ledger) forget(p *quota.Product, hashes ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range p.Keys {
		delete(l.keys, key.Hash)
	}
	for _, hash := range hashes {
		delete(l.keys, hash)
	}
}

// Find reads a product by its id, or by one of its keys. It fails with
// ErrUnknownProduct.
func (l *Ledger) Find(ctx context.Context, keyOrID string) (*quota.Product, error) {
	if strings.HasPrefix(keyOrID, quota.ProductPrefix) {
		if ValidateKey(keyOrID) != nil {
			return nil, ErrUnknownProduct
		}
		product, _, err := l.readProduct(ctx, keyOrID)
		return product, err
	}
	found, err := l.readKey(ctx, quota.HashKey(keyOrID))
	if err != nil {
		return nil, err
	}
	if found.product == nil {
		return nil, ErrUnknownProduct
	}
	return found.product, nil
}

// Products reads all products, in the order of their ids. With an error come those
// that could be read.
func (l *Ledger) Products(ctx context.Context) ([]*quota.Product, error) {
	ids, err := l.productIDs(ctx)
	if err != nil {
		return nil, err
	}
	read, failed := make([]*quota.Product, len(ids)), make([]error, len(ids))
	l.beside(len(ids), productReadsMax, func(i int) {
		read[i], _, failed[i] = l.readProduct(ctx, ids[i])
		if errors.Is(failed[i], ErrUnknownProduct) { // a Create that died between the index and the product
			read[i], failed[i] = nil, nil
		}
	})
	products, errs := make([]*quota.Product, 0, len(ids)), []error(nil)
	for i, p := range read {
		if p != nil {
			products = append(products, p)
		}
		if failed[i] != nil {
			errs = noted(errs, failed[i])
		}
	}
	return products, errors.Join(errs...)
}

const productReadsMax = 16 // at a time

// beside does n things, so many at a time, and returns when all are done.
func (l *Ledger) beside(n, most int, do func(i int)) {
	var mu sync.Mutex
	next, running := 0, min(n, most)
	if n == 0 {
		return
	}
	done := l.rt.Gate()
	for range running {
		l.start(func() {
			for {
				mu.Lock()
				i := next
				next++
				if i >= n {
					running--
					if running == 0 {
						done.Open()
					}
					mu.Unlock()
					return
				}
				mu.Unlock()
				do(i)
			}
		})
	}
	_ = done.Wait(context.Background()) // what is done ends with its own context
}

func (l *Ledger) productIDs(ctx context.Context) ([]string, error) {
	var ids []string
	err := l.scan(ctx, indexPartition, prefixProduct, func(e Entity, _ time.Time) error {
		ids = append(ids, strings.TrimPrefix(e.Row, prefixProduct))
		if len(ids) > ProductsMax {
			return fmt.Errorf("more than %d products", ProductsMax)
		}
		return nil
	})
	return ids, err
}

// scan visits all rows with a prefix, in order.
func (l *Ledger) scan(ctx context.Context, partition, prefix string, visit func(e Entity, date time.Time) error) error {
	for from := prefix; from != ""; {
		page, err := l.store.Range(ctx, partition, from, after(prefix), PageMax)
		if err != nil {
			return err
		}
		for _, e := range page.Entities {
			if err := visit(e, page.Date); err != nil {
				return err
			}
		}
		from = page.Next
	}
	return nil
}

// productIDFor is the id of the product that a key makes: the same one however
// often and wherever the Create is tried, so that two of them meet. If the
// product exists without the key, which was revoked then, the id is random.
func (l *Ledger) productIDFor(ctx context.Context, keyHash string) (string, error) {
	id := quota.ProductPrefix + digest("product", keyHash)[:24]
	product, _, err := l.readProduct(ctx, id)
	if errors.Is(err, ErrUnknownProduct) {
		return id, nil
	} else if err != nil {
		return "", err
	}
	if _, has := product.KeyByHash(keyHash); has {
		return id, nil
	}
	return quota.ProductPrefix + digest("product", randomName(l.rt))[:24], nil
}

// Create makes a product with one key. build gets the product's id, and may be
// called again with the same one. If another product has the key it fails with
// ErrKeyTaken. With a name in once the same Create makes one product however
// often it comes: created is false when it came before.
func (l *Ledger) Create(
	ctx context.Context, keyHash string, once Once, build func(id string, now time.Time) (*quota.Product, error),
) (p *quota.Product, created bool, err error) {
	id, err := l.productIDFor(ctx, keyHash)
	if err != nil {
		return nil, false, err
	}
	if once.Key != "" {
		if id, err = l.claimCreate(ctx, once, id); err != nil {
			return nil, false, err
		}
	}
	if p, _, err = l.readProduct(ctx, id); err == nil {
		return p, false, nil
	} else if !errors.Is(err, ErrUnknownProduct) {
		return nil, false, err
	}
	now := l.options.Now()
	if p, err = build(id, now); err != nil {
		return nil, false, err
	}
	if err := l.insertOnce(ctx, indexPartition, Entity{Row: prefixProduct + id}); err != nil {
		return nil, false, err
	}
	if err := l.claimKey(ctx, keyHash, id); err != nil {
		return nil, false, err
	}
	window, err := p.WindowAt(now)
	if err != nil {
		return nil, false, err
	}
	p.Version = 1
	ops, records, err := l.draftOps(&Draft{
		Product: p, Account: Account{Period: window.Name, Start: window.Start, End: window.End, Budget: p.Budget},
		Records: []usage.Record{{Kind: usage.KindCreate}},
	}, l.options.NewID(now), now)
	if err != nil {
		return nil, false, err
	}
	config, err := configEntity(p)
	if err != nil {
		return nil, false, err
	}
	ops = append([]Op{{Kind: Insert, Entity: config}}, ops...)
	if once.Key != "" { // for an Edit of the same name: it is this Create again
		ops = append(ops, Op{Kind: Insert, Entity: once.entity()})
	}
	_, err = l.store.Apply(ctx, id, ops)
	if err != nil {
		if stored, _, readErr := l.readProduct(ctx, id); readErr == nil { // it happened all the same
			l.forget(stored, keyHash)
			return stored, true, nil
		}
		return nil, false, err
	}
	l.forget(p, keyHash)
	for _, r := range records {
		l.options.OnRecord(id, outboxRow(r.ID, r.Rev), r)
	}
	return p, true, nil
}

// claimCreate finds or fixes the product id of a named Create.
func (l *Ledger) claimCreate(ctx context.Context, once Once, id string) (string, error) {
	row := prefixCreate + digest("create", once.Key)
	claim := Entity{Row: row, Texts: map[string]string{"Body": once.Body, "Product": id}}
	_, applyErr := l.store.Apply(ctx, indexPartition, []Op{{Kind: Insert, Entity: claim}})
	if applyErr == nil {
		return id, nil
	}
	claimed, err := l.store.Get(ctx, indexPartition, row)
	switch {
	case errors.Is(err, ErrMissing):
		return "", applyErr
	case err != nil:
		return "", err
	case claimed.Texts["Body"] != once.Body:
		return "", ErrOtherBody
	}
	return claimed.Texts["Product"], nil
}

// insertOnce inserts a row that may be there already, from another try.
func (l *Ledger) insertOnce(ctx context.Context, partition string, e Entity) error {
	_, err := l.store.Apply(ctx, partition, []Op{{Kind: Insert, Entity: e}})
	if err == nil || errors.Is(err, ErrExists) {
		return nil
	}
	if _, getErr := l.store.Get(ctx, partition, e.Row); getErr == nil {
		return nil
	}
	return err
}

// claimKey makes the index say that a key belongs to a product. A row left by
// an operation that died does not count: the other product's own list decides.
func (l *Ledger) claimKey(ctx context.Context, hash, id string) error {
	entry := Entity{Row: prefixKey + hash, Texts: map[string]string{"Product": id}}
	_, applyErr := l.store.Apply(ctx, indexPartition, []Op{{Kind: Insert, Entity: entry}})
	if applyErr == nil {
		return nil
	}
	row, err := l.store.Get(ctx, indexPartition, entry.Row)
	if errors.Is(err, ErrMissing) {
		return applyErr
	} else if err != nil {
		return err
	}
	if row.Texts["Product"] == id {
		return nil
	}
	other, _, err := l.readProduct(ctx, row.Texts["Product"])
	switch {
	case err == nil:
		if _, has := other.KeyByHash(hash); has {
			return ErrKeyTaken
		}
	case !errors.Is(err, ErrUnknownProduct):
		return err
	}
	entry.ETag = row.ETag
	_, err = l.store.Apply(ctx, indexPartition, []Op{{Kind: Replace, Entity: entry}})
	return err
}
