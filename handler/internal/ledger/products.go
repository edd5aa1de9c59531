package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// cachedKey is what is known of a product key.
type cachedKey struct {
	product *quota.Product // nil: no product has it
	key     quota.Key
	read    time.Time
	loading chan struct{} // not nil while somebody reads it again
}

// ProductByKey finds the product that a key belongs to, at most 5 s old. The
// key is looked up by its hash; only hashes are kept. It fails with
// ErrUnknownKey, or ErrUnavailable if it is not known and cannot be read.
func (l *Ledger) ProductByKey(ctx context.Context, key string) (*quota.Product, quota.Key, error) {
	hash := quota.HashKey(key)
	for {
		now := l.options.Now()
		l.mu.Lock()
		cached := l.keys[hash]
		if cached != nil && cached.loading == nil && cached.usable(now) {
			l.mu.Unlock()
			return cached.answer()
		}
		if cached == nil || cached.loading == nil {
			loading := make(chan struct{})
			entry := &cachedKey{loading: loading}
			if cached != nil {
				entry.product, entry.key, entry.read = cached.product, cached.key, cached.read
			}
			l.makeRoom()
			l.keys[hash] = entry
			l.mu.Unlock()
			return l.loadKey(ctx, hash, entry)
		}
		wait := cached.loading
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, quota.Key{}, ctx.Err()
		}
	}
}

func (c *cachedKey) usable(now time.Time) bool {
	age := now.Sub(c.read)
	if c.product == nil {
		return age < unknownKeyTTL
	}
	return age < productTTL
}

func (c *cachedKey) answer() (*quota.Product, quota.Key, error) {
	if c.product == nil {
		return nil, quota.Key{}, ErrUnknownKey
	}
	return c.product, c.key, nil
}

// makeRoom keeps the cache within KeysCachedMax. Which key goes is left to
// chance: the map's order.
func (l *Ledger) makeRoom() {
	for hash, entry := range l.keys {
		if len(l.keys) < KeysCachedMax {
			return
		}
		if entry.loading == nil {
			delete(l.keys, hash)
		}
	}
}

func (l *Ledger) loadKey(ctx context.Context, hash string, entry *cachedKey) (*quota.Product, quota.Key, error) {
	product, key, err := l.readKey(context.WithoutCancel(ctx), hash)
	now := l.options.Now()
	fresh := &cachedKey{product: product, key: key, read: now}
	if err != nil && !errors.Is(err, ErrUnknownKey) {
		fresh = nil
		if entry.product != nil && now.Sub(entry.read) < productStaleMax {
			fresh = &cachedKey{product: entry.product, key: entry.key, read: entry.read}
		}
	}
	l.mu.Lock()
	if l.keys[hash] == entry {
		if fresh == nil {
			delete(l.keys, hash)
		} else {
			l.keys[hash] = fresh
		}
	}
	l.mu.Unlock()
	close(entry.loading)
	if fresh == nil {
		return nil, quota.Key{}, err
	}
	return fresh.answer()
}

// readKey follows the index to the product, whose own list of keys decides.
func (l *Ledger) readKey(ctx context.Context, hash string) (*quota.Product, quota.Key, error) {
	ctx, cancel := l.rt.Deadline(ctx, 3*txnTimeout)
	defer cancel()
	index, err := l.store.Get(ctx, indexPartition, prefixKey+hash)
	if errors.Is(err, ErrMissing) {
		return nil, quota.Key{}, ErrUnknownKey
	} else if err != nil {
		return nil, quota.Key{}, err
	}
	product, _, err := l.readProduct(ctx, index.Texts["Product"])
	if errors.Is(err, ErrUnknownProduct) {
		return nil, quota.Key{}, ErrUnknownKey
	} else if err != nil {
		return nil, quota.Key{}, err
	}
	key, ok := product.KeyByHash(hash)
	if !ok {
		return nil, quota.Key{}, ErrUnknownKey
	}
	return product, key, nil
}

func (l *Ledger) readProduct(ctx context.Context, id string) (*quota.Product, Entity, error) {
	row, err := l.store.Get(ctx, id, rowConfig)
	if errors.Is(err, ErrMissing) {
		return nil, row, ErrUnknownProduct
	} else if err != nil {
		return nil, row, err
	}
	product, err := productOf(row)
	return product, row, err
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
	product, _, err := l.readKey(ctx, quota.HashKey(keyOrID))
	if errors.Is(err, ErrUnknownKey) {
		return nil, ErrUnknownProduct
	}
	return product, err
}

// Products reads all products, in the order of their ids.
func (l *Ledger) Products(ctx context.Context) ([]*quota.Product, error) {
	ids, err := l.productIDs(ctx)
	if err != nil {
		return nil, err
	}
	products := make([]*quota.Product, 0, len(ids))
	for _, id := range ids {
		product, _, err := l.readProduct(ctx, id)
		if errors.Is(err, ErrUnknownProduct) {
			continue // a Create that died between the index and the product
		} else if err != nil {
			return nil, err
		}
		products = append(products, product)
	}
	return products, nil
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
	return quota.ProductPrefix + digest("product", rand.Text())[:24], nil
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
