package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/google/go-cmp/cmp"

	"github.com/costgate/costgate/handler/internal/predecessor"
	"github.com/costgate/costgate/handler/internal/testkit/azurite"
)

const importAdminKey = "import-admin-0123456789"

// The predecessor's keys of these tests, as API Management makes them.
const (
	keySearch  = "5ea4c40000000000000000000000aaaa" // used, then given more, then used
	keyFresh   = "f4e5400000000000000000000000bbbb" // made, never used
	keyStopped = "5709900000000000000000000000cccc" // stopped by a budget alert
	keyTokens  = "70ce500000000000000000000000dddd"
	keyIdle    = "1d1e000000000000000000000000eeee" // charged, never made
	keyEarly   = "ea417000000000000000000000001111" // of the early form
)

// oldRow is a row as the C# app's SDK writes it.
type oldRow struct {
	key, operation, name string
	amount               string // a double there
	transCost, balance   string
	onCost               string
}

var oldRows = []oldRow{
	{keySearch, "Create", "Search", "250", "", "", ""},
	{keySearch, "Update", "", "0", "0.0275", "249.9725", ""},
	{keySearch, "Deposit", "Search", "100.1", "", "", ""},
	{keySearch, "Update", "", "0", "0.00000000049", "100.09999999951", ""},
	{keyFresh, "Create", "Fresh", "0.1", "", "", ""},
	{keyStopped, "Create", "Stopped", "75", "", "", ""},
	{keyStopped, "BudgetStop", "Stopped", "0", "", "", ""},
	{keyTokens, "Create", "Tokens", "5000", "", "", "false"},
	{keyTokens, "Update", "", "0", "150", "4850", ""},
	{keyIdle, "Update", "", "0", "1.5", "0", ""},
	{keyEarly, "Create", "Early", "40", "", "", ""},
	{keyEarly, "Update", "", "39", "", "", ""},
}

func (r *oldRow) properties(i int) map[string]any {
	p := map[string]any{
		"PartitionKey": r.key, "RowKey": fmt.Sprintf("%08x-1111-4222-8333-444455556666", 1000-i), "Operation": r.operation,
		"Model": "gpt-4", "TotalTokens": 150, "PromptTokens": 100, "Amount": json.RawMessage(r.amount), "Amount@odata.type": "Edm.Double",
	}
	for name, text := range map[string]string{"ProductName": r.name, "TransCost": r.transCost, "Balance": r.balance} {
		if text != "" {
			p[name] = text
		}
	}
	if r.onCost != "" {
		p["RateLimitOnCost"] = json.RawMessage(r.onCost)
	}
	return p
}

