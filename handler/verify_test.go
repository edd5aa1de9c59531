package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hamba/avro/v2/ocf"

	"github.com/costgate/costgate/handler/internal/audit"
	"github.com/costgate/costgate/handler/internal/boltstore"
	"github.com/costgate/costgate/handler/internal/export"
	"github.com/costgate/costgate/handler/internal/ledger"
	"github.com/costgate/costgate/handler/internal/money"
	"github.com/costgate/costgate/handler/internal/quota"
	"github.com/costgate/costgate/handler/internal/usage"
)

// bookedRecords makes books of one product with four records: its creation, and
// charges of 1, 2 and 3 nano-dollars. It returns their folder, the product and
// the records as the lake gets them, in the order of what they cost. They are
// on their way, unless they are sent.
func bookedRecords(t *testing.T, sent bool) (dir, product string, records []string) {
	t.Helper()
	dir = t.TempDir()
	store, err := boltstore.Open(filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	l := ledger.New(store, ledger.Options{Instance: "a", Embedded: true, Now: func() time.Time { return at }})
	p, _, err := l.Create(t.Context(), quota.HashKey("sk-test"), ledger.Once{}, func(id string, now time.Time) (*quota.Product, error) {
		return &quota.Product{
			ID: id, Name: "Test", Keys: []quota.Key{{ID: "k_1", Hash: quota.HashKey("sk-test"), Created: now}}, Unit: quota.UnitUSD,
			Budget: money.NanoPerUSD, Created: money.NanoPerUSD, Period: quota.PeriodMonth, TimeZone: "UTC", Enforcement: quota.EnforceHard,
			CreatedAt: now, MultiplierPPM: money.PPM,
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for cost := range int64(3) {
		r := usage.Record{Kind: usage.KindUpdate, Charge: usage.Of(cost + 1), CostNanoUSD: usage.Of(cost + 1), ListCostNanoUSD: usage.Of(cost + 1)}
		if done, err := l.Charge(t.Context(), p, r); err != nil || !done {
			t.Fatalf("%v, %v", done, err)
		}
	}
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	l = ledger.New(store, ledger.Options{Instance: "b", Embedded: true, Now: func() time.Time { return at }}) // after a restart all are found
	if _, err := l.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := l.Unsent(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		records = append(records, string(e.Record))
	}
	slices.SortFunc(records, func(a, b string) int { return strings.Compare(costOf(t, a), costOf(t, b)) })
	if len(records) != 4 {
		t.Fatalf("%d records", len(records))
	}
	if sent {
		if err := l.Acknowledge(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, p.ID, records
}

func costOf(t *testing.T, record string) string {
	t.Helper()
	var r usage.Record
	if err := json.Unmarshal([]byte(record), &r); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(r.CostNanoUSD.N)
}

// lakeFile writes one file of a lake and returns the lake.
func lakeFile(t *testing.T, name, data string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// captured is a file as Event Hubs Capture writes it, one event each.
func captured(t *testing.T, records ...string) string {
	t.Helper()
	var out bytes.Buffer
	encoder, err := ocf.NewEncoder(`{"type":"record","name":"EventData","namespace":"Microsoft.ServiceBus.Messaging","fields":[
		{"name":"SequenceNumber","type":"long"},{"name":"Offset","type":"string"},{"name":"EnqueuedTimeUtc","type":"string"},
		{"name":"SystemProperties","type":{"type":"map","values":["long","double","string","bytes"]}},
		{"name":"Properties","type":{"type":"map","values":["long","double","string","bytes"]}},
		{"name":"Body","type":["null","bytes"]}]}`, &out, ocf.WithCodec(ocf.Deflate))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		var body any
		if r != "" {
			body = map[string]any{"bytes": []byte(r)}
		}
		err := encoder.Encode(map[string]any{
			"SequenceNumber": int64(i), "Offset": "0", "EnqueuedTimeUtc": "11/24/2026 12:00:00 PM",
			"SystemProperties": map[string]any{"x-opt-sequence-number": map[string]any{"long": int64(i)}}, "Properties": map[string]any{}, "Body": body,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := encoder.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestVerifyLake runs the command on lakes that are right, and on ones that are
// not.
func TestVerifyLake(t *testing.T) {
	sent, product, all := bookedRecords(t, true)
	asLines := func(records ...string) string { return strings.Join(records, "\n") + "\n" }
	altered := func(record string) string { return strings.Replace(record, `"charge":3`, `"charge":4`, 1) }
	idOf := func(record string) string {
		var r usage.Record
		_ = json.Unmarshal([]byte(record), &r)
		return "2026-11 " + r.ID
	}
	f := func(name, books, lake string, code int, wants ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			got, stdout, stderr := command(t, map[string]string{"DATA_DIR": books}, "verify", "-lake", lake)
			if got != code {
				t.Errorf("exit %d, want %d: %s%s", got, code, stdout, stderr)
			}
			for _, want := range wants {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("no %q in\n%s%s", want, stdout, stderr)
				}
			}
		})
	}
	jsonl := func(data string) string { return lakeFile(t, "usage-a.jsonl", data) }
	const equal = "lake: cost: 0.000000006 USD in the lake, 0.000000006 USD in the ledger\n"
	f("clean", sent, jsonl(asLines(all...)), exitOK, "lake: 4 records in 4 lines of 1 files, 0 lines are doubles\n", "the ledger has 4 records\n", equal, "lake: 0 differences\n")
	f("doubled", sent, jsonl(asLines(append(all, all[1], all[1])...)), exitOK, "4 records in 6 lines of 1 files, 2 lines are doubles\n", equal)
	f("missing", sent, jsonl(asLines(all[:3]...)), exitFailed, "lake: "+product+" "+idOf(all[3])+" is missing in the lake\n",
		"cost: 0.000000003 USD in the lake, 0.000000006 USD in the ledger\n", "lake: 1 differences\n")
	f("altered", sent, jsonl(asLines(all[0], all[1], all[2], altered(all[3]))), exitFailed, idOf(all[3])+" is altered in the lake\n")
	lake := jsonl(asLines(all[0], all[1], all[2], strings.TrimSuffix(all[3], "}")+`,"prompt":"my secret"}`))
	f("a member more", sent, lake, exitFailed,
		fmt.Sprintf("%s is altered in the lake, %s:4: no record has a member \"prompt\"\n", idOf(all[3]), filepath.Join(lake, "usage-a.jsonl")))
	f("last line cut off", sent, jsonl(asLines(all...)+all[1][:100]), exitOK, "1 last lines without their end passed over\n", equal)
	f("last line cut off, and nowhere else", sent, jsonl(strings.TrimSuffix(asLines(all...), "\n")), exitFailed, idOf(all[3])+" is missing", "1 last lines without")
	lake = jsonl(asLines(append(all, "broken", strings.Repeat("x", export.RecordBytesMax+1))...))
	file := filepath.Join(lake, "usage-a.jsonl")
	f("broken lines", sent, lake, exitFailed, "lake: "+file+":5: no record: \"broken\"\n", "lake: "+file+":6: more than 200000 bytes\n", "2 LINES OR FILES CANNOT BE READ\n", equal)

	f("Capture", sent, lakeFile(t, "00.avro", captured(t, all...)), exitOK, "4 records in 4 lines of 1 files", equal)
	f("Capture, altered", sent, lakeFile(t, "00.avro", captured(t, all[0], all[1], all[2], altered(all[3]))), exitFailed, idOf(all[3])+" is altered in the lake\n")
	lake = lakeFile(t, "00.avro", captured(t, all[0], "", all[1], all[2], all[3]))
	f("Capture, no body", sent, lake, exitFailed, filepath.Join(lake, "00.avro")+":2: an event without a body\n", equal)
	whole := captured(t, all...)
	lake = lakeFile(t, "00.avro", whole[:len(whole)-40])
	f("Capture, cut off", sent, lake, exitFailed, filepath.Join(lake, "00.avro")+":0: ", "the rest of the file is not read\n", idOf(all[1])+" is missing")

	unsent, product, all := bookedRecords(t, false)
	const onTheWay = "RECORDS ARE ON THEIR WAY, which is no difference: the lake lacks their "
	f("unsent", unsent, jsonl(""), exitOK, "4 "+onTheWay+"0.000000006 USD until they are sent\n",
		"cost: 0 USD in the lake, 0.000000006 USD in the ledger\n", "lake: 0 differences\n")
	f("unsent, some are there", unsent, jsonl(asLines(all[0], all[3])), exitOK, "2 "+onTheWay+"0.000000003 USD")
	f("unsent, altered", unsent, jsonl(asLines(all[0], altered(all[3]))), exitFailed, "lake: "+product+" "+idOf(all[3])+" is altered in the lake\n", "2 "+onTheWay)
	f("unsent, in two versions", unsent, jsonl(asLines(all[3], altered(all[3]))), exitFailed, idOf(all[3])+" the lake has revision 1 in two versions\n")
	f("unsent, of a later revision", unsent, jsonl(asLines(strings.Replace(all[3], `"rev":1`, `"rev":2`, 1))), exitFailed, idOf(all[3])+" the lake has revision 2, the ledger 1\n")

	f("no lake", unsent, t.TempDir(), exitUnknown, "no lake is here")
	f("no folder", unsent, filepath.Join(t.TempDir(), "none"), exitUnknown, "no such file")
}

// TestVerifyLakeJSON: what cannot be told one by one is counted, whatever it is.
func TestVerifyLakeJSON(t *testing.T) {
	dir, _, all := bookedRecords(t, false)
	lake := lakeFile(t, "a.jsonl", all[3]+"\n"+strings.Repeat("x\n", audit.FindingsMax+1)+"unfinished")
	code, stdout, stderr := command(t, map[string]string{"DATA_DIR": dir}, "verify", "-lake", lake, "-json")
	var got struct{ Lake lakeReport }
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitFailed {
		t.Fatalf("exit %d, %v: %s%s", code, err, stdout, stderr)
	}
	r := got.Lake
	if len(r.Findings) != audit.FindingsMax || r.More != 1 || r.Broken != audit.FindingsMax+1 || r.Files != 1 || r.Unfinished != 1 {
		t.Errorf("%d findings, %d more, %d broken, %d files, %d unfinished", len(r.Findings), r.More, r.Broken, r.Files, r.Unfinished)
	}
	if r.Waiting != 3 || r.CostNanoUSD != 3 || r.LedgerCostNanoUSD != 6 || r.WaitingCostNanoUSD != 3 {
		t.Errorf("%+v", r.Report)
	}
}
