package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hamba/avro/v2/ocf"

	"github.com/costgate/costgate/handler/internal/usage"
)

// captureSchema is what Event Hubs Capture writes, to the letter.
const captureSchema = `{"type":"record","name":"EventData","namespace":"Microsoft.ServiceBus.Messaging","fields":[` +
	`{"name":"SequenceNumber","type":"long"},{"name":"Offset","type":"string"},{"name":"EnqueuedTimeUtc","type":"string"},` +
	`{"name":"SystemProperties","type":{"type":"map","values":["long","double","string","bytes"]}},` +
	`{"name":"Properties","type":{"type":"map","values":["long","double","string","bytes"]}},` +
	`{"name":"Body","type":["null","bytes"]}]}`

type captured struct {
	SequenceNumber   int64          `avro:"SequenceNumber"`
	Offset           string         `avro:"Offset"`
	EnqueuedTimeUtc  string         `avro:"EnqueuedTimeUtc"`
	SystemProperties map[string]any `avro:"SystemProperties"`
	Properties       map[string]any `avro:"Properties"`
	Body             *[]byte        `avro:"Body"`
}

// captureFile is a file of Capture with events of these bodies; nil is none.
func captureFile(t testing.TB, codec ocf.CodecName, bodies ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	encoder, err := ocf.NewEncoder(captureSchema, &out, ocf.WithCodec(codec), ocf.WithBlockLength(2), ocf.WithSyncBlock([16]byte{7}),
		ocf.WithSchemaMarshaler(ocf.FullSchemaMarshaler))
	if err != nil {
		t.Fatal(err)
	}
	for i, body := range bodies {
		e := captured{
			SequenceNumber: int64(i), Offset: fmt.Sprint(100 * i), EnqueuedTimeUtc: "11/24/2026 11:00:00 AM",
			SystemProperties: map[string]any{"x-opt-sequence-number": int64(i), "x-opt-partition-key": "p1"},
			Properties:       map[string]any{"ce-type": "costgate.record", "rev": int64(1)},
		}
		if body != nil {
			e.Body = &body
		}
		if err := encoder.Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := encoder.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func id(n int) string { return fmt.Sprintf("019abcde-0000-7000-8000-%012x", n) }

// sold is a request of gpt-4o with all that a record can have.
func sold(n int) usage.Record {
	stream := true
	return usage.Record{
		Schema: usage.RecordSchema, ID: id(n), Rev: 1, Kind: usage.KindRequest, Time: noon.Add(time.Duration(n) * time.Second), Period: "2026-11",
		ProductID: "p1", Product: "Search, \"new\"", KeyID: "k1", RequestID: "r", UpstreamRequestID: "u", ResponseID: "c", Operation: "chat",
		Deployment: "gpt4o", Model: "gpt-4o", SKU: "GlobalStandard", ServiceTier: "default", Region: "eastus", Stream: &stream, Status: usage.Of(200),
		Outcome: "completed", UsageSource: "provider", PromptTokens: usage.Of(1000), CachedTokens: usage.Of(400), CompletionTokens: usage.Of(100),
		Unit: "usd", Charge: usage.Of(3_000_001), CostNanoUSD: usage.Of(3_000_001), ListCostNanoUSD: usage.Of(3_000_001), HoldNanoUSD: usage.Of(9_000_000),
		LatencyMS: usage.Of(900), Attempts: usage.Of(1), User: "anna", Tags: map[string]string{"team": "a", "env": "x"},
	}
}

func line(t testing.TB, r usage.Record) []byte {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func lines(t testing.TB, records ...usage.Record) string {
	t.Helper()
	var out strings.Builder
	for _, r := range records {
		out.Write(line(t, r))
		out.WriteByte('\n')
	}
	return out.String()
}

// lakeOf makes a folder of files, and returns its real name.
func lakeOf(t testing.TB, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run exports as CSV to the standard output and returns its rows by column.
func run(t testing.TB, o Options) (rows []map[string]string, report *Report) {
	t.Helper()
	if o.Format == "" {
		o.Format = CSV
	}
	if o.Format == FOCUS && o.BillingAccount == "" {
		o.BillingAccount, o.BillingName = "acc", "Account"
	}
	o.To = Stdout
	var out bytes.Buffer
	report, err := Run(t.Context(), o, &out)
	if err != nil {
		t.Fatal(err)
	}
	return parseCSV(t, out.String()), report
}

func parseCSV(t testing.TB, text string) (rows []map[string]string) {
	t.Helper()
	all, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(all) == 0 {
		t.Fatalf("%v: %q", err, text)
	}
	for _, cells := range all[1:] {
		row := map[string]string{}
		for i, name := range all[0] {
			row[name] = cells[i]
		}
		rows = append(rows, row)
	}
	return rows
}

// pick joins some columns of all rows.
func pick(rows []map[string]string, columns ...string) string {
	var out []string
	for _, row := range rows {
		var cells []string
		for _, c := range columns {
			cells = append(cells, row[c])
		}
		out = append(out, strings.Join(cells, " "))
	}
	return strings.Join(out, "; ")
}
