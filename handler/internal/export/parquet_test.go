package export

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/usage"
)

// parquetFile exports as Parquet and opens the file.
func parquetFile(t *testing.T, o Options) *parquet.File {
	t.Helper()
	o.To = filepath.Join(t.TempDir(), "out.parquet")
	if _, err := Run(t.Context(), o, nil); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(o.To)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	opened, err := parquet.OpenFile(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

func TestParquetSchema(t *testing.T) {
	file := parquetFile(t, Options{From: lakeOf(t, map[string]string{"a.jsonl": lines(t, sold(1))}), Format: Parquet})
	got := file.Schema().String()
	for _, want := range []string{
		"message record {\n\trequired int64 schema (INT(64,true));\n\trequired binary id (STRING);\n\trequired int64 rev (INT(64,true));\n\trequired binary kind (STRING);\n" +
			"\trequired int64 time (TIMESTAMP(isAdjustedToUTC=true,unit=MILLIS));\n\toptional binary period (STRING);",
		"\toptional boolean stream;\n\toptional int64 status (INT(64,true));",
		"\toptional int64 cost_nano_usd (INT(64,true));",
		"\toptional binary tags (STRING);\n}",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nis not in\n%s", want, got)
		}
	}
	file = parquetFile(t, Options{From: lakeOf(t, map[string]string{"a.jsonl": lines(t, sold(1))}), Format: FOCUS, BillingAccount: "a"})
	got = file.Schema().String()
	for _, want := range []string{
		"required int64 BilledCost (DECIMAL(18,9));", "required int64 ChargePeriodStart (TIMESTAMP(isAdjustedToUTC=true,unit=MILLIS));",
		"optional int64 PricingQuantity (DECIMAL(18,3));", "optional int64 ListUnitPrice (DECIMAL(18,12));", "optional binary ChargeClass (STRING);",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in\n%s", want, got)
		}
	}
}

// Parquet has the cells that CSV has.
func TestParquetIsCSV(t *testing.T) {
	var files strings.Builder
	for n := range 150 { // more than one call of the library
		r := sold(n)
		if n%3 == 0 {
			r = usage.Record{Schema: 1, ID: id(n), Rev: 1, Kind: usage.KindConfig, Time: noon}
		}
		files.WriteString(lines(t, r))
	}
	dir := lakeOf(t, map[string]string{"a.jsonl": files.String()})
	for _, format := range []Format{Parquet, FOCUS} {
		file := parquetFile(t, Options{From: dir, Format: format, BillingAccount: "acc", BillingName: "Account"})
		as := format
		if format == Parquet {
			as = CSV
		}
		want, report := run(t, Options{From: dir, Format: as})
		if file.NumRows() != report.Rows {
			t.Fatalf("%d rows, want %d", file.NumRows(), report.Rows)
		}
		columns := fields(recordColumns)
		if format == FOCUS {
			columns = fields(focusColumns)
		}
		rows := file.RowGroups()[0].Rows()
		read := make([]parquet.Row, 200)
		n, _ := rows.ReadRows(read)
		for i := range n {
			for j, cell := range read[i] {
				v := value{known: !cell.IsNull()}
				switch {
				case !v.known:
				case columns[j].kind == text:
					v.s = string(cell.ByteArray())
				case columns[j].kind == boolean:
					if cell.Boolean() {
						v.n = 1
					}
				default:
					v.n = cell.Int64()
				}
				if diff := cmp.Diff(want[i][columns[j].name], v.format(columns[j].kind)); diff != "" {
					t.Fatalf("row %d, %s: %s", i, columns[j].name, diff)
				}
			}
		}
		_ = rows.Close()
	}
}

