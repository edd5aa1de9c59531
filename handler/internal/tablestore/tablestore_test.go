package tablestore

import (
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/ledger/storetest"
	"github.com/costgate/costgate/handler/internal/testkit/azurite"
)

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Table == "" {
		o.Table = azurite.Table()
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fresh is a store on Azurite with a table of its own.
func fresh(t testing.TB) *Store {
	t.Helper()
	s := mustOpen(t, Options{ConnectionString: azurite.Start(t), TryTimeout: 30 * time.Second})
	if err := s.EnsureTable(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) ledger.Store { return fresh(t) })
}
