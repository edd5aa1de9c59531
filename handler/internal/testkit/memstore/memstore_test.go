package memstore_test

import (
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/ledger/storetest"
	"github.com/costgate/costgate/handler/internal/testkit/memstore"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) ledger.Store { return memstore.New(1, time.Now) })
}
