package tablestore

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/costgate/costgate/handler/internal/testkit/azurite"
)

// TestForeign reads more rows than one answer of the service has, of types that
// the ledger does not write.
func TestForeign(t *testing.T) {
	o := Options{ConnectionString: azurite.Start(t), Table: azurite.Table()}
	client, err := aztables.NewServiceClientFromConnectionString(o.ConnectionString, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateTable(t.Context(), o.Table, nil); err != nil {
		t.Fatal(err)
	}
	table := client.NewClient(o.Table)
	const rows, batch = 1050, 75
	for from := 0; from < rows; from += batch {
		var actions []aztables.TransactionAction
		for i := from; i < from+batch; i++ {
			entity := fmt.Sprintf(`{"PartitionKey":"key with a space","RowKey":"%04d","Amount":12.5,"Balance":"7","Model":"gpt-4"}`, i)
			actions = append(actions, aztables.TransactionAction{ActionType: aztables.TransactionTypeAdd, Entity: []byte(entity)})
		}
		if _, err := table.SubmitTransaction(t.Context(), actions, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.AddEntity(t.Context(), []byte(`{"PartitionKey":"z","RowKey":"1"}`), nil); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = Foreign(t.Context(), o, "PartitionKey,RowKey,Timestamp,Amount,Balance", func(object []byte) error {
		var row struct {
			RowKey    string
			Timestamp string
			Amount    json.Number
			Balance   string
			Model     *string
		}
		if err := json.Unmarshal(object, &row); err != nil {
			return err
		}
		if want := fmt.Sprintf("%04d", seen); seen < rows && (row.RowKey != want || row.Amount != "12.5" || row.Balance != "7" || row.Timestamp == "" || row.Model != nil) {
			t.Fatalf("row %d: %s", seen, object)
		}
		seen++
		return nil
	})
	if err != nil || seen != rows+1 {
		t.Fatalf("%d rows, %v", seen, err)
	}

	stop := errors.New("enough")
	if err := Foreign(t.Context(), o, "RowKey", func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the visitor: %v", err)
	}
	o.Table = azurite.Table()
	err = Foreign(t.Context(), o, "RowKey", func([]byte) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "404 TableNotFound") {
		t.Errorf("a table that is not there: %v", err)
	}
	if _, err := client.NewClient(o.Table).AddEntity(t.Context(), []byte(`{"PartitionKey":"p","RowKey":"1"}`), nil); err == nil {
		t.Error("the table was made")
	}
	o.ConnectionString = "AccountName=n"
	if err := Foreign(t.Context(), o, "RowKey", nil); err == nil || !strings.Contains(err.Error(), "AccountKey") {
		t.Errorf("bad options: %v", err)
	}
}