func TestParquetRowGroups(t *testing.T) {
	var out strings.Builder
	table := newParquet(&out, "t", []field{{name: "n", kind: integer, required: true}})
	for n := range int64(RowGroupRows + 1) {
		if err := table.row([]value{num(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.close(); err != nil {
		t.Fatal(err)
	}
	file, err := parquet.OpenFile(strings.NewReader(out.String()), int64(out.Len()))
	if err != nil || len(file.RowGroups()) != 2 || file.RowGroups()[0].NumRows() != RowGroupRows {
		t.Errorf("%v, %d row groups", err, len(file.RowGroups()))
	}
}

// A record that Parquet's decimals cannot hold is told of and left out, with all
// its rows; the others are exported.
func TestParquetDecimalMax(t *testing.T) {
	for cost, fits := range map[int64]bool{decimalMax - 1: true, decimalMax: false, 2_000_000_000_000_000_000: false} {
		absurd := sold(2)
		absurd.CostNanoUSD, absurd.ListCostNanoUSD = usage.Of(cost), usage.Of(cost)
		o := Options{
			From: lakeOf(t, map[string]string{"a.jsonl": lines(t, sold(1), absurd), "b.jsonl": lines(t, sold(3))}),
			To:   filepath.Join(t.TempDir(), "x.parquet"), Format: FOCUS, BillingAccount: "a",
		}
		report, err := Run(t.Context(), o, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := []LineError{}
		if !fits {
			want = append(want, LineError{filepath.Join(o.From, "a.jsonl"), 2, "record " + id(2) + ": BilledCost is too large for Parquet: " + decimal(cost, 9)})
		}
		if diff := cmp.Diff(want, report.BadLines); diff != "" || report.Clean() != fits || report.Bad != int64(len(want)) {
			t.Errorf("%d: %s", cost, diff)
		}
		rows := int64(3 - len(want))
		if report.Records != rows || report.Rows != rows || report.Unsplit != rows || fits != (report.Cost > decimalMax/2) {
			t.Errorf("%d: %+v", cost, report)
		}
		if data, err := parquet.ReadFile[struct{ BilledCost int64 }](o.To); err != nil || int64(len(data)) != rows {
			t.Errorf("%d: %d rows, %v", cost, len(data), err)
		}
		o.Strict, o.To = true, filepath.Join(t.TempDir(), "y.parquet")
		line := LineError{}
		if _, err := Run(t.Context(), o, nil); fits && err != nil || !fits && (!errors.As(err, &line) || line.Line != 2) {
			t.Errorf("%d, strict: %v", cost, err)
		}
		if left, _ := os.ReadDir(filepath.Dir(o.To)); (len(left) == 1) != fits {
			t.Errorf("%d, strict: %v", cost, left)
		}
	}
}

// Of a record only the last of whose meters does not fit, the others have no rows
// either.
func TestParquetAllMetersOrNone(t *testing.T) {
	r := sold(1)
	r.PriceKey, r.CompletionTokens = "gpt-4o/2024-11-20/GlobalStandard/*", usage.Of(1000)
	r.ListCostNanoUSD = usage.Of(600*2500 + 400*1250 + 1000*10_000)
	for cost, rows := range map[int64]int64{1_000_000_000_000_000_000: 3, 1_300_000_000_000_000_000: 0} {
		r.CostNanoUSD = usage.Of(cost)
		o := Options{
			From: lakeOf(t, map[string]string{"a.jsonl": lines(t, r)}), To: filepath.Join(t.TempDir(), "x.parquet"), Format: FOCUS, BillingAccount: "a", Prices: pricing.Builtin(),
		}
		report, err := Run(t.Context(), o, nil)
		if err != nil {
			t.Fatal(err)
		}
		data, err := parquet.ReadFile[struct{ SkuMeter string }](o.To)
		if err != nil || report.Rows != rows || int64(len(data)) != rows || report.Clean() != (rows > 0) {
			t.Errorf("%d: %v, %+v, %v", cost, data, report, err)
		}
	}
}

func TestEmptyLakeHasASchema(t *testing.T) {
	file := parquetFile(t, Options{From: lakeOf(t, map[string]string{"a.jsonl": ""}), Format: Parquet})
	if file.NumRows() != 0 || len(file.Schema().Columns()) != len(recordColumns) {
		t.Errorf("%d rows, %v", file.NumRows(), file.Schema())
	}
}