// oldTable writes the rows to Azurite with the Azure SDK; the service gives each
// its Timestamp, in this order.
func oldTable(t *testing.T) (connection, table string) {
	t.Helper()
	connection, table = azurite.Start(t), azurite.Table()+"Old"
	service, err := aztables.NewServiceClientFromConnectionString(connection, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.CreateTable(t.Context(), table, nil); err != nil {
		t.Fatal(err)
	}
	client, last := service.NewClient(table), ""
	for i := range oldRows {
		properties := oldRows[i].properties(i)
		row, err := json.Marshal(properties)
		if err != nil {
			t.Fatal(err)
		}
		var written struct{ Timestamp string }
		for written.Timestamp = last; written.Timestamp == last; { // until the service's clock has moved on
			if _, err := client.UpsertEntity(t.Context(), row, nil); err != nil {
				t.Fatal(err)
			}
			answer, err := client.GetEntity(t.Context(), oldRows[i].key, properties["RowKey"].(string), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(answer.Value, &written); err != nil {
				t.Fatal(err)
			}
		}
		last = written.Timestamp
	}
	return connection, table
}

// oldExport is the same as a file of Azure Storage Explorer.
func oldExport(t *testing.T, more string) string {
	t.Helper()
	text := "PartitionKey,RowKey,Timestamp,Amount,Amount@type,Balance,Operation,ProductName,RateLimitOnCost,TransCost\r\n"
	for i, r := range oldRows {
		at := time.Date(2024, 5, 1, 12, i, 0, 0, time.UTC).Format(time.RFC3339Nano)
		text += fmt.Sprintf("%s,%d,%s,%s,Edm.Double,%s,%s,%s,%s,%s\r\n", r.key, i, at, r.amount, r.balance, r.operation, r.name, r.onCost, r.transCost)
	}
	name := filepath.Join(t.TempDir(), "export.csv")
	if err := os.WriteFile(name, []byte(text+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// openAPI serves the books of an environment, and gives what GetById and the
// other functions answer.
func openAPI(t *testing.T, env map[string]string) (call func(method, path, body string) (int, map[string]any), end func()) {
	t.Helper()
	config, err := ParseConfig("127.0.0.1:0", func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	app := NewApp(config, slog.New(slog.DiscardHandler))
	if err := app.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	call = func(method, path, body string) (int, map[string]any) {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("x-functions-key", importAdminKey)
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		object := map[string]any{}
		if w.Body.Len() > 0 && w.Body.Bytes()[0] == '{' {
			if err := json.Unmarshal(w.Body.Bytes(), &object); err != nil {
				t.Fatal(err)
			}
		}
		return w.Code, object
	}
	return call, func() {
		if err := app.Close(); err != nil {
			t.Error(err)
		}
	}
}

func importEnv(t *testing.T, more ...string) map[string]string {
	t.Helper()
	env := map[string]string{"ADMIN_KEY": importAdminKey, "DATA_DIR": t.TempDir()}
	for i := 0; i < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	return env
}

// imported runs the command and reads its report. No run may show a key.
func imported(t *testing.T, env map[string]string, want int, args ...string) importReport {
	t.Helper()
	code, stdout, stderr := command(t, env, append([]string{"import", "-json"}, args...)...)
	if code != want {
		t.Fatalf("import %v: exit %d, want %d\n%s%s", args, code, want, stdout, stderr)
	}
	var report importReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	for _, row := range oldRows {
		if strings.Contains(stdout+stderr, row.key) {
			t.Errorf("shows a key: %s%s", stdout, stderr)
		}
	}
	return report
}

func results(r importReport) string {
	var all []string
	for _, k := range r.Keys {
		all = append(all, fmt.Sprintf("%s %s/%s %s", k.Product, k.Left, k.Granted, k.Result))
	}
	return strings.Join(all, "\n")
}

// TestImportFromTable: a table of the predecessor's shape, written with the
// Azure SDK; then the old keys ask for what they have left.
func TestImportFromTable(t *testing.T) {
	connection, table := oldTable(t)
	env := importEnv(t, "QuotaStorage", connection, "QuotaTableName", azurite.Table(), importStorage, connection)
	idle := predecessor.Label(keyIdle)[:14] // it has no name
	want := func(result string) string {
		return fmt.Sprintf("Early 39/40 %[1]s\nFresh 0.1/0.1 %[1]s\nSearch 100.1/100.1 %[1]s\nStopped 0/75 %[1]s\nTokens 4850/5000 %[1]s\n%[2]s 0/0 not needed",
			result, idle)
	}
	if diff := cmp.Diff(want("new"), results(imported(t, env, exitOK, "-table", table))); diff != "" {
		t.Error("dry run:", diff)
	}
	if diff := cmp.Diff(want("new"), results(imported(t, env, exitOK, "-table", table))); diff != "" {
		t.Error("the dry run wrote:", diff)
	}
	if diff := cmp.Diff(want("created"), results(imported(t, env, exitOK, "-table", table, "-apply"))); diff != "" {
		t.Error(diff)
	}
	call, end := openAPI(t, env)
	defer end()
	f := func(key, name, left, unit, state string) {
		t.Helper()
		status, view := call("GET", "/api/Quota/"+key, "")
		got := []any{status, view["SubscriptionKey"], view["ProductName"], view["Amount"], view["Budget"], view["Spent"], view["Unit"], view["Period"], view["State"]}
		if diff := cmp.Diff([]any{200, key, name, left, left, "0", unit, "total", state}, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	f(keySearch, "Search", "100.1", "USD", "open") // 100.09999999951 is nearer to it than to one nano-dollar less
	f(keyFresh, "Fresh", "0.1", "USD", "open")
	f(keyStopped, "Stopped", "0", "USD", "exhausted")
	f(keyTokens, "Tokens", "4850", "tokens", "open")
	f(keyEarly, "Early", "39", "USD", "open")
	if status, view := call("GET", "/api/Quota/"+keyIdle, ""); status != http.StatusNotFound || view["Amount"] != "0" {
		t.Errorf("a key that was never made: %d %v", status, view)
	}

	// A repetition changes nothing, whatever happened to the products meanwhile.
	call("PATCH", "/api/Quota/"+keySearch, `{"amount":"7"}`)
	call("PATCH", "/api/Quota/"+keyFresh, `{"addKey":"another-key-0123456789"}`)
	call("PATCH", "/api/Quota/"+keyFresh, `{"revokeKey":"`+keyFresh+`"}`)
	again := imported(t, env, exitOK, "-table", table, "-apply")
	for _, k := range again.Keys {
		want := map[string]string{"Fresh": importRevoked, idle: importIdle}[k.Product]
		if want == "" {
			want = importThere
		}
		if k.Result != want || k.Product == "Search" && k.Here != "7" {
			t.Errorf("again: %+v", k)
		}
	}
	f(keySearch, "Search", "7", "USD", "open")
	if status, _ := call("GET", "/api/Quota/"+keyFresh, ""); status != http.StatusNotFound {
		t.Errorf("a revoked key came back: %d", status)
	}
}

func TestImportFromFile(t *testing.T) {
	env := importEnv(t)
	file := oldExport(t, "")
	if report := imported(t, env, exitOK, "-from", file); len(report.Keys) != 6 || report.Rows != len(oldRows) || report.Applied {
		t.Errorf("dry run: %+v", report)
	}
	if _, err := os.Stat(filepath.Join(env["DATA_DIR"], databaseFile)); err == nil {
		t.Error("the dry run made a store")
	}
	balances := filepath.Join(t.TempDir(), "balances.csv")
	if err := os.WriteFile(balances, []byte(keySearch+",99.5\n"+keyStopped+",1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	one := imported(t, env, exitOK, "-from", file, "-apply", "-balances", balances, "-period", "month", "-time-zone", "Europe/Berlin", "-product", "Search")
	if got := results(one); got != "Search 99.5/100.1 created" || one.Keys[0].By != "balances" {
		t.Errorf("one product: %s %+v", got, one.Keys)
	}
	imported(t, env, exitOK, "-from", file, "-apply", "-period", "month")
	call, end := openAPI(t, env)
	_, search := call("GET", "/api/Quota/"+keySearch, "")
	if search["Amount"] != "99.5" || search["Budget"] != "99.5" || search["PeriodKind"] != "month" || search["TimeZone"] != "Europe/Berlin" {
		t.Errorf("search: %v", search)
	}
	_, stopped := call("GET", "/api/Quota/"+keyStopped, "")
	if stopped["Amount"] != "0" || stopped["PeriodKind"] != "month" || stopped["TimeZone"] != "UTC" {
		t.Errorf("stopped: %v", stopped)
	}
	end()

	// The next period has what was granted; it is the product's own budget.
	books, closeBooks, ok := openBooks(t.Context(), "test", func(name string) string { return env[name] }, os.Stderr)
	if !ok {
		t.Fatal("no books")
	}
	defer closeBooks()
	for key, budget := range map[string]int64{keySearch: 100_100_000_000, keyStopped: 75_000_000_000, keyTokens: 5000} {
		p, err := books.Find(t.Context(), key)
		if err != nil || p.Budget != budget || p.Created != budget {
			t.Errorf("%+v, %v", p, err)
		}
		if differences, err := books.Verify(t.Context(), p.ID); err != nil || len(differences) > 0 {
			t.Errorf("%v %v", differences, err)
		}
	}
}

// TestImportFinishes: a run that died between its two steps is made up for, and
// an edit of an operator is not.
func TestImportFinishes(t *testing.T) {
	env := importEnv(t)
	file := oldExport(t, "")
	f := importFlags{period: "month", zone: "UTC", apply: true}
	books, closeBooks, ok := f.openBooks(t.Context(), func(name string) string { return env[name] }, os.Stderr)
	if !ok {
		t.Fatal("no books")
	}
	_, quotas, err := (&importFlags{from: file}).read(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range quotas {
		if quotas[i].Key != keyEarly {
			continue
		}
		q := &quotas[i]
		p := f.newProduct(q, "p_test", time.Now())
		p.Version = 1
		if line, err := f.take(t.Context(), books, q); err != nil || line.Result != importCreated || line.Here != "39" {
			t.Fatalf("%+v, %v", line, err)
		}
		stored, err := books.Find(t.Context(), keyEarly)
		if err != nil || stored.Budget != 40_000_000_000 || stored.Version != 2 {
			t.Fatalf("%+v, %v", stored, err)
		}
		finished, err := f.finish(t.Context(), books, q, p) // nothing was edited yet
		if err == nil {
			t.Fatalf("an unknown product: %+v", finished)
		}
		stored.Version, stored.Budget = 1, q.Left // what a dead run left; its Edit has a name
		if finished, err = f.finish(t.Context(), books, q, stored); err != nil || finished.Budget != 40_000_000_000 {
			t.Fatalf("%+v, %v", finished, err)
		}
		stored.Version = 2
		if finished, err = f.finish(t.Context(), books, q, stored); err != nil || finished != stored {
			t.Fatalf("an edited product was touched: %+v, %v", finished, err)
		}
	}
	closeBooks()
}

// TestImportedAsCreated: an imported product has the settings of one that the API
// makes, and keys are good for one if they are for the other.
func TestImportedAsCreated(t *testing.T) {
	env := importEnv(t)
	imported(t, env, exitOK, "-from", oldExport(t, ""), "-apply")
	call, end := openAPI(t, env)
	defer end()
	_, mine := call("GET", "/api/Quota/"+keyFresh, "")
	status, theirs := call("POST", "/api/Quota", `{"subscriptionKey":"`+strings.Repeat("k", 32)+`","productName":"Fresh","amount":0.1,"period":"total"}`)
	if status != 200 {
		t.Fatal(status, theirs)
	}
	for _, name := range []string{"SubscriptionKey", "ProductId", "Keys"} {
		delete(mine, name)
		delete(theirs, name)
	}
	if diff := cmp.Diff(theirs, mine); diff != "" {
		t.Error(diff)
	}
	for i, key := range []string{
		strings.Repeat("a", predecessor.KeyBytesMin), strings.Repeat("a", predecessor.KeyBytesMin-1), strings.Repeat("a", predecessor.KeyBytesMax),
		strings.Repeat("a", predecessor.KeyBytesMax+1), "p_23456789abcdef0", "P_23456789abcdef0", "0123456789._~-AZaz", "0123456789abcdef ", "0123456789abcdef+", "0123456789abcdefä",
	} {
		status, _ := call("POST", "/api/Quota", fmt.Sprintf(`{"subscriptionKey":%q,"productName":"n%d","amount":1}`, key, i))
		if err := predecessor.CheckKey(key); (err == nil) != (status == 200) {
			t.Errorf("key %q: %d here, %v there", key, status, err)
		}
	}
}

// TestImportExits: what cannot be read is named, and told by the exit code.
func TestImportExits(t *testing.T) {
	bad := keySearch + ",bad,2024-05-02T12:00:00Z,0,Edm.Double,?,Update,,,\r\nshort,1,2024-05-02T12:00:00Z,5,Edm.Double,,Create,Short,,\r\n"
	report := imported(t, importEnv(t), exitFailed, "-from", oldExport(t, bad), "-apply")
	var left []string
	for _, k := range report.Keys {
		if k.Result == importLeft {
			left = append(left, k.Product+": "+k.Why)
		}
	}
	if diff := cmp.Diff([]string{
		"Search: its newest row cannot be read; give its balance in a file (-balances)", "Short: the key has 5 characters; a key has 16 to 256",
	}, left); diff != "" {
		t.Error(diff)
	}
	if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].Where, "row bad") {
		t.Errorf("problems %v", report.Problems)
	}
	code, stdout, _ := command(t, importEnv(t), "import", "-from", oldExport(t, bad))
	for _, want := range []string{
		"left out: its newest row", "cannot be read: line 14, k_", "Nothing was written",
		"7 keys, 14 rows: 4 new, 0 created, 0 there before, 0 revoked, 1 not needed, 2 left out; 1 rows that cannot be read",
	} {
		if code != exitFailed || !strings.Contains(stdout, want) {
			t.Errorf("exit %d, %q not in:\n%s", code, want, stdout)
		}
	}

	f := func(env map[string]string, want string, args ...string) {
		t.Helper()
		code, stdout, stderr := command(t, env, append([]string{"import"}, args...)...)
		if code != exitSettings || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit %d, %q\n%s%s", args, code, want, stdout, stderr)
		}
	}
	env, file := importEnv(t), oldExport(t, "")
	f(env, "say where")
	f(env, "say where", "-from", file, "-table", "t")
	f(env, "-uri goes with", "-from", file, "-uri", "https://n")
	f(env, "-table needs -uri", "-table", "AIKeyValueStore")
	f(importEnv(t, importStorage, "x"), "not both", "-table", "AIKeyValueStore", "-uri", "https://n.table.core.windows.net")
	f(importEnv(t, importStorage, "AccountKey=secret"), "AccountName is missing", "-table", "AIKeyValueStore")
	f(env, "-period", "-from", file, "-period", "year")
	f(env, "-time-zone", "-from", file, "-time-zone", "Mars")
	f(env, "no such file", "-from", file+"x")
	f(env, "no such file", "-from", file, "-balances", file+"x")
	f(env, "no key of the table has this product", "-from", file, "-product", "Nobody")
	f(importEnv(t, "QuotaTableName", "1"), "QuotaTableName", "-from", file, "-apply")
	f(env, "unexpected argument", "-from", file, "more")
}
